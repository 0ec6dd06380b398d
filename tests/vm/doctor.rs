//! The doctor on real kernels: it says of a machine that traces that it does, of one that does not why, and finds what stands
//! in the way of packets.

use std::process::Command;

use crate::support::{
    lab::Lab,
    machine::{assert_nothing_attached, attaches_together, ours, sh},
    tracer::{PROGRAM, Tracer},
};

/// The rows of the doctor's JSON as `state name: found`, whether a run works, and the exit status.
fn doctor(before: &str, arguments: &str) -> (Vec<String>, bool, Option<i32>) {
    ours();
    let line = format!("{before} exec {PROGRAM} doctor --json {arguments}");
    let out = Command::new("unshare").args(["--mount", "--", "sh", "-ec", &line]).output().unwrap();
    let value: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    let text = |row: &serde_json::Value, key: &str| row[key].as_str().unwrap().to_owned();
    let row = |row| format!("{} {}: {}", text(row, "state"), text(row, "name"), text(row, "found"));
    let rows = value["checks"].as_array().unwrap().iter().map(row).collect();
    assert_nothing_attached();
    (rows, value["works"].as_bool().unwrap(), out.status.code())
}

fn with<'a>(rows: &'a [String], begin: &str) -> Vec<&'a String> {
    rows.iter().filter(|row| row.starts_with(begin)).collect()
}

#[test]
#[ignore = "needs a kernel with kprobes, as root: run by cargo xtask test"]
fn a_machine_that_traces_is_well() {
    let _lab = Lab::up("bridge");
    let (rows, works, code) = doctor("", "--iface calmveth1");
    assert!(works && code == Some(0), "{rows:#?}");
    let warnings = with(&rows, "warning ");
    assert_eq!(warnings, [""; 0]);
    for good in ["kernel", "privileges", "BTF", "kprobes", "BPF programs", "kallsyms", "network", "segment"] {
        assert_eq!(with(&rows, &format!("ok {good}: ")).len(), 1, "{good}: {rows:#?}");
    }
    assert_eq!(with(&rows, "ok veth pairs: 2, the ends of each with the same MTU (1500)").len(), 1, "{rows:#?}");
}

#[test]
#[ignore = "needs a kernel with kprobes, as root: run by cargo xtask test"]
fn a_machine_on_which_a_run_fails_is_called_broken() {
    let causes = [
        ("mount -t tmpfs none /sys/kernel/btf;", "broken BTF: "),
        ("mount --bind /dev/null /proc/kallsyms;", "broken kallsyms: "),
    ];
    for (before, begin) in causes {
        let (rows, works, code) = doctor(before, "");
        assert!(!works && code == Some(1), "{rows:#?}");
        assert_eq!(with(&rows, begin).len(), 1, "{begin}: {rows:#?}");
        let line = format!("{before} exec {PROGRAM} run --iface lo --netns init --timeout 1");
        let done = Tracer::spawn_command(Command::new("unshare").args(["--mount", "--", "sh", "-ec", &line])).wait();
        assert_eq!(done.code(), Some(1), "{done:#?}");
        assert!(done.stderr.ends_with("; `skbtrace doctor` says what this machine offers\n"), "{done:#?}");
    }
    let (rows, works, code) = doctor("", "--iface calmveth7");
    assert!(!works && code == Some(1) && with(&rows, "broken segment: no interface calmveth7").len() == 1, "{rows:#?}");
}

#[test]
#[ignore = "needs a kernel with kprobes, as root: run by cargo xtask test"]
fn what_stands_in_the_way_is_found() {
    let _lab = Lab::up("bridge");
    sh("ip -n ns-calm1 link set dev calmveth1 mtu 9000");
    sh(
        "tc qdisc add dev calmveth1_peer clsact; tc filter add dev calmveth1_peer egress protocol ip pref 1 matchall action drop",
    );
    let tcpdump = ["netns", "exec", "ns-calm1", "tcpdump", "-ni", "calmveth1", "-w", "/dev/null"];
    let mut tap = Command::new("ip").args(tcpdump).stderr(std::process::Stdio::null()).spawn().unwrap();
    crate::support::machine::wait_until("tcpdump listens", || {
        sh("ip netns exec ns-calm1 cat /proc/net/packet").lines().count() > 1
    });
    let tracer = Tracer::start(&["--iface", "calmveth1", "--json"]);
    let line = format!("{PROGRAM} doctor --json --iface calmveth1");
    let rows: serde_json::Value = serde_json::from_str(&sh(&line)).unwrap();
    let found = |state: &str, name: &str, part: &str| {
        let is_it = |row: &&serde_json::Value| {
            row["state"] == state && row["name"] == name && row["found"].as_str().unwrap().contains(part)
        };
        rows["checks"].as_array().unwrap().iter().filter(is_it).count()
    };
    tracer.interrupt();
    tap.kill().unwrap();
    tap.wait().unwrap();
    assert_eq!(found("warning", "veth pairs", "1 of 2 with another MTU"), 1, "{rows:#}");
    assert_eq!(found("warning", "device", "MTU of calmveth1 is 9000, that of its other end"), 1, "{rows:#}");
    assert_eq!(found("note", "tc filter", "calmveth1_peer: "), 1, "{rows:#}");
    assert_eq!(found("note", "socket", "tcpdump["), 1, "{rows:#}");
    assert_eq!(found("note", "other tracers", "BPF programs"), 1, "{rows:#}");
    // Functions that are attached together are in no list of kprobes.
    assert_eq!(found("note", "other tracers", "kprobes"), usize::from(!attaches_together()), "{rows:#}");
    assert_nothing_attached();
}
