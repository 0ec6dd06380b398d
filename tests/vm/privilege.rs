//! With what a run works: the fewest capabilities that do, one less, and what is left of root's once it traces. And who may
//! read what it records.

use std::{fs, os::unix::fs::MetadataExt as _, process::Command};

use crate::support::{
    lab::{CLIENT, Lab, SERVER},
    machine::{assert_nothing_attached, ours, sh, sysctl},
    tracer::{Done, PROGRAM, Tracer},
    traffic::datagrams,
};

const BPF: u32 = 39;
const PERFMON: u32 = 38;
const SYSLOG: u32 = 34;
const SYS_RESOURCE: u32 = 24;
const SYS_ADMIN: u32 = 21;
const SYS_PTRACE: u32 = 19;
const SYS_MODULE: u32 = 16;
const NET_ADMIN: u32 = 12;
const DATAGRAMS: usize = 5;

/// The kernel's setting for perf events, put back at the end.
struct Paranoid(String);

impl Paranoid {
    fn set(level: &str) -> Paranoid {
        ours();
        let before = Paranoid(fs::read_to_string("/proc/sys/kernel/perf_event_paranoid").unwrap());
        sysctl("kernel/perf_event_paranoid", level);
        before
    }
}

impl Drop for Paranoid {
    fn drop(&mut self) {
        sysctl("kernel/perf_event_paranoid", self.0.trim());
    }
}

/// The program where anybody may run it: its own folder may be closed to others, as /root is.
struct Copy(String);

impl Copy {
    fn new() -> Copy {
        Copy(sh(&format!("f=$(mktemp); cat {PROGRAM} > $f; chmod 755 $f; echo $f")).trim().to_owned())
    }

    /// The tracer as nobody, with these capabilities and no others.
    fn with(&self, capabilities: &[u32], arguments: &[&str]) -> Tracer {
        let each: String = capabilities.iter().map(|number| format!(",+cap_{number}")).collect();
        let set = format!("-all{each}");
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
        command.args(["--bounding-set", &set, "--inh-caps", &set, "--ambient-caps", &set]);
        Tracer::spawn_command(command.args([&self.0, "run"]).args(arguments))
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        // Nothing depends on its being gone.
        let _ = fs::remove_file(&self.0);
    }
}

/// Before 5.11 BPF maps count as locked memory.
fn least() -> Vec<u32> {
    let old = sh("uname -r").starts_with("5.10.");
    [&[BPF, PERFMON, SYSLOG][..], if old { &[SYS_RESOURCE] } else { &[] }].concat()
}

/// Datagrams to the server, and how many of them were seen delivered.
fn delivered(tracer: Tracer) -> (usize, Done) {
    let tracer = tracer.ready();
    datagrams(CLIENT, SERVER, 7000, DATAGRAMS);
    let done = tracer.interrupt();
    assert_nothing_attached();
    let trace = done.trace();
    assert_eq!(trace.packets.len(), DATAGRAMS, "{done:#?}");
    (trace.packets.iter().filter(|packet| packet.outcome.status == "delivered").count(), done)
}

#[test]
#[ignore = "needs a kernel with kprobes, as root: run by cargo xtask test"]
fn three_capabilities_trace_and_what_is_not_seen_is_said() {
    let _lab = Lab::up("bridge");
    let _paranoid = Paranoid::set("2");
    let program = Copy::new();
    let (count, done) = delivered(program.with(&least(), &["--iface", "calmveth1_peer", "--json", "--proto", "udp"]));
    assert_eq!(count, DATAGRAMS, "{done:#?}");
    for said in ["without CAP_SYS_ADMIN: ", "without CAP_SYS_PTRACE: ", "without CAP_NET_ADMIN: ", "ns-calm1"] {
        assert!(done.stderr.contains(said), "{said}: {done:#?}");
    }
}

#[test]
#[ignore = "needs a kernel with kprobes, as root: run by cargo xtask test"]
fn with_two_more_all_namespaces_are_seen() {
    let _lab = Lab::up("bridge");
    let program = Copy::new();
    let more = [&least()[..], &[SYS_ADMIN, SYS_PTRACE, NET_ADMIN]].concat();
    // It stands for two of the others.
    let more: Vec<u32> = more.into_iter().filter(|number| ![BPF, PERFMON].contains(number)).collect();
    let (count, done) = delivered(program.with(&more, &["--iface", "calmveth1", "--json", "--proto", "udp"]));
    assert_eq!(count, DATAGRAMS, "{done:#?}");
    assert!(!done.stderr.contains("without CAP_") && !done.stderr.contains("not seen"), "{done:#?}");
    assert!(done.stderr.contains("ns-calm2/calmveth2 ═ calmveth2_peer"), "{done:#?}");
}

#[test]
#[ignore = "needs a kernel with kprobes, as root: run by cargo xtask test"]
fn one_less_is_named_and_nothing_is_attached() {
    let _lab = Lab::up("bridge");
    let program = Copy::new();
    let names = [(BPF, "CAP_BPF to load"), (PERFMON, "CAP_PERFMON to attach"), (SYSLOG, "CAP_SYSLOG to see")];
    {
        let _paranoid = Paranoid::set("2");
        for (number, said) in names {
            let less: Vec<u32> = least().into_iter().filter(|one| *one != number).collect();
            let done = program.with(&less, &["--iface", "calmveth1_peer"]).wait();
            let begin = format!("skbtrace: not allowed to trace: it takes {said} ");
            assert!(done.code() == Some(1) && done.stderr.starts_with(&begin), "{said}: {done:#?}");
            assert_eq!(done.stderr.matches("CAP_").count(), 1, "{done:#?}");
        }
    }
    assert_nothing_attached();
}

