//! Filter expressions, decided in the kernel: they keep exactly what they name, wherever the bytes are that they look at, and what
//! is followed stays followed when its addresses change.

use crate::{
    branches::Tcpdump,
    support::{
        lab::{CLIENT, Lab, SERVER},
        machine::{assert_nothing_attached, sh},
        model::{Packet, Trace},
        tracer::{Tracer, run, traced},
        traffic::{PORT, datagram, datagrams, lab_exchange, one_piece, ping, server},
    },
};

/// A second address of the client: of another peer to a filter, and what its packets get by translation.
const OTHER: &str = "78.78.0.12";

/// Protocol, addresses and bytes of each packet.
fn packets(trace: &Trace) -> Vec<(u8, &str, u64)> {
    let flows = trace.packets.iter().map(|packet| (packet.flow.as_ref().unwrap(), packet.payload_len));
    flows.map(|(flow, bytes)| (flow.protocol, flow.src.as_str(), bytes)).collect()
}

#[test]
#[ignore = "needs a kernel with kprobes, as root: run by cargo xtask test"]
fn expressions_keep_exactly_what_they_name() {
    let _lab = Lab::up("bridge");
    sh(&format!("ip -n ns-calm2 address add {OTHER}/24 dev calmveth2"));
    let ethernet = sh("ip netns exec ns-calm2 cat /sys/class/net/calmveth2/address");
    let ethernet = format!("ether src {} and icmp", ethernet.trim());
    // At once, over the same traffic. TCP's payload lies in page frags; before the Ethernet header there is no Ethernet address.
    let [udp, payload, later, link] = [
        "udp port 7000 and not host 78.78.0.12",
        "tcp[((tcp[12:1] & 0xf0) >> 2):4] = 0x71717171",
        "udp[8:4] = 0x55555555",
        &ethernet,
    ]
    .map(|expression| Tracer::spawn(&["--iface", "ns-calm1/calmveth1", "--json", expression]))
    .map(Tracer::ready);
    lab_exchange();
    datagrams(CLIENT, SERVER, PORT, 3);
    datagrams(CLIENT, SERVER, PORT + 1, 2);
    datagrams((CLIENT.0, OTHER), SERVER, PORT, 5);
    datagrams(SERVER, CLIENT, PORT, 1);
    ping(CLIENT, SERVER);
    let [udp, payload, later, link] = [udp, payload, later, link].map(|tracer| tracer.interrupt().trace());
    assert_nothing_attached();
    for trace in [&udp, &payload, &later, &link] {
        trace.assert_complete();
        assert_eq!(trace.summary.delivered, trace.summary.packets);
    }
    let from = |source| [(17, source, 1), (17, source, 2), (17, source, 3)];
    assert_eq!(packets(&udp), [&from(CLIENT.1)[..], &[(17, SERVER.1, 1)]].concat());
    assert_eq!(packets(&payload), [(6, CLIENT.1, 100)]);
    assert_eq!(packets(&later), [(17, OTHER, 4), (17, OTHER, 5)]);
    assert_eq!(packets(&link), [(1, CLIENT.1, 0)]);
    let first = |trace: &Trace| trace.packets[0].names()[0].to_owned();
    // From the network header on, and from the Ethernet header on.
    assert_eq!((first(&udp).as_str(), first(&link).as_str()), ("ip_output", "__dev_queue_xmit"));
}

/// What a run with this expression sees of the traffic is what one without sees of it, packet by packet: but for TCP's first two
/// hops, which come before there are headers.
fn assert_same_as_without(expression: &str, protocol: &str, mut traffic: impl FnMut()) -> Trace {
    for _ in 0..5 {
        let [with, without] = [&[expression][..], &["--proto", protocol]]
            .map(|filter| Tracer::spawn(&[&["--iface", "calmveth1", "--json"], filter].concat()))
            .map(Tracer::ready);
        traffic();
        let [with, without] = [with, without].map(|tracer| tracer.interrupt().trace());
        assert_nothing_attached();
        let missed = |trace: &Trace| trace.summary.losses.get("missed_probes").is_some_and(|missed| *missed != 0);
        if missed(&with) || missed(&without) {
            continue;
        }
        with.assert_complete();
        let is_early = |line: &&str| ["__tcp_transmit_skb", "__ip_queue_xmit"].iter().any(|hop| line.ends_with(hop));
        let told = |trace: &Trace| -> Vec<String> {
            let packet =
                |packet: &Packet| packet.told().lines().filter(|line| !is_early(line)).collect::<Vec<_>>().join("\n");
            trace.packets.iter().map(packet).collect()
        };
        assert_eq!(told(&with), told(&without));
        assert!(!with.packets.is_empty());
        return with;
    }
    panic!("probes were missed each time");
}

/// Packets of the client get another source on their way out, behind the first hops.
fn translate() {
    let rule =
        format!("table ip vm_nat {{ chain out {{ type nat hook postrouting priority srcnat; snat to {OTHER}; }}; }}");
    sh(&format!("ip -n {0} address add {OTHER}/24 dev calmveth2; ip netns exec {0} nft '{rule}'", CLIENT.0));
}

#[test]
#[ignore = "needs a kernel with kprobes, as root: run by cargo xtask test"]
fn what_is_followed_stays_followed_behind_nat() {
    let _lab = Lab::up("bridge");
    translate();
    let expression = format!("src host {} or dst host {}", CLIENT.1, CLIENT.1);
    let trace = assert_same_as_without(&expression, "udp", || datagrams(CLIENT, SERVER, PORT, 3));
    assert_eq!(trace.summary.delivered, 3);
    // What is made of it behind the translation belongs to it: a tap's clone …
    let tcpdump = Tcpdump::start("udp");
    let trace = assert_same_as_without(&expression, "udp", || datagrams(CLIENT, SERVER, PORT, 3));
    assert!(trace.packets.iter().all(|packet| packet.told().contains("= tapped")), "{trace:#?}");
    drop(tcpdump);
    // … fragments …
    let trace = assert_same_as_without(&expression, "udp", || datagram(CLIENT, SERVER, PORT, 4000));
    assert_eq!(trace.packets[0].branches.len(), 2);
    // … and segments that GSO cuts.
    sh("ip netns exec ns-calm2 ethtool -K calmveth2 tso off");
    let expression = format!("tcp and src host {} and greater 1500", CLIENT.1);
    let trace = traced(&[&expression], || one_piece(server(PORT), 2 * 1448));
    let [whole] = &trace.packets[..] else { panic!("{trace:#?}") };
    assert_eq!((whole.payload_len, whole.branches.len(), whole.verdict.as_str()), (2896, 2, "delivered"));
}

#[test]
#[ignore = "needs a kernel with kprobes, as root: run by cargo xtask test"]
fn a_wrong_expression_is_a_wrong_usage() {
    let done = run(&["--iface", "lo", "tcp port 80 adn", "host 1.2.3.4"]);
    assert_eq!((done.code(), done.stdout.as_str()), (Some(2), ""));
    let said = "skbtrace: the filter expression: syntax error\n    tcp port 80 adn host 1.2.3.4\n                ^^^\n";
    assert_eq!(done.stderr, said);
    let done = run(&["--iface", "lo", "ip6 protochain 6"]);
    assert_eq!(done.code(), Some(1));
    assert!(done.stderr.contains("it needs a loop"), "{}", done.stderr);
}
