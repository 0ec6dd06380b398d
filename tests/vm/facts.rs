//! What the survey reads that no fault of the gallery leaves on a host: offloads, rings that packet sockets send from, tcx, the
//! legacy ebtables, and more rules than anyone reads.

use std::process::Command;

use serde_json::Value;
use skbtrace::{
    survey::{Fact, Spot, Survey},
    topology::Topology,
    verdict::Cause,
};

use crate::support::{
    lab::{CLIENT, Lab, SERVER, within},
    machine::{assert_nothing_attached, sh},
    ring::Sender,
    tcx::{self, Side, Verdict},
    tracer::Tracer,
    traffic::datagrams,
};

const PORT: u16 = 7404;

fn survey() -> (Topology, Survey) {
    let topology = Topology::read().unwrap();
    let link = topology.find("calmveth1", None).unwrap().key;
    let survey = Survey::read(&topology, &topology.segment(link));
    (topology, survey)
}

/// What is there now and was not before: where, and what.
fn new(before: &Survey) -> Vec<(String, Fact)> {
    let (topology, now) = survey();
    assert_eq!(now.unseen, before.unseen);
    let place = |fact: &Fact| fact.device().map_or_else(|| topology.netns_label(fact.netns), |key| topology.label(key));
    now.facts.into_iter().filter(|fact| !before.facts.contains(fact)).map(|fact| (place(&fact), fact)).collect()
}

/// Whether this kernel is at least this one.
fn kernel_is_from(major: u32, minor: u32) -> bool {
    let release = sh("uname -r");
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse::<u32>().unwrap_or(0));
    (numbers.next(), numbers.next()) >= (Some(major), Some(minor))
}

/// The findings of a run on calmveth1 while there is this traffic.
fn findings(traffic: impl FnOnce()) -> Vec<Value> {
    let tracer = Tracer::start(&["--iface", "calmveth1", "--json"]);
    traffic();
    let done = tracer.interrupt();
    assert_nothing_attached();
    assert_eq!(done.code(), Some(0), "{done:#?}");
    let summary: Value = serde_json::from_str(done.stdout.lines().last().unwrap()).unwrap();
    summary["findings"].as_array().unwrap().clone()
}

#[test]
#[ignore = "needs the modules of a whole kernel, as root: run by cargo xtask test"]
fn offloads_that_are_not_as_usual_are_told_and_can_be_set_right() {
    let _lab = Lab::up("bridge");
    let (_, clean) = survey();
    let offloads = |survey: &Survey| survey.facts.iter().filter(|fact| fact.what.contains("-offload of ")).count();
    assert_eq!(offloads(&clean), 0, "{clean:#?}");
    let ours = |netns: &str, device: &str, word: &str| {
        sh(&format!("ip netns exec {netns} ethtool -K {device} {word}"));
        let mut found = Vec::new();
        for (place, fact) in new(&clean) {
            assert_eq!((fact.cause, fact.spot, fact.effects), (Cause::Device, Spot::Device, Default::default()));
            assert_eq!(place, format!("{netns}/{device}"));
            found.push(fact.what.split(':').next().unwrap().to_owned());
        }
        for (_, fact) in new(&clean) {
            sh(&fact.undo.unwrap());
        }
        assert_eq!(survey().1, clean);
        found
    };
    assert_eq!(
        ours(CLIENT.0, "calmveth2", "tx off"),
        ["tx-checksumming of ns-calm2/calmveth2 is off", "tcp-segmentation-offload of ns-calm2/calmveth2 is off"]
    );
    assert_eq!(ours(SERVER.0, "calmveth1", "gso off"), ["generic-segmentation-offload of ns-calm1/calmveth1 is off"]);
    if kernel_is_from(5, 13) {
        assert_eq!(ours(SERVER.0, "calmveth1", "gro on"), ["generic-receive-offload of ns-calm1/calmveth1 is on"]);
    }
}

/// An Ethernet frame from the client to the server, with a datagram of these bytes, whose checksum is left out.
fn frame(payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    frame.extend([2, 0x73, 0x6b, 0x62, 0x74, 1, 2, 0x73, 0x6b, 0x62, 0x74, 2, 8, 0]);
    let length = |more: usize| u16::try_from(more + payload.len()).unwrap().to_be_bytes();
    let mut ip = [&[0x45, 0][..], &length(28), &[0, 1, 0, 0, 64, 17, 0, 0], &[78, 78, 0, 11, 78, 78, 0, 10]].concat();
    let sum: u32 = ip.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1])).sum();
    let folded = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
    ip[10..12].copy_from_slice(&folded.to_be_bytes());
    frame.extend(ip);
    frame.extend([9_u16.to_be_bytes(), PORT.to_be_bytes(), length(8), [0, 0]].concat());
    frame.extend(payload);
    frame
}

