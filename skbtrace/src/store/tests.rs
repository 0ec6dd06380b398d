//! The file format: what is written, what other tools make of it, and what is said of damage.

use std::io::Write as _;
use std::process::Command;

use skbtrace_common::{Event, HopId};

use super::testkit::{Seen, digest_of, recorded, start, traffic, with_bytes};
use super::{Item, ReadError, Reader, Record, Start, Writer};
use crate::trace::Lab;

/// All that can be read, and why no more.
pub(super) fn read(bytes: &[u8]) -> (Vec<Seen>, Vec<Record>, Option<ReadError>) {
    let mut reader = Reader::new(bytes);
    let (mut events, mut records) = (Vec::new(), Vec::new());
    loop {
        match reader.next_item() {
            Ok(Some(Item::Event(event, _, bytes))) => events.push((event, bytes.to_vec())),
            Ok(Some(Item::Record(record))) => records.push(record),
            Ok(None) => return (events, records, None),
            Err(error) => {
                assert!(matches!(reader.next_item(), Ok(None)), "nothing comes after an error");
                return (events, records, Some(error));
            }
        }
    }
}

fn complaint(bytes: &[u8]) -> String {
    read(bytes).2.map_or_else(String::new, |error| error.to_string())
}

/// Beginnings and lengths of the blocks.
pub(super) fn blocks(file: &[u8]) -> Vec<(usize, usize)> {
    let mut at = 0;
    std::iter::from_fn(|| {
        let length = u32::from_ne_bytes(file.get(at + 4..at + 8)?.try_into().ok()?) as usize;
        let block = (at, length);
        at += length;
        // Beyond a damaged length there is nothing to be found.
        (length >= 12 && at <= file.len()).then_some(block)
    })
    .collect()
}

#[test]
fn the_layout_of_an_event_is_that_of_this_format() {
    // Each byte has another value, so that every field shows its place. When this fails: raise FORMAT.
    let bytes: Vec<u8> = (0..size_of::<Event>()).map(|n| n as u8).collect();
    // SAFETY: an Event is made of integers only: every bit pattern is one.
    let event = unsafe { bytes.as_ptr().cast::<Event>().read_unaligned() };
    insta::assert_snapshot!(format!("{:#010x}", crc32fast::hash(format!("{event:?}").as_bytes())), @"0xa39c06fd");
}

#[test]
fn digests_come_back_as_they_were() {
    let seen = traffic(3);
    let file = recorded(&seen);
    let mut reader = Reader::new(&file[..]);
    let mut count = 0;
    while let Some(item) = reader.next_item().unwrap() {
        if let Item::Event(event, digest, _) = item {
            assert_eq!(digest, digest_of(&event));
            count += u32::from(digest.state == 3);
        }
    }
    assert!(count > 20, "{count} events have a digest");
}

#[test]
fn events_come_back_as_they_were() {
    let seen = traffic(20);
    let (events, records, error) = read(&recorded(&seen));
    assert!(error.is_none(), "{error:?}");
    assert_eq!(events, seen);
    assert!(matches!(&records[..], [Record::Start(_), Record::Symbol { .. }, Record::End(_)]), "{records:?}");
}

