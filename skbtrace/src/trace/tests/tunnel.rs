//! Packets that go into tunnels and come out: one packet, however often its headers change. And strangers that look like it.

use skbtrace_common::{Event, HopId};

use super::stitch;
use crate::trace::testkit::{Dev, Lab, PEER1, PEER2, Trip, VETH1, VETH2};
use crate::trace::{How, Outcome, Packet};

const TUNNEL2: Dev = Dev { ifindex: 7, name: "vx", ..PEER2 };
const TUNNEL1: Dev = Dev { ifindex: 8, name: "vx", ..PEER1 };

const UDP: u8 = 17;

/// The segment inside.
fn bare(trip: Trip) -> Trip {
    let mut trip = trip.addresses(6, (11, 58_854), (10, 8000)).tcp(0x18, 100, 77);
    trip.next.ip_id = 1;
    trip
}

/// The same inside a datagram: 8 bytes of VXLAN, an Ethernet header, the segment.
fn wrapped(trip: Trip) -> Trip {
    trip.addresses(UDP, (2, 50_000), (1, 4789)).tcp(0, 0, 0).datagram(9, 151)
}

/// It is handed to the tunnel's device.
fn sent(lab: &mut Lab) -> Trip {
    let trip = bare(lab.trip(1)).process(312, "curl").hop(HopId::IpOutput, 0, VETH2, 129);
    trip.hop(HopId::DevQueueXmit, 900, TUNNEL2, 143).hop(HopId::NetDevStartXmit, 300, TUNNEL2, 143)
}

/// From where the tunnel sends it to where the other end gets it.
fn through(trip: Trip) -> Trip {
    let trip = wrapped(trip).hop(HopId::IpOutput, 700, PEER2, 179).cross(PEER2, PEER1, 179).softirq(1);
    trip.hop(HopId::IpRcv, 9_000, PEER1, 179).hop(HopId::UdpQueueRcvOneSkb, 900, PEER1, 159)
}

fn received(trip: Trip) -> Trip {
    let trip = trip.hop(HopId::NetifRxInternal, 800, TUNNEL1, 129).hop(HopId::EnqueueToBacklog, 300, TUNNEL1, 129);
    let trip = trip.hop(HopId::IpRcv, 9_000, VETH1, 129).hop(HopId::TcpV4Rcv, 900, VETH1, 109);
    trip.hop(HopId::TcpQueueRcv, 900, VETH1, 77).hop(HopId::SkbCopyDatagramIter, 90_000, VETH1, 77)
}

fn whole() -> Vec<Event> {
    received(bare(through(sent(&mut Lab::new())))).end(HopId::SkbReleaseHeadState, 900).events
}

fn layers(packet: &Packet) -> Vec<i8> {
    let mut layers: Vec<i8> = packet.steps.iter().map(|step| step.layer).collect();
    layers.dedup();
    layers
}

#[test]
fn what_goes_into_a_tunnel_and_comes_out_is_one_packet() {
    let events = whole();
    let [packet] = &stitch(&events)[..] else { panic!("one packet") };
    assert_eq!(packet.steps.len(), events.len());
    assert_eq!(layers(packet), [0, 1, 0]);
    assert_eq!(packet.flow.map(|flow| flow.proto), Some(6));
    assert_eq!((packet.payload_len, packet.carried()), (77, None));
    assert!(matches!(packet.outcome, Outcome::Delivered { how: How::Copied, .. }), "{:?}", packet.outcome);
}

#[test]
fn what_is_first_seen_in_a_tunnel_says_what_came_out_of_it() {
    // From the last hop on at which it still has the tunnel's headers.
    let trip = wrapped(Lab::new().trip(1)).hop(HopId::IpOutput, 0, PEER2, 179).cross(PEER2, PEER1, 179).softirq(1);
    let trip = trip.hop(HopId::IpRcv, 9_000, PEER1, 179).hop(HopId::UdpQueueRcvOneSkb, 900, PEER1, 159);
    let events = received(bare(trip)).end(HopId::SkbReleaseHeadState, 900).events;
    let [packet] = &stitch(&events)[..] else { panic!("one packet") };
    assert_eq!(layers(packet), [0, -1]);
    assert_eq!(packet.flow.map(|flow| flow.proto), Some(UDP));
    let carried = packet.carried().unwrap();
    assert_eq!((carried.proto, carried.ports), (6, Some((58_854, 8000))));
    assert!(packet.tcp.is_none(), "the numbers of what is inside are not the datagram's");
    assert!(matches!(packet.outcome, Outcome::Delivered { how: How::Copied, .. }), "{:?}", packet.outcome);
}

/// The events with these changed from this index on.
fn changed(from: usize, change: impl Fn(&mut Event)) -> Vec<Event> {
    let mut events = whole();
    events[from..].iter_mut().for_each(change);
    events
}

fn index_of(hop: HopId, of: usize) -> usize {
    whole().iter().enumerate().filter(|(_, event)| event.hop == hop as u16).nth(of).unwrap().0
}

type Change<'a> = &'a dyn Fn(&mut Event);

#[test]
fn a_stranger_under_the_address_is_no_packet_in_a_tunnel() {
    let into = index_of(HopId::IpOutput, 1);
    let out = index_of(HopId::NetifRxInternal, 1);
    let strangers: [(usize, Change); 5] = [
        // What comes out is not what went in.
        (out, &|event| event.seq += 1000),
        // No tunnel carries in ICMP.
        (into, &|event| event.l4_proto = if event.l4_proto == UDP { 1 } else { event.l4_proto }),
        // Headers in front of a packet make it longer, and without them it is shorter.
        (into, &|event| event.len = event.len.min(140)),
        (out, &|event| event.len += 1000),
        // What was not seen may have been its end.
        (into, &|event| event.step += 1),
    ];
    for (case, (from, change)) in strangers.into_iter().enumerate() {
        let packets = stitch(&changed(from, change));
        assert!(packets.len() > 1, "{case}: {packets:#?}");
        // What begins with a hop where packets may begin is whole for all that can be known.
        assert!(matches!(packets[0].outcome, Outcome::Incomplete { .. }), "{case}: {packets:#?}");
        assert!(packets[0].steps.len() <= from, "{case}");
    }
}

#[test]
fn a_packet_that_is_freed_as_it_comes_out_ends_there() {
    let trip = bare(through(sent(&mut Lab::new()))).dropped(900, 0xffff_ffff_8100_1000, Some(8));
    let mut events = trip.events;
    events.last_mut().unwrap().len = 129;
    let [packet] = &stitch(&events)[..] else { panic!("one packet") };
    assert!(matches!(packet.outcome, Outcome::Dropped { .. }), "{:?}", packet.outcome);
}
