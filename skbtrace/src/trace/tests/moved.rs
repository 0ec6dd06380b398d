//! Packets that go on in another `sk_buff`: TCP sends a clone of what it keeps, an XDP program gets a copy.

use skbtrace_common::{EventFlags, HopId};

use super::{hops, stitch};
use crate::trace::testkit::{Lab, REASON_NETFILTER, Trip, VETH1, VETH2};
use crate::trace::{How, Outcome, Queue};

const KEPT: u64 = 0xffff_8880_0900_0000;
const KEPT_DATA: u64 = 0xffff_8880_0a00_0000;

/// A segment of what TCP keeps, from one end of a pair to the reader at the other. What is sent shares the data.
fn segment(lab: &mut Lab, id: u64) -> Trip {
    let mut trip = lab.trip(id).addresses(6, (11, 58_854), (10, 8000)).tcp(0x18, 100, 50).process(312, "curl");
    trip.next.head = KEPT_DATA;
    trip.sent_by_tcp(KEPT, VETH2).cross(VETH2, VETH1, 102).softirq(1).hop(HopId::IpRcv, 9_000, VETH1, 102).hop(
        HopId::TcpV4Rcv,
        3_000,
        VETH1,
        82,
    )
}

fn read(trip: Trip) -> Trip {
    let trip = trip.hop(HopId::TcpQueueRcv, 900, VETH1, 50).process(301, "python3");
    trip.hop(HopId::SkbCopyDatagramIter, 9_000, VETH1, 50).end(HopId::SkbReleaseHeadState, 800)
}

#[test]
fn what_tcp_keeps_and_the_clone_that_it_sends_are_one_packet() {
    let events = read(segment(&mut Lab::new(), 1)).events;
    let [packet] = &stitch(&events)[..] else { panic!("one packet") };
    assert_eq!(packet.steps.len(), events.len());
    assert_eq!(hops(packet)[..3], ["__tcp_transmit_skb", "__ip_queue_xmit", "ip_output"]);
    assert!(matches!(packet.outcome, Outcome::Delivered { how: How::Copied, .. }), "{:?}", packet.outcome);
    assert_eq!(packet.sender(), None, "TCP may send for anybody");
}

#[test]
fn what_tcp_keeps_and_sends_again_is_another_packet() {
    let mut lab = Lab::new();
    let dropped = segment(&mut lab, 1).dropped(500, 1, Some(REASON_NETFILTER)).events;
    let again = read(segment(&mut lab, 2)).events;
    let same_clone: Vec<_> = again
        .iter()
        .map(|event| match event.skb {
            KEPT => *event,
            _ => skbtrace_common::Event { skb: dropped[1].skb, ..*event },
        })
        .collect();
    let (sent, end) = dropped.split_at(6);
    for events in [
        [&dropped[..], &again].concat(),
        // The first is still on its way when the second is sent.
        [sent, &again[..5], end, &again[5..]].concat(),
        // The second is sent in the memory of the first.
        [&dropped[..], &same_clone].concat(),
    ] {
        let packets = stitch(&events);
        let told: Vec<_> =
            packets.iter().map(|packet| (packet.id, packet.retransmission, packet.branches.len())).collect();
        assert_eq!(told, [(1, false, 0), (2, true, 0)]);
        assert!(matches!(packets[0].outcome, Outcome::Dropped { .. }), "{:?}", packets[0].outcome);
        assert!(matches!(packets[1].outcome, Outcome::Delivered { .. }), "{:?}", packets[1].outcome);
    }
}

#[test]
fn a_segment_that_never_leaves_tcp_ends_the_run_waiting() {
    let events = segment(&mut Lab::new(), 1).events;
    let [packet] = &stitch(&events[..1])[..] else { panic!("one packet") };
    assert!(matches!(packet.outcome, Outcome::Waiting { at: HopId::TcpTransmitSkb, .. }), "{:?}", packet.outcome);
}

/// A datagram as far as the XDP program of the receiving end, on a kernel that has a hop in the poll of the veth, or none.
fn polled(lab: &mut Lab, id: u64, ip_id: u16, has_hop: bool) -> Trip {
    let mut trip = lab.datagram(id, ip_id);
    trip.events.truncate(4);
    let trip = trip.softirq(1);
    if has_hop { trip.hop(HopId::VethXdpRcvSkb, 3_000, VETH2, 92) } else { trip }
}

