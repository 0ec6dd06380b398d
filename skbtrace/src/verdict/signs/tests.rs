//! Which drops show a sign, and that no other does: packets of a kernel that names no reason.

use skbtrace_common::{Digest, Event, EventFlags, HopId, IpSummed};

use super::{Sign, sign};
use crate::trace::testkit::{Lab, PEER1, REASON_NETFILTER, Trip, VETH1, VETH2, in_order};
use crate::trace::{Packet, Reasons, Step, StitchOptions, Stitcher};
use crate::verdict::digest::tests::digest_of;
use crate::verdict::{Class, Detail, Finding, Findings, Span, payload};

const PAYLOAD: [u8; 64] = [7; 64];

/// Whether the checksums are right that a hop sees.
#[derive(Clone, Copy)]
struct Sums {
    header: bool,
    transport: bool,
}

const GOOD: Sums = Sums { header: true, transport: true };
const BAD_HEADER: Sums = Sums { header: false, ..GOOD };
const BAD_TRANSPORT: Sums = Sums { transport: false, ..GOOD };

impl Sums {
    /// The digest of a payload with these.
    fn of(self, event: &Event) -> Digest {
        if event.flags & EventFlags::END != 0 {
            return Digest::default();
        }
        let l4_header_len = if event.l4_proto == 6 { 20 } else { 8 };
        let length = (u32::from(l4_header_len) + event.payload_len).to_be_bytes();
        let pseudo = [&event.saddr[12..], &event.daddr[12..], &length, &[0, event.l4_proto]].concat();
        let mut sum: u32 = pseudo.chunks(2).map(|word| u32::from(u16::from_ne_bytes([word[0], word[1]]))).sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        // The payload adds nothing: what is tested here is not how sums are made.
        let right = 0xffff - sum;
        Digest {
            l3_header: if self.header { 0xffff } else { 1 },
            l4_header: if self.transport { right } else { right ^ 1 },
            l4_header_len,
            checksum: 1,
            ..digest_of(0, &PAYLOAD)
        }
    }
}

/// A step of a datagram that has come over a pair.
fn step(hop: HopId, change: impl FnOnce(&mut Event), sums: Sums) -> Step {
    let mut lab = Lab::new();
    let trip = lab.trip(1).addresses(17, (11, 40_000), (10, 9000)).datagram(1, 64).softirq(1);
    let mut event = trip.hop(hop, 0, VETH1, 92).events[0];
    event.flags |= EventFlags::DIGEST;
    event.ip_summed = IpSummed::NONE;
    change(&mut event);
    Step { hop, delta_ns: 0, waited: None, missing: 0, layer: 0, digest: sums.of(&event), event }
}

fn others(event: &mut Event) {
    event.pkt_type = 3;
}

fn same(_: &mut Event) {}

#[test]
fn ip_looks_at_the_mac_address_first_and_then_at_its_header() {
    for (hop, function) in [
        (HopId::IpRcv, None),
        (HopId::IpRcv, Some("ip_rcv_core.constprop.0+0x15")),
        (HopId::IpRcv, Some("ip_rcv+0x3c")),
        // As a list, or by tracepoints alone.
        (HopId::NetifReceiveSkb, Some("ip_rcv_core.constprop.0+0x15")),
    ] {
        assert_eq!(sign(&step(hop, others, BAD_HEADER), function), Some(Sign::OtherHost), "{function:?}");
        assert_eq!(sign(&step(hop, same, BAD_HEADER), function), Some(Sign::HeaderChecksum), "{function:?}");
        assert_eq!(sign(&step(hop, same, GOOD), function), None, "{function:?}");
    }
    assert_eq!(sign(&step(HopId::Ipv6Rcv, others, GOOD), Some("ip6_rcv_core+0x30")), Some(Sign::OtherHost));
}

#[test]
fn who_does_not_look_at_it_does_not_drop_for_it() {
    let all = Sums { header: false, transport: false };
    for (hop, function) in [
        // A port of a bridge gets frames for others all day.
        (HopId::BrHandleFrame, None),
        (HopId::NetifReceiveSkb, None),
        (HopId::NetifReceiveSkb, Some("nf_hook_slow+0xa7")),
        (HopId::NetifReceiveSkb, Some("__netif_receive_skb_core.constprop.0+0x1")),
        (HopId::IpRcv, Some("nf_hook_slow+0xa7")),
        // By then IP has looked.
        (HopId::IpForward, Some("ip_forward+0x1")),
        (HopId::IpLocalDeliver, Some("ip_protocol_deliver_rcu+0x1")),
        // And UDP: the socket is full.
        (HopId::UdpEnqueueScheduleSkb, Some("udp_queue_rcv_one_skb+0x1")),
        (HopId::UdpEnqueueScheduleSkb, None),
        (HopId::DevForwardSkb, Some("__dev_forward_skb+0x1")),
        (HopId::VethXmit, Some("veth_xmit+0x1")),
    ] {
        assert_eq!(sign(&step(hop, others, all), function), None, "{} {function:?}", hop.name());
    }
}

