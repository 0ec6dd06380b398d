//! The segment of an interface: all devices that a packet through it can cross without being routed, and the addresses
//! that tell which loopback traffic belongs to it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use skbtrace_common::DeviceKey;

use super::{Kind, Topology};

/// The devices around one interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// The interface that it is the segment of.
    pub target: DeviceKey,
    /// All devices that frames pass between: the interface, its peer, the bridge, the bridge's ports, their peers, and
    /// so on over further bridges; VLAN devices and what they lie on.
    pub members: BTreeSet<DeviceKey>,
    /// The loopback devices of all namespaces where a member has an address.
    pub loopbacks: BTreeSet<DeviceKey>,
    /// The members' addresses, with the inode number of their namespace. A packet between two of one namespace goes
    /// through its loopback device and never touches a member.
    pub addrs: BTreeSet<(u32, IpAddr)>,
}

/// What has to be added and removed for one segment to become another.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SegmentChange {
    /// Members to add.
    pub members_added: BTreeSet<DeviceKey>,
    /// Members to remove.
    pub members_removed: BTreeSet<DeviceKey>,
    /// Loopback devices to add.
    pub loopbacks_added: BTreeSet<DeviceKey>,
    /// Loopback devices to remove.
    pub loopbacks_removed: BTreeSet<DeviceKey>,
    /// Addresses to add.
    pub addrs_added: BTreeSet<(u32, IpAddr)>,
    /// Addresses to remove.
    pub addrs_removed: BTreeSet<(u32, IpAddr)>,
}

impl SegmentChange {
    /// Whether nothing has to be done.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Segment {
    /// What has to be done for this segment to become `newer`.
    #[must_use]
    pub fn diff(&self, newer: &Self) -> SegmentChange {
        fn minus<T: Ord + Clone>(a: &BTreeSet<T>, b: &BTreeSet<T>) -> BTreeSet<T> {
            a.difference(b).cloned().collect()
        }
        SegmentChange {
            members_added: minus(&newer.members, &self.members),
            members_removed: minus(&self.members, &newer.members),
            loopbacks_added: minus(&newer.loopbacks, &self.loopbacks),
            loopbacks_removed: minus(&self.loopbacks, &newer.loopbacks),
            addrs_added: minus(&newer.addrs, &self.addrs),
            addrs_removed: minus(&self.addrs, &newer.addrs),
        }
    }

    /// The namespaces, by inode number, in which the segment has a member.
    #[must_use]
    pub fn netns(&self) -> BTreeSet<u32> {
        self.members.iter().map(|member| member.netns).collect()
    }
}

impl Topology {
    /// The segment of `target`. Of a device that is not in the topology it is the device alone.
    #[must_use]
    pub fn segment(&self, target: DeviceKey) -> Segment {
        let members = self.joined_to(target);
        let addrs: BTreeSet<(u32, IpAddr)> = members
            .iter()
            .filter_map(|key| self.link(*key))
            .flat_map(|link| link.addrs.iter().map(|addr| (link.key.netns, *addr)))
            .collect();
        let with_address: BTreeSet<u32> = addrs.iter().map(|(netns, _)| *netns).collect();
        let loopbacks = with_address
            .into_iter()
            .flat_map(|netns| self.links_in(netns))
            .filter(|link| link.kind == Kind::Loopback)
            .map(|link| link.key)
            .collect();
        Segment { target, members, loopbacks, addrs }
    }

