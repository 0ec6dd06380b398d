//! Scenarios to trace: network namespaces, veth pairs and a bridge with fixed names and addresses, and traffic that
//! verifies itself.
//!
//! Each scenario is a row of [`LAYOUTS`]; everything else follows from the row. `state` compares what is there with
//! what the row wants and lists what is missing; `build` repairs each missing thing. Building from nothing is the
//! same as repairing, so an interrupted run needs no case of its own.
//!
//! Nothing is recorded in a file that could go stale: what the lab made carries a mark in the kernel itself. A device
//! is born with a lab MAC address ([`MAC_PREFIX`]) and gets the alias `skbtrace lab SCENARIO`; a namespace gets the
//! alias on its `lo` before it gets its name. Things with the same names but no mark are never touched. Faults that
//! are in place are named in an alias too.

mod build;
pub mod fault;
pub mod firewall;
mod link;
pub mod netns;
mod observe;
mod state;
mod status;
pub mod traffic;

use std::{
    fmt, io,
    net::{Ipv4Addr, SocketAddrV4},
};

use crate::name::printable;

pub use build::{Outcome, Removed, down, up};
pub use observe::observe;
pub use state::{Device, Missing, Namespace, Observed, foreign, missing, scenario};
pub use status::Status;

/// What the alias of every lab device starts with; the scenario's name follows.
pub const MARK: &str = "skbtrace lab";

/// The first five bytes of every lab device's MAC address: locally administered, then "skbt". A device has it from
/// the moment that it exists, which an alias cannot be: the kernel ignores `IFLA_IFALIAS` in the request that makes
/// a device.
pub const MAC_PREFIX: [u8; 5] = [0x02, b's', b'k', b'b', b't'];

/// The prefix length of every lab address.
pub const PREFIX_LEN: u8 = 24;

/// A way in which two veth devices can be connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scenario {
    /// Both ends of one pair in one namespace: traffic between them goes through lo and never touches the veth
    Loopback,
    /// The two ends of one pair in two namespaces
    Pair,
    /// Two pairs, joined by a bridge in the init namespace
    Bridge,
}