#[test]
fn a_transport_looks_at_its_checksum_unless_somebody_has_vouched_for_it() {
    for (hop, function) in [
        (HopId::IpLocalDeliver, Some("__udp4_lib_rcv+0x1")),
        (HopId::NfHookSlow, Some("__udp4_lib_rcv+0x1")),
        (HopId::NetifReceiveSkb, Some("__udp4_lib_rcv+0x1")),
        (HopId::UdpQueueRcvOneSkb, None),
        (HopId::TcpV4Rcv, Some("tcp_v4_rcv+0x62")),
        (HopId::TcpV4Rcv, None),
        (HopId::TcpAddBacklog, Some("tcp_v4_rcv+0x62")),
        (HopId::IcmpRcv, Some("icmp_rcv+0x1")),
    ] {
        let seen = |change: fn(&mut Event), sums| sign(&step(hop, change, sums), function);
        assert_eq!(seen(same, BAD_TRANSPORT), Some(Sign::TransportChecksum), "{} {function:?}", hop.name());
        assert_eq!(seen(|event| event.ip_summed = IpSummed::UNNECESSARY, BAD_TRANSPORT), None);
        assert_eq!(seen(same, GOOD), None, "{} {function:?}", hop.name());
        assert_eq!(seen(|event| event.flags &= !EventFlags::DIGEST, BAD_TRANSPORT), None, "payloads are not looked at");
    }
}

#[test]
fn a_poll_frees_what_its_program_does_not_pass_on() {
    for function in ["veth_poll+0x3f1", "veth_xdp_rcv.constprop.0+0x2a"] {
        assert_eq!(sign(&step(HopId::DevForwardSkb, same, GOOD), Some(function)), Some(Sign::Polled));
    }
}

/// The packets of these events, on a kernel that names reasons if it gives one.
fn stitched(events: &[Event], sums: impl Fn(&Event) -> Sums) -> Vec<Packet> {
    let mut stitcher = Stitcher::new(StitchOptions { reasons: reasons(), ..Default::default() });
    let mut packets = Vec::new();
    for event in events {
        let event = Event { flags: event.flags | EventFlags::DIGEST, ip_summed: IpSummed::NONE, ..*event };
        stitcher.push_verified(&event, &sums(&event).of(&event), &mut |packet| packets.push(packet));
    }
    stitcher.finish(10_000_000_000, &mut |packet| packets.push(packet));
    packets
}

fn reasons() -> Reasons {
    Reasons::new([(2, "NOT_SPECIFIED"), (REASON_NETFILTER, "NETFILTER_DROP")].map(|(n, name)| (n, name.to_owned())))
}

/// Where the made-up kernel has its code.
fn symbol(address: u64) -> Option<String> {
    let function = match address {
        1 => "ip_rcv_core.constprop.0",
        2 => "__udp4_lib_rcv",
        3 => "tcp_v4_rcv",
        4 => "veth_poll",
        _ => return None,
    };
    Some(format!("{function}+0x1"))
}

fn found(events: &[Event], sums: impl Fn(&Event) -> Sums) -> Vec<Finding> {
    let mut findings = Findings::new(reasons(), None);
    let packets = stitched(events, sums);
    packets.iter().for_each(|packet| findings.observe(packet, &payload(packet), &symbol));
    findings.all()
}

/// What was found, which is one thing, and in which namespace.
fn one(events: &[Event], sums: impl Fn(&Event) -> Sums) -> (Span, Option<Sign>, Option<u32>) {
    let all = found(events, sums);
    let [finding] = &all[..] else { panic!("{all:#?}") };
    let Detail::Dropped { sign, .. } = finding.detail else { panic!("{finding:#?}") };
    assert_eq!(finding.class, Class::Dropped);
    (finding.span, sign, finding.device.map(|device| device.key.netns))
}

/// A packet of the client's over the pair to the server, as far as IP there.
fn received(lab: &mut Lab, id: u64, proto: u8, kind: u8) -> Trip {
    let trip = lab.trip(id).addresses(proto, (11, 40_000), (10, 9000)).datagram(id as u16, 64).process(400, "sender");
    let mut trip = trip.hop(HopId::IpOutput, 0, VETH2, 92).cross(VETH2, VETH1, 92).softirq(1);
    trip.next.tcp_flags = 0x10;
    trip.next.pkt_type = kind;
    trip.hop(HopId::IpRcv, 9_000, VETH1, 92)
}

#[test]
fn a_kernel_without_reasons_tells_a_wrong_mac_from_a_broken_header_in_one_place() {
    let mut lab = Lab::new();
    let events = [
        received(&mut lab, 1, 17, 3).dropped(500, 1, None).events,
        received(&mut lab, 2, 17, 0).dropped(500, 1, None).events,
        received(&mut lab, 3, 17, 3).dropped(500, 1, None).events,
    ]
    .concat();
    let all = found(&events, |event| if event.packet == 2 { BAD_HEADER } else { GOOD });
    let told: Vec<_> = all.iter().map(|finding| (finding.span, finding.count, finding.detail.clone())).collect();
    let detail = |sign| Detail::Dropped {
        reason: None,
        location: Some("ip_rcv_core.constprop.0+0x1".to_owned()),
        sign: Some(sign),
        silent: false,
        held_ns: None,
    };
    let at = Span::At(HopId::IpRcv);
    assert_eq!(told, [(at, 2, detail(Sign::OtherHost)), (at, 1, detail(Sign::HeaderChecksum))]);
}

