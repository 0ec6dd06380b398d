//! What is said of payloads: nothing is garbled that is not, and what is garbled is found where it happens.

use crate::support::{
    lab::Lab,
    machine::{assert_nothing_attached, sh},
    model::Packet,
    tracer::{Done, PROGRAM, run},
};

/// Three datagrams and a connection of three segments, which verify themselves.
fn exchange() -> Done {
    // It fails when something came that was not sent: here the trace is to say so.
    let traffic = format!("{PROGRAM} lab traffic --count 3 --rate 50 || :");
    run(&["--iface", "calmveth1", "--json", "--", "sh", "-c", &traffic])
}

fn with_payload(packets: &[Packet]) -> Vec<&Packet> {
    packets.iter().filter(|packet| packet.payload_len > 0 && matches!(packet.protocol(), Some(6 | 17))).collect()
}

#[test]
#[ignore = "needs a kernel with kprobes, as root: run by cargo xtask test"]
fn what_arrives_as_it_was_sent_is_the_same_at_every_hop() {
    let _lab = Lab::up("bridge");
    let done = exchange();
    let trace = done.trace();
    assert!(done.stderr.contains("0 corrupt"), "{}", done.stderr);
    assert_eq!(trace.summary.garbled, 0);
    let packets = with_payload(&trace.packets);
    assert_eq!(packets.iter().map(|packet| packet.payload_len).sum::<u64>(), 6 * 512);
    for packet in packets.into_iter().filter(|packet| packet.verdict != "incomplete") {
        let payload = packet.payload.as_ref().unwrap_or_else(|| panic!("{packet:#?}"));
        // From the sender's first hop to the last before the socket, at the least.
        assert!(payload.verdict == "same" && payload.hops.is_some_and(|hops| hops >= 24), "{packet:#?}");
    }
}

#[test]
#[ignore = "needs a kernel with kprobes, as root: run by cargo xtask test"]
fn a_byte_that_a_filter_rewrites_is_found_between_its_hops() {
    let _lab = Lab::up("bridge");
    // The byte at offset 20 of the payload: behind 20 bytes of IP and 32 of TCP with its timestamps.
    sh("tc qdisc add dev calmveth1_peer clsact");
    sh(
        "tc filter add dev calmveth1_peer egress protocol ip flower ip_proto tcp action pedit munge offset 72 u8 set 0xa5",
    );
    let done = exchange();
    sh("tc qdisc del dev calmveth1_peer clsact");
    let trace = done.trace();
    // The receiver trusts the checksum that was never made: only the application could notice.
    assert!(
        done.stderr.contains("tcp 3 sent, 3 received, 0 lost, 0 duplicate, 0 reordered, 3 corrupt"),
        "{}",
        done.stderr
    );
    let packets = with_payload(&trace.packets);
    let garbled: Vec<&&Packet> = packets
        .iter()
        .filter(|packet| packet.payload.as_ref().is_some_and(|payload| payload.verdict == "garbled"))
        .collect();
    assert_eq!((garbled.len(), trace.summary.garbled), (3, 3), "{packets:#?}");
    for packet in garbled {
        let payload = packet.payload.as_ref().unwrap();
        let hop = |site: &Option<crate::support::model::Site>| site.as_ref().map(|site| site.hop.clone());
        assert_eq!(packet.protocol(), Some(6));
        assert_eq!(hop(&payload.before).as_deref(), Some("__dev_queue_xmit"), "{packet:#?}");
        assert_eq!(hop(&payload.after).as_deref(), Some("net_dev_start_xmit"), "{packet:#?}");
        assert_eq!(payload.offset, Some(20), "{packet:#?}");
        let step = payload.after.as_ref().unwrap().step;
        let device = packet.hops.iter().find(|hop| hop.step == step).and_then(|hop| hop.device.as_ref());
        assert_eq!(device.map(|device| device.name.as_str()), Some("calmveth1_peer"));
    }
    assert_nothing_attached();
}
