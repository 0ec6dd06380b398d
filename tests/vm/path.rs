//! The path of a packet through each of the lab's scenarios: every hop, in the kernel's order, where it was, and who
//! got the packet.

use std::{fs, process::Command};

use crate::support::{
    lab::{CLIENT, Lab, SERVER, device_packets},
    machine::{assert_nothing_attached, sh, wait_until},
    model::{Packet, Trace},
    path::{at, bare, bridged, crossed, ip_received, tcp_sent, veth},
    tracer::{Tracer, run},
    traffic::{PORT, datagrams, lab_exchange, server, tcp_exchange, tcp_segments},
    web::WebServer,
};

/// The way of a segment over the bridge, to TCP at its other end.
fn bridge_path(from: u8, to: u8, flags: &str) -> Vec<String> {
    [tcp_sent(&veth(from), flags), bridged(from, to), ip_received(&veth(to), &["tcp_v4_rcv"])].concat()
}

/// The same from one end of a pair to the other.
fn pair_path(from: u8, to: u8, flags: &str) -> Vec<String> {
    let (from, to) = (veth(from), veth(to));
    [tcp_sent(&from, flags), crossed(&from, &to), ip_received(&to, &["tcp_v4_rcv"])].concat()
}

/// What the socket does with a segment: data is queued and read, an end is queued, the rest is used up at once. TCP may try
/// to append data to the segment before it that nobody has read yet: if it can, the data is read from there. While a process
/// has the socket, segments wait in its backlog, and what continues the last one there is appended to it, be it empty.
fn to_the_socket(packet: &Packet) -> Vec<String> {
    let tries = ["tcp_try_coalesce", "skb_try_coalesce"];
    let tried: Vec<&str> = tries.into_iter().filter(|hop| packet.names().contains(hop)).collect();
    match packet.flags() {
        _ if packet.joined.is_some() && !packet.names().contains(&"tcp_queue_rcv") => bare(&["skb_try_coalesce"]),
        _ if packet.payload_len > 0 && packet.joined.is_some() => bare(&[&["tcp_queue_rcv"], &tries[..]].concat()),
        _ if packet.payload_len > 0 => bare(&[&["tcp_queue_rcv"], &tried[..], &["skb_copy_datagram_iter"]].concat()),
        // So it does with an end, if there is data that nobody has read yet.
        "FIN ACK" => bare(&[&["tcp_queue_rcv"], &tried[..]].concat()),
        _ => Vec::new(),
    }
}

/// Every segment went this way to the socket at its other end, and was delivered.
fn assert_tcp_paths(trace: &Trace, path: fn(u8, u8, &str) -> Vec<String>) {
    for packet in trace.of(6) {
        let (from, to) = if packet.goes_to(SERVER.1) { (2, 1) } else { (1, 2) };
        let expected = [path(from, to, packet.flags()), to_the_socket(packet)].concat();
        assert_eq!(packet.path(), expected, "{packet:#?}");
        assert_eq!(packet.verdict, "delivered", "{packet:#?}");
        assert!(packet.branches.is_empty(), "{packet:#?}");
    }
}

/// The two data segments of the exchange are far apart: each is read for itself, by this process.
fn assert_every_byte_is_read(trace: &Trace) {
    for packet in trace.packets.iter().filter(|packet| packet.payload_len > 0) {
        assert_eq!(packet.outcome.how.as_deref(), Some("copied"), "{packet:#?}");
        assert_eq!(packet.outcome.process.as_ref().map(|process| process.pid), Some(std::process::id()));
    }
}

/// Segments as direction, flags and bytes, in their order.
fn segments(trace: &Trace) -> Vec<(bool, &str, u64)> {
    let segments = trace.of(6).into_iter();
    segments.map(|packet| (packet.goes_to(SERVER.1), packet.flags(), packet.payload_len)).collect()
}

