//! The stitcher: keeps the packets in flight, and lets each go when it and all its clones have ended.
//!
//! Which packet a new one comes from is told in `kin`; what becomes of one that is cut, put together or copied, in `whole`;
//! which ones TCP took without a sign, in `taken`; which ones memory cannot hold, in `early`.
//!
//! A packet is reported once, when its end is seen or the run is over; a packet that waits (in a socket that nobody
//! reads) is reported at the end of the run. Only when more packets are open than memory should hold are the ones
//! that have been idle longest reported early, as waiting; what comes for them later is counted, never shown as
//! another packet.

mod early;
mod kin;
mod options;
mod taken;
mod whole;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use skbtrace_common::{DeviceKey, Digest, Event, EventFlags, HopId};

use super::flow::FlowTable;
use super::open::Open;
use super::outcome::{Closing, Outcome, judge};
use super::packet::{Branch, Packet, Step, device, is_end, second_device, waited};
use super::payload;
use super::summary::{HopBooks, Losses, Summary, loops};
use crate::hops::{Role, hop};
pub use options::StitchOptions;
use taken::Taken;
pub(super) use whole::Datagram;
use whole::MAX_CUT;

/// Makes packets out of events.
#[derive(Debug)]
pub struct Stitcher {
    options: StitchOptions,
    /// Packets by the order of their beginning: those that go on, and those that wait for their branches.
    open: BTreeMap<u64, Open>,
    next_key: u64,
    /// Packets that go on, by id, by the address of their `sk_buff`, by the address of their data.
    by_id: HashMap<u64, u64>,
    by_skb: HashMap<u64, u64>,
    by_head: HashMap<u64, Vec<u64>>,
    /// Packets whose memory was freed on a CPU before an XDP program was done with them.
    handed_over: HashMap<u32, u64>,
    /// The packet that was copied last on a CPU: the next new packet there may be the copy.
    copied: HashMap<u32, u64>,
    /// Packets that were cut into parts and wait for them, the oldest first.
    cut: VecDeque<u64>,
    /// Fragments that wait for the others of their datagram.
    fragments: HashMap<Datagram, Vec<u64>>,
    /// What TCP may have taken.
    taken: Taken,
    flows: FlowTable,
    /// Ids reported early, the oldest first.
    evicted: VecDeque<u64>,
    evicted_ids: HashSet<u64>,
    numbered: u64,
    summary: Summary,
}

impl Stitcher {
    /// A stitcher for one run.
    #[must_use]
    pub fn new(options: StitchOptions) -> Stitcher {
        Stitcher {
            options,
            open: BTreeMap::new(),
            next_key: 0,
            by_id: HashMap::new(),
            by_skb: HashMap::new(),
            by_head: HashMap::new(),
            handed_over: HashMap::new(),
            copied: HashMap::new(),
            cut: VecDeque::new(),
            fragments: HashMap::new(),
            taken: Taken::default(),
            flows: FlowTable::default(),
            evicted: VecDeque::new(),
            evicted_ids: HashSet::new(),
            numbered: 0,
            summary: Summary::default(),
        }
    }

    /// Takes the next event of the ring; `sink` gets the packets that are finished by it.
    ///
    /// An event with an unknown hop is not taken: [`super::decode`] refuses those.
    pub fn push(&mut self, event: &Event, sink: &mut dyn FnMut(Packet)) {
        self.push_verified(event, &Digest::default(), sink);
    }

    /// The same for an event with a digest of its payload.
    pub fn push_verified(&mut self, event: &Event, digest: &Digest, sink: &mut dyn FnMut(Packet)) {
        self.push_copied(event, digest, &[], sink);
    }

