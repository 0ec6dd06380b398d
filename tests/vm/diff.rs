//! `--diff`: of each hop only what changed with it, and nothing else.

use std::{
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

use crate::support::{
    lab::{CLIENT, Lab, SERVER, neighbour, within},
    machine::{assert_nothing_attached, sh},
    model::{Packet, Trace},
    router::{FAR, Router},
    tracer::{PROGRAM, Tracer, traced},
    traffic::datagrams,
};

/// Where the datagram goes, and where it comes from.
const PORT: u16 = 7303;
const FROM: u16 = 7203;

#[test]
#[ignore = "needs a kernel with kprobes, as root: run by cargo xtask test"]
fn the_text_has_the_same_and_no_more() {
    const PORT: u16 = 7302;
    let _lab = Lab::up("bridge");
    let port = PORT.to_string();
    let tracer = Tracer::start(&["--iface", "calmveth1", "--diff", "--color", "never", "--port", &port]);
    datagrams(CLIENT, SERVER, PORT, 1);
    let done = tracer.interrupt();
    assert_nothing_attached();
    assert_eq!(done.code(), Some(0), "{done:#?}");
    let row = |hop: &str| {
        let line = done.stdout.lines().find(|line| line.contains(&format!(" {hop} "))).unwrap_or_default();
        // Behind the time since the hop before, which ends in its unit.
        line.rsplit_once('s').map_or_else(String::new, |(_, rest)| rest.trim().to_owned())
    };
    // The Ethernet header, which the veth gets.
    assert!(done.stdout.contains("len 29→43"), "{}", done.stdout);
    assert!(done.stdout.contains("device ns-calm2/calmveth2 → init/calmveth2_peer"), "{}", done.stdout);
    assert_eq!(row("br_handle_frame_finish"), "", "{}", done.stdout);
}

/// A run with `--diff`: its JSON, and the text that its recording is shown as.
fn traced_and_shown(port: u16, traffic: impl FnMut()) -> (Trace, String) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("diff.pcapng");
    let file = file.to_str().unwrap();
    let trace = traced(&["--diff", "--proto", "udp", "--port", &port.to_string(), "-w", file], traffic);
    let shown = sh(&format!("{PROGRAM} show --diff --color never {file}"));
    (trace, shown)
}

/// The only packet of a trace.
fn only(trace: &Trace) -> &Packet {
    let [packet] = &trace.packets[..] else { panic!("{trace:#?}") };
    assert_eq!(packet.verdict, "delivered", "{packet:#?}");
    packet
}

/// Sends four bytes from a port of the client's to an address, and receives them behind another; the ports are all that
/// differs from run to run.
fn four_bytes(from: (&str, &str), sent_to: (&str, u16), received: (&str, &str, u16)) {
    let address = |address: &str, port: u16| SocketAddr::new(address.parse().unwrap(), port);
    let receiver = within(received.0, || UdpSocket::bind(address(received.1, received.2)).unwrap());
    receiver.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let sender = within(from.0, || UdpSocket::bind(address(from.1, FROM)).unwrap());
    sender.send_to(b"four", address(sent_to.0, sent_to.1)).unwrap();
    assert_eq!(receiver.recv(&mut [0; 8]).unwrap(), 4);
}

/// What changes from the sender's IP through the lab's bridge to the server's.
const OVER_THE_BRIDGE: [&str; 5] = [
    "ip_output → __dev_queue_xmit: len 32 46",
    "__dev_forward_skb → netif_rx_internal: device ns-calm2/calmveth2 init/calmveth2_peer, len 46 32",
    "__br_forward → br_dev_queue_push_xmit: device init/calmveth2_peer init/calmveth1_peer",
    "br_dev_queue_push_xmit → __dev_queue_xmit: len 32 46",
    "__dev_forward_skb → netif_rx_internal: device init/calmveth1_peer ns-calm1/calmveth1, len 46 32",
];
/// What changes from the router to the network behind it.
const BEHIND_THE_ROUTER: &str =
    "__dev_forward_skb → netif_rx_internal: device ns-calm1/out skbtrace-far/far, len 46 32";
/// What changes from one end of the pair to the other.
const ACROSS: &str = "__dev_forward_skb → netif_rx_internal: device ns-calm2/calmveth2 ns-calm1/calmveth1, len 46 32";
/// What UDP does to a datagram that it receives.
const RECEIVED: [&str; 2] = [
    "ip_local_deliver → udp_queue_rcv_one_skb: len 32 12",
    "udp_queue_rcv_one_skb → __udp_enqueue_schedule_skb: len 12 4, ip_summed partial none",
];

/// These changes, in this order, and no others.
#[track_caller]
fn assert_changes(trace: &Trace, expected: &[&[&str]]) {
    let packet = only(trace);
    assert_eq!(packet.changes(), expected.concat(), "{packet:#?}");
}

/// The row of a hop says this of it.
#[track_caller]
fn assert_row(shown: &str, hop: &str, remark: &str) {
    let rows = || shown.lines().filter(|line| line.contains(&format!(" {hop} ")));
    assert!(rows().any(|line| line.ends_with(remark)), "{remark} at {hop}: {shown}");
}

