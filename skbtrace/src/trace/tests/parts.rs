//! Packets that are cut into parts, and packets whose bytes another one takes over.

use skbtrace_common::{Event, HopId};

use super::{hops, stitch};
use crate::trace::testkit::{Lab, REASON_NETFILTER, Trip, VETH1, VETH2, in_order};
use crate::trace::{Cause, How, Outcome, Packet, Part};

/// A segment of two, which GSO cuts.
fn whole(lab: &mut Lab) -> Trip {
    let trip = lab.trip(1).addresses(6, (11, 58_854), (10, 8000)).tcp(0x18, 1000, 2896).process(312, "curl");
    let trip = trip.sent_by_tcp(0x99, VETH2).hop(HopId::DevQueueXmit, 900, VETH2, 2962);
    trip.hop(HopId::SkbSegment, 900, VETH2, 2896).end(HopId::ConsumeSkb, 900)
}

/// One of the two, as far as TCP at the other end.
fn part(lab: &mut Lab, id: u64, nth: u32) -> Trip {
    let trip = lab.trip(id).addresses(6, (11, 58_854), (10, 8000)).tcp(0x10, 1000 + nth * 1448, 1448);
    trip.hop(HopId::NetDevStartXmit, 0, VETH2, 1514)
        .hop(HopId::VethXmit, 500, VETH2, 1514)
        .to(VETH1)
        .hop(HopId::NetifRxInternal, 500, VETH1, 1500)
        .hop(HopId::NetifReceiveSkb, 5_000, VETH1, 1500)
        .hop(HopId::TcpV4Rcv, 900, VETH1, 1480)
}

fn read(trip: Trip) -> Trip {
    let trip = trip.hop(HopId::TcpQueueRcv, 900, VETH1, 1448).process(301, "python3");
    trip.hop(HopId::SkbCopyDatagramIter, 9_000, VETH1, 1448).end(HopId::SkbReleaseHeadState, 800)
}

fn branch_ids(packet: &Packet) -> Vec<u64> {
    packet.branches.iter().map(|branch| branch.packet.id).collect()
}

fn is_delivered(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Delivered { .. })
}

#[test]
fn the_parts_of_a_packet_are_its_branches_and_it_arrived_when_the_last_did() {
    let mut lab = Lab::new();
    let (whole, first, second) = (whole(&mut lab), read(part(&mut lab, 2, 0)), read(part(&mut lab, 3, 1)));
    let end = second.events[second.events.len() - 2].time_ns;
    let [packet] = &stitch(&in_order([whole.events, first.events, second.events]))[..] else { panic!("one tree") };
    assert_eq!(branch_ids(packet), [2, 3]);
    assert_eq!(packet.outcome, Outcome::Consumed { at: HopId::SkbSegment });
    assert!(matches!(packet.verdict(), Outcome::Delivered { at_ns, .. } if *at_ns == end), "{:?}", packet.verdict());
}

#[test]
fn a_part_that_was_never_seen_is_missed() {
    let mut lab = Lab::new();
    let events = in_order([whole(&mut lab).events, read(part(&mut lab, 3, 1)).events]);
    let [packet] = &stitch(&events)[..] else { panic!("one tree") };
    let Outcome::Incomplete { causes, seen } = packet.verdict() else { panic!("{:?}", packet.verdict()) };
    assert_eq!(causes, &[Cause::PartsUnseen { bytes: 1448 }]);
    assert_eq!(seen.as_deref(), Some(&Outcome::Consumed { at: HopId::SkbSegment }));
}

#[test]
fn a_part_that_was_dropped_loses_the_whole() {
    let mut lab = Lab::new();
    let whole = whole(&mut lab).events;
    let lost = part(&mut lab, 2, 0).dropped(900, 1, Some(REASON_NETFILTER)).events;
    let [packet] = &stitch(&in_order([whole, lost, read(part(&mut lab, 3, 1)).events]))[..] else { panic!("one tree") };
    assert_eq!(branch_ids(packet), [2, 3]);
    assert!(matches!(packet.verdict(), Outcome::Dropped { .. }), "{:?}", packet.verdict());
}

#[test]
fn a_segment_of_another_place_in_the_stream_is_no_part() {
    let mut lab = Lab::new();
    let events =
        in_order([whole(&mut lab).events, read(part(&mut lab, 2, 0)).events, read(part(&mut lab, 3, 2)).events]);
    let packets = stitch(&events);
    assert_eq!(packets.iter().map(|packet| packet.id).collect::<Vec<_>>(), [3, 1]);
    assert!(matches!(packets[1].verdict(), Outcome::Incomplete { .. }));
}

