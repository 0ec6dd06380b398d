//! Bridges and their ports: states, isolation, VLANs, and whether a bridge asks netfilter about what it forwards.

use std::{collections::BTreeMap, fs, io};

use super::{DROP, Found, NOTHING, REWRITE, link::Detail, place::Place};
use crate::{
    survey::{Fact, Spot},
    topology::netlink::{RouteSocket, attributes, int, push_attribute},
    verdict::Cause,
};

// linux/rtnetlink.h, linux/if_bridge.h
const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const AF_BRIDGE: u8 = 7;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_EXT_MASK: u16 = 29;
const IFLA_BRIDGE_VLAN_INFO: u16 = 2;
const RTEXT_FILTER_BRVLAN: u32 = 1 << 1;
const VLAN_PVID: u16 = 1 << 1;
const VLAN_UNTAGGED: u16 = 1 << 2;
/// `BR_STATE_FORWARDING`; the states below it pass nothing.
pub(super) const FORWARDING: u8 = 3;

pub(super) fn facts(place: &Place<'_>, socket: &mut RouteSocket, links: &[Detail], found: &mut Found) {
    for link in links {
        ports(place, link, links, found);
    }
    if links.iter().any(|link| link.bridge.is_some_and(|bridge| bridge.vlan_filtering)) {
        let sets = found.take(place, "the VLANs of bridges", vlan_sets(socket));
        vlans(place, links, &sets, found);
    }
}

/// The bridge that a device is a port of.
pub(super) fn bridge_of(place: &Place<'_>, ifindex: u32) -> Option<u32> {
    Some(place.topology.link(place.key(ifindex))?.master?.ifindex)
}

fn ports(place: &Place<'_>, link: &Detail, all: &[Detail], found: &mut Found) {
    let (Some(port), Some(bridge)) = (link.port, bridge_of(place, link.ifindex)) else { return };
    let up = place.topology.link(place.key(link.ifindex)).is_none_or(|link| link.up);
    let (name, bridge_name) = (place.name(link.ifindex), place.name(bridge));
    let mut add = |what: String, setting: Option<&str>| {
        let device = place.word(link.ifindex);
        let undo = setting.and_then(|setting| Some(format!("bridge link set dev {} {setting}", device?)));
        let fact = place.fact(Cause::Bridge, Some(link.ifindex), Spot::Bridge, DROP, what);
        found.facts.push(Fact { undo: place.undo(undo), ..fact });
    };
    // A port that is down has been told of as that, and a bridge that is down disables all of its ports.
    let bridge_up = place.topology.link(place.key(bridge)).is_none_or(|bridge| bridge.up);
    if port.state != FORWARDING && up && bridge_up {
        let state = match port.state {
            0 => "disabled",
            1 => "listening",
            2 => "learning",
            _ => "blocking",
        };
        // A link without carrier disables its port, and no command forwards there.
        let carrier = place.topology.link(place.key(link.ifindex)).is_none_or(passes);
        let why = if carrier { "" } else { ", its other end is down" };
        let setting = Some("state forwarding").filter(|_| carrier);
        add(format!("port {name} of bridge {bridge_name} is {state}{why}"), setting);
    }
    let isolated = |other: &&Detail| {
        other.port.is_some_and(|port| port.isolated) && bridge_of(place, other.ifindex) == Some(bridge)
    };
    // One alone may still talk to all others.
    if port.isolated && all.iter().filter(isolated).count() > 1 {
        let what = format!("port {name} of bridge {bridge_name} is isolated from its other isolated ports");
        add(what, Some("isolated off"));
    }
    if port.locked {
        let what = format!("port {name} of bridge {bridge_name} is locked: it takes frames from known senders only");
        add(what, Some("locked off"));
    }
    if !port.unicast_flood {
        let what = format!("port {name} of bridge {bridge_name} is not flooded with frames for unknown receivers");
        add(what, Some("flood on"));
    }
    if !port.broadcast_flood {
        let what = format!("port {name} of bridge {bridge_name} gets no broadcasts, and so no ARP");
        add(what, Some("bcast_flood on"));
    }
}

fn passes(link: &crate::topology::Link) -> bool {
    use crate::topology::OperState;
    matches!(link.oper_state, OperState::Up | OperState::Unknown)
}

/// A VLAN of a port, and its flags.
type Vlan = (u16, u16);

fn vlan_sets(socket: &mut RouteSocket) -> io::Result<BTreeMap<u32, Vec<Vlan>>> {
    let mut body = vec![0; 16]; // struct ifinfomsg
    body[0] = AF_BRIDGE;
    push_attribute(&mut body, IFLA_EXT_MASK, RTEXT_FILTER_BRVLAN);
    let sets = socket.dump(RTM_GETLINK, RTM_NEWLINK, &body, |payload| {
        let ifindex = payload.get(4..8).and_then(int)?;
        Some((ifindex, vlan_set(payload)))
    })?;
    Ok(sets.into_iter().collect())
}

fn vlan_set(payload: &[u8]) -> Vec<Vlan> {
    let spec = attributes(payload, 16).find(|(kind, _)| *kind == IFLA_AF_SPEC).map(|(_, value)| value);
    let entries = attributes(spec.unwrap_or_default(), 0).filter(|(kind, _)| *kind == IFLA_BRIDGE_VLAN_INFO);
    entries
        .filter_map(|(_, value)| match value {
            // struct bridge_vlan_info: flags, vid
            [f0, f1, v0, v1] => Some((u16::from_ne_bytes([*v0, *v1]), u16::from_ne_bytes([*f0, *f1]))),
            _ => None,
        })
        .collect()
}

