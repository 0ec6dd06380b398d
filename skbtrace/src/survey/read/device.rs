//! Devices themselves: XDP programs on them, devices that are down, and MTUs that do not fit together.

use super::{DROP, Found, GARBLE, REWRITE, bpf::Programs, link::Detail, link::Mode, place::Place};
use crate::{
    survey::{Fact, Spot},
    topology::{Kind, Link},
    verdict::Cause,
};

pub(super) fn facts(place: &Place<'_>, links: &[Detail], programs: &mut Programs, found: &mut Found) {
    for link in links {
        found.facts.extend(link.xdp.iter().map(|(mode, id)| xdp(place, link.ifindex, *mode, *id, programs)));
    }
    for link in place.links() {
        found.facts.extend(down(place, link));
        found.facts.extend(mtu_of_peer(place, link));
        found.facts.extend(mtu_of_port(place, link));
    }
}

fn xdp(place: &Place<'_>, ifindex: u32, mode: Mode, id: u32, programs: &mut Programs) -> Fact {
    let (called, flag, spot) = match mode {
        Mode::Native => ("native", "xdpdrv", Spot::Xdp),
        Mode::Generic => ("generic", "xdpgeneric", Spot::Ingress),
        Mode::Offload => ("offloaded", "xdpoffload", Spot::Xdp),
    };
    let what = format!("XDP program {}, {called}", programs.describe(id));
    let undo = place.word(ifindex).map(|device| format!("ip link set dev {device} {flag} off"));
    let fact = place.fact(Cause::Xdp, Some(ifindex), spot, GARBLE | DROP | REWRITE, what);
    Fact { undo: place.undo(undo), ..fact }
}

/// A device that is set down. Of a bridge's port it is the bridge that has nobody to send to.
fn down(place: &Place<'_>, link: &Link) -> Option<Fact> {
    if link.up {
        return None;
    }
    let ifindex = link.key.ifindex;
    let bridge = link.master.filter(|master| place.topology.link(*master).is_some_and(|it| it.kind == Kind::Bridge));
    let (cause, spot, what) = match bridge {
        Some(bridge) => {
            let what = format!("port {} of bridge {} is down", link.display(), place.name(bridge.ifindex));
            (Cause::Bridge, Spot::Bridge, what)
        }
        None => (Cause::Device, Spot::Device, format!("{} is down", link.display())),
    };
    let undo = place.word(ifindex).map(|device| format!("ip link set dev {device} up"));
    Some(Fact { undo: place.undo(undo), ..place.fact(cause, Some(ifindex), spot, DROP, what) })
}

/// A veth drops what is longer than its other end takes, and it is the sending end where that shows.
fn mtu_of_peer(place: &Place<'_>, link: &Link) -> Option<Fact> {
    let peer = place.topology.link(link.peer?).filter(|peer| peer.mtu < link.mtu)?;
    let name = place.topology.label(peer.key);
    let what = format!("MTU of {} is {}, that of its other end {name} is {}", link.display(), link.mtu, peer.mtu);
    let there = Place::new(place.topology, place.segment, place.topology.netns(peer.key.netns)?);
    let undo = there.word(peer.key.ifindex).map(|device| format!("ip link set dev {device} mtu {}", link.mtu));
    let fact = place.fact(Cause::Device, Some(link.key.ifindex), Spot::Device, DROP, what);
    Some(Fact { undo: there.undo(undo), ..fact })
}

/// A bridge drops what is longer than the port takes that it is for.
fn mtu_of_port(place: &Place<'_>, link: &Link) -> Option<Fact> {
    let bridge = place.topology.link(link.master?).filter(|bridge| bridge.kind == Kind::Bridge)?;
    let largest = place.topology.ports(bridge.key).map(|port| port.mtu).max()?;
    if link.mtu >= largest {
        return None;
    }
    let (name, bridge, mtu) = (link.display(), bridge.display(), link.mtu);
    let what = format!("MTU of {name} is {mtu}, that of another port of bridge {bridge} is {largest}");
    let ifindex = link.key.ifindex;
    let undo = place.word(ifindex).map(|device| format!("ip link set dev {device} mtu {largest}"));
    let fact = place.fact(Cause::Device, Some(ifindex), Spot::Device, DROP, what);
    Some(Fact { undo: place.undo(undo), ..fact })
}
