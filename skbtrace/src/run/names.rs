//! The names that the renderers ask for, from what this run knows of the host.

use skbtrace_common::DeviceKey;

use crate::{host::Symbols, name::printable, render::Names, topology::Topology, trace::Reasons};

/// Names of one run.
pub struct RunNames {
    /// The topology as it is now.
    pub topology: Topology,
    /// The kernel's symbols.
    pub symbols: Symbols,
    /// Its drop reasons.
    pub reasons: Reasons,
}

impl Names for RunNames {
    fn netns(&self, inum: u32) -> String {
        self.topology.netns_label(inum)
    }

    fn bridge_of(&self, device: DeviceKey) -> Option<String> {
        let bridge = self.topology.link(device)?.master?;
        Some(printable(&self.topology.link(bridge)?.name))
    }

    fn reason(&self, reason: u32) -> Option<String> {
        self.reasons.name(reason).map(str::to_owned)
    }

    fn symbol(&self, address: u64) -> Option<String> {
        self.symbols.describe(address)
    }
}
