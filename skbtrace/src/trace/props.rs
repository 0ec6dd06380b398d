//! Any traffic, in any order, with any losses: no packet is merged with another, none is in two places, and none with
//! a gap passes for whole.
//!
//! A small model of the kernel side gives out addresses and ids; the truth travels in the `mark` of each event, which
//! the stitcher does not look at. What tracepoints alone see is in `taken`.

mod taken;

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;
use skbtrace_common::{Event, EventFlags, HOP_COUNT, HopId};

use super::testkit::{Lab, VETH1, VETH2};
use crate::render::{Json, Style, Text};

use super::{Losses, Outcome, Packet, Reasons, StitchOptions, Stitcher};

/// What one packet of the traffic is, and what befalls it.
#[derive(Clone, Debug)]
struct Plan {
    kind: u8,
    /// Which of few addresses its sk_buff gets.
    address: u64,
    /// The kernel side does not see its end.
    end_missed: bool,
    /// When the address is still tracked, the kernel side notices it at the sender.
    reuse_noticed: bool,
    /// A tap takes a clone of it after this event.
    tapped_after: Option<u8>,
}

fn plan() -> impl Strategy<Value = Plan> {
    let tapped = prop::option::weighted(0.2, 0u8..12);
    (0u8..11, 0u64..4, prop::bool::weighted(0.15), any::<bool>(), tapped).prop_map(
        |(kind, address, end_missed, reuse_noticed, tapped_after)| Plan {
            kind,
            address,
            end_missed,
            reuse_noticed,
            tapped_after,
        },
    )
}

fn events_of(plan: &Plan, number: usize) -> Vec<Event> {
    let mut lab = Lab::new();
    let n = number as u32;
    match plan.kind {
        0 => lab.tcp_data(1, n * 100, 77),
        1 => lab.tcp_control(1, 0x10, n),
        // The same bytes again and again: retransmissions.
        2 => lab.tcp_data(1, 5_000_000, 50),
        3 => lab.udp(1, n as u16),
        4 => lab.udp_dropped(1, n as u16),
        5 => lab.tcp_coalesced(1, n * 100, 40),
        6 => lab.bridged(|trip| trip.addresses(6, (11, 1), (10, 2)).tcp(0x10, n * 100, 400)),
        7 => lab.bridged(|trip| trip.addresses(17, (11, 1), (10, 2)).datagram(n as u16, 400)),
        // Pure ACKs of one direction have the same sequence number.
        8 => {
            let mut events = lab.bridged(|trip| trip.addresses(6, (11, 1), (10, 2)).tcp(0x10, 7, 0));
            events.iter_mut().for_each(|event| event.ack = n);
            events
        }
        9 => lab.ping_loopback(1),
        // What TCP keeps, and the clone of it that is sent.
        _ => {
            let trip = lab.trip(1).addresses(6, (11, 58_854), (10, 8000)).tcp(0x18, n * 100, 40);
            trip.sent_by_tcp(0, VETH2).cross(VETH2, VETH1, 92).end(HopId::ConsumeSkb, 900).events
        }
    }
}

/// A packet under way in the model.
struct Flying {
    truth: u32,
    skb: u64,
    end_missed: bool,
    reuse_noticed: bool,
    tapped_after: Option<u8>,
    rest: std::vec::IntoIter<Event>,
    done: u8,
}

/// The kernel side: which address has which id, and the next step.
#[derive(Default)]
struct Kernel {
    tracked: HashMap<u64, (u64, u32)>,
    /// Ids of packets that TCP has announced, by their truth.
    pending: HashMap<u32, u64>,
    last_id: u64,
    out: Vec<Event>,
    /// Truths whose address was taken over while it was tracked, and the truths that took it over.
    reused: HashSet<u32>,
    taken_over: HashSet<u32>,
    owner: HashMap<u64, u32>,
}

