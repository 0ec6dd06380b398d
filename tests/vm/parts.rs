//! Packets that are cut: by GSO where the device cannot, by a queueing discipline, into IP fragments. The whole and its parts
//! are one tree, and it was delivered when every part was.

use std::{net::UdpSocket, time::Duration};

use crate::support::{
    lab::{CLIENT, Lab, SERVER, within},
    machine::sh,
    model::{Packet, Site},
    path::{at, bare, branch, crossed, ip_received, veth},
    tracer::traced,
    traffic::{PORT, datagram, one_piece, server},
};

#[test]
#[ignore = "needs a kernel with kprobes, as root: run by cargo xtask test"]
fn a_segment_that_gso_cuts_is_a_whole_with_its_parts() {
    let _lab = Lab::up("pair");
    for setting in [
        "ip netns exec ns-calm2 ethtool -K calmveth2 tso off",
        "ip netns exec ns-calm2 ethtool -K calmveth2 tso on
         tc -n ns-calm2 qdisc add dev calmveth2 root tbf rate 10mbit burst 2000 limit 100000",
    ] {
        sh(setting);
        let trace = traced(&[], || one_piece(server(PORT), 2 * 1448));
        let data: Vec<&Packet> = trace.packets.iter().filter(|packet| packet.payload_len > 0).collect();
        let [whole] = data[..] else { panic!("{trace:#?}") };
        let to_tcp = [
            at(&veth(2), &["net_dev_start_xmit"]),
            crossed(&veth(2), &veth(1)),
            ip_received(&veth(1), &["tcp_v4_rcv"]),
            bare(&["tcp_queue_rcv"]),
        ]
        .concat();
        whole.assert_told(&[
            at(&veth(2), &["__tcp_transmit_skb", "__ip_queue_xmit", "ip_output", "__dev_queue_xmit"]),
            bare(&["skb_segment"]),
            branch(&[to_tcp.clone(), bare(&["skb_copy_datagram_iter", "= delivered copied"])]),
            branch(&[to_tcp, bare(&["tcp_try_coalesce", "skb_try_coalesce", "= delivered coalesced"])]),
            bare(&["= consumed"]),
        ]);
        let [first, second] = &whole.branches[..] else { panic!("{whole:#?}") };
        assert_eq!((whole.payload_len, first.payload_len, second.payload_len), (2896, 1448, 1448));
        assert_eq!(second.joined.as_ref(), Some(&first.id));
        assert_eq!(first.parts.iter().map(|part| &part.id).collect::<Vec<_>>(), [&second.id]);
        assert_eq!(whole.verdict, "delivered");
    }
}

#[test]
#[ignore = "needs a kernel with kprobes, as root: run by cargo xtask test"]
fn a_datagram_in_fragments_is_one_packet() {
    let _lab = Lab::up("pair");
    let trace = traced(&[], || datagram(CLIENT, SERVER, PORT, 4000));
    let [whole] = &trace.packets[..] else { panic!("{trace:#?}") };
    let sent = || [at(&veth(2), &["__dev_queue_xmit", "net_dev_start_xmit"]), crossed(&veth(2), &veth(1))].concat();
    let received = || ip_received(&veth(1), &["ip_defrag"]);
    // The datagram goes on as the first of its fragments. The last one to come takes the others over.
    whole.assert_told(&[
        at(&veth(2), &["ip_output", "ip_do_fragment"]),
        branch(&[sent(), received(), at(&veth(1), &["skb_try_coalesce"]), bare(&["= merged"])]),
        branch(&[
            sent(),
            received(),
            bare(&["skb_clone", "skb_morph"]),
            at(&veth(1), &["udp_queue_rcv_one_skb", "__udp_enqueue_schedule_skb"]),
            bare(&["= delivered copied"]),
        ]),
        sent(),
        received(),
        bare(&["= merged"]),
    ]);
    let [second, last] = &whole.branches[..] else { panic!("{whole:#?}") };
    assert_eq!((whole.joined.as_ref(), second.joined.as_ref()), (Some(&last.id), Some(&last.id)));
    assert_eq!(last.parts.iter().map(|part| part.payload_len).collect::<Vec<_>>(), [1472, 1480]);
    assert_eq!(whole.verdict, "delivered");
    // From the datagram to its fragments, and from them to the datagram that is read.
    let payload = whole.payload.as_ref().unwrap_or_else(|| panic!("{whole:#?}"));
    assert!(payload.verdict == "same" && payload.hops.is_some_and(|hops| hops >= 30), "{payload:?}");
}

#[test]
#[ignore = "needs a kernel with kprobes, as root: run by cargo xtask test"]
fn a_datagram_in_fragments_that_nobody_wants_is_dropped() {
    let _lab = Lab::up("pair");
    let trace = traced(&["--proto", "udp"], || {
        let sender = within(CLIENT.0, || UdpSocket::bind((CLIENT.1, 0)).unwrap());
        sender.send_to(&[7; 4000], (SERVER.1, PORT)).unwrap();
    });
    let [whole] = &trace.packets[..] else { panic!("{trace:#?}") };
    assert_eq!((whole.verdict.as_str(), trace.summary.delivered), ("dropped", 0), "{whole:#?}");
    // No hop comes between.
    let [_, last] = &whole.branches[..] else { panic!("{whole:#?}") };
    assert!(last.told().ends_with("skb_clone\nskb_morph\n= dropped"), "{}", last.told());
    assert_eq!(last.parts.iter().map(|part| part.payload_len).collect::<Vec<_>>(), [1472, 1480]);
}

#[test]
#[ignore = "needs a kernel with kprobes, as root: run by cargo xtask test"]
fn a_fragment_that_a_filter_rewrites_is_found() {
    let _lab = Lab::up("pair");
    // Byte 1,200 behind IP's header, of the fragments that begin at byte 1,480 of what IP carries: 185 times 8.
    sh("ip netns exec ns-calm2 tc qdisc add dev calmveth2 clsact");
    sh("ip netns exec ns-calm2 tc filter add dev calmveth2 egress protocol ip u32 match u16 185 0x1fff at 6 \
        action pedit munge offset 1220 u8 invert");
    let trace = traced(&[], || {
        let socket = within(SERVER.0, || UdpSocket::bind((SERVER.1, PORT)).unwrap());
        let sender = within(CLIENT.0, || UdpSocket::bind((CLIENT.1, 0)).unwrap());
        sender.send_to(&[7; 4000], (SERVER.1, PORT)).unwrap();
        // A datagram that is cut has its checksum from the beginning: the socket finds out.
        socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        assert!(socket.recv(&mut [0; 5000]).is_err());
    });
    sh("ip netns exec ns-calm2 tc qdisc del dev calmveth2 clsact");
    let [whole] = &trace.packets[..] else { panic!("{trace:#?}") };
    let payload = whole.payload.as_ref().unwrap_or_else(|| panic!("{whole:#?}"));
    let hop = |site: &Option<Site>| site.as_ref().map(|site| site.hop.clone());
    assert_eq!((payload.verdict.as_str(), whole.verdict.as_str()), ("garbled", "dropped"), "{whole:#?}");
    assert_eq!(hop(&payload.before).as_deref(), Some("__dev_queue_xmit"), "{payload:?}");
    assert_eq!(hop(&payload.after).as_deref(), Some("net_dev_start_xmit"), "{payload:?}");
    assert_eq!(payload.offset, Some(1200), "of the fragment: {payload:?}");
}
