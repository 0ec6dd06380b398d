//! What the tests of the readers have in common: attributes as the kernel writes them, and a namespace with one device.

use std::collections::{BTreeMap, BTreeSet};

use skbtrace_common::DeviceKey;

use super::place::Place;
use crate::topology::{Kind, Link, Netns, NetnsName, OperState, Topology};

/// The ifindex of the device.
pub(super) const PORT: u32 = 7;
const NETNS: u32 = 5;

/// An attribute of netlink, padded.
pub(super) fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut out = u16::try_from(4 + value.len()).unwrap().to_ne_bytes().to_vec();
    out.extend(kind.to_ne_bytes());
    out.extend(value);
    out.resize(out.len().next_multiple_of(4), 0);
    out
}

/// A link as `ip link add NAME type veth` leaves it.
pub(super) fn link(name: &str, ifindex: u32) -> Link {
    Link {
        key: DeviceKey { netns: NETNS, ifindex },
        name: name.as_bytes().to_vec(),
        alt_names: Vec::new(),
        kind: Kind::Veth,
        peer: None,
        master: None,
        lower: None,
        addrs: Vec::new(),
        mac: vec![2, 0, 0, 0, 0, ifindex as u8],
        mtu: 1500,
        up: true,
        oper_state: OperState::Up,
    }
}

/// Calls `test` with the namespace blue, whose one device has this name.
pub(super) fn with_place(name: &str, test: impl FnOnce(&Place<'_>)) {
    let netns = Netns { inum: NETNS, dev: 4, name: NetnsName::Named(b"blue".to_vec()), paths: Vec::new(), own: false };
    let link = link(name, PORT);
    let topology = Topology::from_parts([netns.clone()], [link.clone()], BTreeMap::new(), Vec::new());
    let mut segment = topology.segment(link.key);
    segment.loopbacks = BTreeSet::new();
    test(&Place::new(&topology, &segment, &netns));
}
