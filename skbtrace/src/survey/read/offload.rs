//! Offloads of devices that stand otherwise than usual. They do nothing to a packet by themselves, but they say why a checksum
//! was looked at, a packet cut or merged, where nobody would expect it: the rules cite them as evidence.
//!
//! All devices of a namespace at once, from the kernel's ethtool family of generic netlink, by the socket that the other
//! readers have too: a library for it brings a second netlink stack and a runtime. Bridges and VLANs take their offloads
//! from the devices below, and only these are told of.

use std::{collections::BTreeSet, io};

use netlink_sys::protocols::NETLINK_GENERIC;

use super::{Found, NOTHING, place::Place};
use crate::{
    host::KernelVersion,
    survey::{Fact, Spot},
    topology::{
        Kind, Link,
        netlink::{RouteSocket, attributes, int, text},
    },
    verdict::Cause,
};

// linux/genetlink.h, linux/ethtool_netlink.h
const GENL_ID_CTRL: u16 = 16;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
const ETHTOOL_MSG_FEATURES_GET: u8 = 11;
const ETHTOOL_A_FEATURES_HEADER: u16 = 1;
const ETHTOOL_A_FEATURES_HW: u16 = 2;
const ETHTOOL_A_FEATURES_ACTIVE: u16 = 4;
const ETHTOOL_A_HEADER_DEV_INDEX: u16 = 1;
const ETHTOOL_A_BITSET_NOMASK: u16 = 1;
const ETHTOOL_A_BITSET_BITS: u16 = 3;
const ETHTOOL_A_BITSET_BIT_NAME: u16 = 2;
const ETHTOOL_A_BITSET_BIT_VALUE: u16 = 3;
const NESTED: u16 = 0x8000;
/// Before every message: command, version, two bytes of nothing.
const HEADER_LEN: usize = 4;

/// From here on GRO on a veth means that it receives by a NAPI of its own; before that it means nothing there.
const VETH_GRO: KernelVersion = KernelVersion { major: 5, minor: 13 };

/// An offload.
struct Offload {
    /// The kernel's names for what it consists of.
    features: &'static [&'static str],
    usually: bool,
    /// Whether it does something on a veth, and on other devices.
    on: (bool, bool),
    /// Its name, and its word, to ethtool.
    name: &'static str,
    word: &'static str,
    /// What it means that it is not as usual.
    means: &'static str,
}

const OFFLOADS: [Offload; 7] = [
    Offload {
        features: &["tx-checksum-ip-generic", "tx-checksum-ipv4", "tx-checksum-ipv6"],
        usually: true,
        on: (true, true),
        name: "tx-checksumming",
        word: "tx",
        means: "checksums are completed before its driver, over what has changed until then, and of a change behind it \
                the receiver's checksum tells",
    },
    Offload {
        features: &["rx-checksum"],
        usually: true,
        // A veth passes on what the sender said of the checksum, whatever this says.
        on: (false, true),
        name: "rx-checksumming",
        word: "rx",
        means: "the kernel itself checks what it receives",
    },
    Offload {
        features: &["tx-tcp-segmentation", "tx-tcp6-segmentation"],
        usually: true,
        on: (true, true),
        name: "tcp-segmentation-offload",
        word: "tso",
        means: "large packets of TCP are cut before its driver",
    },
    Offload {
        features: &["tx-generic-segmentation"],
        usually: true,
        on: (true, true),
        name: "generic-segmentation-offload",
        word: "gso",
        means: "what is too large for it is cut earlier, or never made",
    },
    Offload {
        features: &["rx-gro"],
        usually: false,
        on: (true, false),
        name: "generic-receive-offload",
        word: "gro",
        means: "it receives by a NAPI of its own: packets that are not already large wait in its ring, which can be full, and \
                segments are merged",
    },
    Offload {
        features: &["rx-gro-list"],
        usually: false,
        on: (true, true),
        name: "rx-gro-list",
        word: "rx-gro-list",
        means: "datagrams of a flow are merged into a list",
    },
    Offload {
        features: &["rx-udp-gro-forwarding"],
        usually: false,
        on: (true, true),
        name: "rx-udp-gro-forwarding",
        word: "rx-udp-gro-forwarding",
        means: "datagrams of a flow are merged, also those that are not for this host",
    },
];

