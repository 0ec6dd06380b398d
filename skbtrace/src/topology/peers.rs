//! Which veth is the other end of which, and which device a VLAN lies on.
//!
//! A link names its other end by ifindex (`IFLA_LINK`) and, when that lies in another namespace, by the id that the
//! link's own namespace gave to that one (`IFLA_LINK_NETNSID`). Both numbers start anew in each namespace: on a host
//! with 500 containers, 500 links have ifindex 2 and namespace id 0. So candidates are links that name each other, and
//! the kernel is asked which of their namespaces is the one meant (`RTM_GETNSID`), even when there is but one candidate:
//! the true one may be in a namespace that was not found.

use std::collections::{BTreeMap, HashMap};

use skbtrace_common::DeviceKey;

use super::Link;

/// A link as netlink shows it, before its other end is known.
#[derive(Debug, Clone)]
pub(super) struct RawLink {
    pub(super) link: Link,
    /// `IFLA_LINK`: ifindex of the other end or of the device below.
    pub(super) iflink: Option<u32>,
    /// `IFLA_LINK_NETNSID`: where `iflink` is; `None` when in the same namespace.
    pub(super) link_nsid: Option<i32>,
}

/// The id of one namespace as seen from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Nsid {
    /// The id.
    Is(i32),
    /// It has none: so nothing seen from there lies in it.
    Unassigned,
    /// It cannot be asked: gone, or not allowed.
    Unknown,
}

/// Answers what one namespace calls another, both given by inode number.
pub(super) trait Nsids {
    fn nsid(&mut self, seen_from: u32, of: u32) -> Nsid;
}

/// Fills in `peer` and `lower` of all links.
pub(super) fn resolve(raw: Vec<RawLink>, nsids: &mut impl Nsids) -> BTreeMap<DeviceKey, Link> {
    let raw: BTreeMap<DeviceKey, RawLink> = raw.into_iter().map(|raw| (raw.link.key, raw)).collect();
    let mut by_ifindex: HashMap<u32, Vec<&RawLink>> = HashMap::new();
    for link in raw.values() {
        by_ifindex.entry(link.link.key.ifindex).or_default().push(link);
    }
    let mut peers: HashMap<DeviceKey, DeviceKey> = HashMap::new();
    let mut lowers: HashMap<DeviceKey, DeviceKey> = HashMap::new();
    for link in raw.values() {
        let key = link.link.key;
        // A pair in two namespaces with the same ifindex in both: kernels may leave IFLA_LINK out.
        let other = match (link.iflink, link.link_nsid) {
            (Some(0), _) | (None, None) => continue,
            (Some(ifindex), _) => ifindex,
            (None, Some(_)) => key.ifindex,
        };
        let there = by_ifindex.get(&other).map(Vec::as_slice).unwrap_or_default();
        if link.link.kind.is_paired() {
            if peers.contains_key(&key) {
                continue;
            }
            let mutual = there.iter().filter(|there| names_back(link, there) && !peers.contains_key(&there.link.key));
            if let Some(peer) = choose(link, mutual.copied(), nsids) {
                peers.insert(key, peer);
                peers.insert(peer, key);
            }
        } else if let Some(lower) = choose(link, there.iter().copied(), nsids).filter(|lower| *lower != key) {
            lowers.insert(key, lower);
        }
    }
    raw.values()
        .map(|raw| {
            let key = raw.link.key;
            let (peer, lower) = (peers.get(&key).copied(), lowers.get(&key).copied());
            (key, Link { peer, lower, ..raw.link.clone() })
        })
        .collect()
}

/// Whether `there`, which has the ifindex that `link` names, names `link` in turn, and both agree on whether a namespace
/// lies between them.
fn names_back(link: &RawLink, there: &RawLink) -> bool {
    let key = link.link.key;
    let back = there.iflink.or(there.link_nsid.map(|_| there.link.key.ifindex));
    there.link.kind == link.link.kind
        && there.link.key != key
        && back == Some(key.ifindex)
        && there.link_nsid.is_some() == link.link_nsid.is_some()
}