#[test]
#[ignore = "needs a kernel with kprobes, as root: run by cargo xtask test"]
fn a_routed_packet_lives_for_one_router_less() {
    let _lab = Lab::up("bridge");
    let _router = Router::up();
    let (trace, shown) = traced_and_shown(PORT, || four_bytes(CLIENT, (FAR.1, PORT), (FAR.0, FAR.1, PORT)));
    assert_changes(
        &trace,
        &[
            &OVER_THE_BRIDGE,
            &["ip_forward → ip_output: device ns-calm1/calmveth1 ns-calm1/out, ttl 64 63"],
            &["ip_output → __dev_queue_xmit: len 32 46", BEHIND_THE_ROUTER],
            &RECEIVED,
        ],
    );
    assert_row(&shown, "ip_output", "device ns-calm1/calmveth1 → ns-calm1/out, ttl 64→63");
}

#[test]
#[ignore = "needs a kernel with kprobes, as root: run by cargo xtask test"]
fn nat_is_called_nat_and_says_which() {
    let _lab = Lab::up("bridge");
    let _router = Router::up();
    sh(&format!(
        "ip netns exec {} nft 'table ip vm_nat {{
            chain before {{ type nat hook prerouting priority dstnat; udp dport {PORT} dnat to {}:{}; }};
            chain behind {{ type nat hook postrouting priority srcnat; udp dport {} snat to 10.9.0.1:{}; }}; }}'",
        SERVER.0,
        FAR.1,
        PORT + 1,
        PORT + 1,
        FROM + 1
    ));
    let (trace, shown) = traced_and_shown(PORT, || four_bytes(CLIENT, (SERVER.1, PORT), (FAR.0, FAR.1, PORT + 1)));
    assert_changes(
        &trace,
        &[
            &OVER_THE_BRIDGE,
            &["ip_rcv → ip_forward: destination 78.78.0.10:7303 10.9.0.2:7304"],
            &["ip_forward → ip_output: device ns-calm1/calmveth1 ns-calm1/out, ttl 64 63"],
            &["ip_output → __dev_queue_xmit: len 32 46, source 78.78.0.11:7203 10.9.0.1:7204", BEHIND_THE_ROUTER],
            &RECEIVED,
        ],
    );
    assert_row(&shown, "ip_forward", "dnat 78.78.0.10:7303 → 10.9.0.2:7304");
    assert_row(&shown, "__dev_queue_xmit", "len 32→46, snat 78.78.0.11:7203 → 10.9.0.1:7204");
}

#[test]
#[ignore = "needs a kernel with kprobes, as root: run by cargo xtask test"]
fn a_mark_is_set_by_a_rule_and_does_not_leave_its_namespace() {
    let _lab = Lab::up("pair");
    sh(&format!(
        "ip netns exec {} nft 'table ip vm_mark {{
            chain behind {{ type filter hook postrouting priority 0; udp dport {PORT} meta mark set 0x2a; }}; }}'",
        CLIENT.0
    ));
    let (trace, shown) = traced_and_shown(PORT, || four_bytes(CLIENT, (SERVER.1, PORT), (SERVER.0, SERVER.1, PORT)));
    let scrubbed = format!("{ACROSS}, mark 42 0");
    assert_changes(&trace, &[&["ip_output → __dev_queue_xmit: len 32 46, mark 0 42", &scrubbed], &RECEIVED]);
    assert_row(&shown, "__dev_queue_xmit", "len 32→46, mark 0x0→0x2a");
    assert_row(&shown, "netif_rx_internal", "len 46→32, mark 0x2a→0x0");
}

#[test]
#[ignore = "needs a kernel with kprobes, as root: run by cargo xtask test"]
fn a_tag_is_pushed_by_one_vlan_device_and_popped_by_the_other() {
    let _lab = Lab::up("pair");
    let ends = [1, 2].map(|end| vlan(end, 10));
    let [server, client] = [(SERVER.0, ends[0].as_str()), (CLIENT.0, ends[1].as_str())];
    let (trace, shown) = traced_and_shown(PORT, || four_bytes(client, (server.1, PORT), (server.0, server.1, PORT)));
    assert_changes(
        &trace,
        &[
            &["ip_output → __dev_queue_xmit: len 32 46"],
            &[
                "vlan_dev_hard_start_xmit → __dev_queue_xmit: device ns-calm2/calmveth2.10 ns-calm2/calmveth2, vlan null 10",
            ],
            &[ACROSS],
            &["vlan_do_receive → ip_rcv: device ns-calm1/calmveth1 ns-calm1/calmveth1.10, vlan 10 null"],
            &RECEIVED,
        ],
    );
    assert_row(&shown, "__dev_queue_xmit", "vlan none→10");
    assert_row(&shown, "ip_rcv", "vlan 10→none");
}

/// Puts a VLAN on an end of the pair, and says its address.
fn vlan(end: u8, id: u16) -> String {
    let (netns, device) = (format!("ns-calm{end}"), format!("calmveth{end}"));
    sh(&format!(
        "set -e
         ip -n {netns} link add link {device} name {device}.{id} type vlan id {id}
         ip -n {netns} address add 10.10.0.{end}/24 dev {device}.{id}
         ip -n {netns} link set {device}.{id} up"
    ));
    neighbour(&netns, &format!("{device}.{id}"), &format!("10.10.0.{}", 3 - end), 3 - end);
    format!("10.10.0.{end}")
}
