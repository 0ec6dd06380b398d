//! What is a finding, and what never is.

mod tracepoints;

use proptest::prelude::*;
use skbtrace_common::{Digest, Event, EventFlags, HopId};

use super::Findings;
use crate::trace::testkit::{
    BRIDGE, Lab, PEER1, PEER2, PORT3, REASON_NETFILTER, REASON_RCVBUFF, Trip, VETH1, VETH2, in_order,
};
use crate::trace::{Losses, Reasons, StitchOptions, Stitcher};
use crate::verdict::digest::tests::digest_of;
use crate::verdict::{Class, Detail, Finding, Span, payload};

const NAMES: [(u32, &str); 8] = [
    (2, "NOT_SPECIFIED"),
    (3, "NO_SOCKET"),
    (REASON_RCVBUFF, "SOCKET_RCVBUFF"),
    (6, "OTHERHOST"),
    (REASON_NETFILTER, "NETFILTER_DROP"),
    (9, "TCP_OLD_DATA"),
    (10, "UNHANDLED_PROTO"),
    (11, "TCP_CSUM"),
];

fn reasons() -> Reasons {
    Reasons::new(NAMES.map(|(number, name)| (number, name.to_owned())))
}

/// An address in TCP's code, and one in that of all that is received; others have no name.
const IN_TCP: u64 = 0x7c9;
const IN_CORE: u64 = 0x7ca;

fn found_with(events: &[Event], slow_ns: Option<u64>, digest: impl Fn(&Event) -> Digest) -> Vec<Finding> {
    let tcp_ends_unseen = events.iter().any(|event| event.hop == HopId::NetDevQueue as u16);
    let mut stitcher = Stitcher::new(StitchOptions { reasons: reasons(), tcp_ends_unseen, ..Default::default() });
    let mut packets = Vec::new();
    for event in events {
        stitcher.push_verified(event, &digest(event), &mut |packet| packets.push(packet));
    }
    stitcher.set_losses(Losses::default());
    stitcher
        .finish(events.iter().map(|event| event.time_ns).max().unwrap_or(0) + 1, &mut |packet| packets.push(packet));
    let mut findings = Findings::new(reasons(), slow_ns);
    let symbol = |address| match address {
        IN_TCP => Some("tcp_v4_rcv+0x2bd".to_owned()),
        IN_CORE => Some("__netif_receive_skb_core.constprop.0+0x1f7".to_owned()),
        _ => None,
    };
    packets.iter().for_each(|packet| findings.observe(packet, &payload(packet), &symbol));
    findings.all()
}

fn found(events: &[Event]) -> Vec<Finding> {
    found_with(events, None, |_| Digest::default())
}

/// A datagram through the bridge; `queued` makes its way from the call of the port's queue to the driver.
fn bridged(lab: &mut Lab, id: u64, queued: impl FnOnce(Trip) -> Trip) -> Trip {
    let trip = lab.trip(id).addresses(17, (11, 40_000), (10, 9000)).datagram(id as u16, 64).process(400, "sender");
    let trip = trip.hop(HopId::IpOutput, 0, VETH2, 92).cross(VETH2, PEER2, 92).softirq(0).bridge(PEER2, PEER1, 92);
    queued(trip.hop(HopId::DevQueueXmit, 900, PEER1, 106))
}

/// From the driver to the reader.
fn arrives(trip: Trip) -> Trip {
    let trip = trip.hop(HopId::NetDevStartXmit, 100, PEER1, 106).hop(HopId::VethXmit, 100, PEER1, 106).to(VETH1);
    let trip = trip.hop(HopId::NetifRxInternal, 900, VETH1, 92).hop(HopId::EnqueueToBacklog, 100, VETH1, 92);
    let trip = trip.softirq(1).hop(HopId::IpRcv, 9_000, VETH1, 92).hop(HopId::UdpEnqueueScheduleSkb, 900, VETH1, 72);
    trip.process(401, "receiver").hop(HopId::SkbCopyDatagramIter, 5_000, VETH1, 72)
}

