//! Many packets: each has a timeline of its own, although the kernel gives few addresses to many packets, and the books
//! balance whatever GSO and GRO make of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use serde_json::Value;
use skbtrace::lab::traffic::record;

use crate::support::{
    iperf,
    lab::{CLIENT, Lab, SERVER, device_packets, within},
    machine::{assert_nothing_attached, sh, sysctl},
    model::Hop,
    pcapng::{self, Frame},
    tracer::{PROGRAM, Tracer},
};

/// What a recording tells of one packet.
#[derive(Default)]
pub struct Seen {
    pub hops: Vec<&'static str>,
    pub skbs: BTreeSet<u64>,
    /// Sequence numbers in its payload.
    pub sequences: BTreeSet<u64>,
    /// Hops at which its payload was there, and as it was sent.
    pub intact: usize,
    began: u64,
    ended: u64,
    queued: u64,
}

impl Seen {
    /// Adds what was seen of it at a hop.
    pub fn add(&mut self, frame: &Frame, scratch: &mut Vec<u8>) {
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
    pub fn path(&self) -> Vec<&'static str> {
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
    let tracer = Tracer::start(&["--iface", "calmveth1", "--json", "--quiet", "--ring-size", "256M", "-w", &file]);
    // The traffic verifies itself: had the path lost one, the trace would be right to miss it. Packets of a sender that
    // moves from CPU to CPU may overtake each other.
    let sent = sh(&format!("{PROGRAM} lab traffic --proto udp --count {COUNT} --size 64 --rate 1000 || :"));
    let done = tracer.interrupt();
    assert_nothing_attached();
    assert_eq!(done.code(), Some(0), "{done:#?}");
    let books = books(&done.stdout);
    let (_, reordered) = sent
        .split_once(&format!("udp {COUNT} sent, {COUNT} received, 0 lost, 0 duplicate, "))
        .unwrap_or_else(|| panic!("{sent}"));
    let reordered: usize = reordered.split(' ').next().unwrap().parse().unwrap();
    assert_eq!(device_packets(SERVER.0, "calmveth1") - before, COUNT as u64);
    assert_complete(&books);
    assert_eq!((books["packets"], books["delivered"]), (COUNT as u64, COUNT as u64));

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

/// The books of a run, numbers by their names, those of the losses with theirs in front: `losses.ring_full`. Every packet
/// is in one column.
pub fn books(stdout: &str) -> BTreeMap<String, u64> {
    let summary: BTreeMap<String, Value> = serde_json::from_str(stdout.lines().last().unwrap()).unwrap();
    let mut books =
        BTreeMap::from([("every_packet_complete".to_owned(), u64::from(summary["every_packet_complete"] == true))]);
    for (name, value) in &summary {
        books.extend(value.as_u64().map(|number| (name.clone(), number)));
        if name == "losses" {
            let losses = value.as_object().unwrap();
            books.extend(losses.iter().map(|(loss, number)| (format!("losses.{loss}"), number.as_u64().unwrap())));
        }
    }
    let columns = ["delivered", "dropped", "left", "merged", "consumed", "tapped", "waiting", "incomplete"];
    assert_eq!(books["packets"], columns.iter().map(|column| books[*column]).sum::<u64>(), "{books:#?}");
    books
}

/// Nothing was lost, and nothing doubted.
pub fn assert_complete(books: &BTreeMap<String, u64>) {
    assert_eq!(lost(books), 0, "{books:#?}");
    assert_eq!((books["incomplete"], books["every_packet_complete"]), (0, 1), "{books:#?}");
}

/// What was lost of the run, whatever it was.
pub fn lost(books: &BTreeMap<String, u64>) -> u64 {
    books.iter().filter(|(name, _)| name.starts_with("losses.")).map(|(_, count)| count).sum()
}

/// What iperf3 sends with these arguments, traced, with the offloads that make large packets of small ones; the books and
/// what the device at the server has counted meanwhile.
fn iperf_books(options: &[&str], arguments: &str) -> (BTreeMap<String, u64>, Value, u64) {
    for (netns, device) in [(SERVER.0, "calmveth1"), (CLIENT.0, "calmveth2")] {
        sh(&format!("ip netns exec {netns} ethtool -K {device} gso on gro on"));
    }
    let before = device_packets(SERVER.0, "calmveth1");
    let arguments_of_run = ["--iface", "calmveth1", "--json", "--quiet", "--ring-size", "256M"];
    let tracer = Tracer::start(&[&arguments_of_run[..], options].concat());
    iperf::run(arguments);
    let done = tracer.interrupt();
    let counted = device_packets(SERVER.0, "calmveth1") - before;
    assert_nothing_attached();
    assert_eq!(done.code(), Some(0), "{done:#?}");
    let books = books(&done.stdout);
    (books, serde_json::from_str(done.stdout.lines().last().unwrap()).unwrap(), counted)
}

/// Nothing but what the kernel itself skipped is missing. It skips what a softirq does while a system call of the tracer's own has a
/// map in hand on that CPU, and before 6.7 counts none of it as missed: a burst of packets at the most.
fn assert_as_complete_as_can_be(books: &BTreeMap<String, u64>) {
    let missed = books["losses.missed_probes"];
    assert_eq!(lost(books), missed, "{books:#?}");
    if missed == 0 {
        assert!(books["incomplete"] * 100 <= books["packets"], "{books:#?}");
    }
}

#[test]
#[ignore = "needs a kernel with kprobes, as root: run by cargo xtask test"]
fn iperf_over_tcp_with_gso_and_gro_balances() {
    let _lab = Lab::up("bridge");
    let (books, _, counted) = iperf_books(&[], "--time 10");
    assert_as_complete_as_can_be(&books);
    // As many as the device itself has counted, but for acknowledgements that went all their way in such a softirq: no hop has seen them.
    assert!(
        books["packets"] <= counted && (counted - books["packets"]) * 100 <= counted,
        "{counted} packets: {books:#?}"
    );
    assert!(books["packets"] > 1000, "{books:#?}");
}

#[test]
#[ignore = "needs a kernel with kprobes, as root: run by cargo xtask test"]
fn iperf_over_udp_balances() {
    let _lab = Lab::up("bridge");
    let (books, summary, _) = iperf_books(&["--proto", "udp"], "--udp --bandwidth 5M --length 1000 --time 10");
    assert_as_complete_as_can_be(&books);
    let both = |name| udp_counter(SERVER.0, name) + udp_counter(CLIENT.0, name);
    // What is sent is read, refused by a full socket, or unread when the socket is closed.
    assert_eq!(books["packets"], both("OutDatagrams"));
    assert!(books["packets"] > 1000, "{books:#?}");
    if books["incomplete"] == 0 {
        assert_eq!(books["delivered"], both("InDatagrams"));
        let reasons = summary["drop_reasons"].as_array().unwrap();
        let full = reasons.iter().find(|reason| reason["reason"] == "SOCKET_RCVBUFF");
        assert_eq!(full.map_or(0, |full| full["count"].as_u64().unwrap()), both("RcvbufErrors"));
    }
}

/// A counter of UDP's in a namespace.
pub fn udp_counter(netns: &str, name: &str) -> u64 {
    let table = within(netns, || fs::read_to_string("/proc/thread-self/net/snmp").unwrap());
    let [names, values] = table.lines().filter_map(|row| row.strip_prefix("Udp: ")).collect::<Vec<_>>()[..] else {
        panic!("{table}")
    };
    let column = names.split(' ').position(|column| column == name).unwrap();
    values.split(' ').nth(column).unwrap().parse().unwrap()
}

#[test]
#[ignore = "needs a kernel with kprobes, as root: run by cargo xtask test"]
fn a_flood_through_a_small_ring_is_booked_to_the_last_event() {
    const COUNT: u64 = 2000;
    let _lab = Lab::up("bridge");
    sysctl("kernel/bpf_stats_enabled", "1");
    let tracer = Tracer::start(&["--iface", "calmveth1", "--json", "--ring-size", "64K"]);
    let sent = sh(&format!("{PROGRAM} lab traffic --proto udp --count {COUNT} --rate 0"));
    let done = tracer.interrupt();
    sysctl("kernel/bpf_stats_enabled", "0");
    assert_nothing_attached();
    assert!(sent.contains(&format!("udp {COUNT} sent, {COUNT} received, 0 lost")), "{sent}");
    let trace = done.trace();
    let books = books(&done.stdout);
    let summary: Value = serde_json::from_str(done.stdout.lines().last().unwrap()).unwrap();

    let mut sums: BTreeMap<&str, u64> = BTreeMap::new();
    // Of hops that are attached together the kernel knows how often they ran in all.
    let (mut ran_together, mut booked_together) = (0, 0);
    for hop in summary["hops"].as_array().unwrap() {
        let number = |name: &str| hop[name].as_u64().unwrap_or_else(|| panic!("no {name} in {hop}"));
        let columns = ["filtered", "sent", "ring_full", "map_full", "unreadable"];
        let booked = columns.iter().map(|column| number(column)).sum::<u64>();
        match hop["run_count"].as_u64() {
            Some(_) if hop["hop"] == "kprobe.multi" => ran_together += number("run_count"),
            Some(ran) => assert_eq!(ran, booked, "{hop}"),
            None => booked_together += booked,
        }
        for column in ["sent", "ring_full", "map_full", "unreadable", "missed"] {
            *sums.entry(column).or_default() += number(column);
        }
    }
    assert_eq!(ran_together, booked_together, "{summary}");
    assert_eq!(sums["sent"], books["events"] + books["losses.unread"], "{summary}");
    assert_eq!(books["losses.unread"], 0);
    for (column, loss) in [
        ("ring_full", "ring_full"),
        ("map_full", "map_full"),
        ("unreadable", "unreadable"),
        ("missed", "missed_probes"),
    ] {
        assert_eq!(sums[column], books[&format!("losses.{loss}")], "{column}");
    }
    assert!(sums["ring_full"] > 1000, "so little was lost that this test has tested little: {sums:?}");

    // All of them arrived: what is not called delivered is called incomplete, and what is has its whole path.
    assert!(trace.packets.len() as u64 <= COUNT);
    let ids: BTreeSet<&str> = trace.packets.iter().map(|packet| packet.id.as_str()).collect();
    assert_eq!(ids.len(), trace.packets.len(), "an id of its own for each");
    assert_eq!(books["delivered"] + books["incomplete"], books["packets"], "{books:#?}");
    let whole = trace.packets.iter().map(|packet| packet.path()).max_by_key(Vec::len).unwrap();
    for packet in &trace.packets {
        let steps = packet.hops.iter().map(|hop| hop.step);
        let ended = packet.hops.last().is_some_and(Hop::is_end);
        let gap = !steps.eq(0..packet.hops.len() as u32) || packet.path() != whole || !ended;
        assert!(packet.hops.iter().all(|hop| hop.skb == packet.hops[0].skb), "one packet is one sk_buff: {packet:#?}");
        assert_eq!(packet.verdict, if gap { "incomplete" } else { "delivered" }, "{packet:#?}");
    }
}