#[test]
fn a_small_file_block_by_block() {
    let events = Lab::new().udp_dropped(1, 7);
    let seen: Vec<Seen> = events.into_iter().enumerate().map(|(n, it)| with_bytes(it, 48, n < 4)).collect();
    let file = recorded(&[&seen[3..5], &seen[8..]].concat());
    let mut text = String::new();
    for (at, length) in blocks(&file) {
        let block = &file[at..at + length];
        let kind = u32::from_ne_bytes(block[..4].try_into().unwrap());
        let printable: String = block
            .utf8_chunks()
            .flat_map(|chunk| chunk.valid().chars().chain(chunk.invalid().iter().map(|_| '\0')))
            .map(|c| if c.is_control() { '\0' } else { c })
            .collect();
        let words: Vec<&str> = printable.split('\0').filter(|word| word.chars().count() > 9).collect();
        let words: Vec<String> = words.iter().map(|word| word.chars().take(90).collect()).collect();
        // The start is longer with every new hop.
        let length = if kind == 0x8053_4b42 { String::new() } else { format!(" {length}") };
        text.push_str(&format!("{kind:#x}{length}: {}\n", words.join(" | ")));
    }
    insta::assert_snapshot!(text, @r##"
    0xa0d0d0a 100: Linux 6.1.0-test | skbtrace 0.0.0
    0x1 92: hops that are at no device
    0x80534b42: {"start":{"version":3,"tool":"0.0.0","recording":"1-1","part":1,"kernel":"6.1.0-test","mac
    0x1 120: ns-calm2/calmveth2 | ifindex 2 in network namespace 4026532002
    0x6 432: __dev_forward_skb → calmveth2_peer (packet 0x1, step 3) | calmveth2_peer
    0x1 116: calmveth2_peer | ifindex 12 in network namespace 4026531840
    0x6 524: xxxxxxxxxxxxxxxxxxxx | netif_rx_internal (packet 0x1, step 4) | calmveth2_peer
    0x6 536: xxxxxxxxxxxxxxxxxxxx | __br_forward → calmveth1_peer (packet 0x1, step 8) | calmveth2_peer | calmveth1_peer
    0x80534b42: {"symbol":{"address":18446744071587758148,"name":"nf_hook_slow+0x44"}}
    0x6 420: xxxxxxxxxxxxxxxxxxxx | kfree_skb (packet 0x1, step 9)
    0x80534b42: {"end":{"now_ns":0,"losses":{"ring_full":0,"unread":0,"map_full":0,"unreadable":0,"missed_
    "##);
}

#[test]
fn what_is_no_recording_is_called_what_it_is() {
    insta::assert_snapshot!(complaint(b""), @"it is empty: nothing was recorded");
    insta::assert_snapshot!(complaint(b"hello, world: no packets here"), @"it is no recording of skbtrace");
    insta::assert_snapshot!(complaint(&[&0xa1b2_c3d4u32.to_le_bytes()[..], &[2, 0, 4, 0, 0, 0, 0, 0]].concat()), @"it is a pcap file of another tool, not a recording of skbtrace: it has packets, but no hops");
    insta::assert_snapshot!(complaint(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0]), @"it is compressed: try `gzip -dc FILE | skbtrace show -`");
    insta::assert_snapshot!(complaint(&[0; 512]), @"it is no recording: it begins with zeroes");
    // A section header of another tool: byte order, version, length, and the name of the application.
    let foreign = |name: &[u8]| {
        let mut block = vec![0x0a, 0x0d, 0x0d, 0x0a];
        let length = 28 + 4 + name.len().next_multiple_of(4) as u32 + 4;
        block.extend([length.to_ne_bytes(), 0x1a2b_3c4du32.to_ne_bytes(), [1, 0, 0, 0], [255; 4], [255; 4]].concat());
        block.extend([4u16.to_ne_bytes(), (name.len() as u16).to_ne_bytes()].concat());
        block.extend(name);
        block.resize(block.len().next_multiple_of(4), 0);
        block.extend([[0; 4], length.to_ne_bytes()].concat());
        block
    };
    insta::assert_snapshot!(complaint(&foreign(b"Dumpcap (Wireshark) 4.0.17\x1b[2J")), @r"it is a pcapng file of Dumpcap (Wireshark) 4.0.17\x1b[2J, not a recording of skbtrace: it has packets, but no hops");
    insta::assert_snapshot!(complaint(&foreign(b"skbtrace 0.1.0")), @"it is a recording of skbtrace 0.1.0 that another tool has rewritten, or that is damaged at its beginning");
    let mut other_order = recorded(&[]);
    other_order[8..12].reverse();
    insta::assert_snapshot!(complaint(&other_order), @"it was recorded on a machine of the other byte order: show it on one of that kind");
}

#[test]
fn other_versions_are_named() {
    let version = |start: Start| {
        let mut file = Vec::new();
        Writer::new(&mut file, &start).unwrap();
        complaint(&file).replace(env!("CARGO_PKG_VERSION"), "X")
    };
    insta::assert_snapshot!(version(Start { version: 7, tool: "9.9.9".to_owned(), ..start() }), @"it was recorded by skbtrace 9.9.9 in format 7, and this is skbtrace X with format 3: use that version to show it");
    // Hops go by their names: others may come in between, but each must be known.
    let mut hops = start().hops;
    hops.insert(3, "a_new_hop".to_owned());
    insta::assert_snapshot!(version(Start { hops, ..start() }), @"it was recorded by skbtrace 0.0.0 in format 3, and this is skbtrace X with format 3: use that version to show it");
}

#[test]
fn hops_are_known_by_name() {
    let mut hops = start().hops;
    hops.reverse();
    let mut file = Vec::new();
    let mut writer = Writer::new(&mut file, &Start { hops, ..start() }).unwrap();
    let event = Lab::new().tcp_data(1, 100, 7)[0];
    writer.event(&event, &digest_of(&event), &[], &[]).unwrap();
    writer.flush().unwrap();
    drop(writer);
    let (events, ..) = read(&file);
    let mirrored = HopId::ALL[HopId::ALL.len() - 1 - usize::from(event.hop)];
    assert_eq!(events, [(Event { hop: mirrored as u16, ..event }, Vec::new())]);
}

#[test]
fn damage_is_said_with_its_place() {
    let file = recorded(&traffic(1));
    let blocks = blocks(&file);
    let (at, length) = blocks[10];
    let change = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut file = file.clone();
        change(&mut file);
        complaint(&file).replace(&at.to_string(), "AT")
    };
    insta::assert_snapshot!(change(&|file| file[at + 100] ^= 1), @"damaged at byte AT (block 10): the checksum of the block is wrong: bytes have changed since they were written");
    insta::assert_snapshot!(change(&|file| file[at] ^= 1), @"damaged at byte AT (block 10): the checksum of the block is wrong: bytes have changed since they were written");
    insta::assert_snapshot!(change(&|file| file[at + 4] ^= 2), @"damaged at byte AT (block 10): a block cannot have 422 bytes");
    insta::assert_snapshot!(change(&|file| file[at + 6] = 1), @"damaged at byte AT (block 10): the file ends in the middle of a block: the recording was cut short");
    insta::assert_snapshot!(change(&|file| file[at + length - 1] ^= 1), @"damaged at byte AT (block 10): the checksum of the block is wrong: bytes have changed since they were written");
    insta::assert_snapshot!(change(&|file| drop(file.drain(at..at + length))), @"damaged at byte AT (block 10): block 11 comes where block 10 should be: a part of the file is missing");
    insta::assert_snapshot!(change(&|file| file.truncate(at + length - 1)), @"damaged at byte AT (block 10): the file ends in the middle of a block: the recording was cut short");
    insta::assert_snapshot!(change(&|file| file.truncate(at + 3)), @"damaged at byte AT (block 10): the file ends in the middle of a block: the recording was cut short");
    insta::assert_snapshot!(change(&|file| file[at..].fill(0)), @"damaged at byte AT (block 10): there are only zeroes: the machine went down before the data was on the disk");
    assert_eq!(change(&|file| file.truncate(at)), "");
}

/// Runs tshark on a file; `None`, with a printed reason, where there is none.
fn tshark(file: &[u8], args: &[&str]) -> Option<String> {
    let mut temporary = tempfile::NamedTempFile::new().unwrap();
    temporary.write_all(file).unwrap();
    let output = Command::new("tshark").arg("-r").arg(temporary.path()).args(args).output();
    let Ok(output) = output else {
        eprintln!("skipped: there is no tshark here (Debian package tshark)");
        return None;
    };
    let complaints = String::from_utf8(output.stderr).unwrap();
    let complaints: Vec<&str> = complaints.lines().filter(|line| !line.starts_with("Running as user")).collect();
    assert!(output.status.success() && complaints.is_empty(), "{complaints:?}");
    Some(String::from_utf8(output.stdout).unwrap())
}

#[test]
fn wireshark_opens_a_recording_as_it_is() {
    let fields = "-Tfields -eframe.interface_name -eframe.time_epoch -eframe.len -eframe.cap_len -eip.src -etcp.len \
                  -eframe.packet_flags_direction -eframe.comment";
    let args: Vec<&str> = fields.split_whitespace().collect();
    let Some(text) = tshark(&recorded(&traffic(1)), &args) else { return };
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), traffic(1).len());
    insta::assert_snapshot!(lines[20..24].join("\n"), @r##"
    ns-calm2/calmveth2	1700000001.002002200	131	131	78.78.0.11	77	0x00000002	veth_xmit → calmveth2_peer (packet 0x2, step 2)
    ns-calm2/calmveth2	1700000001.002002600	131	128	78.78.0.11	77	0x00000002	__dev_forward_skb → calmveth2_peer (packet 0x2, step 3)
    calmveth2_peer	1700000001.002003400	131	131	78.78.0.11	77	0x00000001	netif_rx_internal (packet 0x2, step 4)
    calmveth2_peer	1700000001.002003700	131	131	78.78.0.11	77	0x00000001	enqueue_to_backlog (packet 0x2, step 5)
    "##);
    let arp: Vec<&&str> = lines.iter().filter(|line| line.contains("arp_rcv")).collect();
    insta::assert_snapshot!(arp[0], @"ns-calm2/calmveth2	1700000001.005012700	28	0			0x00000001	arp_rcv (packet 0x5, step 5)");
}

#[test]
fn wireshark_finds_nothing_malformed() {
    let Some(text) = tshark(&recorded(&traffic(20)), &["-q", "-z", "expert"]) else { return };
    assert!(!text.contains("Malformed") && !text.contains("Errors ("), "{text}");
    let Some(text) = tshark(&recorded(&[]), &[]) else { return };
    assert_eq!(text, "");
    // What Wireshark does for "Save as": the packets can go into another file, in the old format too.
    for format in ["pcapng", "pcap"] {
        let mut copy = tempfile::NamedTempFile::new().unwrap();
        copy.write_all(&recorded(&traffic(1))).unwrap();
        let saved = tempfile::NamedTempFile::new().unwrap();
        let mut editcap = Command::new("editcap");
        let output = editcap.args(["-F", format]).args([copy.path(), saved.path()]).output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        let refused = complaint(&std::fs::read(saved.path()).unwrap());
        assert!(refused.contains("rewritten") || refused.contains("pcap file of another tool"), "{refused}");
    }
}

#[test]
fn a_hundred_thousand_events() {
    let seen = traffic(1150);
    assert!(seen.len() >= 100_000);
    let begun = std::time::Instant::now();
    let file = recorded(&seen);
    let written = begun.elapsed();
    let (events, _, error) = read(&file);
    assert!(error.is_none() && events == seen);
    eprintln!(
        "{} events, {} bytes: written in {written:?}, read in {:?}",
        seen.len(),
        file.len(),
        begun.elapsed() - written
    );
    let Some(text) = tshark(&file, &["-q", "-z", "io,stat,0"]) else { return };
    let table = text.lines().find(|line| line.contains("<>")).unwrap_or_default();
    assert!(table.contains(&format!(" {} ", seen.len())), "{text}");
}