fn queued(lab: &mut Lab, id: u64, ns: u64) -> Vec<Event> {
    let trip = bridged(lab, id, |trip| {
        let mut trip = trip.softirq(1);
        trip.next.time_ns += ns;
        trip
    });
    arrives(trip).end(HopId::ConsumeSkb, 600).events
}

#[test]
fn clean_traffic_has_no_findings() {
    let mut lab = Lab::new();
    let parent = lab.tcp_data(20, 1, 1);
    let tap = lab.clone_of(21, &parent[2]).hop(HopId::PacketRcv, 0, VETH2, 106).end(HopId::ConsumeSkb, 50).events;
    let refused = lab.udp(22, 9);
    let full = lab.clone_of(23, &refused[7]).hop(HopId::TpacketRcv, 0, VETH2, 92);
    let full = full.dropped(50, 0, Some(2)).events;
    let events = [
        lab.tcp_control(1, 0x02, 1),
        lab.tcp_data(2, 2, 77),
        // The same bytes once more, and once more behind them.
        lab.tcp_data(3, 2, 77),
        lab.tcp_coalesced(4, 79, 77),
        lab.tcp_last_ack(5, 156),
        lab.tcp_unread(6, 0x11, 156, 0),
        lab.tcp_unread(7, 0x18, 156, 10),
        lab.udp(8, 8),
        lab.arp(9),
        lab.ping_loopback(10),
        in_order([parent, tap]),
        in_order([refused, full]),
        // Left waiting at the end, in a socket and in a queue.
        lab.datagram(11, 11).events,
    ]
    .concat();
    assert_eq!(found(&events), []);
}

#[test]
fn what_tcp_and_broadcasts_meet_at_a_receiver_is_no_finding() {
    let mut lab = Lab::new();
    let segment = |lab: &mut Lab, id, flags, reason| {
        let trip = lab.trip(id).addresses(6, (11, 58_854), (10, 8000)).tcp(flags, 77, 10).process(312, "curl");
        let trip = trip.hop(HopId::IpOutput, 0, VETH2, 62).cross(VETH2, VETH1, 62).softirq(0);
        trip.hop(HopId::IpRcv, 900, VETH1, 62).hop(HopId::TcpV4Rcv, 900, VETH1, 42).dropped(900, 1, reason).events
    };
    for (flags, reason) in [(0x04, Some(3)), (0x11, Some(3)), (0x18, Some(9)), (0x18, Some(2)), (0x18, None)] {
        assert_eq!(found(&segment(&mut lab, 1, flags, reason)), [], "{flags:#x} {reason:?}");
    }
    // But nobody listens where a connection is to be opened: that is one.
    let [refused] = &found(&segment(&mut lab, 1, 0x02, Some(3)))[..] else { panic!("one finding") };
    assert_eq!((refused.class, refused.span), (Class::Dropped, Span::At(HopId::TcpV4Rcv)));
    let datagram = |lab: &mut Lab, id, to: u8, kind, reason| {
        let mut trip = lab.trip(id).addresses(17, (11, 40_000), (to, 9000)).datagram(1, 64).process(400, "sender");
        trip.next.pkt_type = kind;
        let trip = trip.hop(HopId::IpOutput, 0, VETH2, 92).cross(VETH2, VETH1, 92).softirq(0);
        trip.hop(HopId::IpRcv, 900, VETH1, 92).dropped(900, 1, Some(reason)).events
    };
    assert_eq!(found(&datagram(&mut lab, 2, 255, 1, 3)), []);
    assert_eq!(found(&datagram(&mut lab, 3, 10, 0, 3)).len(), 1);
    // A frame for others is a finding only where it was sent here.
    assert_eq!(found(&datagram(&mut lab, 4, 10, 3, 6)).len(), 1);
    let foreign = datagram(&mut lab, 5, 10, 3, 6).split_off(5);
    assert_eq!(found(&foreign), []);
}