/// `1 pvid untagged, 10`, the first few.
fn vlan_text(set: &[Vlan]) -> String {
    const SHOWN: usize = 8;
    let one = |(vid, flags): &Vlan| {
        let pvid = if flags & VLAN_PVID != 0 { " pvid" } else { "" };
        let untagged = if flags & VLAN_UNTAGGED != 0 { " untagged" } else { "" };
        format!("{vid}{pvid}{untagged}")
    };
    let mut shown: Vec<String> = set.iter().take(SHOWN).map(one).collect();
    if set.len() > SHOWN {
        shown.push(format!("{} more", set.len() - SHOWN));
    }
    shown.join(", ")
}

/// A bridge that filters by VLAN is a fact, and each port whose VLANs are not those of the others.
fn vlans(place: &Place<'_>, links: &[Detail], sets: &BTreeMap<u32, Vec<Vlan>>, found: &mut Found) {
    let empty = Vec::new();
    for bridge in links.iter().filter(|link| link.bridge.is_some_and(|bridge| bridge.vlan_filtering)) {
        let ports: Vec<_> =
            links.iter().filter(|link| bridge_of(place, link.ifindex) == Some(bridge.ifindex)).collect();
        let set = |ifindex: u32| sets.get(&ifindex).unwrap_or(&empty);
        let undo =
            place.word(bridge.ifindex).map(|name| format!("ip link set dev {name} type bridge vlan_filtering 0"));
        let what = format!("bridge {} filters by VLAN", place.name(bridge.ifindex));
        let fact = place.fact(Cause::Bridge, Some(bridge.ifindex), Spot::Bridge, DROP | REWRITE, what);
        found.facts.push(Fact { undo: place.undo(undo.clone()), ..fact });
        let same = ports.iter().all(|port| ports.first().is_some_and(|first| set(first.ifindex) == set(port.ifindex)));
        if same && ports.iter().all(|port| !set(port.ifindex).is_empty()) {
            continue;
        }
        for port in ports {
            let vlans = match set(port.ifindex).as_slice() {
                [] => "no VLAN".to_owned(),
                set => format!("VLAN {}", vlan_text(set)),
            };
            let name = place.name(bridge.ifindex);
            let what = format!("port {} of bridge {name}, which filters, is in {vlans}", place.name(port.ifindex));
            let fact = place.fact(Cause::Bridge, Some(port.ifindex), Spot::Bridge, DROP, what);
            found.facts.push(Fact { undo: place.undo(undo.clone()), ..fact });
        }
    }
}

/// What br_netfilter can show bridged packets to.
const NETFILTER: [&str; 3] = ["iptables", "ip6tables", "arptables"];

/// A bridge that shows what it forwards to the rules for routed packets, where there is any rule that could do something.
pub(super) fn netfilter(place: &Place<'_>, links: &[Detail], rules: &[Fact], found: &mut Found) {
    let of = |spots: &[Spot]| {
        rules.iter().filter(|rule| spots.contains(&rule.spot)).fold(NOTHING, |all, rule| all | rule.effects)
    };
    let ip = of(&[Spot::Prerouting, Spot::Forward, Spot::Postrouting]);
    let asked = [ip, ip, of(&[Spot::Neighbour])];
    for link in links {
        let Some(bridge) = link.bridge else { continue };
        for ((tool, own), effects) in NETFILTER.into_iter().zip(bridge.netfilter).zip(asked) {
            if effects == NOTHING {
                continue;
            }
            let sysctl = format!("net.bridge.bridge-nf-call-{tool}");
            let everywhere = fs::read_to_string(format!("/proc/sys/{}", sysctl.replace('.', "/")));
            // Without br_netfilter the settings of bridges mean nothing.
            let Ok(everywhere) = everywhere else { continue };
            let name = place.name(link.ifindex);
            let (why, undo) = if everywhere.trim() != "0" {
                (format!("{sysctl} = 1"), Some(format!("sysctl -w {sysctl}=0")))
            } else if own {
                let device = place.word(link.ifindex);
                let undo = device.map(|device| format!("ip link set dev {device} type bridge nf_call_{tool} 0"));
                (format!("nf_call_{tool} 1"), undo)
            } else {
                continue;
            };
            let what = format!("bridge {name} shows what it forwards to {tool}, as if it were routed ({why})");
            let fact = place.fact(Cause::Bridge, Some(link.ifindex), Spot::Bridge, effects, what);
            found.facts.push(Fact { undo: place.undo(undo), ..fact });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::survey::read::testkit::attribute;

    #[test]
    fn vlans_are_read_with_their_flags_and_shown_as_bridge_does() {
        let info =
            |vid: u16, flags: u16| attribute(IFLA_BRIDGE_VLAN_INFO, &[flags.to_ne_bytes(), vid.to_ne_bytes()].concat());
        let mut payload = vec![0; 16];
        let spec = [info(1, VLAN_PVID | VLAN_UNTAGGED), info(10, 0)].concat();
        payload.extend(attribute(IFLA_AF_SPEC | 0x8000, &spec));
        let set = vlan_set(&payload);
        assert_eq!(set, [(1, VLAN_PVID | VLAN_UNTAGGED), (10, 0)]);
        assert_eq!(vlan_text(&set), "1 pvid untagged, 10");
        let many: Vec<Vlan> = (1..=10).map(|vid| (vid, 0)).collect();
        assert_eq!(vlan_text(&many), "1, 2, 3, 4, 5, 6, 7, 8, 2 more");
    }
}