impl Kernel {
    fn hit(&mut self, flying: &Flying, mut event: Event) {
        event.mark = flying.truth;
        event.flags &= !EventFlags::FIRST;
        if event.hop == HopId::TcpTransmitSkb as u16 {
            self.last_id += 1;
            self.pending.insert(flying.truth, self.last_id);
            event.skb = 0x9000 + u64::from(flying.truth);
            (event.packet, event.step) = (self.last_id, 0);
            event.flags |= EventFlags::FIRST;
            self.out.push(event);
            return;
        }
        event.skb = flying.skb;
        if let Some(id) = self.pending.remove(&flying.truth) {
            // Whoever has the address has lost its end.
            if self.tracked.insert(flying.skb, (id, 1)).is_some() {
                self.reused.extend(self.owner.get(&flying.skb));
            }
            self.owner.insert(flying.skb, flying.truth);
        }
        let is_end = event.flags & EventFlags::END != 0;
        if is_end && flying.end_missed {
            return;
        }
        let first_of_truth = self.owner.get(&flying.skb) != Some(&flying.truth);
        if first_of_truth && self.tracked.contains_key(&flying.skb) {
            self.reused.extend(self.owner.get(&flying.skb));
            if flying.reuse_noticed {
                self.tracked.remove(&flying.skb);
                event.flags |= EventFlags::REUSED;
            } else {
                self.taken_over.insert(flying.truth);
            }
        }
        self.owner.insert(flying.skb, flying.truth);
        let entry = self.tracked.entry(flying.skb).or_insert_with(|| {
            self.last_id += 1;
            event.flags |= EventFlags::FIRST;
            (self.last_id, 0)
        });
        (event.packet, event.step) = *entry;
        entry.1 += 1;
        if is_end {
            self.tracked.remove(&flying.skb);
        }
        self.out.push(event);
    }
}

/// Runs the traffic: `order` picks whose event is next. Returns the events before any loss, and the kernel's state.
fn run(plans: &[Plan], order: &[u8], events_of: fn(&Plan, usize) -> Vec<Event>) -> (Kernel, HashMap<u32, Vec<usize>>) {
    let mut kernel = Kernel::default();
    let mut waiting: std::collections::VecDeque<(usize, &Plan)> = plans.iter().enumerate().collect();
    let mut flying: Vec<Flying> = Vec::new();
    let mut clock = 0;
    let mut next_tap = 1000;
    for choice in order.iter().cycle() {
        // Packets start in turn; an address is given out only when its owner has gone.
        if let Some((number, plan)) = waiting.front()
            && flying.iter().all(|other| other.skb != plan.address)
        {
            let rest = events_of(plan, *number).into_iter();
            let (skb, truth) = (plan.address, *number as u32);
            let Plan { end_missed, reuse_noticed, tapped_after, .. } = **plan;
            flying.push(Flying { truth, skb, end_missed, reuse_noticed, tapped_after, rest, done: 0 });
            waiting.pop_front();
        }
        if flying.is_empty() {
            break;
        }
        let index = usize::from(*choice) % flying.len();
        let one = &mut flying[index];
        let Some(mut event) = one.rest.next() else {
            flying.swap_remove(index);
            continue;
        };
        clock += 1000;
        event.time_ns = clock;
        // Retransmissions share the data of the segment before them; nothing else shares any.
        event.head = if event.seq == 5_000_000 { 0xfff } else { 0x1000 + u64::from(one.truth) };
        kernel.hit(one, event);
        let tap_now = one.tapped_after == Some(one.done) && event.flags & EventFlags::END == 0;
        one.done += 1;
        if tap_now {
            let truth = one.truth + 10_000;
            let mut lab = Lab::new();
            let clone = lab.clone_of(1, &event).hop(HopId::PacketRcv, 0, VETH2, 1).end(HopId::ConsumeSkb, 1).events;
            let mut rest = clone.into_iter();
            let first = rest.next();
            let tap = Flying {
                truth,
                skb: next_tap,
                end_missed: false,
                reuse_noticed: false,
                tapped_after: None,
                rest,
                done: 1,
            };
            next_tap += 1;
            if let Some(mut first) = first {
                (first.head, first.time_ns) = (event.head, clock);
                kernel.hit(&tap, first);
            }
            flying.push(tap);
        }
    }
    let mut of_truth: HashMap<u32, Vec<usize>> = HashMap::new();
    for (index, event) in kernel.out.iter().enumerate() {
        of_truth.entry(event.mark).or_default().push(index);
    }
    (kernel, of_truth)
}

