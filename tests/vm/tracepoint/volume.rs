//! Many packets: each has a timeline of its own, although the kernel gives few addresses to many packets and the tracer sees few of
//! them end, and the books balance.

use std::{
    collections::{BTreeMap, BTreeSet},
    thread::sleep,
};

use super::start;
use crate::{
    support::{
        iperf,
        lab::{CLIENT, Lab, SERVER, device_packets},
        machine::{assert_nothing_attached, sh},
        pcapng::{self, Frame},
        tracer::PROGRAM,
        traffic::PAUSE,
    },
    volume::{Seen, assert_complete, books, lost, udp_counter},
};

#[test]
#[ignore = "needs a real kernel, as root: run by cargo xtask test"]
fn two_thousand_datagrams_are_two_thousand_timelines() {
    const COUNT: usize = 2_000;
    let _lab = Lab::up("bridge");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("volume.pcapng").display().to_string();
    let before = device_packets(SERVER.0, "calmveth1");
    let tracer = start(&["--quiet", "--proto", "udp", "--ring-size", "256M", "-w", &file]);
    let said = sh(&format!("{PROGRAM} lab traffic --proto udp --count {COUNT} --size 64 --rate 1000 || :"));
    let done = tracer.interrupt();
    assert_nothing_attached();
    assert_eq!(done.code(), Some(0), "{done:#?}");
    assert!(said.contains(&format!("udp {COUNT} sent, {COUNT} received, 0 lost, 0 duplicate, ")), "{said}");
    assert_eq!(device_packets(SERVER.0, "calmveth1") - before, COUNT as u64);
    let books = books(&done.stdout);
    assert_complete(&books);
    assert_eq!((books["packets"], books["delivered"]), (COUNT as u64, COUNT as u64));

    // By the events themselves, without the tracer's opinion of them.
    let mut datagrams: BTreeMap<u64, Seen> = BTreeMap::new();
    let mut addresses = BTreeSet::new();
    let mut scratch = Vec::new();
    let mut packets: BTreeMap<u64, Seen> = BTreeMap::new();
    pcapng::read(&file, |frame| {
        // Addresses of packets whose end is not seen are soon those of other packets, which are read and freed too.
        if is_late(frame.hop()) && !is_datagram(&frame) {
            return;
        }
        addresses.insert(frame.skb());
        packets.entry(frame.packet()).or_default().add(&frame, &mut scratch);
    });
    assert_eq!(packets.len(), COUNT, "an id of its own for each");
    for (id, seen) in packets {
        let [sequence] = seen.sequences.iter().copied().collect::<Vec<_>>()[..] else {
            panic!("packet {id:#x} is the datagrams {:?}", seen.sequences)
        };
        assert_eq!(seen.skbs.len(), 1, "one packet is one sk_buff");
        assert_eq!(seen.intact, seen.hops.len(), "{:?}", seen.hops);
        assert!(datagrams.insert(sequence, seen).is_none(), "datagram {sequence} is two packets");
    }
    assert!(datagrams.keys().copied().eq(0..COUNT as u64));
    assert!(addresses.len() < COUNT / 4, "{}: they did not repeat, so this has tested little", addresses.len());
    let hop = ["net_dev_queue", "net_dev_start_xmit", "netif_rx", "netif_receive_skb"];
    let paths: BTreeSet<Vec<&str>> = datagrams.values().map(Seen::path).collect();
    assert_eq!(paths, [[hop, hop].concat()].into());
}

/// Whether it is one that the test sent: UDP over IPv4 to the port of the records, and long enough for one.
fn is_datagram(frame: &Frame) -> bool {
    let bytes = &frame.bytes;
    bytes.len() >= 14 + 20 + 8 + 64
        && bytes[12..14] == [8, 0]
        && bytes[23] == 17
        && bytes[36..38] == 8000_u16.to_be_bytes()
}

/// Hops at which the kernel side cannot tell one packet from the next at its address.
fn is_late(hop: &str) -> bool {
    matches!(hop, "skb_copy_datagram_iovec" | "kfree_skb" | "consume_skb")
}

/// The books of a run with what iperf3 sends, and what the device at the server has counted meanwhile.
fn iperf_books(options: &[&str], arguments: &str) -> (BTreeMap<String, u64>, u64) {
    let before = device_packets(SERVER.0, "calmveth1");
    let tracer = start(&[&["--quiet", "--ring-size", "256M"], options].concat());
    iperf::run(arguments);
    // The last words of a connection come after both its ends are gone.
    sleep(PAUSE);
    let done = tracer.interrupt();
    let counted = device_packets(SERVER.0, "calmveth1") - before;
    assert_nothing_attached();
    assert_eq!(done.code(), Some(0), "{done:#?}");
    (books(&done.stdout), counted)
}

/// Nothing was lost but hits of a tracepoint in an interrupt of its own program, which the kernel leaves out and counts; and hardly
/// anything is doubted. That the columns add up has been seen to.
fn assert_hardly_any_incomplete(books: &BTreeMap<String, u64>) {
    let left_out = books["losses.missed_probes"];
    assert_eq!(lost(books), left_out, "{books:#?}");
    assert!(left_out * 10_000 <= books["events"], "{books:#?}");
    assert!(books["incomplete"] * 1000 <= books["packets"], "{books:#?}");
    assert!(books["packets"] > 500, "{books:#?}");
}

#[test]
#[ignore = "needs a real kernel, as root: run by cargo xtask test"]
fn iperf_over_tcp_balances() {
    let _lab = Lab::up("bridge");
    let (books, counted) = iperf_books(&[], "--time 3");
    assert_hardly_any_incomplete(&books);
    // On a busy machine bursts have been seen to pass for which the kernel ran no program at any hop, and counted no miss: a few
    // in a hundred at the most.
    assert!(books["packets"] <= counted && books["packets"] * 100 >= counted * 90, "{counted} packets: {books:#?}");
    // What iperf3 has not read when it ends is still waiting, as far as can be seen.
    let ended = books["delivered"] + books["dropped"] + books["incomplete"];
    assert_eq!(ended + books["waiting"], books["packets"], "{books:#?}");
    assert!(books["waiting"] * 100 <= books["packets"], "{books:#?}");
}

#[test]
#[ignore = "needs a real kernel, as root: run by cargo xtask test"]
fn iperf_over_udp_balances() {
    let _lab = Lab::up("bridge");
    let (books, _) = iperf_books(&["--proto", "udp"], "--udp --bandwidth 5M --length 1000 --time 3");
    assert_hardly_any_incomplete(&books);
    assert_eq!(books["delivered"] + books["dropped"] + books["incomplete"], books["packets"], "{books:#?}");
    let both = |name| udp_counter(SERVER.0, name) + udp_counter(CLIENT.0, name);
    assert_eq!(books["packets"], both("OutDatagrams"));
}
