//! Would this machine's firewall eat the lab's bridged traffic?
//!
//! Bridged packets do not pass the IP firewall, unless br_netfilter sends them there, as container engines have it do;
//! then a FORWARD chain that drops by default drops them too, and the lab looks broken. Nothing is changed here: the
//! firewall is the user's. The check only reads, and names the command that would let the traffic through.
//!
//! A chain's fate is decided by those rules that hit every packet of the bridge; rules with further conditions are
//! passed over. So a ruleset that lets the traffic through piece by piece may be warned about without need.

use std::{collections::HashMap, fs, io, process::Command};

use serde::Serialize;
use serde_json::Value;

use crate::name::printable;

const IPTABLES_CHAIN: &str = "iptables FORWARD";

/// A chain that drops what the bridge forwards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Drop {
    /// The chain: `iptables FORWARD`, `nftables inet firewall forward`.
    pub chain: String,
    /// What in it drops.
    pub why: String,
    /// The command that lets the bridge's traffic through.
    pub repair: String,
}

/// What the check found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Whether bridged IPv4 packets pass the IP firewall (br_netfilter).
    pub bridge_netfilter: bool,
    /// The chains that drop them.
    pub drops: Vec<Drop>,
    /// What could not be checked, and why.
    pub unchecked: Vec<String>,
}

impl Report {
    /// The lines to show as warnings; none when all is well.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let via = if self.bridge_netfilter { "br_netfilter is active and " } else { "" };
        let drops = self.drops.iter().map(|drop| {
            format!("{via}{} drops what the bridge forwards ({}); to repair: {}", drop.chain, drop.why, drop.repair)
        });
        let unchecked = self.unchecked.iter().map(|what| format!("firewall not checked: {what}"));
        drops.chain(unchecked).collect()
    }
}

/// Reads the firewall of the calling thread's namespace.
#[must_use]
pub fn check(bridge: &str) -> Report {
    let switched_on = |path: String| fs::read_to_string(path).is_ok_and(|value| value.trim() == "1");
    let bridge_netfilter = switched_on("/proc/sys/net/bridge/bridge-nf-call-iptables".into())
        || switched_on(format!("/sys/class/net/{bridge}/bridge/nf_call_iptables"));
    let mut report = Report { bridge_netfilter, ..Report::default() };

    let ruleset = output("nft", &["-j", "list", "ruleset"]);
    let parsed = ruleset.and_then(|json| nft_drops(&json, bridge, bridge_netfilter).map_err(|error| error.to_string()));
    let nft_is_known = parsed.is_ok();
    match parsed {
        // nft cannot show the conditions of all that iptables put there; iptables itself has the last word on that.
        Ok(drops) if drops.iter().any(|drop| drop.chain == IPTABLES_CHAIN) => {
            let acquitted =
                output("iptables-nft", &["-S"]).is_ok_and(|rules| iptables_drop("iptables", &rules, bridge).is_none());
            report.drops.extend(drops.into_iter().filter(|drop| !(acquitted && drop.chain == IPTABLES_CHAIN)));
        }
        Ok(drops) => report.drops.extend(drops),
        // Without br_netfilter only nftables' own bridge chains could matter, which need nft to have been made.
        Err(why) if bridge_netfilter => {
            report.unchecked.push(format!("nftables ({why}; the Debian package is nftables)"))
        }
        Err(_) => {}
    }
    if bridge_netfilter {
        check_iptables(&mut report, bridge, nft_is_known);
    }
    report
}

/// What nft does not show: the tables of legacy iptables. Listing a legacy table loads its module, so it is listed
/// only when the kernel says that it is there.
fn check_iptables(report: &mut Report, bridge: &str, nft_is_known: bool) {
    let tables = fs::read_to_string("/proc/net/ip_tables_names").unwrap_or_default();
    let legacy = tables.lines().any(|table| table == "filter");
    // A machine whose only iptables is the legacy one has it under the plain name.
    let binaries: &[&str] = match (legacy, nft_is_known) {
        (true, _) => &["iptables-legacy", "iptables"],
        (false, false) => &["iptables"],
        (false, true) => return,
    };
    let mut why = String::new();
    for binary in binaries {
        match output(binary, &["-S"]) {
            Ok(listing) => return report.drops.extend(iptables_drop(binary, &listing, bridge)),
            Err(error) => why = error,
        }
    }
    report.unchecked.push(format!("iptables ({why}; the Debian package is iptables)"));
}

