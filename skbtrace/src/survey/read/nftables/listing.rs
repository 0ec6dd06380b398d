//! What `nft` prints, as far as it matters: chains, and of each rule what it does; from its JSON. A rule's text, which is how
//! people know it, and, with some versions, the devices of a chain stand in the plain listing alone.
//!
//! A rule is reduced to what it does as soon as it is read: a listing may have tens of thousands.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde::{
    Deserialize, Deserializer,
    de::{SeqAccess, Visitor},
};
use serde_json::Value;

use super::{
    super::{DELAY, DROP, DUPLICATE, GARBLE, NOTHING, REWRITE},
    iptables,
};
use crate::{name::printable, survey::Effects};

/// A map by its family, table and name.
pub(super) type MapKey = (String, String, String);

/// What `nft -j list …` prints.
#[derive(Default)]
pub(super) struct Ruleset {
    pub(super) chains: Vec<Chain>,
    /// Those that do something, or call what does.
    pub(super) rules: Vec<Rule>,
    /// What the elements of named maps do.
    pub(super) maps: BTreeMap<MapKey, Seen>,
}

#[derive(Deserialize)]
pub(super) struct Chain {
    pub(super) family: String,
    pub(super) table: String,
    pub(super) name: String,
    pub(super) hook: Option<String>,
    pub(super) policy: Option<String>,
    /// A name, or a list of names.
    pub(super) dev: Option<Value>,
}

pub(super) struct Rule {
    pub(super) family: String,
    pub(super) table: String,
    pub(super) chain: String,
    pub(super) handle: u64,
    pub(super) does: Seen,
}

/// What a rule's expressions do, which chains they call, and which maps they have do so.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) effects: Effects,
    pub(super) targets: BTreeSet<String>,
    pub(super) maps: BTreeSet<String>,
}

/// What only the plain listing says.
#[derive(Default)]
pub(super) struct Texts {
    /// A rule's text by its table, chain and handle.
    pub(super) rules: BTreeMap<(String, String, u64), String>,
    /// The devices of a chain by its table and name. Some versions of nft leave them out of the JSON.
    pub(super) devices: BTreeMap<(String, String), Vec<String>>,
}

#[derive(Deserialize)]
struct Listing {
    #[serde(deserialize_with = "reduced")]
    nftables: Ruleset,
}

#[derive(Deserialize)]
struct Item {
    chain: Option<Chain>,
    rule: Option<Printed>,
    map: Option<Map>,
}

/// A rule as it is printed.
#[derive(Deserialize)]
struct Printed {
    family: String,
    table: String,
    chain: String,
    handle: u64,
    #[serde(default)]
    expr: Vec<Value>,
}

#[derive(Deserialize)]
struct Map {
    family: String,
    table: String,
    name: String,
    #[serde(default)]
    elem: Value,
}

impl Ruleset {
    pub(super) fn parse(json: &[u8]) -> serde_json::Result<Self> {
        serde_json::from_slice::<Listing>(json).map(|listing| listing.nftables)
    }

    fn take(&mut self, item: Item) {
        self.chains.extend(item.chain);
        if let Some(Printed { family, table, chain, handle, expr }) = item.rule {
            let mut does = Seen::default();
            expr.iter().for_each(|expression| does.look(expression));
            if does.effects != NOTHING || !does.targets.is_empty() || !does.maps.is_empty() {
                self.rules.push(Rule { family, table, chain, handle, does });
            }
        }
        if let Some(Map { family, table, name, elem }) = item.map {
            let mut does = Seen::default();
            does.look(&elem);
            self.maps.insert((family, table, name), does);
        }
    }
}

/// One item after the other, each forgotten before the next.
fn reduced<'de, D: Deserializer<'de>>(items: D) -> Result<Ruleset, D::Error> {
    struct Items;
    impl<'de> Visitor<'de> for Items {
        type Value = Ruleset;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of tables, chains and rules")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Ruleset, A::Error> {
            let mut ruleset = Ruleset::default();
            while let Some(item) = items.next_element()? {
                ruleset.take(item);
            }
            Ok(ruleset)
        }
    }
    items.deserialize_seq(Items)
}

/// The text of every rule in `nft -s -a list ruleset`: `table inet filter { # handle 1`, in that `chain input { …`, in that
/// rules, each with a tab more.
pub(super) fn texts(listing: &[u8]) -> Texts {
    let listing = String::from_utf8_lossy(listing);
    let (mut table, mut chain) = (String::new(), String::new());
    let mut texts = Texts::default();
    for line in listing.lines() {
        let depth = line.bytes().take_while(|byte| *byte == b'\t').count();
        let line = line.trim();
        if depth == 2 && line.starts_with("type ") {
            texts.devices.insert((table.clone(), chain.clone()), devices_in(line));
        }
        let Some((text, handle)) = line.rsplit_once(" # handle ") else { continue };
        let name = |kind: &str| text.strip_prefix(kind)?.strip_suffix(" {");
        match depth {
            0 => table = name("table ").unwrap_or_default().to_owned(),
            1 => chain = name("chain ").unwrap_or_default().to_owned(),
            2 => {
                if let Ok(handle) = handle.parse() {
                    texts.rules.insert((table.clone(), chain.clone(), handle), printable(text.as_bytes()));
                }
            }
            _ => {}
        }
    }
    texts
}

/// `… hook ingress device "d0" priority …` or `… devices = { d0, d1 } priority …`.
fn devices_in(line: &str) -> Vec<String> {
    let list = match (line.split_once(" devices = { "), line.split_once(" device ")) {
        (Some((_, rest)), _) => rest.split(" }").next(),
        (None, Some((_, rest))) => rest.split(' ').next(),
        (None, None) => None,
    };
    let names = list.unwrap_or_default().split(", ").map(|name| name.trim_matches('"').to_owned());
    names.filter(|name| !name.is_empty()).collect()
}

impl Seen {
    fn look(&mut self, value: &Value) {
        match value {
            Value::Array(all) => all.iter().for_each(|one| self.look(one)),
            Value::Object(fields) => {
                for (key, value) in fields {
                    self.effects = self.effects | statement(key, value);
                    if matches!(key.as_str(), "jump" | "goto") {
                        self.targets.extend(value["target"].as_str().map(str::to_owned));
                    }
                    // Verdicts may stand in a map, and the map under a name.
                    if key == "vmap" {
                        let name = value["data"].as_str().map(|name| name.trim_start_matches('@').to_owned());
                        self.maps.extend(name);
                    }
                    // What is compared does nothing.
                    if key != "match" {
                        self.look(value);
                    }
                }
            }
            _ => {}
        }
    }
}

fn statement(key: &str, value: &Value) -> Effects {
    match key {
        "drop" | "reject" => DROP,
        // Bytes by their offset may be anything, the payload too; a named field is a header's.
        "mangle" if value["key"]["payload"]["base"].is_string() => GARBLE | REWRITE,
        "mangle" | "snat" | "dnat" | "masquerade" | "redirect" | "tproxy" | "reset" => REWRITE,
        "synproxy" => DROP | REWRITE,
        // A program gets the packet and gives back what it likes, when it likes.
        "queue" => GARBLE | DROP | DELAY | REWRITE,
        "dup" => DUPLICATE,
        "fwd" => DROP,
        "xt" if value["type"].as_str() == Some("target") => match value["name"].as_str() {
            Some(name) => iptables::target(name),
            None => DROP | REWRITE,
        },
        _ => NOTHING,
    }
}
