//! Which device hands packets to which. A recording names devices and the bridges that they are ports of; what is connected to
//! what, its packets tell.

use std::collections::BTreeMap;

use skbtrace_common::{DeviceKey, HopId};

use super::model::Link;
use super::table::Table;
use crate::hops::Role;
use crate::trace::{Packet, Step};

/// So many pairs of devices are told apart; only a hostile recording has more.
const MOST: usize = 4096;

/// Pairs of devices that packets passed between, and how many did.
#[derive(Debug, Default)]
pub(super) struct Links {
    seen: BTreeMap<(usize, usize), Seen>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    pair: bool,
    packets: u64,
}

impl Links {
    /// Takes note of a packet whose devices are known.
    pub(super) fn note(&mut self, known: &Table<(DeviceKey, [u8; 16])>, packet: &Packet) {
        // A packet that comes by twice, or as a clone, is still one.
        let mut passed = BTreeMap::new();
        for packet in packet.tree() {
            let mut before: Option<(usize, &Step)> = None;
            for step in &packet.steps {
                if step.missing > 0 {
                    before = None;
                }
                let Some(device) = device(known, step) else { continue };
                if let Some((from, last)) = before.filter(|(from, _)| *from != device) {
                    let pair: &mut bool = passed.entry((from, device)).or_default();
                    *pair |= is_pair(last, step);
                }
                before = Some((device, step));
            }
        }
        for (ends, pair) in passed {
            if self.seen.len() < MOST || self.seen.contains_key(&ends) {
                let seen = self.seen.entry(ends).or_default();
                seen.pair |= pair;
                seen.packets += 1;
            }
        }
    }

    /// All of them.
    pub(super) fn all(&self) -> Vec<Link> {
        let link =
            |(&(from, to), seen): (&(usize, usize), &Seen)| Link { from, to, pair: seen.pair, packets: seen.packets };
        self.seen.iter().map(link).collect()
    }
}

/// Whether what is sent by one step is received by the next, on another device: only the ends of a pair are connected so.
fn is_pair(sent: &Step, received: &Step) -> bool {
    let sends = sent.role() == Role::Cross || sent.hop == HopId::NetDevStartXmit;
    sends && matches!(received.role(), Role::Enqueue | Role::Receive)
}

fn device(known: &Table<(DeviceKey, [u8; 16])>, step: &Step) -> Option<usize> {
    known.find(&(step.device()?, step.event.dev))
}
