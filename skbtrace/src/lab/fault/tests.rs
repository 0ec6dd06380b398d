//! The table: what must be so of every row, whatever the kernel.

use std::collections::BTreeSet;

use super::{command::Error as StepError, *};
use crate::lab::{LAYOUTS, Place};

#[test]
fn there_are_enough_of_each_kind_and_no_name_twice() {
    let names: BTreeSet<_> = all().map(|fault| fault.name).collect();
    assert_eq!(names.len(), all().count(), "a name twice");
    assert!(names.len() >= 26, "{} faults", names.len());
    let of = |class| all().filter(|fault| fault.verdict.class == class).count();
    assert!(of(Class::Garbled) >= 9, "{} garble", of(Class::Garbled));
    for class in [Class::Dropped, Class::Delayed, Class::Duplicated, Class::Reordered] {
        assert!(of(class) >= 1, "none is {}", class.name());
    }
}

#[test]
fn a_name_is_kebab_case_and_a_text_reads_on() {
    for fault in all() {
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        assert!(fault.name.chars().all(fits) && !fault.name.starts_with('-'), "{}", fault.name);
        assert!(fault.teaches.ends_with('.') && !fault.verdict.because.ends_with('.'), "{}", fault.name);
    }
}

/// Whether a device is part of a scenario.
fn is_there(scenario: Scenario, place: Place, device: &str) -> bool {
    let layout = scenario.layout();
    let ends = layout.pairs.iter().flatten().any(|end| end.place == place && end.device == device);
    let lo = device == "lo" && layout.namespaces.iter().any(|(name, _)| Some(*name) == place);
    ends || lo || place.is_none() && layout.bridge == Some(device)
}

#[test]
fn every_step_can_be_taken_back_and_is_about_the_scenario() {
    for fault in all() {
        for step in fault.steps {
            let name = fault.name;
            assert!(!step.undoes(name, Some("0")).is_empty(), "{name}: {step}");
            if !matches!(step, Step::Table { .. }) {
                assert!(!step.does(name).is_empty(), "{name}: {step:?}");
                assert_ne!(step.does(name), step.undoes(name, Some("former")), "{name}");
            }
            let layout = fault.scenario.layout();
            let there = step.place().is_none_or(|place| layout.namespaces.iter().any(|(name, _)| *name == place));
            assert!(there, "{name}: no {:?} in the {} lab", step.place(), fault.scenario);
            if step.place().is_none() {
                // Outside the lab's namespaces, only what is the lab's may be named.
                let does = step.does(name);
                let ours = does.contains("calm") || does.contains("skbtrace_lab_") || fault.requires.is_some();
                assert!(ours || matches!(step, Step::Table { .. }), "{name}: {does}");
            }
        }
    }
}

#[test]
fn a_fault_without_steps_is_its_traffic() {
    for fault in all().filter(|fault| fault.steps.is_empty()) {
        let by = fault.show.by;
        let is_fault = matches!(by, show::By::Forged(_) | show::By::Deaf | show::By::Burst { .. });
        assert!(is_fault && matches!(fault.verdict.cause, Cause::Sender | Cause::Socket), "{}", fault.name);
    }
}

#[test]
fn a_verdict_is_about_a_device_of_the_scenario_and_says_how_packets_end() {
    for fault in all() {
        let Verdict { class, span, place, device, reasons, .. } = fault.verdict;
        assert!(is_there(fault.scenario, place, device), "{}: no {device} in {place:?}", fault.name);
        let ends = class == Class::Dropped && fault.name != "xdp-drop" || fault.name == "netem-corrupt";
        assert_eq!(ends, !reasons.is_empty(), "{}", fault.name);
        if class == Class::Garbled {
            assert!(matches!(span, Span::Between(..)), "{}", fault.name);
        }
        if fault.show.effect == show::Effect::Corrupt {
            assert_eq!(class, Class::Garbled, "{}", fault.name);
        }
    }
}

