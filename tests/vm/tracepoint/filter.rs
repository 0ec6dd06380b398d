//! Filter expressions, by tracepoints.

use std::{net::UdpSocket, time::Duration};

use super::{bridged, received, sent, traced};
use crate::support::{
    lab::{CLIENT, Lab, SERVER, within},
    machine::sh,
    path::bare,
    router::{FAR, OUT, Router},
    traffic::{PORT, datagrams, lab_exchange, tcp_segments},
};

#[test]
#[ignore = "needs a real kernel, as root: run by cargo xtask test"]
fn an_expression_keeps_exactly_what_it_names() {
    let _lab = Lab::up("bridge");
    sh("ip -n ns-calm2 address add 78.78.0.12/24 dev calmveth2");
    let traffic = || {
        lab_exchange();
        datagrams(CLIENT, SERVER, PORT, 5);
        datagrams((CLIENT.0, "78.78.0.12"), SERVER, PORT, 5);
    };
    let trace = traced(&["tcp", "port", "7000"], traffic);
    let segments: Vec<_> = trace.packets.iter().map(|packet| (packet.goes_to(SERVER.1), packet.flags())).collect();
    assert_eq!(segments, tcp_segments(100, 300).map(|(to_server, flags, _)| (to_server, flags)));
    // Bytes of the payload, which lie behind the headers, or in page frags.
    let trace = traced(&["tcp[((tcp[12:1] & 0xf0) >> 2):4] = 0x71717171"], traffic);
    let [request] = &trace.packets[..] else { panic!("{trace:#?}") };
    request.assert_told(&[bridged(2, 1), bare(&["tcp_probe", "skb_copy_datagram_iovec", "= delivered copied"])]);
    let trace = traced(&["udp[8:4] = 0x55555555 and not host 78.78.0.12"], traffic);
    let bytes: Vec<_> =
        trace.packets.iter().map(|packet| (packet.flow.as_ref().unwrap().src.as_str(), packet.payload_len)).collect();
    assert_eq!(bytes, [(CLIENT.1, 4), (CLIENT.1, 5)]);
    // Nothing is that is not Ethernet's.
    assert_eq!(traced(&["not ether[12:2] > 0"], traffic).packets.len(), 0);
}

#[test]
#[ignore = "needs a real kernel, as root: run by cargo xtask test"]
fn what_is_followed_stays_followed_behind_nat() {
    let _lab = Lab::up("bridge");
    let _router = Router::up();
    sh(&format!(
        "ip netns exec {} nft 'table ip vm_nat {{
            chain before {{ type nat hook prerouting priority dstnat; udp dport {PORT} dnat to {}:{}; }};
            chain behind {{ type nat hook postrouting priority srcnat; udp dport {} snat to 10.9.0.1; }}; }}'",
        SERVER.0,
        FAR.1,
        PORT + 1,
        PORT + 1
    ));
    // Neither address nor port is still there where it leaves the router.
    let expression = format!("udp and src host {} and dst host {} and dst port {PORT}", CLIENT.1, SERVER.1);
    let trace = traced(&[&expression], || {
        let receiver = within(FAR.0, || UdpSocket::bind((FAR.1, PORT + 1)).unwrap());
        receiver.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let sender = within(CLIENT.0, || UdpSocket::bind((CLIENT.1, 0)).unwrap());
        sender.send_to(b"four", (SERVER.1, PORT)).unwrap();
        let (bytes, from) = receiver.recv_from(&mut [0; 8]).unwrap();
        assert_eq!((bytes, from.ip().to_string().as_str()), (4, "10.9.0.1"));
    });
    let [packet] = &trace.packets[..] else { panic!("{trace:#?}") };
    let routed = [sent(&format!("{}/{OUT}", SERVER.0)), received(&format!("{}/far", FAR.0))].concat();
    let told = packet.told();
    assert!(told.starts_with(&[bridged(2, 1), routed].concat().join("\n")) && told.contains("= delivered"), "{told}");
}
