//! What the tests have in common: the lab, the tracer as a process, its JSON as types, the paths that packets take, traffic
//! with a known number of packets, and a look at what is left behind.

pub mod iperf;
pub mod lab;
pub mod machine;
pub mod model;
pub mod path;
pub mod pcapng;
pub mod ring;
pub mod router;
pub mod tcx;
pub mod tracer;
pub mod traffic;
pub mod tshark;
pub mod web;
pub mod xdp;