proptest! {
    #[test]
    fn no_packet_is_merged_split_or_called_whole_with_a_gap(
        plans in prop::collection::vec(plan(), 1..25),
        order in prop::collection::vec(any::<u8>(), 1..200),
        lost in prop_oneof![Just(Vec::new()), prop::collection::vec(0usize..400, 1..30)],
    ) {
        let (kernel, of_truth) = run(&plans, &order, events_of);
        let lost: HashSet<usize> = lost.into_iter().filter(|index| *index < kernel.out.len()).collect();
        let mut stitcher = Stitcher::new(StitchOptions { reasons: Reasons::default(), ..Default::default() });
        let mut roots: Vec<Packet> = Vec::new();
        for (index, event) in kernel.out.iter().enumerate() {
            if !lost.contains(&index) {
                stitcher.push(event, &mut |packet| roots.push(packet));
            }
        }
        stitcher.set_losses(Losses { ring_full: lost.len() as u64, ..Losses::default() });
        stitcher.finish(u64::MAX, &mut |packet| roots.push(packet));
        prop_assert!(stitcher.holds_nothing());

        let mut seen: HashMap<u32, &Packet> = HashMap::new();
        for packet in roots.iter().flat_map(Packet::tree) {
            let truth = packet.steps[0].event.mark;
            prop_assert!(packet.steps.iter().all(|step| step.event.mark == truth), "merged: {:?}", packet);
            prop_assert!(seen.insert(truth, packet).is_none(), "split: {}", truth);
            for branch in &packet.branches {
                let source = branch.packet.steps[0].event;
                prop_assert_eq!(source.hop, HopId::PacketRcv as u16, "only taps are branches here");
                prop_assert_eq!(source.head, packet.steps[branch.after].event.head);
            }
        }
        for (truth, indexes) in &of_truth {
            let lost_here = indexes.iter().filter(|index| lost.contains(index)).count();
            let Some(packet) = seen.get(truth) else {
                prop_assert_eq!(lost_here, indexes.len(), "packet {} is not accounted for", truth);
                continue;
            };
            prop_assert_eq!(packet.steps.len(), indexes.len() - lost_here);
            let incomplete = matches!(packet.outcome, Outcome::Incomplete { .. });
            if lost_here > 0 || kernel.reused.contains(truth) {
                prop_assert!(incomplete, "{:?}", packet);
            }
            let ended = kernel.out[indexes[indexes.len() - 1]].flags & EventFlags::END != 0;
            if lost_here == 0 && ended && !kernel.taken_over.contains(truth) {
                prop_assert!(!incomplete, "{:?}", packet);
            }
            if lost.is_empty() && *truth >= 10_000 {
                prop_assert!(packet.parent.is_some(), "a tap's clone lost its parent");
            }
        }
    }

    /// Events that no kernel would send, as a damaged recording might hold them.
    #[test]
    fn events_without_sense_are_booked_and_do_no_harm(
        wild in prop::collection::vec((1u64..5, 0u64..4, 0u64..3, 0u16..HOP_COUNT as u16, any::<u16>(), any::<u32>(), 0u8..3), 1..200),
        max_open in 0usize..6,
    ) {
        let mut stitcher = Stitcher::new(StitchOptions { max_open, ..Default::default() });
        let mut packets: Vec<Packet> = Vec::new();
        let sample = Lab::new().tcp_data(1, 1, 1)[0];
        let count = wild.len() as u64;
        let mut freed = 0;
        for (packet, skb, head, hop, bits, number, kind) in wild {
            let step = if kind == 0 { number } else { number % 20 };
            let flags = u32::from(bits) & 0x3ff;
            let l4_proto = [6, 17, 1][usize::from(kind)];
            let time_ns = u64::from(number) << (bits % 33);
            let other = head;
            freed += u64::from(HopId::ConsumeSkb as u16 == hop || HopId::SkbReleaseHeadState as u16 == hop);
            let event = Event { packet, skb, head, hop, step, flags, l4_proto, time_ns, other, ..sample };
            stitcher.push(&event, &mut |packet| packets.push(packet));
            prop_assert!(stitcher.going_on() <= max_open);
        }
        stitcher.finish(0, &mut |packet| packets.push(packet));
        prop_assert!(stitcher.holds_nothing());
        let steps: usize = packets.iter().flat_map(Packet::tree).map(|packet| packet.steps.len()).sum();
        // The end of memory that a packet has left is no step of it.
        let booked = steps as u64 + stitcher.summary().late_events;
        prop_assert!(booked <= count && count <= booked + freed, "{} of {}", booked, count);
        let names = Reasons::default();
        let mut text = Text::new(Style { colour: true, explain: true, ..Style::default() });
        let mut out = Vec::new();
        for packet in &packets {
            text.packet(&mut out, packet, &crate::verdict::payload(packet), &names).unwrap();
            Json::default().packet(&mut out, packet, &crate::verdict::payload(packet), &names).unwrap();
        }
        text.summary(&mut out, stitcher.summary(), &names).unwrap();
    }
}