#[test]
fn a_copy_for_a_bridge_that_listens_to_all_does_not_speak_for_the_packet() {
    let mut lab = Lab::new();
    let sent = lab.trip(1).addresses(6, (11, 58_854), (10, 8000)).tcp(0x18, 77, 10).process(312, "curl");
    let sent = sent.hop(HopId::IpOutput, 0, VETH2, 62).cross(VETH2, PEER2, 62).softirq(0);
    let sent = sent.hop(HopId::BrHandleFrame, 900, PEER2, 62).hop(HopId::BrHandleFrameFinish, 900, PEER2, 62);
    let at = sent.events.len() - 1;
    let up = sent.hop(HopId::BrPassFrameUp, 5_000, PEER2, 62).hop(HopId::IpRcv, 900, BRIDGE, 62);
    let up = up.dropped(900, 1, Some(6)).events;
    let forwarded = |lab: &mut Lab, reason| {
        let trip = lab.clone_of(2, &up[at]).hop(HopId::BrForward, 900, PEER2, 62).to(PEER1).cross(PEER1, VETH1, 62);
        let trip = trip.softirq(1).hop(HopId::IpRcv, 900, VETH1, 62).hop(HopId::TcpV4Rcv, 900, VETH1, 42);
        trip.dropped(900, 1, Some(reason)).events
    };
    // Also where the packet itself, a clone by then, was not seen.
    assert_eq!(found(&up), []);
    // What TCP has already got, it drops. A wrong checksum is a finding, where it was found.
    assert_eq!(found(&in_order([up.clone(), forwarded(&mut lab, 9)])), []);
    let all = found(&in_order([up.clone(), forwarded(&mut lab, 11)]));
    let [finding] = &all[..] else { panic!("{all:#?}") };
    assert_eq!(
        (finding.span, finding.device.map(|it| it.key.ifindex)),
        (Span::At(HopId::TcpV4Rcv), Some(VETH1.ifindex))
    );
}

#[test]
fn a_copy_that_nobody_waits_for_does_not_hide_that_another_was_refused() {
    let mut lab = Lab::new();
    let mut sent = lab.trip(1).addresses(17, (11, 40_000), (255, 9000)).datagram(1, 64).process(400, "sender");
    sent.next.pkt_type = 1;
    let sent = sent.hop(HopId::IpOutput, 0, VETH2, 92).cross(VETH2, PEER2, 92).softirq(0);
    let sent = sent.hop(HopId::BrHandleFrame, 900, PEER2, 92);
    let at = sent.events.len() - 1;
    let refused = sent.hop(HopId::BrForward, 5_000, PEER2, 92).to(PEER1).dropped(900, 1, Some(REASON_NETFILTER)).events;
    let copy = lab.clone_of(2, &refused[at]).hop(HopId::BrPassFrameUp, 100, PEER2, 92);
    let copy = copy.hop(HopId::IpRcv, 20_000, BRIDGE, 92);
    let ignored = copy.dropped(900, 1, Some(2)).events;
    let all = found(&in_order([refused, ignored]));
    let [finding] = &all[..] else { panic!("{all:#?}") };
    assert_eq!((finding.class, finding.span), (Class::Dropped, Span::At(HopId::BrForward)));
}

#[test]
fn drops_are_told_by_place_and_counted() {
    let mut lab = Lab::new();
    let events = [lab.udp_dropped(1, 1), lab.udp(2, 2), lab.udp_dropped(3, 3), lab.udp_dropped(4, 4)].concat();
    let [finding] = &found(&events)[..] else { panic!("one finding") };
    assert_eq!((finding.class, finding.span), (Class::Dropped, Span::At(HopId::BrForward)));
    // The bridge has chosen the port: it is that one's.
    assert_eq!(finding.device.map(|device| device.key.ifindex), Some(PEER1.ifindex));
    assert_eq!((finding.count, finding.packets, &finding.numbers[..], finding.last), (3, 4, &[1, 3, 4][..], 4));
    let Detail::Dropped { reason, .. } = &finding.detail else { panic!("{finding:?}") };
    assert_eq!(reason.as_deref(), Some("NETFILTER_DROP"));
}

