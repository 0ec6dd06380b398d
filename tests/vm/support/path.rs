//! The way of a packet through the lab, hop by hop in the kernel's order, as [`Packet::told`](super::model::Packet::told)
//! tells it. Put together from pieces, each a stretch that every packet goes in the same way.

use std::fs;

use super::machine::native;

/// The end of the pair that is number `end`.
pub fn veth(end: u8) -> String {
    format!("ns-calm{end}/calmveth{end}")
}

/// What the namespace that the bridge is in is called.
pub fn outside() -> &'static str {
    if native() { "tests" } else { "init" }
}

/// The other end of it, a port of the bridge.
pub fn port(end: u8) -> String {
    format!("{}/calmveth{end}_peer", outside())
}

/// These hops at one device.
pub fn at(device: &str, hops: &[&str]) -> Vec<String> {
    hops.iter().map(|hop| format!("{hop} {device}")).collect()
}

/// These hops, or ends, at none.
pub fn bare(hops: &[&str]) -> Vec<String> {
    hops.iter().map(|hop| (*hop).to_owned()).collect()
}

fn between(from: &str, to: &str, hops: &[&str]) -> Vec<String> {
    hops.iter().map(|hop| format!("{hop} {from} → {to}")).collect()
}

/// Handed to a device and by it to its driver.
pub fn transmitted(device: &str) -> Vec<String> {
    at(device, &["__dev_queue_xmit", "net_dev_start_xmit"])
}

/// From one end of a pair to the other.
pub fn handed_over(from: &str, to: &str) -> Vec<String> {
    let mut hops = between(from, to, &["veth_xmit", "__dev_forward_skb"]);
    if !fs::exists("/sys/kernel/btf/veth").unwrap() {
        // Before 5.11 modules have no types: nothing tells veth_xmit's peer, and the hop after it does.
        hops[0] = format!("veth_xmit {from}");
    }
    hops
}

/// The same, through the queue of a CPU and into the stack there.
pub fn crossed(from: &str, to: &str) -> Vec<String> {
    let queue = at(to, &["netif_rx_internal", "enqueue_to_backlog", "netif_receive_skb"]);
    [handed_over(from, to), queue].concat()
}

/// Into the bridge.
pub fn into_the_bridge(from: u8) -> Vec<String> {
    let taken = at(&port(from), &["br_handle_frame", "br_handle_frame_finish"]);
    [crossed(&veth(from), &port(from)), taken].concat()
}

/// Out of the bridge, from the port's side.
pub fn out_of_the_bridge(from: &str, port: &str, to: &str) -> Vec<String> {
    let forwarded = between(from, port, &["__br_forward"]);
    [forwarded, at(port, &["br_dev_queue_push_xmit"]), transmitted(port), crossed(port, to)].concat()
}

/// From one end of the lab to the other, from behind the sender's driver to the receiver's stack.
pub fn bridged(from: u8, to: u8) -> Vec<String> {
    let decided = between(&port(from), &port(to), &["br_forward"]);
    [into_the_bridge(from), decided, out_of_the_bridge(&port(from), &port(to), &veth(to))].concat()
}

/// A branch of the packet.
pub fn branch(lines: &[Vec<String>]) -> Vec<String> {
    lines.concat().iter().map(|line| format!("| {line}")).collect()
}

/// The hops by which TCP over IPv4 sends a segment. A SYN ACK has no socket of its own yet, and goes to IP at once.
pub fn tcp_sent(device: &str, flags: &str) -> Vec<String> {
    let first: &[&str] = if flags == "SYN ACK" { &[] } else { &["__tcp_transmit_skb", "__ip_queue_xmit"] };
    [at(device, first), at(device, &["ip_output"]), transmitted(device)].concat()
}

/// The hops by which a datagram or an echo is sent.
pub fn ip_sent(device: &str) -> Vec<String> {
    [at(device, &["ip_output"]), transmitted(device)].concat()
}

/// IPv4 receives, and so does this protocol.
pub fn ip_received(device: &str, protocol: &[&str]) -> Vec<String> {
    [at(device, &["ip_rcv", "ip_local_deliver"]), at(device, protocol)].concat()
}
