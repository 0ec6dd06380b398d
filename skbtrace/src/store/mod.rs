//! A recording: all that a run printed can be printed from it again, byte for byte, and Wireshark opens it as it is.
//! Pure: over whatever reads or writes bytes.
//!
//! A file is pcapng, a section of:
//! - the section's header, the interface for hops that are at no device, and a [`Record::Start`] in a block of our own:
//!   what the output depends on
//! - for every event an enhanced packet block: the packet's bytes where the kernel side took any, wall-clock nanoseconds,
//!   the hop and what became of the packet as comments, and the event itself in a custom option
//! - for every device an interface description, before the first packet that was there
//! - a [`Record`] in a block of our own where something else changed what was printed, and at the end why the run ended
//!
//! Every block is sealed (see `pcapng`). Nothing that has been written is written again, so whatever happens to a run,
//! what it had recorded stays readable.
//!
//! - `pcapng`: blocks, options, the seal
//! - `frame`: an event's bytes as an Ethernet frame
//! - `meta`: what is recorded beside events
//! - `writer`: writes one file
//! - `rotate`: the [`Recorder`] of a run, over one file or many
//! - `reader`: reads files, and tells damage from truth

mod frame;
mod meta;
mod pcapng;
#[cfg(test)]
pub(crate) mod props;
mod reader;
mod rotate;
#[cfg(test)]
pub(crate) mod testkit;
#[cfg(test)]
mod tests;
mod writer;

pub use meta::{End, FORMAT, NameTable, Record, RecordedNames, Start};
pub use pcapng::Fault;
pub use reader::{Item, ReadError, Reader};
pub use rotate::{Parts, Recorder};
pub use writer::Writer;

/// In front of an event in a custom option.
const EVENT_TAG: &[u8; 4] = b"SKBE";
/// In front of the length and the JSON of a record in its block.
const RECORD_TAG: &[u8; 4] = b"SKBR";
