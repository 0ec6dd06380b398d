//! The stitcher on made-up traffic. Here: how packets end, which are numbered, and how many are kept open. `clones`, `parts`
//! and `moved` have packets that are more than one `sk_buff`.

mod branches;
mod identity;
mod latency;
mod moved;
mod parts;
mod taken;
mod tunnel;

use skbtrace_common::{DeviceKey, Event, HopId};

use super::testkit::{
    Lab, NIC, PEER1, PEER2, PORT3, REASON_NETFILTER, REASON_NOT_SPECIFIED, REASON_RCVBUFF, VETH1, VETH2,
};
use super::{Cause, How, Losses, Outcome, Packet, Queue, Reasons, Stage, StitchOptions, Stitcher, Summary};

fn reasons() -> Reasons {
    Reasons::new([
        (2, "SKB_DROP_REASON_NOT_SPECIFIED".to_owned()),
        (REASON_RCVBUFF, "SKB_DROP_REASON_SOCKET_RCVBUFF".to_owned()),
        (REASON_NETFILTER, "SKB_DROP_REASON_NETFILTER_DROP".to_owned()),
    ])
}

fn stitch_with(options: StitchOptions, events: &[Event], losses: Losses) -> (Vec<Packet>, Summary) {
    let mut stitcher = Stitcher::new(StitchOptions { reasons: reasons(), ..options });
    let mut packets = Vec::new();
    let mut sink = |packet| packets.push(packet);
    for event in events {
        stitcher.push(event, &mut sink);
    }
    stitcher.set_losses(losses);
    stitcher.finish(10_000_000_000, &mut sink);
    assert!(stitcher.holds_nothing());
    let summary = stitcher.summary().clone();
    let columns = [
        summary.delivered,
        summary.dropped,
        summary.left,
        summary.merged,
        summary.consumed,
        summary.tapped,
        summary.waiting,
        summary.incomplete,
    ];
    assert_eq!(columns.iter().sum::<u64>(), summary.packets);
    assert_eq!(packets.len() as u64, summary.packets + summary.elsewhere);
    (packets, summary)
}

fn stitch(events: &[Event]) -> Vec<Packet> {
    stitch_with(StitchOptions::default(), events, Losses::default()).0
}

fn hops(packet: &Packet) -> Vec<&'static str> {
    packet.steps.iter().map(|step| step.hop.name()).collect()
}

#[test]
fn a_segment_is_followed_from_curl_to_python() {
    let events = Lab::new().tcp_data(7, 1000, 77);
    let [packet] = &stitch(&events)[..] else { panic!("one packet") };
    assert_eq!((packet.number, packet.id, packet.parent), (Some(1), 7, None));
    assert_eq!(packet.steps.len(), events.len());
    let Outcome::Delivered { how: How::Copied, process: Some(process), socket: Some(socket), at_ns } = packet.outcome
    else {
        panic!("{:?}", packet.outcome)
    };
    assert_eq!((process.pid, &process.comm[..8]), (301, &b"python3\0"[..]));
    assert_eq!(socket.to_string(), "78.78.0.10:8000");
    // Freed later than delivered: the time of delivery is that of the copy.
    assert_eq!(at_ns, packet.steps[packet.steps.len() - 2].event.time_ns);
    assert_eq!(packet.total_ns(), 295_200);
    assert_eq!(packet.sender().map(|process| process.pid), Some(312));
    let waits: Vec<_> =
        packet.steps.iter().filter_map(|step| Some((step.hop.name(), step.waited?, step.delta_ns))).collect();
    assert_eq!(
        waits,
        [
            ("br_handle_frame", Queue::Backlog, 37_100),
            ("ip_rcv", Queue::Backlog, 21_700),
            ("skb_copy_datagram_iter", Queue::Socket, 220_000)
        ]
    );
}

