//! On what nft 1.0.6 printed for a set of rules made for this.

use super::*;
use crate::survey::read::testkit::with_place;

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
    let facts = parse(place, serde_json::from_str(JSON).unwrap(), texts);
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
        let listing = || serde_json::from_str(JSON).unwrap();
        let at_devices = |fact: &&Fact| matches!(fact.spot, Spot::Ingress | Spot::Egress);
        assert_eq!(parse(place, listing(), &texts(TEXT)).iter().filter(at_devices).count(), 0);
        // Without their devices they stay, for the whole namespace.
        let facts = parse(place, listing(), &Texts::default());
        assert_eq!(facts.iter().filter(at_devices).map(|fact| fact.ifindex).collect::<Vec<_>>(), [None; 3]);
        let drop = facts.iter().find(|fact| fact.spot == Spot::BridgeForward).unwrap();
        let handle = drop.what.rsplit(' ').next().unwrap();
        assert_eq!(drop.undo, Some(format!("ip netns exec blue nft delete rule bridge br f handle {handle}")));
    });
}
