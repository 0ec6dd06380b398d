//! Topologies made by hand for the pure parts, and the netlink parts on real namespaces.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use proptest::prelude::*;
use skbtrace_common::DeviceKey;

use super::{Kind, Link, Netns, NetnsName, OperState, Segment, Topology, Unreadable, watch};

pub(super) fn plain_link(key: DeviceKey, name: &str) -> Link {
    Link {
        key,
        name: name.as_bytes().to_vec(),
        alt_names: Vec::new(),
        kind: Kind::Physical,
        peer: None,
        master: None,
        lower: None,
        addrs: Vec::new(),
        mac: Vec::new(),
        mtu: 1500,
        up: true,
        oper_state: OperState::Up,
    }
}

/// A topology made by hand. The initial namespace has number 0, the others count from 1; each begins with a `lo`.
#[derive(Debug, Clone, Default)]
pub(super) struct Made {
    netns: Vec<Netns>,
    links: BTreeMap<DeviceKey, Link>,
    unreadable: Vec<Unreadable>,
}

impl Made {
    pub(super) fn new() -> Self {
        let mut made = Self::default();
        made.add_netns(NetnsName::Init, "/proc/1/ns/net".into());
        made
    }

    pub(super) fn netns(&mut self, name: &str) -> u32 {
        self.add_netns(NetnsName::Named(name.as_bytes().to_vec()), format!("/run/netns/{name}"))
    }

    fn add_netns(&mut self, name: NetnsName, path: String) -> u32 {
        let inum = u32::try_from(self.netns.len()).unwrap();
        self.netns.push(Netns { inum, dev: 4, name, paths: vec![path.into()], own: inum == 0 });
        let lo = self.add(inum, "lo", Kind::Loopback);
        self.edit(lo, |link| link.addrs.push("127.0.0.1".parse().unwrap()));
        inum
    }

    fn add(&mut self, netns: u32, name: &str, kind: Kind) -> DeviceKey {
        let last = self.links.keys().filter(|key| key.netns == netns).map(|key| key.ifindex).max();
        let key = DeviceKey { netns, ifindex: last.unwrap_or(0) + 1 };
        self.links.insert(key, Link { kind, ..plain_link(key, name) });
        key
    }

    pub(super) fn edit(&mut self, key: DeviceKey, edit: impl FnOnce(&mut Link)) {
        edit(self.links.get_mut(&key).unwrap());
    }

    pub(super) fn nic(&mut self, name: &str) -> DeviceKey {
        self.add(0, name, Kind::Physical)
    }

    pub(super) fn bridge(&mut self, name: &str) -> DeviceKey {
        self.add(0, name, Kind::Bridge)
    }

    pub(super) fn other(&mut self, name: &str, kind: &str) -> DeviceKey {
        self.add(0, name, Kind::Other(kind.into()))
    }

    pub(super) fn lone_veth(&mut self, name: &str) -> DeviceKey {
        self.add(0, name, Kind::Veth)
    }

    pub(super) fn veth(&mut self, a: (u32, &str), b: (u32, &str)) -> (DeviceKey, DeviceKey) {
        let (a, b) = (self.add(a.0, a.1, Kind::Veth), self.add(b.0, b.1, Kind::Veth));
        self.edit(a, |link| link.peer = Some(b));
        self.edit(b, |link| link.peer = Some(a));
        (a, b)
    }

    pub(super) fn vlan(&mut self, name: &str, lower: &str) -> DeviceKey {
        let lower = self.key(lower);
        let key = self.add(lower.netns, name, Kind::Vlan);
        self.set_lower(key, lower);
        key
    }

    pub(super) fn set_lower(&mut self, key: DeviceKey, lower: DeviceKey) {
        self.edit(key, |link| link.lower = Some(lower));
    }

    pub(super) fn set_master(&mut self, port: DeviceKey, master: DeviceKey) {
        self.edit(port, |link| link.master = Some(master));
    }

