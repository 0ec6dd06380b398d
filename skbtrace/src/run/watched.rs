//! A segment, as the kernel side wants it.

use skbtrace_common::AddrKey;

use super::wire_address;
use crate::{capture::Watched, topology::Segment};

/// What to watch for this segment.
pub fn watched(segment: &Segment) -> Watched {
    Watched {
        members: segment.members.clone(),
        loopbacks: segment.loopbacks.clone(),
        addrs: segment.addrs.iter().map(|(netns, addr)| AddrKey { addr: wire_address(*addr), netns: *netns }).collect(),
    }
}