#[test]
fn a_frame_that_an_xdp_program_swallows_is_dropped() {
    let mut lab = Lab::new();
    let trip = lab.trip(1).addresses(17, (11, 40_000), (10, 9000)).datagram(1, 64).process(400, "sender");
    let trip = trip.hop(HopId::IpOutput, 0, VETH2, 92).hop(HopId::VethXmit, 900, VETH2, 106).to(VETH1).softirq(0);
    let swallowed = trip.hop(HopId::VethXdpRcvSkb, 900, VETH1, 92).end(HopId::ConsumeSkb, 100).events;
    let [finding] = &found(&swallowed)[..] else { panic!("one finding") };
    assert_eq!((finding.class, finding.span), (Class::Dropped, Span::At(HopId::VethXdpRcvSkb)));
    assert!(matches!(finding.detail, Detail::Dropped { silent: true, .. }));
}

#[test]
fn a_payload_that_changes_is_found_once_per_place() {
    let mut lab = Lab::new();
    let events = [queued(&mut lab, 1, 0), queued(&mut lab, 2, 0)].concat();
    let changed = |event: &Event| {
        let end = event.flags & EventFlags::END != 0;
        let late = event.netns == PEER1.netns
            && event.ifindex == PEER1.ifindex
            && event.hop != HopId::DevQueueXmit as u16
            && event.hop != HopId::BrDevQueuePushXmit as u16;
        let byte = if late || event.netns == VETH1.netns { 1 } else { 0 };
        if end { Digest::default() } else { digest_of(0, &[byte; 64]) }
    };
    let [finding] = &found_with(&events, None, changed)[..] else { panic!("one finding") };
    assert_eq!(finding.span, Span::Between(HopId::DevQueueXmit, HopId::NetDevStartXmit));
    assert_eq!((finding.class, finding.count), (Class::Garbled, 2));
    assert_eq!(finding.device.map(|device| device.key.ifindex), Some(PEER1.ifindex));
}

#[test]
fn what_is_garbled_and_then_dropped_is_both_unless_it_was_dropped_for_it() {
    let classes = |is_received: bool, reason| {
        let mut trip = bridged(&mut Lab::new(), 1, |trip| trip);
        if is_received {
            trip = trip.hop(HopId::NetDevStartXmit, 100, PEER1, 106).hop(HopId::VethXmit, 100, PEER1, 106).to(VETH1);
            trip = trip.hop(HopId::NetifRxInternal, 900, VETH1, 92).hop(HopId::IpLocalDeliver, 900, VETH1, 92);
        }
        let events = trip.dropped(900, 1, reason).events;
        let from = events.iter().find(|event| event.hop == HopId::BrForward as u16).unwrap().step;
        let bytes = |event: &Event| if event.step < from { b"as sent!" } else { b"garbled!" };
        let digest = |event: &Event| match event.flags & EventFlags::END {
            0 => digest_of(8, bytes(event)),
            _ => Digest::default(),
        };
        found_with(&events, None, digest).iter().map(|finding| finding.class).collect::<Vec<_>>()
    };
    let both = [Class::Garbled, Class::Dropped];
    // A rule on its way, and a queue there, before anybody looks at a checksum; a socket that is full.
    assert_eq!(classes(false, Some(REASON_NETFILTER)), both);
    assert_eq!(classes(false, None), both);
    assert_eq!(classes(true, Some(REASON_RCVBUFF)), both);
    // The checksum itself; and whoever may have looked at it, where the kernel does not say why.
    for reason in [Some(11), Some(2), None] {
        assert_eq!(classes(true, reason), [Class::Garbled], "{reason:?}");
    }
}

