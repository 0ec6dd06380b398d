//! Rules of the legacy iptables, ip6tables, arptables and ebtables, as their own commands list them.
//!
//! They are asked only where the kernel says that the namespace has a table, because asking loads the table otherwise. The
//! rules of the variants that write nftables are nftables' own.

use std::{collections::HashMap, fs};

use super::{
    DELAY, DROP, DUPLICATE, Found, GARBLE, NOTHING, REWRITE,
    chains::Calls,
    command::{Answer, run},
    few::Few,
    place::Place,
};
use crate::{
    name::printable,
    survey::{Effects, Fact, Spot},
    topology::Kind,
    verdict::Cause,
};

/// A tool, and the file that lists the tables that a namespace has of it.
const TOOLS: [(&str, &str); 3] =
    [("iptables", "ip_tables_names"), ("ip6tables", "ip6_tables_names"), ("arptables", "arp_tables_names")];

pub(super) fn facts(place: &Place<'_>, found: &mut Found) {
    for (tool, names) in TOOLS {
        let tables = found.take(place, tool, fs::read_to_string(format!("/proc/thread-self/net/{names}")));
        if !tables.trim().is_empty() {
            read(place, tool, found);
        }
    }
    let bridge = place.topology.links_in(place.inum).any(|link| link.kind == Kind::Bridge);
    if bridge && ebtables().next().is_some() {
        read(place, "ebtables", found);
    }
}

/// The tables of the legacy ebtables. Such as are built into a kernel are not seen: they are rare, and asking for a table
/// makes one.
fn ebtables() -> impl Iterator<Item = &'static str> {
    let loaded = |table: &&str| fs::exists(format!("/sys/module/ebtable_{table}")).unwrap_or(false);
    ["filter", "nat", "broute"].into_iter().filter(loaded)
}

/// The rules of a tool, as its -save command lists them.
fn save(tool: &str, command: &str) -> Answer {
    if tool != "ebtables" {
        return run(&format!("{command}-save"), &[]);
    }
    // That of ebtables is a script that asks whatever ebtables is by its plain name: the other variant, where both are installed.
    let mut saved = Vec::new();
    for table in ebtables() {
        match run(command, &["-t", table, "-L"]) {
            Answer::Said(listing) => saved.extend(as_saved(&String::from_utf8_lossy(&listing)).into_bytes()),
            other => return other,
        }
    }
    Answer::Said(saved)
}

/// A listing of ebtables in the form of -save: `Bridge table: filter`, `Bridge chain: INPUT, entries: 1, policy: ACCEPT`, rules.
fn as_saved(listing: &str) -> String {
    let mut chain = "";
    let line = |line| match line {
        "" => None,
        line => Some(match (line.strip_prefix("Bridge table: "), line.strip_prefix("Bridge chain: ")) {
            (Some(table), _) => format!("*{table}\n"),
            (None, Some(rest)) => {
                let (name, rest) = rest.split_once(", entries: ").unwrap_or((rest, ""));
                chain = name;
                format!(":{name} {}\n", rest.rsplit_once("policy: ").map_or("-", |(_, policy)| policy))
            }
            (None, None) => format!("-A {chain} {line}\n"),
        }),
    };
    listing.lines().map(str::trim).filter_map(line).collect()
}

fn read(place: &Place<'_>, tool: &str, found: &mut Found) {
    // Where both variants are installed the plain name may be either; where one is, it is that one.
    let legacy = format!("{tool}-legacy");
    let (name, answer) = match save(tool, &legacy) {
        Answer::Missing => match run(tool, &["--version"]) {
            Answer::Said(version) if !version.windows(9).any(|words| words == b"nf_tables") => {
                (tool.to_owned(), save(tool, tool))
            }
            Answer::Said(_) | Answer::Missing => (legacy, Answer::Missing),
            failed @ Answer::Failed(_) => (legacy, failed),
        },
        answer => (legacy, answer),
    };
    let missing = match answer {
        Answer::Said(text) => return found.facts.extend(parse(place, tool, &name, &String::from_utf8_lossy(&text))),
        Answer::Missing => format!("there is no {name} here to list them (Debian: the package {})", package(tool)),
        Answer::Failed(said) => format!("it said: {said}"),
    };
    found.unseen.push(format!("the rules of {name} in {}: {missing}", place.label()));
}

fn package(tool: &str) -> &'static str {
    match tool {
        "arptables" => "arptables",
        "ebtables" => "ebtables",
        _ => "iptables",
    }
}