#[test]
#[ignore = "needs a kernel with kprobes, as root: run by cargo xtask test"]
fn who_writes_to_the_ring_that_packets_are_sent_from_is_named() {
    let _lab = Lab::up("bridge");
    // Nothing but netem holds the packet for so long that its program can write to it.
    sh(&format!("ip netns exec {} tc qdisc add dev calmveth2 root netem delay 400ms", CLIENT.0));
    let (_, clean) = survey();
    let sender = Sender::on(CLIENT.0, "calmveth2");
    let told = || {
        let [(place, fact)] = &new(&clean)[..] else { panic!("{:#?}", new(&clean)) };
        assert_eq!((place.as_str(), fact.cause, fact.spot), ("ns-calm2/calmveth2", Cause::Sender, Spot::Device));
        assert!(
            fact.effects.garble && fact.what.contains(&format!("[{}] on calmveth2", std::process::id())),
            "{fact:?}"
        );
        fact.what.clone()
    };
    let loaded = || std::fs::exists("/sys/module/af_packet_diag").unwrap();
    if !loaded() {
        assert!(told().contains(" from a ring, to which "), "{}", told());
        assert!(!loaded(), "looking loads nothing");
        sh("modprobe af_packet_diag");
    }
    assert!(told().contains(&format!(" from a ring of {} bytes, to which ", Sender::BYTES)), "{}", told());

    let receiver = within(SERVER.0, || std::net::UdpSocket::bind((SERVER.1, PORT)).unwrap());
    receiver.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
    let found = findings(|| {
        let frame = frame(&[b'a'; 600]);
        sender.send(&frame);
        sender.write(frame.len() - 100, b"b");
        let mut got = [0; 700];
        assert_eq!(receiver.recv(&mut got).unwrap(), 600);
        assert_eq!(got.iter().filter(|byte| **byte == b'b').count(), 1, "the receiver gets what was written later");
    });
    let [garbled] = &found.iter().filter(|it| it["class"] == "garbled").collect::<Vec<_>>()[..] else {
        panic!("{found:#?}")
    };
    assert_eq!((&garbled["cause"], &garbled["from"]), (&"sender".into(), &"__dev_queue_xmit".into()), "{garbled:#}");
    let because = garbled["because"].as_str().unwrap();
    assert!(
        because.starts_with("packet socket of ") && because.contains(&format!("[{}]", std::process::id())),
        "{because}"
    );
    drop(sender);
    assert_eq!(survey().1, clean);
    sh(&format!("ip netns exec {} tc qdisc del dev calmveth2 root; rmmod af_packet_diag", CLIENT.0));
}

#[test]
#[ignore = "needs a kernel with kprobes, as root: run by cargo xtask test"]
fn programs_of_tcx_are_found_at_their_side_and_blamed_for_what_they_drop() {
    let _lab = Lab::up("bridge");
    let (_, clean) = survey();
    let attach = |side, verdict| tcx::attach(SERVER.0, "calmveth1", side, verdict, "vm_tcx");
    if !kernel_is_from(6, 6) {
        assert!(attach(Side::Ingress, Verdict::Pass).is_err());
        println!("skipped: this kernel has no tcx, which came with 6.6");
        return;
    }
    for (side, called, spot) in [(Side::Ingress, "ingress", Spot::Ingress), (Side::Egress, "egress", Spot::Egress)] {
        let program = attach(side, Verdict::Pass).unwrap();
        let [(place, fact)] = &new(&clean)[..] else { panic!("{:#?}", new(&clean)) };
        assert_eq!((place.as_str(), fact.cause, fact.spot), ("ns-calm1/calmveth1", Cause::TcFilter, spot));
        assert!(fact.what.starts_with(&format!("tcx {called}: bpf vm_tcx (id ")), "{fact:?}");
        drop(program);
        assert_eq!(survey().1, clean);
    }
    let _program = attach(Side::Ingress, Verdict::Drop).unwrap();
    let found = findings(|| {
        let sender = within(CLIENT.0, || std::net::UdpSocket::bind((CLIENT.1, 0)).unwrap());
        sender.send_to(b"gone", (SERVER.1, PORT)).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(300));
    });
    let [dropped] = &found[..] else { panic!("{found:#?}") };
    assert_eq!((&dropped["class"], &dropped["cause"]), (&"dropped".into(), &"tc_filter".into()), "{dropped:#}");
    assert!(dropped["because"].as_str().unwrap().starts_with("tcx ingress: bpf vm_tcx (id "), "{dropped:#}");
}

