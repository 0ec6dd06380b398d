//! What is known of a packet's payload, in words.

use crate::verdict::{Change, Payload, Place};

/// For the packet's first line: `GARBLED between __br_forward and veth_xmit`.
pub(crate) fn garbled(change: &Change) -> String {
    if change.before.hop == change.after.hop {
        return format!("GARBLED between two passes through {}", change.after.hop.name());
    }
    format!("GARBLED between {} and {}", change.before.hop.name(), change.after.hop.name())
}

/// For the same line of a packet that is as it was: `payload same at 14 hops`.
pub(super) fn same(payload: &Payload) -> Option<String> {
    match payload {
        Payload::Same { hops } => Some(format!("payload same at {hops} hops")),
        _ => None,
    }
}

/// For the row of the hop at which it had changed: `◀ 1 byte differs, offset 20 (-65)`.
pub(crate) fn mark(change: &Change) -> String {
    match change.place {
        Some(Place::Byte { offset, difference }) => {
            format!("◀ payload changed: 1 byte differs, offset {offset} ({difference:+})")
        }
        Some(Place::Range { from, to }) => {
            format!("◀ payload changed: it differs from somewhere in bytes {from} to {} on", to.saturating_sub(1))
        }
        None => "◀ payload changed".to_owned(),
    }
}
