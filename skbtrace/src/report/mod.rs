//! A recording as a whole, for people who would rather look than read: what `skbtrace report` makes. Pure: packets and findings
//! come in, as the replay of a recording hands them out, and one text comes out.
//!
//! - `page`: one self-contained HTML page; [`Page`]
//! - `model`: the data in it, and `gather`: packets → that data, with what many packets share said once
//! - `table`: what is said once, and the number that stands for it
//! - `links`: which device hands packets to which, told from the packets
//! - `html`: the page around the data: escaping, and the policy that lets nothing but its own script run
//! - `visits`: a packet's stays at devices, for the two below
//! - `perfetto`: a trace for Perfetto and chrome://tracing; [`Perfetto`]
//! - `mermaid`: a sequence diagram of one packet; [`Mermaid`]
//!
//! What a packet or a hop says of itself comes from `render`, so that the page says what `show` says. In `page/` are the page's
//! style sheets and scripts, each a file of its own, put together when skbtrace is built. The scripts draw, filter and sort; they
//! judge nothing.

mod gather;
mod html;
mod links;
mod mermaid;
mod model;
mod page;
mod perfetto;
mod table;
#[cfg(test)]
mod tests;
mod visits;

pub use mermaid::Mermaid;
pub use page::{About, Page};
pub use perfetto::Perfetto;

use crate::trace::{Outcome, Packet};
use crate::verdict::Payload;

/// How much a packet is worth looking at, before all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Interest {
    /// Nothing happened to it.
    Well,
    /// Something of it was not seen.
    Incomplete,
    /// It was dropped.
    Dropped,
    /// Its payload changed.
    Garbled,
}

fn interest(packet: &Packet, payload: &Payload) -> Interest {
    match (payload, packet.verdict()) {
        (Payload::Garbled(_), _) => Interest::Garbled,
        (_, Outcome::Dropped { .. }) => Interest::Dropped,
        (_, Outcome::Incomplete { .. }) => Interest::Incomplete,
        _ => Interest::Well,
    }
}
