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
    insta::assert_snapshot!(text(&events, Some(&survey)), @r"
    DROPPED at __br_forward, on calmveth1_peer: 2 packets of 3 (#2 and #3)
        evidence  the kernel's reason is NETFILTER_DROP, given in nf_hook_slow+0x44
                  it was in netfilter's hook bridge FORWARD
                  a rule or a policy of netfilter drops at this hook
        cause     nft rule bridge filter forward: udp dport 9000 drop
        advice    nft delete rule bridge filter forward handle 4
    ");
    insta::assert_snapshot!(text(&events, None), @r"
    DROPPED at __br_forward, on calmveth1_peer: 2 packets of 3 (#2 and #3)
        evidence  the kernel's reason is NETFILTER_DROP, given in nf_hook_slow+0x44
                  it was in netfilter's hook bridge FORWARD
        cause     a rule or a policy of netfilter drops at this hook (the host was not looked at)
        advice    nft list ruleset; ebtables -L
    ");
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
    insta::assert_snapshot!(text(&events, Some(&Survey::default())), @r"
    DELAYED between __dev_queue_xmit and net_dev_start_xmit, on calmveth1_peer: 2 packets of 2 (#1 and #2)
        evidence  2 of 2 that came by were held there, from 300 ms to 310 ms
        cause     the queueing discipline of the device holds packets (nothing that holds packets there was found)
        advice    tc -s qdisc show dev calmveth1_peer
    ");
    assert_eq!(duration(300_000_000), "300 ms");
}

#[test]
fn nothing_is_said_where_nothing_was_found() {
    let mut lab = Lab::new();
    assert_eq!(text(&[lab.tcp_data(1, 1, 77), lab.udp(2, 1), lab.arp(3)].concat(), None), "");
}
