//! Packets of which tracepoints alone were seen: TCP's own frees are not among them.

use skbtrace_common::{Event, EventFlags, HopId};

use super::{reasons, stitch_with};
use crate::trace::testkit::{BRIDGE, Lab, PEER1, PEER2, PORT3, REASON_NOT_SPECIFIED, Trip, VETH1, VETH2};
use crate::trace::{Cause, How, Losses, Outcome, Packet, Queue, StitchOptions, Stitcher};

/// Where the made-up kernel's TCP is.
const TCP_CODE: (u64, u64) = (0xffff_ffff_8100_0000, 0xffff_ffff_8100_8000);

fn options() -> StitchOptions {
    StitchOptions { tcp_ends_unseen: true, tcp_code: vec![TCP_CODE], reasons: reasons(), ..Default::default() }
}

fn stitch(events: &[Event]) -> Vec<Packet> {
    stitch_with(options(), events, Losses::default()).0
}

fn how(packet: &Packet) -> Option<How> {
    match packet.outcome {
        Outcome::Delivered { how, .. } => Some(how),
        _ => None,
    }
}

fn one(packets: &[Packet], id: u64) -> &Packet {
    let [packet] = packets.iter().filter(|packet| packet.id == id).collect::<Vec<_>>()[..] else {
        panic!("not one {id}: {packets:#?}")
    };
    packet
}

/// These events under the address of another packet. `Some`: with its id, from this step on; the kernel side took them for its.
fn under(address: &Trip, id: Option<u64>, mut events: Vec<Event>) -> Vec<Event> {
    for event in &mut events {
        event.skb = address.next.skb;
        if let Some(id) = id {
            event.packet = id;
            event.step += address.events.len() as u32;
            event.flags &= !EventFlags::FIRST;
        }
    }
    events
}

#[test]
fn an_ack_is_tcps_when_nothing_has_come_of_it_for_half_a_second() {
    let mut lab = Lab::new();
    let ack = lab.seen_segment(1, 0x10, 100, 0);
    let last = ack.next.time_ns;
    let mut other = lab.trip(2).addresses(17, (11, 1), (10, 2)).datagram(1, 8).hop(HopId::NetDevQueue, 0, VETH2, 50);
    other.events[0].time_ns = last + 500_000_000;
    // By a tick, and by any event.
    for by_event in [false, true] {
        let mut stitcher = Stitcher::new(options());
        let mut packets = Vec::new();
        ack.events.iter().for_each(|event| stitcher.push(event, &mut |packet| packets.push(packet)));
        stitcher.tick(last + 499_999_999, &mut |packet| packets.push(packet));
        assert!(packets.is_empty() && !stitcher.has_taken(last + 499_999_999));
        assert!(stitcher.has_taken(last + 500_000_000));
        if by_event {
            stitcher.push(&other.events[0], &mut |packet| packets.push(packet));
        } else {
            stitcher.tick(last + 500_000_000, &mut |packet| packets.push(packet));
        }
        assert_eq!(
            packets.iter().map(|packet| (packet.id, how(packet))).collect::<Vec<_>>(),
            [(1, Some(How::Protocol))]
        );
    }
}

#[test]
fn an_ack_whose_end_may_be_lost_is_not_called_tcps() {
    let mut lab = Lab::new();
    let (before, ack, after) =
        (lab.seen_segment(1, 0x10, 1, 0), lab.seen_segment(2, 0x10, 2, 0), lab.seen_segment(3, 0x10, 3, 0));
    let mut stitcher = Stitcher::new(options());
    let mut packets = Vec::new();
    let mut sink = |packet| packets.push(packet);
    before.events.iter().for_each(|event| stitcher.push(event, &mut sink));
    stitcher.tick(before.next.time_ns + 500_000_000, &mut sink);
    // Losses are told at ticks: these were in between.
    ack.events.iter().for_each(|event| stitcher.push(event, &mut sink));
    stitcher.set_losses(Losses { ring_full: 1, ..Losses::default() });
    let noticed = before.next.time_ns + 500_000_001;
    stitcher.tick(noticed, &mut sink);
    after.events.iter().for_each(|event| stitcher.push(&Event { time_ns: noticed + 1, ..*event }, &mut sink));
    while stitcher.has_taken(noticed + 600_000_000) {
        stitcher.tick(noticed + 600_000_000, &mut sink);
    }
    assert_eq!(how(one(&packets, 1)), Some(How::Protocol));
    assert_eq!(one(&packets, 2).outcome, Outcome::Incomplete { causes: vec![Cause::EndLost], seen: None });
    assert_eq!(how(one(&packets, 3)), Some(How::Protocol));
}

