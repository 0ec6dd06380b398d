//! Many packets: each has a timeline of its own, although the kernel gives few addresses to many packets.

use std::collections::{BTreeMap, BTreeSet};

use crate::support::{
    lab::{Lab, SERVER, device_packets},
    tracer::{PROGRAM, run},
};

#[test]
#[ignore = "needs a kernel with kprobes, as root: run by cargo xtask test"]
fn a_thousand_datagrams_are_a_thousand_timelines() {
    let _lab = Lab::up("bridge");
    let before = device_packets(SERVER.0, "calmveth1");
    let traffic = ["lab", "traffic", "--proto", "udp", "--count", "1000", "--rate", "200"];
    let arguments = [&["--iface", "calmveth1", "--json", "--", PROGRAM], &traffic[..]].concat();
    let done = run(&arguments);
    let trace = done.trace();
    // The traffic verifies itself: had the path lost one, the trace would be right to miss it.
    assert!(done.stderr.contains("udp 1000 sent, 1000 received, 0 lost"), "{}", done.stderr);

    trace.assert_complete();
    assert_eq!(trace.packets.len(), 1000);
    assert_eq!(device_packets(SERVER.0, "calmveth1") - before, 1000);
    assert_eq!(trace.summary.delivered, 1000);
    assert_eq!(trace.of(17).len(), 1000);

    let mut paths: BTreeMap<Vec<String>, u64> = BTreeMap::new();
    for packet in &trace.packets {
        assert_eq!((packet.verdict.as_str(), packet.payload_len), ("delivered", 512), "{packet:#?}");
        assert!(packet.branches.is_empty(), "{packet:#?}");
        *paths.entry(packet.path()).or_default() += 1;
        let addresses: BTreeSet<&str> = packet.hops.iter().map(|hop| hop.skb.as_str()).collect();
        assert_eq!(addresses.len(), 1, "one packet is one sk_buff: {packet:#?}");
    }
    // A small datagram may be read so early that its reader frees it, or so late that it is copied first: what is before
    // the socket is the same for all.
    assert_eq!(paths.len(), 1, "{paths:#?}");
    let names = trace.packets[0].names();
    assert_eq!(
        names,
        [
            "ip_output",
            "__dev_queue_xmit",
            "veth_xmit",
            "__dev_forward_skb",
            "netif_rx_internal",
            "enqueue_to_backlog",
            "br_handle_frame",
            "br_handle_frame_finish",
            "__br_forward",
            "br_dev_queue_push_xmit",
            "__dev_queue_xmit",
            "veth_xmit",
            "__dev_forward_skb",
            "netif_rx_internal",
            "enqueue_to_backlog",
            "ip_rcv",
            "udp_queue_rcv_one_skb",
            "__udp_enqueue_schedule_skb",
        ]
    );

    let ids: BTreeSet<&str> = trace.packets.iter().map(|packet| packet.id.as_str()).collect();
    assert_eq!(ids.len(), 1000, "an id of its own for each");
    let addresses: BTreeSet<&str> = trace.packets.iter().map(|packet| packet.hops[0].skb.as_str()).collect();
    assert!(
        addresses.len() < 500,
        "{} addresses: they did not repeat, so this test has tested little",
        addresses.len()
    );
    // No two timelines of one address overlap.
    let mut last: BTreeMap<&str, u64> = BTreeMap::new();
    for packet in &trace.packets {
        let address = packet.hops[0].skb.as_str();
        let end = packet.hops.last().map_or(0, |hop| hop.time_ns);
        assert!(last.insert(address, end).is_none_or(|before| before < packet.time_ns), "{packet:#?}");
    }
}
