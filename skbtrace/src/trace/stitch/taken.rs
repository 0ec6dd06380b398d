//! What TCP takes without a sign. Where tracepoints alone are traced, nobody sees it free a segment, append one to another, or
//! GRO do so. But what a process reads, or what comes out of GRO, has a sequence number and a length: whatever has been
//! received and lies within has become a part of it. And a segment without data that nobody dropped or sent on is used up.

use std::collections::{HashMap, VecDeque};

use skbtrace_common::{Event, EventFlags, HopId};

use super::Stitcher;
use crate::hops::{Role, hop};
use crate::trace::open::Open;
use crate::trace::outcome::Closing;
use crate::trace::packet::Packet;

const TCP: u8 = 6;
const UDP: u8 = 17;

/// A segment without data, or a datagram, of which nothing has come for so long is its protocol's. On its way it waits for no more
/// than a queue.
const SILENT_NS: u64 = 500_000_000;

/// So many segments of one direction may wait for their reader; then the oldest wait no longer.
const MAX_UNREAD: usize = 4096;

/// One direction of a connection: addresses and ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Direction([u8; 16], [u8; 16], u16, u16);

impl Direction {
    fn of(event: &Event) -> Direction {
        Direction(event.saddr, event.daddr, event.sport, event.dport)
    }
}

/// So many packets that the kernel side may still take others for are remembered.
const MAX_GONE: usize = 1 << 16;

/// What TCP may have taken.
#[derive(Debug, Default)]
pub(super) struct Taken {
    /// Segments without data and datagrams, and when they were received, the oldest first.
    silent: VecDeque<(u64, u64)>,
    /// Segments with data, in the order in which they were received.
    data: HashMap<Direction, VecDeque<u64>>,
    /// By id, the next step of packets whose end was not seen: the kernel side still has their addresses. And the ids, the oldest first.
    gone: HashMap<u64, u32>,
    gone_ids: VecDeque<u64>,
    /// Events that had been lost at the last tick, and the time of the one at which they had become more.
    lost: u64,
    lost_ns: Option<u64>,
}

impl Taken {
    /// Segments with data that may not have been read.
    pub(super) fn unread(&self) -> impl Iterator<Item = u64> + '_ {
        self.data.values().flatten().copied()
    }

    /// Whether nothing waits for its reader, nor a connection for a segment.
    #[cfg(test)]
    pub(super) fn waits_for_nothing(&self) -> bool {
        self.data.is_empty()
    }
}

impl Stitcher {
    /// Whether an event that the kernel side takes for this packet's is another's: one that has its address since TCP freed it.
    /// The headers of what is read or freed are still there.
    pub(super) fn is_stranger(&self, key: u64, hop_id: HopId, event: &Event) -> bool {
        let late = self.options.tcp_ends_unseen && is_late(hop_id);
        let Some(open) = self.open.get(&key).filter(|_| late) else { return false };
        !open.identity.is_seen_in(hop_id, event)
    }

    /// A packet whose end was not seen goes on no more.
    pub(super) fn note_gone(&mut self, id: u64, next_step: u32) {
        if self.options.tcp_ends_unseen && self.taken.gone.insert(id, next_step).is_none() {
            self.taken.gone_ids.push_back(id);
            if self.taken.gone_ids.len() > MAX_GONE
                && let Some(oldest) = self.taken.gone_ids.pop_front()
            {
                self.taken.gone.remove(&oldest);
            }
        }
    }

    /// The step at which a packet begins that has the id of one that is gone. `Err` when the event is a stranger's: of a packet
    /// that nobody follows, as its reader or its end.
    pub(super) fn begins_after(&self, hop_id: HopId, event: &Event) -> Result<Option<u32>, ()> {
        let next = self.taken.gone.get(&event.packet).copied();
        if next.is_some() && is_late(hop_id) { Err(()) } else { Ok(next) }
    }

    /// Whether a packet with this end unseen goes on as a part of another, which its reader has not come to yet. It then has no
    /// address any more.
    pub(super) fn waits_for_reader(&mut self, key: u64, closing: Closing) -> bool {
        let is_unseen = self.options.tcp_ends_unseen && closing == Closing::AddressReused { end_lost: false };
        let Some(open) = self.open.get(&key).filter(|_| is_unseen) else { return false };
        let has_data = open.identity.payload_len().is_some_and(|length| length > 0);
        let (id, skb, head, next_step) = (open.kernel_id, open.skb, open.head, open.next_step);
        if !has_data || !open.is_taken() || self.by_id.get(&id) != Some(&key) {
            return false;
        }
        self.by_id.remove(&id);
        self.note_gone(id, next_step);
        if self.by_skb.get(&skb) == Some(&key) {
            self.by_skb.remove(&skb);
        }
        self.forget_head(head, key);
        true
    }

