//! Whether a packet that is not followed yet is to be: the segment first, then the user's filter.

use skbtrace_common::{AddrKey, DeviceKey, Event, EventFlags, SEGMENT_BY_ADDRESS, SEGMENT_MEMBER};

use crate::maps::{ADDRS, DEVICES, filter};

/// 1 when the packet that the event describes is to be followed, else 0. A function of its own, for the verifier's
/// sake, and with a number for a result, since a truth value of another function is none that the verifier trusts.
#[inline(never)]
pub fn wanted(event: &Event) -> u32 {
    let key = DeviceKey { netns: event.netns, ifindex: event.ifindex };
    // SAFETY: the value is one aligned word that only user space writes.
    let Some(member) = (unsafe { DEVICES.get(key) }) else { return 0 };
    if *member & SEGMENT_MEMBER == 0 {
        let by_address = *member & SEGMENT_BY_ADDRESS != 0 && event.flags & EventFlags::L3 != 0;
        if !by_address || !is_local(event.saddr, key.netns) || !is_local(event.daddr, key.netns) {
            return 0;
        }
    }
    let filter = filter();
    if filter.ethertype != 0 && event.ethertype != filter.ethertype {
        return 0;
    }
    if filter.l4_proto != 0 && event.l4_proto != filter.l4_proto {
        return 0;
    }
    if filter.port != 0
        && (event.flags & EventFlags::L4 == 0 || (event.sport != filter.port && event.dport != filter.port))
    {
        return 0;
    }
    if filter.has_host != 0
        && (event.flags & EventFlags::L3 == 0
            || (!same(&event.saddr, &filter.host) && !same(&event.daddr, &filter.host)))
    {
        return 0;
    }
    1
}

#[inline(always)]
fn is_local(addr: [u8; 16], netns: u32) -> bool {
    // SAFETY: the value is a byte that only user space writes.
    unsafe { ADDRS.get(AddrKey { addr, netns }) }.is_some()
}

/// Whether two addresses are the same, without a branch for each byte.
#[inline(always)]
fn same(a: &[u8; 16], b: &[u8; 16]) -> bool {
    u128::from_ne_bytes(*a) == u128::from_ne_bytes(*b)
}
