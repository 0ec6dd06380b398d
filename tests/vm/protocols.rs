//! What is not TCP or UDP over IPv4, and what listens in: ICMP, ARP, IPv6, a tcpdump beside. Each with its exact hops.

use std::{fs, net::SocketAddr, process::Command};

use crate::support::{
    lab::{CLIENT, Lab, SERVER},
    machine::{assert_nothing_attached, sh, wait_until},
    model::Packet,
    tracer::Tracer,
    traffic::{PORT, datagrams, ping, tcp_exchange, tcp_segments},
};

/// Out of a namespace and into the bridge.
const TO_THE_BRIDGE: [&str; 7] = [
    "__dev_queue_xmit",
    "veth_xmit",
    "__dev_forward_skb",
    "netif_rx_internal",
    "enqueue_to_backlog",
    "br_handle_frame",
    "br_handle_frame_finish",
];

/// Out of the bridge and into the other namespace.
const FROM_THE_BRIDGE: [&str; 7] = [
    "__br_forward",
    "br_dev_queue_push_xmit",
    "__dev_queue_xmit",
    "veth_xmit",
    "__dev_forward_skb",
    "netif_rx_internal",
    "enqueue_to_backlog",
];

/// From one namespace to the other, between these hops.
fn across(first: &[&'static str], last: &[&'static str]) -> Vec<&'static str> {
    [first, &TO_THE_BRIDGE, &FROM_THE_BRIDGE, last].concat()
}

fn assert_delivered(packet: &Packet, hops: &[&str]) {
    assert_eq!(packet.names(), hops, "{packet:#?}");
    assert_eq!(packet.verdict, "delivered", "{packet:#?}");
    assert!(packet.branches.is_empty(), "{packet:#?}");
}

#[test]
#[ignore = "needs a kernel with kprobes, as root: run by cargo xtask test"]
fn a_ping_and_the_arp_before_it() {
    let _lab = Lab::up("bridge");
    sh("ip -n ns-calm2 neighbour delete 78.78.0.10 dev calmveth2");
    let tracer = Tracer::start(&["--iface", "calmveth1", "--json"]);
    ping(CLIENT, SERVER);
    let trace = tracer.interrupt().trace();
    assert_nothing_attached();
    trace.assert_complete();
    // The echo was sent first, and waited below IP for the answer.
    let [request, question, answer, reply] = &trace.packets[..] else { panic!("{trace:#?}") };

    // The question is for everyone: for the bridge's own host too, and a clone of it goes on through the other port.
    assert_eq!((question.ethertype, answer.ethertype), (0x0806, 0x0806));
    assert_eq!(question.names(), [&TO_THE_BRIDGE[..], &["br_pass_frame_up", "arp_rcv"]].concat(), "{question:#?}");
    let [asked] = &question.branches[..] else { panic!("{question:#?}") };
    assert_delivered(asked, &[&FROM_THE_BRIDGE[..], &["arp_rcv"]].concat());
    assert_eq!(question.verdict, "delivered");
    assert_delivered(answer, &across(&[], &["arp_rcv"]));

    assert_eq!((request.protocol(), reply.protocol()), (Some(1), Some(1)));
    assert!(request.goes_to(SERVER.1) && reply.goes_to(CLIENT.1));
    assert_delivered(request, &across(&["ip_output"], &["ip_rcv", "icmp_rcv"]));
    // Up to 6.12 the kernel gives the process a clone of the reply, later the reply itself.
    let read: &[&str] = match reply.names().last() {
        Some(&"skb_copy_datagram_iter") => &["ip_rcv", "icmp_rcv", "skb_copy_datagram_iter"],
        _ => &["ip_rcv", "icmp_rcv"],
    };
    assert_delivered(reply, &across(&["ip_output"], read));
}

#[test]
#[ignore = "needs a kernel with kprobes, as root: run by cargo xtask test"]
fn tcp_over_ipv6() {
    let _lab = Lab::up_with_ipv6("bridge");
    // Not the neighbour discovery and the like, which come when they want.
    let tracer = Tracer::start(&["--iface", "calmveth1", "--json", "--proto", "tcp", "--host", "fd00::10"]);
    let server: SocketAddr = "[fd00::10]:7000".parse().unwrap();
    tcp_exchange(CLIENT.0, SERVER.0, server, &[b'q'; 100], &[b'r'; 300]);
    let trace = tracer.interrupt().trace();
    assert_nothing_attached();
    trace.assert_complete();
    let segments: Vec<_> = trace.packets.iter().map(|p| (p.goes_to("fd00::10"), p.flags(), p.payload_len)).collect();
    assert_eq!(segments, tcp_segments(100, 300));
    for packet in &trace.packets {
        let last: &[&str] = match packet.flags() {
            "PSH ACK" => &["ipv6_rcv", "tcp_v6_rcv", "tcp_queue_rcv", "skb_copy_datagram_iter"],
            "FIN ACK" => &["ipv6_rcv", "tcp_v6_rcv", "tcp_queue_rcv"],
            _ => &["ipv6_rcv", "tcp_v6_rcv"],
        };
        assert_delivered(packet, &across(&["ip6_output"], last));
    }
}

#[test]
#[ignore = "needs a kernel with kprobes, as root: run by cargo xtask test"]
fn a_tcpdump_beside_takes_a_branch() {
    let _lab = Lab::up("bridge");
    let messages = "/tmp/skbtrace-vm.beside";
    let mut command = Command::new("ip");
    command.args(["netns", "exec", CLIENT.0, "tcpdump", "-i", "calmveth2", "-w", "/dev/null", "udp"]);
    let mut tcpdump = command.stderr(fs::File::create(messages).unwrap()).spawn().unwrap();
    wait_until("tcpdump listens", || fs::read_to_string(messages).unwrap().contains("listening on"));
    let tracer = Tracer::start(&["--iface", "calmveth1", "--json"]);
    datagrams(CLIENT, SERVER, PORT, 5);
    let trace = tracer.interrupt().trace();
    tcpdump.kill().unwrap();
    tcpdump.wait().unwrap();
    assert_nothing_attached();
    trace.assert_complete();
    assert_eq!((trace.packets.len(), trace.summary.delivered), (5, 5));
    for packet in &trace.packets {
        let last = ["ip_rcv", "udp_queue_rcv_one_skb", "__udp_enqueue_schedule_skb"];
        assert_eq!(packet.names(), across(&["ip_output"], &last), "{packet:#?}");
        let [tapped] = &packet.branches[..] else { panic!("one branch: {packet:#?}") };
        assert_eq!(tapped.verdict, "tapped", "{packet:#?}");
        assert!(matches!(tapped.names()[..], ["tpacket_rcv" | "packet_rcv"]), "{packet:#?}");
        assert_eq!(tapped.hops[0].device.as_ref().map(|device| device.name.as_str()), Some("calmveth2"));
    }
}
