//! Packets that the kernel refuses: for each the reason, the function, the last hop with its device, and netfilter's hook
//! are those of this kernel, and exactly the packets that were to be refused are. Everything else is delivered.

use std::{
    cell::Cell,
    collections::BTreeMap,
    fs,
    io::ErrorKind,
    net::{IpAddr, SocketAddr, UdpSocket},
    thread::sleep,
    time::Duration,
};

use serde_json::Value;
use socket2::{Domain, Protocol, Socket, Type};

use crate::support::{
    lab::{CLIENT, Lab, SERVER, within},
    machine::{assert_nothing_attached, sh, sysctl, wait_until},
    router::{FAR, NOWHERE, OUT, Router, SPOOFED},
    tracer::Tracer,
    traffic::datagrams,
};

mod expected;

/// Refused packets of each kind.
const COUNT: usize = 3;
/// Where packets go that nothing is wrong with.
const CLEAN: u16 = 7000;

/// How packets ended, each ending with its number, by what they were: the destination port, or the ICMP message.
type Endings = BTreeMap<String, BTreeMap<String, usize>>;

/// How a packet ended, in the words of the tables below.
fn ending(packet: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    let outcome = &packet["outcome"];
    if packet["verdict"] != "dropped" {
        return text(&packet["verdict"]);
    }
    let after = outcome["after"].as_str().unwrap();
    let last = packet["hops"].as_array().unwrap().iter().rfind(|hop| hop["hop"] == after).unwrap();
    let device = |hop: &Value| format!("{}/{}", text(&hop["netns_name"]), text(&hop["name"]));
    // The compiler's own suffixes, such as .constprop.0, are no part of a function's name.
    let function = text(&outcome["location"]);
    let function = function.split(['+', '.']).next().unwrap();
    let mut ending = format!("{} in {function} after {after} {}", text(&outcome["reason"]), device(&last["device"]));
    if let Some(to) = last.get("to") {
        ending += &format!(" → {}", device(to));
    }
    for more in ["netfilter", "stage"] {
        match outcome.get(more).and_then(Value::as_str) {
            None | Some("path") => {}
            Some(more) => ending += &format!(", {more}"),
        }
    }
    ending
}

fn what(packet: &Value) -> String {
    let flow = &packet["flow"];
    match flow.get("icmp") {
        Some(icmp) => format!("icmp {}/{}", icmp["type"], icmp["code"]),
        None => flow["dport"].to_string(),
    }
}

fn address(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse::<IpAddr>().unwrap(), port)
}

/// Datagrams, one as long as the other, from a namespace to wherever; whether the kernel refuses to send is its affair.
fn send(from: (&str, &str), to: &str, port: u16, length: usize, ttl: u32) {
    within(from.0, || {
        let socket = UdpSocket::bind(address(from.1, 0)).unwrap();
        socket.set_ttl(ttl).unwrap();
        for _ in 0..COUNT {
            // A socket hears first of what became of its last datagram.
            let send = || socket.send_to(&vec![0x55; length], address(to, port));
            match send() {
                Err(error) if error.kind() != ErrorKind::PermissionDenied => send().map(drop).unwrap(),
                _ => {}
            }
            // What a path has told of its MTU is forgotten: or the next one would not be sent whole.
            sh("ip route flush cache");
        }
    });
    arrive();
}

/// Waits until what was sent has arrived, or not, before the next setting is changed.
fn arrive() {
    sleep(Duration::from_millis(200));
}

/// Runs `work` between two lines of shell.
fn meanwhile(before: &str, after: &str, work: impl FnOnce()) {
    sh(&format!("set -e; {before}"));
    work();
    sh(&format!("set -e; {after}"));
}

/// Packets of UDP or TCP with a wrong checksum, so many bytes behind IP's header.
fn bad_checksum(protocol: Protocol, port: u16, length: u8) {
    let mut packet = vec![0; length.into()];
    packet[..2].copy_from_slice(&9_u16.to_be_bytes());
    packet[2..4].copy_from_slice(&port.to_be_bytes());
    if protocol == Protocol::UDP {
        packet[5] = length;
        packet[6..8].copy_from_slice(&[0xde, 0xad]);
    } else {
        // Five words of header, a SYN.
        packet[12..14].copy_from_slice(&[0x50, 2]);
        packet[16..18].copy_from_slice(&[0xde, 0xad]);
    }
    within(CLIENT.0, || {
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(protocol)).unwrap();
        for _ in 0..COUNT {
            socket.send_to(&packet, &address(SERVER.1, 0).into()).unwrap();
        }
    });
    arrive();
}

