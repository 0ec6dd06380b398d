//! The names that the renderers ask for, from what this run knows of the host.

use skbtrace_common::DeviceKey;

use crate::{name::printable, render::Names, topology::Topology, trace::Reasons};

/// Says which function of the kernel an address lies in, as the kernel has its name.
pub type Describe = Box<dyn Fn(u64) -> Option<String>>;

/// Names of one run.
pub struct RunNames {
    /// The topology as it is now.
    pub topology: Topology,
    /// The kernel's symbols.
    pub symbols: Describe,
    /// Its drop reasons.
    pub reasons: Reasons,
}

impl Names for RunNames {
    fn netns(&self, inum: u32) -> String {
        self.topology.netns_label(inum)
    }

    fn bridge_of(&self, device: DeviceKey) -> Option<String> {
        let bridge = self.topology.link(device)?.master?;
        Some(self.topology.link(bridge)?.display())
    }

    fn reason(&self, reason: u32) -> Option<String> {
        Names::reason(&self.reasons, reason)
    }

    fn symbol(&self, address: u64) -> Option<String> {
        Some(printable((self.symbols)(address)?.as_bytes()))
    }
}
