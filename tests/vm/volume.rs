//! Many packets: each has a timeline of its own, although the kernel gives few addresses to many packets, and the books
//! balance whatever GSO and GRO make of them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use skbtrace::lab::traffic::record;

use crate::support::{
    iperf,
    lab::{CLIENT, Lab, SERVER, device_packets},
    machine::{assert_nothing_attached, sh},
    model::Trace,
    pcapng::{self, Frame},
    tracer::{PROGRAM, Tracer, run},
};

/// What a recording tells of one packet.
#[derive(Default)]
struct Seen {
    hops: Vec<&'static str>,
    skbs: BTreeSet<u64>,
    /// Sequence numbers in its payload.
    sequences: BTreeSet<u64>,
    /// Hops at which its payload was there, and as it was sent.
    intact: usize,
    began: u64,
    ended: u64,
    queued: u64,
}

impl Seen {
    fn add(&mut self, frame: &Frame, scratch: &mut Vec<u8>) {
        assert_eq!(frame.step() as usize, self.hops.len(), "no step is missing, none is doubled");
        if self.hops.is_empty() {
            self.began = frame.time_ns;
        }
        assert!(frame.time_ns >= self.ended, "time goes back");
        self.ended = frame.time_ns;
        if frame.hop() == "__udp_enqueue_schedule_skb" {
            self.queued = frame.time_ns;
        }
        self.hops.push(frame.hop());
        self.skbs.insert(frame.skb());
        // Ethernet, IPv4, UDP, and the record.
        if let Some(bytes) = frame.bytes.get(14 + 20 + 8..).filter(|bytes| bytes.len() >= record::HEADER) {
            let run = u32::from_be_bytes(bytes[4..8].try_into().unwrap());
            let found = record::verify(run, bytes, scratch).unwrap();
            self.sequences.insert(found.sequence);
            self.intact += 1;
        }
    }

    /// Its hops without its end, which depends on who let go last.
    fn path(&self) -> Vec<&'static str> {
        let is_end = |hop: &&str| matches!(*hop, "kfree_skb" | "consume_skb" | "skb_attempt_defer_free");
        self.hops.iter().copied().filter(|hop| !is_end(hop)).collect()
    }
}

#[test]
#[ignore = "needs a kernel with kprobes, as root: run by cargo xtask test"]
fn ten_thousand_datagrams_are_ten_thousand_timelines() {
    const COUNT: usize = 10_000;
    let _lab = Lab::up("bridge");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("volume.pcapng").display().to_string();
    let before = device_packets(SERVER.0, "calmveth1");
    let count = COUNT.to_string();
    let trace = ["--iface", "calmveth1", "--json", "--quiet", "--ring-size", "64M", "-w", &file, "--", PROGRAM];
    let traffic = ["lab", "traffic", "--proto", "udp", "--count", &count, "--size", "64", "--rate", "1000"];
    let done = run(&[&trace[..], &traffic].concat());
    let books = done.trace();
    // The traffic verifies itself: had the path lost one, the trace would be right to miss it.
    let sent = format!("udp {COUNT} sent, {COUNT} received, 0 lost, 0 duplicate, ");
    let (_, reordered) = done.stderr.split_once(&sent).unwrap_or_else(|| panic!("{}", done.stderr));
    let reordered: usize = reordered.split(' ').next().unwrap().parse().unwrap();
    assert_eq!(device_packets(SERVER.0, "calmveth1") - before, COUNT as u64);
    assert_complete(&books);
    assert_eq!((books.summary.packets, books.summary.delivered), (COUNT as u64, COUNT as u64));

    let mut packets: BTreeMap<u64, Seen> = BTreeMap::new();
    let mut buffer = Vec::new();
    let mut addresses: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    pcapng::read(&file, |frame| {
        let (packet, now) = (frame.packet(), frame.time_ns);
        packets.entry(packet).or_default().add(&frame, &mut buffer);
        // What an address is of changes, but never back.
        let holder = addresses.entry(frame.skb()).or_insert((packet, 0));
        if holder.0 != packet {
            assert_eq!(frame.step(), 0, "packet {packet:#x} appears half way at the address of {:#x}", holder.0);
            assert!(packets[&holder.0].ended <= now);
            *holder = (packet, holder.1 + 1);
        }
    });
    assert_eq!(packets.len(), COUNT, "an id of its own for each");
    let addresses = addresses.len();
    assert!(addresses < COUNT / 10, "{addresses} addresses: they did not repeat, so this test has tested little");

    // Each packet is one datagram at all of its hops, and each datagram is one packet: none merged, none split.
    let mut sequences = BTreeMap::new();
    for (id, seen) in &packets {
        assert_eq!(seen.sequences.len(), 1, "packet {id:#x} is {:?}", seen.sequences);
        assert_eq!(seen.skbs.len(), 1, "one packet is one sk_buff");
        assert_eq!(seen.intact, seen.hops.len(), "{:?}", seen.hops);
        let twice = sequences.insert(*seen.sequences.first().unwrap(), seen);
        assert!(twice.is_none(), "datagram {:?} is two packets", seen.sequences);
    }
    assert!(sequences.keys().copied().eq(0..COUNT as u64));
    // All of them took the same way.
    let paths: BTreeSet<Vec<&str>> = packets.values().map(Seen::path).collect();
    assert_eq!(paths.len(), 1, "{paths:#?}");
    // They left in their order, and arrived in the order in which the receiver saw them.
    assert!(sequences.values().is_sorted_by_key(|seen| seen.began));
    let mut arrived: Vec<(u64, u64)> = sequences.iter().map(|(sequence, seen)| (seen.queued, *sequence)).collect();
    arrived.sort_unstable();
    let mut highest = 0;
    let late = arrived.iter().filter(|(_, sequence)| {
        highest = highest.max(*sequence);
        *sequence < highest
    });
    assert_eq!(late.count(), reordered);
}