#[test]
fn what_tcp_uses_up_by_itself_is_delivered() {
    let mut lab = Lab::new();
    let events = [lab.tcp_control(1, 0x02, 99), lab.tcp_coalesced(2, 100, 10), lab.tcp_last_ack(3, 110)].concat();
    let how: Vec<_> = stitch(&events)
        .iter()
        .map(|packet| match packet.outcome {
            Outcome::Delivered { how, process: None, .. } => how,
            ref other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(how, [How::Protocol, How::Queued, How::Protocol]);
}

#[test]
fn the_unread_end_of_a_stream_is_no_drop_and_unread_data_is() {
    let mut lab = Lab::new();
    let packets = stitch(&[lab.tcp_unread(1, 0x11, 1, 0), lab.tcp_unread(2, 0x19, 1, 7)].concat());
    assert!(matches!(packets[0].outcome, Outcome::Delivered { how: How::Queued, .. }), "{:?}", packets[0].outcome);
    assert!(
        matches!(packets[1].outcome, Outcome::Dropped { stage: Stage::SocketQueue, .. }),
        "{:?}",
        packets[1].outcome
    );
}

#[test]
fn what_icmpv6_uses_up_is_no_drop_when_no_reason_is_named() {
    let ended = |reason| {
        let mut trip = Lab::new().datagram(1, 1);
        trip.events.truncate(1);
        let trip = trip.cross(VETH1, VETH2, 104).hop(HopId::Icmpv6Rcv, 900, VETH2, 64);
        stitch(&trip.dropped(500, 1, reason).events).remove(0).outcome
    };
    for unnamed in [None, Some(REASON_NOT_SPECIFIED)] {
        assert!(matches!(ended(unnamed), Outcome::Delivered { how: How::Protocol, .. }), "{:?}", ended(unnamed));
    }
    assert!(matches!(ended(Some(REASON_NETFILTER)), Outcome::Dropped { .. }));
}

#[test]
fn a_drop_knows_reason_place_and_stage() {
    let mut lab = Lab::new();
    let closed = lab.datagram(2, 2).process(401, "receiver").dropped(1_000, 0xabcd, None).events;
    let syn = lab.tcp_control(3, 0x02, 1);
    let refused = [&syn[..syn.len() - 1], &[Event { hop: HopId::KfreeSkb as u16, ..syn[syn.len() - 1] }]].concat();
    let (packets, summary) =
        stitch_with(StitchOptions::default(), &[lab.udp_dropped(1, 1), closed, refused].concat(), Losses::default());
    assert_eq!(
        packets[0].outcome,
        Outcome::Dropped {
            reason: Some(REASON_NETFILTER),
            location: 0xffff_ffff_8188_0044,
            at: Some(HopId::BrForward),
            stage: Stage::Path
        }
    );
    assert_eq!(
        packets[1].outcome,
        Outcome::Dropped {
            reason: None,
            location: 0xabcd,
            at: Some(HopId::UdpEnqueueScheduleSkb),
            stage: Stage::SocketQueue
        }
    );
    assert!(matches!(packets[2].outcome, Outcome::Dropped { reason: None, at: Some(HopId::TcpV4Rcv), .. }));
    assert_eq!(summary.drop_reasons, [(None, 2), (Some(REASON_NETFILTER), 1)].into());
}

#[test]
fn a_full_socket_refuses_what_it_never_queued() {
    let stage = |trip: super::testkit::Trip, reason| match stitch(&trip.dropped(500, 1, reason).events)[0].outcome {
        Outcome::Dropped { stage, .. } => stage,
        ref other => panic!("{other:?}"),
    };
    let arrived = || Lab::new().datagram(1, 1);
    let reader = || arrived().process(401, "receiver");
    assert_eq!(stage(arrived(), Some(REASON_RCVBUFF)), Stage::Path);
    assert_eq!(stage(arrived(), None), Stage::Path, "in the softirq that brought it");
    assert_eq!(stage(reader(), None), Stage::SocketQueue);
    assert_eq!(stage(reader(), Some(REASON_NOT_SPECIFIED)), Stage::SocketQueue);
}

#[test]
fn a_packet_with_a_gap_may_have_touched_the_target() {
    let target = DeviceKey { netns: PORT3.netns, ifindex: PORT3.ifindex };
    let options = || StitchOptions { target: Some(target), ..StitchOptions::default() };
    let whole = Lab::new().tcp_data(1, 100, 77);
    let (_, summary) = stitch_with(options(), &whole, Losses::default());
    assert_eq!((summary.packets, summary.elsewhere), (0, 1));
    let mut gap = whole;
    gap.remove(5);
    let (_, summary) = stitch_with(options(), &gap, Losses::default());
    assert_eq!((summary.packets, summary.incomplete, summary.elsewhere), (1, 1, 0));
}

#[test]
fn a_datagram_that_a_process_consumes_was_read_by_it() {
    let mut lab = Lab::new();
    let read = lab.datagram(1, 1).process(401, "receiver").end(HopId::ConsumeSkb, 5_000).events;
    let freed = lab.datagram(2, 2).softirq(0).end(HopId::ConsumeSkb, 5_000).events;
    let packets = stitch(&[read, freed].concat());
    assert!(
        matches!(packets[0].outcome, Outcome::Delivered { how: How::Copied, process: Some(p), .. } if p.pid == 401)
    );
    // Who let go of it was not seen, so that others may not have been.
    let Outcome::Incomplete { causes, .. } = &packets[1].outcome else { panic!("{:?}", packets[1].outcome) };
    assert_eq!(causes[..], [Cause::ProbesMissed { at: HopId::ConsumeSkb }]);
}

#[test]
fn a_lost_event_makes_a_packet_incomplete_and_says_where() {
    let mut events = Lab::new().tcp_data(1, 100, 77);
    events.drain(5..7);
    let [packet] = &stitch(&events)[..] else { panic!("one packet") };
    let Outcome::Incomplete { causes, seen } = &packet.outcome else { panic!("{:?}", packet.outcome) };
    assert_eq!(causes, &[Cause::Missing { after: Some(HopId::NetifRxInternal), count: 2 }]);
    assert!(matches!(seen.as_deref(), Some(Outcome::Delivered { how: How::Copied, .. })));
    // What lies between the two hops beside a gap is unknown, so no wait is claimed there.
    assert_eq!(packet.steps[5].waited, None);
}

#[test]
fn a_packet_without_its_beginning_is_incomplete() {
    let events = Lab::new().udp(1, 1);
    let [packet] = &stitch(&events[3..])[..] else { panic!("one packet") };
    let Outcome::Incomplete { causes, .. } = &packet.outcome else { panic!("{:?}", packet.outcome) };
    assert_eq!(causes, &[Cause::Missing { after: None, count: 3 }]);
}

#[test]
fn what_has_not_ended_says_where_it_waits() {
    let mut lab = Lab::new();
    let unread = lab.datagram(1, 1).events;
    let queued = lab.datagram(2, 2).events[..6].to_vec();
    let read = lab.udp(3, 3);
    let events = [&unread[..], &queued, &read[..read.len() - 1]].concat();
    let (packets, _) = stitch_with(StitchOptions::default(), &events, Losses::default());
    let wait = |at, queue, last: &[Event]| Outcome::Waiting {
        at,
        queue: Some(queue),
        for_ns: 10_000_000_000 - last[last.len() - 1].time_ns,
    };
    assert_eq!(packets[0].outcome, wait(HopId::UdpEnqueueScheduleSkb, Queue::Socket, &unread));
    assert_eq!(packets[1].outcome, wait(HopId::EnqueueToBacklog, Queue::Backlog, &queued));
    // It has been read; that the kernel has not freed it yet is nobody's concern.
    assert!(matches!(packets[2].outcome, Outcome::Delivered { how: How::Copied, .. }));
    // When events were lost, none of this is certain.
    let losses = Losses { ring_full: 1, ..Losses::default() };
    let (packets, summary) = stitch_with(StitchOptions::default(), &events, losses);
    for packet in packets {
        assert_eq!(packet.outcome, Outcome::Incomplete { causes: vec![Cause::EndLost], seen: None });
    }
    assert!(!summary.every_packet_complete());
}

#[test]
fn only_packets_at_the_target_are_numbered() {
    let mut lab = Lab::new();
    let target = |netns, ifindex| StitchOptions { target: Some(DeviceKey { netns, ifindex }), ..Default::default() };
    let events = [lab.tcp_data(1, 1, 1), lab.udp_dropped(2, 1), lab.arp(3), lab.ping_loopback(4)].concat();
    let numbers = |options| {
        let (packets, summary) = stitch_with(options, &events, Losses::default());
        (packets.iter().map(|packet| packet.number).collect::<Vec<_>>(), summary.elsewhere, summary.loopback)
    };
    // The dropped one had peer 1 for its egress port; the loopback is that of calmveth1's netns.
    assert_eq!(numbers(target(VETH1.netns, VETH1.ifindex)), (vec![Some(1), None, Some(2), Some(3)], 1, 1));
    assert_eq!(numbers(target(PEER1.netns, PEER1.ifindex)), (vec![Some(1), Some(2), None, None], 2, 0));
    assert_eq!(numbers(StitchOptions::default()), (vec![Some(1), Some(2), Some(3), Some(4)], 0, 1));
}

#[test]
fn memory_is_bounded_and_nothing_is_reported_twice() {
    let mut lab = Lab::new();
    let trips: Vec<_> = (0..100).map(|n| lab.udp(n + 1, n as u16)).collect();
    let mut stitcher = Stitcher::new(StitchOptions { max_open: 10, ..Default::default() });
    let mut ids = Vec::new();
    let mut sink = |packet: Packet| ids.push(packet.id);
    for trip in &trips {
        for event in &trip[..5] {
            stitcher.push(event, &mut sink);
        }
        assert!(stitcher.open_packets() <= 10);
    }
    for trip in trips.iter().skip(80) {
        for event in &trip[5..] {
            stitcher.push(event, &mut sink);
        }
    }
    stitcher.finish(0, &mut sink);
    assert!(stitcher.summary().late_events > 0);
    ids.sort_unstable();
    assert_eq!(ids, (1..=100).collect::<Vec<_>>());
}

#[test]
fn idle_packets_go_early_only_when_there_are_many() {
    let mut lab = Lab::new();
    let mut stitcher = Stitcher::new(StitchOptions { max_open: 4, ..Default::default() });
    let mut ids = Vec::new();
    for id in 1..=3 {
        stitcher.push(&lab.udp(id, 0)[0], &mut |packet| ids.push(packet.id));
        if id == 2 {
            stitcher.tick(u64::MAX, &mut |packet| ids.push(packet.id));
            assert!(ids.is_empty());
        }
    }
    // The last began at 1.003 s.
    stitcher.tick(2_002_500_000, &mut |packet| ids.push(packet.id));
    assert_eq!(ids, [1, 2]);
}

#[test]
fn arp_is_received_by_the_kernel() {
    let packets = stitch(&Lab::new().arp(1));
    assert!(matches!(packets[0].outcome, Outcome::Delivered { how: How::Protocol, socket: None, .. }));
    assert_eq!((packets[0].ethertype, packets[0].flow), (0x0806, None));
    assert_eq!(hops(&packets[0]).last(), Some(&"consume_skb"));
}

#[test]
fn a_frame_that_leaves_through_a_card_has_left() {
    let mut lab = Lab::new();
    let mut trip = lab.datagram(1, 1);
    trip.events.truncate(1);
    let trip = trip.cross(VETH2, PEER2, 92).bridge(PEER2, NIC, 92).hop(HopId::DevQueueXmit, 500, NIC, 106);
    let read_by_tap = trip.clone().hop(HopId::SkbCopyDatagramIter, 900, NIC, 106).end(HopId::ConsumeSkb, 100).events;
    assert_eq!(stitch(&trip.end(HopId::ConsumeSkb, 900).events)[0].outcome, Outcome::Left);
    assert_eq!(stitch(&read_by_tap)[0].outcome, Outcome::Left);
}
