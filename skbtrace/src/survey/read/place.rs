//! One network namespace of the segment, as the readers see it: what its devices are called, which of them matter, and how
//! a command is run in it.

use skbtrace_common::DeviceKey;

use super::shell::word;
use crate::{
    survey::{Effects, Fact, Spot},
    topology::{Link, Netns, NetnsName, Segment, Topology},
    verdict::Cause,
};

/// A namespace.
pub(super) struct Place<'a> {
    pub(super) topology: &'a Topology,
    pub(super) segment: &'a Segment,
    pub(super) inum: u32,
    /// What a command is put behind to run there; empty for our own, `None` where there is no way that can be written down.
    prefix: Option<String>,
}

impl<'a> Place<'a> {
    pub(super) fn new(topology: &'a Topology, segment: &'a Segment, netns: &Netns) -> Self {
        Self { topology, segment, inum: netns.inum, prefix: prefix(netns) }
    }

    /// What to call it, safe to print.
    pub(super) fn label(&self) -> String {
        format!("network namespace {}", self.topology.netns_label(self.inum))
    }

    pub(super) fn key(&self, ifindex: u32) -> DeviceKey {
        DeviceKey { netns: self.inum, ifindex }
    }

    /// Whether packets of the segment pass the device.
    pub(super) fn matters(&self, ifindex: u32) -> bool {
        let key = self.key(ifindex);
        self.segment.members.contains(&key) || self.segment.loopbacks.contains(&key)
    }

    /// The devices here that packets of the segment pass.
    pub(super) fn links(&self) -> impl Iterator<Item = &'a Link> {
        self.topology.links_in(self.inum).filter(|link| self.matters(link.key.ifindex))
    }

    /// A device's name, safe to print.
    pub(super) fn name(&self, ifindex: u32) -> String {
        self.topology.link(self.key(ifindex)).map_or_else(|| format!("ifindex {ifindex}"), Link::display)
    }

    /// A device's name as a word of a command.
    pub(super) fn word(&self, ifindex: u32) -> Option<String> {
        word(&self.topology.link(self.key(ifindex))?.name)
    }

    /// A command as it is to be run from our own namespace.
    pub(super) fn undo(&self, command: Option<String>) -> Option<String> {
        Some(format!("{}{}", self.prefix.as_deref()?, command?))
    }

    /// A fact about a device, or about the whole namespace.
    pub(super) fn fact(&self, cause: Cause, ifindex: Option<u32>, spot: Spot, effects: Effects, what: String) -> Fact {
        Fact { cause, netns: self.inum, ifindex, spot, effects, what, undo: None }
    }
}

fn prefix(netns: &Netns) -> Option<String> {
    if netns.own {
        return Some(String::new());
    }
    if let NetnsName::Named(name) = &netns.name {
        return Some(format!("ip netns exec {} ", word(name)?));
    }
    use std::os::unix::ffi::OsStrExt as _;
    Some(format!("nsenter --net={} ", word(netns.paths.first()?.as_os_str().as_bytes())?))
}
