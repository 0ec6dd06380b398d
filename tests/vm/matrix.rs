//! What this kernel gives: its row of the README's table, taken from traces by both backends while they go on. `cargo xtask test`
//! says by `SKBTRACE_MATRIX` where to leave the row, and compares it with the table or writes it there.

use std::{collections::BTreeMap, fs};

use aya::{
    programs::{ProgramType, loaded_programs},
    sys::{BpfHelper, is_helper_supported},
};
use serde_json::json;
use skbtrace::{
    hops::{Backend, CATALOGUE, Fate, Plan},
    host::{Host, Pages, offsets},
};
use skbtrace_common::Offsets;

use crate::support::{
    lab::Lab,
    machine::{assert_nothing_attached, sh},
    tracer::Tracer,
    traffic::lab_exchange,
};

/// What one backend gives.
struct Given {
    plan: Plan,
    /// Rows of the timeline of a segment that goes through the bridge.
    rows: usize,
    /// Instructions that the verifier looked at in the longest of the programs.
    verified: Option<u32>,
}

impl Given {
    fn hops(&self) -> String {
        format!("{} of {}", self.plan.attached().count(), self.plan.rows.len())
    }
}

/// Traces a connection through the lab. Where the kernel skipped a probe, hops are missing by chance, and it is tried again.
fn observe(host: &Host, backend: Backend, word: &str) -> Given {
    let plan = Plan::for_host(host, backend);
    // It attaches what is planned: the kernel refuses nothing.
    let line = plan.line(&host.release.0);
    for _ in 0..5 {
        let tracer = Tracer::start(&["--iface", "calmveth1", "--json", "--backend", word]);
        assert!(tracer.messages().contains(&line), "{line}\n{}", tracer.messages());
        let programs: Vec<_> = loaded_programs().map(Result::unwrap).collect();
        let verified = programs.iter().filter_map(|program| program.verified_instruction_count()).max();
        // A refusal of the loop would go unnoticed: the kernel keeps fifteen bytes of `verify_probe_unrolled` and `verify_read_unrolled`.
        let unrolled = programs.iter().filter_map(|program| program.name_as_str());
        let unrolled = unrolled.filter(|name| ["verify_probe_un", "verify_read_unr"].contains(name)).count();
        let loops = is_helper_supported(ProgramType::KProbe, BpfHelper::BPF_FUNC_loop).unwrap();
        assert_eq!(unrolled != 0, !loops);
        lab_exchange();
        let trace = tracer.interrupt().trace();
        assert_nothing_attached();
        if trace.summary.losses.get("missed_probes").is_some_and(|missed| *missed > 0) {
            continue;
        }
        trace.assert_complete();
        // A slow machine may have sent it twice.
        let request = trace.of(6).into_iter().find(|packet| packet.payload_len == 100).unwrap();
        let payload = request.payload.as_ref().unwrap();
        assert_eq!((request.verdict.as_str(), payload.verdict.as_str()), ("delivered", "same"), "{request:#?}");
        return Given { plan, rows: request.hops.len(), verified };
    }
    panic!("probes were missed each time");
}

/// The names of the hops that are left out, by the reason.
fn left_out(plan: &Plan) -> BTreeMap<String, Vec<&'static str>> {
    let mut reasons: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for row in &plan.rows {
        if let Fate::LeftOut(reason) = &row.fate {
            reasons.entry(reason.clone()).or_default().push(row.hop.name());
        }
    }
    reasons
}

#[test]
#[ignore = "needs a kernel with kprobes, as root: run by cargo xtask test"]
fn what_this_kernel_gives() {
    // What is not loaded is no lack of the kernel's.
    let mut modules: Vec<&str> = CATALOGUE.iter().filter_map(|hop| hop.module).collect();
    modules.sort_unstable();
    modules.dedup();
    sh(&format!("modprobe -a {}", modules.join(" ")));
    let _lab = Lab::up("bridge");
    let host = Host::look().unwrap();
    let [kprobe, tracepoint] =
        [(Backend::Kprobe, "kprobe"), (Backend::Tracepoint, "tracepoint")].map(|(it, word)| observe(&host, it, word));
    // Other tests know nothing of a bridge that asks netfilter.
    sh("modprobe -r br_netfilter");
    let structures = offsets(&host).unwrap();
    let has = |helper| is_helper_supported(ProgramType::KProbe, helper).unwrap();
    let yes = |is_so: bool| if is_so { "yes" } else { "no" }.to_owned();
    let reasons = host.btf.enumeration("skb_drop_reason").is_some_and(|all| !all.is_empty());
    let verified = [kprobe.verified, tracepoint.verified].into_iter().flatten().max();
    // Title, content, and whether it is the kernel alone that decides.
    let cells = [
        ("hops by kprobe", kprobe.hops(), true),
        ("by tracepoint", tracepoint.hops(), true),
        ("of one TCP segment", format!("{} and {}", kprobe.rows, tracepoint.rows), false),
        ("drop reasons", yes(reasons), true),
        (
            "types of modules",
            yes(structures.veth_peer != Offsets::ABSENT && structures.port_dev != Offsets::ABSENT),
            true,
        ),
        ("`bpf_loop`", yes(has(BpfHelper::BPF_FUNC_loop)), true),
        ("`bpf_get_func_ip`", yes(has(BpfHelper::BPF_FUNC_get_func_ip)), true),
        ("pages by", Pages::of(&host).source.unwrap_or("nothing").to_owned(), true),
        ("instructions verified", verified.map_or("not told".to_owned(), |count| count.to_string()), false),
    ];
    let cells = cells.map(|(title, content, firm)| json!({ "title": title, "content": content, "firm": firm }));
    let left_out = left_out(&kprobe.plan);
    println!("{cells:?}\n{left_out:?}");
    if let Some(path) = std::env::var_os("SKBTRACE_MATRIX") {
        fs::write(path, json!({ "cells": cells, "left_out": left_out }).to_string()).unwrap();
    }
}
