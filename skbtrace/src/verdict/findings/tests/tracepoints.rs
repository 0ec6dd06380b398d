//! What is a finding where tracepoints alone have seen the packets.

use skbtrace_common::{Digest, Event, EventFlags, HopId};

use super::{IN_CORE, IN_TCP, found, found_with};
use crate::trace::testkit::{Lab, PEER1, PEER2, Trip, VETH1, VETH2};
use crate::verdict::digest::tests::digest_of;
use crate::verdict::{Class, Span};

#[test]
fn a_frame_for_others_was_sent_here_if_it_was_seen_to_be() {
    let mut lab = Lab::new();
    let sent = lab.trip(1).addresses(17, (11, 40_000), (10, 9000)).datagram(1, 64).process(400, "sender");
    let refused = sent.seen_crossing(VETH2, VETH1, 92).dropped(900, 1, Some(6)).events;
    let [finding] = &found(&refused)[..] else { panic!("one finding") };
    assert_eq!((finding.class, finding.span), (Class::Dropped, Span::At(HopId::NetifReceiveSkb)));
    let came = lab.trip(2).addresses(17, (11, 40_000), (10, 9000)).datagram(1, 64).softirq(0);
    let came = came.hop(HopId::NetifReceiveSkb, 0, VETH1, 92).dropped(900, 1, Some(6)).events;
    assert_eq!(found(&came), []);
}

#[test]
fn a_packet_is_twice_there_if_a_clone_of_it_leaves_as_it_does() {
    let mut lab = Lab::new();
    let sent = lab.trip(1).addresses(17, (11, 40_000), (10, 9000)).datagram(1, 64).process(400, "sender");
    let queued = sent.seen_crossing(VETH2, PEER2, 92).hop(HopId::NetDevQueue, 900, PEER1, 106);
    let leave = |trip: Trip| trip.hop(HopId::NetDevStartXmit, 900, PEER1, 106).hop(HopId::NetifRx, 900, VETH1, 92);
    let leave = |trip: Trip| leave(trip).hop(HopId::NetifReceiveSkb, 900, VETH1, 92).end(HopId::ConsumeSkb, 900).events;
    let clone = leave(lab.clone_of(2, &queued.events[4]));
    assert_eq!(found(&leave(queued.clone())), []);
    let rest = leave(queued.clone()).split_off(5);
    let all = found(&[queued.events, clone, rest].concat());
    let [finding] = &all[..] else { panic!("{all:#?}") };
    assert_eq!(finding.class, Class::Duplicated);
    assert_eq!(finding.span, Span::Between(HopId::NetDevQueue, HopId::NetDevStartXmit));
    assert_eq!(finding.device.map(|device| device.key.ifindex), Some(PEER1.ifindex));
}

#[test]
fn a_reset_of_what_is_over_already_is_nobodys_fault() {
    let mut lab = Lab::new();
    let mut refused = |flags, location| {
        let trip = lab.trip(1).addresses(6, (10, 8000), (11, 60_915)).tcp(flags, 1, 0).softirq(0);
        found(&trip.seen_crossing(VETH2, VETH1, 40).dropped(900, location, None).events).len()
    };
    const RST: u8 = 4;
    const SYN: u8 = 2;
    assert_eq!(refused(RST, IN_TCP), 0);
    assert_eq!(refused(SYN, IN_TCP), 1);
    assert_eq!(refused(RST, 1), 1, "who knows who had it");
}

#[test]
fn what_is_garbled_and_dropped_before_anybody_looks_at_its_bytes_is_both() {
    let classes = |location| {
        let trip = Lab::new().trip(1).addresses(17, (11, 40_000), (10, 9000)).datagram(1, 64).process(400, "sender");
        let events = trip.seen_crossing(VETH2, VETH1, 92).dropped(900, location, None).events;
        let sent = events[0].hop;
        let digest = |event: &Event| match event.flags & EventFlags::END {
            0 => digest_of(8, if event.hop == sent { b"as sent!" } else { b"garbled!" }),
            _ => Digest::default(),
        };
        found_with(&events, None, digest).iter().map(|finding| finding.class).collect::<Vec<_>>()
    };
    assert_eq!(classes(IN_CORE), [Class::Garbled, Class::Dropped], "where tc looks at it");
    assert_eq!(classes(IN_TCP), [Class::Garbled], "where its checksum is looked at");
    assert_eq!(classes(1), [Class::Garbled], "who knows who had it");
}