/// The one of `candidates` that is in the namespace which `link` means.
fn choose<'a>(
    link: &RawLink,
    candidates: impl Iterator<Item = &'a RawLink>,
    nsids: &mut impl Nsids,
) -> Option<DeviceKey> {
    let here = link.link.key.netns;
    let Some(wanted) = link.link_nsid else {
        return candidates.map(|there| there.link.key).find(|there| there.netns == here);
    };
    let mut unknown = Vec::new();
    for there in candidates.filter(|there| there.link.key.netns != here) {
        let key = there.link.key;
        match nsids.nsid(here, key.netns) {
            Nsid::Is(id) if id == wanted => return Some(key),
            Nsid::Is(_) | Nsid::Unassigned => {}
            Nsid::Unknown => unknown.push(there),
        }
    }
    // From here it cannot be told. A veth's other end may tell from there; failing that, a single candidate is taken.
    let mut open = Vec::new();
    for there in unknown {
        let Some(back) = there.link_nsid.filter(|_| link.link.kind.is_paired()) else {
            open.push(there.link.key);
            continue;
        };
        match nsids.nsid(there.link.key.netns, here) {
            Nsid::Is(id) if id == back => return Some(there.link.key),
            Nsid::Is(_) | Nsid::Unassigned => {}
            Nsid::Unknown => open.push(there.link.key),
        }
    }
    match open.as_slice() {
        [only] => Some(*only),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::topology::Kind;
    use crate::topology::tests::plain_link;

    /// What each namespace calls each other, as the kernel would know it.
    #[derive(Debug, Clone, Default)]
    struct Truth {
        ids: BTreeMap<(u32, u32), i32>,
        silent: BTreeSet<u32>,
    }

    impl Truth {
        /// The id of `of` in `seen_from`: given in the order of first need, from 0, as the kernel does.
        fn assign(&mut self, seen_from: u32, of: u32) -> i32 {
            let next = self.ids.keys().filter(|(from, _)| *from == seen_from).count();
            *self.ids.entry((seen_from, of)).or_insert(i32::try_from(next).unwrap())
        }
    }

    impl Nsids for Truth {
        fn nsid(&mut self, seen_from: u32, of: u32) -> Nsid {
            match self.ids.get(&(seen_from, of)) {
                _ if self.silent.contains(&seen_from) => Nsid::Unknown,
                Some(id) => Nsid::Is(*id),
                None => Nsid::Unassigned,
            }
        }
    }

    fn key(netns: u32, ifindex: u32) -> DeviceKey {
        DeviceKey { netns, ifindex }
    }

    fn raw(key: DeviceKey, kind: Kind, other: DeviceKey, truth: &mut Truth) -> RawLink {
        let link_nsid = (other.netns != key.netns).then(|| truth.assign(key.netns, other.netns));
        RawLink { link: Link { kind, ..plain_link(key, "x") }, iflink: Some(other.ifindex), link_nsid }
    }

    fn pair(a: DeviceKey, b: DeviceKey, truth: &mut Truth) -> [RawLink; 2] {
        [raw(a, Kind::Veth, b, truth), raw(b, Kind::Veth, a, truth)]
    }

    fn peers_of(links: &BTreeMap<DeviceKey, Link>) -> BTreeMap<DeviceKey, DeviceKey> {
        links.values().filter_map(|link| Some((link.key, link.peer?))).collect()
    }

    #[test]
    fn one_candidate_that_the_kernel_denies_is_no_peer() {
        // 1 and 2 are each joined to a namespace of their own that was not found. Their numbers fit each other.
        let mut truth = Truth::default();
        let mut found = vec![raw(key(1, 2), Kind::Veth, key(8, 2), &mut truth)];
        found.push(raw(key(2, 2), Kind::Veth, key(9, 2), &mut truth));
        assert_eq!(peers_of(&resolve(found, &mut truth)), BTreeMap::new());
    }

    #[test]
    fn where_one_side_cannot_be_asked_the_other_decides() {
        let mut truth = Truth::default();
        let mut found: Vec<RawLink> = pair(key(1, 2), key(3, 2), &mut truth).into();
        found.extend(pair(key(2, 2), key(4, 2), &mut truth));
        truth.silent.extend([1, 2]);
        let peers = peers_of(&resolve(found, &mut truth));
        assert_eq!(peers.get(&key(1, 2)), Some(&key(3, 2)));
        assert_eq!(peers.get(&key(2, 2)), Some(&key(4, 2)));
    }

    #[test]
    fn where_nobody_can_be_asked_only_a_single_candidate_is_taken() {
        let mut truth = Truth::default();
        let mut found: Vec<RawLink> = pair(key(1, 2), key(2, 5), &mut truth).into();
        truth.silent.extend(1..=9);
        assert_eq!(peers_of(&resolve(found.clone(), &mut truth)).get(&key(1, 2)), Some(&key(2, 5)));
        found.extend(pair(key(3, 2), key(4, 5), &mut truth));
        assert_eq!(peers_of(&resolve(found, &mut truth)), BTreeMap::new());
    }

    #[test]
    fn the_device_below_is_found_here_and_in_another_namespace() {
        let mut truth = Truth::default();
        let mut found = vec![raw(key(1, 3), Kind::Vlan, key(1, 2), &mut truth)];
        found.push(raw(key(2, 3), Kind::Vlan, key(1, 2), &mut truth));
        for netns in 1..=3 {
            let link = plain_link(key(netns, 2), "eth0");
            found.push(RawLink { link, iflink: None, link_nsid: None });
        }
        let links = resolve(found, &mut truth);
        assert_eq!(links[&key(1, 3)].lower, Some(key(1, 2)));
        assert_eq!(links[&key(2, 3)].lower, Some(key(1, 2)));
    }

    proptest! {
        /// Pairs between few namespaces, so that ifindexes and ids collide; some namespaces are never found.
        #[test]
        fn all_peers_are_found_and_none_is_wrong(
            ends in proptest::collection::vec((1u32..7, 1u32..7), 1..25),
            hidden in proptest::collection::btree_set(1u32..7, 0..3),
        ) {
            let mut truth = Truth::default();
            let mut next: BTreeMap<u32, u32> = BTreeMap::new();
            let mut take = |netns| {
                let ifindex = next.entry(netns).or_insert(1);
                *ifindex += 1;
                key(netns, *ifindex)
            };
            let mut found = Vec::new();
            let mut expected = BTreeMap::new();
            for (a, b) in ends {
                let (a, b) = (take(a), take(b));
                found.extend(pair(a, b, &mut truth));
                if !hidden.contains(&a.netns) && !hidden.contains(&b.netns) {
                    expected.extend([(a, b), (b, a)]);
                }
            }
            found.retain(|raw| !hidden.contains(&raw.link.key.netns));
            prop_assert_eq!(peers_of(&resolve(found, &mut truth)), expected);
        }
    }
}
