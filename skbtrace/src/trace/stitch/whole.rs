//! Packets that are not one `sk_buff` from end to end: cut into parts, put together from fragments, appended to another, or
//! moved to other memory by an XDP program.
//!
//! The kernel puts a datagram together in the `sk_buff` of the fragment that came last: it takes over the others, its old self
//! is freed (skb_morph), and then the datagram goes up the stack in it. So that fragment is the one that goes on. Where skb_morph
//! is not seen, the end of the old self looks like an end.

use skbtrace_common::{Event, EventFlags, HopId};

use super::Stitcher;
use crate::hops::{Role, hop};
use crate::trace::outcome::{Cause, Closing, Outcome};
use crate::trace::packet::{Packet, is_end};

/// So many packets that were cut are kept waiting for parts that have not been seen.
pub(super) const MAX_CUT: usize = 1024;

/// What fragments of one datagram have in common: the netns that puts it together, addresses, protocol, identification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::trace) struct Datagram(u32, [u8; 16], [u8; 16], u8, u16);

impl Datagram {
    fn of(event: &Event) -> Option<Datagram> {
        let known = event.flags & EventFlags::L3 != 0;
        known.then_some(Datagram(event.netns, event.saddr, event.daddr, event.l4_proto, event.ip_id))
    }
}

impl Stitcher {
    /// The packet that has ended and may go on with this event.
    pub(super) fn heir(&mut self, event: &Event) -> Option<u64> {
        let handed_over = self.handed_over.remove(&event.cpu);
        handed_over.or_else(|| {
            let key = self.by_skb.get(&event.skb).filter(|_| event.flags & EventFlags::FIRST != 0)?;
            self.open.get(key)?.is_made_whole().then_some(*key)
        })
    }

    /// No more parts of this packet are waited for.
    pub(super) fn give_up_parts(&mut self, key: u64, sink: &mut dyn FnMut(Packet)) {
        let Some(open) = self.open.get_mut(&key) else { return };
        let bytes = std::mem::take(&mut open.uncovered);
        if std::mem::take(&mut open.held) {
            let seen = open.outcome.take().map(Box::new);
            open.outcome = Some(Outcome::Incomplete { causes: vec![Cause::PartsUnseen { bytes }], seen });
            open.touched = true;
            open.branches_open -= 1;
            self.settle(key, sink);
        }
    }

    /// The memory of a packet was freed under an XDP program on this CPU. If this event is the packet in its new memory,
    /// it goes on under the new id; else it has ended.
    pub(super) fn hand_over(&mut self, key: u64, hop_id: HopId, event: &Event, sink: &mut dyn FnMut(Packet)) -> bool {
        let Some(open) = self.open.get_mut(&key) else { return false };
        if event.flags & EventFlags::FIRST == 0 || !open.goes_on_as(hop_id, event) {
            self.close(key, Closing::End, sink);
            return false;
        }
        open.steps.pop();
        open.next_step = open.next_step.saturating_sub(1);
        open.step_base = open.next_step;
        let old = std::mem::replace(&mut open.kernel_id, event.packet);
        self.by_id.remove(&old);
        self.by_id.insert(event.packet, key);
        true
    }

    /// Notes that a packet is a fragment that waits for the others; or that it goes on, and has taken them over.
    pub(super) fn defragment(&mut self, key: u64, hop_id: HopId, event: &Event) {
        let Some(open) = self.open.get_mut(&key) else { return };
        if matches!(hop_id, HopId::IpDefrag | HopId::Ipv6FragRcv) {
            if open.fragment_of.is_none()
                && let Some(datagram) = Datagram::of(event)
            {
                open.fragment_of = Some(datagram);
                self.fragments.entry(datagram).or_default().push(key);
            }
            return;
        }
        let goes_on = hop_id == HopId::SkbMorph
            || (!is_end(hop_id, event) && !matches!(hop(hop_id).role, Role::Work | Role::Merge));
        if !goes_on && !open.is_made_whole() {
            return;
        }
        let Some(datagram) = open.fragment_of.take() else { return };
        let id = open.id;
        let others = self.fragments.remove(&datagram).unwrap_or_default();
        let mut parts = Vec::new();
        for other in others.into_iter().filter(|other| *other != key) {
            if let Some(other) = self.open.get_mut(&other) {
                other.fragment_of = None;
                other.was_taken_over(id);
                parts.push(other.as_part());
            }
        }
        if let Some(whole) = self.open.get_mut(&key) {
            whole.parts.extend(parts);
        }
    }

    pub(super) fn forget_fragment(&mut self, datagram: Option<Datagram>, key: u64) {
        if let Some(datagram) = datagram
            && let Some(waiting) = self.fragments.get_mut(&datagram)
        {
            waiting.retain(|other| *other != key);
            if waiting.is_empty() {
                self.fragments.remove(&datagram);
            }
        }
    }

    /// If the packet was appended to another one, each learns of the other.
    pub(super) fn append(&mut self, key: u64) {
        let Some(open) = self.open.get_mut(&key) else { return };
        let Some(step) = open.joins() else { return };
        // Where the kernel's id of the other is no longer the one that it began with, the latter counts.
        let (part, whole, kernel_id) = (open.as_part(), open.appended_to, open.steps[step].event.other);
        let whole_id = match whole.and_then(|whole| self.open.get_mut(&whole)) {
            Some(whole) => {
                whole.parts.push(part);
                whole.id
            }
            None => kernel_id,
        };
        if let Some(open) = self.open.get_mut(&key) {
            open.was_appended_to(step, whole_id);
        }
    }
}