    pub(super) fn unset_master(&mut self, port: DeviceKey) {
        self.edit(port, |link| link.master = None);
    }

    fn address(&mut self, key: DeviceKey, addr: &str) {
        self.edit(key, |link| link.addrs.push(addr.parse().unwrap()));
    }

    pub(super) fn unreadable(&mut self, what: Unreadable) {
        self.unreadable.push(what);
    }

    pub(super) fn topology(&self) -> Topology {
        let processes = self.netns.iter().map(|netns| (100 + netns.inum, netns.inum)).collect();
        Topology::from_parts(self.netns.clone(), self.links.values().cloned(), processes, self.unreadable.clone())
    }

    pub(super) fn key(&self, name: &str) -> DeviceKey {
        self.topology().find(name, None).unwrap().key
    }

    pub(super) fn segment(&self, name: &str) -> Segment {
        self.topology().segment(self.key(name))
    }

    pub(super) fn line(&self, name: &str) -> String {
        self.segment(name).line(&self.topology())
    }

    pub(super) fn members(&self, name: &str) -> BTreeSet<String> {
        self.segment(name).members.iter().map(|key| self.topology().label(*key)).collect()
    }
}

/// Two namespaces, each on a port of one bridge.
pub(super) fn seed_bridge() -> Made {
    let mut made = Made::new();
    let bridge = made.bridge("calmbr");
    for (n, addr) in [(1, "78.78.0.10"), (2, "78.78.0.11")] {
        let netns = made.netns(&format!("ns-calm{n}"));
        let (inner, port) = made.veth((netns, &format!("calmveth{n}")), (0, &format!("calmveth{n}_peer")));
        made.address(inner, addr);
        made.set_master(port, bridge);
    }
    made
}

/// Two namespaces joined by one veth pair.
pub(super) fn seed_pair() -> Made {
    let mut made = Made::new();
    let (one, two) = (made.netns("ns-calm1"), made.netns("ns-calm2"));
    let (a, b) = made.veth((one, "calmveth1"), (two, "calmveth2"));
    made.address(a, "78.78.0.10");
    made.address(b, "78.78.0.11");
    made
}

/// Bridges, veth pairs and VLANs joined at random, loops and all.
pub(super) fn any_topology() -> impl Strategy<Value = Made> {
    let pairs = proptest::collection::vec((0u32..3, 0u32..3, 0usize..5, 0usize..5), 0..10);
    let vlans = proptest::collection::vec(0usize..20, 0..4);
    (0usize..4, pairs, vlans).prop_map(|(bridges, pairs, vlans)| {
        let mut made = Made::new();
        made.netns("n1");
        made.netns("n2");
        let bridges: Vec<DeviceKey> = (0..bridges).map(|n| made.bridge(&format!("br{n}"))).collect();
        for (n, (a, b, a_master, b_master)) in pairs.into_iter().enumerate() {
            let ends = made.veth((a, &format!("v{n}a")), (b, &format!("v{n}b")));
            for (end, master) in [(ends.0, a_master), (ends.1, b_master)] {
                if let Some(bridge) = bridges.get(master).filter(|_| end.netns == 0) {
                    made.set_master(end, *bridge);
                }
            }
        }
        let below: Vec<DeviceKey> = made.links.keys().copied().collect();
        for (n, lower) in vlans.into_iter().enumerate() {
            let lower = below[lower % below.len()];
            let key = made.add(lower.netns, &format!("vlan{n}"), Kind::Vlan);
            made.set_lower(key, lower);
        }
        made
    })
}

/// Real namespaces with names of their own, gone again at the end of the test, also of one that fails.
struct Real(Vec<String>);

