//! The whole program on a real kernel, as root, in the lab: what a packet did is known from how the traffic was made,
//! and the trace must say exactly that.
//!
//! `cargo xtask test` runs these in a virtual machine per kernel, one at a time. They change settings of the machine
//! that they run on, so they refuse to run elsewhere; but `tracepoint`, which needs no kprobes, also runs on the machine itself, in
//! a network of its own. No test asserts a time: kernels here run under emulation.

#![expect(clippy::unwrap_used, reason = "these are tests, their helpers included")]

mod branches;
mod change;
mod checksum;
mod diff;
mod doctor;
mod drops;
mod ending;
mod facts;
mod filter;
mod filters;
mod gallery;
mod host;
mod hostile;
mod lockdown;
mod matrix;
mod napi;
mod parts;
mod path;
mod payload;
mod privilege;
mod processors;
mod protocols;
mod recording;
mod skipped;
mod sockets;
mod support;
mod survey;
mod together;
mod tracepoint;
mod tunnel;
mod volume;
