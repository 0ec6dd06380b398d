//! What is connected to what on this host: every network namespace, its links, their peers and bridges, read from
//! netlink, and from that the segment of one interface: all devices that a packet through it can cross.
//!
//! Only `read`, `netns`, `netlink` and `watch` talk to the kernel. `peers`, `find`, `segment` and `line` are pure, so
//! that they are tested on topologies made by hand.
//!
//! A network namespace is named by the inode number of its nsfs file, because that is the one name that the kernel side
//! can read as well (`net->ns.inum`).

mod find;
mod line;
pub(crate) mod netlink;
mod netns;
mod peers;
pub(crate) mod read;
mod segment;
#[cfg(test)]
mod tests;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

pub use find::FindError;
pub use segment::{Segment, SegmentChange};
use skbtrace_common::DeviceKey;
pub use watch::{Watch, watch};

use crate::name::printable;

/// All namespaces and links of the host at one moment.
///
/// The kernel gives no snapshot over several namespaces: a link that moves while it is read may be seen twice, in its
/// old place and its new one, or not at all. Who needs certainty reads again, see [`watch()`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Topology {
    netns: BTreeMap<u32, Netns>,
    links: BTreeMap<DeviceKey, Link>,
    processes: BTreeMap<u32, u32>,
    unreadable: Vec<Unreadable>,
}

/// A network namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Netns {
    /// Inode number of its nsfs file, `net->ns.inum` in the kernel.
    pub inum: u32,
    /// Device number of nsfs. One for all namespaces of a host.
    pub dev: u64,
    /// What it is called in output.
    pub name: NetnsName,
    /// Files that stand for it, the shortest-lived last. Opening one of them gives a handle for `setns`.
    pub paths: Vec<PathBuf>,
    /// Whether this process lives in it.
    pub own: bool,
}

/// What a namespace is called. Its `Display` is what a user can give back to [`Topology::find`], and is safe to print.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NetnsName {
    /// The initial one.
    Init,
    /// A file in `/run/netns`, as `ip netns add` makes it: its name, any bytes.
    Named(Vec<u8>),
    /// Found through a process, the one with the lowest id.
    Process {
        /// Its process id.
        pid: u32,
        /// Its comm, any bytes.
        comm: Vec<u8>,
    },
    /// Found through a file that no process and no `/run/netns` entry stands beside: its path, any bytes.
    Path(Vec<u8>),
}

impl fmt::Display for NetnsName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Init => f.write_str("init"),
            // A file may be called as we call something else. Then the whole path stands for it.
            Self::Named(name) if name == b"init" || name.starts_with(b"pid:") => {
                write!(f, "{}/{}", netns::NAMED_DIR, printable(name))
            }
            Self::Named(name) => f.write_str(&printable(name)),
            Self::Process { pid, .. } => write!(f, "pid:{pid}"),
            Self::Path(path) => f.write_str(&printable(path)),
        }
    }
}

/// What kind of device a link is, as far as it matters to the path of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// One end of a veth pair.
    Veth,
    /// A bridge.
    Bridge,
    /// A loopback device.
    Loopback,
    /// A VLAN device on top of another.
    Vlan,
    /// A device without a link kind: mostly hardware.
    Physical,
    /// Any other kind, by the kernel's name for it (`IFLA_INFO_KIND`).
    Other(String),
}

impl Kind {
    /// Whether such a device is one of two ends: what is sent into one comes out of the other.
    fn is_paired(&self) -> bool {
        match self {
            Self::Veth => true,
            Self::Other(kind) => kind == "netkit",
            _ => false,
        }
    }

    /// Whether a packet of such a device passes, as the same frame, through the device that it lies on.
    fn lies_on_lower(&self) -> bool {
        match self {
            Self::Vlan => true,
            Self::Other(kind) => matches!(kind.as_str(), "macvlan" | "macvtap" | "ipvlan" | "ipvtap"),
            _ => false,
        }
    }

    /// Whether frames pass between the ports of such a device. A VRF only routes between them.
    fn joins_ports(&self) -> bool {
        !matches!(self, Self::Other(kind) if kind == "vrf")
    }
}

/// Operational state after RFC 2863 (`IFLA_OPERSTATE`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OperState {
    /// The driver does not say. Usual for loopback.
    #[default]
    Unknown,
    /// A component is missing.
    NotPresent,
    /// Cannot pass packets.
    Down,
    /// The device below cannot: for a veth, its peer is down.
    LowerLayerDown,
    /// Under test.
    Testing,
    /// Waits for something outside.
    Dormant,
    /// Passes packets.
    Up,
}

/// A network device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its namespace and ifindex.
    pub key: DeviceKey,
    /// Its name, any bytes but NUL, `/`, `:` and white space.
    pub name: Vec<u8>,
    /// Other names that it answers to, any bytes.
    pub alt_names: Vec<Vec<u8>>,
    /// Its kind.
    pub kind: Kind,
    /// The other end of a veth. `None` also for a veth whose other end is in a namespace that was not found.
    pub peer: Option<DeviceKey>,
    /// The bridge, or other master, that it is a port of.
    pub master: Option<DeviceKey>,
    /// The device that it lies on: a VLAN device's parent.
    pub lower: Option<DeviceKey>,
    /// Its addresses, in the kernel's order.
    pub addrs: Vec<IpAddr>,
    /// Its hardware address; empty where it has none.
    pub mac: Vec<u8>,
    /// Largest packet that it sends, in bytes, without the link-layer header.
    pub mtu: u32,
    /// Whether it is set up (`IFF_UP`).
    pub up: bool,
    /// Whether it can pass packets.
    pub oper_state: OperState,
}