/// What a device can do and does.
#[derive(Debug, Default, PartialEq, Eq)]
struct Features {
    ifindex: u32,
    changeable: BTreeSet<Vec<u8>>,
    active: BTreeSet<Vec<u8>>,
}

pub(super) fn facts(place: &Place<'_>, found: &mut Found) {
    let devices = found.take(place, "the offloads", read());
    let version = KernelVersion::parse(&rustix::system::uname().release().to_string_lossy());
    let veth_gro = version.is_none_or(|version| version >= VETH_GRO);
    for features in devices {
        let Some(link) = place.links().find(|link| link.key.ifindex == features.ifindex) else { continue };
        found.facts.extend(unusual(place, link, &features, veth_gro));
    }
}

fn read() -> io::Result<Vec<Features>> {
    let mut socket = RouteSocket::open_protocol(NETLINK_GENERIC)?;
    let families = socket.dump(GENL_ID_CTRL, GENL_ID_CTRL, &[CTRL_CMD_GETFAMILY, 1, 0, 0], parse_family)?;
    // A kernel that was built without it has no other way that is asked here.
    let Some(ethtool) = families.into_iter().next() else { return Ok(Vec::new()) };
    // Of all devices: an empty header, which kernels before 6.10 or so insist on.
    let [low, high] = (NESTED | ETHTOOL_A_FEATURES_HEADER).to_ne_bytes();
    socket.dump(ethtool, ethtool, &[ETHTOOL_MSG_FEATURES_GET, 1, 0, 0, 4, 0, low, high], parse)
}

/// The number of the family ethtool.
fn parse_family(payload: &[u8]) -> Option<u16> {
    let find = |wanted| attributes(payload, HEADER_LEN).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    (text(find(CTRL_ATTR_FAMILY_NAME)?) == b"ethtool").then_some(())?;
    Some(u16::from_ne_bytes(find(CTRL_ATTR_FAMILY_ID)?.try_into().ok()?))
}

fn parse(payload: &[u8]) -> Option<Features> {
    let mut features = Features::default();
    for (kind, value) in attributes(payload, HEADER_LEN) {
        match kind {
            ETHTOOL_A_FEATURES_HEADER => {
                let index = attributes(value, 0).find(|(kind, _)| *kind == ETHTOOL_A_HEADER_DEV_INDEX);
                features.ifindex = index.and_then(|(_, value)| int(value))?;
            }
            ETHTOOL_A_FEATURES_HW => features.changeable = bits(value),
            ETHTOOL_A_FEATURES_ACTIVE => features.active = bits(value),
            _ => {}
        }
    }
    (features.ifindex != 0).then_some(features)
}

/// The names of the bits that are set. A set without a mask lists these alone, another one all that it knows.
fn bits(set: &[u8]) -> BTreeSet<Vec<u8>> {
    let alone = attributes(set, 0).any(|(kind, _)| kind == ETHTOOL_A_BITSET_NOMASK);
    let list = attributes(set, 0).find(|(kind, _)| *kind == ETHTOOL_A_BITSET_BITS).map(|(_, list)| list);
    let bits = attributes(list.unwrap_or_default(), 0).filter_map(|(_, bit)| {
        let find = |wanted| attributes(bit, 0).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
        (alone || find(ETHTOOL_A_BITSET_BIT_VALUE).is_some()).then_some(())?;
        find(ETHTOOL_A_BITSET_BIT_NAME).map(text)
    });
    bits.collect()
}

