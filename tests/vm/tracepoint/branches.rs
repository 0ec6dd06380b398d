//! Packets that are more than one `sk_buff`: a flood's clones, a tap's, and segments that GRO merges.

use std::{
    net::{Ipv4Addr, UdpSocket},
    thread::sleep,
    time::Duration,
};

use super::{assert_same_payload, bridged, received, sent, traced};
use crate::{
    branches::{MorePorts, Tcpdump},
    support::{
        lab::{CLIENT, Lab, SERVER, within},
        machine::sh,
        model::Packet,
        path::{at, bare, branch, outside, port, veth},
        traffic::{PORT, datagrams, one_piece, server},
    },
};

#[test]
#[ignore = "needs a real kernel, as root: run by cargo xtask test"]
fn a_broadcast_over_eight_ports_is_one_packet() {
    let _lab = Lab::up("bridge");
    let _more = MorePorts::add();
    let trace = traced(&["--proto", "udp"], || {
        let receiver = within(SERVER.0, || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT)).unwrap());
        receiver.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let sender = within(CLIENT.0, || UdpSocket::bind((CLIENT.1, 0)).unwrap());
        sender.set_broadcast(true).unwrap();
        sender.send_to(b"everyone", ("78.78.0.255", PORT)).unwrap();
        assert_eq!(receiver.recv(&mut [0; 16]).unwrap(), 8);
        sleep(Duration::from_millis(300));
    });
    let [packet] = &trace.packets[..] else { panic!("{trace:#?}") };
    let strangers = (3..=8).rev().flat_map(|n| {
        let outside = outside();
        let way = [sent(&format!("{outside}/p{n}")), received(&format!("{outside}/q{n}")), bare(&["= dropped"])];
        branch(&way)
    });
    // The clone that comes back to its own host is made before the packet is first seen, and never comes to the interface.
    packet.assert_told(&[
        sent(&veth(2)),
        received(&port(2)),
        strangers.collect(),
        branch(&[sent(&port(1)), received(&veth(1)), bare(&["= delivered queued"])]),
        at(&format!("{}/calmbr", outside()), &["netif_receive_skb"]),
        bare(&["= dropped"]),
    ]);
    assert_eq!(packet.verdict, "delivered");
}

#[test]
#[ignore = "needs a real kernel, as root: run by cargo xtask test"]
fn a_tcpdump_beside_changes_nothing() {
    let _lab = Lab::up("bridge");
    let _tcpdump = Tcpdump::start("udp or icmp");
    let trace = traced(&[], || datagrams(CLIENT, SERVER, PORT, 5));
    assert_eq!(trace.packets.len(), 5);
    for packet in &trace.packets {
        packet.assert_told(&[bridged(2, 1), bare(&["= delivered queued"])]);
        assert_same_payload(packet);
    }
}

#[test]
#[ignore = "needs a real kernel, as root: run by cargo xtask test"]
fn segments_that_gro_merges_are_parts_of_the_whole() {
    let _lab = Lab::up("pair");
    sh("ip netns exec ns-calm1 ethtool -K calmveth1 gro on");
    sh("ip netns exec ns-calm2 ethtool -K calmveth2 tso off");
    let trace = traced(&[], || one_piece(server(PORT), 2 * 1448));
    let data: Vec<&Packet> = trace.packets.iter().filter(|packet| packet.payload_len > 0).collect();
    let [first, second] = data[..] else { panic!("{trace:#?}") };
    // GSO cuts what was one packet in the queue: the parts are first seen where they leave.
    let to_gro = || [at(&veth(2), &["net_dev_start_xmit"]), at(&veth(1), &["napi_gro_receive_entry"])].concat();
    first.assert_told(&[
        to_gro(),
        at(&veth(1), &["netif_receive_skb"]),
        bare(&["tcp_probe", "skb_copy_datagram_iovec", "= delivered copied"]),
    ]);
    second.assert_told(&[to_gro(), bare(&["= merged"])]);
    assert_eq!((first.payload_len, second.payload_len), (1448, 1448));
    assert_eq!(second.joined.as_ref(), Some(&first.id));
    assert_eq!(first.parts.iter().map(|part| (&part.id, part.payload_len)).collect::<Vec<_>>(), [(&second.id, 1448)]);
    assert_eq!(first.hop("skb_copy_datagram_iovec").copied, Some(2 * 1448));
}
