//! From events to packets: one timeline per packet, with its branches, its end and its losses.
//!
//! Pure: no input or output, no clock, nothing of the kernel. Events come in, in the order of the ring; packets go
//! out. So all of it is tested on made-up events, and a recording goes through the same code as a live run.
//!
//! - `decode`: the bytes of the ring ↔ [`Event`](skbtrace_common::Event)
//! - `packet`: what a packet is to the reader: [`Packet`], [`Step`], [`Branch`]
//! - `flow`: who speaks to whom; relative sequence numbers and retransmissions
//! - `identity`: whether an event can belong to a packet: addresses are reused, and packets are never merged
//! - `outcome`: how a packet ended, told from its steps
//! - `open`: a packet that has not ended
//! - `stitch`: the [`Stitcher`], which keeps the packets in flight
//! - `payload`: the bytes of its payload, where they were copied
//! - `latency`: how long packets took from hop to hop, and in all
//! - `summary`: the books of a run

mod decode;
mod flow;
mod identity;
mod latency;
mod open;
mod outcome;
mod packet;
mod payload;
#[cfg(test)]
mod props;
mod stitch;
mod summary;
#[cfg(test)]
pub(crate) mod testkit;
#[cfg(test)]
mod tests;
mod tunnel;

pub use decode::{DIGEST_SIZE, DecodeError, EVENT_SIZE, decode, encode, encode_digest};
pub use flow::{Flow, Icmp, Tcp, tcp_flag};
pub use latency::{Latency, Pair, Times};
pub use outcome::{Cause, How, Outcome, Reasons, Stage};
pub use packet::{Branch, Packet, Part, Process, Queue, Step};
pub use payload::PayloadBytes;
pub use stitch::{StitchOptions, Stitcher};
pub use summary::{HopBooks, Losses, Summary, through_loopback};

#[cfg(test)]
pub(crate) use testkit::Lab;
