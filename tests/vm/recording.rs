//! Recordings of a real kernel: shown, they say what the live run said, byte for byte; Wireshark opens them; and what a
//! killed run leaves behind is shown as far as it goes.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use nix::sys::signal::Signal;
use skbtrace::{
    store::{Item, Reader},
    trace::Flow,
};
use skbtrace_common::Event;

use crate::support::{
    iperf,
    lab::{CLIENT, Lab, SERVER},
    machine::{assert_nothing_attached, sh, wait_until},
    pcapng,
    tracer::{Done, PROGRAM, Tracer},
    traffic::{PORT, datagrams, lab_exchange, ping, refused_datagram},
    tshark,
};

/// `skbtrace show` of these files.
pub fn show(files: &[String], options: &[&str]) -> Done {
    Tracer::spawn_command(Command::new(PROGRAM).arg("show").args(options).args(files)).wait()
}

/// A packet of every kind: TCP, UDP, a drop, ICMP, and an ARP question with a branch.
pub fn traffic() {
    sh("ip -n ns-calm2 neighbour delete 78.78.0.10 dev calmveth2");
    lab_exchange();
    datagrams(CLIENT, SERVER, PORT, 5);
    refused_datagram(CLIENT, SERVER, PORT + 1);
    ping(CLIENT, SERVER);
}

/// The same bytes on both streams, and a good end.
pub fn assert_same(live: &Done, shown: &Done) {
    assert_eq!((live.code(), shown.code()), (Some(0), Some(0)), "{live:#?} {shown:#?}");
    assert!(live.stdout.len() > 1000, "{live:#?}");
    let differ = live.stdout.lines().zip(shown.stdout.lines()).find(|(live, shown)| live != shown);
    assert!(live.stdout == shown.stdout, "{differ:?}: {} and {} bytes", live.stdout.len(), shown.stdout.len());
    // What a machine keeps from the tracer is said at the run alone.
    let said = |text: &str| {
        text.lines().filter(|line| !line.starts_with("skbtrace: not seen: ")).collect::<Vec<_>>().join("\n")
    };
    assert_eq!(said(&live.stderr), said(&shown.stderr));
}

#[test]
#[ignore = "needs a kernel with kprobes, as root: run by cargo xtask test"]
fn shown_is_what_the_live_run_printed() {
    let _lab = Lab::up("bridge");
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    // Two at a time: it takes long to attach so many.
    for round in [
        // Name, how it looks, how it is recorded.
        [["text", "", ""], ["rotate", "--explain", "--rotate 64K"]],
        [["json", "--json", "--snaplen 0"], ["events", "--json --events", ""]],
    ] {
        let tracers = round.map(|[name, look, more]| {
            let file = path(&format!("{name}.pcapng"));
            let options = look.split_whitespace().chain(more.split_whitespace());
            Tracer::spawn(&["--iface", "calmveth1", "-w", &file].into_iter().chain(options).collect::<Vec<_>>())
        });
        let tracers = tracers.map(Tracer::ready);
        traffic();
        let live = tracers.map(Tracer::interrupt);
        assert_nothing_attached();
        for ([name, look, _], live) in round.iter().zip(&live) {
            let parts = parts(folder.path(), name);
            assert_eq!(parts.len() > 2, *name == "rotate", "{parts:?}");
            assert_same(live, &show(&parts, &look.split_whitespace().collect::<Vec<_>>()));
            for part in &parts {
                assert_eq!(tshark::malformed(part), 0);
            }
        }
    }
    assert_wireshark_agrees(&path("text.pcapng"));
    let bytes = tshark::fields(&path("json.pcapng"), &["frame.cap_len"]);
    assert!(bytes.len() > 100 && bytes.iter().all(|field| field[0] == "0"), "{bytes:?}");
}