#[test]
#[ignore = "needs a kernel with kprobes, as root: run by cargo xtask test"]
fn a_page_crosses_the_bridge() {
    let _lab = Lab::up("bridge");
    let folder = sh("mktemp -d").trim().to_owned();
    fs::write(format!("{folder}/page"), [b'x'; 3000]).unwrap();
    let web = WebServer::start(&folder);
    let before = device_packets(SERVER.0, "calmveth1");
    let curl = format!(
        "echo $$ > {folder}/pid; exec ip netns exec {} curl --silent --output /dev/null --write-out \
         '%{{size_request}} %{{size_header}} %{{size_download}}' http://78.78.0.10:8000/page > {folder}/sizes",
        CLIENT.0
    );
    let trace = run(&["--iface", "calmveth1", "--json", "--", "sh", "-c", &curl]).trace();
    let counted = device_packets(SERVER.0, "calmveth1") - before;

    trace.assert_complete();
    assert_eq!(trace.summary.packets, counted, "as many as the device itself has counted");
    assert_eq!(trace.of(6).len() as u64, counted, "and all of them are curl's");
    assert_tcp_paths(&trace, bridge_path);

    let sizes = fs::read_to_string(format!("{folder}/sizes")).unwrap();
    let [request, header, body] = sizes.split(' ').map(|size| size.parse().unwrap()).collect::<Vec<u64>>()[..] else {
        panic!("{sizes}")
    };
    assert_eq!(body, 3000);
    let curl: u32 = fs::read_to_string(format!("{folder}/pid")).unwrap().trim().parse().unwrap();
    let python = web.pid();
    for (address, bytes, sender, reader) in [(SERVER.1, request, curl, python), (CLIENT.1, header + body, python, curl)]
    {
        let data: Vec<_> = trace.of(6).into_iter().filter(|p| p.goes_to(address) && p.payload_len > 0).collect();
        assert_eq!(data.iter().map(|packet| packet.payload_len).sum::<u64>(), bytes, "every byte, once");
        // What is read first was appended to nothing.
        assert_eq!(data[0].outcome.how.as_deref(), Some("copied"), "{data:#?}");
        for packet in data.into_iter().filter(|packet| packet.joined.is_none()) {
            let process = packet.outcome.process.as_ref().unwrap();
            assert_eq!(process.pid, reader, "{packet:#?}");
            assert_eq!(process.name, if reader == curl { "curl" } else { "python3" });
            assert_eq!(packet.outcome.how.as_deref(), Some("copied"));
            assert_eq!(packet.hop("skb_copy_datagram_iter").process.as_ref(), Some(process));
            assert!(packet.outcome.socket.as_ref().unwrap().starts_with(address));
            // The first segments are sent by the process; a reply may be sent by the ACK that makes room for it.
            if let Some(process) = &packet.hops[0].process {
                assert_eq!(process.pid, sender, "{packet:#?}");
            }
        }
    }
}

#[test]
#[ignore = "needs a kernel with kprobes, as root: run by cargo xtask test"]
fn as_many_packets_as_tcpdump_sees() {
    let _lab = Lab::up("bridge");
    let tracer = Tracer::start(&["--iface", "calmveth1", "--json"]);
    lab_exchange();
    let trace = tracer.interrupt().trace();
    assert_nothing_attached();
    // Apart: a tap on the path changes the path.
    let dumped = tcpdump(lab_exchange);

    trace.assert_complete();
    assert_eq!(trace.packets.len(), 11, "nothing but the exchange");
    assert_eq!(segments(&trace), tcp_segments(100, 300));
    let traced: Vec<_> = segments(&trace).iter().map(|(to, flags, bytes)| (*to, (*flags).to_owned(), *bytes)).collect();
    assert_eq!(traced, dumped);
    assert_tcp_paths(&trace, bridge_path);
    assert_every_byte_is_read(&trace);
}

