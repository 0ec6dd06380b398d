//! A lab that is quiet, and gone at the end of the test whatever happens.
//!
//! Quiet: neighbours, and the bridge's ports to them, are known for ever and IPv6 is off, so that the only packets are those that a test sends.

use std::{
    fs,
    process::Command,
    thread::sleep,
    time::{Duration, Instant},
};

use skbtrace::lab::netns::{self, Found};

use super::{
    machine::{ours, sh, sysctl},
    tracer::PROGRAM,
};

/// The server's namespace and address.
pub const SERVER: (&str, &str) = ("ns-calm1", "78.78.0.10");
/// The client's namespace and address.
pub const CLIENT: (&str, &str) = ("ns-calm2", "78.78.0.11");

/// A lab that is up.
pub struct Lab;

impl Lab {
    /// Without IPv6.
    pub fn up(scenario: &str) -> Lab {
        Lab::build(scenario, false)
    }

    /// With fd00::10 and fd00::11 beside the IPv4 addresses.
    pub fn up_with_ipv6(scenario: &str) -> Lab {
        let lab = Lab::build(scenario, true);
        for (netns, device, own, other, mac) in
            [("ns-calm1", "calmveth1", "fd00::10", "fd00::11", 2), ("ns-calm2", "calmveth2", "fd00::11", "fd00::10", 1)]
        {
            sh(&format!("ip -n {netns} address add {own}/64 dev {device} nodad"));
            neighbour(netns, device, other, mac);
        }
        lab
    }

    fn build(scenario: &str, ipv6: bool) -> Lab {
        ours();
        // For the bridge and its ports.
        sysctl("net/ipv6/conf/default/disable_ipv6", "1");
        let lab = Lab;
        let done = Command::new(PROGRAM).args(["lab", "up", scenario]).output().unwrap();
        assert!(done.status.success(), "lab up {scenario}: {done:?}");
        if !ipv6 {
            within(SERVER.0, || sysctl("net/ipv6/conf/all/disable_ipv6", "1"));
        }
        if scenario != "loopback" {
            if !ipv6 {
                within(CLIENT.0, || sysctl("net/ipv6/conf/all/disable_ipv6", "1"));
            }
            neighbour("ns-calm1", "calmveth1", CLIENT.1, 2);
            neighbour("ns-calm2", "calmveth2", SERVER.1, 1);
        }
        if scenario == "bridge" {
            for n in [1, 2] {
                // Else it would flood what is for one that it has not heard of yet.
                let mac = sh(&format!("ip netns exec ns-calm{n} cat /sys/class/net/calmveth{n}/address"));
                sh(&format!("bridge fdb replace {} dev calmveth{n}_peer master static", mac.trim()));
            }
        }
        if !ipv6 {
            settle();
        }
        lab
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let done = Command::new(PROGRAM).args(["lab", "down"]).output();
        if !std::thread::panicking() {
            let done = done.unwrap();
            assert!(done.status.success(), "lab down: {done:?}");
        }
    }
}

/// Waits until the last words of IPv6, which was on for a moment, have passed: tests count every packet of a device.
fn settle() {
    let mut last = None;
    let mut since = Instant::now();
    while since.elapsed() < Duration::from_secs(1) {
        let now = device_packets(SERVER.0, "calmveth1");
        if last.replace(now) != Some(now) {
            since = Instant::now();
        }
        sleep(Duration::from_millis(50));
    }
}

/// Makes an address known for ever: that of the veth with this number.
pub fn neighbour(netns: &str, device: &str, address: &str, mac: u8) {
    sh(&format!(
        "ip -n {netns} neighbour replace {address} lladdr 02:73:6b:62:74:{mac:02x} dev {device} nud permanent"
    ));
}

/// Runs `work` on a thread inside a namespace.
pub fn within<T: Send>(name: &str, work: impl FnOnce() -> T + Send) -> T {
    use std::os::fd::AsFd as _;
    let Found::Namespace(namespace) = netns::find(name).unwrap() else { panic!("no namespace {name}") };
    netns::inside(namespace.as_fd(), work).unwrap()
}

/// The number of a device of the namespace that the thread is in.
pub fn ifindex(device: &str) -> u32 {
    let name = std::ffi::CString::new(device).unwrap();
    // SAFETY: a string that ends in NUL and outlives the call.
    let ifindex = unsafe { nix::libc::if_nametoindex(name.as_ptr()) };
    assert_ne!(ifindex, 0, "no {device}");
    ifindex
}

/// Packets that a device has received and sent, as the kernel counts them.
pub fn device_packets(netns: &str, device: &str) -> u64 {
    let table = within(netns, || fs::read_to_string("/proc/thread-self/net/dev").unwrap());
    let row = table.lines().find_map(|line| line.trim().strip_prefix(device)?.strip_prefix(':')).unwrap();
    let number = |column: usize| row.split_whitespace().nth(column).unwrap().parse::<u64>().unwrap();
    number(1) + number(9)
}