/// What a target does, by its name, in any case.
pub(super) fn target(name: &str) -> Effects {
    match name.to_ascii_uppercase().as_str() {
        "DROP" | "REJECT" | "CHAOS" | "TARPIT" | "STEAL" | "ARPREPLY" => DROP,
        "SYNPROXY" => DROP | REWRITE,
        "NFQUEUE" | "QUEUE" => GARBLE | DROP | DELAY | REWRITE,
        "TEE" => DUPLICATE,
        "SNAT" | "DNAT" | "MASQUERADE" | "REDIRECT" | "NETMAP" | "TPROXY" | "MARK" | "CONNMARK" | "TTL" | "HL"
        | "DSCP" | "TOS" | "TCPMSS" | "TCPOPTSTRIP" | "ECN" | "CLASSIFY" | "CHECKSUM" | "MANGLE" | "DNPT" | "SNPT"
        | "CT" | "IDLETIMER" | "RAWNAT" => REWRITE,
        _ => NOTHING,
    }
}

/// A rule: its chain, its number in it, its text without the chain, and its target.
struct Rule {
    chain: String,
    number: usize,
    text: String,
    target: Option<String>,
}

/// A table.
#[derive(Default)]
struct Table {
    name: String,
    /// Chains that the kernel itself calls, with their policies.
    policies: Vec<(String, String)>,
    rules: Vec<Rule>,
    /// How many rules each chain has.
    lengths: HashMap<String, usize>,
}

fn parse(place: &Place<'_>, tool: &str, command: &str, saved: &str) -> Vec<Fact> {
    let cause = if tool == "ebtables" { Cause::Ebtables } else { Cause::Iptables };
    let mut facts = Vec::new();
    for table in tables(saved) {
        let mut calls = Calls::default();
        for rule in &table.rules {
            if let Some(target) = &rule.target {
                calls.add(&rule.chain, target);
            }
        }
        let name = printable(table.name.as_bytes());
        for (base, policy) in &table.policies {
            let Some(spot) = spot(tool, base) else { continue };
            let fact =
                |effects, what, undo| Fact { undo: place.undo(undo), ..place.fact(cause, None, spot, effects, what) };
            if policy == "DROP" {
                let undo = Some(format!("{command} -t {name} -P {base} ACCEPT"));
                facts.push(fact(DROP, format!("{tool} {name} {base}: policy DROP"), undo));
            }
            let reached = calls.reached(base);
            let mut few = Few::new();
            for rule in table.rules.iter().filter(|rule| reached.contains(&rule.chain)) {
                let effects = rule.target.as_deref().map_or(NOTHING, target);
                if effects == NOTHING {
                    continue;
                }
                few.add(effects, || {
                    let chain = printable(rule.chain.as_bytes());
                    // By number: the text of a rule may hold anything, and is not for a shell.
                    let undo = super::shell::word(rule.chain.as_bytes());
                    let undo = undo.map(|chain| format!("{command} -t {name} -D {chain} {}", rule.number));
                    fact(effects, format!("{tool} {name} {chain}: {}", printable(rule.text.as_bytes())), undo)
                });
            }
            facts.extend(few.all(|rest, effects| fact(effects, format!("{tool} {name} {base}: {rest}"), None)));
        }
    }
    facts
}

fn tables(saved: &str) -> Vec<Table> {
    let mut tables: Vec<Table> = Vec::new();
    for line in saved.lines() {
        if let Some(name) = line.strip_prefix('*') {
            tables.push(Table { name: name.trim().to_owned(), ..Table::default() });
        }
        let Some(table) = tables.last_mut() else { continue };
        if let Some(chain) = line.strip_prefix(':') {
            let mut words = chain.split(' ');
            if let (Some(name), Some(policy)) = (words.next(), words.next()) {
                table.policies.push((name.to_owned(), policy.to_owned()));
            }
        }
        // With counters a rule begins with `[0:0]`.
        let rule = if line.starts_with('[') { line.split_once("] ").map_or("", |(_, rule)| rule) } else { line };
        let Some((chain, text)) = rule.strip_prefix("-A ").map(|rule| rule.split_once(' ').unwrap_or((rule, "")))
        else {
            continue;
        };
        let number = table.lengths.entry(chain.to_owned()).and_modify(|length| *length += 1).or_insert(1);
        let rule = Rule { chain: chain.to_owned(), number: *number, text: text.to_owned(), target: target_of(text) };
        table.rules.push(rule);
    }
    tables
}

/// The word behind `-j` or `-g`, unless those stand in a quoted comment.
fn target_of(rule: &str) -> Option<String> {
    let mut words = words(rule).into_iter();
    words.find(|(quoted, word)| !quoted && matches!(word.as_str(), "-j" | "-g"))?;
    words.next().map(|(_, word)| word)
}