fn output(program: &str, arguments: &[&str]) -> Result<String, String> {
    match Command::new(program).args(arguments).output() {
        Ok(output) if output.status.success() => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        Ok(output) => Err(format!("{program} failed: {}", printable(output.stderr.trim_ascii()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(format!("there is no {program}")),
        Err(error) => Err(format!("{program}: {error}")),
    }
}

/// What a rule that hits every packet of the bridge does.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Accept,
    Drop,
    Return,
    Jump(String),
    Goto(String),
}

#[derive(Debug, Default)]
struct Chain {
    steps: Vec<Step>,
    policy_drops: bool,
}

type Chains = HashMap<String, Chain>;

/// Kernels refuse deeper nesting; a ruleset from a file may have a loop.
const MAX_DEPTH: u8 = 16;

/// Whether a chain drops (`Some(true)`), accepts, or leaves it to its caller.
fn decide(chains: &Chains, name: &str, depth: u8) -> Option<bool> {
    let chain = chains.get(name).filter(|_| depth < MAX_DEPTH)?;
    for step in &chain.steps {
        match step {
            Step::Accept => return Some(false),
            Step::Drop => return Some(true),
            Step::Return => return None,
            Step::Goto(to) => return decide(chains, to, depth + 1),
            Step::Jump(to) => match decide(chains, to, depth + 1) {
                None => {}
                decided => return decided,
            },
        }
    }
    None
}

/// Why a base chain drops, if it does.
fn why_drops(chains: &Chains, base: &str) -> Option<&'static str> {
    match decide(chains, base, 0) {
        Some(true) => Some("a rule that hits every packet"),
        None if chains.get(base).is_some_and(|chain| chain.policy_drops) => Some("policy DROP"),
        _ => None,
    }
}

/// The drop in the output of `iptables -S`, of the `binary` that also repairs it: iptables-legacy and iptables on
/// nftables are two firewalls, and a packet must pass both.
#[must_use]
pub fn iptables_drop(binary: &str, listing: &str, bridge: &str) -> Option<Drop> {
    let mut chains = Chains::new();
    for line in listing.lines() {
        let words = words(line);
        match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
            ["-P", chain, policy, ..] => chains.entry((*chain).into()).or_default().policy_drops = *policy == "DROP",
            ["-N", chain] => drop(chains.entry((*chain).into()).or_default()),
            ["-A", chain, rule @ ..] => {
                if let Some(step) = iptables_step(rule, bridge) {
                    chains.entry((*chain).into()).or_default().steps.push(step);
                }
            }
            _ => {}
        }
    }
    why_drops(&chains, "FORWARD").map(|why| Drop {
        chain: format!("{binary} FORWARD"),
        why: why.into(),
        repair: format!("{binary} -I FORWARD -i {bridge} -j ACCEPT"),
    })
}

/// What a rule does to every packet of the bridge; `None` when it has conditions beyond that.
fn iptables_step(rule: &[&str], bridge: &str) -> Option<Step> {
    let is_bridge = |pattern: &str| match pattern.strip_suffix('+') {
        Some(prefix) => bridge.starts_with(prefix),
        None => pattern == bridge,
    };
    match rule {
        ["-i" | "-o", device, rest @ ..] if is_bridge(device) => iptables_step(rest, bridge),
        ["-m", "physdev", "--physdev-is-bridged", rest @ ..] => iptables_step(rest, bridge),
        ["-m", "comment", "--comment", _, rest @ ..] => iptables_step(rest, bridge),
        ["-j", "ACCEPT"] => Some(Step::Accept),
        ["-j", "DROP"] | ["-j", "REJECT", ..] => Some(Step::Drop),
        ["-j", "RETURN"] => Some(Step::Return),
        ["-j", chain] => Some(Step::Jump((*chain).into())),
        ["-g", chain] => Some(Step::Goto((*chain).into())),
        _ => None,
    }
}

