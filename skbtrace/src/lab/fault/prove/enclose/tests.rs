//! What the rule takes for right, and what it does not.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::Way;
use crate::{
    hops::Backend,
    lab::{
        Scenario,
        fault::{Span, all, find, prove::judge::Found},
    },
};

/// What a packet is seen at by tracepoints that crosses the bridge to a process that reads it.
const BRIDGED: [(&str, &str); 10] = [
    ("net_dev_queue", "calmveth2"),
    ("net_dev_start_xmit", "calmveth2"),
    ("netif_rx", "calmveth2_peer"),
    ("netif_receive_skb", "calmveth2_peer"),
    ("net_dev_queue", "calmveth1_peer"),
    ("net_dev_start_xmit", "calmveth1_peer"),
    ("netif_rx", "calmveth1"),
    ("netif_receive_skb", "calmveth1"),
    ("tcp_probe", ""),
    ("skb_copy_datagram_iovec", ""),
];

fn hops(path: &[(&str, &str)]) -> Vec<Value> {
    let hop = |(hop, device): &(&str, &str)| match *device {
        "" => json!({ "hop": hop }),
        _ => json!({ "hop": hop, "device": { "name": device } }),
    };
    path.iter().map(hop).collect()
}

/// Whether a finding at this place, of packets that came this way, encloses the place of a fault.
fn is_right(fault: &str, path: &[(&str, &str)], place: (&str, Option<&str>, &str)) -> bool {
    let fault = find(fault).unwrap();
    let (from, to, device) = place;
    let found =
        Found { from: Some(from.to_owned()), to: to.map(str::to_owned), device: device.to_owned(), ..Found::default() };
    let hops = hops(path);
    let way = Way::new(fault.scenario.layout(), Backend::Tracepoint);
    assert!(!way.has(fault.verdict.span), "{}", fault.name);
    way.encloses(&found, &fault.verdict, &hops.iter().collect::<Vec<_>>())
}

/// Of all findings between two hops of the way, at the device of either, those that are right.
fn right_pairs(fault: &str) -> BTreeSet<String> {
    let mut right = BTreeSet::new();
    for (index, (from, before)) in BRIDGED.iter().enumerate() {
        for (to, behind) in &BRIDGED[index + 1..] {
            for device in [*before, *behind].map(|device| if device.is_empty() { "calmveth1" } else { device }) {
                if is_right(fault, &BRIDGED, (from, Some(to), device)) {
                    right.insert(format!("{from} - {to} at {device}"));
                }
            }
        }
    }
    right
}

fn set<const N: usize>(pairs: [&str; N]) -> BTreeSet<String> {
    pairs.map(str::to_owned).into()
}

#[test]
fn only_by_kprobes_has_a_run_the_hops_of_the_rows() {
    for fault in all().filter(|fault| fault.verdict.span != Span::Unseen) {
        let has = |backend| Way::new(fault.scenario.layout(), backend).has(fault.verdict.span);
        assert_eq!((has(Backend::Kprobe), has(Backend::Tracepoint)), (true, false), "{}", fault.name);
    }
}

#[test]
fn a_change_lies_between_the_nearest_hops_that_look_at_the_payload() {
    let over_the_bridge = set([
        "netif_receive_skb - net_dev_queue at calmveth1_peer",
        "netif_receive_skb - net_dev_queue at calmveth2_peer",
    ]);
    assert_eq!(right_pairs("nft-bridge-payload"), over_the_bridge);
    // TCP's hop looks at no payload.
    let to_the_reader = set(["netif_receive_skb - skb_copy_datagram_iovec at calmveth1"]);
    assert_eq!(right_pairs("nft-input-payload"), to_the_reader);
    // From where it has not been handed to the device to where the driver has handed it on: as much as the row says.
    let egress = right_pairs("pedit-port-egress");
    let parts = set([
        "netif_receive_skb - net_dev_queue at calmveth1_peer",
        "net_dev_queue - net_dev_start_xmit at calmveth1_peer",
        "net_dev_start_xmit - netif_rx at calmveth1",
    ]);
    assert!(egress.is_superset(&parts), "{egress:#?}");
    let is_beyond = |right: &String| {
        right.contains("skb_copy") || right.contains("- netif_receive_skb") || right.ends_with("at calmveth2")
    };
    assert!(!egress.iter().any(is_beyond), "{egress:#?}");
}

#[test]
fn a_change_at_another_device_or_over_the_whole_way_is_not_right() {
    let at = |from, to, device| is_right("nft-bridge-payload", &BRIDGED, (from, Some(to), device));
    assert!(at("netif_receive_skb", "net_dev_queue", "calmveth1_peer"));
    assert!(!at("netif_receive_skb", "net_dev_queue", "calmveth1"));
    assert!(!at("net_dev_queue", "skb_copy_datagram_iovec", "calmveth1"));
    assert!(!at("net_dev_queue", "net_dev_start_xmit", "calmveth1_peer"));
    // A packet that was not seen behind the bridge has no pair around it.
    assert!(!is_right(
        "nft-bridge-payload",
        &BRIDGED[..4],
        ("netif_receive_skb", Some("net_dev_queue"), "calmveth2_peer")
    ));
}