/// Nothing was lost, and nothing doubted.
fn assert_complete(books: &Trace) {
    let summary = &books.summary;
    assert!(summary.incomplete == 0 && summary.every_packet_complete, "{summary:#?}");
    assert!(summary.losses.values().all(|count| *count == 0), "{summary:#?}");
}

/// Every packet is in one column of the books. Returns the books as they are, for more.
fn books(stdout: &str) -> BTreeMap<String, u64> {
    let summary: BTreeMap<String, Value> = serde_json::from_str(stdout.lines().last().unwrap()).unwrap();
    let numbers: BTreeMap<String, u64> =
        summary.iter().filter_map(|(name, value)| Some((name.clone(), value.as_u64()?))).collect();
    let columns = ["delivered", "dropped", "left", "merged", "consumed", "tapped", "waiting", "incomplete"];
    assert_eq!(numbers["packets"], columns.iter().map(|column| numbers[*column]).sum::<u64>(), "{summary:#?}");
    numbers
}

fn iperf_case(arguments: &str) {
    let _lab = Lab::up("bridge");
    for (netns, device) in [(SERVER.0, "calmveth1"), (CLIENT.0, "calmveth2")] {
        sh(&format!("ip netns exec {netns} ethtool -K {device} gso on gro on"));
    }
    let before = device_packets(SERVER.0, "calmveth1");
    let tracer = Tracer::start(&["--iface", "calmveth1", "--json", "--quiet", "--ring-size", "256M"]);
    let report = iperf::run(arguments);
    let done = tracer.interrupt();
    let counted = device_packets(SERVER.0, "calmveth1") - before;
    assert_nothing_attached();
    eprintln!("{}\n{}\ncounted {counted}\n{}", report["end"], done.stdout, done.stderr);
    books(&done.stdout);
    panic!();
}

#[test]
#[ignore = "needs a kernel with kprobes, as root: run by cargo xtask test"]
fn iperf_over_tcp_with_gso_and_gro_balances() {
    iperf_case("--time 10");
}

#[test]
#[ignore = "needs a kernel with kprobes, as root: run by cargo xtask test"]
fn iperf_over_udp_balances() {
    iperf_case("--udp --bandwidth 5M --length 1000 --time 10");
}
