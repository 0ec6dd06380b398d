//! Tunnels between the ends of a pair: a packet is one from the socket that sends it to the socket that gets it, though it travels
//! as the payload of another.

use serde_json::Value;

use crate::support::{
    lab::{CLIENT, Lab, SERVER},
    machine::{assert_nothing_attached, sh},
    tracer::Tracer,
    traffic::tcp_exchange,
};

/// The server's address and the client's inside the tunnel.
const INSIDE: [&str; 2] = ["10.8.0.10", "10.8.0.11"];

/// Brings a tunnel up between the ends of the pair, by these words of `ip link add` with the own address and the other's.
fn tunnel(words: impl Fn(&str, &str) -> String) {
    for (end, other, inside, tun) in [(SERVER, CLIENT, INSIDE[0], "tun1"), (CLIENT, SERVER, INSIDE[1], "tun2")] {
        let words = words(end.1, other.1);
        sh(&format!(
            "set -e
            ip -n {netns} link add {tun} type {words}
            ip -n {netns} address add {inside}/24 dev {tun}
            ip -n {netns} link set {tun} up",
            netns = end.0,
        ));
    }
    // Whoever has a MAC address in there asks for the other's once; then it is known.
    let warm = || tcp_exchange(CLIENT.0, SERVER.0, format!("{}:7999", INSIDE[0]).parse().unwrap(), b"q", b"r");
    warm();
}

/// The TCP segments of an exchange through the tunnel, seen on this interface.
fn segments(iface: &str, flow: impl Fn(&Value) -> bool) -> Vec<Value> {
    let tracer = Tracer::start(&["--iface", iface, "--json"]);
    tcp_exchange(CLIENT.0, SERVER.0, format!("{}:8000", INSIDE[0]).parse().unwrap(), &[b'q'; 100], &[b'r'; 300]);
    let done = tracer.interrupt();
    assert_nothing_attached();
    assert_eq!(done.code(), Some(0), "{done:#?}");
    let lines = done.stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let packets: Vec<Value> = lines.filter(|line| line["type"] == "packet" && flow(line)).collect();
    assert_eq!(packets.len(), 11, "the exchange, and nothing in two pieces: {done:#?}");
    packets
}

/// The hops of a packet, each with its device, and the protocol that a tunnel's end changes it to.
fn path(packet: &Value) -> Vec<String> {
    let hops = packet["hops"].as_array().unwrap().iter();
    let text = |hop: &Value| {
        let layer = hop["flow"]["protocol"].as_u64().map(|protocol| format!(" {protocol}")).unwrap_or_default();
        format!("{} {}{layer}", hop["hop"].as_str().unwrap(), hop["device"]["name"].as_str().unwrap_or("-"))
    };
    // What makes room for headers, and what of netfilter is there, differs from kernel to kernel; so does how it ends.
    let depends = |hop: &&Value| {
        !matches!(
            hop["hop"].as_str().unwrap(),
            "pskb_expand_head"
                | "nf_hook_slow"
                | "consume_skb"
                | "kfree_skb"
                | "skb_release_head_state"
                | "skb_attempt_defer_free"
        )
    };
    hops.filter(depends).map(text).collect()
}

fn assert_sound(packet: &Value) {
    assert_eq!(packet["verdict"], "delivered", "{packet:#}");
    assert!(
        packet["hops"].as_array().unwrap().iter().all(|hop| hop["checksum"]["transport"] != "bad_trusted"),
        "{packet:#}"
    );
    assert_ne!(packet["payload"]["verdict"], "garbled", "{packet:#}");
}

/// The data segment of 100 bytes of inner payload.
fn request(packets: &[Value], bytes: u64) -> &Value {
    let found: Vec<&Value> = packets.iter().filter(|packet| packet["payload_len"] == bytes).collect();
    let [packet] = found[..] else { panic!("{packets:#?}") };
    packet
}

#[test]
#[ignore = "needs a kernel with kprobes, as root: run by cargo xtask test"]
fn a_segment_in_vxlan_is_one_packet() {
    let _lab = Lab::up("pair");
    tunnel(|own, other| format!("vxlan id 42 local {own} remote {other} dstport 4789 udpcsum"));
    let is_tunnel = |packet: &Value| packet["flow"]["dport"] == 4789;
    let packets = segments("calmveth1", is_tunnel);
    packets.iter().for_each(assert_sound);
    // 8 bytes of VXLAN, 14 of Ethernet, 20 of IP, 32 of TCP.
    let packet = request(&packets, 174);
    let path = path(packet);
    let expected = [
        "ip_output calmveth2",
        "__dev_queue_xmit calmveth2",
        "net_dev_start_xmit calmveth2",
        "veth_xmit calmveth2",
        "__dev_forward_skb calmveth2",
        "netif_rx_internal calmveth1",
        "enqueue_to_backlog calmveth1",
        "netif_receive_skb calmveth1",
        "ip_rcv calmveth1",
        "ip_local_deliver calmveth1",
        "udp_queue_rcv_one_skb calmveth1",
    ];
    assert_eq!(path[..expected.len()], expected, "{path:#?}");
    assert_eq!(path[expected.len()].split(' ').skip(1).collect::<Vec<_>>(), ["tun1", "6"], "{path:#?}");
    let last = ["ip_local_deliver tun1", "tcp_v4_rcv tun1"];
    assert!(path.windows(last.len()).any(|hops| hops == last), "{path:#?}");
    assert_eq!(packet["outcome"]["how"], "copied");
    assert_eq!(packet["outcome"]["socket"], format!("{}:8000", INSIDE[0]));
}

#[test]
#[ignore = "needs a kernel with kprobes, as root: run by cargo xtask test"]
fn seen_from_its_own_device_a_tunnel_is_a_stretch_of_the_way() {
    let _lab = Lab::up("pair");
    tunnel(|own, other| format!("ipip local {own} remote {other}"));
    let packets = segments("tun2", |packet| packet["flow"]["protocol"] == 6);
    packets.iter().for_each(assert_sound);
    let packet = request(&packets, 100);
    let path = path(packet);
    let into = path.iter().position(|hop| hop == "ip_output calmveth2 4").unwrap_or_else(|| panic!("{path:#?}"));
    assert_eq!(path[into - 1], "net_dev_start_xmit tun2", "{path:#?}");
    let out = path.iter().position(|hop| hop.ends_with("tun1 6")).unwrap_or_else(|| panic!("{path:#?}"));
    assert_eq!(path[out - 1], "ip_local_deliver calmveth1", "{path:#?}");
    assert_eq!(packet["payload"]["verdict"], "same", "{packet:#}");
    assert_eq!(packet["outcome"]["how"], "copied");
}
