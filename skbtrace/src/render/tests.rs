//! What readers get to see, on made-up traffic.

use skbtrace_common::{DeviceKey, Event, HopId};

use super::{Names, Style, Text};
use crate::trace::testkit::{BRIDGE, INIT, Lab, PEER1, PEER2, REASON_NETFILTER, VETH1, VETH2, in_order};
use crate::trace::{Losses, Packet, Reasons, StitchOptions, Stitcher, Summary};

/// Names of the made-up host.
pub(super) struct LabNames;

impl Names for LabNames {
    fn netns(&self, inum: u32) -> String {
        match inum {
            INIT => "init".to_owned(),
            _ if inum == VETH1.netns => "ns-calm1".to_owned(),
            _ => "ns-calm2".to_owned(),
        }
    }

    fn bridge_of(&self, device: DeviceKey) -> Option<String> {
        (device.netns == INIT).then(|| BRIDGE.name.to_owned())
    }

    fn reason(&self, reason: u32) -> Option<String> {
        (reason == REASON_NETFILTER).then(|| "NETFILTER_DROP".to_owned())
    }

    fn symbol(&self, address: u64) -> Option<String> {
        (address == 0xffff_ffff_8188_0044).then(|| "nf_hook_slow+0x44".to_owned())
    }
}

pub(super) fn stitch(events: &[Event], losses: Losses) -> (Vec<Packet>, Summary) {
    let reasons = Reasons::new([(2, "NOT_SPECIFIED".to_owned())]);
    let mut stitcher = Stitcher::new(StitchOptions { reasons, ..Default::default() });
    let mut packets = Vec::new();
    let mut sink = |packet| packets.push(packet);
    for event in events {
        stitcher.push(event, &mut sink);
    }
    stitcher.set_losses(losses);
    stitcher.finish(4_000_000_000, &mut sink);
    (packets, stitcher.summary().clone())
}

fn text_with(style: Style, events: &[Event], losses: Losses) -> String {
    let (packets, summary) = stitch(events, losses);
    let mut out = Vec::new();
    let mut text = Text::new(style);
    for packet in &packets {
        text.packet(&mut out, packet, &LabNames).unwrap();
    }
    text.summary(&mut out, &summary, &LabNames).unwrap();
    String::from_utf8(out).unwrap()
}

fn text(events: &[Event]) -> String {
    text_with(Style::default(), events, Losses::default())
}

#[test]
fn a_segment_over_the_bridge() {
    let mut lab = Lab::new();
    let events = [lab.tcp_control(1, 0x02, 1000), lab.tcp_data(2, 1001, 77)].concat();
    insta::assert_snapshot!(text(&events), @"");
}

#[test]
fn drops_with_and_without_a_reason() {
    let mut lab = Lab::new();
    let closed = lab.datagram(2, 2).dropped(1_000, 0xabcd, None).events;
    insta::assert_snapshot!(text(&[lab.udp_dropped(1, 1), closed].concat()), @"");
}

#[test]
fn a_gap_is_shown_where_it_is() {
    let mut lab = Lab::new();
    let mut events = lab.tcp_data(1, 500, 77);
    events.drain(5..7);
    let unread = lab.datagram(2, 1).events;
    let losses = Losses { ring_full: 2, map_full: 1, ..Losses::default() };
    insta::assert_snapshot!(text_with(Style::default(), &[events, unread].concat(), losses), @"");
}

#[test]
fn branches_stand_below_the_packet() {
    let mut lab = Lab::new();
    let mut trip = lab.datagram(1, 3);
    trip.events.truncate(1);
    let trip = trip.cross(VETH2, PEER2, 92).hop(HopId::BrHandleFrame, 9_000, PEER2, 92);
    let trip = trip.hop(HopId::BrHandleFrameFinish, 900, PEER2, 92);
    let source = trip.events[trip.events.len() - 1];
    let tap = lab.clone_of(3, &trip.events[1]).hop(HopId::PacketRcv, 0, VETH2, 106).end(HopId::ConsumeSkb, 50).events;
    let flood = lab.clone_of(2, &source).hop(HopId::BrForward, 0, PEER2, 92).to(PEER1);
    let flood = flood.cross(PEER1, VETH1, 92).hop(HopId::IpRcv, 9_000, VETH1, 92).dropped(300, 0, Some(77)).events;
    let own = trip.hop(HopId::BrPassFrameUp, 20_000, PEER2, 92).hop(HopId::IpRcv, 800, BRIDGE, 92);
    let own = own.hop(HopId::UdpQueueRcvOneSkb, 700, BRIDGE, 72).end(HopId::ConsumeSkb, 500).events;
    insta::assert_snapshot!(text(&in_order([own, flood, tap])), @"");
}

#[test]
fn loopback_is_explained_once_and_arp_has_no_addresses() {
    let mut lab = Lab::new();
    let events = [lab.ping_loopback(1), lab.ping_loopback(2), lab.arp(3)].concat();
    insta::assert_snapshot!(text(&events), @"");
}

#[test]
fn every_hop_is_explained_once() {
    let mut lab = Lab::new();
    let style = Style { explain: true, colour: false };
    insta::assert_snapshot!(text_with(style, &[lab.udp(1, 1), lab.udp(2, 2)].concat(), Losses::default()), @"");
}
