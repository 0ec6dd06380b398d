//! How a run ends: by a signal, a count, the time, a command, a reader that goes, a drop that must not be. Each time with
//! its exit status, its last words, and nothing left attached.

use std::{
    fs,
    io::Read as _,
    process::{Command, Stdio},
};

use nix::sys::signal::Signal;

use crate::support::{
    lab::{CLIENT, Lab, SERVER},
    machine::{assert_nothing_attached, sh, wait_until},
    model::Trace,
    tracer::{Done, PROGRAM, Tracer},
    traffic::{PORT, datagrams, lab_exchange, refused_datagram, tcp_segments},
};

/// The books of a run that saw nothing.
const NOTHING: &str =
    "0 packets: 0 delivered, 0 dropped, 0 incomplete, 0 in flight · 0 events lost · every packet complete";

#[test]
#[ignore = "needs a kernel with kprobes, as root: run by cargo xtask test"]
fn two_tracers_side_by_side_see_the_same_and_a_signal_ends_each_cleanly() {
    let _lab = Lab::up("bridge");
    let [first, second, killed] = [(); 3].map(|()| Tracer::spawn(&["--iface", "calmveth1", "--json"]));
    let [first, second, killed] = [first, second, killed].map(Tracer::ready);
    lab_exchange();
    // A third one is killed, and harms neither.
    killed.signal(Signal::SIGKILL);
    assert_eq!(killed.wait().code(), None);
    datagrams(CLIENT, SERVER, PORT, 5);
    first.signal(Signal::SIGINT);
    second.signal(Signal::SIGTERM);
    let both = [first.wait(), second.wait()].map(|done| done.trace());
    assert_nothing_attached();
    for trace in &both {
        trace.assert_complete();
        assert_eq!(trace.of(6).len(), tcp_segments(100, 300).len());
        assert_eq!(trace.of(17).len(), 5);
        assert_eq!(trace.packets.len(), 16);
        assert_eq!(trace.summary.delivered, 16);
    }
    let [first, second] = both.map(|trace| trace.packets.iter().map(|packet| packet.path()).collect::<Vec<_>>());
    assert_eq!(first, second);
}

