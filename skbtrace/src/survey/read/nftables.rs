//! Rules of nftables, as `nft` lists them, and those that the nft variants of iptables and ebtables keep in the same place.
//!
//! JSON says what a rule does; its text, which is how people know it, is in the plain listing only. Both are asked for, and
//! only where the kernel says that the namespace has a table.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
};

use netlink_sys::protocols::NETLINK_NETFILTER;
use serde::Deserialize;
use serde_json::Value;

use super::{
    DELAY, DROP, DUPLICATE, Found, GARBLE, NOTHING, REWRITE,
    chains::Calls,
    command::{Answer, run},
    iptables,
    place::Place,
    shell::word,
};
use crate::{
    name::printable,
    survey::{Effects, Fact, Spot},
    topology::netlink::RouteSocket,
    verdict::Cause,
};

// linux/netfilter/nfnetlink.h, nf_tables.h: subsystem 10
const NFT_MSG_NEWTABLE: u16 = 10 << 8;
const NFT_MSG_GETTABLE: u16 = 10 << 8 | 1;

/// What `nft -j list ruleset` prints, as far as it matters.
#[derive(Deserialize)]
struct Listing {
    nftables: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    chain: Option<Chain>,
    rule: Option<Rule>,
    map: Option<Map>,
}

#[derive(Deserialize)]
struct Chain {
    family: String,
    table: String,
    name: String,
    hook: Option<String>,
    policy: Option<String>,
    /// A name, or a list of names.
    dev: Option<Value>,
}

