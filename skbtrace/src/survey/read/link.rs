//! What a dump of links says beyond what the topology keeps: XDP programs, and the settings of bridges and their ports.

use std::io;

use super::place::Place;
use crate::topology::netlink::{RouteSocket, attributes, int, push_attribute};

// linux/rtnetlink.h, linux/if_link.h
const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const IFLA_LINKINFO: u16 = 18;
const IFLA_EXT_MASK: u16 = 29;
const IFLA_XDP: u16 = 43;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_INFO_SLAVE_KIND: u16 = 4;
const IFLA_INFO_SLAVE_DATA: u16 = 5;
const IFLA_INFO_KIND: u16 = 1;
const RTEXT_FILTER_SKIP_STATS: u32 = 1 << 3;
const IFLA_XDP_ATTACHED: u16 = 2;
const IFLA_XDP_PROG_ID: u16 = 4;
const IFLA_XDP_DRV_PROG_ID: u16 = 5;
const IFLA_XDP_SKB_PROG_ID: u16 = 6;
const IFLA_XDP_HW_PROG_ID: u16 = 7;
const IFLA_BR_VLAN_FILTERING: u16 = 7;
const IFLA_BR_NF_CALL_IPTABLES: u16 = 36;
const IFLA_BR_NF_CALL_IP6TABLES: u16 = 37;
const IFLA_BR_NF_CALL_ARPTABLES: u16 = 38;
const IFLA_BRPORT_STATE: u16 = 1;
const IFLA_BRPORT_UNICAST_FLOOD: u16 = 9;
const IFLA_BRPORT_BCAST_FLOOD: u16 = 30;
const IFLA_BRPORT_ISOLATED: u16 = 33;
const IFLA_BRPORT_LOCKED: u16 = 39;

/// How an XDP program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// In the driver.
    Native,
    /// On the finished packet.
    Generic,
    /// In the card.
    Offload,
}

/// Settings of a bridge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Bridge {
    pub(super) vlan_filtering: bool,
    /// Whether bridged packets are shown to iptables, ip6tables, arptables.
    pub(super) netfilter: [bool; 3],
}

/// Settings of a bridge's port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Port {
    /// `BR_STATE_*`.
    pub(super) state: u8,
    pub(super) isolated: bool,
    pub(super) locked: bool,
    pub(super) unicast_flood: bool,
    pub(super) broadcast_flood: bool,
}

/// One device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Detail {
    pub(super) ifindex: u32,
    pub(super) xdp: Vec<(Mode, u32)>,
    pub(super) bridge: Option<Bridge>,
    pub(super) port: Option<Port>,
}