#[test]
#[ignore = "needs a kernel with kprobes, as root: run by cargo xtask test"]
fn a_reader_that_goes_ends_the_run() {
    let _lab = Lab::up("bridge");
    let mut command = Command::new(PROGRAM);
    command.args(["run", "--iface", "calmveth1"]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // The first line, and no more: as `head -1`.
    let mut stdout = child.stdout.take().unwrap();
    let mut first = Vec::new();
    while first.last() != Some(&b'\n') {
        let mut byte = [0];
        stdout.read_exact(&mut byte).unwrap();
        first.push(byte[0]);
    }
    drop(stdout);
    let mut sent = 0;
    wait_until("the tracer ends by itself", || {
        datagrams(CLIENT, SERVER, PORT, 1);
        sent += 1;
        child.try_wait().unwrap().is_some()
    });
    let done = child.wait_with_output().unwrap();
    assert_eq!(
        String::from_utf8(first).unwrap(),
        "ns-calm2/calmveth2 ═ calmveth2_peer ─[calmbr]─ calmveth1_peer ═ ns-calm1/calmveth1\n"
    );
    assert_eq!(done.status.code(), Some(0), "{done:?}");
    let stderr = String::from_utf8(done.stderr).unwrap();
    let message = stderr.strip_prefix("skbtrace: nobody reads the output any more: stopped after ").unwrap();
    let packets: u64 = message.strip_suffix(" packets\n").unwrap().parse().unwrap();
    // None at all when the tracer's second line was for nobody already.
    assert!(packets <= sent, "{packets} of {sent}");
    assert_nothing_attached();
}

#[test]
#[ignore = "needs a kernel with kprobes, as root: run by cargo xtask test"]
fn a_count_a_time_and_a_command_end_the_run() {
    let _lab = Lab::up("bridge");
    let shell = "sleep 0.3; echo told; exit 7";
    let runs: [&[&str]; 4] = [
        &["--iface", "calmveth1", "--json", "--count", "3"],
        &["--iface", "calmveth1", "--timeout", "500ms"],
        &["--iface", "calmveth1", "--", "sh", "-c", shell],
        &["--iface", "calmveth1", "--", "/nonexistent/command"],
    ];
    // At once: what takes long is to attach.
    let [counted, timed, command, missing] = runs.map(Tracer::spawn);
    let missing = missing.wait();
    assert_eq!(missing.code(), Some(1), "{missing:#?}");
    assert_eq!(missing.stderr, "skbtrace: cannot run /nonexistent/command: No such file or directory (os error 2)\n");

    let timed = timed.wait();
    assert_eq!((timed.code(), timed.stderr.as_str()), (Some(0), ""), "{timed:#?}");
    assert_eq!(timed.stdout.lines().last(), Some(NOTHING), "{timed:#?}");

    let command = command.wait();
    assert_eq!(command.code(), Some(1), "{command:#?}");
    assert_eq!(command.stderr, "told\nskbtrace: the command failed: exit status: 7\n");
    assert_eq!(command.stdout.lines().last(), Some(NOTHING), "{command:#?}");

    let counted = counted.ready();
    datagrams(CLIENT, SERVER, PORT, 10);
    let trace = counted.wait().trace();
    assert_eq!(trace.packets.len(), 3);
    assert_eq!(trace.packets.iter().map(|packet| packet.payload_len).collect::<Vec<_>>(), [1, 2, 3]);
    assert_nothing_attached();
}

#[test]
#[ignore = "needs a kernel with kprobes, as root: run by cargo xtask test"]
fn a_drop_fails_a_check_that_asks_for_drops() {
    let _lab = Lab::up("bridge");
    let closed = ["--iface", "calmveth1", "--json", "--proto", "udp", "--fail-on", "dropped"];
    let open = [&closed[..], &["--port", "7000"]].concat();
    let [closed, open] = [&closed[..], &open].map(Tracer::spawn);
    let [closed, open] = [closed, open].map(Tracer::ready);
    datagrams(CLIENT, SERVER, PORT, 2);
    refused_datagram(CLIENT, SERVER, PORT + 1);
    let [closed, open] = [closed, open].map(Tracer::interrupt);
    assert_nothing_attached();

    assert_eq!(open.code(), Some(0), "{open:#?}");
    assert_eq!(Trace::parse(&open.stdout).packets.len(), 2);

    let Done { status, stdout, .. } = &closed;
    assert_eq!(status.code(), Some(3), "{closed:#?}");
    let trace = Trace::parse(stdout);
    trace.assert_complete();
    let verdicts: Vec<&str> = trace.packets.iter().map(|packet| packet.verdict.as_str()).collect();
    assert_eq!(verdicts, ["delivered", "delivered", "dropped"]);
    let dropped = &trace.packets[2];
    // Drop reasons came with 5.17.
    let has_reasons = fs::read_to_string("/sys/kernel/tracing/events/skb/kfree_skb/format").unwrap().contains("reason");
    assert_eq!(dropped.outcome.reason.as_deref(), has_reasons.then_some("NO_SOCKET"));
    assert_eq!(dropped.names().last(), Some(&"ip_local_deliver"));
    assert_eq!(dropped.hops.last().map(|hop| hop.hop.as_str()), Some("kfree_skb"));
}

#[test]
#[ignore = "needs a kernel with kprobes, as root: run by cargo xtask test"]
fn wrong_usage_is_exit_status_2_and_touches_nothing() {
    for wrong in [
        &[][..],
        &["--iface"],
        &["--iface", "lo", "--count", "0"],
        &["--iface", "lo", "--timeout", "never"],
        &["--iface", "lo", "--proto", "tpc"],
        &["--iface", "lo", "--port", "65536"],
        &["--iface", "lo", "--host", "78.78.0.256"],
        &["--iface", "lo", "--fail-on", "luck"],
        &["--iface", "lo", "--ring-size", "3"],
        &["--iface", "lo", "--json", "--explain"],
        &["--iface", "lo", "--no-such-option"],
    ] {
        let done = Tracer::spawn(wrong).wait();
        assert_eq!(done.code(), Some(2), "{wrong:?}: {done:#?}");
        assert_eq!(done.stdout, "");
        assert!(done.stderr.starts_with("error: "), "{done:#?}");
    }
    assert_nothing_attached();
}

#[test]
#[ignore = "needs a kernel with kprobes, as root: run by cargo xtask test"]
fn a_full_disk_is_an_error() {
    let _lab = Lab::up("bridge");
    sh("test -c /dev/full");
    let mut command = Command::new("sh");
    command.args(["-c", "exec $skbtrace run --iface calmveth1 --timeout 5 > /dev/full"]).env("skbtrace", PROGRAM);
    let done = Tracer::spawn_command(&mut command).wait();
    assert_eq!(done.code(), Some(1), "{done:#?}");
    assert!(done.stderr.contains("No space left on device"), "{done:#?}");
    assert_nothing_attached();
}