#[derive(Deserialize)]
struct Rule {
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

/// What only the plain listing says.
#[derive(Default)]
struct Texts {
    /// A rule's text by its table, chain and handle.
    rules: BTreeMap<(String, String, u64), String>,
    /// The devices of a chain by its table and name. Some versions of nft leave them out of the JSON.
    devices: BTreeMap<(String, String), Vec<String>>,
}

pub(super) fn facts(place: &Place<'_>, found: &mut Found) {
    // Asking for tables would load the module.
    if !is_loaded("nf_tables") || !found.take(place, "the tables of nftables", has_tables()) {
        return;
    }
    let missing = match run("nft", &["-j", "list", "ruleset"]) {
        Answer::Said(json) => match serde_json::from_slice::<Listing>(&json) {
            Ok(listing) => {
                let texts = match run("nft", &["-s", "-a", "list", "ruleset"]) {
                    Answer::Said(text) => texts(&text),
                    _ => Texts::default(),
                };
                return found.facts.extend(parse(place, listing, &texts));
            }
            Err(error) => format!("nft printed something unexpected: {error}"),
        },
        Answer::Missing => "there is no nft here to list them (Debian: the package nftables)".to_owned(),
        Answer::Failed(said) => format!("nft said: {said}"),
    };
    found.unseen.push(format!("the rules of nftables in {}: {missing}", place.label()));
}

/// Whether the kernel has a module, loaded or built in. A kernel without modules loads none when it is asked.
fn is_loaded(module: &str) -> bool {
    if fs::exists(format!("/sys/module/{module}")).unwrap_or(false) || !fs::exists("/proc/modules").unwrap_or(true) {
        return true;
    }
    let release = rustix::system::uname();
    match fs::read_to_string(format!("/lib/modules/{}/modules.builtin", release.release().to_string_lossy())) {
        Ok(list) => list.lines().any(|line| line.ends_with(&format!("/{module}.ko"))),
        // In a container the list may be missing: then the kernel's symbols tell.
        Err(_) => fs::read_to_string("/proc/kallsyms").is_ok_and(|symbols| symbols.contains(&format!(" {module}_"))),
    }
}

fn has_tables() -> io::Result<bool> {
    let mut socket = match RouteSocket::open_protocol(NETLINK_NETFILTER) {
        // No netfilter at all.
        Err(error) if error.raw_os_error() == Some(EPROTONOSUPPORT) => return Ok(false),
        socket => socket?,
    };
    match socket.dump(NFT_MSG_GETTABLE, NFT_MSG_NEWTABLE, &[0; 4], |_| Some(())) {
        // Netfilter without nftables.
        Err(error) if matches!(error.raw_os_error(), Some(EINVAL | EOPNOTSUPP)) => Ok(false),
        tables => Ok(!tables?.is_empty()),
    }
}

const EINVAL: i32 = 22;
const EPROTONOSUPPORT: i32 = 93;
const EOPNOTSUPP: i32 = 95;

/// The text of every rule in `nft -s -a list ruleset`: `table inet filter { # handle 1`, in that `chain input { …`, in that
/// rules, each with a tab more.
fn texts(listing: &[u8]) -> Texts {
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

fn parse(place: &Place<'_>, listing: Listing, texts: &Texts) -> Vec<Fact> {
    let (mut chains, mut rules, mut maps) = (Vec::new(), Vec::new(), BTreeMap::new());
    for item in listing.nftables {
        chains.extend(item.chain);
        rules.extend(item.rule);
        if let Some(map) = item.map {
            maps.insert((map.family, map.table, map.name), map.elem);
        }
    }
    // A chain's name says what it is in its table only.
    let full = |family: &str, table: &str, chain: &str| format!("{family}\t{table}\t{chain}");
    let mut calls = Calls::default();
    let mut does = Vec::new();
    for rule in &rules {
        let mut seen = Seen::default();
        for expression in &rule.expr {
            seen.look(expression, &|name| maps.get(&(rule.family.clone(), rule.table.clone(), name.to_owned())));
        }
        for target in &seen.targets {
            let here = full(&rule.family, &rule.table, &rule.chain);
            calls.add(&here, &full(&rule.family, &rule.table, target));
        }
        does.push((rule, seen.effects));
    }
    let mut facts = Vec::new();
    for base in &chains {
        let Some(spot) = base.hook.as_deref().and_then(|hook| spot(&base.family, hook)) else { continue };
        let devices = devices(place, base, texts);
        let (cause, tool) = tool(&base.family, &base.table, &base.name);
        if base.policy.as_deref() == Some("drop") {
            let (table, chain) = (printable(base.table.as_bytes()), printable(base.name.as_bytes()));
            let (what, undo) = match tool {
                Some(tool) => {
                    let undo = Some(format!("{tool} -t {table} -P {chain} ACCEPT"));
                    (format!("{tool} {table} {chain}: policy DROP"), undo)
                }
                None => {
                    let what = format!("nft chain {} {table} {chain}: policy drop", base.family);
                    let names = word(base.table.as_bytes()).zip(word(base.name.as_bytes()));
                    let undo = names.map(|(table, chain)| {
                        format!("nft chain {} {table} {chain} '{{ policy accept; }}'", base.family)
                    });
                    (what, undo)
                }
            };
            for ifindex in &devices {
                let fact = place.fact(cause, *ifindex, spot, DROP, what.clone());
                facts.push(Fact { undo: place.undo(undo.clone()), ..fact });
            }
        }
        let reached = calls.reached(&full(&base.family, &base.table, &base.name));
        for (rule, effects) in &does {
            if *effects == NOTHING || !reached.contains(&full(&rule.family, &rule.table, &rule.chain)) {
                continue;
            }
            for ifindex in &devices {
                let fact = place.fact(cause, *ifindex, spot, *effects, rule_text(rule, tool, texts));
                facts.push(Fact { undo: place.undo(rule_undo(rule)), ..fact });
            }
        }
    }
    facts
}

fn rule_text(rule: &Rule, tool: Option<&str>, texts: &Texts) -> String {
    let (table, chain) = (printable(rule.table.as_bytes()), printable(rule.chain.as_bytes()));
    let key = (format!("{} {}", rule.family, rule.table), rule.chain.clone(), rule.handle);
    let text = texts.rules.get(&key).cloned().unwrap_or_else(|| format!("handle {}", rule.handle));
    match tool {
        Some(tool) => format!("{tool} {table} {chain}: {text}"),
        None => format!("nft rule {} {table} {chain}: {text}", rule.family),
    }
}

fn rule_undo(rule: &Rule) -> Option<String> {
    let (table, chain) = (word(rule.table.as_bytes())?, word(rule.chain.as_bytes())?);
    Some(format!("nft delete rule {} {table} {chain} handle {}", rule.family, rule.handle))
}

/// The tool that made a chain: those of iptables and ebtables write their tables' and chains' old names.
fn tool(family: &str, table: &str, chain: &str) -> (Cause, Option<&'static str>) {
    let built_in = matches!(chain, "PREROUTING" | "INPUT" | "FORWARD" | "OUTPUT" | "POSTROUTING" | "BROUTING");
    let tables = matches!(table, "filter" | "nat" | "mangle" | "raw" | "security" | "broute");
    match family {
        "ip" if built_in && tables => (Cause::Iptables, Some("iptables")),
        "ip6" if built_in && tables => (Cause::Iptables, Some("ip6tables")),
        "arp" if built_in && tables => (Cause::Iptables, Some("arptables")),
        "bridge" if built_in && tables => (Cause::Ebtables, Some("ebtables")),
        _ => (Cause::Nftables, None),
    }
}

fn spot(family: &str, hook: &str) -> Option<Spot> {
    Some(match (family, hook) {
        (_, "ingress") => Spot::Ingress,
        (_, "egress") => Spot::Egress,
        ("bridge", "prerouting") => Spot::BridgePrerouting,
        ("bridge", "input") => Spot::BridgeInput,
        ("bridge", "forward") => Spot::BridgeForward,
        ("bridge", "output") => Spot::BridgeOutput,
        ("bridge", "postrouting") => Spot::BridgePostrouting,
        // ARP passes hooks of its own.
        ("arp", _) => Spot::Neighbour,
        (_, "prerouting") => Spot::Prerouting,
        (_, "input") => Spot::Input,
        (_, "forward") => Spot::Forward,
        (_, "output") => Spot::Output,
        (_, "postrouting") => Spot::Postrouting,
        _ => return None,
    })
}

/// The devices of a chain; one `None` for the whole namespace. Of devices that do not matter none.
fn devices(place: &Place<'_>, chain: &Chain, texts: &Texts) -> Vec<Option<u32>> {
    let key = (format!("{} {}", chain.family, chain.table), chain.name.clone());
    let names: Vec<&str> = match &chain.dev {
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
        Some(name) => name.as_str().into_iter().collect(),
        None => texts.devices.get(&key).into_iter().flatten().map(String::as_str).collect(),
    };
    if names.is_empty() {
        return vec![None];
    }
    let called = |wanted: &str, name: &[u8]| match wanted.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning.as_bytes()),
        None => name == wanted.as_bytes(),
    };
    let links = place.links().filter(|link| names.iter().any(|name| called(name, &link.name)));
    links.map(|link| Some(link.key.ifindex)).collect()
}

/// What a rule's expressions do, and which chains they call.
#[derive(Default)]
struct Seen {
    effects: Effects,
    targets: BTreeSet<String>,
}

impl Seen {
    fn look<'a>(&mut self, value: &'a Value, map: &dyn Fn(&str) -> Option<&'a Value>) {
        match value {
            Value::Array(all) => all.iter().for_each(|one| self.look(one, map)),
            Value::Object(fields) => {
                for (key, value) in fields {
                    self.effects = self.effects | statement(key, value);
                    if matches!(key.as_str(), "jump" | "goto") {
                        self.targets.extend(value["target"].as_str().map(str::to_owned));
                    }
                    // Verdicts may stand in a map, and the map under a name.
                    if key == "vmap"
                        && let Some(elements) =
                            value["data"].as_str().and_then(|name| map(name.trim_start_matches('@')))
                    {
                        self.look(elements, &|_| None);
                    }
                    // What is compared does nothing.
                    if key != "match" {
                        self.look(value, map);
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

#[cfg(test)]
mod tests;