/// The devices that matter.
pub(super) fn read(socket: &mut RouteSocket, place: &Place<'_>) -> io::Result<Vec<Detail>> {
    let mut body = vec![0; 16]; // struct ifinfomsg
    push_attribute(&mut body, IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
    let mut links = socket.dump(RTM_GETLINK, RTM_NEWLINK, &body, parse)?;
    links.retain(|link| place.matters(link.ifindex));
    Ok(links)
}

fn parse(payload: &[u8]) -> Option<Detail> {
    let mut detail = Detail { ifindex: payload.get(4..8).and_then(int)?, ..Detail::default() };
    for (kind, value) in attributes(payload, 16) {
        match kind {
            IFLA_XDP => detail.xdp = xdp(value),
            IFLA_LINKINFO => {
                let find = |wanted| attributes(value, 0).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
                let is = |which, name: &[u8]| find(which).is_some_and(|kind| kind.starts_with(name));
                if is(IFLA_INFO_KIND, b"bridge\0") {
                    detail.bridge = find(IFLA_INFO_DATA).map(bridge);
                }
                if is(IFLA_INFO_SLAVE_KIND, b"bridge\0") {
                    detail.port = find(IFLA_INFO_SLAVE_DATA).map(port);
                }
            }
            _ => {}
        }
    }
    Some(detail)
}

fn xdp(value: &[u8]) -> Vec<(Mode, u32)> {
    let find = |wanted| attributes(value, 0).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    let id = |wanted| find(wanted).and_then(int);
    let each = [
        (Mode::Native, id(IFLA_XDP_DRV_PROG_ID)),
        (Mode::Generic, id(IFLA_XDP_SKB_PROG_ID)),
        (Mode::Offload, id(IFLA_XDP_HW_PROG_ID)),
    ];
    let found: Vec<_> = each.into_iter().filter_map(|(mode, id)| Some((mode, id?))).collect();
    if !found.is_empty() {
        return found;
    }
    let mode = match find(IFLA_XDP_ATTACHED).and_then(|value| value.first()) {
        Some(1) => Mode::Native,
        Some(2) => Mode::Generic,
        Some(3) => Mode::Offload,
        _ => return Vec::new(),
    };
    id(IFLA_XDP_PROG_ID).map(|id| (mode, id)).into_iter().collect()
}

fn flag(value: &[u8], wanted: u16) -> Option<bool> {
    attributes(value, 0).find(|(kind, _)| *kind == wanted).and_then(|(_, value)| value.first()).map(|byte| *byte != 0)
}

fn bridge(value: &[u8]) -> Bridge {
    let on = |wanted| flag(value, wanted).unwrap_or(false);
    Bridge {
        vlan_filtering: on(IFLA_BR_VLAN_FILTERING),
        netfilter: [IFLA_BR_NF_CALL_IPTABLES, IFLA_BR_NF_CALL_IP6TABLES, IFLA_BR_NF_CALL_ARPTABLES].map(on),
    }
}

fn port(value: &[u8]) -> Port {
    let state = attributes(value, 0).find(|(kind, _)| *kind == IFLA_BRPORT_STATE);
    Port {
        state: state.and_then(|(_, value)| value.first().copied()).unwrap_or(super::bridge::FORWARDING),
        isolated: flag(value, IFLA_BRPORT_ISOLATED).unwrap_or(false),
        locked: flag(value, IFLA_BRPORT_LOCKED).unwrap_or(false),
        unicast_flood: flag(value, IFLA_BRPORT_UNICAST_FLOOD).unwrap_or(true),
        broadcast_flood: flag(value, IFLA_BRPORT_BCAST_FLOOD).unwrap_or(true),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::survey::read::testkit::attribute;

    fn message(attributes: &[Vec<u8>]) -> Vec<u8> {
        let mut payload = vec![0; 16];
        payload[4..8].copy_from_slice(&7u32.to_ne_bytes());
        payload.extend(attributes.concat());
        payload
    }

    #[test]
    fn programs_of_xdp_are_told_apart_by_where_they_run() {
        let one = [attribute(IFLA_XDP_ATTACHED, &[2]), attribute(IFLA_XDP_PROG_ID, &5u32.to_ne_bytes())].concat();
        assert_eq!(parse(&message(&[attribute(IFLA_XDP, &one)])).unwrap().xdp, [(Mode::Generic, 5)]);
        let two = [
            attribute(IFLA_XDP_ATTACHED, &[4]),
            attribute(IFLA_XDP_DRV_PROG_ID, &6u32.to_ne_bytes()),
            attribute(IFLA_XDP_SKB_PROG_ID, &7u32.to_ne_bytes()),
        ]
        .concat();
        let both = parse(&message(&[attribute(IFLA_XDP, &two)])).unwrap().xdp;
        assert_eq!(both, [(Mode::Native, 6), (Mode::Generic, 7)]);
        assert_eq!(parse(&message(&[attribute(IFLA_XDP, &attribute(IFLA_XDP_ATTACHED, &[0]))])).unwrap().xdp, []);
    }

    #[test]
    fn a_port_says_its_state_and_a_bridge_whom_it_asks() {
        let data = [attribute(IFLA_BRPORT_STATE, &[0]), attribute(IFLA_BRPORT_ISOLATED, &[1])].concat();
        let info = [attribute(IFLA_INFO_SLAVE_KIND, b"bridge\0"), attribute(IFLA_INFO_SLAVE_DATA, &data)].concat();
        let port = parse(&message(&[attribute(IFLA_LINKINFO | 0x8000, &info)])).unwrap().port.unwrap();
        assert_eq!((port.state, port.isolated, port.locked, port.unicast_flood), (0, true, false, true));
        let data = [attribute(IFLA_BR_VLAN_FILTERING, &[1]), attribute(IFLA_BR_NF_CALL_IPTABLES, &[1])].concat();
        let info = [attribute(IFLA_INFO_KIND, b"bridge\0"), attribute(IFLA_INFO_DATA, &data)].concat();
        let bridge = parse(&message(&[attribute(IFLA_LINKINFO, &info)])).unwrap().bridge.unwrap();
        assert_eq!(bridge, Bridge { vlan_filtering: true, netfilter: [true, false, false] });
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(payload in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&payload);
        }
    }
}
