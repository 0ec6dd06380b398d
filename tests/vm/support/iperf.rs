//! Traffic of iperf3 from the lab's client to its server.

use std::process::{Command, Stdio};

use super::{
    lab::{CLIENT, SERVER, within},
    machine::{sh, wait_until},
};

/// A run with these arguments, to its good end.
pub fn run(arguments: &str) {
    let mut server = Command::new("ip");
    server.args(["netns", "exec", SERVER.0, "iperf3", "--server", "--one-off", "--bind", SERVER.1]);
    let mut server = server.stdout(Stdio::null()).spawn().unwrap();
    // Seen by its socket: a connection would be the one that it waits for.
    wait_until("iperf3 listens", || {
        let sockets = within(SERVER.0, || std::fs::read_to_string("/proc/thread-self/net/tcp").unwrap());
        sockets.contains(":1451 00000000:0000 0A")
    });
    sh(&format!("ip netns exec {} iperf3 --client {} {arguments}", CLIENT.0, SERVER.1));
    assert!(server.wait().unwrap().success());
}
