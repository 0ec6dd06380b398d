//! veth with a NAPI of its own: a native XDP program that copies frames, and GRO that merges segments.

use crate::support::{
    lab::{CLIENT, Lab, SERVER},
    machine::{kernel, sh},
    model::Packet,
    path::{at, bare, branch, crossed, handed_over, ip_received, ip_sent, tcp_sent, veth},
    tracer::traced,
    traffic::{PORT, datagrams, one_piece, server, tcp_segments},
    xdp::{self, Verdict},
};

/// Whether the kernel's veth has no hop in its NAPI poll, and polls for an XDP program alone: GRO by itself came with 5.13.
fn is_old() -> bool {
    kernel() == "5.10"
}

/// The hop in the poll of the server's end.
fn poll() -> Vec<String> {
    at(&veth(1), if is_old() { &[] } else { &["veth_xdp_rcv_skb"] })
}

/// From the client's end of the pair through the NAPI of the server's, up to IP: it gets packets as a list there, one by one
/// they are at ip_local_deliver again.
fn polled(packet: &Packet) -> Vec<String> {
    let gro = if packet.names().contains(&"gro_receive_skb") { "gro_receive_skb" } else { "napi_gro_receive" };
    let taken = at(&veth(1), &[gro, "netif_receive_skb", "ip_local_deliver"]);
    [handed_over(&veth(2), &veth(1)), poll(), taken].concat()
}

/// Without the moves of headers to new memory, which depend on how much room a packet happens to have.
fn told(packet: &Packet) -> String {
    let told = packet.told();
    told.lines().filter(|line| *line != "pskb_expand_head").collect::<Vec<_>>().join("\n")
}

#[test]
#[ignore = "needs a kernel with kprobes, as root: run by cargo xtask test"]
fn a_packet_that_xdp_copies_stays_one_packet() {
    let _lab = Lab::up("pair");
    xdp::attach(SERVER.0, "calmveth1", Verdict::Pass);
    let trace = traced(&[], || {
        datagrams(CLIENT, SERVER, PORT, 2);
        one_piece(server(PORT), 100);
    });
    let (datagrams, segments) = trace.packets.split_at(2);
    for packet in datagrams {
        let expected = [
            ip_sent(&veth(2)),
            polled(packet),
            at(&veth(1), &["udp_queue_rcv_one_skb", "__udp_enqueue_schedule_skb"]),
            bare(&["= delivered copied"]),
        ];
        assert_eq!(told(packet), expected.concat().join("\n"), "{packet:#?}");
    }
    let summary: Vec<_> = segments.iter().map(|p| (p.goes_to(SERVER.1), p.flags(), p.payload_len)).collect();
    assert_eq!(summary, tcp_segments(100, 0)[..5]);
    for packet in segments {
        let end: &[&str] = match packet.flags() {
            "PSH ACK" => &["tcp_queue_rcv", "skb_copy_datagram_iter", "= delivered copied"],
            _ => &["= delivered protocol"],
        };
        let expected = if packet.goes_to(SERVER.1) {
            [tcp_sent(&veth(2), packet.flags()), polled(packet), at(&veth(1), &["tcp_v4_rcv"])].concat()
        } else {
            let crossed = crossed(&veth(1), &veth(2));
            [tcp_sent(&veth(1), packet.flags()), crossed, ip_received(&veth(2), &["tcp_v4_rcv"])].concat()
        };
        assert_eq!(told(packet), [expected, bare(end)].concat().join("\n"), "{packet:#?}");
    }
}

#[test]
#[ignore = "needs a kernel with kprobes, as root: run by cargo xtask test"]
fn what_an_xdp_program_drops_ends_there() {
    let _lab = Lab::up("pair");
    xdp::attach(SERVER.0, "calmveth1", Verdict::Drop);
    let trace = traced(&[], || {
        let sender = crate::support::lab::within(CLIENT.0, || std::net::UdpSocket::bind((CLIENT.1, 0)).unwrap());
        for _ in 0..3 {
            sender.send_to(b"gone", server(PORT)).unwrap();
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
    });
    assert_eq!(trace.packets.len(), 3, "{trace:#?}");
    for packet in &trace.packets {
        let expected = [
            ip_sent(&veth(2)),
            handed_over(&veth(2), &veth(1)),
            poll(),
            // The program got a copy, and what it does with that is not seen.
            bare(&["= consumed"]),
        ];
        assert_eq!(told(packet), expected.concat().join("\n"), "{packet:#?}");
    }
}

#[test]
#[ignore = "needs a kernel with kprobes, as root: run by cargo xtask test"]
fn segments_that_gro_merges_are_parts_of_the_whole() {
    if is_old() {
        println!("not tested: this kernel's veth merges no segments by itself");
        return;
    }
    let _lab = Lab::up("pair");
    sh("ip netns exec ns-calm1 ethtool -K calmveth1 gro on");
    sh("ip netns exec ns-calm2 ethtool -K calmveth2 tso off");
    let trace = traced(&[], || one_piece(server(PORT), 2 * 1448));
    let data: Vec<&Packet> = trace.packets.iter().filter(|packet| packet.payload_len > 0).collect();
    let [whole] = data[..] else { panic!("{trace:#?}") };
    let gro = if whole.tree().iter().any(|part| part.names().contains(&"gro_receive_skb")) {
        "gro_receive_skb"
    } else {
        "napi_gro_receive"
    };
    let to_gro = |part: usize| {
        let sent = [at(&veth(2), &["net_dev_start_xmit"]), handed_over(&veth(2), &veth(1))].concat();
        assert_eq!(whole.branches[part].payload_len, 1448);
        [sent, at(&veth(1), &["veth_xdp_rcv_skb", gro])].concat()
    };
    whole.assert_told(&[
        at(&veth(2), &["__tcp_transmit_skb", "__ip_queue_xmit", "ip_output", "__dev_queue_xmit"]),
        bare(&["skb_segment"]),
        branch(&[
            to_gro(0),
            at(&veth(1), &["netif_receive_skb", "ip_local_deliver", "tcp_v4_rcv"]),
            bare(&["tcp_queue_rcv", "skb_copy_datagram_iter", "= delivered copied"]),
        ]),
        branch(&[to_gro(1), at(&veth(1), &["skb_gro_receive"]), bare(&["= merged"])]),
        bare(&["= consumed"]),
    ]);
    let [first, second] = &whole.branches[..] else { panic!("{whole:#?}") };
    assert_eq!(second.joined.as_ref(), Some(&first.id));
    let [part] = &first.parts[..] else { panic!("{first:#?}") };
    assert_eq!((&part.id, part.payload_len), (&second.id, 1448));
    assert_eq!(whole.payload_len, first.payload_len + part.payload_len, "every byte, once");
    assert_eq!(whole.verdict, "delivered", "what one part took over from the other was delivered with it");
}
