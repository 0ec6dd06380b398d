//! What is said of payloads: nothing is garbled that is not, and what is garbled is found where it happens.

use std::process::Command;

use skbtrace::lab::traffic::record::{Record, encode};

use crate::support::{
    lab::Lab,
    machine::{assert_nothing_attached, sh},
    model::Packet,
    pcapng,
    tracer::{Done, PROGRAM, Tracer, run, traced},
    traffic::{PORT, one_piece, server},
    tshark,
};

/// Three datagrams and a connection of three segments, which verify themselves.
fn exchange(options: &[&str]) -> Done {
    // It fails when something came that was not sent: here the trace is to say so.
    let traffic = format!("{PROGRAM} lab traffic --count 3 --rate 50 || :");
    run(&[&["--iface", "calmveth1", "--json"], options, &["--", "sh", "-c", &traffic]].concat())
}

fn with_payload(packets: &[Packet]) -> Vec<&Packet> {
    packets.iter().filter(|packet| packet.payload_len > 0 && matches!(packet.protocol(), Some(6 | 17))).collect()
}

#[test]
#[ignore = "needs a kernel with kprobes, as root: run by cargo xtask test"]
fn what_arrives_as_it_was_sent_is_the_same_at_every_hop() {
    let _lab = Lab::up("bridge");
    let done = exchange(&[]);
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

/// As on a kernel whose symbols are its functions alone: where pages are is then told by /proc/kcore, and by nothing where that is
/// closed and the layout is randomised.
#[test]
#[ignore = "needs a kernel with kprobes, as root: run by cargo xtask test"]
fn pages_are_found_without_the_kernels_variables() {
    let _lab = Lab::up("bridge");
    let hidden =
        "symbols=$(mktemp); grep -v -e _base$ /proc/kallsyms > $symbols; mount --bind $symbols /proc/kallsyms;";
    let traffic = format!("{PROGRAM} lab traffic --proto tcp --count 3 --rate 50 || :");
    let without = |before: &str| {
        let doctor = sh(&format!("unshare --mount -- sh -ec '{hidden} {before} exec {PROGRAM} doctor'"));
        let line = format!("{hidden} {before} exec {PROGRAM} run --iface calmveth1 --json -- sh -c '{traffic}'");
        let done = Tracer::spawn_command(Command::new("unshare").args(["--mount", "--", "sh", "-ec", &line])).wait();
        let trace = done.trace();
        let packets = with_payload(&trace.packets).into_iter();
        let of = |packet: &Packet| packet.payload.as_ref().map_or("none".to_owned(), |payload| payload.verdict.clone());
        (doctor, packets.map(of).collect::<Vec<_>>())
    };
    let (doctor, verdicts) = without("");
    assert!(doctor.contains("pages by the segments of /proc/kcore"), "{doctor}");
    assert_eq!(verdicts, ["same"; 3]);
    let (doctor, verdicts) = without("mount --bind /dev/null /proc/kcore;");
    assert!(doctor.contains("where pages are is not known"), "{doctor}");
    assert!(verdicts.len() == 3 && !verdicts.contains(&"same".to_owned()), "{verdicts:?}");
    assert_nothing_attached();
}

/// Further than a digest gets without a loop.
#[test]
#[ignore = "needs a kernel with kprobes, as root: run by cargo xtask test"]
fn a_byte_far_behind_in_a_large_segment_is_found() {
    let _lab = Lab::up("pair");
    sh("ip -n ns-calm1 link set calmveth1 mtu 65535; ip -n ns-calm2 link set calmveth2 mtu 65535");
    sh("ip netns exec ns-calm2 tc qdisc add dev calmveth2 clsact");
    // Of what is longer than 28,671 bytes, the byte at offset 27,948 of the payload, behind 52 bytes of headers.
    sh("ip netns exec ns-calm2 tc filter add dev calmveth2 egress protocol ip u32 match u16 0x7000 0xf000 at 2 \
        action pedit munge offset 28000 u8 invert");
    let trace = traced(&["--proto", "tcp"], || one_piece(server(PORT), 30_000));
    assert_nothing_attached();
    let whole = trace.packets.iter().find(|packet| packet.payload_len == 30_000);
    let whole = whole.unwrap_or_else(|| panic!("{trace:#?}"));
    let payload = whole.payload.as_ref().unwrap_or_else(|| panic!("{whole:#?}"));
    assert_eq!((payload.verdict.as_str(), payload.offset), ("garbled", Some(27_948)), "{payload:#?}");
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
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("garbled.pcapng").display().to_string();
    let done = exchange(&["--payload", "-w", &file, "--snaplen", "700"]);
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
        assert_bytes(packet, &file);
        let step = payload.after.as_ref().unwrap().step;
        let device = packet.hops.iter().find(|hop| hop.step == step).and_then(|hop| hop.device.as_ref());
        assert_eq!(device.map(|device| device.name.as_str()), Some("calmveth1_peer"));
    }
    let shown = Command::new(PROGRAM).args(["show", "--json", "--payload", &file]).output().unwrap();
    assert_eq!(String::from_utf8(shown.stdout).unwrap(), done.stdout);
    // TCP's payload lies in page frags, and is in the file all the same.
    let payloads = tshark::fields(&file, &["tcp.len", "tcp.payload"]);
    let whole = payloads.iter().filter(|fields| fields[0] == "512" && fields[1].len() == 1024);
    assert!(whole.count() >= 3 * 20, "{payloads:?}");
    assert_eq!(tshark::malformed(&file), 0);
    assert_nothing_attached();
}

/// The bytes of both sides, and those of each frame in the recording, are the record that was sent and what the filter made of
/// it.
fn assert_bytes(packet: &Packet, file: &str) {
    let payload = packet.payload.as_ref().unwrap();
    let bytes = payload.bytes.as_ref().unwrap_or_else(|| panic!("no bytes: {packet:#?}"));
    // The line of the byte, the one before it, and four behind it.
    let (before, after) = (unhex(&bytes.before), unhex(&bytes.after));
    assert_eq!((bytes.offset, before.len(), after.len()), (0, 96, 96));
    let number = |at: usize| u32::from_be_bytes(before[at..at + 4].try_into().unwrap());
    let record = Record { run: number(4), connection: (number(8) >> 16) as u16, sequence: u64::from(number(16)) };
    let mut sent = [0; 512];
    encode(record, &mut sent);
    let mut rewritten = sent;
    rewritten[20] = 0xa5;
    assert_eq!((&before[..], &after[..]), (&sent[..96], &rewritten[..96]));
    let changed_at = payload.after.as_ref().unwrap().step;
    let mut frames = 0;
    pcapng::read(file, |frame| {
        // Behind Ethernet, IP, and TCP with its timestamps.
        if format!("{:#x}", frame.packet()) == packet.id && frame.bytes.len() >= 66 + 512 {
            let expected = if frame.step() < changed_at { &sent } else { &rewritten };
            assert_eq!(&frame.bytes[66..], expected, "{} of {packet:#?}", frame.hop());
            frames += 1;
        }
    });
    assert!(frames >= 20, "{frames} frames of {packet:#?}");
}

fn unhex(digits: &str) -> Vec<u8> {
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}