    /// All devices that frames can reach from `start`, in either direction.
    fn joined_to(&self, start: DeviceKey) -> BTreeSet<DeviceKey> {
        // Whom a device names is in its link; who names it has to be turned round once.
        let mut joined: BTreeMap<DeviceKey, Vec<DeviceKey>> = BTreeMap::new();
        let mut join = |a: DeviceKey, b: DeviceKey| {
            joined.entry(a).or_default().push(b);
            joined.entry(b).or_default().push(a);
        };
        for link in self.links() {
            if let Some(peer) = link.peer {
                join(link.key, peer);
            }
            if let Some(master) = link.master.and_then(|key| self.link(key)).filter(|master| master.kind.joins_ports())
            {
                join(link.key, master.key);
            }
            if let Some(lower) = link.lower.filter(|_| link.kind.lies_on_lower()) {
                join(link.key, lower);
            }
        }
        let mut reached = BTreeSet::from([start]);
        let mut next = vec![start];
        while let Some(key) = next.pop() {
            for neighbour in joined.get(&key).into_iter().flatten() {
                if reached.insert(*neighbour) {
                    next.push(*neighbour);
                }
            }
        }
        reached
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use crate::topology::tests::{Made, any_topology, seed_bridge, seed_pair};

    #[test]
    fn the_seeds_bridge_is_one_segment_from_every_device_of_it() {
        let made = seed_bridge();
        let all = ["calmbr", "calmveth1_peer", "calmveth2_peer", "ns-calm1/calmveth1", "ns-calm2/calmveth2"];
        for name in all {
            assert_eq!(made.members(name), BTreeSet::from(all.map(String::from)), "{name}");
        }
        let segment = made.segment("calmveth1");
        let loopbacks: Vec<String> = segment.loopbacks.iter().map(|key| made.topology().label(*key)).collect();
        assert_eq!(loopbacks, ["ns-calm1/lo", "ns-calm2/lo"], "init's has no address on the segment");
        let addrs: Vec<String> = segment.addrs.iter().map(|(netns, addr)| format!("{netns} {addr}")).collect();
        assert_eq!(addrs, ["1 78.78.0.10", "2 78.78.0.11"]);
    }

    #[test]
    fn the_seeds_pair_has_no_bridge_and_no_other_device() {
        let names = ["ns-calm1/calmveth1", "ns-calm2/calmveth2"].map(String::from);
        assert_eq!(seed_pair().members("calmveth1"), BTreeSet::from(names));
    }

    #[test]
    fn a_vrf_does_not_join_its_ports_and_a_tunnel_not_what_it_lies_on() {
        let mut made = Made::new();
        let vrf = made.other("vrf0", "vrf");
        let (a, b) = (made.nic("a"), made.nic("b"));
        made.set_master(a, vrf);
        made.set_master(b, vrf);
        let tunnel = made.other("vx0", "vxlan");
        made.set_lower(tunnel, a);
        assert_eq!(made.members("a"), BTreeSet::from(["a".to_owned()]));
        assert_eq!(made.members("vx0"), BTreeSet::from(["vx0".to_owned()]));
    }

    #[test]
    fn a_change_is_what_has_to_be_added_and_removed() {
        let mut made = seed_bridge();
        let before = made.segment("calmveth1");
        let netns = made.netns("ns-calm3");
        let (inner, port) = made.veth((netns, "calmveth3"), (0, "calmveth3_peer"));
        made.set_master(port, made.key("calmbr"));
        made.unset_master(made.key("calmveth2_peer"));
        let change = before.diff(&made.segment("calmveth1"));
        assert_eq!(change.members_added, BTreeSet::from([inner, port]));
        assert_eq!(change.members_removed, BTreeSet::from([made.key("calmveth2_peer"), made.key("calmveth2")]));
        assert_eq!(change.addrs_removed, BTreeSet::from([(2, "78.78.0.11".parse().unwrap())]));
        assert_eq!((change.addrs_added.len(), change.loopbacks_added.len(), change.loopbacks_removed.len()), (0, 0, 1));
        assert!(before.diff(&before).is_empty());
    }

    proptest! {
        #[test]
        fn every_member_has_the_same_segment(made in any_topology()) {
            let topology = made.topology();
            for link in topology.links() {
                let segment = topology.segment(link.key);
                prop_assert!(segment.members.contains(&link.key));
                for member in &segment.members {
                    prop_assert_eq!(&topology.segment(*member).members, &segment.members);
                }
            }
        }
    }
}
