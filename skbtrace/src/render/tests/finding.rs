//! What people and programs get to read of what was found.

use skbtrace_common::{Event, HopId};

use super::{LabNames, stitch};
use crate::render::{HostOf, Style, Text, duration};
use crate::survey::{Effects, Fact, Spot, Survey};
use crate::trace::testkit::{INIT, Lab, PEER1};
use crate::trace::{Losses, Packet, Reasons};
use crate::verdict::{Cause, Explained, Findings, explain, payload};

/// What is found in these packets.
pub(super) fn explained(packets: &[Packet], survey: Option<&Survey>) -> Vec<Explained> {
    use crate::render::Names as _;
    let reasons = Reasons::new([(2, "NOT_SPECIFIED".to_owned()), (8, "NETFILTER_DROP".to_owned())]);
    let mut findings = Findings::new(reasons, None);
    for packet in packets {
        findings.observe(packet, &payload(packet), &|address| LabNames.symbol(address));
    }
    findings.all().into_iter().map(|finding| explain(finding, survey, &HostOf(&LabNames))).collect()
}

fn text(events: &[Event], survey: Option<&Survey>) -> String {
    let (packets, _) = stitch(events, Losses::default());
    let mut out = Vec::new();
    Text::new(Style::default()).findings(&mut out, &explained(&packets, survey), &LabNames).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn a_finding_says_where_and_why_and_what_to_do() {
    let mut lab = Lab::new();
    let events = [lab.tcp_data(1, 1, 77), lab.udp_dropped(2, 1), lab.udp_dropped(3, 2)].concat();
    let rule = Fact {
        cause: Cause::Nftables,
        netns: INIT,
        ifindex: None,
        spot: Spot::BridgeForward,
        effects: Effects { drop: true, ..Effects::default() },
        what: "nft rule bridge filter forward: udp dport 9000 drop".to_owned(),
        undo: Some("nft delete rule bridge filter forward handle 4".to_owned()),
    };
    let survey = Survey { facts: vec![rule], unseen: Vec::new() };
    insta::assert_snapshot!(text(&events, Some(&survey)), @"");
    insta::assert_snapshot!(text(&events, None), @"");
}

#[test]
fn a_wait_in_a_queue_says_how_long() {
    let mut lab = Lab::new();
    let held = |lab: &mut Lab, id: u64, ns: u64| {
        let trip = lab.trip(id).addresses(17, (11, 40_000), (10, 9000)).datagram(id as u16, 64).softirq(0);
        let trip = trip.bridge(crate::trace::testkit::PEER2, PEER1, 92).hop(HopId::DevQueueXmit, 900, PEER1, 106);
        let trip = trip.softirq(1).hop(HopId::NetDevStartXmit, ns, PEER1, 106).hop(HopId::VethXmit, 900, PEER1, 106);
        trip.hop(HopId::IpRcv, 900, crate::trace::testkit::VETH1, 92).end(HopId::ConsumeSkb, 100).events
    };
    let events = [held(&mut lab, 1, 300_000_000), held(&mut lab, 2, 310_000_000)].concat();
    insta::assert_snapshot!(text(&events, Some(&Survey::default())), @"");
    assert_eq!(duration(300_000_000), "300 ms");
}

#[test]
fn nothing_is_said_where_nothing_was_found() {
    let mut lab = Lab::new();
    assert_eq!(text(&[lab.tcp_data(1, 1, 77), lab.udp(2, 1), lab.arp(3)].concat(), None), "");
}