#[test]
fn what_is_beyond_tracepoints_is_known_by_name_and_says_why() {
    let beyond = || all().filter_map(|fault| Some((fault.name, fault.verdict.beyond_tracepoints?)));
    let names = [
        "pedit-sender-egress",
        "pedit-loopback",
        "tc-bpf-pair",
        "nft-output-drop",
        "nft-postrouting-drop",
        "xdp-drop",
        "arp-unanswered",
    ];
    // README counts them.
    assert_eq!(beyond().map(|(name, _)| name).collect::<Vec<_>>(), names);
    assert!(beyond().all(|(_, why)| why.contains("theirs") && !why.ends_with('.')));
}

#[test]
fn the_mark_has_room_for_any_two_faults() {
    let long = |fault: &'static Fault| {
        let saved = fault.steps.iter().enumerate();
        let saved = saved.filter(|(_, step)| matches!(step, Step::Setting { .. } | Step::BridgeNetfilter));
        mark::InPlace { name: fault.name.into(), saved: saved.map(|(index, _)| (index, "absent".into())).collect() }
    };
    for layout in &LAYOUTS {
        for (first, second) in all().flat_map(|first| all().map(move |second| (first, second))) {
            let alias = mark::format(layout.scenario, &[long(first), long(second)]);
            assert!(alias.len() <= mark::LIMIT, "{alias}");
        }
    }
}

#[test]
fn faults_that_change_the_same_thing_clash() {
    let clash = |a: &str, b: &str| {
        let (a, b) = (find(a).unwrap(), find(b).unwrap());
        a.steps.iter().any(|step| b.steps.iter().any(|other| step.clashes(other)))
    };
    assert!(clash("netem-delay", "netem-loss"));
    assert!(clash("xdp-receiver", "xdp-drop"));
    assert!(clash("wrong-lladdr", "duplicate-address"));
    assert!(clash("ttl-expired", "forwarding-off"));
    assert!(!clash("nft-input-drop", "nft-bridge-drop"));
    assert!(!clash("netem-delay", "pedit-port-egress"));
}

#[test]
fn two_at_once_stand_in_one_scenario_and_do_not_clash() {
    for pair in pairs().unwrap() {
        let [one, other] = pair[..] else { panic!("{pair:?}") };
        assert_eq!(one.scenario, other.scenario);
        let clash = one.steps.iter().any(|step| other.steps.iter().any(|theirs| step.clashes(theirs)));
        assert!(!clash, "{} and {}", one.name, other.name);
    }
}

#[test]
fn an_unknown_name_is_answered_with_the_nearest() {
    let error = find("netem-los").unwrap_err().to_string();
    assert_eq!(error, "no fault netem-los: did you mean netem-loss? `skbtrace lab fault list` has them all");
    let error = find("\u{1b}[2J").unwrap_err().to_string();
    assert_eq!(error, "no fault \\x1b[2J: `skbtrace lab fault list` has them all");
}

#[test]
fn the_list_as_json_names_hops_commands_and_traffic() {
    let json = serde_json::to_value(find("pedit-port-egress").unwrap()).unwrap();
    assert_eq!(json["verdict"]["class"], "garbled");
    assert_eq!(json["verdict"]["span"], serde_json::json!(["__dev_queue_xmit", "veth_xmit"]));
    assert_eq!(json["show"]["by"]["traffic"]["protocol"], "tcp");
    assert_eq!(json["steps"][0]["undoes"], "tc qdisc del dev calmveth1_peer clsact");
    assert_eq!(
        serde_json::to_value(find("nft-output-drop").unwrap()).unwrap()["verdict"]["span"][0],
        serde_json::Value::Null
    );
}

#[test]
fn what_is_missing_is_named() {
    let error = StepError::NoProgram { program: "nft".into(), package: "nftables" };
    assert_eq!(error.to_string(), "there is no nft on this machine: the Debian package nftables has it");
}
