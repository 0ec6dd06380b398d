//! Addresses that two machines of the segment have: whoever answers ARP first gets the packets.

use std::net::IpAddr;

use super::{DROP, Found, place::Place};
use crate::{survey::Spot, topology::Link, verdict::Cause};

/// Each device here that has an address which a device of the segment in another namespace has too.
pub(super) fn facts(place: &Place<'_>, found: &mut Found) {
    let members = || place.segment.members.iter().filter_map(|key| place.topology.link(*key));
    for link in members().filter(|link| link.key.netns == place.inum) {
        for address in link.addrs.iter().filter(|address| is_one_machine_s(address)) {
            let also = |other: &&Link| other.key.netns != place.inum && other.addrs.contains(address);
            let Some(other) = members().find(also) else { continue };
            let name = link.display();
            let what = format!("address {address} is on {name} and on {} too", place.topology.label(other.key));
            // Which of the two is wrong nobody here can know: there is no command to offer.
            found.facts.push(place.fact(Cause::Neighbour, Some(link.key.ifindex), Spot::Neighbour, DROP, what));
        }
    }
}

fn is_one_machine_s(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local(),
        IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local(),
    }
}