#[test]
fn a_segment_is_taken_when_its_address_is_another_packets() {
    let mut lab = Lab::new();
    let (ack, other) = (lab.seen_segment(1, 0x10, 100, 0), lab.seen_segment(2, 0x10, 200, 0));
    // The kernel side has noticed; it has not, and the headers tell.
    let mut noticed = under(&ack, None, other.events.clone());
    noticed[0].flags |= EventFlags::REUSED;
    let unnoticed = under(&ack, Some(1), other.events.clone());
    for second in [noticed, unnoticed] {
        let packets = stitch(&[&ack.events[..], &second].concat());
        let [old, new] = &packets[..] else { panic!("{packets:#?}") };
        assert_eq!((old.steps.len(), how(old)), (4, Some(How::Protocol)));
        assert_eq!(new.steps.len(), 4);
        // Where it began is not known in the second case: for the kernel side it was the other's.
        assert_eq!(how(new).is_some(), new.steps[0].event.flags & EventFlags::REUSED != 0, "{new:#?}");
    }
    // The kernel side saw the end, and nobody else: whatever it was.
    let packets = stitch(&[ack.events.clone(), under(&ack, None, other.events)].concat());
    assert_eq!(packets[0].outcome, Outcome::Incomplete { causes: vec![Cause::AddressReused], seen: None });
    assert_eq!(how(&packets[1]), Some(How::Protocol));
}

#[test]
fn data_under_a_reused_address_waits_for_its_reader() {
    let mut lab = Lab::new();
    let (first, second) = (lab.seen_data(1, 100, 50), lab.seen_data(2, 150, 60));
    let mut other = under(&second, None, lab.seen_segment(3, 0x10, 900, 0).events);
    other[0].flags |= EventFlags::REUSED;
    // It became a part of the first, whose address nobody else has, and is read with it.
    let unread = [first.events.clone(), second.events.clone(), other].concat();
    let packets = stitch(&[unread.clone(), first.seen_read(90_000_000, 110).events.split_off(5)].concat());
    assert_eq!(how(one(&packets, 2)), Some(How::Coalesced));
    assert_eq!(how(one(&packets, 1)), Some(How::Copied));
    // Nobody reads either.
    for packet in stitch(&unread).iter().filter(|packet| packet.id != 3) {
        let Outcome::Waiting { queue: Some(Queue::Socket), .. } = packet.outcome else { panic!("{packet:#?}") };
    }
}

#[test]
fn what_is_read_or_freed_under_a_stale_address_is_a_strangers() {
    let mut lab = Lab::new();
    let ack = lab.seen_segment(1, 0x10, 100, 0);
    let datagram = lab.trip(9).addresses(17, (11, 1), (10, 2)).datagram(7, 8);
    let read = datagram.clone().seen_read(9_000, 8).events;
    let dropped = datagram.dropped(9_000, 0xffff_ffff_8188_0044, Some(REASON_NOT_SPECIFIED)).events;
    let probed = lab.trip(9).addresses(6, (11, 5), (10, 6)).tcp(0x18, 5, 9).hop(HopId::TcpProbe, 0, VETH1, 9).events;
    for stranger in [read, dropped, probed] {
        let packets = stitch(&[ack.events.clone(), under(&ack, Some(1), stranger)].concat());
        let [packet] = &packets[..] else { panic!("{packets:#?}") };
        assert_eq!((packet.steps.len(), how(packet)), (4, Some(How::Protocol)), "{packet:#?}");
    }
}