/// The segments that tcpdump sees on calmveth1 meanwhile.
fn tcpdump(traffic: impl FnOnce()) -> Vec<(bool, String, u64)> {
    let file = "/tmp/skbtrace-vm.pcap";
    let mut command = Command::new("ip");
    command.args(["netns", "exec", SERVER.0, "tcpdump", "-i", "calmveth1", "--immediate-mode", "-U", "-w", file]);
    let mut child = command.stderr(fs::File::create("/tmp/skbtrace-vm.tcpdump").unwrap()).spawn().unwrap();
    wait_until("tcpdump listens", || {
        assert_eq!(child.try_wait().unwrap(), None, "tcpdump ended");
        fs::read_to_string("/tmp/skbtrace-vm.tcpdump").unwrap().contains("listening on")
    });
    traffic();
    // Once it has written a last datagram, it has written all that came before.
    datagrams(CLIENT, SERVER, 9999, 1);
    let dumped = || sh(&format!("tcpdump -nn -r {file} 2> /dev/null || :"));
    wait_until("tcpdump has written the last packet", || dumped().contains(".9999: UDP, length 1\n"));
    let pid = nix::unistd::Pid::from_raw(child.id().try_into().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    child.wait().unwrap();
    let text = dumped();
    let segment = |line: &str| {
        let to_server = line.contains(&format!(" > {}.", SERVER.1));
        let (_, flags) = line.split_once("Flags [").unwrap();
        let (flags, rest) = flags.split_once(']').unwrap();
        let flags = match flags {
            "S" => "SYN",
            "S." => "SYN ACK",
            "." => "ACK",
            "P." => "PSH ACK",
            "F." => "FIN ACK",
            other => panic!("{other} in {line}"),
        };
        let (_, length) = rest.split_once("length ").unwrap();
        let digits = length.split(|c: char| !c.is_ascii_digit()).next().unwrap();
        (to_server, flags.to_owned(), digits.parse().unwrap())
    };
    text.lines().filter(|line| line.contains("Flags [")).map(segment).collect()
}

#[test]
#[ignore = "needs a kernel with kprobes, as root: run by cargo xtask test"]
fn a_pair_has_no_bridge_hop() {
    let _lab = Lab::up("pair");
    let tracer = Tracer::start(&["--iface", "calmveth1", "--json"]);
    lab_exchange();
    let trace = tracer.interrupt().trace();
    assert_nothing_attached();
    trace.assert_complete();
    assert_eq!(trace.packets.len(), 11, "nothing but the exchange");
    assert_eq!(segments(&trace), tcp_segments(100, 300));
    assert_tcp_paths(&trace, pair_path);
    assert_every_byte_is_read(&trace);
}

#[test]
#[ignore = "needs a kernel with kprobes, as root: run by cargo xtask test"]
fn traffic_within_a_namespace_goes_through_lo() {
    let _lab = Lab::up("loopback");
    // Two at once: the forms of output do not depend on each other.
    let [json, text] = [&["--iface", "calmveth1", "--json"][..], &["--iface", "calmveth1"]].map(Tracer::spawn);
    let (json, text) = (json.ready(), text.ready());
    tcp_exchange(SERVER.0, SERVER.0, server(PORT), &[b'q'; 100], &[b'r'; 300]);
    let trace = json.interrupt().trace();
    let text = text.interrupt();
    assert_nothing_attached();

    trace.assert_complete();
    assert_eq!(trace.packets.len(), 11);
    assert_eq!(trace.summary.loopback, 11);
    assert_every_byte_is_read(&trace);
    for packet in &trace.packets {
        let lo = "ns-calm1/lo";
        let through = ["loopback_xmit", "netif_rx_internal", "enqueue_to_backlog", "netif_receive_skb"];
        let expected =
            [tcp_sent(lo, packet.flags()), at(lo, &through), ip_received(lo, &["tcp_v4_rcv"]), to_the_socket(packet)]
                .concat();
        assert_eq!(packet.path(), expected, "{packet:#?}");
        assert_eq!(packet.verdict, "delivered", "{packet:#?}");
    }

    assert_eq!(text.code(), Some(0), "{text:#?}");
    assert_eq!(text.stdout.lines().filter(|line| line.starts_with('#')).count(), 11, "a line for each packet");
    let told: Vec<&str> = text.stdout.lines().filter(|line| line.contains("never touches the veth")).collect();
    let [told] = told[..] else { panic!("said once, not {} times: {told:#?}", told.len()) };
    assert!(told.contains("loopback_xmit"), "{told}");
    assert_eq!(text.stdout.lines().filter(|line| line.contains("veth_xmit")).count(), 0, "{}", text.stdout);
}
