//! Static forwarding entries of bridges that lead elsewhere than to the device that has the address.

use super::{DROP, Found, bridge::bridge_of, link::Detail, place::Place};
use crate::{
    survey::{Fact, Spot},
    topology::{
        Kind,
        netlink::{RouteSocket, attributes, int},
    },
    verdict::Cause,
};

// linux/rtnetlink.h, linux/neighbour.h
const RTM_NEWNEIGH: u16 = 28;
const RTM_GETNEIGH: u16 = 30;
const AF_BRIDGE: u8 = 7;
const NDA_LLADDR: u16 = 2;
const NDA_VLAN: u16 = 5;
const NDA_MASTER: u16 = 9;
/// A static entry; one that is the bridge's own has `NUD_PERMANENT`.
const NUD_NOARP: u16 = 0x40;

/// A static entry.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    port: u32,
    mac: [u8; 6],
    vlan: Option<u16>,
}

pub(super) fn facts(place: &Place<'_>, socket: &mut RouteSocket, links: &[Detail], found: &mut Found) {
    if !links.iter().any(|link| link.bridge.is_some()) {
        return;
    }
    let mut body = [0; 12]; // struct ndmsg
    body[0] = AF_BRIDGE;
    let entries = socket.dump(RTM_GETNEIGH, RTM_NEWNEIGH, &body, parse);
    for entry in found.take(place, "the forwarding entries of bridges", entries) {
        if place.matters(entry.port) {
            found.facts.extend(fact(place, &entry));
        }
    }
}

fn parse(payload: &[u8]) -> Option<Entry> {
    // struct ndmsg: family u8, pad, ifindex u32, state u16, flags u8, type u8
    let state = u16::from_ne_bytes(payload.get(8..10)?.try_into().ok()?);
    let find = |wanted| attributes(payload, 12).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    // Without a master it is an entry of the device's own, not of the bridge.
    find(NDA_MASTER)?;
    let entry = Entry {
        port: payload.get(4..8).and_then(int)?,
        mac: find(NDA_LLADDR)?.try_into().ok()?,
        vlan: find(NDA_VLAN).and_then(|value| value.try_into().ok()).map(u16::from_ne_bytes),
    };
    (state == NUD_NOARP && entry.mac[0] & 1 == 0).then_some(entry)
}

fn fact(place: &Place<'_>, entry: &Entry) -> Option<Fact> {
    let bridge = bridge_of(place, entry.port)?;
    let mac = mac_text(&entry.mac);
    // Who has the address, and by which port of this bridge it is reached, as far as both are known.
    let mut owners = place.segment.members.iter().filter_map(|key| place.topology.link(*key));
    let owner = owners.find(|link| link.mac == entry.mac && link.master.is_none());
    let port_of = |peer| Some(place.topology.ports(place.key(bridge)).find(|port| port.key == peer)?.key.ifindex);
    let why = match owner {
        Some(owner) => {
            let right = owner.peer.and_then(port_of)?;
            if right == entry.port {
                return None;
            }
            format!("its device {} is behind {}", place.topology.label(owner.key), place.name(right))
        }
        None => {
            // Behind a veth with a plain device at its end there is only that device; elsewhere may be anybody.
            let port = place.topology.link(place.key(entry.port)).filter(|port| port.kind == Kind::Veth)?;
            let end = place.topology.link(port.peer?)?;
            let stacked = place.topology.links().any(|link| link.lower == Some(end.key));
            if end.master.is_some() || stacked || end.mac == entry.mac {
                return None;
            }
            format!("the device behind it, {}, has another", place.topology.label(end.key))
        }
    };
    let (name, bridge) = (place.name(entry.port), place.name(bridge));
    let what = format!("bridge {bridge} sends frames for {mac} to {name} (static fdb entry), and {why}");
    let vlan = entry.vlan.map_or_else(String::new, |vlan| format!(" vlan {vlan}"));
    let undo = place.word(entry.port).map(|device| format!("bridge fdb del {mac} dev {device} master{vlan}"));
    Some(Fact { undo: place.undo(undo), ..place.fact(Cause::Bridge, Some(entry.port), Spot::Bridge, DROP, what) })
}

/// A hardware address as `ip` writes it.
pub(super) fn mac_text(mac: &[u8]) -> String {
    mac.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::survey::read::testkit::attribute;

    #[test]
    fn only_static_entries_of_bridges_count() {
        let message = |state: u16, master: bool, mac: [u8; 6]| {
            let mut payload = vec![AF_BRIDGE, 0, 0, 0, 7, 0, 0, 0];
            payload.extend(state.to_ne_bytes());
            payload.extend([0, 0]);
            payload.extend(attribute(NDA_LLADDR, &mac));
            payload.extend(attribute(NDA_VLAN, &3u16.to_ne_bytes()));
            payload.extend(if master { attribute(NDA_MASTER, &2u32.to_ne_bytes()) } else { Vec::new() });
            payload
        };
        let mac = [2, 0x73, 0, 0, 0, 1];
        assert_eq!(parse(&message(NUD_NOARP, true, mac)), Some(Entry { port: 7, mac, vlan: Some(3) }));
        assert_eq!(parse(&message(0x80, true, mac)), None, "the bridge's own");
        assert_eq!(parse(&message(2, true, mac)), None, "learned");
        assert_eq!(parse(&message(NUD_NOARP, false, mac)), None, "the device's own");
        assert_eq!(parse(&message(NUD_NOARP, true, [0x33, 0x33, 0, 0, 0, 1])), None, "multicast");
    }
}