#[test]
fn what_comes_for_a_packet_that_is_gone_is_a_strangers_or_another_packets() {
    let mut lab = Lab::new();
    let ack = lab.seen_segment(1, 0x10, 100, 0);
    let other = lab.trip(9).addresses(17, (11, 1), (10, 2)).datagram(7, 8);
    // Read and freed: the first shows that the address is not the segment's any more.
    let mut read = other.clone().seen_read(9_000, 8);
    read.events[0].flags &= !EventFlags::END;
    let freed = under(&ack, Some(1), read.end(HopId::ConsumeSkb, 900).events);
    let packets = stitch(&[&ack.events[..], &freed].concat());
    assert_eq!(packets.iter().map(|packet| (packet.id, how(packet))).collect::<Vec<_>>(), [(1, Some(How::Protocol))]);
    // What is sent under it after the segment was called silent is a packet that begins there, and misses nothing.
    let mut late = other;
    late.next.time_ns = ack.next.time_ns + 700_000_000;
    let source = late.clone().hop(HopId::NetDevQueue, 0, VETH2, 50).hop(HopId::NetDevStartXmit, 100, VETH2, 50);
    let clone = lab.clone_of(3, &source.events[0]).seen_sent(PORT3, 36).end(HopId::ConsumeSkb, 900);
    let clone = under(&ack, Some(1), clone.events);
    let packets = stitch(&[&ack.events[..], &source.events, &clone].concat());
    assert_eq!(how(one(&packets, 1)), Some(How::Protocol));
    let [branch] = &one(&packets, source.next.packet).branches[..] else { panic!("{packets:#?}") };
    assert_eq!(branch.packet.steps.iter().map(|step| step.missing).collect::<Vec<_>>(), [0, 0, 0]);
}

#[test]
fn a_datagram_whose_end_is_left_to_another_cpu_was_delivered() {
    let mut lab = Lab::new();
    let trip = lab.trip(1).addresses(17, (11, 1), (10, 2)).datagram(7, 8).seen_crossing(VETH2, VETH1, 36);
    let mut stitcher = Stitcher::new(options());
    let mut packets = Vec::new();
    trip.events.iter().for_each(|event| stitcher.push(event, &mut |packet| packets.push(packet)));
    stitcher.tick(trip.next.time_ns + 500_000_000, &mut |packet| packets.push(packet));
    assert_eq!(packets.iter().map(|packet| (packet.id, how(packet))).collect::<Vec<_>>(), [(1, Some(How::Queued))]);
}

#[test]
fn coalesced_segments_join_the_one_that_is_read() {
    let mut lab = Lab::new();
    let segments = [(1, 100), (2, 150), (3, 200), (4, 250)].map(|(id, seq)| lab.seen_data(id, seq, 50));
    let all = segments.each_ref().map(|trip| trip.events.clone()).concat();
    let [first, ..] = segments;
    let packets = stitch(&[all, first.seen_read(90_000_000, 150).events.split_off(5)].concat());
    let read = one(&packets, 1);
    assert_eq!((how(read), read.joined), (Some(How::Copied), None));
    assert_eq!(read.parts.iter().map(|part| (part.id, part.payload_len)).collect::<Vec<_>>(), [(2, 50), (3, 50)]);
    for id in [2, 3] {
        assert_eq!((how(one(&packets, id)), one(&packets, id).joined), (Some(How::Coalesced), Some(1)));
    }
    // What was not read is not delivered.
    assert!(matches!(one(&packets, 4).outcome, Outcome::Waiting { .. }), "{packets:#?}");
}

#[test]
fn segments_that_gro_merges_join_what_comes_out_of_it() {
    let mut lab = Lab::new();
    let to_gro = |trip: Trip, seq| {
        let trip = trip.addresses(6, (11, 58_854), (10, 8000)).tcp(0x18, seq, 100).seen_sent(VETH2, 152);
        trip.softirq(1).hop(HopId::NapiGroReceiveEntry, 900, VETH1, 152)
    };
    let (mut whole, part, other) = (to_gro(lab.trip(1), 100), to_gro(lab.trip(2), 200), to_gro(lab.trip(3), 900));
    let held = [whole.events.clone(), part.events, other.events].concat();
    whole.next.payload_len = 200;
    let up = whole.hop(HopId::NetifReceiveSkb, 9_000_000, VETH1, 252).hop(HopId::TcpProbe, 900, VETH1, 232);
    let packets = stitch(&[held, up.seen_read(9_000, 200).events.split_off(3)].concat());
    let whole = one(&packets, 1);
    assert_eq!((how(whole), whole.parts.iter().map(|part| part.id).collect::<Vec<_>>()), (Some(How::Copied), vec![2]));
    assert_eq!(
        one(&packets, 2).outcome,
        Outcome::Merged { into: Some(1), at: HopId::NapiGroReceiveEntry },
        "it came no further"
    );
    assert_eq!(one(&packets, 3).joined, None);
}

