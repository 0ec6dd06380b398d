//! The survey of the lab, with each fault of the gallery in place in turn: what a fault leaves on the host is found, at the
//! device at which it is, with what it can do to packets, and without the fault it is not there.

use std::sync::atomic::AtomicBool;

use skbtrace::{
    lab::{
        Scenario,
        fault::{self, Cause, Class, Fault, Injected},
    },
    survey::{Effects, Fact, Survey},
    topology::Topology,
};

use crate::support::{
    lab::{Lab, within},
    machine::sh,
};

static GO: AtomicBool = AtomicBool::new(false);

/// Faults whose effect shows at another device than the one at which the thing is that has it: where that is.
const ELSEWHERE: [(&str, &str); 10] = [
    // The bridge finds nobody to send to when the frame comes in by the client's port.
    ("port-down", "calmveth1_peer"),
    ("port-disabled", "calmveth1_peer"),
    ("port-isolated", "calmveth1_peer"),
    ("vlan-filtering", "calmveth1_peer"),
    ("fdb-wrong-port", "calmveth2_peer"),
    // The sender's neighbour entry is wrong, and the receiver drops.
    ("wrong-lladdr", "ns-calm2/calmveth2"),
    // The receiver does not answer, and the sender drops.
    ("arp-unanswered", "ns-calm1/calmveth1"),
    // The sender's route lets the packet live for one router only.
    ("ttl-expired", "ns-calm2/calmveth2"),
    // The port changes what the receiver then finds wrong.
    ("ip-checksum", "calmveth1_peer"),
    ("duplicate-address", "calmbr"),
];

fn survey(iface: &str) -> (Topology, Survey) {
    let topology = Topology::read().unwrap();
    let link = topology.find(iface, None).unwrap().key;
    let survey = Survey::read(&topology, &topology.segment(link));
    assert_eq!(survey.unseen, [""; 0], "as root everything is seen");
    (topology, survey)
}

/// The fault is one of what stands on the host; the others are in what programs do.
fn leaves_a_trace(fault: &Fault) -> bool {
    !matches!(fault.verdict.cause, Cause::Sender | Cause::Socket) && !fault.steps.is_empty()
}

fn can(effects: Effects, class: Class) -> bool {
    match class {
        Class::Garbled => effects.garble,
        Class::Dropped => effects.drop,
        Class::Delayed => effects.delay,
        Class::Duplicated => effects.duplicate,
        Class::Reordered => effects.reorder,
    }
}

/// Whether a fact is what the fault has put there.
fn is_of(fault: &Fault, topology: &Topology, fact: &Fact) -> bool {
    let elsewhere = ELSEWHERE.iter().find(|(name, _)| *name == fault.name).map(|(_, device)| (*device).to_owned());
    let device = elsewhere.unwrap_or_else(|| match fault.verdict.place {
        Some(netns) => format!("{netns}/{}", fault.verdict.device),
        None => fault.verdict.device.to_owned(),
    });
    let there = match fact.device() {
        Some(key) => topology.label(key) == device,
        None => topology.netns_label(fact.netns) == fault.verdict.place.unwrap_or("init"),
    };
    // What a filter changes in a header is dropped for its checksum later on.
    let class = if fault.name == "ip-checksum" { Class::Garbled } else { fault.verdict.class };
    there && fact.cause == fault.verdict.cause && can(fact.effects, class)
}

fn shown(topology: &Topology, facts: &[Fact]) -> Vec<String> {
    let one = |fact: &Fact| {
        let place = fact.device().map_or_else(|| topology.netns_label(fact.netns), |key| topology.label(key));
        format!("{place}: {:?} {:?} {}", fact.cause, fact.spot, fact.what)
    };
    facts.iter().map(one).collect()
}

fn try_out(fault: &'static Fault, clean: &Survey) -> Result<String, String> {
    let said = |error: fault::Error| error.to_string();
    if fault::inject(fault, false, &GO).map_err(said)? != Injected::Now {
        return Err("it was in place before".into());
    }
    let (topology, found) = survey(fault.iface());
    fault::clear().map_err(said)?;
    let new: Vec<Fact> = found.facts.into_iter().filter(|fact| !clean.facts.contains(fact)).collect();
    let (_, after) = survey(fault.iface());
    if after != *clean {
        return Err(format!("not as before once it is gone: {:#?}", shown(&topology, &after.facts)));
    }
    match new.iter().find(|fact| is_of(fault, &topology, fact)) {
        Some(fact) => Ok(format!("{} | {}", fact.what, fact.undo.as_deref().unwrap_or("-"))),
        None => Err(format!("not among what is new: {:#?}", shown(&topology, &new))),
    }
}

fn try_all(scenario: Scenario) {
    let _lab = Lab::up(scenario.name());
    let rows: Vec<_> = fault::all().filter(|fault| fault.scenario == scenario && leaves_a_trace(fault)).collect();
    assert!(!rows.is_empty());
    let (_, clean) = survey(rows[0].iface());
    let mut wrong = Vec::new();
    for fault in &rows {
        match try_out(fault, &clean) {
            Ok(what) => println!("{:26} {what}", fault.name),
            Err(why) => {
                println!("{:26} FAILED: {why}", fault.name);
                wrong.push((fault.name, why));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {}: {wrong:#?}", wrong.len(), rows.len());
}

#[test]
#[ignore = "needs the modules of a whole kernel, as root: run by cargo xtask test"]
fn what_a_fault_leaves_on_the_host_is_found_and_only_while_it_is_there() {
    for scenario in [Scenario::Bridge, Scenario::Pair, Scenario::Loopback] {
        try_all(scenario);
    }
}

#[test]
#[ignore = "needs the modules of a whole kernel, as root: run by cargo xtask test"]
fn looking_changes_nothing_and_loads_nothing() {
    let _lab = Lab::up("bridge");
    let state = || {
        let modules = sh("cut -d' ' -f1 /proc/modules | sort");
        let names = "cat /proc/net/ip_tables_names /proc/net/ip6_tables_names /proc/net/arp_tables_names 2>&1; true";
        modules + &sh(names) + &within("ns-calm1", || sh(names))
    };
    let before = state();
    let (_, first) = survey("calmveth1");
    assert_eq!(state(), before);
    assert_eq!(survey("calmveth1").1, first);
}

#[test]
#[ignore = "needs the modules of a whole kernel, as root: run by cargo xtask test"]
fn the_commands_that_are_offered_take_things_away() {
    let _lab = Lab::up("bridge");
    let (_, clean) = survey("calmveth1");
    for name in [
        "pedit-sender-egress",
        "netem-loss",
        "nft-input-drop",
        "tc-ingress-drop",
        "blackhole-route",
        "port-isolated",
        "mtu-peer",
    ] {
        let fault = fault::find(name).unwrap();
        fault::inject(fault, false, &GO).unwrap();
        let (_, found) = survey("calmveth1");
        let new: Vec<_> = found.facts.iter().filter(|fact| !clean.facts.contains(fact)).collect();
        assert!(!new.is_empty(), "{name}");
        for fact in new {
            sh(fact.undo.as_deref().unwrap());
        }
        assert_eq!(survey("calmveth1").1, clean, "{name}");
        fault::clear().unwrap();
    }
}
