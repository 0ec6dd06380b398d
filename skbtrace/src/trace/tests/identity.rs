//! Which events are one packet: addresses and ids are used again, headers change on the way, and nothing is merged.

use skbtrace_common::{EventFlags, HopId};

use super::stitch;
use crate::trace::testkit::{Lab, NIC, Trip, VETH2};
use crate::trace::{Cause, Outcome};

#[test]
fn a_lost_end_shows_when_the_address_is_used_again() {
    let mut lab = Lab::new();
    let mut first = lab.udp(1, 1);
    first.pop();
    let mut second = lab.udp(2, 2);
    second.iter_mut().for_each(|event| event.skb = first[0].skb);
    let packets = stitch(&[first, second].concat());
    assert_eq!(packets[0].outcome, Outcome::Incomplete { causes: vec![Cause::AddressReused], seen: None });
    assert!(matches!(packets[1].outcome, Outcome::Delivered { .. }));
}

#[test]
fn an_address_reused_under_the_same_id_never_merges() {
    let mut lab = Lab::new();
    let mut first = lab.udp(1, 1);
    first.pop();
    for (cut, flags) in [(0, 0), (0, EventFlags::REUSED), (4, 0)] {
        let mut second = lab.udp(1, 2);
        for event in &mut second {
            event.step += first.len() as u32;
            event.flags &= !EventFlags::FIRST;
        }
        second[0].flags |= flags;
        let packets = stitch(&[&first[..], &second[cut..]].concat());
        let [old, new] = &packets[..] else { panic!("{} packets", packets.len()) };
        assert_eq!(old.outcome, Outcome::Incomplete { causes: vec![Cause::AddressReused], seen: None });
        assert_eq!(new.steps.len(), second.len() - cut);
        assert_eq!(matches!(new.outcome, Outcome::Delivered { .. }), cut == 0, "{:?}", new.outcome);
    }
}

#[test]
fn nat_and_routing_do_not_split_a_packet() {
    let mut lab = Lab::new();
    let mut trip = lab.datagram(1, 7);
    trip.events.truncate(7);
    let mut trip = trip.hop(HopId::IpForward, 900, VETH2, 92);
    trip.next.ttl = 63;
    (trip.next.saddr, trip.next.sport) = ([9; 16], 1);
    (trip.next.daddr, trip.next.dport) = ([8; 16], 2);
    let trip = trip.hop(HopId::IpOutput, 900, NIC, 92).hop(HopId::DevQueueXmit, 500, NIC, 106);
    let events = trip.end(HopId::ConsumeSkb, 4_000).events;
    let [packet] = &stitch(&events)[..] else { panic!("one packet") };
    assert_eq!(packet.outcome, Outcome::Left);
    assert_eq!(packet.steps.len(), events.len());
    // The same with the event of ip_forward lost: the fallen TTL tells that it is no new packet.
    let [packet] = &stitch(&[&events[..7], &events[8..]].concat())[..] else { panic!("one packet") };
    assert!(matches!(&packet.outcome, Outcome::Incomplete { seen: Some(seen), .. } if **seen == Outcome::Left));
}

#[test]
fn a_retransmission_is_a_packet_of_its_own_although_it_shares_data() {
    let mut lab = Lab::new();
    let first = lab.tcp_data(1, 100, 50);
    let mut again = lab.tcp_data(2, 100, 50);
    again.iter_mut().for_each(|event| event.head = first[0].head);
    // The first is still on its way when the second is sent.
    let (sent, arrives) = first.split_at(9);
    let packets = stitch(&[sent, &again, arrives].concat());
    let told: Vec<_> = packets.iter().map(|packet| (packet.id, packet.retransmission, packet.branches.len())).collect();
    assert_eq!(told, [(2, true, 0), (1, false, 0)]);
}

#[test]
fn headers_tell_packets_apart_where_hops_cannot() {
    let mut lab = Lab::new();
    let ends = |trip: Trip, proto| trip.addresses(proto, (11, 1), (10, 2));
    let first = lab.bridged(|trip| ends(trip, 6).tcp(0x10, 7, 0));
    let mut other_ack = first.clone();
    other_ack.iter_mut().for_each(|event| event.ack = 1);
    let pairs = [
        (first.clone(), other_ack),
        (first.clone(), lab.bridged(|trip| ends(trip, 6).tcp(0x10, 8, 0))),
        (first, lab.bridged(|trip| ends(trip, 6).tcp(0x14, 7, 0))),
        (lab.bridged(|trip| ends(trip, 17).datagram(1, 9)), lab.bridged(|trip| ends(trip, 17).datagram(2, 9))),
        (lab.bridged(|trip| ends(trip, 17).datagram(1, 9)), lab.bridged(|trip| ends(trip, 17).datagram(1, 8))),
        (lab.bridged(|trip| ends(trip, 17).datagram(1, 9)), lab.bridged(|trip| ends(trip, 1).datagram(1, 9))),
    ];
    for (mut first, mut second) in pairs {
        first.pop();
        for event in &mut second {
            event.step += first.len() as u32;
            event.flags &= !EventFlags::FIRST;
        }
        let packets = stitch(&[&first[..], &second].concat());
        let causes: Vec<_> = packets
            .iter()
            .map(|packet| match &packet.outcome {
                Outcome::Incomplete { causes, .. } => causes[0],
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(causes, [Cause::AddressReused, Cause::StartUnknown]);
    }
}
