//! What is not TCP or UDP over IPv4 from port to port: ICMP, ARP, IPv6, VLANs. Each with its exact hops.

use std::net::SocketAddr;

use crate::support::{
    lab::{CLIENT, Lab, SERVER, neighbour},
    machine::sh,
    path::{
        at, bare, branch, bridged, crossed, into_the_bridge, ip_received, ip_sent, out_of_the_bridge, port, tcp_sent,
        transmitted, veth,
    },
    tracer::traced,
    traffic::{PORT, datagrams, one_piece, ping, ping_ipv6, tcp_exchange, tcp_segments},
};

#[test]
#[ignore = "needs a kernel with kprobes, as root: run by cargo xtask test"]
fn a_ping_and_the_arp_before_it() {
    let _lab = Lab::up("bridge");
    let trace = traced(&[], || {
        sh("ip -n ns-calm2 neighbour delete 78.78.0.10 dev calmveth2 || :");
        ping(CLIENT, SERVER);
    });
    // The echo was sent first, and waited below IP for the answer.
    let [request, question, answer, reply] = &trace.packets[..] else { panic!("{trace:#?}") };

    // The question is for everyone: for the bridge's own host too, and a clone of it goes on through the other port.
    assert_eq!((question.ethertype, answer.ethertype), (0x0806, 0x0806));
    question.assert_told(&[
        transmitted(&veth(2)),
        into_the_bridge(2),
        at(&port(2), &["br_flood"]),
        bare(&["skb_clone"]),
        branch(&[
            out_of_the_bridge(&port(2), &port(1), &veth(1)),
            at(&veth(1), &["arp_rcv"]),
            bare(&["= delivered protocol"]),
        ]),
        at(&port(2), &["br_pass_frame_up"]),
        at("init/calmbr", &["netif_receive_skb", "arp_rcv"]),
        bare(&["= delivered protocol"]),
    ]);
    answer.assert_told(&[
        transmitted(&veth(1)),
        bridged(1, 2),
        at(&veth(2), &["arp_rcv"]),
        bare(&["= delivered protocol"]),
    ]);

    assert_eq!((request.protocol(), reply.protocol()), (Some(1), Some(1)));
    assert!(request.goes_to(SERVER.1) && reply.goes_to(CLIENT.1));
    request.assert_told(&[
        at(&veth(2), &["ip_output"]),
        // What the question is made from.
        bare(&["skb_clone"]),
        transmitted(&veth(2)),
        bridged(2, 1),
        ip_received(&veth(1), &["icmp_rcv"]),
        bare(&["= delivered protocol"]),
    ]);
    // Up to 6.12 the kernel gives the process a clone of the reply, later the reply itself.
    let read: &[&str] = if reply.names().last() == Some(&"skb_clone") {
        &["skb_clone", "= delivered protocol"]
    } else {
        &["skb_copy_datagram_iter", "= delivered copied"]
    };
    reply.assert_told(&[
        ip_sent(&veth(1)),
        bridged(1, 2),
        ip_received(&veth(2), &["icmp_rcv", "ping_rcv"]),
        bare(read),
    ]);
}

#[test]
#[ignore = "needs a kernel with kprobes, as root: run by cargo xtask test"]
fn tcp_over_ipv6() {
    let _lab = Lab::up_with_ipv6("bridge");
    // Not the neighbour discovery and the like, which come when they want.
    let server: SocketAddr = "[fd00::10]:7000".parse().unwrap();
    let trace = traced(&["--proto", "tcp", "--host", "fd00::10"], || {
        tcp_exchange(CLIENT.0, SERVER.0, server, &[b'q'; 100], &[b'r'; 300]);
    });
    let segments: Vec<_> = trace.packets.iter().map(|p| (p.goes_to("fd00::10"), p.flags(), p.payload_len)).collect();
    assert_eq!(segments, tcp_segments(100, 300));
    for packet in &trace.packets {
        let (from, to) = if packet.goes_to("fd00::10") { (2, 1) } else { (1, 2) };
        // A SYN ACK has no headers yet where the others begin: the filter takes it up where it has.
        let first: &[&str] = if packet.flags() == "SYN ACK" { &[] } else { &["__tcp_transmit_skb", "ip6_xmit"] };
        let end: &[&str] = match packet.flags() {
            "PSH ACK" => &["tcp_queue_rcv", "skb_copy_datagram_iter", "= delivered copied"],
            "FIN ACK" => &["tcp_queue_rcv", "= delivered queued"],
            _ => &["= delivered protocol"],
        };
        packet.assert_told(&[
            at(&veth(from), first),
            at(&veth(from), &["ip6_output"]),
            transmitted(&veth(from)),
            bridged(from, to),
            at(&veth(to), &["ipv6_rcv", "ip6_input", "tcp_v6_rcv"]),
            bare(end),
        ]);
    }
}

