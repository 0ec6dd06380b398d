//! The path of a packet through each of the lab's scenarios, and who read it.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::Shutdown,
    thread::sleep,
};

use super::{assert_same_payload, bridged, crossed, received, sent, traced};
use crate::support::{
    lab::{CLIENT, Lab, SERVER, device_packets},
    machine::sh,
    model::{Packet, Trace},
    path::bare,
    traffic::{PAUSE, PORT, connection, lab_exchange, server, tcp_exchange, tcp_segments},
    web::WebServer,
};

/// What is seen of each segment of [`tcp_exchange`] behind the stack's entrance: the kernel tells of those that come to an
/// established connection.
const BEHIND: [&[&str]; 11] = [
    &["= delivered protocol"],
    &["= delivered protocol"],
    &["= delivered protocol"],
    &["tcp_probe", "skb_copy_datagram_iovec", "= delivered copied"],
    &["tcp_probe", "= delivered protocol"],
    &["tcp_probe", "skb_copy_datagram_iovec", "= delivered copied"],
    &["tcp_probe", "= delivered protocol"],
    &["tcp_probe", "= delivered protocol"],
    &["= delivered protocol"],
    &["= delivered protocol"],
    &["= delivered protocol"],
];

/// The exchange, each segment on this way to its other end, and its data read by this process.
fn assert_exchange(trace: &Trace, way: impl Fn(&Packet) -> Vec<String>) {
    let segments: Vec<_> = trace.packets.iter().map(|packet| (packet.flags(), packet.payload_len)).collect();
    assert_eq!(segments, tcp_segments(100, 300).map(|(_, flags, bytes)| (flags, bytes)));
    for (packet, behind) in trace.packets.iter().zip(BEHIND) {
        packet.assert_told(&[way(packet), bare(behind)]);
        if packet.payload_len > 0 {
            assert_same_payload(packet);
            assert_eq!(packet.outcome.process.as_ref().map(|process| process.pid), Some(std::process::id()));
            assert_eq!(packet.hop("skb_copy_datagram_iovec").copied, Some(packet.payload_len));
        }
    }
}

fn way_over(path: fn(u8, u8) -> Vec<String>) -> impl Fn(&Packet) -> Vec<String> {
    move |packet| if packet.goes_to(SERVER.1) { path(2, 1) } else { path(1, 2) }
}

#[test]
#[ignore = "needs a real kernel, as root: run by cargo xtask test"]
fn an_exchange_crosses_the_bridge() {
    let _lab = Lab::up("bridge");
    assert_exchange(&traced(&[], lab_exchange), way_over(bridged));
}

#[test]
#[ignore = "needs a real kernel, as root: run by cargo xtask test"]
fn an_exchange_crosses_the_pair() {
    let _lab = Lab::up("pair");
    assert_exchange(&traced(&[], lab_exchange), way_over(crossed));
}

#[test]
#[ignore = "needs a real kernel, as root: run by cargo xtask test"]
fn an_exchange_within_a_namespace_goes_through_lo() {
    let _lab = Lab::up("loopback");
    let trace = traced(&[], || tcp_exchange(SERVER.0, SERVER.0, server(PORT), &[b'q'; 100], &[b'r'; 300]));
    assert_exchange(&trace, |_| [sent("ns-calm1/lo"), received("ns-calm1/lo")].concat());
    assert_eq!(trace.summary.loopback, 11);
}

#[test]
#[ignore = "needs a real kernel, as root: run by cargo xtask test"]
fn a_page_crosses_the_bridge() {
    let _lab = Lab::up("bridge");
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("page"), [b'x'; 3000]).unwrap();
    let web = WebServer::start(&folder.path().display().to_string());
    let before = device_packets(SERVER.0, "calmveth1");
    let mut sizes = String::new();
    let trace = traced(&[], || {
        sizes = sh(&format!(
            "ip netns exec {} curl --silent --output /dev/null --write-out \
             '%{{size_request}} %{{size_header}} %{{size_download}}' http://78.78.0.10:8000/page",
            CLIENT.0
        ));
        sleep(PAUSE);
    });
    assert_eq!(trace.of(6).len() as u64, device_packets(SERVER.0, "calmveth1") - before, "as the device has counted");
    assert_eq!(trace.packets.len(), trace.of(6).len(), "and nothing else");
    let way = way_over(bridged);
    for packet in &trace.packets {
        let path = packet.path();
        let (to_the_stack, behind) = path.split_at(way(packet).len());
        assert_eq!(to_the_stack, way(packet), "{packet:#?}");
        assert_eq!((packet.verdict.as_str(), packet.branches.len()), ("delivered", 0), "{packet:#?}");
        let whole: &[&str] = &["tcp_probe", "skb_copy_datagram_iovec"];
        let expected = match (packet.payload_len > 0, &packet.joined) {
            (true, None) => whole,
            (true, Some(_)) => &whole[..1],
            // Whether the connection is established depends on who closes it when.
            (false, _) => &whole[..behind.len().min(1)],
        };
        assert_eq!(behind, expected, "{packet:#?}");
    }
    let [request, header, body] = sizes.split(' ').map(|size| size.parse().unwrap()).collect::<Vec<u64>>()[..] else {
        panic!("{sizes}")
    };
    for (address, bytes) in [(SERVER.1, request), (CLIENT.1, header + body)] {
        let data: Vec<_> = trace.packets.iter().filter(|p| p.goes_to(address) && p.payload_len > 0).collect();
        assert_eq!(data.iter().map(|packet| packet.payload_len).sum::<u64>(), bytes, "every byte, once");
        for packet in data {
            assert_same_payload(packet);
            if packet.joined.is_none() {
                let process = packet.outcome.process.as_ref().unwrap();
                assert_eq!(process.pid == web.pid(), address == SERVER.1, "{packet:#?}");
            }
        }
    }
}

#[test]
#[ignore = "needs a real kernel, as root: run by cargo xtask test"]
fn segments_that_wait_for_one_reader_join_the_one_that_is_read() {
    let _lab = Lab::up("bridge");
    let trace = traced(&[], || {
        let (mut client, mut peer) = connection(server(PORT));
        for _ in 0..3 {
            client.write_all(&[b'q'; 200]).unwrap();
            // The sender has let go of it by then, so that the next one can be appended.
            sleep(PAUSE);
        }
        peer.read_exact(&mut [0; 600]).unwrap();
        sleep(PAUSE);
        client.shutdown(Shutdown::Both).unwrap();
        drop(peer);
        sleep(PAUSE);
    });
    let data: Vec<&Packet> = trace.packets.iter().filter(|packet| packet.payload_len > 0).collect();
    let [read, joined @ ..] = &data[..] else { panic!("{trace:#?}") };
    assert_eq!(joined.len(), 2);
    read.assert_told(&[bridged(2, 1), bare(BEHIND[3])]);
    assert_eq!(read.hop("skb_copy_datagram_iovec").copied, Some(600));
    assert_eq!(read.parts.iter().map(|part| &part.id).collect::<Vec<_>>(), [&joined[0].id, &joined[1].id]);
    for part in joined {
        part.assert_told(&[bridged(2, 1), bare(&["tcp_probe", "= delivered coalesced"])]);
        assert_eq!(part.joined.as_ref(), Some(&read.id));
        assert_same_payload(part);
    }
}
