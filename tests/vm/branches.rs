//! Packets that are more than one `sk_buff` at a time: clones out of a bridge's flood, and beside a tcpdump. Each is one tree.

use std::{
    fs,
    net::{Ipv4Addr, UdpSocket},
    process::{Child, Command},
    time::Duration,
};

use crate::support::{
    lab::{CLIENT, Lab, SERVER, within},
    machine::{sh, wait_until},
    path::{at, bare, branch, bridged, into_the_bridge, ip_received, out_of_the_bridge, port, transmitted, veth},
    tracer::traced,
    traffic::{PORT, datagrams, ping},
};

/// Pairs without an address, one end in the bridge, the other nowhere. They go with the test.
pub struct MorePorts;

impl MorePorts {
    /// Six of them, once they forward.
    pub fn add() -> MorePorts {
        let more = MorePorts;
        for n in 3..=8 {
            sh(&format!(
                "ip link add p{n} type veth peer name q{n} && ip link set p{n} up master calmbr && ip link set q{n} up"
            ));
        }
        wait_until("the ports forward", || sh("bridge link show").matches("state forwarding").count() == 8);
        more
    }
}

impl Drop for MorePorts {
    fn drop(&mut self) {
        for n in 3..=8 {
            let _ = Command::new("ip").args(["link", "delete", &format!("p{n}")]).status();
        }
    }
}

#[test]
#[ignore = "needs a kernel with kprobes, as root: run by cargo xtask test"]
fn a_broadcast_over_eight_ports_is_one_packet() {
    let _lab = Lab::up("bridge");
    let _more = MorePorts::add();
    let trace = traced(&["--proto", "udp"], || {
        let receiver = within(SERVER.0, || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT)).unwrap());
        receiver.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let sender = within(CLIENT.0, || UdpSocket::bind((CLIENT.1, 0)).unwrap());
        sender.set_broadcast(true).unwrap();
        sender.send_to(b"everyone", ("78.78.0.255", PORT)).unwrap();
        assert_eq!(receiver.recv(&mut [0; 16]).unwrap(), 8);
        // What nobody reads is dropped by its softirq, maybe a little later.
        std::thread::sleep(Duration::from_millis(300));
    });
    let [packet] = &trace.packets[..] else { panic!("{trace:#?}") };
    let own_host = branch(&[
        at(&veth(2), &["netif_rx_internal", "enqueue_to_backlog", "netif_receive_skb"]),
        ip_received(&veth(2), &[]),
        bare(&["= dropped"]),
    ]);
    let strangers = (3..=8).rev().flat_map(|n| {
        let (port, end) = (format!("init/p{n}"), format!("init/q{n}"));
        [
            bare(&["skb_clone"]),
            branch(&[out_of_the_bridge(&self::port(2), &port, &end), at(&end, &["ip_rcv"]), bare(&["= dropped"])]),
        ]
        .concat()
    });
    packet.assert_told(&[
        at(&veth(2), &["ip_mc_output"]),
        bare(&["skb_clone"]),
        own_host,
        transmitted(&veth(2)),
        into_the_bridge(2),
        at(&port(2), &["br_flood"]),
        strangers.collect(),
        bare(&["skb_clone"]),
        branch(&[
            out_of_the_bridge(&port(2), &port(1), &veth(1)),
            ip_received(&veth(1), &["udp_queue_rcv_one_skb", "__udp_enqueue_schedule_skb"]),
            bare(&["= delivered copied"]),
        ]),
        at(&port(2), &["br_pass_frame_up"]),
        at("init/calmbr", &["netif_receive_skb", "ip_rcv"]),
        bare(&["= dropped"]),
    ]);
    assert_eq!(packet.verdict, "delivered");
}

/// A tcpdump in the client's namespace.
pub struct Tcpdump(Child);

impl Tcpdump {
    /// One that listens to this already.
    pub fn start(what: &str) -> Tcpdump {
        let messages = tempfile::NamedTempFile::new().unwrap();
        let mut command = Command::new("ip");
        command.args(["netns", "exec", CLIENT.0, "tcpdump", "-i", "calmveth2", "-w", "/dev/null", what]);
        let tcpdump = Tcpdump(command.stderr(messages.reopen().unwrap()).spawn().unwrap());
        wait_until("tcpdump listens", || fs::read_to_string(messages.path()).unwrap().contains("listening on"));
        tcpdump
    }
}

impl Drop for Tcpdump {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
#[ignore = "needs a kernel with kprobes, as root: run by cargo xtask test"]
fn a_tcpdump_beside_takes_a_branch() {
    let _lab = Lab::up("bridge");
    let _tcpdump = Tcpdump::start("udp or icmp");
    let trace = traced(&[], || {
        datagrams(CLIENT, SERVER, PORT, 5);
        ping(CLIENT, SERVER);
    });
    assert_eq!((trace.packets.len(), trace.summary.delivered), (7, 7));
    let [datagrams @ .., request, reply] = &trace.packets[..] else { panic!("{trace:#?}") };
    // As it is sent, between the queueing discipline and the driver.
    let sent = [
        at(&veth(2), &["ip_output", "__dev_queue_xmit"]),
        bare(&["skb_clone"]),
        branch(&[at(&veth(2), &["tpacket_rcv"]), bare(&["= tapped"])]),
        at(&veth(2), &["net_dev_start_xmit"]),
        bridged(2, 1),
    ]
    .concat();
    for datagram in datagrams {
        datagram.assert_told(&[
            sent.clone(),
            ip_received(&veth(1), &["udp_queue_rcv_one_skb", "__udp_enqueue_schedule_skb"]),
            bare(&["= delivered copied"]),
        ]);
    }
    request.assert_told(&[sent, ip_received(&veth(1), &["icmp_rcv"]), bare(&["= delivered protocol"])]);
    // As it is received, the tap looks at the packet itself and copies what it wants.
    let read: &[&str] = if reply.names().last() == Some(&"skb_clone") {
        &["skb_clone", "= delivered protocol"]
    } else {
        &["skb_copy_datagram_iter", "= delivered copied"]
    };
    reply.assert_told(&[
        at(&veth(1), &["ip_output"]),
        transmitted(&veth(1)),
        bridged(1, 2),
        at(&veth(2), &["tpacket_rcv"]),
        ip_received(&veth(2), &["icmp_rcv", "ping_rcv"]),
        bare(read),
    ]);
}
