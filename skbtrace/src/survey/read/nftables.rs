//! Rules of nftables, as `nft` lists them, and those that the nft variants of iptables and ebtables keep in the same place.
//!
//! They are asked for only where the kernel says that the namespace has a table, and only so many as can be listed in a few
//! seconds; elements of sets, which may be millions, are never. A chain with more rules than anyone reads is cut short.

mod listing;

use std::{collections::BTreeSet, io};

use netlink_sys::protocols::NETLINK_NETFILTER;
use serde_json::Value;

use super::{
    DROP, Found, NOTHING,
    chains::Calls,
    command::{Answer, run},
    few::Few,
    iptables,
    module::is_loaded,
    place::Place,
    shell::word,
};
use crate::{
    name::printable,
    survey::{Fact, Spot},
    topology::netlink::RouteSocket,
    verdict::Cause,
};
use listing::{Chain, MapKey, Rule, Ruleset, Seen, Texts, texts};

// linux/netfilter/nfnetlink.h, nf_tables.h: subsystem 10
const NFT_MSG_NEWTABLE: u16 = 10 << 8;
const NFT_MSG_GETTABLE: u16 = 10 << 8 | 1;
const NFT_MSG_NEWRULE: u16 = 10 << 8 | 6;
const NFT_MSG_GETRULE: u16 = 10 << 8 | 7;

/// So many rules of a namespace nft is asked to list: 30,000 took it four seconds and 240 MB.
const MAX_RULES: usize = 20_000;
/// So many maps are looked into.
const MAX_MAPS: usize = 32;

pub(super) fn facts(place: &Place<'_>, found: &mut Found) {
    // Asking for tables would load the module.
    if !is_loaded("nf_tables") || found.take(place, "the tables of nftables", count(NFT_MSG_GETTABLE)) == 0 {
        return;
    }
    let rules = found.take(place, "the rules of nftables", count(NFT_MSG_GETRULE));
    // Chains alone still say their policies.
    let what = if rules > MAX_RULES { "chains" } else { "ruleset" };
    let missing = match run("nft", &["-j", "-t", "list", what]) {
        Answer::Said(json) => match Ruleset::parse(&json) {
            Ok(mut ruleset) => {
                look_into_maps(&mut ruleset);
                let texts = match run("nft", &["-s", "-a", "-t", "list", what]) {
                    Answer::Said(text) => texts(&text),
                    _ => Texts::default(),
                };
                found.facts.extend(parse(place, &ruleset, &texts));
                if rules <= MAX_RULES {
                    return;
                }
                format!(
                    "there are {rules}, and more than {MAX_RULES} are not gone through, only the policies of their chains"
                )
            }
            Err(error) => format!("nft printed something unexpected: {error}"),
        },
        Answer::Missing => "there is no nft here to list them (Debian: the package nftables)".to_owned(),
        Answer::Failed(said) => format!("nft said: {said}"),
    };
    found.unseen.push(format!("the rules of nftables in {}: {missing}", place.label()));
}

/// How many tables or rules the kernel has.
fn count(get: u16) -> io::Result<usize> {
    let new = if get == NFT_MSG_GETRULE { NFT_MSG_NEWRULE } else { NFT_MSG_NEWTABLE };
    let mut socket = match RouteSocket::open_protocol(NETLINK_NETFILTER) {
        // No netfilter at all.
        Err(error) if error.raw_os_error() == Some(EPROTONOSUPPORT) => return Ok(0),
        socket => socket?,
    };
    match socket.dump(get, new, &[0; 4], |_| Some(())) {
        // Netfilter without nftables.
        Err(error) if matches!(error.raw_os_error(), Some(EINVAL | EOPNOTSUPP)) => Ok(0),
        all => Ok(all?.len()),
    }
}

const EINVAL: i32 = 22;
const EPROTONOSUPPORT: i32 = 93;
const EOPNOTSUPP: i32 = 95;

/// Asks for the elements of those maps whose verdicts rules take.
fn look_into_maps(ruleset: &mut Ruleset) {
    let named = |rule: &Rule| -> Vec<MapKey> {
        let key = |name: &String| (rule.family.clone(), rule.table.clone(), name.clone());
        rule.does.maps.iter().map(key).collect()
    };
    let wanted: BTreeSet<MapKey> = ruleset.rules.iter().flat_map(named).collect();
    // nft puts its arguments together and reads them as a program: a name must be no more than a name.
    let is_plain = |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte));
    for (at, key) in wanted.into_iter().enumerate() {
        let (family, table, name) = &key;
        let asked = at < MAX_MAPS && [family, table, name].into_iter().all(|word| is_plain(word));
        let answer = asked.then(|| run("nft", &["-j", "list", "map", family, table, name]));
        let listed = match answer {
            Some(Answer::Said(json)) => Ruleset::parse(&json).ok().and_then(|mut listed| listed.maps.remove(&key)),
            _ => None,
        };
        // What cannot be looked into may drop: most of them do.
        ruleset.maps.insert(key, listed.unwrap_or_else(|| Seen { effects: DROP, ..Seen::default() }));
    }
}

fn parse(place: &Place<'_>, ruleset: &Ruleset, texts: &Texts) -> Vec<Fact> {
    // A chain's name says what it is in its table only.
    let full = |family: &str, table: &str, chain: &str| format!("{family}\t{table}\t{chain}");
    let mut calls = Calls::default();
    let mut does = Vec::new();
    for rule in &ruleset.rules {
        let here = full(&rule.family, &rule.table, &rule.chain);
        let map = |name: &String| ruleset.maps.get(&(rule.family.clone(), rule.table.clone(), name.clone()));
        let all: Vec<&Seen> = std::iter::once(&rule.does).chain(rule.does.maps.iter().filter_map(map)).collect();
        for target in all.iter().flat_map(|seen| &seen.targets) {
            calls.add(&here, &full(&rule.family, &rule.table, target));
        }
        let effects = all.iter().fold(NOTHING, |effects, seen| effects | seen.effects);
        if effects != NOTHING {
            does.push((rule, here, effects));
        }
    }
    let mut facts = Vec::new();
    for base in &ruleset.chains {
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
        let here: Vec<_> = does.iter().filter(|(_, chain, _)| reached.contains(chain)).collect();
        for ifindex in &devices {
            let mut few = Few::new();
            for (rule, _, effects) in &here {
                few.add(*effects, || {
                    let fact = place.fact(cause, *ifindex, spot, *effects, rule_text(rule, tool, texts));
                    Fact { undo: place.undo(rule_undo(rule)), ..fact }
                });
            }
            facts.extend(few.all(|rest, effects| {
                let what = format!("{}: {rest}", chain_text(&base.family, &base.table, &base.name, tool));
                place.fact(cause, *ifindex, spot, effects, what)
            }));
        }
    }
    facts
}

fn chain_text(family: &str, table: &str, chain: &str, tool: Option<&str>) -> String {
    let (table, chain) = (printable(table.as_bytes()), printable(chain.as_bytes()));
    match tool {
        Some(tool) => format!("{tool} {table} {chain}"),
        None => format!("nft chain {family} {table} {chain}"),
    }
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

#[cfg(test)]
mod tests;