#[test]
fn a_clone_under_a_stale_id_is_a_branch() {
    let mut lab = Lab::new();
    let ack = lab.seen_segment(1, 0x10, 100, 0);
    let source = lab.trip(2).addresses(17, (11, 1), (10, 2)).datagram(7, 8).seen_crossing(VETH2, PEER2, 36);
    let clone = lab.clone_of(3, &source.events[3]).seen_sent(PORT3, 36).end(HopId::ConsumeSkb, 900);
    let clone = under(&ack, Some(1), clone.events);
    let rest = source.clone().seen_sent(PEER1, 36).end(HopId::ConsumeSkb, 900).events.split_off(4);
    let packets = stitch(&[&ack.events[..], &source.events, &clone, &rest].concat());
    assert_eq!((packets.len(), how(one(&packets, 1))), (2, Some(How::Protocol)));
    let source = one(&packets, 2);
    let [branch] = &source.branches[..] else { panic!("{source:#?}") };
    assert_eq!((branch.after, branch.packet.steps.len()), (3, 3));
    assert!(!matches!(branch.packet.outcome, Outcome::Incomplete { .. }), "{source:#?}");
}

#[test]
fn a_retransmission_is_no_branch() {
    let mut lab = Lab::new();
    let first = lab.seen_data(1, 100, 50);
    let mut again = lab.seen_data(2, 100, 50);
    again.events.iter_mut().for_each(|event| event.head = first.next.head);
    again.events[0].flags |= EventFlags::LOCAL;
    // The first is still on its way when the second is sent.
    let packets = stitch(&[first.events, again.events].concat());
    let told: Vec<_> = packets.iter().map(|p| (p.id, p.parent, p.retransmission, p.branches.len())).collect();
    assert_eq!(told, [(1, None, false, 0), (2, None, true, 0)]);
}

#[test]
fn what_gso_has_cut_is_no_branch_of_whoever_had_its_memory_before() {
    let mut lab = Lab::new();
    // The ACK that opens a connection has the numbers of the first segment.
    let ack = lab.seen_segment(1, 0x10, 100, 0);
    let mut part = lab.seen_data(2, 100, 1448).events.split_off(1);
    part[0].flags |= EventFlags::FIRST;
    for (step, event) in part.iter_mut().enumerate() {
        event.step = step as u32;
        event.head = ack.events[0].head;
    }
    let packets = stitch(&[ack.events, part].concat());
    assert_eq!(packets.len(), 2, "{packets:#?}");
    assert!(packets.iter().all(|packet| packet.branches.is_empty() && packet.parent.is_none()));
}

#[test]
fn what_an_xdp_program_gets_in_other_memory_goes_on_at_the_other_end() {
    let mut lab = Lab::new();
    let sent = lab.trip(1).addresses(17, (11, 1), (10, 2)).datagram(7, 8).seen_sent(PEER1, 36).softirq(1);
    let freed = sent.end(HopId::ConsumeSkb, 900);
    let received = |trip: Trip| trip.addresses(17, (11, 1), (10, 2)).datagram(7, 8).softirq(1);
    let arrives =
        |trip: Trip| trip.hop(HopId::NapiGroReceiveEntry, 900, VETH1, 36).hop(HopId::NetifReceiveSkb, 90, VETH1, 36);
    let copy = arrives(received(lab.trip(2))).events;
    let packets = stitch(&[&freed.events[..], &copy].concat());
    let [packet] = &packets[..] else { panic!("{packets:#?}") };
    let hops = [HopId::NetDevQueue, HopId::NetDevStartXmit, HopId::NapiGroReceiveEntry, HopId::NetifReceiveSkb];
    assert_eq!(packet.steps.iter().map(|step| step.hop).collect::<Vec<_>>(), hops);
    assert_eq!(packet.steps.iter().map(|step| step.missing).collect::<Vec<_>>(), [0; 4]);
    // Behind a gap nobody knows who had it.
    let mut torn = freed.events.clone();
    torn.last_mut().unwrap().step += 1;
    assert_eq!(stitch(&[&torn[..], &copy].concat()).len(), 2);
    // Another packet, another CPU, or nothing: then it has left.
    let other = arrives(received(lab.trip(2)).datagram(9, 8)).events;
    let elsewhere = arrives(received(lab.trip(2)).softirq(0)).events;
    for next in [other, elsewhere, Vec::new()] {
        let packets = stitch(&[&freed.events[..], &next].concat());
        assert_eq!(one(&packets, 1).outcome, Outcome::Left, "{packets:#?}");
    }
}

