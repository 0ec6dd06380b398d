//! Packets that are none of the trace's, at addresses that its packets had. TCP frees what it has taken without a tracepoint, so that
//! the kernel side still has the address when somebody else's packet gets it.

use std::{
    io::{Read as _, Write as _},
    net::UdpSocket,
    process::Command,
};

use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};
use socket2::SockRef;

use super::traced;
use crate::support::{
    lab::{Lab, within},
    machine::sh,
    traffic::{PORT, connection, server},
};

/// A bridge with four ports in a namespace of its own, and who talks to it from another.
struct Strangers;

/// Where the bridge is, and where the talker.
const NETNS: [&str; 2] = ["strangers", "stranger"];

impl Strangers {
    fn up() -> Strangers {
        let strangers = Strangers;
        sh("ip netns add strangers && ip netns add stranger && ip -n strangers link add other type bridge && \
            ip -n strangers link set other up && \
            ip -n strangers link add port0 type veth peer name talker netns stranger && \
            ip -n stranger address add 10.99.0.1/24 brd + dev talker && ip -n stranger link set talker up");
        for n in 1..4 {
            sh(&format!(
                "ip -n strangers link add port{n} type veth peer name end{n} && ip -n strangers link set end{n} up"
            ));
        }
        for n in 0..4 {
            sh(&format!("ip -n strangers link set port{n} up master other"));
        }
        strangers
    }
}

impl Drop for Strangers {
    fn drop(&mut self) {
        for netns in NETNS {
            let _ = Command::new("ip").args(["netns", "delete", netns]).status();
        }
    }
}

#[test]
#[ignore = "needs a real kernel, as root: run by cargo xtask test"]
fn what_another_bridge_floods_is_not_followed() {
    const ROUNDS: usize = 3_000;
    let _lab = Lab::up("bridge");
    let _strangers = Strangers::up();
    // One CPU has all of it, and gives the address that was freed last.
    let mut cpu = CpuSet::new();
    cpu.set(0).unwrap();
    sched_setaffinity(Pid::from_raw(0), &cpu).unwrap();
    let trace = traced(&["--ring-size", "256M"], || {
        let (mut client, mut peer) = connection(server(PORT));
        let talker = within(NETNS[1], || UdpSocket::bind("10.99.0.1:0").unwrap());
        talker.set_broadcast(true).unwrap();
        for _ in 0..ROUNDS {
            // An ACK for each byte: its sk_buff comes from where the bridge's clones do.
            SockRef::from(&peer).set_tcp_quickack(true).unwrap();
            client.write_all(b"q").unwrap();
            peer.read_exact(&mut [0]).unwrap();
            talker.send_to(b"everyone", "10.99.0.255:9").unwrap();
        }
    });
    assert!(trace.packets.len() > ROUNDS * 3 / 2, "{} packets: too few ACKs", trace.packets.len());
    for packet in &trace.packets {
        for hop in packet.hops.iter().chain(packet.branches.iter().flat_map(|branch| &branch.hops)) {
            assert!(hop.device.as_ref().is_none_or(|device| device.name.starts_with("calm")), "{packet:#?}");
        }
    }
}
