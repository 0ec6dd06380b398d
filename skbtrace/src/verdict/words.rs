//! The words of a finding: what becomes of packets, where in their timelines, and what kind of thing does it.
//!
//! The rules that find and the gallery of faults that is to be found share them, so that a program can compare the two.

use std::fmt;

use serde::{Deserialize, Serialize, Serializer};
use skbtrace_common::HopId;

/// What becomes of the packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Bytes of the payload change on the way. What a checksum notices is dropped in the end; the change comes first.
    Garbled,
    /// They end before they are delivered.
    Dropped,
    /// They arrive late.
    Delayed,
    /// They arrive more than once.
    Duplicated,
    /// They overtake each other.
    Reordered,
}

impl Class {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Garbled => "garbled",
            Self::Dropped => "dropped",
            Self::Delayed => "delayed",
            Self::Duplicated => "duplicated",
            Self::Reordered => "reordered",
        }
    }
}

/// What kind of thing does it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// A tc filter: an action of its own, or a BPF program.
    TcFilter,
    /// An XDP program.
    Xdp,
    /// A queueing discipline.
    Qdisc,
    /// A rule of nftables.
    Nftables,
    /// A rule or policy of iptables.
    Iptables,
    /// A rule of ebtables.
    Ebtables,
    /// The state or a setting of the bridge or of one of its ports.
    Bridge,
    /// A device's own setting.
    Device,
    /// Who has which address: ARP and neighbour entries.
    Neighbour,
    /// A route, or the rules that routing keeps.
    Route,
    /// The sending program.
    Sender,
    /// The receiving program or its socket.
    Socket,
}

impl Cause {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::TcFilter => "tc filter",
            Self::Xdp => "XDP",
            Self::Qdisc => "qdisc",
            Self::Nftables => "nftables",
            Self::Iptables => "iptables",
            Self::Ebtables => "ebtables",
            Self::Bridge => "bridge",
            Self::Device => "device",
            Self::Neighbour => "neighbour",
            Self::Route => "route",
            Self::Sender => "sender",
            Self::Socket => "socket",
        }
    }
}

/// Where in a packet's timeline it shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Span {
    /// Between two hops that follow each other: the first sees the packet as it was, the second sees the effect.
    Between(HopId, HopId),
    /// At a hop, the last that sees the packet.
    At(HopId),
    /// Before the first hop: the packet never gets to one, and only its end is seen.
    Unseen,
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Between(from, to) => write!(f, "between {} and {}", from.name(), to.name()),
            Self::At(hop) => write!(f, "at {}", hop.name()),
            Self::Unseen => f.write_str("before the first hop"),
        }
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (from, to) = match self {
            Self::Between(from, to) => (Some(from.name()), Some(to.name())),
            Self::At(hop) => (Some(hop.name()), None),
            Self::Unseen => (None, None),
        };
        (from, to).serialize(serializer)
    }
}
