//! Payloads of made-up packets, whose bytes the test knows at every hop.

use skbtrace_common::{Digest, Event, EventFlags, HopId};

use super::{Change, Payload, payload};
use crate::trace::testkit::{Lab, PEER1, in_order};
use crate::trace::{Packet, StitchOptions, Stitcher};
use crate::verdict::digest::tests::digest_of;
use crate::verdict::{Place, sum};

/// Stitches events, each with the digest that `bytes` says.
fn stitch(events: &[Event], bytes: impl Fn(usize, &Event) -> Option<Vec<u8>>) -> Vec<Packet> {
    let mut stitcher = Stitcher::new(StitchOptions::default());
    let mut packets = Vec::new();
    for (n, event) in events.iter().enumerate() {
        let digest = bytes(n, event).map_or_else(Digest::default, |bytes| digest_of(event.seq, &bytes));
        stitcher.push_verified(event, &digest, &mut |packet| packets.push(packet));
    }
    stitcher.finish(10_000_000_000, &mut |packet| packets.push(packet));
    packets
}

/// What everybody sends: so many bytes from this sequence number on.
fn sent(seq: u32, len: u32) -> Vec<u8> {
    (seq..seq + len).map(|n| (n * 7 + n / 256) as u8).collect()
}

fn is_end(event: &Event) -> bool {
    event.flags & EventFlags::END != 0
}

/// A digest at every hop of a packet but the last.
fn faithful(event: &Event) -> Option<Vec<u8>> {
    (!is_end(event)).then(|| sent(event.seq, event.payload_len))
}

