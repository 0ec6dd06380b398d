//! Machines and words on which no trace can be had: what is said, the exit status, and that nothing stays attached.

use std::process::Command;

use crate::support::{
    lab::Lab,
    machine::{assert_nothing_attached, ours, sh},
    tracer::{Done, PROGRAM, Tracer, run},
};

/// Runs a line of shell in a mount namespace of its own; `$skbtrace` is the program.
fn in_other_surroundings(line: &str) -> Done {
    ours();
    let mut command = Command::new("unshare");
    command.args(["--mount", "--", "sh", "-ec", line]).env("skbtrace", PROGRAM);
    let done = Tracer::spawn_command(&mut command).wait();
    assert_nothing_attached();
    done
}

/// It failed, said this and nothing else, and printed nothing.
fn assert_refusal(done: &Done, message: &str) {
    assert_eq!(done.code(), Some(1), "{done:#?}");
    assert_eq!(done.stderr, format!("skbtrace: {message}\n"));
    assert_eq!(done.stdout, "");
}

#[test]
#[ignore = "needs a kernel with kprobes, as root: run by cargo xtask test"]
fn an_unknown_interface_is_answered_with_near_names_and_where_it_was_sought() {
    let _lab = Lab::up("bridge");
    let known = "3 network namespaces (init, ns-calm1, ns-calm2)";
    assert_refusal(
        &run(&["--iface", "calmvet1"]),
        &format!(
            "no interface calmvet1 in any of {known}; did you mean ns-calm1/calmveth1, ns-calm2/calmveth2 or \
             calmveth1_peer?"
        ),
    );
    assert_refusal(&run(&["--iface", "xyz"]), &format!("no interface xyz in any of {known}"));
    assert_refusal(
        &run(&["--iface", "calmveth1", "--netns", "ns-calm2"]),
        "no interface calmveth1 in network namespace ns-calm2; did you mean ns-calm1/calmveth1 or \
         ns-calm2/calmveth2?",
    );
    assert_refusal(
        &run(&["--iface", "calmveth1", "--netns", "ns-calm3"]),
        "no network namespace ns-calm3: there are 3 (init, ns-calm1, ns-calm2); did you mean ns-calm1 or ns-calm2?",
    );
    // A name that would clear the screen.
    let hostile = run(&["--iface", "\u{1b}[2Jcalm"]);
    assert_eq!(hostile.code(), Some(1));
    assert!(!hostile.stderr.contains('\u{1b}'), "{:?}", hostile.stderr);
}

#[test]
#[ignore = "needs a kernel with kprobes, as root: run by cargo xtask test"]
fn a_name_in_two_namespaces_must_be_told_apart() {
    let _lab = Lab::up("bridge");
    assert_refusal(
        &run(&["--iface", "lo"]),
        "interface lo exists in 3 network namespaces (init, ns-calm1, ns-calm2): add --netns NAME to say which",
    );
    assert_refusal(
        &run(&["--iface", "ns-calm1/lo", "--netns", "ns-calm2"]),
        "interface ns-calm1/lo is in one network namespace and --netns ns-calm2 is another: leave one of the two out",
    );
}

#[test]
#[ignore = "needs a kernel with kprobes, as root: run by cargo xtask test"]
fn who_is_not_root_is_told_what_is_missing() {
    // Its own folder may be closed to others, as /root is.
    let copy = sh(&format!("f=$(mktemp); cat {PROGRAM} > $f; chmod 755 $f; echo $f")).trim().to_owned();
    let done = in_other_surroundings(&format!(
        "exec setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps=-all {copy} run --iface calmveth1"
    ));
    sh(&format!("rm {copy}"));
    let memory = " CAP_SYS_RESOURCE to have more locked memory";
    assert_eq!(done.code(), Some(1), "{done:#?}");
    assert_eq!(done.stderr.contains(memory), sh("uname -r").starts_with("5.10."), "{done:#?}");
    let begin = "skbtrace: not allowed to trace: it takes CAP_BPF to load BPF programs, CAP_PERFMON to attach programs to \
                 the kernel's functions, ";
    let end = "; run it as root (sudo skbtrace …), or give it what is missing; `skbtrace doctor` says what this machine \
               offers\n";
    assert!(done.stderr.starts_with(begin) && done.stderr.ends_with(end), "{done:#?}");
    assert_eq!(done.stdout, "");
}

#[test]
#[ignore = "needs a kernel with kprobes, as root: run by cargo xtask test"]
fn a_kernel_that_lacks_something_is_told_what() {
    let without = |mount: &str| {
        in_other_surroundings(&format!("{mount}; exec $skbtrace run --iface lo --netns init --timeout 1"))
    };

    let no_btf = without("mount -t tmpfs none /sys/kernel/btf");
    assert_eq!((no_btf.code(), no_btf.stdout.as_str()), (Some(1), ""), "{no_btf:#?}");
    assert_eq!(no_btf.stderr.lines().count(), 1, "{no_btf:#?}");
    assert!(no_btf.stderr.contains("/sys/kernel/btf/vmlinux") && no_btf.stderr.contains("CONFIG_DEBUG_INFO_BTF"));

    // Without kprobes there are tracepoints, unless somebody insists.
    let hide = "mount -t tmpfs none /sys/bus/event_source/devices";
    let other = without(hide);
    assert!(other.code() == Some(0) && other.stdout.contains(" hops traced by raw tracepoint on "), "{other:#?}");
    let insisting = format!("{hide}; exec $skbtrace run --iface lo --netns init --timeout 1 --backend kprobe");
    assert_refusal(
        &in_other_surroundings(&insisting),
        "there are no kprobes here (no kprobe under /sys/bus/event_source/devices); leave out --backend, or say --backend \
         tracepoint: it sees fewer hops",
    );
    assert_refusal(
        &without("f=$(mktemp); echo 5.4.0-1-amd64 > $f; mount --bind $f /proc/sys/kernel/osrelease"),
        "kernel 5.4.0-1-amd64 is too old: skbtrace needs Linux 5.10 or later; `skbtrace doctor` says what this machine \
         offers",
    );
}