#[test]
fn what_gro_appends_is_a_part_of_the_packet_that_goes_on() {
    let mut lab = Lab::new();
    let (whole, mut first, mut second) = (whole(&mut lab).events, part(&mut lab, 2, 0), part(&mut lab, 3, 1));
    first.events.truncate(4);
    second.events.truncate(3);
    let second =
        second.hop(HopId::NapiGroReceive, 900, VETH1, 1500).hop(HopId::SkbGroReceive, 900, VETH1, 1500).onto(2);
    let second = second.end(HopId::NapiSkbFreeStolenHead, 900);
    let first = read(first.tcp(0x18, 1000, 2896).hop(HopId::TcpV4Rcv, 9_000_000, VETH1, 2928));
    let [packet] = &stitch(&in_order([whole, first.events, second.events]))[..] else { panic!("one tree") };
    let [first, second] = &packet.branches[..] else { panic!("{packet:#?}") };
    assert_eq!(first.packet.parts, [Part { id: 3, payload_len: 1448, digest: None }]);
    assert_eq!(second.packet.joined, Some(2));
    assert_eq!(second.packet.outcome, Outcome::Merged { into: Some(2), at: HopId::SkbGroReceive });
    assert!(is_delivered(packet.verdict()), "its bytes arrived with the other part: {:?}", packet.verdict());
}

#[test]
fn what_gro_refuses_goes_on_by_itself() {
    let mut lab = Lab::new();
    let mut trip = part(&mut lab, 2, 1);
    trip.events.truncate(3);
    let trip = trip.hop(HopId::NapiGroReceive, 900, VETH1, 1500).hop(HopId::SkbGroReceive, 900, VETH1, 1500).onto(7);
    let trip = read(trip.hop(HopId::NetifReceiveSkb, 900, VETH1, 1500).hop(HopId::TcpV4Rcv, 900, VETH1, 1480));
    let [packet] = &stitch(&trip.events)[..] else { panic!("one packet") };
    assert_eq!(packet.joined, None);
    assert!(matches!(packet.outcome, Outcome::Delivered { how: How::Copied, .. }), "{:?}", packet.outcome);
}

#[test]
fn what_tcp_appends_in_its_queue_is_delivered_with_the_segment_before() {
    let mut lab = Lab::new();
    let tried = |trip: Trip| {
        let trip = trip.hop(HopId::TcpQueueRcv, 900, VETH1, 1448).hop(HopId::TcpTryCoalesce, 300, VETH1, 1448).onto(2);
        trip.hop(HopId::SkbTryCoalesce, 300, VETH1, 1448).onto(2)
    };
    let first = part(&mut lab, 2, 0).hop(HopId::TcpQueueRcv, 900, VETH1, 1448);
    let first = first.process(301, "python3").hop(HopId::SkbCopyDatagramIter, 99_000_000, VETH1, 2896);
    let first = first.end(HopId::SkbReleaseHeadState, 800).events;
    let second = tried(part(&mut lab, 3, 1));
    let failed = second.clone().process(301, "python3").hop(HopId::SkbCopyDatagramIter, 9_000, VETH1, 1448);
    let failed = failed.end(HopId::SkbReleaseHeadState, 800).events;
    let packets = stitch(&in_order([first.clone(), second.end(HopId::KfreeSkbPartial, 300).events]));
    let [joined, whole] = &packets[..] else { panic!("{packets:#?}") };
    assert_eq!((joined.joined, &whole.parts[..]), (Some(2), &[Part { id: 3, payload_len: 1448, digest: None }][..]));
    assert!(matches!(joined.outcome, Outcome::Delivered { how: How::Coalesced, .. }), "{:?}", joined.outcome);

    let packets = stitch(&in_order([first, failed]));
    assert!(packets.iter().all(|packet| packet.joined.is_none() && packet.parts.is_empty()));
    assert!(packets.iter().all(|packet| matches!(packet.outcome, Outcome::Delivered { how: How::Copied, .. })));
}

/// A datagram of 4000 bytes, as far as the place where it is cut.
fn datagram(lab: &mut Lab) -> Trip {
    let trip = lab.trip(1).addresses(17, (10, 40_000), (11, 9000)).datagram(77, 4000).process(400, "sender");
    trip.hop(HopId::IpOutput, 0, VETH1, 4028).hop(HopId::IpDoFragment, 500, VETH1, 4028)
}

/// A fragment of it.
fn fragment(lab: &mut Lab, id: u64, bytes: u32) -> Trip {
    let trip = lab.trip(id).addresses(17, (10, 40_000), (11, 9000)).datagram(77, bytes);
    crosses(if bytes == 1472 { trip } else { trip.fragment(bytes) }, bytes)
}