#[test]
#[ignore = "needs the modules of a whole kernel, as root: run by cargo xtask test"]
fn rules_of_the_legacy_ebtables_are_read_and_taken_away_by_number() {
    let missing = |what: &str| {
        println!("skipped: {what}");
    };
    if Command::new("ebtables-legacy").arg("--version").output().is_err() {
        return missing("there is no ebtables-legacy here (Debian: the package ebtables)");
    }
    if !Command::new("modprobe").arg("ebtable_filter").output().unwrap().status.success() {
        return missing("this kernel has no module ebtable_filter: it was built without the legacy tables");
    }
    let _lab = Lab::up("bridge");
    sh("ebtables-legacy -L");
    let (_, clean) = survey();
    sh(&format!(
        "ebtables-legacy -A FORWARD -p ARP -j ACCEPT
         ebtables-legacy -A FORWARD -p IPv4 --ip-proto udp --ip-dport {PORT} -j DROP"
    ));
    let found = new(&clean);
    let [(place, fact)] = &found[..] else { panic!("{found:#?}") };
    assert_eq!((place.as_str(), fact.cause, fact.spot), ("init", Cause::Ebtables, Spot::BridgeForward));
    assert!(fact.effects.drop);
    assert_eq!(fact.what, format!("ebtables filter FORWARD: -p IPv4 --ip-proto udp --ip-dport {PORT} -j DROP"));
    sh(fact.undo.as_deref().unwrap());
    assert_eq!(survey().1, clean);
    // And by it again what was refused.
    datagrams(CLIENT, SERVER, PORT, 1);
    sh("ebtables-legacy -F; ebtables-legacy -P FORWARD DROP");
    let found = new(&clean);
    assert_eq!(
        found.iter().map(|(_, fact)| fact.what.as_str()).collect::<Vec<_>>(),
        ["ebtables filter FORWARD: policy DROP"]
    );
    sh(found[0].1.undo.as_deref().unwrap());
    assert_eq!(survey().1, clean);
    sh("ebtables-legacy --init-table; rmmod ebtable_filter");
}

#[test]
#[ignore = "needs the modules of a whole kernel, as root: run by cargo xtask test"]
fn of_many_rules_few_are_told_and_the_others_counted() {
    let _lab = Lab::up("pair");
    let (_, clean) = survey();
    let rules = |count: usize| {
        let rule = |n: usize| format!("add rule inet vm_many in udp dport {n} drop\n");
        let chain =
            "add table inet vm_many\nadd chain inet vm_many in { type filter hook input priority 0; policy drop; }\n";
        let text = format!("{chain}flush chain inet vm_many in\n{}", (1..=count).map(rule).collect::<String>());
        std::fs::write("/tmp/skbtrace-vm-rules", text).unwrap();
        sh("ip netns exec ns-calm1 nft -f /tmp/skbtrace-vm-rules");
    };
    rules(2000);
    let found = new(&clean);
    assert_eq!(found.len(), 66, "{:#?}", found.last());
    assert_eq!(found[0].1.what, "nft chain inet vm_many in: policy drop");
    assert_eq!(found[65].1.what, "nft chain inet vm_many in: 1936 more rules, not listed here");
    assert!(found[65].1.effects.drop);
    rules(20_001);
    let (_, many) = survey();
    let told: Vec<_> = many.facts.iter().filter(|fact| !clean.facts.contains(fact)).map(|fact| &fact.what).collect();
    assert_eq!(told, ["nft chain inet vm_many in: policy drop"]);
    let [unseen] = &many.unseen[..] else { panic!("{:#?}", many.unseen) };
    assert!(unseen.starts_with("the rules of nftables in network namespace ns-calm1: there are 20001,"), "{unseen}");
    sh("ip netns exec ns-calm1 nft delete table inet vm_many; rm /tmp/skbtrace-vm-rules");
    assert_eq!(survey().1, clean);
}