/// The files of a recording, in their order.
fn parts(folder: &Path, name: &str) -> Vec<String> {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path().display().to_string());
    let mut parts: Vec<String> = files.filter(|file| file.contains(&format!("/{name}."))).collect();
    parts.sort();
    parts
}

/// Each frame is the packet of its event, at the event's interface.
fn assert_wireshark_agrees(file: &str) {
    let mut expected = Vec::new();
    let mut interfaces = BTreeSet::new();
    let mut names = None;
    let mut reader = Reader::new(fs::File::open(file).unwrap());
    while let Some(item) = reader.next_item().unwrap() {
        match item {
            Item::Record(skbtrace::store::Record::Start(start)) => names = Some(start.names),
            Item::Record(_) => {}
            Item::Event(event, _, bytes) => {
                let interface = match event.ifindex {
                    0 => "(none)".to_owned(),
                    _ => label(&names.as_ref().unwrap().netns(event.netns), &event.dev),
                };
                interfaces.insert(interface.clone());
                expected.push([vec![interface], fields_of(&event, bytes)].concat());
            }
        }
    }
    let fields = [
        "frame.interface_name",
        "eth.type",
        "ip.src",
        "ip.dst",
        "tcp.srcport",
        "tcp.dstport",
        "tcp.flags",
        "udp.srcport",
        "udp.dstport",
    ];
    let seen = tshark::fields(file, &fields);
    assert_eq!(tshark::counts(file), (expected.len() as u64, interfaces.len()));
    for (number, (seen, expected)) in (1..).zip(seen.iter().zip(&expected)) {
        // An ICMP error bears the header of the packet that it is about: to Wireshark that has addresses and ports too.
        let mut outer: Vec<&str> = seen.iter().map(|field| field.split(',').next().unwrap_or_default()).collect();
        if seen.iter().any(|field| field.contains(',')) {
            outer[7..].fill("");
        }
        assert_eq!(outer, *expected, "frame {number}");
    }
    assert_eq!(seen.len(), expected.len());
    let devices = ["ns-calm1/calmveth1", "ns-calm2/calmveth2", "calmveth1_peer", "calmveth2_peer", "calmbr", "(none)"];
    assert_eq!(interfaces, devices.map(str::to_owned).into());
}

fn label(netns: &str, device: &[u8; 16]) -> String {
    let name = device.split(|byte| *byte == 0).next().unwrap();
    let name = String::from_utf8(name.to_vec()).unwrap();
    if netns == "init" { name } else { format!("{netns}/{name}") }
}

/// What Wireshark should make of it.
fn fields_of(event: &Event, bytes: &[u8]) -> Vec<String> {
    let mut fields = vec![String::new(); 8];
    if bytes.is_empty() {
        return fields;
    }
    fields[0] = if event.ethertype == 0x0806 { "0x0806".to_owned() } else { "0x0800".to_owned() };
    let Some(flow) = Flow::of(event) else { return fields };
    (fields[1], fields[2]) = (flow.src.to_string(), flow.dst.to_string());
    if let Some((from, to)) = flow.ports {
        let first = if flow.proto == 6 { 3 } else { 6 };
        (fields[first], fields[first + 1]) = (from.to_string(), to.to_string());
        if flow.proto == 6 {
            fields[5] = format!("0x{:04x}", event.tcp_flags);
        }
    }
    fields
}