fn unusual(place: &Place<'_>, link: &Link, features: &Features, veth_gro: bool) -> Vec<Fact> {
    if matches!(link.kind, Kind::Bridge | Kind::Vlan | Kind::Loopback) {
        return Vec::new();
    }
    let veth = link.kind == Kind::Veth;
    let matters =
        |offload: &&Offload| (if veth { offload.on.0 } else { offload.on.1 }) && (offload.word != "gro" || veth_gro);
    let ifindex = link.key.ifindex;
    let fact = |offload: &Offload| {
        let any = |set: &BTreeSet<Vec<u8>>| offload.features.iter().any(|name| set.contains(name.as_bytes()));
        // What a device cannot do it is not expected to do.
        if any(&features.active) == offload.usually || !any(&features.changeable) {
            return None;
        }
        let (now, then) = if offload.usually { ("off", "on") } else { ("on", "off") };
        let what = format!("{} of {} is {now}: {}", offload.name, place.topology.label(link.key), offload.means);
        let undo = place.word(ifindex).map(|device| format!("ethtool -K {device} {} {then}", offload.word));
        let fact = place.fact(Cause::Device, Some(ifindex), Spot::Device, NOTHING, what);
        Some(Fact { undo: place.undo(undo), ..fact })
    };
    OFFLOADS.iter().filter(matters).filter_map(fact).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::survey::read::testkit::{PORT, attribute, with_place};

    fn set(alone: bool, bits: &[(&str, bool)]) -> Vec<u8> {
        let bit = |(name, on): &(&str, bool)| {
            let name = attribute(ETHTOOL_A_BITSET_BIT_NAME, format!("{name}\0").as_bytes());
            let value = if *on && !alone { attribute(ETHTOOL_A_BITSET_BIT_VALUE, b"") } else { Vec::new() };
            attribute(1 | 0x8000, &[name, value].concat())
        };
        let mask = if alone { attribute(ETHTOOL_A_BITSET_NOMASK, b"") } else { Vec::new() };
        [mask, attribute(ETHTOOL_A_BITSET_BITS | 0x8000, &bits.iter().map(bit).collect::<Vec<_>>().concat())].concat()
    }

    fn message(changeable: &[(&str, bool)], active: &[&str]) -> Vec<u8> {
        let active: Vec<_> = active.iter().map(|name| (*name, true)).collect();
        [
            vec![ETHTOOL_MSG_FEATURES_GET, 1, 0, 0],
            attribute(ETHTOOL_A_FEATURES_HEADER, &attribute(ETHTOOL_A_HEADER_DEV_INDEX, &PORT.to_ne_bytes())),
            attribute(ETHTOOL_A_FEATURES_HW, &set(false, changeable)),
            attribute(ETHTOOL_A_FEATURES_ACTIVE, &set(true, &active)),
        ]
        .concat()
    }

    fn told(payload: &[u8], veth_gro: bool) -> Vec<String> {
        let features = parse(payload).unwrap();
        let mut lines = Vec::new();
        with_place("veth0", |place| {
            let link = place.links().next().unwrap();
            let facts = unusual(place, link, &features, veth_gro);
            assert!(facts.iter().all(|fact| fact.effects == NOTHING));
            lines = facts.into_iter().map(|fact| fact.undo.unwrap()).collect();
        });
        lines
    }

    const ALL: [(&str, bool); 6] = [
        ("tx-checksum-ip-generic", true),
        ("tx-checksum-ipv4", false),
        ("tx-tcp-segmentation", true),
        ("tx-generic-segmentation", true),
        ("rx-checksum", true),
        ("rx-gro", true),
    ];
    const USUAL: [&str; 4] =
        ["tx-checksum-ip-generic", "tx-tcp-segmentation", "tx-generic-segmentation", "rx-checksum"];

    #[test]
    fn what_is_as_usual_is_no_fact() {
        assert_eq!(told(&message(&ALL, &USUAL), true), [""; 0]);
    }

    #[test]
    fn what_is_not_as_usual_is_one_and_can_be_set_right() {
        assert_eq!(
            told(&message(&ALL, &["tx-generic-segmentation", "rx-checksum", "rx-gro"]), true),
            [
                "ip netns exec blue ethtool -K veth0 tx on",
                "ip netns exec blue ethtool -K veth0 tso on",
                "ip netns exec blue ethtool -K veth0 gro off"
            ]
        );
    }

    #[test]
    fn what_means_nothing_there_is_none() {
        // What the device cannot do, rx on a veth, and GRO on a veth of a kernel that has no NAPI for it.
        assert_eq!(told(&message(&ALL[4..], &["rx-gro"]), false), [""; 0]);
    }

    #[test]
    fn the_family_is_known_by_its_name() {
        let family = |name: &[u8]| {
            let id = attribute(CTRL_ATTR_FAMILY_ID, &21u16.to_ne_bytes());
            [vec![1, 2, 0, 0], attribute(CTRL_ATTR_FAMILY_NAME, name), id].concat()
        };
        assert_eq!(parse_family(&family(b"ethtool\0")), Some(21));
        assert_eq!(parse_family(&family(b"nlctrl\0")), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(payload in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = (parse(&payload), parse_family(&payload));
        }
    }
}