/// Datagrams with a wrong checksum to a socket that is read. They are so long that the kernel looks only when they are read.
fn unreadable(port: u16) {
    let receiver = within(SERVER.0, || UdpSocket::bind(address(SERVER.1, port)).unwrap());
    receiver.set_nonblocking(true).unwrap();
    bad_checksum(Protocol::UDP, port, 200);
    assert_eq!(receiver.recv(&mut [0; 100]).unwrap_err().kind(), ErrorKind::WouldBlock);
}

/// Fills a socket's buffer, reads what it took, and says how many it took and how many it refused.
pub fn overflow(port: u16) -> (usize, usize) {
    let sent = 40;
    let receiver = within(SERVER.0, || {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
        // The kernel has a minimum of its own.
        socket.set_recv_buffer_size(1).unwrap();
        socket.set_nonblocking(true).unwrap();
        socket.bind(&address(SERVER.1, port).into()).unwrap();
        UdpSocket::from(socket)
    });
    within(CLIENT.0, || {
        let socket = UdpSocket::bind(address(CLIENT.1, 0)).unwrap();
        for _ in 0..sent {
            socket.send_to(&[0x55; 100], address(SERVER.1, port)).unwrap();
        }
    });
    arrive();
    let mut read = 0;
    while receiver.recv(&mut [0; 100]).is_ok() {
        read += 1;
    }
    // The last column of the socket's row is what the kernel itself has counted.
    let table = within(SERVER.0, || fs::read_to_string("/proc/thread-self/net/udp").unwrap());
    let row = table.lines().find(|row| row.contains(&format!(":{port:04X} 00000000:0000"))).unwrap();
    let refused = row.split_whitespace().next_back().unwrap().parse().unwrap();
    assert_eq!(read + refused, sent, "{table}");
    (read, refused)
}