#[test]
fn a_frame_for_others_that_was_not_sent_here_is_still_nobodys_fault() {
    let foreign = |kind| {
        let mut trip = Lab::new().trip(1).addresses(17, (11, 40_000), (10, 9000)).datagram(1, 64).softirq(1);
        trip.next.pkt_type = kind;
        trip.hop(HopId::EnqueueToBacklog, 0, VETH1, 92).hop(HopId::IpRcv, 900, VETH1, 92).dropped(500, 1, None).events
    };
    assert_eq!(found(&foreign(3), |_| GOOD), []);
    assert_eq!(found(&foreign(0), |_| GOOD).len(), 1);
}

#[test]
fn a_segment_that_tcp_refuses_for_its_checksum_is_a_finding() {
    let segment = |reason| {
        let trip = received(&mut Lab::new(), 1, 6, 0).hop(HopId::TcpV4Rcv, 900, VETH1, 84);
        trip.dropped(500, 3, reason).events
    };
    let told = (Span::At(HopId::TcpV4Rcv), Some(Sign::TransportChecksum), Some(VETH1.netns));
    assert_eq!(one(&segment(None), |_| BAD_TRANSPORT), told);
    // What else it drops in an open connection is its own business; and a kernel that names reasons has the word.
    assert_eq!(found(&segment(None), |_| GOOD), []);
    assert_eq!(found(&segment(Some(2)), |_| BAD_TRANSPORT), []);
}

#[test]
fn a_datagram_that_udp_refuses_for_its_checksum_is_told_so() {
    let trip = received(&mut Lab::new(), 1, 17, 0).hop(HopId::IpLocalDeliver, 900, VETH1, 92);
    let told = one(&trip.dropped(500, 2, None).events, |_| BAD_TRANSPORT);
    assert_eq!(told, (Span::At(HopId::IpLocalDeliver), Some(Sign::TransportChecksum), Some(VETH1.netns)));
}

#[test]
fn what_a_program_drops_where_the_poll_has_no_hop_ended_at_the_other_end() {
    let crossed = |lab: &mut Lab| {
        let mut trip = lab.trip(1).addresses(17, (11, 40_000), (10, 9000)).datagram(1, 64).process(400, "sender");
        trip = trip.hop(HopId::IpOutput, 0, VETH2, 92).cross(VETH2, VETH1, 92);
        trip.events.truncate(4);
        trip.softirq(1)
    };
    let told = (Span::At(HopId::DevForwardSkb), Some(Sign::Polled), Some(VETH1.netns));
    // Its memory was copied for the program, or was good enough.
    assert_eq!(one(&crossed(&mut Lab::new()).end(HopId::ConsumeSkb, 100).events, |_| GOOD), told);
    assert_eq!(one(&crossed(&mut Lab::new()).dropped(100, 4, None).events, |_| GOOD), told);
    // What the crossing itself refuses never came so far.
    let refused = one(&crossed(&mut Lab::new()).dropped(100, 9, None).events, |_| GOOD);
    assert_eq!(refused, (Span::At(HopId::DevForwardSkb), None, Some(VETH2.netns)));
}

#[test]
fn a_copy_for_others_does_not_speak_for_a_packet_that_was_refused_elsewhere() {
    let mut lab = Lab::new();
    let sent = lab.trip(1).addresses(17, (11, 40_000), (10, 9000)).datagram(1, 64).process(312, "sender");
    let mut sent = sent.hop(HopId::IpOutput, 0, VETH2, 92).hop(HopId::BrHandleFrameFinish, 900, PEER1, 92).softirq(0);
    sent.next.pkt_type = 3;
    let at = sent.events.len() - 1;
    let up = sent.hop(HopId::BrPassFrameUp, 9_000, PEER1, 92).hop(HopId::IpRcv, 900, PEER1, 92);
    let up = up.dropped(900, 1, None).events;
    let mut copy = lab.clone_of(2, &up[at]);
    copy.next.pkt_type = 0;
    let copy = copy.hop(HopId::BrForward, 100, PEER1, 92).to(VETH1).hop(HopId::IpRcv, 900, VETH1, 92);
    let copy = copy.hop(HopId::IpLocalDeliver, 900, VETH1, 92).dropped(100, 2, None).events;
    let events = in_order([up, copy]);
    let told = one(&events, |_| BAD_TRANSPORT);
    assert_eq!(told, (Span::At(HopId::IpLocalDeliver), Some(Sign::TransportChecksum), Some(VETH1.netns)));
}
