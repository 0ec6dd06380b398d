//! Filter expressions, by tracepoints.

use super::{bridged, traced};
use crate::support::{
    lab::{CLIENT, Lab, SERVER},
    machine::sh,
    path::bare,
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