impl Link {
    /// Its name, safe to print.
    #[must_use]
    pub fn display(&self) -> String {
        printable(&self.name)
    }
}

/// Something that could not be searched, and why. Its `Display` is safe to print.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// The namespace, if that much is known.
    pub inum: Option<u32>,
    /// What was not searched.
    pub what: String,
    /// Why.
    pub reason: String,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.reason)
    }
}

/// Why nothing could be read at all. What concerns one namespace only is in [`Topology::unreadable`] instead.
#[derive(Debug, thiserror::Error)]
pub enum TopologyError {
    /// Without `/proc` nothing is found.
    #[error("cannot look at this process's own network namespace ({path}): {source}; is /proc mounted?")]
    Own {
        /// The file looked at.
        path: &'static str,
        /// What went wrong.
        source: io::Error,
    },
    /// No thread could be started.
    #[error("cannot start a thread to enter other network namespaces: {0}")]
    Thread(io::Error),
    /// The thread ended without an answer: a defect.
    #[error("the thread that reads the network namespaces ended early; this is a defect in skbtrace")]
    ThreadDied,
    /// A namespace that has to be watched cannot be.
    #[error("cannot watch network namespace {netns} for changes: {source}")]
    Watch {
        /// Its name, safe to print.
        netns: String,
        /// What went wrong.
        source: io::Error,
    },
}

impl Topology {
    /// Reads the host. Blocks for some 100 µs per namespace; starts a thread of its own, because it enters the
    /// namespaces one by one, and so leaves the caller's thread where it is.
    ///
    /// A namespace that vanishes meanwhile is left out. One that may not be entered is listed in
    /// [`unreadable`](Self::unreadable).
    ///
    /// # Errors
    ///
    /// When not even this process's own namespace can be found.
    pub fn read() -> Result<Self, TopologyError> {
        read::read()
    }

    /// Puts a topology together from its parts. `processes` maps process ids to the inode number of their namespace.
    #[must_use]
    pub fn from_parts(
        netns: impl IntoIterator<Item = Netns>,
        links: impl IntoIterator<Item = Link>,
        processes: BTreeMap<u32, u32>,
        unreadable: Vec<Unreadable>,
    ) -> Self {
        Self {
            netns: netns.into_iter().map(|netns| (netns.inum, netns)).collect(),
            links: links.into_iter().map(|link| (link.key, link)).collect(),
            processes,
            unreadable,
        }
    }

    /// All namespaces that were found, also those that could not be searched.
    pub fn all_netns(&self) -> impl Iterator<Item = &Netns> {
        self.netns.values()
    }

    /// The namespace with this inode number.
    #[must_use]
    pub fn netns(&self, inum: u32) -> Option<&Netns> {
        self.netns.get(&inum)
    }

    /// What to call a namespace in output, safe to print; `net:[4026532177]` when it is unknown.
    #[must_use]
    pub fn netns_label(&self, inum: u32) -> String {
        self.netns.get(&inum).map_or_else(|| format!("net:[{inum}]"), |netns| netns.name.to_string())
    }

    /// All links, by namespace and ifindex.
    pub fn links(&self) -> impl Iterator<Item = &Link> {
        self.links.values()
    }

    /// One link.
    #[must_use]
    pub fn link(&self, key: DeviceKey) -> Option<&Link> {
        self.links.get(&key)
    }

    /// What to call a device in output: `ns-calm1/calmveth1`, without the namespace when that is the initial one. Safe
    /// to print.
    #[must_use]
    pub fn label(&self, key: DeviceKey) -> String {
        let device = self.links.get(&key).map_or_else(|| format!("ifindex {}", key.ifindex), Link::display);
        match self.netns.get(&key.netns) {
            Some(Netns { name: NetnsName::Init, .. }) => device,
            _ => format!("{}/{device}", self.netns_label(key.netns)),
        }
    }

    /// The ports of a bridge, or of another master.
    pub fn ports(&self, master: DeviceKey) -> impl Iterator<Item = &Link> {
        self.links_in(master.netns).filter(move |link| link.master == Some(master))
    }

    /// The links of one namespace.
    pub fn links_in(&self, netns: u32) -> impl Iterator<Item = &Link> {
        let first = DeviceKey { netns, ifindex: 0 };
        let last = DeviceKey { netns, ifindex: u32::MAX };
        self.links.range(first..=last).map(|(_, link)| link)
    }

    /// What could not be searched, and why.
    #[must_use]
    pub fn unreadable(&self) -> &[Unreadable] {
        &self.unreadable
    }

    /// The links that are new, gone or different in `newer`.
    #[must_use]
    pub fn diff(&self, newer: &Self) -> TopologyChange {
        let mut change = TopologyChange::default();
        for (key, link) in &newer.links {
            match self.links.get(key) {
                None => drop(change.added.insert(*key)),
                Some(old) if old != link => drop(change.changed.insert(*key)),
                Some(_) => {}
            }
        }
        change.removed = self.links.keys().filter(|key| !newer.links.contains_key(key)).copied().collect();
        change
    }
}

/// What [`Topology::diff`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TopologyChange {
    /// Links that are only in the newer one.
    pub added: BTreeSet<DeviceKey>,
    /// Links that are only in the older one.
    pub removed: BTreeSet<DeviceKey>,
    /// Links that are in both and not the same: another name, address, master, state.
    pub changed: BTreeSet<DeviceKey>,
}

impl TopologyChange {
    /// Whether the two were the same.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty()
    }
}