#[test]
fn only_what_waits_in_a_queue_is_late() {
    let mut lab = Lab::new();
    let [finding] = &found(&[queued(&mut lab, 1, 300_000_000), queued(&mut lab, 2, 310_000_000)].concat())[..] else {
        panic!("one finding")
    };
    assert_eq!((finding.class, finding.count), (Class::Delayed, 2));
    assert_eq!(finding.span, Span::Between(HopId::DevQueueXmit, HopId::NetDevStartXmit));
    let Detail::Delayed { longest_ns, passed, .. } = finding.detail else { panic!("{finding:?}") };
    assert_eq!((longest_ns / 1_000_000, passed), (310, 2));
    // One in many is chance, unless it is asked for.
    let many: Vec<Event> =
        (3..40).flat_map(|id| queued(&mut lab, id, if id == 39 { 300_000_000 } else { 0 })).collect();
    assert_eq!(found(&many), []);
    assert_eq!(found_with(&queued(&mut lab, 50, 9_000_000), Some(5_000_000), |_| Digest::default()).len(), 1);
    // A sender that was interrupted on its way to a device without a queue goes on where it was.
    let direct = bridged(&mut lab, 60, |trip| {
        let mut trip = trip.process(400, "sender");
        trip.events.last_mut().unwrap().context = skbtrace_common::Context::PROCESS;
        trip.events.last_mut().unwrap().tid = 400;
        trip.next.time_ns += 900_000_000;
        trip
    });
    assert_eq!(found(&arrives(direct).end(HopId::ConsumeSkb, 600).events), []);
    // In a softirq of one CPU nothing but the time tells that it was held: one in many is a CPU that stood still.
    let in_softirq = |lab: &mut Lab, id, ns| {
        let trip = bridged(lab, id, |mut trip| {
            trip.next.time_ns += ns;
            trip
        });
        arrives(trip).end(HopId::ConsumeSkb, 600).events
    };
    let mut stood_still: Vec<Event> = (100..140).flat_map(|id| in_softirq(&mut lab, id, 0)).collect();
    stood_still.extend(in_softirq(&mut lab, 140, 68_000_000));
    assert_eq!(found(&stood_still), []);
    let held: Vec<Event> = (150..160).flat_map(|id| in_softirq(&mut lab, id, 68_000_000)).collect();
    let [finding] = &found(&held)[..] else { panic!("one finding") };
    assert_eq!((finding.class, finding.count), (Class::Delayed, 10));
    // Behind a hook it is a program's queue if somebody else goes on, and otherwise a CPU that stood still.
    let decided = |lab: &mut Lab, id, elsewhere: bool| {
        let trip = bridged(lab, id, |trip| trip).hop(HopId::NfHookSlow, 900, PEER1, 92);
        let mut trip = if elsewhere { trip.process(500, "decides") } else { trip };
        trip.next.time_ns += 900_000_000;
        arrives(trip.hop(HopId::BrDevQueuePushXmit, 900, PEER1, 92)).end(HopId::ConsumeSkb, 600).events
    };
    assert_eq!(found(&decided(&mut lab, 80, false)), []);
    let spans: Vec<_> = found(&decided(&mut lab, 81, true)).iter().map(|finding| finding.span).collect();
    assert_eq!(spans, [Span::Between(HopId::NfHookSlow, HopId::BrDevQueuePushXmit)]);
    // What a reader leaves lying is its own business.
    let mut unread = lab.datagram(70, 70).process(401, "receiver");
    unread.next.time_ns += 5_000_000_000;
    assert_eq!(found(&unread.hop(HopId::SkbCopyDatagramIter, 0, VETH2, 72).end(HopId::ConsumeSkb, 9).events), []);
}

