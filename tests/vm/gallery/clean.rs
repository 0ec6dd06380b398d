//! What is not said: of fifty thousand packets that arrive as they were sent, nothing; of a thousand of which one is changed,
//! something of that one.

use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::support::{
    iperf,
    lab::{CLIENT, Lab, SERVER},
    machine::{assert_nothing_attached, sh},
    tracer::{Done, PROGRAM, Tracer},
};

/// A tcpdump at the server's device.
struct Tcpdump(Child);

impl Tcpdump {
    fn start() -> Tcpdump {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", SERVER.0, "tcpdump", "-n", "-i", "calmveth1", "-w", "/dev/null"]);
        Tcpdump(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Tcpdump {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Traffic that verifies itself; what it said.
fn traffic(arguments: &str) -> String {
    sh(&format!("{PROGRAM} lab traffic {arguments} || :"))
}

fn summary(done: &Done) -> Value {
    assert_eq!(done.code(), Some(0), "{done:#?}");
    serde_json::from_str(done.stdout.lines().last().unwrap()).unwrap()
}

#[test]
#[ignore = "needs a kernel with kprobes, as root: run by cargo xtask test"]
fn fifty_thousand_packets_and_not_one_finding() {
    let _lab = Lab::up("bridge");
    for (netns, device, address) in [(SERVER.0, "calmveth1", "10.10.0.1"), (CLIENT.0, "calmveth2", "10.10.0.2")] {
        sh(&format!("ip -n {netns} link add link {device} name v10 type vlan id 10"));
        sh(&format!("ip -n {netns} address add {address}/24 dev v10"));
        sh(&format!("ip -n {netns} link set v10 up"));
        sh(&format!("ip netns exec {netns} ethtool -K {device} gso on gro on"));
    }
    sh("ip -n ns-calm2 address add 78.78.0.12/24 dev calmveth2");
    let nat = "table ip nat { chain out { type nat hook postrouting priority 100; \
               meta l4proto { tcp, udp } th dport 8500 snat to 78.78.0.12; }; }";
    sh(&format!("echo '{nat}' | ip netns exec ns-calm2 nft -f -"));
    let tcpdump = Tcpdump::start();
    let tracer = Tracer::start(&["--iface", "calmveth1", "--json", "--quiet", "--ring-size", "256M"]);
    let said = [
        "--proto udp --count 20000 --size 64 --rate 1000",
        "--proto udp --count 15000 --size 200 --rate 1000 --bind 10.10.0.2 --server 10.10.0.1",
        "--proto udp --count 12000 --size 64 --rate 1000 --port 8500",
        "--proto udp --count 1000 --size 3000 --rate 200",
        "--proto tcp --count 1000 --size 1000 --rate 500 --port 8500",
    ]
    .map(traffic);
    iperf::run("--time 10");
    let done = tracer.interrupt();
    drop(tcpdump);
    sh("ip netns exec ns-calm2 nft flush ruleset");
    assert_nothing_attached();
    for said in &said {
        assert!(said.contains(" 0 lost, 0 duplicate, ") && said.contains(" 0 corrupt"), "{said}");
    }
    let summary = summary(&done);
    assert!(summary["packets"].as_u64().unwrap() >= 50_000, "{summary:#}");
    assert_eq!(summary["findings"], Value::Array(Vec::new()), "{summary:#}");
    assert_eq!(summary["garbled"], 0, "{summary:#}");
    // TCP refuses what it has already, of a sender that it answers late, and what comes when a connection is over: under names that
    // differ with the kernel, and seldom.
    let dropped = summary["dropped"].as_u64().unwrap();
    assert!(dropped * 1000 <= summary["packets"].as_u64().unwrap(), "{summary:#}");
    // Nothing but what the kernel itself skipped is missing.
    if summary["losses"]["missed_probes"] == 0 {
        assert_eq!(summary["incomplete"], 0, "{summary:#}");
    }
}

#[test]
#[ignore = "needs a kernel with kprobes, as root: run by cargo xtask test"]
fn one_byte_in_a_thousand_packets_and_no_other() {
    let _lab = Lab::up("bridge");
    let rule = "table bridge odd { chain forward { type filter hook forward priority 0; \
                udp dport 8000 numgen inc mod 1000 == 999 @th,640,8 set 0xa5; }; }";
    sh(&format!("echo '{rule}' | nft -f -"));
    let tracer = Tracer::start(&["--iface", "calmveth1", "--json", "--ring-size", "256M"]);
    let said = traffic("--proto udp --count 3000 --size 256 --rate 500");
    let done = tracer.interrupt();
    sh("nft flush ruleset");
    assert_nothing_attached();
    assert!(said.contains("udp 3000 sent, 3000 received, 0 lost, 0 duplicate, "), "{said}");
    assert!(said.contains(" 3 corrupt"), "{said}");
    let trace = done.trace();
    let datagrams = trace.of(17);
    assert_eq!((datagrams.len(), trace.summary.garbled), (3000, 3));
    let is_garbled = |index: &usize| datagrams[*index].payload.as_ref().is_some_and(|one| one.verdict == "garbled");
    let garbled: Vec<usize> = (0..3000).filter(is_garbled).collect();
    // The rule counts what passes it, in the order in which the sender sent.
    assert_eq!(garbled, [999, 1999, 2999], "{said}");
    for index in garbled {
        let payload = datagrams[index].payload.as_ref().unwrap();
        assert_eq!(payload.offset, Some(72), "behind 8 bytes of UDP: {payload:?}");
        let hop = |site: &Option<crate::support::model::Site>| site.as_ref().map(|site| site.hop.clone());
        // The rule is called by the hook: a place of its own, where this kernel has that hop.
        assert_eq!(hop(&payload.after).as_deref(), Some("br_dev_queue_push_xmit"), "{payload:?}");
    }
    let findings = summary(&done)["findings"].as_array().unwrap().len();
    assert_eq!(findings, 1);
}
