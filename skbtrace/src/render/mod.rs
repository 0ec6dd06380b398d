//! Packets for readers: a file per format. Pure: writes to whatever it is handed, and passes its errors up, so that a
//! closed pipe ends the run and not the terminal.
//!
//! - `text`: timelines for people
//! - `json`: a line per packet for programs; its schema is `schema/packet.schema.json`
//! - `row`: what one hop says of itself, for the text
//! - `checksum`: what it says of the packet's checksums
//! - `hex`: the bytes of a payload before and after a change
//! - `diff`: what changed from hop to hop
//! - `headline`: what one packet says of itself in one line, and how it ended
//! - `finding`: what was found in a run, for the text
//! - `latency`: the table of times from hop to hop, for the text
//! - `doctor`: what this machine offers, as a table and as JSON
//! - `units`: durations

mod checksum;
mod diff;
pub mod doctor;
pub(crate) mod finding;
pub(crate) mod headline;
pub(crate) mod hex;
pub(crate) mod json;
mod latency;
pub(crate) mod payload;
pub(crate) mod row;
#[cfg(test)]
mod tests;
mod text;
mod units;

pub use finding::HostOf;
pub use headline::finding;
pub use hex::MAX_PAYLOAD;
pub use json::{JSON_VERSION, Json};
pub use text::{Style, Text};
pub use units::duration;

use skbtrace_common::DeviceKey;

use crate::name::printable;
use crate::trace::Reasons;

/// Names that an event does not hold, looked up when they are printed.
///
/// What is returned is safe to print, on a terminal and in JSON: the renderers write it as it is. Whoever implements this
/// escapes what people chose, once, by [`printable`]; only the names in the events themselves are left to the renderers.
pub trait Names {
    /// Name of the network namespace with this number, or words that stand for it.
    fn netns(&self, inum: u32) -> String;

    /// Name of the bridge that the device is a port of.
    fn bridge_of(&self, _device: DeviceKey) -> Option<String> {
        None
    }

    /// Name of a drop reason of the traced kernel, without its prefix.
    fn reason(&self, _reason: u32) -> Option<String> {
        None
    }

    /// The kernel function at this address, and the offset in it: `nf_hook_slow+0x44`.
    fn symbol(&self, _address: u64) -> Option<String> {
        None
    }
}

/// Names for when nothing is known but the drop reasons.
impl Names for Reasons {
    fn netns(&self, inum: u32) -> String {
        format!("netns:{inum}")
    }

    fn reason(&self, reason: u32) -> Option<String> {
        self.name(reason).map(|name| printable(name.as_bytes()))
    }
}

/// A drop reason's name, or its number where it has none.
fn reason_name(names: &dyn Names, reason: u32) -> String {
    names.reason(reason).unwrap_or_else(|| format!("reason {reason}"))
}

/// A place in the kernel: a symbol, or the bare address.
fn place(names: &dyn Names, address: u64) -> String {
    names.symbol(address).unwrap_or_else(|| format!("{address:#x}"))
}
