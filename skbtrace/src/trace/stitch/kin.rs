//! Which packet a new one comes from: a clone shares its source's data, a copy is made next to it, a part has a piece of it.

use skbtrace_common::{Event, EventFlags, HopId};

use super::Stitcher;
use crate::hops::{Role, hop};
use crate::trace::open::Open;
use crate::trace::packet::{Step, device};

/// Clones of clones are followed to this depth; deeper ones are packets of their own.
const MAX_DEPTH: u32 = 16;
/// So many packets that share their data are remembered, to find the parent of a clone among them.
const MAX_SIBLINGS: usize = 64;

impl Stitcher {
    /// The packet that a new one is a clone or a copy of, or, then with true, a part. A packet that begins at a sender is none: TCP keeps the data
    /// of what it sent, and sends it again from there. Nor is one whose beginning was lost: it may have been there.
    pub(super) fn parent_of(&mut self, hop_id: HopId, event: &Event, begins: bool) -> Option<(u64, bool)> {
        let role = hop(hop_id).role;
        let known_start = begins || role == Role::Tap;
        if !known_start || role.is_origin() {
            return None;
        }
        // By tracepoints alone, what is first seen where it leaves was cut by GSO: if it has the memory of another packet, that one
        // is no more. Or the device's queue has made two of one.
        if self.options.tcp_ends_unseen && hop_id == HopId::NetDevStartXmit {
            return self
                .clone_source(hop_id, event)
                .filter(|source| self.is_doubled(*source, event))
                .map(|it| (it, false));
        }
        if let Some(source) = self.clone_source(hop_id, event) {
            return Some((source, false)).filter(|_| !self.is_sent_again(source, event));
        }
        if let Some(key) = self.copied.get(&event.cpu).copied()
            && self
                .open
                .get(&key)
                .is_some_and(|open| open.outcome.is_none() && open.identity.is_source_of(hop_id, event))
        {
            self.copied.remove(&event.cpu);
            return Some((key, false));
        }
        let is_cut_into = |open: &Open| open.identity.is_cut_into(hop_id, event);
        let whole = self.cut.iter().copied().find(|key| self.open.get(key).is_some_and(is_cut_into));
        whole.map(|key| (key, true))
    }

    /// Whether TCP sends the same data again: then the one before has left this host's device. A clone that a bridge's own device
    /// makes of what this host sends is made while it is there.
    fn is_sent_again(&self, source: u64, event: &Event) -> bool {
        let Some(open) = self.open.get(&source).filter(|_| event.flags & EventFlags::LOCAL != 0) else { return false };
        let here = |step: &Step| step.role() == Role::Transmit && step.event.cpu == event.cpu;
        !open.last_place().is_some_and(here)
    }

    /// Whether this is all of a packet that has come to the queue of the device that it leaves by.
    fn is_doubled(&self, source: u64, event: &Event) -> bool {
        let Some(open) = self.open.get(&source) else { return false };
        let queued = |step: &Step| step.hop == HopId::NetDevQueue && step.device() == device(event);
        open.identity.payload_len() == Some(event.payload_len) && open.steps.iter().any(queued)
    }

    /// The packet that a new one is a clone of: one that goes on, has the same data and the same headers.
    fn clone_source(&self, hop_id: HopId, event: &Event) -> Option<u64> {
        let sharing = self.by_head.get(&event.head)?;
        let candidates = sharing.iter().filter_map(|key| Some((key, self.open.get(key)?)));
        candidates
            .filter(|(_, open)| open.depth < MAX_DEPTH && open.identity.is_source_of(hop_id, event))
            .max_by_key(|(_, open)| {
                // A clone is made where its source is, at once. Of several, take the one there, then the one seen last.
                let last = open.steps.last().map(|step| step.event.cpu);
                let place = open.last_place().map(|step| (step.device(), step.second_device()));
                let here = device(event);
                let same_device = place.is_some_and(|(first, second)| here == first || here == second);
                // Nobody clones what is in a CPU's queue.
                let in_hand = open.last_place().is_none_or(|step| step.role() != Role::Enqueue);
                (same_device, in_hand, last == Some(event.cpu), open.last_ns())
            })
            .map(|(key, _)| *key)
    }

    pub(super) fn index_head(&mut self, head: u64, key: u64) {
        // 0: it could not be read.
        if head != 0 {
            let sharing = self.by_head.entry(head).or_default();
            if sharing.len() >= MAX_SIBLINGS {
                sharing.remove(0);
            }
            sharing.push(key);
        }
    }

    pub(super) fn forget_head(&mut self, head: u64, key: u64) {
        if let Some(sharing) = self.by_head.get_mut(&head) {
            sharing.retain(|other| *other != key);
            if sharing.is_empty() {
                self.by_head.remove(&head);
            }
        }
    }
}
