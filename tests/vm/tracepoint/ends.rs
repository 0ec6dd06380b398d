//! How packets end that do not arrive as they were sent: refused, with the kernel's reason, or changed.

use super::{bridged, received, sent, start, traced};
use crate::{
    drops::overflow,
    support::{
        lab::{CLIENT, Lab, SERVER},
        machine::{assert_nothing_attached, sh},
        model::Packet,
        path::{bare, port, veth},
        tracer::PROGRAM,
        traffic::{PORT, datagrams, refused_datagram},
    },
};

/// How many packets to a port ended how, with the reason.
fn ending(packet: &Packet) -> (&str, &str) {
    (packet.verdict.as_str(), packet.outcome.reason.as_deref().unwrap_or_default())
}

fn to_port(packets: &[Packet], port: u16) -> Vec<&Packet> {
    packets.iter().filter(|packet| packet.flow.as_ref().is_some_and(|flow| flow.dport == Some(port))).collect()
}

#[test]
#[ignore = "needs a real kernel, as root: run by cargo xtask test"]
fn what_is_refused_has_the_kernels_reason() {
    let _lab = Lab::up("bridge");
    let (mut read, mut refused) = (0, 0);
    let trace = traced(&["--proto", "udp"], || {
        datagrams(CLIENT, SERVER, PORT, 3);
        refused_datagram(CLIENT, SERVER, PORT + 1);
        (read, refused) = overflow(PORT + 2);
        let rule =
            "nft 'table inet skbtrace_vm { chain c { type filter hook input priority 0; udp dport 7003 drop; }; }'";
        sh(&format!("ip netns exec {} {rule}", SERVER.0));
        let sender = crate::support::lab::within(CLIENT.0, || std::net::UdpSocket::bind((CLIENT.1, 0)).unwrap());
        for _ in 0..3 {
            sender.send_to(b"gone", (SERVER.1, PORT + 3)).unwrap();
        }
        sh(&format!("ip netns exec {} nft delete table inet skbtrace_vm", SERVER.0));
        datagrams(CLIENT, SERVER, PORT, 3);
    });
    assert!(refused > 0, "the buffer was too large for this test");
    let expected = [
        (PORT, vec![("delivered", ""); 6]),
        (PORT + 1, vec![("dropped", "NO_SOCKET")]),
        (PORT + 2, [vec![("delivered", ""); read], vec![("dropped", "SOCKET_RCVBUFF"); refused]].concat()),
        (PORT + 3, vec![("dropped", "NETFILTER_DROP"); 3]),
    ];
    for (port, endings) in expected {
        let packets = to_port(&trace.packets, port);
        assert_eq!(packets.iter().map(|packet| ending(packet)).collect::<Vec<_>>(), endings, "to {port}");
        for packet in packets {
            assert_eq!(packet.path(), bridged(2, 1), "{packet:#?}");
        }
    }
    assert_eq!(trace.packets.len(), 10 + read + refused);
}

#[test]
#[ignore = "needs a real kernel, as root: run by cargo xtask test"]
fn a_byte_that_a_filter_rewrites_is_found_between_its_hops() {
    const FAULT: &str = "tc-bpf-port-egress";
    let _lab = Lab::up("bridge");
    sh(&format!("{PROGRAM} lab fault inject {FAULT}"));
    let tracer = start(&[]);
    let said = sh(&format!("{PROGRAM} lab traffic --proto tcp --count 3 --rate 20 2>&1 || :"));
    let trace = tracer.interrupt().trace();
    sh(&format!("{PROGRAM} lab fault clear"));
    assert_nothing_attached();
    trace.assert_complete();
    assert!(said.contains("tcp 3 sent, 3 received, 0 lost, 0 duplicate, 0 reordered, 3 corrupt"), "{said}");
    let data: Vec<&Packet> = trace.packets.iter().filter(|packet| packet.payload_len > 0).collect();
    assert_eq!((data.len(), trace.summary.garbled), (3, 3), "{trace:#?}");
    for packet in data {
        let payload = packet.payload.as_ref().unwrap();
        assert_eq!((packet.verdict.as_str(), payload.verdict.as_str()), ("delivered", "garbled"));
        let at = |site: &Option<crate::support::model::Site>| {
            let site = site.as_ref().unwrap();
            let hop = packet.hops.iter().find(|hop| hop.step == site.step).unwrap();
            (site.hop.clone(), hop.device.as_ref().map(|device| device.name.clone()).unwrap())
        };
        assert_eq!(at(&payload.before), ("netif_receive_skb".to_owned(), "calmveth2_peer".to_owned()));
        assert_eq!(at(&payload.after), ("net_dev_queue".to_owned(), "calmveth1_peer".to_owned()));
        // Where the program writes, less Ethernet, IPv4, and TCP with its timestamps.
        assert_eq!(payload.offset, Some(114 - 14 - 20 - 32), "{packet:#?}");
    }
}

#[test]
#[ignore = "needs a real kernel, as root: run by cargo xtask test"]
fn what_a_bridge_does_not_pass_on_ends_there() {
    let _lab = Lab::up("bridge");
    sh("bridge link set dev calmveth1_peer state 0");
    let trace = traced(&["--proto", "udp", "--host", SERVER.1], || {
        let sender = crate::support::lab::within(CLIENT.0, || std::net::UdpSocket::bind((CLIENT.1, 0)).unwrap());
        for _ in 0..3 {
            sender.send_to(b"gone", (SERVER.1, PORT)).unwrap();
        }
    });
    // What ended at the bridge has never come to the interface, and is no packet of its.
    assert_eq!((trace.packets.len(), trace.summary.packets), (0, 0), "{trace:#?}");
    sh("bridge link set dev calmveth1_peer state 3");
    let trace = traced(&[], || datagrams(CLIENT, SERVER, PORT, 1));
    let [packet] = &trace.packets[..] else { panic!("{trace:#?}") };
    packet.assert_told(&[
        sent(&veth(2)),
        received(&port(2)),
        sent(&port(1)),
        received(&veth(1)),
        bare(&["= delivered queued"]),
    ]);
}