fn change(packet: &Packet) -> Change {
    match payload(packet) {
        Payload::Garbled(changes) => *changes.first(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_payload_that_stays_is_the_same() {
    let events = Lab::new().tcp_data(1, 100, 300);
    let [packet] = &stitch(&events, |_, event| faithful(event))[..] else { panic!("one packet") };
    assert_eq!(payload(packet), Payload::Same { hops: events.len() as u32 - 1 });
}

/// A segment that a tunnel carries, and its digests: inside, its own payload; outside, the datagram's.
fn tunnelled(garble: impl Fn(usize, &mut Vec<u8>)) -> (Vec<Event>, Packet) {
    let tunnel = crate::trace::testkit::Dev { ifindex: 7, name: "vx", ..PEER1 };
    let bare = |trip: crate::trace::testkit::Trip| trip.addresses(6, (11, 58_854), (10, 8000)).tcp(0x18, 100, 77);
    let trip =
        bare(Lab::new().trip(1)).hop(HopId::DevQueueXmit, 0, tunnel, 143).hop(HopId::NetDevStartXmit, 300, tunnel, 143);
    let trip = trip.addresses(17, (2, 50_000), (1, 4789)).tcp(0, 0, 151).hop(HopId::IpOutput, 700, PEER1, 179);
    let trip = trip.hop(HopId::IpRcv, 900, PEER1, 179).hop(HopId::UdpQueueRcvOneSkb, 900, PEER1, 159);
    let trip = bare(trip).hop(HopId::NetifRxInternal, 800, tunnel, 129).hop(HopId::TcpV4Rcv, 900, tunnel, 109);
    let events = trip.end(HopId::SkbReleaseHeadState, 900).events;
    let packets = stitch(&events, |n, event| {
        let mut bytes = faithful(event)?;
        garble(n, &mut bytes);
        Some(bytes)
    });
    let [packet] = &packets[..] else { panic!("one packet") };
    (events, packet.clone())
}

#[test]
fn a_tunnel_s_headers_garble_nothing_and_hide_nothing() {
    let (events, packet) = tunnelled(|_, _| ());
    assert_eq!(payload(&packet), Payload::Same { hops: events.len() as u32 - 1 });
    // In the datagram: between two of its hops. Inside, from before to behind the tunnel.
    for (at, before, after) in [
        (3, HopId::IpOutput, HopId::IpRcv),
        (4, HopId::IpRcv, HopId::UdpQueueRcvOneSkb),
        (5, HopId::NetDevStartXmit, HopId::NetifRxInternal),
    ] {
        let (_, packet) = tunnelled(|n, bytes| bytes[20] ^= u8::from(n == at));
        let change = change(&packet);
        assert_eq!((change.before.hop, change.after.hop), (before, after), "{at}");
    }
}

#[test]
fn what_changes_in_a_tunnel_is_told_once() {
    let (outside, around) = ((HopId::IpOutput, HopId::IpRcv), (HopId::NetDevStartXmit, HopId::NetifRxInternal));
    // Where the datagram is first seen there is nothing of its own to compare it with.
    for (at, expected) in [(2, around), (3, outside)] {
        let (_, packet) = tunnelled(|n, bytes| bytes[20] ^= u8::from(n >= at));
        let Payload::Garbled(changes) = payload(&packet) else { panic!("garbled") };
        let hops: Vec<_> = changes.all().map(|change| (change.before.hop, change.after.hop)).collect();
        assert_eq!(hops, [expected], "{at}");
    }
}

#[test]
fn each_of_those_that_write_to_a_packet_is_found() {
    let events = Lab::new().tcp_data(1, 100, 300);
    let packets = stitch(&events, |n, event| {
        let mut bytes = faithful(event)?;
        bytes[20] ^= u8::from(n >= 5);
        bytes[90] ^= u8::from(n >= 9);
        Some(bytes)
    });
    let Payload::Garbled(changes) = payload(&packets[0]) else { panic!("garbled") };
    let found: Vec<_> = changes.all().map(|change| (change.before.step, change.after.step)).collect();
    assert_eq!(found, [(4, 5), (8, 9)]);
    let offsets = changes.all().map(|change| match change.place {
        Some(Place::Byte { offset, .. }) => offset,
        _ => panic!("{change:?}"),
    });
    assert_eq!(offsets.collect::<Vec<_>>(), [20, 90]);
}

#[test]
fn a_byte_that_changes_is_found_between_its_hops() {
    let events = Lab::new().tcp_data(1, 100, 300);
    for at in 1..events.len() - 1 {
        let packets = stitch(&events, |n, event| {
            let mut bytes = faithful(event)?;
            bytes[20] = bytes[20].wrapping_add(u8::from(n >= at));
            Some(bytes)
        });
        let change = change(&packets[0]);
        let hop = |n: usize| HopId::from_number(events[n].hop).unwrap();
        assert_eq!((change.before.hop, change.before.step), (hop(at - 1), at as u32 - 1));
        assert_eq!((change.after.hop, change.after.step), (hop(at), at as u32));
        let Some(Place::Byte { offset: 20, difference: 1 | -255 }) = change.place else { panic!("{change:?}") };
    }
}

#[test]
fn without_a_digest_nothing_is_said() {
    let events = Lab::new().tcp_data(1, 100, 300);
    let [packet] = &stitch(&events, |n, event| faithful(event).filter(|_| n == 4))[..] else { panic!("one packet") };
    assert_eq!(payload(packet), Payload::Unverified, "one hop has nothing to compare with");
    let [packet] = &stitch(&events, |_, _| None)[..] else { panic!("one packet") };
    assert_eq!(payload(packet), Payload::Unverified);
}

#[test]
fn nothing_is_said_across_a_gap() {
    let events = Lab::new().tcp_data(1, 100, 300);
    for lost in 1..events.len() - 2 {
        let seen = [&events[..lost], &events[lost + 1..]].concat();
        // It changes in the gap, and only there.
        let packets = stitch(&seen, |n, event| {
            let mut bytes = faithful(event)?;
            bytes[20] ^= u8::from(n >= lost);
            Some(bytes)
        });
        assert_eq!(payload(&packets[0]), Payload::Unverified);
    }
}

#[test]
fn nothing_is_said_across_skipped_probes() {
    let mut events = Lab::new().tcp_data(1, 100, 300);
    events[9].flags |= EventFlags::NESTED;
    // Before the hop that had the others skipped as well as behind it.
    for changed in [9, 10] {
        let packets = stitch(&events, |n, event| {
            let mut bytes = faithful(event)?;
            bytes[0] ^= u8::from(n >= changed);
            Some(bytes)
        });
        assert_eq!(payload(&packets[0]), Payload::Unverified, "{changed}");
    }
}

/// Two segments, the second of which TCP appends to the first before a process reads both.
fn coalesced(garble: impl Fn(&mut Vec<u8>)) -> Vec<Packet> {
    coalesced_from(|_| {}, garble)
}

/// The same; `seen` is done to the event at which it is appended.
fn coalesced_from(seen: impl Fn(&mut Event), garble: impl Fn(&mut Vec<u8>)) -> Vec<Packet> {
    let mut lab = Lab::new();
    let first = lab.tcp_data(1, 100, 300);
    let mut second = lab.tcp_data(2, 400, 50);
    second.truncate(second.len() - 2);
    let last = *second.last().unwrap();
    let mut merge =
        Event { hop: HopId::TcpTryCoalesce as u16, step: last.step + 1, other: 1, time_ns: last.time_ns + 9, ..last };
    seen(&mut merge);
    let flags = last.flags | EventFlags::END;
    let end =
        Event { hop: HopId::KfreeSkbPartial as u16, step: last.step + 2, time_ns: last.time_ns + 20, flags, ..last };
    second.extend([merge, end]);
    let (arrives, read) = first.split_at(first.len() - 2);
    let mut events = in_order([arrives.to_vec(), second]);
    events.extend(read.iter().map(|event| Event { time_ns: event.time_ns + 5_000_000, ..*event }));
    stitch(&events, |_, event| {
        if event.hop == HopId::SkbCopyDatagramIter as u16 {
            let mut both = sent(100, 350);
            garble(&mut both);
            return Some(both);
        }
        faithful(event)
    })
}

#[test]
fn what_is_read_is_the_segment_and_what_was_appended_to_it() {
    let packets = coalesced(|_| {});
    assert_eq!(packets.len(), 2);
    for packet in &packets {
        assert!(matches!(payload(packet), Payload::Same { .. }), "{packet:#?}");
    }
    let garbled = coalesced(|bytes| bytes[320] ^= 4);
    let whole = garbled.iter().find(|packet| packet.id == 1).unwrap();
    assert_eq!(change(whole).after.hop, HopId::SkbCopyDatagramIter);
    assert_eq!(change(whole).place, None, "only the sum of both is known");
}

#[test]
fn nothing_is_said_of_what_was_appended_behind_a_gap() {
    let gap = |event: &mut Event| event.flags |= EventFlags::NESTED;
    let changed = |bytes: &mut Vec<u8>| bytes[320] ^= 4;
    for packets in [coalesced_from(gap, changed), coalesced_from(gap, |_| {})] {
        let whole = packets.iter().find(|packet| packet.id == 1).unwrap();
        assert_eq!(payload(whole), Payload::Unverified);
    }
}

#[test]
fn an_icmp_error_may_be_rewritten() {
    // Type 3: what it quotes is translated back by NAT on its way.
    let mut lab = Lab::new();
    let mut events = lab.ping_loopback(1);
    for kind in [3_u16, 8] {
        events.iter_mut().for_each(|event| (event.sport, event.payload_len) = (kind << 8, 64));
        let packets = stitch(&events, |n, event| {
            let mut bytes = faithful(event)?;
            bytes[30] ^= u8::from(n > 3);
            Some(bytes)
        });
        assert_eq!(matches!(payload(&packets[0]), Payload::Garbled(_)), kind == 8);
    }
}

#[test]
fn a_clone_is_compared_with_what_it_was_cloned_from() {
    let mut lab = Lab::new();
    let whole = lab.tcp_data(1, 100, 300);
    let clone = lab.clone_of(2, &whole[8]).hop(HopId::PacketRcv, 0, PEER1, 352).end(HopId::ConsumeSkb, 900).events;
    let events = [&whole[..9], &clone, &whole[9..]].concat();
    let packets = stitch(&events, |_, event| {
        let mut bytes = faithful(event)?;
        bytes[7] ^= u8::from(event.packet == 2);
        Some(bytes)
    });
    let [packet] = &packets[..] else { panic!("{} packets", packets.len()) };
    let change = change(packet);
    assert_eq!((change.before.packet, change.after.packet), (1, 2));
    assert_eq!(change.after.hop, HopId::PacketRcv);
}

#[test]
fn parts_of_a_segment_add_up_to_it() {
    let mut lab = Lab::new();
    for garbled in [false, true] {
        let whole = lab.tcp_data(1, 100, 300);
        let last = whole[1];
        let split = Event { hop: HopId::SkbSegment as u16, step: 2, ifindex: 0, ..last };
        let flags = last.flags | EventFlags::END;
        let end = Event { hop: HopId::ConsumeSkb as u16, step: 3, flags, ..last };
        let part = |id: u64, seq: u32, len: u32| {
            let mut events = lab.clone().tcp_data(id, seq, len);
            events.drain(..2);
            for (n, event) in events.iter_mut().enumerate() {
                event.step = n as u32;
                event.time_ns += id;
            }
            events[0].flags |= EventFlags::FIRST;
            events
        };
        let events = [&whole[..2], &[split, end], &part(7, 100, 200)[..], &part(8, 300, 100)[..]].concat();
        let packets = stitch(&events, |_, event| {
            let mut bytes = faithful(event)?;
            bytes[3] ^= u8::from(garbled && event.packet == 8);
            Some(bytes)
        });
        let [packet] = &packets[..] else { panic!("{} packets", packets.len()) };
        assert!(packet.was_cut() && packet.branches.len() == 2, "{packet:#?}");
        match payload(packet) {
            Payload::Same { hops } => assert!(!garbled && hops as usize == events.len() - 3, "{hops}"),
            Payload::Garbled(all) => assert!(garbled && all.first().before.hop == HopId::SkbSegment, "{all:?}"),
            Payload::Unverified => panic!("{packet:#?}"),
        }
    }
}

#[test]
fn sums_do_not_depend_on_blocks() {
    let bytes = sent(1, 9000);
    let blocks: Vec<Digest> = bytes.chunks(9).enumerate().map(|(n, part)| digest_of(1 + 9 * n as u32, part)).collect();
    let total = blocks.iter().fold(0_u64, |total, part| total.wrapping_add(sum(part)));
    assert_eq!(total, sum(&digest_of(1, &bytes)));
}

#[test]
fn pieces_are_laid_one_behind_the_other() {
    let bytes = sent(0, 4000);
    let piece = |from: usize, to: usize| digest_of(from as u32, &bytes[from..to]);
    let whole = piece(8, 4000);
    let (first, second, third) = (piece(8, 1480), piece(1480, 2960), piece(2960, 4000));
    let total = Some(sum(&whole));
    assert_eq!(super::tile(&[&third, &first, &second], &whole), total, "in any order");
    assert_eq!(super::tile(&[&first, &second, &second, &third], &whole), total, "one twice");
    assert_eq!(super::tile(&[&first, &third], &whole), None, "a gap");
    assert_eq!(super::tile(&[&first, &second, &piece(2960, 3999)], &whole), None, "too little");
    let longer = sent(0, 4001);
    assert_eq!(super::tile(&[&first, &second, &digest_of(2960, &longer[2960..])], &whole), None, "too much");
}