impl Real {
    /// `None`, with the reason printed, where this test may not make namespaces.
    fn new(count: usize) -> Option<Self> {
        static TESTS: AtomicU32 = AtomicU32::new(0);
        let test = TESTS.fetch_add(1, Ordering::Relaxed);
        let mut real = Self(Vec::new());
        for n in 0..count {
            let name = format!("skbt-{}-{test}-{n}", std::process::id());
            let made = Command::new("ip").args(["netns", "add", &name]).output();
            match made {
                Ok(output) if output.status.success() => real.0.push(name),
                Ok(output) => {
                    eprintln!("skipped: no leave to make namespaces: {}", String::from_utf8_lossy(&output.stderr));
                    return None;
                }
                Err(error) => {
                    eprintln!("skipped: cannot run ip: {error}");
                    return None;
                }
            }
        }
        Some(real)
    }

    /// Runs `ip`. `@0` stands for the first namespace's name.
    fn ip(&self, command: &str) {
        let mut command = command.to_owned();
        for (n, name) in self.0.iter().enumerate() {
            command = command.replace(&format!("@{n}"), name);
        }
        let status = Command::new("ip").args(command.split_whitespace()).status().unwrap();
        assert!(status.success(), "ip {command}");
    }

    /// The label of a device, with `@0` for the first namespace's name.
    fn short(&self, label: &str) -> String {
        self.0.iter().enumerate().fold(label.to_owned(), |text, (n, name)| text.replace(name, &format!("@{n}")))
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        for name in &self.0 {
            let _ = Command::new("ip").args(["netns", "del", name]).status();
        }
    }
}

#[test]
fn real_peers_are_told_apart_although_all_their_numbers_are_the_same() {
    let Some(real) = Real::new(4) else { return };
    // Every end of the first two pairs has ifindex 2, names ifindex 2 and namespace id 0; likewise 3 and 1 for the others.
    real.ip("-n @0 link add name a type veth peer name b netns @1");
    real.ip("-n @2 link add name c type veth peer name d netns @3");
    real.ip("-n @0 link add name e type veth peer name f netns @2");
    real.ip("-n @1 link add name g type veth peer name h netns @3");
    let topology = Topology::read().unwrap();
    let mut pairs = Vec::new();
    for link in topology.links() {
        let (label, peer) = (real.short(&topology.label(link.key)), link.peer.map(|peer| topology.label(peer)));
        if label.starts_with('@') && link.kind == Kind::Veth {
            pairs.push(format!("{label} {} {}", link.key.ifindex, real.short(&peer.unwrap_or_default())));
        }
    }
    pairs.sort();
    let expected = [
        "@0/a 2 @1/b",
        "@0/e 3 @2/f",
        "@1/b 2 @0/a",
        "@1/g 3 @3/h",
        "@2/c 2 @3/d",
        "@2/f 3 @0/e",
        "@3/d 2 @2/c",
        "@3/h 3 @1/g",
    ];
    assert_eq!(pairs, expected);
}

#[test]
fn a_real_bridge_with_addresses_is_read_whole() {
    let Some(real) = Real::new(3) else { return };
    real.ip("-n @0 link add name br type bridge");
    real.ip("-n @0 link add name p1 master br type veth peer name v1 netns @1");
    real.ip("-n @0 link add name p2 master br type veth peer name v2 netns @2");
    real.ip("-n @1 link set v1 mtu 1400 address 02:00:00:00:00:01 up");
    real.ip("-n @1 addr add 192.0.2.1/24 dev v1");
    real.ip("-n @1 addr add 2001:db8::1/64 dev v1 nodad");
    real.ip("-n @2 link property add dev v2 altname the-second-one");
    let topology = Topology::read().unwrap();

    let v1 = topology.find("v1", Some(&real.0[1])).unwrap();
    assert_eq!((v1.mtu, v1.up), (1400, true));
    // Its peer is down. Which word a kernel has for that differs.
    assert_ne!(v1.oper_state, OperState::Up);
    assert_eq!(v1.mac, [2, 0, 0, 0, 0, 1]);
    let global: Vec<IpAddr> = ["192.0.2.1", "2001:db8::1"].map(|addr| addr.parse().unwrap()).into();
    assert_eq!(v1.addrs.iter().filter(|addr| global.contains(addr)).count(), 2, "{:?}", v1.addrs);

    let v2 = topology.find("the-second-one", Some(&real.0[2])).unwrap();
    assert_eq!(v2.name, b"v2");
    let line = topology.segment(v1.key).line(&topology);
    assert_eq!(real.short(&line), "@2/v2 ═ @0/p2 ─[@0/br]─ @0/p1 ═ @1/v1");
    let loopbacks: Vec<String> = topology.segment(v1.key).loopbacks.iter().map(|key| topology.label(*key)).collect();
    assert_eq!(loopbacks, [format!("{}/lo", real.0[1])]);
}