/// Over a pair and to where fragments wait.
fn crosses(trip: Trip, bytes: u32) -> Trip {
    let trip = trip.cross(VETH1, VETH2, bytes + 20).softirq(0).hop(HopId::IpRcv, 900, VETH2, bytes + 20);
    trip.hop(HopId::IpLocalDeliver, 300, VETH2, bytes + 20).hop(HopId::IpDefrag, 300, VETH2, bytes + 20)
}

/// The datagram goes on in the `sk_buff` of this fragment, under a new id.
fn goes_on(fragment: &Trip, id: u64) -> Vec<Event> {
    let mut trip = Trip::new(id, fragment.next.time_ns + 2_000).addresses(17, (10, 40_000), (11, 9000));
    trip.next.skb = fragment.next.skb;
    let trip = trip.datagram(77, 4000).hop(HopId::UdpQueueRcvOneSkb, 900, VETH2, 4008);
    let trip = trip.hop(HopId::UdpEnqueueScheduleSkb, 300, VETH2, 4000).process(401, "receiver");
    trip.end(HopId::ConsumeSkb, 900_000).events
}

#[test]
fn fragments_that_are_new_are_seen_before_the_end_of_the_datagram() {
    let mut lab = Lab::new();
    let whole = datagram(&mut lab);
    let fragments = [(2, 1472), (3, 1480), (4, 1048)].map(|(id, bytes)| fragment(&mut lab, id, bytes));
    let whole = whole.end(HopId::ConsumeSkb, 2_000_000).events;
    let parts = fragments.map(|trip| trip.dropped(900, 1, None).events);
    let [packet] = &stitch(&in_order([vec![whole.clone()], parts.to_vec()].concat()))[..] else { panic!("one tree") };
    assert_eq!(branch_ids(packet), [2, 3, 4]);
    assert_eq!(packet.outcome, Outcome::Consumed { at: HopId::IpDoFragment });
    assert!(matches!(packet.verdict(), Outcome::Dropped { .. }), "{:?}", packet.verdict());
    // One of them was not seen.
    let [packet] = &stitch(&in_order([vec![whole], parts[..2].to_vec()].concat()))[..] else { panic!("one tree") };
    assert!(
        matches!(packet.verdict(), Outcome::Incomplete { causes, .. } if causes[0] == Cause::PartsUnseen { bytes: 1048 })
    );
}

#[test]
fn a_datagram_is_its_first_fragment_and_goes_on_in_the_last_one_to_come() {
    let mut lab = Lab::new();
    let first = crosses(datagram(&mut lab).datagram(77, 1472), 1472);
    let second = fragment(&mut lab, 2, 1480);
    let last = fragment(&mut lab, 3, 1048).hop(HopId::SkbClone, 300, VETH2, 1048).end(HopId::SkbReleaseHeadState, 300);
    let on = goes_on(&last, 4);
    let first = first.end(HopId::ConsumeSkb, 9_000_000).events;
    // In the list of fragments, or in the pages of the first: that ends with the whole.
    let second = second.hop(HopId::SkbTryCoalesce, 6_000_000, VETH2, 1480).end(HopId::ConsumeSkb, 99_000_000).events;
    let steps = last.events.len() - 1 + on.len();
    let [packet] = &stitch(&in_order([first, second, last.events, on]))[..] else { panic!("one tree") };
    assert_eq!((packet.joined, branch_ids(packet)), (Some(3), vec![2, 3]));
    assert_eq!(packet.outcome, Outcome::Merged { into: Some(3), at: HopId::IpDefrag });
    let [second, last] = &packet.branches[..] else { panic!("{packet:#?}") };
    assert_eq!(second.packet.outcome, Outcome::Merged { into: Some(3), at: HopId::IpDefrag });
    assert_eq!(
        last.packet.parts,
        [Part { id: 1, payload_len: 1472, digest: None }, Part { id: 2, payload_len: 1480, digest: None }]
    );
    assert_eq!((last.packet.steps.len(), last.packet.payload_len), (steps, 1048));
    assert!(last.packet.flow.is_some_and(|flow| flow.fragment));
    assert!(matches!(last.packet.outcome, Outcome::Delivered { how: How::Copied, .. }));
    assert!(is_delivered(packet.verdict()), "{:?}", packet.verdict());
    assert_eq!(hops(&last.packet)[steps - 3..], ["udp_queue_rcv_one_skb", "__udp_enqueue_schedule_skb", "consume_skb"]);
}