#[test]
fn a_packet_that_was_held_while_others_passed_was_overtaken() {
    let mut lab = Lab::new();
    let held: Vec<Vec<Event>> = vec![queued(&mut lab, 1, 100_000_000), queued(&mut lab, 2, 0), queued(&mut lab, 3, 0)];
    let all = found(&in_order(held));
    let [finding] = &all[..] else { panic!("{all:#?}") };
    assert_eq!((finding.class, finding.count), (Class::Reordered, 2));
    assert_eq!(finding.span, Span::Between(HopId::DevQueueXmit, HopId::NetDevStartXmit));
    assert_eq!(finding.device.map(|device| device.key.ifindex), Some(PEER1.ifindex));
    // Seen by different CPUs, they have no order.
    let mut apart = vec![queued(&mut lab, 4, 20_000_000), queued(&mut lab, 5, 0)];
    apart[1].iter_mut().for_each(|event| event.cpu = 3);
    assert_eq!(found(&in_order(apart)), []);
    // Nor have packets of different flows.
    let mut flows = vec![queued(&mut lab, 6, 20_000_000), queued(&mut lab, 7, 0)];
    flows[1].iter_mut().for_each(|event| event.sport = 9);
    assert_eq!(found(&in_order(flows)), []);
}

#[test]
fn a_clone_that_leaves_by_the_same_device_is_a_duplicate() {
    let mut lab = Lab::new();
    let original = queued(&mut lab, 1, 1_000);
    let at =
        original.iter().position(|event| event.hop == HopId::DevQueueXmit as u16 && event.ifindex == PEER1.ifindex);
    let clone = |lab: &mut Lab, to| {
        let trip = lab.clone_of(2, &original[at.unwrap()]).softirq(1).hop(HopId::NetDevStartXmit, 5_000, to, 106);
        let trip = trip.hop(HopId::VethXmit, 100, to, 106).hop(HopId::IpRcv, 900, VETH1, 92);
        trip.hop(HopId::UdpEnqueueScheduleSkb, 900, VETH1, 72).events
    };
    let all = found(&in_order([original.clone(), clone(&mut lab, PEER1)]));
    let [finding] = &all[..] else { panic!("{all:#?}") };
    assert_eq!((finding.class, finding.count), (Class::Duplicated, 1));
    assert_eq!(finding.span, Span::Between(HopId::DevQueueXmit, HopId::NetDevStartXmit));
    // A bridge that floods sends a clone by each port.
    assert_eq!(found(&in_order([original.clone(), clone(&mut lab, PORT3)])), []);
}

#[test]
fn what_rests_on_a_gap_is_no_finding() {
    let mut lab = Lab::new();
    let whole = queued(&mut lab, 1, 300_000_000);
    assert_eq!(found(&whole).len(), 1);
    let at = whole.iter().position(|event| event.hop == HopId::NetDevStartXmit as u16).unwrap();
    let mut torn = whole.clone();
    torn.remove(at);
    assert_eq!(found(&torn), []);
    let mut nested = whole;
    nested[at].flags |= EventFlags::NESTED;
    assert_eq!(found(&nested), []);
    let mut dropped = lab.udp_dropped(2, 2);
    dropped.remove(5);
    assert_eq!(found(&dropped), []);
}

proptest! {
    /// Whatever clean packets there are, in whatever order their events come, on whatever CPUs: nothing is found.
    #[test]
    fn clean_packets_in_any_order_have_no_findings(
        kinds in prop::collection::vec((0u8..6, 0u32..4, 0u64..3_000_000), 1..40),
    ) {
        let mut lab = Lab::new();
        let packets: Vec<Vec<Event>> = kinds
            .into_iter()
            .enumerate()
            .map(|(n, (kind, cpu, ns))| {
                let id = n as u64 + 1;
                lab.now -= 900_000;
                let mut events = match kind {
                    0 => lab.tcp_data(id, 1 + (id as u32 % 5) * 10, 10),
                    1 => lab.udp(id, id as u16),
                    2 => lab.arp(id),
                    3 => lab.tcp_last_ack(id, 7),
                    4 => lab.ping_loopback(id),
                    _ => queued(&mut lab, id, ns % 100),
                };
                events.iter_mut().for_each(|event| event.cpu += cpu);
                events
            })
            .collect();
        prop_assert_eq!(found(&in_order(packets)), []);
    }
}