    /// The same for an event with the packet's first bytes.
    pub fn push_copied(&mut self, event: &Event, digest: &Digest, frame: &[u8], sink: &mut dyn FnMut(Packet)) {
        let Some(hop_id) = HopId::from_number(event.hop) else { return };
        self.summary.events += 1;
        let mut split_from = None;
        let moved;
        let event = match self.heir(event) {
            Some(key) if self.hand_over(key, hop_id, event, sink) => {
                let flags = event.flags & !EventFlags::FIRST | EventFlags::MOVED;
                moved = Event { flags, ..*event };
                &moved
            }
            _ => event,
        };
        if let Some(old) = self.by_skb.get(&event.skb).copied()
            && self.by_id.get(&event.packet).is_none_or(|key| *key != old)
            && self.moves(event)
        {
            self.close(old, Closing::AddressReused { end_lost: true }, sink);
        }
        let key = match self.by_id.get(&event.packet).copied() {
            Some(key) if self.is_stranger(key, hop_id, event) => {
                self.close(key, Closing::AddressReused { end_lost: false }, sink);
                return;
            }
            Some(key) if self.open.get(&key).is_some_and(|open| open.accepts(hop_id, event)) => key,
            Some(key) if self.open.get_mut(&key).is_some_and(|open| open.tunnels(hop_id, event)) => key,
            Some(key) => {
                split_from = self.open.get(&key).map(|open| open.next_step);
                self.close(key, Closing::AddressReused { end_lost: false }, sink);
                self.begin(hop_id, event, split_from, sink)
            }
            None if self.evicted_ids.contains(&event.packet) => {
                self.summary.late_events += 1;
                return;
            }
            None => {
                let Ok(next) = self.begins_after(hop_id, event) else { return };
                split_from = next;
                self.begin(hop_id, event, split_from, sink)
            }
        };
        self.extend(key, hop_id, event, (digest, frame), split_from);
        if self.options.tcp_ends_unseen {
            self.note_taken(key, hop_id, event, sink);
        }
        if is_end(hop_id, event) {
            match self.open.get(&key) {
                // What this CPU does next tells whether it goes on.
                Some(open) if open.is_handed_over(self.options.tcp_ends_unseen) => {
                    self.handed_over.insert(event.cpu, key);
                }
                // The datagram goes on under this address, if there is a hop that sees it.
                Some(open) if open.is_made_whole() => {}
                _ => self.close(key, Closing::End, sink),
            }
        } else if self.by_id.len() > self.options.max_open {
            self.evict(event.time_ns, sink);
        }
    }

    /// Whether the packet has been in another `sk_buff` until now.
    fn moves(&self, event: &Event) -> bool {
        let open = || self.open.get(self.by_id.get(&event.packet)?);
        event.flags & EventFlags::MOVED != 0 || open().is_some_and(Open::is_kept)
    }

    /// The run is over: reports every packet that is still open.
    ///
    /// Tell [`Stitcher::set_losses`] first what was lost: it decides whether a packet without an end is waiting or
    /// incomplete.
    pub fn finish(&mut self, now_ns: u64, sink: &mut dyn FnMut(Packet)) {
        let mut keys: Vec<u64> = self.by_id.values().copied().chain(self.taken.unread()).collect();
        keys.sort_unstable();
        keys.dedup();
        self.handed_over.clear();
        let lossy = self.summary.losses.may_hide_events();
        for key in keys {
            self.close(key, Closing::RunOver { lossy, now_ns }, sink);
        }
        for key in std::mem::take(&mut self.cut) {
            self.give_up_parts(key, sink);
        }
    }

    /// What has been lost since the beginning of the run, by the kernel side's counters.
    pub fn set_losses(&mut self, losses: Losses) {
        self.summary.losses = losses;
    }

    /// The books of the hops, at the end of the run.
    pub fn set_hops(&mut self, hops: Vec<HopBooks>) {
        self.summary.hops = hops;
    }

    /// The books so far.
    #[must_use]
    pub fn summary(&self) -> &Summary {
        &self.summary
    }

    /// How many packets have not been reported yet.
    #[must_use]
    pub fn open_packets(&self) -> usize {
        self.open.len()
    }

