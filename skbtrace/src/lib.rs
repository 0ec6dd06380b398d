//! The user side of skbtrace. Data flows down this list and never back up.
//!
//! - `cli`: a file per subcommand; says what to do, does nothing itself
//! - `run`: one run of the tracer, from the interface to the summary
//! - `host`: what this machine is: kernel features, BTF, symbols
//! - `topology`: netns, links, peers and bridges, from netlink, and the segment of one interface
//! - `hops`: the catalogue of hops, and the plan: catalogue × host → what to attach, what not and why
//! - `filter`: expressions of pcap-filter(7) → programs for the kernel
//! - `capture`: loads, attaches, reads the ring: a stream of events
//! - `doctor`: whether a run can work on this machine, what it would lack, and what to do about it
//! - `survey`: what on this host can garble, drop or hold up a packet, for the advice of a finding
//! - `trace`: events → packets. Pure
//! - `verdict`: packets → findings. Pure
//! - `render`: a file per output format. Pure
//! - `report`: a recording as one page, or as a drawing. Pure
//! - `store`: recordings of runs: pcapng files that Wireshark opens as they are. Pure
//! - `lab`: scenarios to trace, built from network namespaces

pub mod capture;
pub mod cli;
pub mod doctor;
pub mod filter;
pub mod hops;
pub mod host;
pub mod lab;
pub mod name;
pub mod render;
pub mod report;
pub mod run;
pub mod store;
pub mod survey;
pub mod topology;
pub mod trace;
pub mod verdict;
