//! What the run says of times: between which hops, how often, in which order.

use std::collections::BTreeMap;

use skbtrace_common::{DeviceKey, Event, HopId};

use super::branches::{flooded, tapped};
use super::stitch_with;
use crate::trace::testkit::{Lab, VETH1, in_order};
use crate::trace::{Losses, Outcome, Packet, Queue, StitchOptions, Summary};

fn run(events: &[Event]) -> (Vec<Packet>, Summary) {
    let target = DeviceKey { netns: VETH1.netns, ifindex: VETH1.ifindex };
    stitch_with(StitchOptions { target: Some(target), ..Default::default() }, events, Losses::default())
}

fn rows(summary: &Summary) -> Vec<(&'static str, &'static str, u64)> {
    summary.latency.pairs().iter().map(|pair| (pair.from.name(), pair.to.name(), pair.times.count())).collect()
}

#[test]
fn every_two_neighbours_of_a_numbered_packet_count_and_no_others() {
    let mut lab = Lab::new();
    let mut cut = lab.tcp_data(4, 500, 9);
    cut.drain(5..7);
    let traffic = [
        lab.tcp_control(1, 0x02, 99),
        lab.tcp_data(2, 100, 77),
        // Never at the target.
        lab.udp_dropped(3, 1),
        cut,
        tapped(&mut lab, 10),
        lab.udp(5, 2),
    ];
    let (packets, summary) = run(&in_order(traffic));
    let mut expected: BTreeMap<_, Vec<u64>> = BTreeMap::new();
    let mut branches = 0;
    for packet in packets.iter().filter(|packet| packet.number.is_some()) {
        branches += packet.tree().count() - 1;
        for steps in packet.tree().map(|part| &part.steps) {
            for (before, step) in steps.iter().zip(&steps[1..]).filter(|(_, step)| step.missing == 0) {
                let ns = step.event.time_ns - before.event.time_ns;
                expected.entry((before.hop, step.hop, step.waited)).or_default().push(ns);
            }
        }
    }
    assert_eq!((summary.packets, summary.elsewhere, summary.incomplete, branches), (5, 1, 1, 2));
    assert!(!expected.contains_key(&(HopId::NetifRxInternal, HopId::BrHandleFrameFinish, None)), "a gap");
    let told: BTreeMap<_, _> = summary
        .latency
        .pairs()
        .iter()
        .map(|pair| ((pair.from, pair.to, pair.waited), (pair.times.count(), pair.times.sum_ns(), pair.times.max_ns())))
        .collect();
    assert_eq!(told.len(), summary.latency.pairs().len(), "none is there twice");
    let expected: BTreeMap<_, _> = expected
        .into_iter()
        .map(|(pair, ns)| (pair, (ns.len() as u64, ns.iter().sum(), ns.iter().copied().max().unwrap())))
        .collect();
    assert_eq!(told, expected);
    let queues: Vec<_> = summary.latency.pairs().iter().filter_map(|pair| Some((pair.to, pair.waited?))).collect();
    assert!(queues.contains(&(HopId::BrHandleFrame, Queue::Backlog)), "{queues:?}");
    assert!(queues.contains(&(HopId::SkbCopyDatagramIter, Queue::Socket)), "{queues:?}");
    // The whole way counts for what was delivered alone, to its delivery and not to its end.
    let delivered: Vec<u64> = packets
        .iter()
        .filter(|packet| matches!(packet.verdict(), Outcome::Delivered { .. }))
        .map(Packet::total_ns)
        .collect();
    let total = summary.latency.total();
    assert_eq!((total.count(), total.sum_ns()), (delivered.len() as u64, delivered.iter().sum()));
    assert_eq!((total.count(), summary.delivered), (4, 4));
}

#[test]
fn pairs_stand_in_the_order_of_the_path() {
    let mut lab = Lab::new();
    let syn = lab.tcp_control(1, 0x02, 99);
    let (_, first) = run(&syn);
    let events = [syn, lab.tcp_data(2, 100, 77)].concat();
    let (_, summary) = run(&events);
    let (first, both) = (rows(&first), rows(&summary));
    // The way over the second veth pair repeats that over the first, and does not come before the bridge.
    let at = |rows: &[(&str, &str, u64)], from: &str, to: &str| {
        rows.iter().position(|row| (row.0, row.1) == (from, to)).unwrap()
    };
    assert!(at(&first, "__br_forward", "br_dev_queue_push_xmit") < at(&first, "enqueue_to_backlog", "ip_rcv"));
    assert_eq!(first[at(&first, "__dev_queue_xmit", "veth_xmit")].2, 2);
    // What begins where the others have come already, and what ends elsewhere.
    let late = [lab.arp(3), events.clone()].concat();
    let late = rows(&run(&late).1);
    assert_eq!(at(&late, "ip_output", "__dev_queue_xmit"), 0);
    assert!(at(&late, "netif_rx_internal", "enqueue_to_backlog") < at(&late, "enqueue_to_backlog", "arp_rcv"));
    // A clone's come behind those that its source had come through.
    let flood = rows(&run(&flooded(&mut lab)).1);
    let cloned = at(&flood, "__br_forward", "__dev_queue_xmit");
    assert!(at(&flood, "br_handle_frame", "br_handle_frame_finish") < cloned, "{flood:?}");
    // Where the second packet goes on, its pairs stand behind those that it shares with the first.
    let shared = at(&both, "ip_rcv", "tcp_v4_rcv");
    assert_eq!(
        both[shared..],
        [
            ("ip_rcv", "tcp_v4_rcv", 2),
            ("tcp_v4_rcv", "tcp_queue_rcv", 1),
            ("tcp_queue_rcv", "skb_copy_datagram_iter", 1),
            ("skb_copy_datagram_iter", "skb_release_head_state", 1),
            ("tcp_v4_rcv", "skb_release_head_state", 1),
        ]
    );
}