    /// Notes that a packet was received, and what has become a part of it by now.
    pub(super) fn note_taken(&mut self, key: u64, hop_id: HopId, event: &Event, sink: &mut dyn FnMut(Packet)) {
        self.close_taken(event.time_ns, sink);
        if event.flags & EventFlags::L4 == 0 || !matches!(event.l4_proto, TCP | UDP) {
            return;
        }
        // From 6.18 on UDP leaves the freeing of what was read to another CPU, as TCP does.
        if hop_id == HopId::NetifReceiveSkb && (event.payload_len == 0 || event.l4_proto == UDP) {
            self.taken.silent.push_back((event.time_ns, key));
        }
        if event.l4_proto == UDP {
            return;
        }
        let direction = Direction::of(event);
        match hop_id {
            _ if brings_data(hop_id, event) => {
                let data = self.taken.data.entry(direction).or_default();
                if data.back() != Some(&key) {
                    data.push_back(key);
                }
                if data.len() > MAX_UNREAD
                    && let Some(oldest) = data.pop_front()
                    && self.open.get(&oldest).is_some_and(|open| self.by_id.get(&open.kernel_id) != Some(&oldest))
                {
                    self.close(oldest, self.closing_of_taken(oldest), sink);
                }
            }
            HopId::SkbCopyDatagramIovec => {}
            _ => return,
        }
        let first = self.open.get(&key).map_or(0, |open| open.payload_len);
        let (length, is_read) = match hop_id {
            HopId::SkbCopyDatagramIovec => (event.len, true),
            HopId::NetifReceiveSkb => (event.payload_len, false),
            _ => return,
        };
        if length > first {
            self.take_over(key, direction, event.seq, length, is_read, sink);
        }
    }

    /// The packet has ended: it waits for its reader no more. A connection of which nothing waits is forgotten.
    pub(super) fn forget_unread(&mut self, key: u64) {
        if !self.options.tcp_ends_unseen {
            return;
        }
        let Some(open) = self.open.get(&key) else { return };
        for step in open.steps.iter().filter(|step| brings_data(step.hop, &step.event)) {
            let direction = Direction::of(&step.event);
            let Some(data) = self.taken.data.get_mut(&direction) else { continue };
            data.retain(|unread| *unread != key);
            if data.is_empty() {
                self.taken.data.remove(&direction);
            }
        }
    }

    /// Closes what has been received and lies within these bytes, but for the packet that has them now.
    fn take_over(
        &mut self,
        whole: u64,
        direction: Direction,
        seq: u32,
        length: u32,
        is_read: bool,
        sink: &mut dyn FnMut(Packet),
    ) {
        let Some(id) = self.open.get(&whole).map(|open| open.id) else { return };
        let Some(data) = self.taken.data.get(&direction) else { return };
        let mut parts = Vec::new();
        for key in data.iter().filter(|key| **key != whole) {
            let Some(open) = self.open.get(key).filter(|open| open.outcome.is_none()) else { continue };
            if lies_within(open, seq, length) && may_be_part(open, is_read) && !parts.contains(key) {
                parts.push(*key);
            }
        }
        for key in parts {
            let Some(open) = self.open.get_mut(&key) else { continue };
            open.joined = Some(id);
            let part = open.as_part();
            if let Some(whole) = self.open.get_mut(&whole) {
                whole.parts.push(part);
            }
            self.close(key, Closing::PartOf(id), sink);
        }
    }

    /// Whether a tick at this time would close something: it must then be recorded.
    #[must_use]
    pub fn has_taken(&self, now_ns: u64) -> bool {
        self.taken.silent.front().is_some_and(|(since, _)| since.saturating_add(SILENT_NS) <= now_ns)
    }

    /// Notes at a tick whether events were lost since the last one. [`Stitcher::tick`] does so itself.
    pub fn note_losses(&mut self, now_ns: u64) {
        let lost = self.summary.losses.hidden_events();
        if lost > self.taken.lost {
            (self.taken.lost, self.taken.lost_ns) = (lost, Some(now_ns));
        }
    }

    /// TCP has taken it, unless another end of it may be among what was lost since.
    fn closing_of_taken(&self, key: u64) -> Closing {
        let last_ns = self.open.get(&key).map_or(0, Open::last_ns);
        Closing::Taken { lossy: self.taken.lost_ns.is_some_and(|lost_ns| lost_ns >= last_ns) }
    }

    /// Closes the first of the segments without data and the datagrams that have been silent. One at a time: the run may be over
    /// with any.
    pub(super) fn close_taken(&mut self, now_ns: u64, sink: &mut dyn FnMut(Packet)) {
        while self.has_taken(now_ns) {
            let Some((since, key)) = self.taken.silent.pop_front() else { return };
            if self.open.get(&key).is_some_and(|open| open.outcome.is_none() && open.last_ns() == since) {
                self.close(key, self.closing_of_taken(key), sink);
                return;
            }
        }
    }
}

/// Whether a packet comes to this hop when it has arrived, or is at its end: none begins there.
fn is_late(hop_id: HopId) -> bool {
    matches!(hop(hop_id).role, Role::Copy | Role::Transport | Role::End)
}

/// Whether the packet may be read from where it comes to now, or from behind it.
fn brings_data(hop_id: HopId, event: &Event) -> bool {
    let is_received = matches!(hop_id, HopId::NapiGroReceiveEntry | HopId::NetifReceiveSkb | HopId::TcpProbe);
    is_received && event.l4_proto == TCP && event.flags & EventFlags::L4 != 0 && event.payload_len > 0
}

fn lies_within(open: &Open, seq: u32, length: u32) -> bool {
    let Some(last) = open.steps.iter().rev().find(|step| step.event.flags & EventFlags::L4 != 0) else { return false };
    let from = last.event.seq.wrapping_sub(seq);
    from < length && last.event.payload_len <= length - from
}

/// What is read has passed the stack; what comes out of GRO has come no further than there.
fn may_be_part(open: &Open, is_read: bool) -> bool {
    open.last_place().is_some_and(|step| match step.hop {
        HopId::NapiGroReceiveEntry => !is_read,
        HopId::NetifReceiveSkb | HopId::TcpProbe => is_read,
        _ => false,
    })
}
