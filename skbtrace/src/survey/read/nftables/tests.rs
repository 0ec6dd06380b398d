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
    with_place("d0", |place| insta::assert_snapshot!(lines(place, &texts(TEXT)), @""));
}

#[test]
fn chains_at_devices_that_do_not_matter_are_left_out_and_a_rule_goes_by_its_handle() {
    with_place("other", |place| {
        let facts = parse(place, serde_json::from_str(JSON).unwrap(), &Texts::new());
        assert!(facts.iter().all(|fact| fact.ifindex.is_none() && fact.spot != Spot::Ingress), "{facts:#?}");
        let drop = facts.iter().find(|fact| fact.spot == Spot::BridgeForward).unwrap();
        let handle = drop.what.rsplit(' ').next().unwrap();
        assert_eq!(drop.undo, Some(format!("ip netns exec blue nft delete rule bridge br f handle {handle}")));
    });
}
