//! What is there, what is missing and what is in the way: pure functions over what `observe` saw, so that every half
//! built lab can be had in a test without building one.

use std::{fmt, net::Ipv4Addr};

use serde::Serialize;

use super::{End, LAYOUTS, Layout, MAC_PREFIX, MARK, PREFIX_LEN, Place, Scenario};
use crate::name::printable;

/// A network device as observed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Device {
    /// Its name.
    pub name: String,
    /// Its ifindex, unique in its namespace only.
    pub index: u32,
    /// Its MAC address.
    pub mac: Vec<u8>,
    /// Its alias.
    pub alias: Option<String>,
    /// Its kind, as `ip -d link` calls it: veth, bridge.
    pub kind: Option<String>,
    /// Whether it is set up (`IFF_UP`).
    pub up: bool,
    /// Its operational state: `up` when packets pass. A device that has just been set up gets there when the kernel's
    /// link watch comes round, up to a second later, and drops packets until then.
    pub operstate: String,
    /// The ifindex of the bridge that it is a port of.
    pub master: Option<u32>,
    /// The ifindex of a veth's other end.
    pub peer: Option<u32>,
    /// A bridge port's state: `forwarding` when packets pass.
    pub port_state: Option<String>,
    /// Its IPv4 addresses with prefix length.
    pub addresses: Vec<(Ipv4Addr, u8)>,
    /// Whether a default route leads through it.
    pub default_route: bool,
}

impl Device {
    /// Whether the lab made it.
    #[must_use]
    pub fn is_marked(&self) -> bool {
        self.mac.starts_with(&MAC_PREFIX) || self.alias.as_deref().is_some_and(|alias| alias.starts_with(MARK))
    }

    fn scenario(&self) -> Option<Scenario> {
        // What follows the name speaks of faults.
        let name = self.alias.as_deref()?.strip_prefix(MARK)?.split(';').next()?.trim();
        LAYOUTS.iter().map(|layout| layout.scenario).find(|scenario| scenario.name() == name)
    }
}

/// What is under one of the lab's namespace names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "is", content = "devices")]
pub enum Namespace {
    /// Nothing.
    Absent,
    /// A file without a namespace: what a killed run left behind.
    Leftover,
    /// A namespace that the lab did not make.
    Foreign,
    /// The lab's, with those of its devices that have the lab's names, and lo.
    Ours(Vec<Device>),
}

/// Everything under the lab's names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Observed {
    /// The devices with the lab's names in the namespace of this process.
    pub here: Vec<Device>,
    /// The namespaces with the lab's names, in the order of [`super::NAMESPACES`].
    pub namespaces: Vec<(&'static str, Namespace)>,
}

impl Observed {
    /// What is under a namespace name.
    #[must_use]
    pub fn namespace(&self, name: &str) -> &Namespace {
        self.namespaces.iter().find(|(known, _)| *known == name).map_or(&Namespace::Absent, |(_, found)| found)
    }

    /// The lab's devices in a place, lo included.
    #[must_use]
    pub fn devices(&self, place: Place) -> &[Device] {
        match place.map(|name| self.namespace(name)) {
            None => &self.here,
            Some(Namespace::Ours(devices)) => devices,
            Some(_) => &[],
        }
    }

    /// The device of that name in a place.
    #[must_use]
    pub fn device(&self, place: Place, name: &str) -> Option<&Device> {
        self.devices(place).iter().find(|device| device.name == name)
    }

    /// Every place in which something of the lab can be.
    pub fn places(&self) -> impl Iterator<Item = Place> + '_ {
        std::iter::once(None).chain(self.namespaces.iter().map(|(name, _)| Some(*name)))
    }

    /// Every device that the lab made, except lo, with its place. What has one of the lab's names in one of the lab's
    /// namespaces goes with the namespace, whoever made it.
    pub fn ours(&self) -> impl Iterator<Item = (Place, &Device)> {
        self.places().flat_map(|place| {
            let ours = move |device: &&Device| device.name != "lo" && (place.is_some() || device.is_marked());
            self.devices(place).iter().filter(ours).map(move |device| (place, device))
        })
    }

    /// Whether nothing of the lab is there.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ours().next().is_none()
            && self.namespaces.iter().all(|(_, found)| matches!(found, Namespace::Absent | Namespace::Foreign))
    }
}

