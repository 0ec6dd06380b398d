//! The same of what tracepoints alone see: TCP's packets have no end there, so that nearly every address is taken over while it is
//! tracked, and the kernel side notices some of that.

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;
use skbtrace_common::{Event, EventFlags, HopId};

use super::{Plan, plan, run};
use crate::trace::testkit::{Lab, PEER1, PEER2, VETH1, VETH2};
use crate::trace::{How, Losses, Outcome, Packet, StitchOptions, Stitcher};

const LENGTH: u32 = 50;

fn events_of(plan: &Plan, number: usize) -> Vec<Event> {
    let mut lab = Lab::new();
    let n = number as u32;
    match plan.kind {
        // Each byte of the stream is sent once: what is read has the numbers of nothing else.
        0 | 1 => lab.seen_data(1, n * 100, LENGTH).seen_read(9_000, LENGTH).events,
        2 => lab.seen_data(1, n * 100, LENGTH).events,
        3 => lab.seen_segment(1, 0x18, n * 100, LENGTH).events,
        4 => lab.seen_data(1, n * 100, LENGTH).dropped(9_000, 1, Some(2)).events,
        5 | 6 => lab.seen_segment(1, 0x10, n, 0).events,
        // Pure ACKs of one direction have the same sequence number. The same ACK twice is told apart by the kernel side alone.
        7 => {
            let mut events = lab.seen_segment(1, 0x10, 7, 0).events;
            events.iter_mut().for_each(|event| event.ack = n + 1);
            events
        }
        kind => {
            let trip = lab.trip(1).addresses(17, (11, 40_000), (10, 9000)).datagram(n as u16, 64);
            let trip = trip.seen_crossing(VETH2, PEER2, 92).seen_crossing(PEER1, VETH1, 92);
            if kind == 8 { trip.events } else { trip.end(HopId::ConsumeSkb, 900).events }
        }
    }
}

proptest! {
    #[test]
    fn no_two_packets_are_one_where_ends_are_unseen(
        plans in prop::collection::vec(plan(), 1..40),
        order in prop::collection::vec(any::<u8>(), 1..200),
        lost in prop_oneof![Just(Vec::new()), prop::collection::vec(0usize..400, 1..30)],
    ) {
        let plans: Vec<Plan> = plans.into_iter().map(|plan| Plan { tapped_after: None, ..plan }).collect();
        let (kernel, of_truth) = run(&plans, &order, events_of);
        let lost: HashSet<usize> = lost.into_iter().filter(|index| *index < kernel.out.len()).collect();
        let mut stitcher = Stitcher::new(StitchOptions { tcp_ends_unseen: true, ..Default::default() });
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
        for packet in &roots {
            let truth = packet.steps[0].event.mark;
            prop_assert!(packet.steps.iter().all(|step| step.event.mark == truth), "merged: {:?}", packet);
            prop_assert!(packet.branches.is_empty() && packet.parts.is_empty() && packet.joined.is_none(), "{:?}", packet);
            prop_assert!(seen.insert(truth, packet).is_none(), "split: {}", truth);
        }
        for (truth, indexes) in &of_truth {
            let lost_here = indexes.iter().filter(|index| lost.contains(index)).count();
            let Some(packet) = seen.get(truth) else {
                // What is read or freed under another's number is nobody's when all before is lost.
                prop_assert!(lost_here > 0, "packet {} is not accounted for", truth);
                continue;
            };
            prop_assert!(packet.steps.len() <= indexes.len() - lost_here);
            if !lost.is_empty() {
                // That TCP had it says no more than that the stack had received it.
                let only = |index: &usize| kernel.out[*index].hop == HopId::TcpProbe as u16;
                let whole = indexes.iter().filter(|index| lost.contains(index)).all(only) && indexes.last().is_some_and(only)
                    || packet.steps.len() == indexes.len();
                prop_assert!(whole || matches!(packet.outcome, Outcome::Incomplete { .. }), "{:?}", packet);
                continue;
            }
            prop_assert_eq!(packet.steps.len(), indexes.len());
            let ended = kernel.out[indexes[indexes.len() - 1]].flags & EventFlags::END != 0;
            let read = packet.steps.iter().any(|step| step.hop == HopId::SkbCopyDatagramIovec);
            if !kernel.taken_over.contains(truth) && (!ended || read) {
                let taken = match packet.outcome {
                    Outcome::Delivered { how, .. } => (how == How::Copied) == read,
                    Outcome::Waiting { .. } => packet.payload_len > 0 && !read,
                    _ => false,
                };
                prop_assert!(taken, "{:?}", packet);
            }
        }
    }
}