#[test]
fn a_namespace_that_only_a_process_holds_is_found_and_its_own_is_called_init_or_by_name() {
    let Some(real) = Real::new(1) else { return };
    let child = Command::new("unshare").args(["--net", "sleep", "60"]).spawn();
    let Ok(mut child) = child else { return eprintln!("skipped: cannot run unshare") };
    // It is in its own namespace once it has become sleep.
    let comm = format!("/proc/{}/comm", child.id());
    while std::fs::read(&comm).is_ok_and(|comm| comm != b"sleep\n") {
        std::thread::sleep(Duration::from_millis(5));
    }
    let topology = Topology::read();
    child.kill().unwrap();
    child.wait().unwrap();
    let topology = topology.unwrap();
    let spec = format!("pid:{}", child.id());
    let netns = topology.find_netns(&spec).unwrap();
    assert_eq!(netns.name, NetnsName::Process { pid: child.id(), comm: b"sleep".to_vec() });
    assert!(!netns.own);
    assert_eq!(topology.links_in(netns.inum).map(Link::display).next().as_deref(), Some("lo"));
    assert_eq!(topology.all_netns().filter(|netns| netns.own).count(), 1);
    assert_eq!(topology.find_netns(&real.0[0]).unwrap().name, NetnsName::Named(real.0[0].clone().into_bytes()));
}

#[test]
fn namespaces_that_come_and_go_while_they_are_read_are_no_errors() {
    let Some(real) = Real::new(1) else { return };
    let stop = AtomicU32::new(0);
    let name = format!("{}-fleeting", real.0[0]);
    let seen = std::thread::scope(|scope| {
        scope.spawn(|| {
            while stop.load(Ordering::Relaxed) == 0 {
                for verb in ["add", "del"] {
                    Command::new("ip").args(["netns", verb, &name]).status().unwrap();
                }
            }
        });
        let read: Vec<_> = (0..100).map(|_| Topology::read()).collect();
        stop.store(1, Ordering::Relaxed);
        read
    });
    for topology in seen {
        let topology = topology.unwrap();
        // Processes that may not be looked at are another matter.
        let refused: Vec<_> = topology.unreadable().iter().filter(|one| one.inum.is_some()).collect();
        assert_eq!(refused, Vec::<&Unreadable>::new());
        assert!(topology.find("lo", Some(&real.0[0])).is_ok());
    }
}

#[test]
fn a_change_in_a_watched_namespace_is_told_and_one_elsewhere_is_not() {
    let Some(real) = Real::new(2) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let topology = Topology::read().unwrap();
    let inum = topology.find_netns(&real.0[0]).unwrap().inum;
    runtime.block_on(async {
        let watch = watch(&topology, &BTreeSet::from([inum])).unwrap();
        assert_eq!(watch.watched(), &BTreeSet::from([inum]));
        real.ip("-n @1 link add name br type bridge");
        let told = tokio::time::timeout(Duration::from_millis(300), watch.changed()).await;
        assert!(told.is_err(), "nothing has changed there");
        real.ip("-n @0 link add name br type bridge");
        tokio::time::timeout(Duration::from_secs(20), watch.changed()).await.expect("a new link is a change");
        let newer = Topology::read().unwrap();
        let added: Vec<String> = topology.diff(&newer).added.into_iter().map(|key| newer.label(key)).collect();
        assert!(added.contains(&format!("{}/br", real.0[0])), "{added:?}");
    });
}