/// Something that a scenario wants and that is not so. Each is also the step that repairs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// A namespace.
    Namespace(&'static str),
    /// The bridge.
    Bridge(&'static str),
    /// A veth pair, whose ends must be each other's peers and in their places.
    Pair(&'static [End; 2]),
    /// The alias of a device.
    Mark(Place, &'static str),
    /// A device is not set up.
    Up(Place, &'static str),
    /// A device is no port of the bridge.
    Port(&'static str, &'static str),
    /// An address.
    Address(Place, &'static str, Ipv4Addr),
    /// A default route, through the device.
    DefaultRoute(&'static str, &'static str),
    /// A device is set up and its link is not. Nothing to do but wait.
    Carrier(Place, &'static str),
    /// A bridge port does not forward. Nothing to do but wait.
    Forwarding(&'static str),
}

impl Missing {
    /// Whether it comes by itself once everything else is there.
    #[must_use]
    pub fn comes_by_itself(&self) -> bool {
        matches!(self, Self::Carrier(..) | Self::Forwarding(_))
    }
}

/// A device with its place before it: `ns-calm1/calmveth1`.
pub(super) fn at(place: Place, device: &str) -> String {
    place.map_or_else(|| device.to_owned(), |place| format!("{place}/{device}"))
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Namespace(name) => write!(f, "no namespace {name}"),
            Self::Bridge(name) => write!(f, "no bridge {name}"),
            Self::Pair([a, b]) => write!(f, "no veth pair {}, {}", at(a.place, a.device), at(b.place, b.device)),
            Self::Mark(place, device) => write!(f, "{} has not the lab's alias", at(*place, device)),
            Self::Up(place, device) => write!(f, "{} is down", at(*place, device)),
            Self::Port(device, bridge) => write!(f, "{device} is no port of {bridge}"),
            Self::Address(place, device, address) => {
                write!(f, "{} has not the address {address}/{PREFIX_LEN}", at(*place, device))
            }
            Self::DefaultRoute(place, device) => write!(f, "{place} has no default route through {device}"),
            Self::Carrier(place, device) => write!(f, "{} is set up and its link is not", at(*place, device)),
            Self::Forwarding(device) => write!(f, "the bridge port {device} does not forward"),
        }
    }
}

/// What the scenario wants and is not so, in the order in which it can be repaired.
#[must_use]
pub fn missing(layout: &'static Layout, observed: &Observed) -> Vec<Missing> {
    let mut out = Vec::new();
    let absent = |name: &&str| !matches!(observed.namespace(name), Namespace::Ours(_));
    out.extend(layout.namespaces.iter().map(|(name, _)| *name).filter(absent).map(Missing::Namespace));
    for (name, _) in layout.namespaces {
        need_device(&mut out, layout, observed.device(Some(name), "lo"), Some(name), "lo");
    }
    if let Some(bridge) = layout.bridge {
        let device = observed.device(None, bridge);
        if device.is_none() {
            out.push(Missing::Bridge(bridge));
        }
        need_device(&mut out, layout, device, None, bridge);
    }
    // An end counts only while its pair is whole: repairing a pair replaces both ends.
    let mut ends = Vec::new();
    for pair in layout.pairs {
        let whole = paired(pair, observed);
        if !whole {
            out.push(Missing::Pair(pair));
        }
        ends.extend(pair.iter().map(|end| (end, observed.device(end.place, end.device).filter(|_| whole))));
    }
    for (end, device) in &ends {
        need_device(&mut out, layout, *device, end.place, end.device);
        if let Some(bridge) = end.bridge {
            let index = observed.device(None, bridge).map(|bridge| bridge.index);
            if index.is_none() || device.is_none_or(|device| device.master != index) {
                out.push(Missing::Port(end.device, bridge));
            }
        }
        if let Some(address) = end.address
            && device.is_none_or(|device| !device.addresses.contains(&(address, PREFIX_LEN)))
        {
            out.push(Missing::Address(end.place, end.device, address));
        }
    }
    for (name, through) in layout.namespaces {
        let routed = |(end, device): &(&End, Option<&Device>)| {
            end.place == Some(*name) && end.device == *through && device.is_some_and(|device| device.default_route)
        };
        if !ends.iter().any(routed) {
            out.push(Missing::DefaultRoute(name, through));
        }
    }
    for (end, device) in &ends {
        if device.is_none_or(|device| device.operstate != "up") {
            out.push(Missing::Carrier(end.place, end.device));
        }
        if end.bridge.is_some() && device.is_none_or(|device| device.port_state.as_deref() != Some("forwarding")) {
            out.push(Missing::Forwarding(end.device));
        }
    }
    out
}

fn need_device(out: &mut Vec<Missing>, layout: &Layout, device: Option<&Device>, place: Place, name: &'static str) {
    if device.is_none_or(|device| device.scenario() != Some(layout.scenario)) {
        out.push(Missing::Mark(place, name));
    }
    if device.is_none_or(|device| !device.up) {
        out.push(Missing::Up(place, name));
    }
}

/// Whether both ends are in their places and each other's peers.
pub(super) fn paired(pair: &[End; 2], observed: &Observed) -> bool {
    let [a, b] = pair;
    match (observed.device(a.place, a.device), observed.device(b.place, b.device)) {
        (Some(a), Some(b)) => a.peer == Some(b.index) && b.peer == Some(a.index),
        _ => false,
    }
}

/// Which scenario is up, whole or in part: the marks say it.
#[must_use]
pub fn scenario(observed: &Observed) -> Option<Scenario> {
    observed.places().flat_map(|place| observed.devices(place)).find_map(Device::scenario)
}

/// What stands in the layout's way and is not the lab's: a description and the command that removes it, each.
#[must_use]
pub fn foreign(layout: &Layout, observed: &Observed) -> Vec<(String, String)> {
    let namespaces = layout.namespaces.iter().filter(|(name, _)| *observed.namespace(name) == Namespace::Foreign);
    let devices = observed.here.iter().filter(|device| {
        let name = Some(device.name.as_str());
        let wanted = layout.bridge == name
            || layout.pairs.iter().flatten().any(|end| end.place.is_none() && Some(end.device) == name);
        wanted && !device.is_marked()
    });
    let namespaces =
        namespaces.map(|(name, _)| (format!("there is a namespace {name}"), format!("ip netns del {name}")));
    let devices = devices.map(|device| {
        let name = printable(device.name.as_bytes());
        (format!("there is a device {name}"), format!("ip link del {name}"))
    });
    namespaces.chain(devices).collect()
}

#[cfg(test)]
mod tests;