/// Splits a line as a shell does, as far as `iptables -S` quotes.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted) = (Vec::new(), String::new(), false);
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => quoted = !quoted,
            '\\' if quoted => word.extend(chars.next()),
            c if c.is_whitespace() && !quoted => words.extend((!word.is_empty()).then(|| std::mem::take(&mut word))),
            c => word.push(c),
        }
    }
    words.extend((!word.is_empty()).then_some(word));
    words
}

/// The drops in the output of `nft -j list ruleset`: in the bridge family always, in ip and inet with br_netfilter.
///
/// # Errors
/// When it is no JSON.
pub fn nft_drops(json: &str, bridge: &str, bridge_netfilter: bool) -> Result<Vec<Drop>, serde_json::Error> {
    let ruleset: Value = serde_json::from_str(json)?;
    let items = ruleset["nftables"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut tables: HashMap<(&str, &str), Chains> = HashMap::new();
    let mut bases = Vec::new();
    for item in items {
        let key = |object: &'static str, chain: &'static str| {
            let object = item.get(object)?;
            let text = |key: &str| object.get(key)?.as_str();
            Some((object, text("family")?, text("table")?, text(chain)?))
        };
        if let Some((chain, family, table, name)) = key("chain", "name") {
            let policy_drops = chain["policy"] == "drop";
            tables.entry((family, table)).or_default().entry(name.into()).or_default().policy_drops = policy_drops;
            let reached = family == "bridge" || bridge_netfilter && matches!(family, "ip" | "inet");
            if reached && chain["hook"] == "forward" && chain["type"] == "filter" {
                bases.push((family, table, name));
            }
        } else if let Some((rule, family, table, name)) = key("rule", "chain")
            && let Some(step) = nft_step(rule["expr"].as_array().map(Vec::as_slice).unwrap_or_default(), bridge)
        {
            tables.entry((family, table)).or_default().entry(name.into()).or_default().steps.push(step);
        }
    }
    let drops = bases.into_iter().filter_map(|base @ (family, table, name)| {
        let why = why_drops(tables.get(&(family, table))?, name)?;
        Some(nft_drop(base, why, bridge))
    });
    Ok(drops.collect())
}

fn nft_drop((family, table, name): (&str, &str, &str), why: &str, bridge: &str) -> Drop {
    // iptables keeps its rules in nftables under exactly these names, and warns when nft changes them.
    if (family, table, name) == ("ip", "filter", "FORWARD") {
        let repair = format!("iptables -I FORWARD -i {bridge} -j ACCEPT");
        return Drop { chain: IPTABLES_CHAIN.into(), why: why.into(), repair };
    }
    let (table, name) = (printable(table.as_bytes()), printable(name.as_bytes()));
    let device = if family == "bridge" { "ibrname" } else { "iifname" };
    Drop {
        chain: format!("nftables {family} {table} {name}"),
        why: why.into(),
        repair: format!("nft insert rule {family} {table} {name} {device} {bridge} accept"),
    }
}

/// What a rule does to every packet of the bridge; `None` when it has conditions beyond that.
fn nft_step(expressions: &[Value], bridge: &str) -> Option<Step> {
    let is_bridge = |value: &Value| match value.as_str().map(|text| (text, text.strip_suffix('*'))) {
        Some((_, Some(prefix))) => bridge.starts_with(prefix),
        Some((text, None)) => text == bridge,
        None => false,
    };
    for expression in expressions {
        let (kind, body) = expression.as_object()?.iter().next()?;
        let target = || body["target"].as_str().map(str::to_owned);
        match kind.as_str() {
            "counter" | "log" | "comment" => {}
            "match" => {
                let key = body["left"]["meta"]["key"].as_str()?;
                let names_device = matches!(key, "iifname" | "oifname" | "iif" | "oif" | "ibrname" | "obrname");
                if !(names_device && body["op"] == "==" && is_bridge(&body["right"])) {
                    return None;
                }
            }
            "accept" => return Some(Step::Accept),
            "drop" | "reject" => return Some(Step::Drop),
            "return" => return Some(Step::Return),
            "jump" => return target().map(Step::Jump),
            "goto" => return target().map(Step::Goto),
            _ => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests;
