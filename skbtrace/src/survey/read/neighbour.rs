//! Neighbours: entries that lead nowhere, and devices that do not answer for their addresses.

use std::net::IpAddr;

use super::{
    DROP, Found,
    fdb::mac_text,
    place::Place,
    route::{setting, setting_of_all, sysctl_of},
};
use crate::{
    survey::{Fact, Spot},
    topology::{
        Kind, Link,
        netlink::{RouteSocket, attributes, int, ip},
    },
    verdict::Cause,
};

// linux/rtnetlink.h, linux/neighbour.h
const RTM_NEWNEIGH: u16 = 28;
const RTM_GETNEIGH: u16 = 30;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NUD_INCOMPLETE: u16 = 0x01;
const NUD_FAILED: u16 = 0x20;
const NUD_PERMANENT: u16 = 0x80;

/// An entry.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    device: u32,
    state: u16,
    address: IpAddr,
    mac: Vec<u8>,
}

pub(super) fn facts(place: &Place<'_>, socket: &mut RouteSocket, found: &mut Found) {
    let entries = socket.dump(RTM_GETNEIGH, RTM_NEWNEIGH, &[0; 12], parse); // struct ndmsg
    for entry in found.take(place, "the neighbours", entries) {
        if place.matters(entry.device) {
            found.facts.extend(fact(place, &entry));
        }
    }
    let all = setting_of_all("arp_ignore").unwrap_or_default();
    for link in place.links().filter(|link| !link.addrs.is_empty() && link.kind != Kind::Loopback) {
        found.facts.extend(arp_ignore(place, link, all.max(setting(link, "arp_ignore").unwrap_or_default())));
    }
}

fn parse(payload: &[u8]) -> Option<Entry> {
    // struct ndmsg: family u8, pad, ifindex u32, state u16, flags u8, type u8
    let find = |wanted| attributes(payload, 12).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    Some(Entry {
        device: payload.get(4..8).and_then(int)?,
        state: u16::from_ne_bytes(payload.get(8..10)?.try_into().ok()?),
        address: find(NDA_DST).and_then(ip)?,
        mac: find(NDA_LLADDR).unwrap_or_default().to_vec(),
    })
}

fn fact(place: &Place<'_>, entry: &Entry) -> Option<Fact> {
    let (name, address) = (place.name(entry.device), entry.address);
    let what = if entry.state & (NUD_FAILED | NUD_INCOMPLETE) != 0 {
        let state = if entry.state & NUD_FAILED != 0 { "FAILED" } else { "INCOMPLETE" };
        format!("neighbour {address} dev {name} {state}: nobody has answered for the address")
    } else if entry.state & NUD_PERMANENT != 0 {
        let why = wrong(place, entry)?;
        format!("neighbour {address} lladdr {} dev {name} PERMANENT: {why}", mac_text(&entry.mac))
    } else {
        return None;
    };
    let undo = place.word(entry.device).map(|device| format!("ip neigh del {address} dev {device}"));
    let fact = place.fact(Cause::Neighbour, Some(entry.device), Spot::Neighbour, DROP, what);
    Some(Fact { undo: place.undo(undo), ..fact })
}

/// What is wrong with a permanent entry, as far as the segment's own devices tell.
fn wrong(place: &Place<'_>, entry: &Entry) -> Option<String> {
    let members = || place.segment.members.iter().filter_map(|key| place.topology.link(*key));
    if entry.mac.iter().all(|byte| *byte == 0) || entry.mac.first().is_some_and(|first| first & 1 != 0) {
        return None;
    }
    let mut owners = members().filter(|link| link.addrs.contains(&entry.address)).peekable();
    let owner = owners.peek().map(|link| place.topology.label(link.key));
    if owners.any(|link| link.mac == entry.mac) {
        return None;
    }
    match (members().find(|link| link.mac == entry.mac), owner) {
        (None, Some(owner)) => Some(format!("no device of the segment has it, {owner} has another")),
        (Some(other), Some(owner)) => {
            Some(format!("that is {}, and {owner} has the address", place.topology.label(other.key)))
        }
        // Beyond a device that leads out of this host may be anybody.
        (None, None) if members().all(|link| matches!(link.kind, Kind::Veth | Kind::Bridge)) => {
            Some("no device of the segment has it".to_owned())
        }
        _ => None,
    }
}

/// From 1 on a device does not answer for addresses of other devices, at 8 for none at all.
fn arp_ignore(place: &Place<'_>, link: &Link, value: u32) -> Option<Fact> {
    if value == 0 {
        return None;
    }
    let name = link.display();
    let which = if value >= 8 { "any address" } else { "some addresses" };
    let what = format!("arp_ignore = {value} on {name}: it does not answer ARP for {which}");
    let undo = sysctl_of(link, "arp_ignore").map(|name| format!("sysctl -w {name}=0"));
    let fact = place.fact(Cause::Neighbour, Some(link.key.ifindex), Spot::Neighbour, DROP, what);
    Some(Fact { undo: place.undo(undo), ..fact })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::survey::read::testkit::{PORT, attribute, with_place};

    fn entry(state: u16, mac: &[u8]) -> Entry {
        let mut payload = vec![2, 0, 0, 0];
        payload.extend(PORT.to_ne_bytes());
        payload.extend(state.to_ne_bytes());
        payload.extend([0, 1]);
        payload.extend(attribute(NDA_DST, &[78, 78, 0, 12]));
        payload.extend(if mac.is_empty() { Vec::new() } else { attribute(NDA_LLADDR, mac) });
        parse(&payload).unwrap()
    }

    #[test]
    fn entries_that_lead_nowhere_are_facts_and_those_that_may_be_right_are_none() {
        with_place("veth0", |place| {
            let told = |state, mac: &[u8]| fact(place, &entry(state, mac)).map(|fact| fact.what);
            assert_eq!(
                told(NUD_FAILED, &[]).as_deref(),
                Some("neighbour 78.78.0.12 dev veth0 FAILED: nobody has answered for the address")
            );
            assert_eq!(
                told(NUD_PERMANENT, &[2, 0x73, 0, 0, 0, 0x99]).as_deref(),
                Some(
                    "neighbour 78.78.0.12 lladdr 02:73:00:00:00:99 dev veth0 PERMANENT: no device of the segment has it"
                )
            );
            assert_eq!(told(NUD_PERMANENT, &[2, 0, 0, 0, 0, PORT as u8]), None, "a device's, and nobody's address");
            assert_eq!(told(2, &[2, 0, 0, 0, 0, 0x99]), None, "learned");
        });
    }
}