/// Words, and whether each was quoted.
fn words(text: &str) -> Vec<(bool, String)> {
    let mut all = Vec::new();
    let (mut word, mut quoted, mut inside) = (String::new(), false, false);
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        match c {
            '\\' if inside => word.extend(characters.next()),
            '"' => {
                inside = !inside;
                quoted = true;
            }
            ' ' if !inside => {
                if quoted || !word.is_empty() {
                    all.push((quoted, std::mem::take(&mut word)));
                }
                quoted = false;
            }
            other => word.push(other),
        }
    }
    if quoted || !word.is_empty() {
        all.push((quoted, word));
    }
    all
}

fn spot(tool: &str, chain: &str) -> Option<Spot> {
    Some(match (tool, chain) {
        ("arptables", "INPUT" | "OUTPUT" | "FORWARD") => Spot::Neighbour,
        ("ebtables", "PREROUTING" | "BROUTING") => Spot::BridgePrerouting,
        ("ebtables", "INPUT") => Spot::BridgeInput,
        ("ebtables", "FORWARD") => Spot::BridgeForward,
        ("ebtables", "OUTPUT") => Spot::BridgeOutput,
        ("ebtables", "POSTROUTING") => Spot::BridgePostrouting,
        (_, "PREROUTING") => Spot::Prerouting,
        (_, "INPUT") => Spot::Input,
        (_, "FORWARD") => Spot::Forward,
        (_, "OUTPUT") => Spot::Output,
        (_, "POSTROUTING") => Spot::Postrouting,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::survey::read::testkit::with_place;

    const SAVED: &str = r#"# Generated by iptables-save v1.8.9
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:hello - [0:0]
:alone - [0:0]
-A INPUT -s 10.0.0.1/32 -m comment --comment "no \" -j DROP" -j ACCEPT
-A INPUT -i d0 -j hello
-A hello -p udp -m comment --comment "$(reboot)" -j DROP
-A alone -j DROP
COMMIT
*nat
:POSTROUTING ACCEPT [0:0]
-A POSTROUTING -j MASQUERADE
COMMIT
"#;

    #[test]
    fn policies_and_rules_that_do_something_are_found_at_the_hooks_that_call_them() {
        with_place("veth0", |place| {
            let facts = parse(place, "iptables", "iptables-legacy", SAVED);
            let lines: Vec<String> = facts
                .iter()
                .map(|fact| format!("{:?} {}\n{}", fact.spot, fact.what, fact.undo.as_deref().unwrap_or("-")))
                .collect();
            insta::assert_snapshot!(lines.join("\n"), @r#"
            Input iptables filter hello: -p udp -m comment --comment "$(reboot)" -j DROP
            ip netns exec blue iptables-legacy -t filter -D hello 1
            Forward iptables filter FORWARD: policy DROP
            ip netns exec blue iptables-legacy -t filter -P FORWARD ACCEPT
            Postrouting iptables nat POSTROUTING: -j MASQUERADE
            ip netns exec blue iptables-legacy -t nat -D POSTROUTING 1
            "#);
            assert_eq!(facts.iter().map(|fact| fact.effects).collect::<Vec<_>>(), [DROP, DROP, REWRITE]);
        });
    }

    #[test]
    fn a_chain_with_more_rules_than_anyone_reads_is_cut_short() {
        use crate::survey::read::few::LISTED;
        with_place("veth0", |place| {
            let rule = |n: usize| format!("-A INPUT -s 10.0.{}.{}/32 -j DROP\n", n / 256, n % 256);
            let rules: String = (0..LISTED + 1000).map(rule).collect();
            let facts = parse(place, "iptables", "iptables", &format!("*filter\n:INPUT ACCEPT\n{rules}"));
            assert_eq!(facts.len(), LISTED + 1);
            let rest = &facts[LISTED];
            assert_eq!(rest.what, "iptables filter INPUT: 1000 more rules, not listed here");
            assert_eq!((rest.spot, rest.effects, rest.undo.as_deref()), (Spot::Input, DROP, None));
        });
    }

    #[test]
    fn ebtables_has_hooks_of_its_own() {
        with_place("veth0", |place| {
            let listing = "Bridge table: filter\n\nBridge chain: INPUT, entries: 0, policy: ACCEPT\n\n\
                           Bridge chain: FORWARD, entries: 1, policy: ACCEPT\n-p IPv4 -o veth0 -j DROP \n";
            let saved = as_saved(listing);
            assert_eq!(saved, "*filter\n:INPUT ACCEPT\n:FORWARD ACCEPT\n-A FORWARD -p IPv4 -o veth0 -j DROP\n");
            let facts = parse(place, "ebtables", "ebtables-legacy", &saved);
            assert_eq!(facts.len(), 1);
            assert_eq!((facts[0].cause, facts[0].spot, facts[0].effects), (Cause::Ebtables, Spot::BridgeForward, DROP));
        });
    }
}
