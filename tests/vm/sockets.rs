//! What sockets do with packets: a raw one, one for frames, and TCP that sends again what was dropped.

use std::{
    io::{Read as _, Write as _},
    net::SocketAddr,
    thread::sleep,
    time::Duration,
};

use nix::libc;
use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, Socket, Type};

use crate::support::{
    lab::{CLIENT, Lab, SERVER, within},
    machine::sh,
    path::{at, bare, branch, bridged, ip_received, ip_sent, tcp_sent, transmitted, veth},
    tracer::traced,
    traffic::{PAUSE, PORT, connection, server},
};

/// For experiments (RFC 3692).
const PROTOCOL: i32 = 253;
/// For local experiments (IEEE Std 802).
const ETHERTYPE: u16 = 0x88b5;

/// The number of a device of this thread's namespace.
fn index_of(device: &str) -> i32 {
    let device = std::ffi::CString::new(device).unwrap();
    // SAFETY: the name ends with a NUL.
    unsafe { libc::if_nametoindex(device.as_ptr()) }.try_into().unwrap()
}

/// A packet socket on a device.
fn packet_socket(netns: &str, device: &str) -> Socket {
    within(netns, || {
        let protocol = Protocol::from(i32::from(ETHERTYPE.to_be()));
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(protocol)).unwrap();
        let mut storage = SockAddrStorage::zeroed();
        // SAFETY: `sockaddr_ll` is one of the addresses that the storage is for.
        let address = unsafe { storage.view_as::<libc::sockaddr_ll>() };
        address.sll_family = libc::AF_PACKET.try_into().unwrap();
        address.sll_protocol = ETHERTYPE.to_be();
        address.sll_ifindex = index_of(device);
        let size = size_of::<libc::sockaddr_ll>().try_into().unwrap();
        // SAFETY: the address has been filled in, and is of that size.
        socket.bind(&unsafe { SockAddr::new(storage, size) }).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        socket
    })
}

#[test]
#[ignore = "needs a kernel with kprobes, as root: run by cargo xtask test"]
fn raw_sockets_and_packet_sockets_send_and_receive() {
    let _lab = Lab::up("bridge");
    let trace = traced(&[], || {
        let raw = |netns| {
            let socket = within(netns, || Socket::new(Domain::IPV4, Type::RAW, Some(PROTOCOL.into())).unwrap());
            socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            socket
        };
        let (sender, mut receiver) = (raw(CLIENT.0), raw(SERVER.0));
        let address = SocketAddr::new(SERVER.1.parse().unwrap(), 0);
        sender.send_to(b"raw", &address.into()).unwrap();
        // With its IP header.
        assert_eq!(receiver.read(&mut [0; 64]).unwrap(), 23);

        let (sender, mut receiver) = (packet_socket(CLIENT.0, "calmveth2"), packet_socket(SERVER.0, "calmveth1"));
        let mut frame = b"\x02skbt\x01\x02skbt\x02\x88\xb5".to_vec();
        frame.extend([0x55; 50]);
        sender.send(&frame).unwrap();
        assert_eq!(receiver.read(&mut [0; 128]).unwrap(), frame.len());
    });
    let [raw, frame] = &trace.packets[..] else { panic!("{trace:#?}") };
    raw.assert_told(&[
        ip_sent(&veth(2)),
        bridged(2, 1),
        ip_received(&veth(1), &[]),
        bare(&["skb_clone"]),
        branch(&[at(&veth(1), &["raw_rcv"]), bare(&["skb_copy_datagram_iter", "= delivered copied"])]),
        bare(&["= delivered protocol"]),
    ]);
    assert_eq!(frame.ethertype, ETHERTYPE);
    frame.assert_told(&[
        transmitted(&veth(2)),
        bridged(2, 1),
        at(&veth(1), &["packet_rcv"]),
        bare(&["skb_copy_datagram_iter", "= tapped"]),
    ]);
}

#[test]
#[ignore = "needs a kernel with kprobes, as root: run by cargo xtask test"]
fn a_dropped_segment_is_sent_again_as_another_packet() {
    let _lab = Lab::up("bridge");
    let trace = traced(&[], || {
        // The first that is so long, and no other.
        sh("ip netns exec ns-calm1 nft 'table ip vm { }; delete table ip vm; table ip vm { chain in {
            type filter hook input priority 0;
            ip length > 1000 limit rate 1/hour burst 1 packets drop
        }; }'");
        let (mut client, mut peer) = connection(server(PORT));
        client.write_all(&[b'q'; 1000]).unwrap();
        peer.read_exact(&mut [0; 1000]).unwrap();
        sleep(PAUSE);
    });
    let data: Vec<_> = trace.packets.iter().filter(|packet| packet.payload_len > 0).collect();
    let [lost, again] = data[..] else { panic!("{trace:#?}") };
    assert_eq!(lost.tcp.as_ref().unwrap().seq, again.tcp.as_ref().unwrap().seq);
    assert!(!lost.retransmission && again.retransmission);
    let path = || [tcp_sent(&veth(2), "PSH ACK"), bridged(2, 1), ip_received(&veth(1), &[])].concat();
    lost.assert_told(&[path(), bare(&["= dropped"])]);
    assert_eq!(lost.outcome.reason.as_deref(), Some("NETFILTER_DROP"));
    again.assert_told(&[
        path(),
        at(&veth(1), &["tcp_v4_rcv"]),
        bare(&["tcp_queue_rcv", "skb_copy_datagram_iter", "= delivered copied"]),
    ]);
}