#[test]
#[ignore = "needs a kernel with kprobes, as root: run by cargo xtask test"]
fn datagrams_and_a_ping_over_ipv6() {
    let _lab = Lab::up_with_ipv6("pair");
    let (client, server) = ((CLIENT.0, "fd00::11"), (SERVER.0, "fd00::10"));
    let trace = traced(&["--host", "fd00::10"], || {
        datagrams(client, server, PORT, 1);
        ping_ipv6(client, server);
    });
    let of = |protocol| trace.packets.iter().filter(move |p| p.protocol() == Some(protocol) && p.hops.len() > 3);
    let sent = |from: u8| [at(&veth(from), &["ip6_output"]), transmitted(&veth(from))].concat();
    let [datagram] = of(17).collect::<Vec<_>>()[..] else { panic!("{trace:#?}") };
    datagram.assert_told(&[
        sent(2),
        crossed(&veth(2), &veth(1)),
        at(&veth(1), &["ipv6_rcv", "ip6_input", "udpv6_queue_rcv_one_skb", "__udp_enqueue_schedule_skb"]),
        bare(&["= delivered copied"]),
    ]);
    // Neighbour discovery is ICMPv6 too.
    let echoes: Vec<_> = of(58).filter(|packet| packet.icmp_type().is_some_and(|kind| kind <= 129)).collect();
    let [request, reply] = echoes[..] else { panic!("{trace:#?}") };
    assert_eq!((request.icmp_type(), reply.icmp_type()), (Some(128), Some(129)));
    request.assert_told(&[
        sent(2),
        crossed(&veth(2), &veth(1)),
        at(&veth(1), &["ipv6_rcv", "ip6_input", "icmpv6_rcv"]),
        bare(&["= delivered protocol"]),
    ]);
    let read: &[&str] = if reply.names().last() == Some(&"skb_clone") {
        &["skb_clone", "= delivered protocol"]
    } else {
        &["skb_copy_datagram_iter", "= delivered copied"]
    };
    reply.assert_told(&[
        sent(1),
        crossed(&veth(1), &veth(2)),
        at(&veth(2), &["ipv6_rcv", "ip6_input", "icmpv6_rcv", "ping_rcv"]),
        bare(read),
    ]);
}

#[test]
#[ignore = "needs a kernel with kprobes, as root: run by cargo xtask test"]
fn a_vlan_over_the_bridge() {
    let _lab = Lab::up("bridge");
    for end in [1, 2] {
        let (netns, device) = (format!("ns-calm{end}"), format!("calmveth{end}"));
        sh(&format!(
            "ip -n {netns} link add link {device} name {device}.10 type vlan id 10
             ip -n {netns} address add 10.10.0.{end}/24 dev {device}.10
             ip -n {netns} link set {device}.10 up"
        ));
        neighbour(&netns, &format!("{device}.10"), &format!("10.10.0.{}", 3 - end), 3 - end);
    }
    let [client, server] = [(CLIENT.0, "10.10.0.2"), (SERVER.0, "10.10.0.1")];
    let trace = traced(&[], || {
        datagrams(client, server, PORT, 1);
        one_piece(SocketAddr::new(server.1.parse().unwrap(), PORT), 100);
    });
    let vlan = |end: u8| format!("{}.10", veth(end));
    let tagged = |end: u8| [at(&vlan(end), &["vlan_dev_hard_start_xmit"]), transmitted(&veth(end))].concat();
    // The bridge's host has no device for the tag: it looks for one, and the bridge gets the frame with its tag.
    let over = |from: u8, to: u8| {
        let mut path = bridged(from, to);
        let bridge = path.iter().position(|hop| hop.starts_with("br_handle_frame ")).unwrap();
        path.insert(bridge, format!("vlan_do_receive {}", port(from)));
        [tagged(from), path, at(&veth(to), &["vlan_do_receive"])].concat()
    };
    let [datagram, segments @ ..] = &trace.packets[..] else { panic!("{trace:#?}") };
    datagram.assert_told(&[
        ip_sent(&vlan(2)),
        over(2, 1),
        ip_received(&vlan(1), &["udp_queue_rcv_one_skb", "__udp_enqueue_schedule_skb"]),
        bare(&["= delivered copied"]),
    ]);
    let told: Vec<_> = segments.iter().map(|p| (p.goes_to(server.1), p.flags(), p.payload_len)).collect();
    assert_eq!(told, tcp_segments(100, 0)[..5]);
    for packet in segments {
        let (from, to) = if packet.goes_to(server.1) { (2, 1) } else { (1, 2) };
        let end: &[&str] = match packet.flags() {
            "PSH ACK" => &["tcp_queue_rcv", "skb_copy_datagram_iter", "= delivered copied"],
            _ => &["= delivered protocol"],
        };
        packet.assert_told(&[
            tcp_sent(&vlan(from), packet.flags()),
            over(from, to),
            ip_received(&vlan(to), &["tcp_v4_rcv"]),
            bare(end),
        ]);
        // Tagged from the VLAN device on to the VLAN device.
        let tags: Vec<_> = packet.hops.iter().map(|hop| hop.vlan).collect();
        let first = tags.iter().position(|tag| *tag == Some(10)).unwrap();
        assert_eq!(packet.hops[first - 1].hop, "vlan_dev_hard_start_xmit", "{packet:#?}");
    }
}