/// The last hop that such a kernel has before the program.
fn last_before(has_hop: bool) -> HopId {
    if has_hop { HopId::VethXdpRcvSkb } else { HopId::DevForwardSkb }
}

/// The datagram in other memory, from GRO on.
fn goes_on(lab: &mut Lab, id: u64, ip_id: u16) -> Trip {
    let mut trip = lab.datagram(id, ip_id);
    trip.events.clear();
    trip.softirq(1)
        .hop(HopId::NapiGroReceive, 900, VETH2, 92)
        .hop(HopId::IpLocalDeliver, 900, VETH2, 92)
        .hop(HopId::UdpQueueRcvOneSkb, 900, VETH2, 72)
        .hop(HopId::UdpEnqueueScheduleSkb, 900, VETH2, 72)
        .process(401, "receiver")
        .end(HopId::ConsumeSkb, 900)
}

#[test]
fn a_copy_for_an_xdp_program_is_the_packet_itself() {
    for has_hop in [true, false] {
        let mut lab = Lab::new();
        let before = polled(&mut lab, 1, 7, has_hop).end(HopId::ConsumeSkb, 300).events;
        let after = goes_on(&mut lab, 2, 7).events;
        let [packet] = &stitch(&[&before[..], &after].concat())[..] else { panic!("one packet") };
        assert_eq!((packet.id, packet.branches.len()), (1, 0));
        assert_eq!(packet.steps.len(), before.len() - 1 + after.len(), "the end of the old memory is no hop");
        assert!(packet.steps.iter().enumerate().all(|(n, step)| step.event.step as usize == n && step.missing == 0));
        assert!(matches!(packet.outcome, Outcome::Delivered { how: How::Copied, .. }), "{:?}", packet.outcome);
        // It waited for the poll in the veth's ring, whichever hop is the first to show that.
        let waits = packet.steps.iter().filter(|step| step.waited == Some(Queue::VethRing));
        let first = if has_hop { HopId::VethXdpRcvSkb } else { HopId::NapiGroReceive };
        assert_eq!(waits.map(|step| step.hop).collect::<Vec<_>>(), [first]);
    }
}

#[test]
fn what_goes_on_elsewhere_or_behind_a_gap_is_not_the_copy() {
    let mut lab = Lab::new();
    let before = polled(&mut lab, 1, 7, false).end(HopId::ConsumeSkb, 300).events;
    let after = goes_on(&mut lab, 2, 7).events;
    let mut elsewhere = after.clone();
    elsewhere.iter_mut().for_each(|event| (event.netns, event.ifindex) = (VETH1.netns, VETH1.ifindex));
    let mut torn = before.clone();
    // A hop of the poll for one.
    torn.last_mut().unwrap().step += 1;
    for (before, after) in [(&before, &elsewhere), (&torn, &after)] {
        let packets = stitch(&[&before[..], after].concat());
        assert_eq!(packets.iter().map(|packet| packet.id).collect::<Vec<_>>(), [1, 2]);
    }
    assert!(matches!(stitch(&torn)[0].outcome, Outcome::Incomplete { .. }));
}

#[test]
fn what_an_xdp_program_drops_is_not_taken_for_the_next_packet() {
    for has_hop in [true, false] {
        let mut lab = Lab::new();
        let gone = polled(&mut lab, 1, 7, has_hop).end(HopId::ConsumeSkb, 300).events;
        let next = goes_on(&mut lab, 2, 8).events;
        let mut known = next.clone();
        // On with a packet that is no new one.
        known.iter_mut().for_each(|event| event.flags &= !EventFlags::FIRST);
        for next in [next, known] {
            let packets = stitch(&[&gone[..], &next].concat());
            assert_eq!(packets.iter().map(|packet| packet.id).collect::<Vec<_>>(), [1, 2]);
            assert_eq!(packets[0].outcome, Outcome::Consumed { at: last_before(has_hop) });
        }
        let dropped = polled(&mut lab, 1, 7, has_hop).dropped(300, 1, None).events;
        let packets = stitch(&[&dropped[..], &goes_on(&mut lab, 2, 7).events].concat());
        assert_eq!(packets.len(), 2, "a packet that was dropped does not go on");
        assert!(matches!(packets[0].outcome, Outcome::Dropped { at: Some(at), .. } if at == last_before(has_hop)));
    }
}
