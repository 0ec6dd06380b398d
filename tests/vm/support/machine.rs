//! The machine: programs, settings, and whether a trace left anything behind.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
    thread::sleep,
    time::{Duration, Instant},
};

use aya::programs::{links::LinkType, loaded_links, loaded_programs};
use skbtrace_common::HopId;

/// How long anything may take that must happen: an order of magnitude more than it takes under emulation.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// Waits until this is so.
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "not after {} s: {what}", PATIENCE.as_secs());
        sleep(Duration::from_millis(20));
    }
}

/// The machine's own network, `net:[…]`, where these tests run beside it and not in a virtual machine.
const NATIVE: &str = "SKBTRACE_NATIVE";

/// Whether the tests may change settings: in a virtual machine, or where `cargo xtask test` has given them a network of their own.
pub fn ours() {
    if let Some(theirs) = std::env::var_os(NATIVE) {
        let own = fs::read_link("/proc/self/ns/net").unwrap();
        assert_ne!(own.as_os_str(), theirs, "these tests run in a network of their own: cargo xtask test");
        return;
    }
    assert!(std::env::var_os("SKBTRACE_VM").is_some(), "these tests run in a virtual machine: cargo xtask test");
}

/// Whether this machine is one that others use too, with a kernel that nobody chose.
pub fn native() -> bool {
    std::env::var_os(NATIVE).is_some()
}

/// The kernel that the test runs on, as its machine was asked for: `6.1`.
pub fn kernel() -> String {
    std::env::var("SKBTRACE_VM_KERNEL").unwrap()
}

/// Whether this kernel is one that attaches functions together and loses none without counting it.
pub fn attaches_together() -> bool {
    match kernel().as_str() {
        "5.10" | "6.1" | "6.18" => false,
        "6.12" | "7.3" => true,
        other => panic!("who knows whether {other} does: say so here"),
    }
}

/// Runs a program that must succeed, and returns its standard output.
pub fn sh(line: &str) -> String {
    let Output { status, stdout, stderr } = Command::new("sh").args(["-c", line]).output().unwrap();
    let stderr = String::from_utf8_lossy(&stderr);
    assert!(status.success(), "{line}: {status}: {stderr}");
    String::from_utf8(stdout).unwrap()
}

/// Writes a setting under /proc/sys.
pub fn sysctl(name: &str, value: &str) {
    fs::write(Path::new("/proc/sys").join(name), value).unwrap();
}

/// What is attached to the kernel in the tracer's name.
fn leftovers() -> Vec<String> {
    // The kernel keeps fifteen bytes of a program's name.
    let is_hop = |name: &[u8]| HopId::ALL.iter().any(|hop| hop.name().as_bytes()[..hop.name().len().min(15)] == *name);
    let mut left: Vec<String> = fs::read_to_string("/sys/kernel/debug/kprobes/list")
        .unwrap()
        .lines()
        .map(|line| format!("kprobe {line}"))
        .collect();
    // What is no more when it is looked at is not left.
    let programs = loaded_programs().flatten().filter(|program| is_hop(program.name()));
    left.extend(programs.map(|program| format!("program {}", String::from_utf8_lossy(program.name()))));
    let is_ours =
        |kind: &LinkType| matches!(kind, LinkType::PerfEvent | LinkType::RawTracePoint | LinkType::KProbeMulti);
    let links = loaded_links().flatten().filter_map(|link| link.link_type().ok());
    left.extend(links.filter(is_ours).map(|kind| format!("link {kind:?}")));
    left
}

/// No probe, program or link of a tracer is left. The kernel takes them away a little after the process has gone. On a machine
/// that others use, they may be somebody else's.
pub fn assert_nothing_attached() {
    if native() {
        return;
    }
    let start = Instant::now();
    loop {
        let left = leftovers();
        if left.is_empty() {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "left behind: {left:#?}");
        sleep(Duration::from_millis(100));
    }
}