#[test]
fn a_device_that_writes_as_it_receives_is_at_the_first_of_the_two_hops() {
    let right = right_pairs("xdp-generic-port");
    assert!(right.contains("netif_receive_skb - net_dev_queue at calmveth1_peer"), "{right:#?}");
    assert!(
        !right.iter().any(|pair| pair.ends_with("at calmveth1") || pair.starts_with("net_dev_queue")),
        "{right:#?}"
    );
}

#[test]
fn a_program_of_a_veth_writes_between_what_sends_to_it_and_its_gro() {
    let polled = [&BRIDGED[..6], &[("napi_gro_receive_entry", "calmveth1")], &BRIDGED[7..]].concat();
    let at = |from, to, device| is_right("xdp-receiver", &polled, (from, Some(to), device));
    assert!(at("net_dev_start_xmit", "napi_gro_receive_entry", "calmveth1"));
    assert!(!at("net_dev_queue", "napi_gro_receive_entry", "calmveth1"), "it had come further");
    assert!(!at("net_dev_start_xmit", "netif_receive_skb", "calmveth1"), "by then it had been seen");
    assert!(!at("napi_gro_receive_entry", "netif_receive_skb", "calmveth1"));
}

#[test]
fn a_queue_of_the_senders_device_is_behind_the_first_hop_that_there_is() {
    let at = |from, to, device| is_right("sendfile-rewrite", &BRIDGED, (from, Some(to), device));
    assert!(at("net_dev_queue", "net_dev_start_xmit", "calmveth2"));
    assert!(!at("netif_receive_skb", "net_dev_queue", "calmveth2_peer"));
    assert!(!at("net_dev_queue", "netif_receive_skb", "calmveth2"));
}

#[test]
fn what_ends_is_seen_last_before_its_end() {
    // On a port that the packet has not come to, as far as is seen.
    let ends = |fault, seen: usize, from, device| {
        let path = [&BRIDGED[..seen], &[("kfree_skb", "")]].concat();
        is_right(fault, &path, (from, None, device))
    };
    for fault in ["nft-bridge-drop", "tc-egress-drop"] {
        assert!(ends(fault, 4, "netif_receive_skb", "calmveth2_peer"), "{fault}");
        assert!(!ends(fault, 4, "netif_rx", "calmveth2_peer"), "{fault}");
        assert!(!ends(fault, 4, "net_dev_queue", "calmveth2"), "{fault}");
        assert!(!ends(fault, 8, "netif_receive_skb", "calmveth1"), "{fault}");
    }
    assert!(ends("netem-loss", 5, "net_dev_queue", "calmveth1_peer"));
    assert!(ends("mtu-peer", 6, "net_dev_start_xmit", "calmveth1_peer"));
    assert!(!ends("mtu-peer", 6, "net_dev_queue", "calmveth1_peer"), "it had come further");
    assert!(ends("nft-input-drop", 8, "netif_receive_skb", "calmveth1"));
    assert!(!ends("nft-input-drop", 8, "netif_receive_skb", "calmveth2_peer"), "it had come further");
    assert!(!ends("nft-input-drop", 8, "net_dev_start_xmit", "calmveth1_peer"), "it had come further");
    assert!(ends("port-down", 4, "netif_receive_skb", "calmveth2_peer"));
    assert!(!ends("port-down", 8, "netif_receive_skb", "calmveth1"), "the bridge let it pass");
}

#[test]
fn what_the_bridge_keeps_for_itself_ends_at_its_own_device() {
    let path = [&BRIDGED[..4], &[("netif_receive_skb", "calmbr")]].concat();
    assert!(is_right("duplicate-address", &path, ("netif_receive_skb", None, "calmbr")));
    assert!(
        !is_right("duplicate-address", &path, ("netif_receive_skb", None, "calmveth2_peer")),
        "it had come further"
    );
}

#[test]
fn what_nobody_can_see_has_no_place() {
    for name in ["nft-postrouting-drop", "arp-unanswered"] {
        assert!(!is_right(name, &BRIDGED, ("net_dev_queue", None, "calmveth2")), "{name}");
        assert!(find(name).unwrap().verdict.beyond(Backend::Tracepoint).is_some());
        assert_eq!(find(name).unwrap().verdict.beyond(Backend::Kprobe), None);
    }
}

#[test]
fn the_other_labs_have_ways_too() {
    let devices = |scenario: Scenario| Way::new(scenario.layout(), Backend::Tracepoint).devices;
    assert_eq!(devices(Scenario::Bridge), ["calmveth2", "calmveth2_peer", "calmveth1_peer", "calmveth1"]);
    assert_eq!(devices(Scenario::Pair), ["calmveth2", "calmveth1"]);
    assert_eq!(devices(Scenario::Loopback), ["lo", "lo"]);
}
