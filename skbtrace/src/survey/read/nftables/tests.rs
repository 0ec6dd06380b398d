//! On what nft 1.0.6 printed for a set of rules made for this.

use super::*;
use crate::survey::{
    Effects,
    read::{few::LISTED, testkit::with_place},
};

const JSON: &str = include_str!("../fixtures/ruleset.json");
const TEXT: &[u8] = include_bytes!("../fixtures/ruleset.txt");

fn shown(effects: Effects) -> String {
    let all = [
        (effects.garble, "garble"),
        (effects.drop, "drop"),
        (effects.delay, "delay"),
        (effects.duplicate, "duplicate"),
        (effects.reorder, "reorder"),
        (effects.rewrite, "rewrite"),
    ];
    all.into_iter().filter(|(on, _)| *on).map(|(_, name)| name).collect::<Vec<_>>().join("+")
}

fn lines(place: &Place<'_>, texts: &Texts) -> String {
    let facts = parse(place, &Ruleset::parse(JSON.as_bytes()).unwrap(), texts);
    let line = |fact: &Fact| {
        let device = fact.ifindex.map_or_else(|| "-".to_owned(), |ifindex| place.name(ifindex));
        format!("{:?} {device} {} | {}", fact.spot, shown(fact.effects), fact.what)
    };
    facts.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn rules_are_known_by_their_text_and_by_what_they_do() {
    with_place("d0", |place| {
        insta::assert_snapshot!(lines(place, &texts(TEXT)), @r#"
        Input - drop | nft chain inet filter input: policy drop
        Input - rewrite | nft rule inet filter other: tcp flags syn tcp option maxseg size set 1400
        Input - drop | nft rule inet filter other: udp dport 5 drop
        Input - drop | nft rule inet filter input: udp dport 8000 counter drop
        Input - garble+rewrite | nft rule inet filter input: tcp dport 8000 @th,640,16 set 0x5a5a counter
        Input - rewrite | nft rule inet filter input: meta mark set 0x00000005
        Input - drop | nft rule inet filter input: udp dport 7 reject
        Input - drop | nft rule inet filter input: iifname "d0" drop comment "reboot"
        Postrouting - rewrite | nft rule inet filter pr: masquerade
        Postrouting - rewrite | nft rule inet filter pr: ip daddr 1.2.3.4 snat ip to 5.6.7.8
        Forward - rewrite | nft rule inet filter other: tcp flags syn tcp option maxseg size set 1400
        Forward - drop | nft rule inet filter other: udp dport 5 drop
        Forward - drop | nft rule inet filter fw: ip saddr vmap @m
        Forward - drop | nft rule inet filter fw: ip daddr vmap { 2.2.2.2 : drop, 3.3.3.3 : jump other }
        Forward - rewrite | nft rule inet filter fw: ip dscp set cs1
        Ingress d0 drop | nft rule netdev nd a: udp dport 8000 drop
        Ingress d0 drop | nft rule netdev nd a: fwd to "d1"
        Egress d0 drop | nft rule netdev nd e: drop
        BridgeForward - drop | nft rule bridge br f: drop
        Input - drop | iptables filter INPUT: meta l4proto udp counter drop
        Forward - drop | iptables filter FORWARD: policy DROP
        Forward - rewrite | iptables mangle FORWARD: counter xt target TTL
        BridgeForward - drop | ebtables filter FORWARD: oifname "d0" ether type ip counter drop
        "#)
    });
}

#[test]
fn chains_at_devices_that_do_not_matter_are_left_out_and_a_rule_goes_by_its_handle() {
    with_place("other", |place| {
        let ruleset = Ruleset::parse(JSON.as_bytes()).unwrap();
        let at_devices = |fact: &&Fact| matches!(fact.spot, Spot::Ingress | Spot::Egress);
        assert_eq!(parse(place, &ruleset, &texts(TEXT)).iter().filter(at_devices).count(), 0);
        // Without their devices they stay, for the whole namespace.
        let facts = parse(place, &ruleset, &Texts::default());
        assert_eq!(facts.iter().filter(at_devices).map(|fact| fact.ifindex).collect::<Vec<_>>(), [None; 3]);
        let drop = facts.iter().find(|fact| fact.spot == Spot::BridgeForward).unwrap();
        let handle = drop.what.rsplit(' ').next().unwrap();
        assert_eq!(drop.undo, Some(format!("ip netns exec blue nft delete rule bridge br f handle {handle}")));
    });
}

/// A listing with a chain of this many rules that drop, and one that rewrites behind them.
fn long(rules: usize) -> String {
    let rule = |handle: usize, does: &str| {
        format!(r#"{{"rule": {{"family": "ip", "table": "t", "chain": "c", "handle": {handle}, "expr": [{does}]}}}}"#)
    };
    let chain = r#"{"chain": {"family": "ip", "table": "t", "name": "c", "hook": "input", "policy": "accept"}}"#;
    let mut items: Vec<String> = (0..rules).map(|handle| rule(handle, r#"{"drop": null}"#)).collect();
    items.push(rule(rules, r#"{"masquerade": null}"#));
    format!(r#"{{"nftables": [{chain}, {}]}}"#, items.join(", "))
}

#[test]
fn a_chain_with_more_rules_than_anyone_reads_is_cut_short() {
    with_place("d0", |place| {
        let facts = parse(place, &Ruleset::parse(long(20_000).as_bytes()).unwrap(), &Texts::default());
        assert_eq!(facts.len(), LISTED + 1);
        let rest = &facts[LISTED];
        assert_eq!(rest.what, format!("nft chain ip t c: {} more rules, not listed here", 20_001 - LISTED));
        assert_eq!(
            (rest.spot, shown(rest.effects).as_str(), rest.undo.as_deref()),
            (Spot::Input, "drop+rewrite", None)
        );
        let all = parse(place, &Ruleset::parse(long(LISTED - 1).as_bytes()).unwrap(), &Texts::default());
        assert_eq!(all.len(), LISTED);
        assert!(all.iter().all(|fact| fact.undo.is_some()));
    });
}

#[test]
fn a_rule_does_what_the_map_does_that_it_names() {
    with_place("d0", |place| {
        let vmap = r#"{"vmap": {"key": {"payload": {}}, "data": "@m"}}"#;
        let json = long(0).replace(r#"{"masquerade": null}"#, vmap);
        let mut ruleset = Ruleset::parse(json.as_bytes()).unwrap();
        assert_eq!(parse(place, &ruleset, &Texts::default()), []);
        let key: MapKey = ("ip".into(), "t".into(), "m".into());
        ruleset.maps.insert(key, Seen { effects: DROP, ..Seen::default() });
        let facts = parse(place, &ruleset, &Texts::default());
        assert_eq!(facts.iter().map(|fact| fact.effects).collect::<Vec<_>>(), [DROP]);
    });
}
