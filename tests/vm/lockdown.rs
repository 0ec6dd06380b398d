//! A kernel that is locked down for real: `cargo xtask test` boots machines of their own for these, with `lockdown=…`.

use std::{fs, process::Command};

use crate::support::{
    lab::Lab,
    machine::{assert_nothing_attached, ours},
    model::Trace,
    tracer::{Done, PROGRAM, Tracer, run, traced},
    traffic::lab_exchange,
};

/// This machine was booted for that.
fn assert_level(level: &str) {
    ours();
    let text = fs::read_to_string("/sys/kernel/security/lockdown").unwrap();
    assert!(text.contains(&format!("[{level}]")), "boot with lockdown={level}: cargo xtask test lockdown; {text}");
}

/// A connection, whole and with its payload compared.
fn assert_traced(trace: &Trace) {
    assert_eq!(trace.of(6).len(), 11, "{trace:#?}");
    for packet in trace.of(6) {
        assert_eq!(packet.verdict, "delivered", "{packet:#?}");
        let compared = packet.payload.as_ref().map(|payload| payload.verdict.as_str());
        assert_eq!(compared == Some("same"), packet.payload_len > 0, "{packet:#?}");
    }
}

/// What the doctor says of a run here, in a mount namespace where this was done before: its rows that are broken.
fn broken(before: &str) -> Vec<String> {
    let line = format!("{before} exec {PROGRAM} doctor --json");
    let out = Command::new("unshare").args(["--mount", "--", "sh", "-ec", &line]).output().unwrap();
    let value: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    let rows = value["checks"].as_array().unwrap().iter();
    let broken: Vec<String> =
        rows.filter(|row| row["state"] == "broken").map(|row| format!("{}: {}", row["name"], row["found"])).collect();
    assert_eq!((value["works"].as_bool(), out.status.code() == Some(0)), (Some(broken.is_empty()), broken.is_empty()));
    broken
}

#[test]
#[ignore = "needs a kernel booted with lockdown=integrity, as root: run by cargo xtask test"]
fn integrity_takes_nothing_from_a_run() {
    assert_level("integrity");
    let _lab = Lab::up("bridge");
    assert_eq!(broken(""), [""; 0]);
    for backend in ["kprobe", "tracepoint"] {
        assert_traced(&traced(&["--backend", backend], lab_exchange));
    }
}

#[test]
#[ignore = "needs a kernel booted with lockdown=confidentiality, as root: run by cargo xtask test"]
fn confidentiality_is_named_and_nothing_is_attached() {
    assert_level("confidentiality");
    let _lab = Lab::up("bridge");
    let refused = |done: &Done, words: &str| {
        assert_eq!((done.code(), done.stdout.as_str()), (Some(1), ""), "{done:#?}");
        assert!(done.stderr.contains(words), "{done:#?}");
        assert!(done.stderr.contains("`skbtrace doctor`"), "{done:#?}");
    };
    for backend in ["auto", "kprobe", "tracepoint"] {
        let done = run(&["--iface", "calmveth1", "--backend", backend]);
        refused(&done, "this kernel is locked down (confidentiality)");
    }
    assert_eq!(broken("").iter().filter(|row| row.contains("lockdown")).count(), 1, "{:#?}", broken(""));
    // In a container nobody may say so: then the kernel's own refusal does.
    let hidden = "mount -t tmpfs none /sys/kernel/security;";
    let line = format!("{hidden} exec {PROGRAM} run --iface calmveth1");
    let done = Tracer::spawn_command(Command::new("unshare").args(["--mount", "--", "sh", "-ec", &line])).wait();
    refused(&done, "this kernel is locked down (confidentiality)");
    let rows = broken(hidden);
    assert!(rows.iter().any(|row| row.contains("BPF programs") && row.contains("memory")), "{rows:#?}");
    assert_nothing_attached();
}