    /// Whether nothing is left of any packet, in the indexes neither.
    #[cfg(test)]
    pub(super) fn holds_nothing(&self) -> bool {
        let indexes = self.by_id.is_empty() && self.by_skb.is_empty() && self.by_head.is_empty();
        self.open.is_empty()
            && indexes
            && self.cut.is_empty()
            && self.fragments.is_empty()
            && self.taken.waits_for_nothing()
    }

    /// How many packets go on.
    #[cfg(test)]
    pub(super) fn going_on(&self) -> usize {
        self.by_id.len()
    }

    /// Opens a packet that begins with this event, and returns its key. When its id was another packet's until now,
    /// `split_from` is that one's next step.
    fn begin(&mut self, hop_id: HopId, event: &Event, split_from: Option<u32>, sink: &mut dyn FnMut(Packet)) -> u64 {
        // A new id for an address means that the kernel side saw the end of the old one: that event was lost.
        // Unless the kernel side itself says that it did not.
        if let Some(old) = self.by_skb.get(&event.skb).copied() {
            let end_lost = event.flags & EventFlags::REUSED == 0;
            self.close(old, Closing::AddressReused { end_lost }, sink);
        }
        let role = hop(hop_id).role;
        // Where ends are unseen, a clone may come under the address, and by that the id, of a packet that is no more.
        let begins = if split_from.is_some() { self.options.tcp_ends_unseen } else { event.step == 0 };
        let parent = self.parent_of(hop_id, event, begins);
        let mut open = Open::beginning_with(event);
        open.touched = self.options.target.is_none();
        open.start_unknown =
            split_from.is_some() && parent.is_none() && !role.is_origin() && event.flags & EventFlags::FIRST == 0;
        if let Some((parent, is_part)) = parent
            && let Some(source) = self.open.get_mut(&parent)
        {
            source.branches_open += 1;
            if is_part && source.covers(event) {
                self.cut.retain(|key| *key != parent);
            }
            open.parent = Some((parent, source.branches_off(is_part)));
            open.parent_id = Some(source.id);
            open.depth = source.depth + 1;
            open.inherit_layers(source, is_part);
        }
        let key = self.next_key;
        self.next_key += 1;
        self.by_id.insert(open.kernel_id, key);
        self.by_skb.insert(open.skb, key);
        self.index_head(open.head, key);
        self.open.insert(key, open);
        key
    }

    /// Adds the event to its packet.
    fn extend(&mut self, key: u64, hop_id: HopId, event: &Event, seen: (&Digest, &[u8]), split_from: Option<u32>) {
        let (digest, frame) = seen;
        let Some(open) = self.open.get_mut(&key) else { return };
        let new = open.steps.is_empty();
        let expected = if new { split_from.filter(|next| *next <= event.step).unwrap_or(0) } else { open.next_step };
        let number = event.step.saturating_add(open.step_base);
        let missing = number.saturating_sub(expected);
        let before = open.steps.last();
        let step = Step {
            hop: hop_id,
            delta_ns: before.map_or(0, |before| event.time_ns.saturating_sub(before.event.time_ns)),
            waited: open.last_place().and_then(|before| waited(before, hop_id, missing)),
            missing,
            layer: open.layer,
            event: Event { step: number, ..*event },
            digest: *digest,
        };
        open.next_step = number.saturating_add(1);
        let was_being_cut = open.identity.is_being_cut();
        open.identity.learn(hop_id, event);
        open.touched |= touches(self.options.target, hop_id, event);
        open.learn_headers(event);
        if open.tcp.is_none()
            && open.layer == 0
            && let Some((tcp, retransmission)) = self.flows.note(event, open.parent.is_some())
        {
            open.tcp = Some(tcp);
            open.retransmission = retransmission;
        }
        if self.options.payload > 0 {
            payload::note(&mut open.payloads, &step.event, digest, frame, self.options.payload);
        }
        open.steps.push(step);
        if open.skb != event.skb {
            let old = std::mem::replace(&mut open.skb, event.skb);
            if self.by_skb.get(&old) == Some(&key) {
                self.by_skb.remove(&old);
            }
            self.by_skb.insert(event.skb, key);
        }
        if event.other != 0 {
            open.appended_to = self.by_id.get(&event.other).copied();
        }
        if hop_id == HopId::SkbCopy {
            self.copied.insert(event.cpu, key);
        } else if hop(hop_id).role == Role::Split {
            open.uncovered = event.payload_len;
            self.cut.push_back(key);
        } else if was_being_cut && !open.identity.is_being_cut() && !is_end(hop_id, event) && open.goes_on_cut(event) {
            self.cut.retain(|cut| *cut != key);
        }
        if open.head != event.head {
            // The data was moved to make room for a header.
            let old = std::mem::replace(&mut open.head, event.head);
            self.forget_head(old, key);
            self.index_head(event.head, key);
        }
        self.defragment(key, hop_id, event);
    }

