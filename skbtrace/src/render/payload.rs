//! What is known of a packet's payload, in words.

use crate::verdict::{Change, Changes, Payload, Place};

/// For the packet's first line: `GARBLED between __br_forward and veth_xmit`, `, again between ip_rcv and tcp_v4_rcv`.
pub(crate) fn garbled(changes: &Changes) -> String {
    let between = |change: &Change| {
        let (before, after) = (change.before.hop, change.after.hop);
        if before == after {
            return format!("between two passes through {}", after.name());
        }
        format!("between {} and {}", before.name(), after.name())
    };
    let first = format!("GARBLED {}", between(changes.first()));
    changes.more().fold(first, |words, change| format!("{words}, again {}", between(change)))
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