#[test]
fn what_a_queue_doubles_is_a_branch() {
    let mut lab = Lab::new();
    let source = lab.trip(1).addresses(17, (11, 1), (10, 2)).datagram(7, 8).seen_crossing(VETH2, PEER2, 36);
    let queued = source.hop(HopId::NetDevQueue, 900, PEER1, 50);
    let leave = |trip: Trip| trip.hop(HopId::NetDevStartXmit, 900, PEER1, 50).end(HopId::ConsumeSkb, 900).events;
    let clone = leave(lab.clone_of(2, &queued.events[4]));
    let rest = leave(queued.clone()).split_off(5);
    // Whichever of the two leaves first.
    for leaving in [[&clone[..], &rest[..]], [&rest[..1], &clone[..]]] {
        let packets = stitch(&[&queued.events[..], &leaving.concat()].concat());
        let [packet] = &packets[..] else { panic!("{packets:#?}") };
        let [branch] = &packet.branches[..] else { panic!("{packet:#?}") };
        assert_eq!((packet.id, branch.packet.id, branch.packet.steps[0].hop), (1, 2, HopId::NetDevStartXmit));
    }
    // What leaves by another device, or is no more than a part, was not made there.
    let elsewhere = lab.clone_of(2, &queued.events[4]).hop(HopId::NetDevStartXmit, 900, PORT3, 50).events;
    let part = lab.clone_of(2, &queued.events[4]).datagram(7, 4).hop(HopId::NetDevStartXmit, 900, PEER1, 46).events;
    for other in [elsewhere, part] {
        let packets = stitch(&[&queued.events[..], &other].concat());
        assert!(packets.len() == 2 && packets.iter().all(|packet| packet.branches.is_empty()), "{packets:#?}");
    }
}

#[test]
fn what_a_bridge_floods_of_its_own_hosts_packets_are_branches() {
    let mut lab = Lab::new();
    let own = lab.trip(1).addresses(17, (9, 1), (255, 2)).datagram(7, 8).process(400, "sender").seen_sent(BRIDGE, 36);
    let own = own.flag(EventFlags::LOCAL);
    let clone = lab.clone_of(2, &own.events[1]).seen_sent(PEER2, 36).end(HopId::ConsumeSkb, 900);
    let mut clone = clone.events;
    clone[0].flags |= EventFlags::LOCAL | EventFlags::FIRST;
    let rest = own.clone().seen_sent(PEER1, 36).end(HopId::ConsumeSkb, 900).events.split_off(2);
    let packets = stitch(&[own.events, clone, rest].concat());
    let [packet] = &packets[..] else { panic!("{packets:#?}") };
    assert_eq!(packet.branches.iter().map(|branch| (branch.after, branch.packet.id)).collect::<Vec<_>>(), [(1, 2)]);
}

#[test]
fn an_ack_that_tcps_own_code_frees_is_no_drop() {
    let mut lab = Lab::new();
    for (location, is_drop) in
        [(TCP_CODE.0, false), (TCP_CODE.1 - 1, false), (TCP_CODE.1, true), (TCP_CODE.0 - 1, true)]
    {
        let ack = lab.seen_segment(1, 0x10, 100, 0).dropped(900, location, Some(REASON_NOT_SPECIFIED));
        let [packet] = &stitch(&ack.events)[..] else { panic!("one packet") };
        assert_eq!(matches!(packet.outcome, Outcome::Dropped { .. }), is_drop, "{packet:#?}");
        assert_eq!(how(packet), (!is_drop).then_some(How::Protocol));
    }
    // Nor is the end of a stream that nobody read before its socket was closed: TCP was seen to have it.
    let fin = lab.seen_segment(1, 0x11, 100, 0);
    let probed = fin.clone().hop(HopId::TcpProbe, 3_000, VETH1, 32);
    let ends = [fin, probed].map(|trip| how(&stitch(&trip.dropped(900, 1, Some(REASON_NOT_SPECIFIED)).events)[0]));
    assert_eq!(ends, [None, Some(How::Protocol)]);
    // Data that is thrown away is, whoever does it.
    let data = lab.seen_data(1, 100, 9).dropped(900, TCP_CODE.0, Some(REASON_NOT_SPECIFIED));
    assert!(matches!(stitch(&data.events)[0].outcome, Outcome::Dropped { .. }));
}