/// As Debian's kernels are set up.
#[test]
#[ignore = "needs a kernel with kprobes, as root: run by cargo xtask test"]
fn where_functions_may_not_be_probed_tracepoints_trace() {
    let _lab = Lab::up("bridge");
    let _paranoid = Paranoid::set("3");
    let program = Copy::new();
    let (count, done) = delivered(program.with(&least(), &["--iface", "calmveth1_peer", "--json", "--proto", "udp"]));
    assert_eq!(count, DATAGRAMS, "{done:#?}");
    assert!(done.stderr.contains(" hops traced by raw tracepoint on "), "{done:#?}");
    assert!(done.stderr.contains("without CAP_SYS_ADMIN: functions cannot be probed"), "{done:#?}");
    // Asked for, they are missed.
    let done = program.with(&least(), &["--iface", "calmveth1_peer", "--backend", "kprobe"]).wait();
    assert!(done.code() == Some(1) && done.stderr.contains("perf events are closed to this user"), "{done:#?}");
    assert_nothing_attached();
}

/// The effective and the bounding capabilities of every thread of a process.
fn capabilities(pid: &str) -> Vec<(u64, u64)> {
    let of = |text: &str, name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        u64::from_str_radix(value.trim(), 16).unwrap()
    };
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let texts = threads.map(|thread| fs::read_to_string(thread.unwrap().path().join("status")).unwrap());
    texts.map(|text| (of(&text, "CapEff:"), of(&text, "CapBnd:"))).collect()
}

#[test]
#[ignore = "needs a kernel with kprobes, as root: run by cargo xtask test"]
fn what_is_not_used_any_more_is_given_up_but_not_the_commands() {
    let _lab = Lab::up("bridge");
    // Its parent is the tracer, which gives up its own just after it has started the command.
    let command = "sleep 2; echo parent=$PPID; grep -H CapEff /proc/$$/status /proc/$PPID/task/*/status; kill -STOP $$";
    let tracer = Tracer::start(&["--iface", "calmveth1", "-q", "--", "sh", "-c", command]);
    crate::support::machine::wait_until("the command has spoken", || tracer.messages().contains("/task/"));
    let said = tracer.messages();
    let pid = said.lines().find_map(|line| line.strip_prefix("parent=")).unwrap().to_owned();
    let held = capabilities(&pid);
    assert!(!held.is_empty());
    for (effective, bounding) in held {
        for set in [effective, bounding] {
            for gone in [SYSLOG, PERFMON, SYS_MODULE, SYS_RESOURCE] {
                assert_eq!(set & 1 << gone, 0, "{gone} in {set:x}");
            }
            for kept in [BPF, SYS_ADMIN, SYS_PTRACE, NET_ADMIN] {
                assert_ne!(set & 1 << kept, 0, "{kept} in {set:x}");
            }
        }
    }
    // The command has all that root has.
    let own = capabilities("self")[0].0;
    assert!(said.lines().any(|line| line.ends_with(&format!("CapEff:\t{own:016x}"))), "{said}");
    // And the topology is followed with what is left.
    sh(
        "ip netns add late && ip link add late0 type veth peer name late1 netns late && ip link set late0 master calmbr up",
    );
    crate::support::machine::wait_until("the new port is seen", || tracer.messages().contains("late/late1"));
    let done = tracer.interrupt();
    sh("ip netns delete late");
    assert_eq!(done.code(), Some(0), "{done:#?}");
    assert_nothing_attached();
}

#[test]
#[ignore = "needs a kernel with kprobes, as root: run by cargo xtask test"]
fn a_recording_is_its_callers_alone_and_no_link_of_others_is_followed() {
    let _lab = Lab::up("bridge");
    let folder = sh("mktemp -d").trim().to_owned();
    fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(0o1777)).unwrap();
    let record = |name: &str, force: &[&str]| {
        let mut command = Command::new(PROGRAM);
        command.env("SUDO_UID", "1234").env("SUDO_GID", "4321");
        command.args(["run", "--iface", "calmveth1", "--timeout", "1", "-w", &format!("{folder}/{name}")]).args(force);
        Tracer::spawn_command(&mut command).wait()
    };
    // Parts that come after the capabilities have gone are the caller's too.
    let done = record("a.pcapng", &["--rotate", "64K"]);
    assert_eq!(done.code(), Some(0), "{done:#?}");
    let made = fs::metadata(format!("{folder}/a.0001.pcapng")).unwrap();
    assert_eq!((made.uid(), made.gid(), made.mode() & 0o7777), (1234, 4321, 0o600));
    // Even where the kernel would follow it.
    let before = sh("cat /proc/sys/fs/protected_symlinks");
    sysctl("fs/protected_symlinks", "0");
    sh(&format!("touch {folder}/victim; ln -s {folder}/victim {folder}/b.pcapng; chown -h 65534 {folder}/b.pcapng"));
    sh(&format!("chown 65533 {folder}"));
    for force in [&[][..], &["--force"]] {
        let done = record("b.pcapng", force);
        assert!(done.code() == Some(1) && done.stderr.contains("somebody else has put a link"), "{done:#?}");
    }
    assert_eq!(fs::metadata(format!("{folder}/victim")).unwrap().len(), 0);
    sysctl("fs/protected_symlinks", before.trim());
    fs::remove_dir_all(folder).unwrap();
    assert_nothing_attached();
}