#[test]
fn a_datagram_that_is_seen_to_come_together_may_be_dropped_at_once() {
    let mut lab = Lab::new();
    let first = crosses(datagram(&mut lab).datagram(77, 1472), 1472).end(HopId::ConsumeSkb, 9_000_000).events;
    let second = fragment(&mut lab, 2, 1480).hop(HopId::SkbTryCoalesce, 6_000_000, VETH2, 1480);
    let second = second.end(HopId::ConsumeSkb, 99_000_000).events;
    let last =
        fragment(&mut lab, 3, 1048).hop(HopId::SkbClone, 300, VETH2, 1048).hop(HopId::SkbMorph, 300, VETH2, 1048);
    let last = last.dropped(20_000_000, 1, Some(3)).events;
    let [packet] = &stitch(&in_order([first, second, last]))[..] else { panic!("one tree") };
    assert_eq!(packet.outcome, Outcome::Merged { into: Some(3), at: HopId::IpDefrag });
    let [second, last] = &packet.branches[..] else { panic!("{packet:#?}") };
    assert_eq!(second.packet.outcome, Outcome::Merged { into: Some(3), at: HopId::IpDefrag });
    assert_eq!(last.packet.parts.iter().map(|part| part.id).collect::<Vec<_>>(), [1, 2]);
    assert!(matches!(last.packet.outcome, Outcome::Dropped { at: Some(HopId::IpDefrag), .. }), "{last:#?}");
    assert!(matches!(packet.verdict(), Outcome::Dropped { .. }), "{:?}", packet.verdict());
}

#[test]
fn a_first_fragment_that_comes_last_takes_over_the_others_as_it_is() {
    let mut lab = Lab::new();
    let second = fragment(&mut lab, 2, 1480);
    let mut first = fragment(&mut lab, 1, 1472);
    first.next.payload_len = 2952;
    let first =
        first.hop(HopId::UdpQueueRcvOneSkb, 900, VETH2, 2960).hop(HopId::UdpEnqueueScheduleSkb, 300, VETH2, 2952);
    let first = first.process(401, "receiver").end(HopId::ConsumeSkb, 900).events;
    let second = second.end(HopId::ConsumeSkb, 9_000_000).events;
    let packets = stitch(&in_order([first, second]));
    let [whole, part] = &packets[..] else { panic!("{packets:#?}") };
    assert_eq!(whole.parts, [Part { id: 2, payload_len: 1480, digest: None }]);
    assert_eq!((part.joined, &part.outcome), (Some(1), &Outcome::Merged { into: Some(1), at: HopId::IpDefrag }));
    assert!(matches!(whole.outcome, Outcome::Delivered { how: How::Copied, .. }), "{:?}", whole.outcome);
}

#[test]
fn a_fragment_that_is_in_its_datagram_waits_for_nothing_more() {
    let mut lab = Lab::new();
    let second = fragment(&mut lab, 2, 1480).hop(HopId::SkbTryCoalesce, 6_000_000, VETH2, 1480).events;
    let mut first = fragment(&mut lab, 1, 1472);
    first.next.payload_len = 2952;
    let first = first.hop(HopId::UdpQueueRcvOneSkb, 900, VETH2, 2960).process(401, "receiver");
    let packets = stitch(&in_order([first.end(HopId::ConsumeSkb, 900).events, second]));
    let part = packets.iter().find(|packet| packet.id == 2).unwrap();
    assert_eq!(part.outcome, Outcome::Merged { into: Some(1), at: HopId::IpDefrag });
    // While its datagram is not whole it waits.
    let [alone] = &stitch(&fragment(&mut lab, 3, 1480).events)[..] else { panic!("one packet") };
    assert!(matches!(alone.outcome, Outcome::Waiting { .. }), "{:?}", alone.outcome);
}

#[test]
fn a_fragment_whose_datagram_never_comes_together_is_dropped() {
    let mut lab = Lab::new();
    let lost = fragment(&mut lab, 2, 1480).dropped(30_000_000, 1, None).events;
    let [packet] = &stitch(&lost)[..] else { panic!("one packet") };
    assert!(matches!(packet.outcome, Outcome::Dropped { at: Some(HopId::IpDefrag), .. }), "{:?}", packet.outcome);
    // And one that no hop sees behind the place has been taken into it, as far as is known.
    let last = fragment(&mut lab, 3, 1048).end(HopId::SkbReleaseHeadState, 300);
    let [packet] = &stitch(&last.events)[..] else { panic!("one packet") };
    assert_eq!(packet.outcome, Outcome::Merged { into: None, at: HopId::IpDefrag });
}