#[test]
#[ignore = "needs a kernel with kprobes, as root: run by cargo xtask test"]
fn a_hundred_thousand_events_are_no_trouble() {
    let _lab = Lab::up("bridge");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("large.pcapng").display().to_string();
    for (netns, device) in [(SERVER.0, "calmveth1"), (CLIENT.0, "calmveth2")] {
        sh(&format!("ip netns exec {netns} ethtool -K {device} tso off gso off gro on"));
    }
    let tracer = Tracer::start(&["--iface", "calmveth1", "--json", "--quiet", "--ring-size", "64M", "-w", &file]);
    // Half as many again as it takes: what is under way when iperf3 has sent all goes no further than the closed socket.
    iperf::run("--set-mss 1000 --bytes 6M");
    let live = tracer.interrupt();
    assert_nothing_attached();
    let books: serde_json::Value = serde_json::from_str(&live.stdout).unwrap();
    let events = books["events"].as_u64().unwrap();
    assert!(events >= 100_000, "{books:#}");

    let shown = show(std::slice::from_ref(&file), &["--json", "--quiet"]);
    assert_eq!((shown.code(), shown.stderr), (Some(0), live.stderr));
    assert_eq!(shown.stdout, live.stdout);
    // All of it is iperf3's. The bytes of a packet are not taken where it is only freed.
    let (mut bare, mut whole) = (0, 0);
    pcapng::read(&file, |frame| match &frame.bytes[..] {
        [] => bare += 1,
        bytes => {
            whole += 1;
            // Of TCP over IPv4 without options, behind an Ethernet header.
            assert_eq!((&bytes[12..15], bytes[23]), (&[8, 0, 0x45][..], 6));
            assert!([&bytes[34..36], &bytes[36..38]].contains(&&5201_u16.to_be_bytes()[..]), "{bytes:x?}");
        }
    });
    assert_eq!(bare + whole, events);
    assert!(whole > bare * 2, "{whole} {bare}");
}

#[test]
#[ignore = "needs a kernel with kprobes, as root: run by cargo xtask test"]
fn a_killed_run_is_shown_up_to_the_tear() {
    let _lab = Lab::up("bridge");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("killed.pcapng").display().to_string();
    let tracer = Tracer::start(&["--iface", "calmveth1", "--json", "-w", &file]);
    datagrams(CLIENT, SERVER, PORT, 5);
    let show = |file: &str| show(&[file.to_owned()], &["--json"]);
    // A run that is still going on can be shown already.
    let whole = "packets to their end 5, under way 0\n";
    wait_until("the five are recorded to their ends", || show(&file).stderr.ends_with(whole));
    tracer.signal(Signal::SIGKILL);
    let live = tracer.wait();
    assert_eq!((live.code(), live.stdout.lines().count()), (None, 5), "{live:#?}");
    assert_nothing_attached();

    let shown = show(&file);
    assert_eq!((shown.code(), &shown.stdout), (Some(1), &live.stdout));
    let events = tshark::counts(&file).0;
    let complaint = shown.stderr.strip_prefix(&live.stderr).unwrap();
    assert_eq!(
        complaint,
        format!(
            "skbtrace: it ends without an end: the run was killed, or is still going on; shown is what comes before: \
             events {events}, {whole}"
        )
    );

    // As if the machine itself had died: the file ends anywhere.
    let whole = fs::read(&file).unwrap();
    for cut in [whole.len() - 1, whole.len() - 5000, whole.len() / 2, whole.len() / 3] {
        let torn = folder.path().join("torn.pcapng").display().to_string();
        fs::write(&torn, &whole[..cut]).unwrap();
        let shown = show(&torn);
        assert_eq!(shown.code(), Some(1), "{shown:#?}");
        let complaint = shown.stderr.strip_prefix(&live.stderr).unwrap();
        assert!(complaint.starts_with(&format!("skbtrace: {torn}: damaged at byte ")), "{complaint}");
        assert!(complaint.contains("; shown is what comes before: events "), "{complaint}");
        let number = |before: &str| -> usize {
            let (_, rest) = complaint.split_once(before).unwrap();
            rest.split([',', '\n']).next().unwrap().parse().unwrap()
        };
        let (ended, under_way) = (number("packets to their end "), number("under way "));
        let lines = |text: &str| text.lines().take(ended).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(lines(&shown.stdout), lines(&live.stdout));
        // One that has not come to the interface yet is not shown.
        let rest = shown.stdout.lines().count() - ended;
        assert!(ended < 5 && rest <= under_way, "{shown:#?}");
    }
}