    /// The packet goes on no more.
    fn close(&mut self, key: u64, closing: Closing, sink: &mut dyn FnMut(Packet)) {
        if self.waits_for_reader(key, closing) {
            return;
        }
        let Some(open) = self.open.get_mut(&key) else { return };
        let ended = open.steps.last().is_some_and(Step::is_end);
        let closing = if ended { Closing::End } else { closing };
        let outcome = judge(open, closing, &self.options);
        // What is missing may have been at the target.
        open.touched |= matches!(outcome, Outcome::Incomplete { .. });
        open.outcome = Some(outcome);
        let (id, skb, head, datagram) = (open.kernel_id, open.skb, open.head, open.fragment_of.take());
        let next_step = open.next_step;
        if ended && open.awaits_parts() {
            open.held = true;
            open.branches_open += 1;
        } else if open.uncovered > 0 {
            open.uncovered = 0;
            self.cut.retain(|cut| *cut != key);
        }
        self.forget_unread(key);
        self.append(key);
        if !ended {
            self.note_gone(id, next_step);
        }
        self.forget_fragment(datagram, key);
        if self.by_id.get(&id) == Some(&key) {
            self.by_id.remove(&id);
        }
        if self.by_skb.get(&skb) == Some(&key) {
            self.by_skb.remove(&skb);
        }
        self.forget_head(head, key);
        self.settle(key, sink);
        if self.cut.len() > MAX_CUT
            && let Some(oldest) = self.cut.pop_front()
        {
            self.give_up_parts(oldest, sink);
        }
    }

    /// Reports the packet if it and its branches have ended; a branch goes to its parent, which may be finished by that.
    fn settle(&mut self, mut key: u64, sink: &mut dyn FnMut(Packet)) {
        while let Some(open) = self.open.get(&key) {
            if open.outcome.is_none() || open.branches_open > 0 {
                return;
            }
            let Some(open) = self.open.remove(&key) else { return };
            let place = open.parent;
            let Some(mut packet) = open.into_packet() else { return };
            let Some((parent, after)) = place else {
                if packet.touched_target {
                    self.numbered += 1;
                    packet.number = Some(self.numbered);
                }
                self.summary.book(&packet);
                sink(packet);
                return;
            };
            let Some(source) = self.open.get_mut(&parent) else { return };
            source.touched |= packet.touched_target;
            source.branches_open -= 1;
            source.branches.push((key, Branch { after, packet }));
            key = parent;
        }
    }
}

/// Whether the event is at the target. Packets from a netns to itself go through its loopback device in place of the
/// target that they seem to be for: they count, so that the reader sees where they go.
fn touches(target: Option<DeviceKey>, hop_id: HopId, event: &Event) -> bool {
    target.is_none_or(|target| {
        device(event) == Some(target)
            || second_device(event) == Some(target)
            || (loops(hop_id, event) && event.netns == target.netns)
    })
}
