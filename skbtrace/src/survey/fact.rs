//! A fact: one thing that can do something to packets, where it is, and how to take it away.

use serde::{Deserialize, Serialize};
use skbtrace_common::DeviceKey;

use crate::verdict::Cause;

/// What was found on a host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Survey {
    /// All facts, those of one namespace together.
    pub facts: Vec<Fact>,
    /// What could not be looked at, and why, a sentence each: a finding without a cause may be explained by it.
    pub unseen: Vec<String>,
}

/// One thing that can do something to packets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fact {
    /// What kind of thing it is.
    pub cause: Cause,
    /// Inode number of the network namespace that it is in.
    pub netns: u32,
    /// The device that it is on, by ifindex; `None` when it is the whole namespace's, such as a rule of nftables that names
    /// no device.
    pub ifindex: Option<u32>,
    /// Where in a packet's way it stands.
    pub spot: Spot,
    /// What it can do.
    pub effects: Effects,
    /// What it is, as the tool that made it would name it: `tc filter egress pref 49152 u32: pedit`. Safe to print.
    pub what: String,
    /// The command that takes it away or sets it right, to be run as root. Safe to print.
    pub undo: Option<String>,
}

impl Fact {
    /// The device that it is on.
    #[must_use]
    pub fn device(&self) -> Option<DeviceKey> {
        self.ifindex.map(|ifindex| DeviceKey { netns: self.netns, ifindex })
    }
}

/// Where something stands in the way of a packet through a device or a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Spot {
    /// What a device has received, before any protocol: tc's ingress, nftables' ingress, generic XDP.
    Ingress,
    /// Before a device's queue: tc's egress, nftables' egress.
    Egress,
    /// A device's queueing discipline.
    Queue,
    /// In the driver of the device, on what it receives: native XDP.
    Xdp,
    /// The device itself: its MTU, its state, its offloads.
    Device,
    /// A bridge, or a port of it: states, isolation, VLANs, forwarding entries.
    Bridge,
    /// A hook of netfilter for IP, in the namespace.
    Prerouting,
    /// See `Prerouting`.
    Input,
    /// See `Prerouting`. Bridged packets come by too where br_netfilter says so.
    Forward,
    /// See `Prerouting`.
    Output,
    /// See `Prerouting`.
    Postrouting,
    /// The bridge's own hooks of netfilter: nftables' family bridge, ebtables.
    BridgePrerouting,
    /// See `BridgePrerouting`.
    BridgeInput,
    /// See `BridgePrerouting`.
    BridgeForward,
    /// See `BridgePrerouting`.
    BridgeOutput,
    /// See `BridgePrerouting`.
    BridgePostrouting,
    /// Routing: sysctls, routes, rules.
    Route,
    /// Neighbour entries.
    Neighbour,
    /// Sockets.
    Socket,
}

/// What something can do to a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Effects {
    /// Write into it.
    pub garble: bool,
    /// Drop it.
    pub drop: bool,
    /// Hold it up.
    pub delay: bool,
    /// Double it.
    pub duplicate: bool,
    /// Let others overtake it.
    pub reorder: bool,
    /// Rewrite addresses, ports or other header fields on purpose: NAT, marks, VLAN tags.
    pub rewrite: bool,
}