#[test]
#[ignore = "needs a kernel with kprobes, as root: run by cargo xtask test"]
fn every_drop_has_its_reason_and_its_place() {
    let _lab = Lab::up("bridge");
    let _router = Router::up();
    // A hop of a module is attached only where the module is loaded when the run begins.
    sh("modprobe br_netfilter");
    sysctl("net/bridge/bridge-nf-call-iptables", "0");
    let cleaned = Cell::new(0);
    let arriving = |from, to| {
        datagrams(from, to, CLEAN, 1);
        cleaned.set(cleaned.get() + 1);
    };
    // Both ways, and through the router.
    let clean =
        || [(CLIENT, SERVER), (SERVER, CLIENT), (CLIENT, FAR), (FAR, CLIENT)].map(|(from, to)| arriving(from, to));
    let tracer = Tracer::start(&["--iface", "calmveth1", "--json"]);
    clean();

    // The router refuses.
    send(CLIENT, FAR.1, 7101, 8, 1);
    send(CLIENT, NOWHERE, 7102, 8, 64);
    meanwhile(
        &format!("ip -n {} link set {OUT} mtu 1000", SERVER.0),
        &format!("ip -n {} link set {OUT} mtu 1500", SERVER.0),
        || {
            clean();
            send(CLIENT, FAR.1, 7103, 1200, 64);
        },
    );
    send((CLIENT.0, SPOOFED), SERVER.1, 7104, 8, 64);
    clean();

    // The receiver refuses.
    send(CLIENT, SERVER.1, 7105, 8, 64);
    bad_checksum(Protocol::UDP, 7106, 8);
    bad_checksum(Protocol::TCP, 7107, 20);
    let (read, refused) = overflow(7108);
    unreadable(7109);
    clean();

    // Rules refuse.
    let rule = |netns: &str, family: &str, hook: &str, rule: &str| {
        (
            format!(
                "{netns} nft 'table {family} skbtrace_vm {{ chain c {{ type filter hook {hook} priority 0; {rule} }}; }}'"
            ),
            format!("{netns} nft delete table {family} skbtrace_vm"),
        )
    };
    let server = format!("ip netns exec {}", SERVER.0);
    for (netns, family, hook, port) in [
        (server.as_str(), "inet", "prerouting", 7201),
        (&server, "inet", "input", 7202),
        (&server, "inet", "forward", 7203),
        (&server, "inet", "output", 7204),
        (&server, "inet", "postrouting", 7205),
        ("", "bridge", "prerouting", 7206),
        ("", "bridge", "forward", 7207),
        ("", "bridge", "postrouting", 7208),
        ("", "netdev", "ingress device calmveth1_peer", 7209),
    ] {
        let (before, after) = rule(netns, family, hook, &format!("udp dport {port} drop;"));
        meanwhile(&before, &after, || {
            clean();
            match hook {
                "prerouting" | "input" if family == "inet" => send(CLIENT, SERVER.1, port, 8, 64),
                "forward" if family == "inet" => send(CLIENT, FAR.1, port, 8, 64),
                _ => send(SERVER, CLIENT.1, port, 8, 64),
            }
            clean();
        });
    }
    // Behind a hook that lets it pass another one may refuse it.
    let (before, after) = rule(&server, "inet", "input", "");
    meanwhile(&before, &after, || send(CLIENT, SERVER.1, 7212, 8, 64));
    // As where Docker is installed: a policy for what is routed drops what is bridged.
    meanwhile("iptables -P FORWARD DROP", "iptables -P FORWARD ACCEPT", || {
        clean();
        sysctl("net/bridge/bridge-nf-call-iptables", "1");
        send(SERVER, CLIENT.1, 7210, 8, 64);
        sysctl("net/bridge/bridge-nf-call-iptables", "0");
        clean();
    });
    meanwhile(&format!("{server} iptables -P FORWARD DROP"), &format!("{server} iptables -P FORWARD ACCEPT"), || {
        arriving(CLIENT, SERVER);
        send(CLIENT, FAR.1, 7211, 8, 64);
    });

    // The link layer refuses.
    // Not 4, blocking: where nobody does STP the kernel makes that 3, forwarding, at once.
    meanwhile("bridge link set dev calmveth1_peer state 1", "bridge link set dev calmveth1_peer state 3", || {
        send(SERVER, CLIENT.1, 7301, 8, 64);
    });
    meanwhile("bridge link set dev calmveth2_peer state 0", "bridge link set dev calmveth2_peer state 3", || {
        send(SERVER, CLIENT.1, 7302, 8, 64);
    });
    clean();
    meanwhile("ip link set calmveth1_peer mtu 1000", "ip link set calmveth1_peer mtu 1500", || {
        clean();
        send(SERVER, CLIENT.1, 7303, 1200, 64);
    });
    meanwhile("ip link set calmveth2_peer mtu 1000", "ip link set calmveth2_peer mtu 1500", || {
        clean();
        send(SERVER, CLIENT.1, 7304, 1200, 64);
    });
    meanwhile("ip link set calmveth2_peer down", "ip link set calmveth2_peer up", || {
        send(SERVER, CLIENT.1, 7305, 8, 64);
    });
    wait_until("the port forwards again", || sh("bridge link show dev calmveth2_peer").contains("state forwarding"));
    clean();

    let answers = icmp_received();
    let done = tracer.interrupt();
    sh("nft flush ruleset; rmmod br_netfilter");
    assert_nothing_attached();
    assert_eq!(done.code(), Some(0), "{done:#?}");
    let mut packets: Vec<Value> = done.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let summary = packets.pop().unwrap();
    let mut endings = Endings::new();
    for packet in &packets {
        *endings.entry(what(packet)).or_default().entry(ending(packet)).or_default() += 1;
    }
    // The router's answers: as many as the sender itself has counted.
    let icmp: usize =
        endings.iter().filter(|(what, _)| what.starts_with("icmp")).map(|(_, ends)| ends["delivered"]).sum();
    endings.retain(|what, _| !what.starts_with("icmp"));
    assert_eq!(icmp, answers);
    assert!(icmp >= 3 * COUNT, "{icmp}");
    let expected = expected::endings(cleaned.get(), read, refused);
    assert_eq!(endings.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (what, ends) in &expected {
        assert_eq!(&endings[what], ends, "{what}");
    }
    assert_eq!(summary["every_packet_complete"], true, "{summary:#}");
    let sum = |delivered: bool| -> usize {
        let ends = endings.values().flatten().filter(|(ending, _)| (*ending == "delivered") == delivered);
        ends.map(|(_, count)| count).sum()
    };
    assert_eq!((&summary["delivered"], &summary["dropped"]), (&(sum(true) + icmp).into(), &sum(false).into()));
    let reasons = summary["drop_reasons"].as_array().unwrap();
    assert_eq!(reasons.iter().map(|reason| reason["count"].as_u64().unwrap()).sum::<u64>(), sum(false) as u64);
}

/// ICMP messages that the client has received, as the kernel counts them.
fn icmp_received() -> usize {
    let table = within(CLIENT.0, || fs::read_to_string("/proc/thread-self/net/snmp").unwrap());
    let row = table.lines().filter_map(|row| row.strip_prefix("Icmp: ")).nth(1).unwrap();
    row.split(' ').next().unwrap().parse().unwrap()
}