impl Scenario {
    /// Its name on the command line and in the alias.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Loopback => "loopback",
            Self::Pair => "pair",
            Self::Bridge => "bridge",
        }
    }

    /// What it consists of.
    #[must_use]
    pub fn layout(self) -> &'static Layout {
        match self {
            Self::Loopback => &LAYOUTS[0],
            Self::Pair => &LAYOUTS[1],
            Self::Bridge => &LAYOUTS[2],
        }
    }

    /// The alias of every device that belongs to it.
    #[must_use]
    pub fn alias(self) -> String {
        format!("{MARK} {}", self.name())
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Where a device is: in a namespace with a name, or in the namespace of this process (`None`), usually that of init.
pub type Place = Option<&'static str>;

/// One scenario.
#[derive(Debug)]
pub struct Layout {
    /// Which.
    pub scenario: Scenario,
    /// The namespaces, each with the device that its default route goes through. The route names the end inside the
    /// namespace: the other end is not visible there.
    pub namespaces: &'static [(&'static str, &'static str)],
    /// The bridge in the namespace of this process.
    pub bridge: Option<&'static str>,
    /// The veth pairs.
    pub pairs: &'static [[End; 2]],
    /// The two ends that talk: the server's, then the client's.
    pub talkers: [&'static End; 2],
}

/// One end of a veth pair.
#[derive(Debug, PartialEq, Eq)]
pub struct End {
    /// Its device name.
    pub device: &'static str,
    /// Where it is.
    pub place: Place,
    /// Its address, with [`PREFIX_LEN`].
    pub address: Option<Ipv4Addr>,
    /// The bridge that it is a port of.
    pub bridge: Option<&'static str>,
    /// The last byte of its MAC address, after [`MAC_PREFIX`].
    pub mac: u8,
}

/// The namespace names that any scenario uses.
pub const NAMESPACES: [&str; 2] = ["ns-calm1", "ns-calm2"];
/// The bridge.
pub const BRIDGE: &str = "calmbr";
/// The last byte of the bridge's MAC address.
pub const BRIDGE_MAC: u8 = 0xb0;
/// The device names that any scenario uses.
pub const DEVICES: [&str; 5] = ["calmveth1", "calmveth1_peer", "calmveth2", "calmveth2_peer", BRIDGE];

const SERVER_ADDRESS: Option<Ipv4Addr> = Some(Ipv4Addr::new(78, 78, 0, 10));
const CLIENT_ADDRESS: Option<Ipv4Addr> = Some(Ipv4Addr::new(78, 78, 0, 11));

const fn talker(device: &'static str, place: &'static str, address: Option<Ipv4Addr>, mac: u8) -> End {
    End { device, place: Some(place), address, bridge: None, mac }
}

const fn port(device: &'static str, mac: u8) -> End {
    End { device, place: None, address: None, bridge: Some(BRIDGE), mac }
}

static LOOPBACK_PAIRS: [[End; 2]; 1] =
    [[talker("calmveth1", "ns-calm1", SERVER_ADDRESS, 1), talker("calmveth2", "ns-calm1", CLIENT_ADDRESS, 2)]];
static PAIR_PAIRS: [[End; 2]; 1] =
    [[talker("calmveth1", "ns-calm1", SERVER_ADDRESS, 1), talker("calmveth2", "ns-calm2", CLIENT_ADDRESS, 2)]];
static BRIDGE_PAIRS: [[End; 2]; 2] = [
    [talker("calmveth1", "ns-calm1", SERVER_ADDRESS, 1), port("calmveth1_peer", 0x11)],
    [talker("calmveth2", "ns-calm2", CLIENT_ADDRESS, 2), port("calmveth2_peer", 0x12)],
];

/// Every scenario, in the order of [`Scenario`].
pub static LAYOUTS: [Layout; 3] = [
    Layout {
        scenario: Scenario::Loopback,
        namespaces: &[("ns-calm1", "calmveth1")],
        bridge: None,
        pairs: &LOOPBACK_PAIRS,
        talkers: [&LOOPBACK_PAIRS[0][0], &LOOPBACK_PAIRS[0][1]],
    },
    Layout {
        scenario: Scenario::Pair,
        namespaces: &[("ns-calm1", "calmveth1"), ("ns-calm2", "calmveth2")],
        bridge: None,
        pairs: &PAIR_PAIRS,
        talkers: [&PAIR_PAIRS[0][0], &PAIR_PAIRS[0][1]],
    },
    Layout {
        scenario: Scenario::Bridge,
        namespaces: &[("ns-calm1", "calmveth1"), ("ns-calm2", "calmveth2")],
        bridge: Some(BRIDGE),
        pairs: &BRIDGE_PAIRS,
        talkers: [&BRIDGE_PAIRS[0][0], &BRIDGE_PAIRS[1][0]],
    },
];

/// What can go wrong with the lab.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The process may not do this.
    #[error("the lab needs {missing} to make network namespaces and devices: run it as root (sudo skbtrace lab …)")]
    Privilege {
        /// The missing capabilities.
        missing: String,
    },
    /// Something has a name that the lab needs and was not made by it.
    #[error("{}, not made by skbtrace, so it stays as it is: remove or rename it first ({how})", what.join(", "))]
    Foreign {
        /// What is in the way, one sentence part each.
        what: Vec<String>,
        /// The commands that remove it.
        how: String,
    },
    /// Another process is changing the lab.
    #[error("another `skbtrace lab up`, `down` or `fault` has been running for {0} s: wait for it or end it")]
    Busy(u64),
    /// The kernel has no such kind of device.
    #[error("this kernel makes no {kind} devices, and `modprobe {kind}` did not help ({why}): {advice}")]
    NoKind {
        /// The kind: veth or bridge.
        kind: &'static str,
        /// What modprobe said.
        why: String,
        /// What to do.
        advice: String,
    },
    /// A request was refused.
    #[error("could not {doing}: {answer}")]
    Failed {
        /// What was tried, to be read after "could not".
        doing: String,
        /// The kernel's answer.
        answer: io::Error,
    },
    /// Traffic needs a lab.
    #[error("no lab is up: build one with `skbtrace lab up`, or name --from, --to, --bind and --server")]
    NotUp,
    /// No handshake.
    #[error(
        "could not connect {from} to tcp {to}: {answer}; `skbtrace lab status` says whether the lab is whole and \
             whether a firewall is in the way"
    )]
    NoConnection {
        /// The client's address.
        from: Ipv4Addr,
        /// The server's.
        to: SocketAddrV4,
        /// The kernel's answer.
        answer: io::Error,
    },
    /// A namespace that was named is not there.
    #[error("there is no namespace {}: `ip netns` lists those that are", printable(name.as_bytes()))]
    NoNamespace {
        /// Its name.
        name: String,
    },
    /// A namespace that was named has no address in the scenario.
    #[error("the scenario has no address in {}: give one with {option}", printable(namespace.as_bytes()))]
    NoAddress {
        /// The namespace.
        namespace: String,
        /// The option that gives the address.
        option: &'static str,
    },
    /// A fault that is in place could not be taken back.
    #[error("a fault is in place and could not be taken back: {why}")]
    FaultStays {
        /// What stays, and why.
        why: String,
    },
    /// A signal asked to stop.
    #[error("interrupted")]
    Interrupted,
    /// Built, but it did not come to life.
    #[error("the lab was built and is not ready after {seconds} s: {}", join(still))]
    NotReady {
        /// How long it was given.
        seconds: u64,
        /// What is still missing.
        still: Vec<Missing>,
    },
    /// A build failed and what it had made is gone again.
    #[error("{cause}; what had been made so far was removed again")]
    Undone {
        /// Why it failed.
        cause: Box<Error>,
    },
    /// A build failed and could not be undone.
    #[error("{cause}; removing what had been made failed too ({undo}): run `skbtrace lab down`")]
    NotUndone {
        /// Why it failed.
        cause: Box<Error>,
        /// Why undoing failed.
        undo: Box<Error>,
    },
    /// A repair of a lab that was there before failed.
    #[error("{cause}; the lab stays incomplete: `skbtrace lab up` repairs it, `skbtrace lab down` removes it")]
    Incomplete {
        /// Why it failed.
        cause: Box<Error>,
    },
}

fn join(items: &[Missing]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

impl Error {
    /// Wraps the kernel's answer. `doing` reads on after "could not".
    pub(crate) fn failed(doing: impl Into<String>, answer: impl Into<io::Error>) -> Self {
        Self::Failed { doing: doing.into(), answer: answer.into() }
    }
}

#[cfg(test)]
mod tests;
