//! Namespaces, devices, and what stands in the way of packets there: what the survey found, a row each.

use super::{Facts, Row, State, ok, row};
use crate::{doctor::Thing, verdict::Cause};

/// So many things of a kind are told.
const SHOWN: usize = 6;

/// Whether all of the network is seen.
pub(super) fn network(facts: &Facts) -> Vec<Row> {
    let name = "network";
    let network = match &facts.network {
        Ok(network) => network,
        Err(error) => return vec![row(name, State::Broken, error, "mount /proc, and allow threads")],
    };
    let mut rows = match &network.segment {
        Some(Ok(line)) => ok("segment", line),
        Some(Err(error)) => vec![row(
            "segment",
            State::Broken,
            error,
            "name an interface that is there: `ip -all netns \
                                      exec ip link` lists them",
        )],
        None => Vec::new(),
    };
    let count = |count: usize, noun: &str| format!("{count} {noun}{}", if count == 1 { "" } else { "s" });
    rows.extend(ok(
        name,
        format!("{}, {}", count(network.netns, "network namespace"), count(network.devices, "device")),
    ));
    let unseen =
        |text: &String| row(name, State::Warning, format!("not seen: {text}"), "run it as root to look into it");
    rows.extend(network.unseen.iter().take(SHOWN).map(unseen));
    if network.unseen.len() > SHOWN {
        let more = format!("not seen: {} more", network.unseen.len() - SHOWN);
        rows.push(row(name, State::Warning, more, "run it as root to look into them"));
    }
    rows
}

/// The MTUs of veth pairs. Ends that differ are told below, with the command that makes them agree.
pub(super) fn pairs(facts: &Facts) -> Vec<Row> {
    let Ok(network) = &facts.network else { return Vec::new() };
    let pairs = &network.pairs;
    let mut mtus: Vec<u32> = pairs.iter().flat_map(|(one, other)| [*one, *other]).collect();
    mtus.sort_unstable();
    mtus.dedup();
    let texts: Vec<String> = mtus.iter().map(u32::to_string).collect();
    let unequal = pairs.iter().filter(|(one, other)| one != other).count();
    let found = match (pairs.len(), unequal) {
        (0, _) => "none".to_owned(),
        (1, 0) => format!("1, both ends with MTU {}", texts.join(", ")),
        (all, 0) => format!("{all}, the ends of each with the same MTU ({})", texts.join(", ")),
        (all, unequal) => {
            let found = format!("{unequal} of {all} with another MTU at the other end ({})", texts.join(", "));
            let fix = "give both ends the same: what is longer than the other end takes is dropped";
            return vec![row("veth pairs", State::Warning, found, fix)];
        }
    };
    ok("veth pairs", found)
}

/// Whether bridges show what they forward to the rules for routed packets.
pub(super) fn bridge_netfilter(facts: &Facts) -> Vec<Row> {
    let name = "br_netfilter";
    let Some(settings) = &facts.bridge_netfilter else {
        return ok(name, "not loaded: bridged packets pass no rules of iptables");
    };
    let on: Vec<&str> = settings.iter().filter(|(_, on)| *on).map(|(tool, _)| *tool).collect();
    if on.is_empty() {
        return ok(name, "loaded, and net.bridge.bridge-nf-call-* are 0: bridged packets pass no rules of iptables");
    }
    let sysctls: Vec<String> = on.iter().map(|tool| format!("net.bridge.bridge-nf-call-{tool}=0")).collect();
    let found = format!("bridged packets pass the rules of {} as if they were routed", on.join(", "));
    vec![row(name, State::Note, found, format!("if that is not wanted: sysctl -w {}", sysctls.join(" ")))]
}

/// What the survey found, by kind. Rules, routes and the like are there on purpose on most hosts, and are counted only.
pub(super) fn things(facts: &Facts) -> Vec<Row> {
    let Ok(network) = &facts.network else { return Vec::new() };
    let counted = |thing: &&Thing| {
        use Cause::{Bridge, Ebtables, Iptables, Neighbour, Nftables, Qdisc, Route, Sender};
        matches!(thing.cause, Nftables | Iptables | Ebtables | Bridge | Neighbour | Route | Qdisc | Sender)
    };
    let mut rows: Vec<Row> = Vec::new();
    let mut left = Vec::new();
    for thing in network.things.iter().filter(|thing| !counted(thing)) {
        let name = thing.cause.name();
        if rows.iter().filter(|row| row.name == name).count() < SHOWN {
            // Some say where they are.
            let place = if thing.what.starts_with(&thing.place) { String::new() } else { format!("{}: ", thing.place) };
            let state = state(thing, network.segment.is_some());
            rows.push(row(name, state, format!("{place}{}", thing.what), fix(thing)));
        } else {
            left.push(name);
        }
    }
    // Those of a kind together, the worst first.
    rows.sort_by_key(|row| (row.name, std::cmp::Reverse(row.state)));
    let others = network.things.iter().filter(counted).count() + left.len();
    if others > 0 {
        let found = format!("{others} more that can change, drop or delay packets: rules, routes, queues and the like");
        rows.push(row(
            "survey",
            State::Note,
            found,
            "`skbtrace survey` lists them, with the command that takes each away",
        ));
    }
    rows
}

/// A device that drops is set up wrongly, or is one of many that nobody uses; a program or a tap is there on purpose.
fn state(thing: &Thing, asked_for: bool) -> State {
    match thing.cause {
        Cause::Device if thing.drops && (asked_for || !thing.down) => State::Warning,
        _ => State::Note,
    }
}

fn fix(thing: &Thing) -> String {
    match (&thing.undo, thing.cause) {
        (Some(undo), Cause::Device) => undo.clone(),
        (Some(undo), _) => format!("if it is not there on purpose: {undo}"),
        (None, Cause::Socket) if !thing.drops => {
            "none needed: the copies are shown as branches of their packet; end it where times matter".to_owned()
        }
        (None, _) => "see whether it is there on purpose".to_owned(),
    }
}
