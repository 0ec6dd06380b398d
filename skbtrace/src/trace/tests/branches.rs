//! Clones: one packet with branches.

use skbtrace_common::{Event, HopId};

use super::stitch;
use crate::trace::testkit::{BRIDGE, Lab, PEER1, PEER2, PORT3, VETH1, VETH2, in_order};
use crate::trace::{How, Outcome};

/// A segment beside a tcpdump. The tap holds the original, so the bridge goes on with a clone.
pub(super) fn tapped(lab: &mut Lab, id: u64) -> Vec<Event> {
    let whole = lab.tcp_data(id, 100, 50);
    let cut = 6;
    let original = &whole[..cut];
    let tap = lab.clone_of(id + 1, &original[2]).hop(HopId::PacketRcv, 0, VETH2, 143).end(HopId::ConsumeSkb, 900);
    let clone = |event: &Event| Event { packet: id + 2, skb: 0x33, step: event.step - cut as u32, ..*event };
    let on: Vec<Event> = whole[cut..].iter().map(clone).collect();
    let mut end = whole[whole.len() - 1];
    (end.step, end.hop) = (cut as u32, HopId::ConsumeSkb as u16);
    [&original[..3], &tap.events, &original[3..], &on[..2], &[end], &on[2..]].concat()
}

#[test]
fn a_tcpdump_is_a_branch_and_the_packet_is_delivered_by_the_clone_that_went_on() {
    let [packet] = &stitch(&tapped(&mut Lab::new(), 1))[..] else { panic!("one tree") };
    let branches: Vec<_> = packet.branches.iter().map(|branch| (branch.after, branch.packet.id)).collect();
    assert_eq!(branches, [(2, 2), (5, 3)]);
    assert_eq!(packet.branches[0].packet.outcome, Outcome::Tapped { dropped: false });
    assert_eq!(packet.outcome, Outcome::Consumed { at: HopId::EnqueueToBacklog });
    assert!(matches!(packet.verdict(), Outcome::Delivered { how: How::Copied, .. }));
    assert_eq!(packet.branches[1].packet.parent, Some(1));
}

/// A datagram that a bridge floods to two ports and takes for itself.
pub(super) fn flooded(lab: &mut Lab) -> Vec<Event> {
    let mut trip = lab.datagram(1, 3);
    trip.events.truncate(1);
    let trip = trip.cross(VETH2, PEER2, 92).hop(HopId::BrHandleFrame, 9_000, PEER2, 92);
    let trip = trip.hop(HopId::BrHandleFrameFinish, 900, PEER2, 92);
    let cloned_at = trip.events[trip.events.len() - 1];
    let first = lab.clone_of(2, &cloned_at).hop(HopId::BrForward, 0, PEER2, 92).to(PEER1);
    let first = first.cross(PEER1, VETH1, 92).hop(HopId::IpRcv, 9_000, VETH1, 92).dropped(300, 1, None).events;
    let second = lab.clone_of(3, &cloned_at).hop(HopId::BrForward, 9_000, PEER2, 92).to(PORT3).events;
    let own =
        trip.hop(HopId::BrPassFrameUp, 20_000, PEER2, 92).hop(HopId::IpRcv, 800, BRIDGE, 92).end(HopId::ConsumeSkb, 5);
    in_order([own.events, first, second])
}

#[test]
fn a_flood_is_one_packet_with_a_branch_per_port() {
    let packets = stitch(&flooded(&mut Lab::new()));
    let [packet] = &packets[..] else { panic!("one tree, not {}", packets.len()) };
    let branches: Vec<_> = packet.branches.iter().map(|branch| (branch.packet.id, branch.after)).collect();
    assert_eq!(branches, [(2, 7), (3, 7)]);
    assert_eq!(packet.tree().map(|packet| packet.id).collect::<Vec<_>>(), [1, 2, 3]);
}

#[test]
fn a_copy_is_a_branch_although_it_shares_no_data() {
    let mut lab = Lab::new();
    let mut trip = lab.datagram(1, 3);
    trip.events.truncate(1);
    let original = trip.cross(VETH2, PEER2, 92).hop(HopId::BrHandleFrame, 900, PEER2, 92);
    let original = original.hop(HopId::SkbCopy, 800, PEER2, 92);
    let copied_at = original.events[original.events.len() - 1];
    let mut copy = lab.clone_of(2, &copied_at);
    copy.next.head = 0x77;
    let copy =
        copy.hop(HopId::BrPassFrameUp, 100, PEER2, 92).hop(HopId::IpRcv, 300, BRIDGE, 92).end(HopId::ConsumeSkb, 5);
    // On another CPU a packet begins that is no copy of it, although it looks like one.
    let mut other = lab.clone_of(3, &copied_at).softirq(1);
    other.next.head = 0x78;
    let other = other.hop(HopId::BrPassFrameUp, 50, PEER2, 92).end(HopId::ConsumeSkb, 5);
    let original = original.bridge(PEER2, PEER1, 92).end(HopId::ConsumeSkb, 5);
    let packets = stitch(&in_order([original.events, copy.events, other.events]));
    let [stranger, packet] = &packets[..] else { panic!("{packets:#?}") };
    assert_eq!((stranger.id, stranger.parent), (3, None));
    let branches: Vec<_> = packet.branches.iter().map(|branch| (branch.packet.id, branch.after)).collect();
    assert_eq!(branches, [(2, 7)]);
}
