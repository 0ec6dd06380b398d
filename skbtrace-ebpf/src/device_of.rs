//! Devices: which one a hop speaks of, its index, its netns, its name.

use skbtrace_common::{Event, EventFlags, Source};

use crate::{
    maps::offset,
    packet::Scratch,
    read::{into, member},
};

/// `NF_INET_POST_ROUTING` and `NF_BR_POST_ROUTING`; other families have no such hook.
const POSTROUTING: u8 = 4;

/// Address of the `net_device` that `source` names; 0 when there is none.
#[inline(always)]
pub fn address(scratch: &Scratch, source: u8, arg: u8, first: u64) -> u64 {
    match source {
        Source::SKB => scratch.u64(offset!(skb_dev)),
        Source::ARG => scratch.hit.arg(arg),
        // The lowest bit says that the reference is not counted (include/linux/skbuff.h, SKB_DST_NOREF).
        Source::DST => member(scratch.u64(offset!(refdst)) & !1, offset!(dst_dev)).unwrap_or(0),
        Source::PORT => member(scratch.hit.arg(arg), offset!(port_dev)).unwrap_or(0),
        Source::PEER => member(first, offset!(veth_peer)).unwrap_or(0),
        Source::SOCK => {
            let route = member(scratch.hit.arg(arg), offset!(sock_dst)).unwrap_or(0);
            member(route, offset!(dst_dev)).unwrap_or(0)
        }
        Source::HOOK => {
            let state = scratch.hit.arg(arg);
            let (came, goes): (u64, u64) =
                (member(state, offset!(nf_in)).unwrap_or(0), member(state, offset!(nf_out)).unwrap_or(0));
            let routed = member::<u8>(state, offset!(nf_hook)) == Some(POSTROUTING);
            if came == 0 || routed && goes != 0 { goes } else { came }
        }
        _ => 0,
    }
}

/// Fills in the first device. A function of its own for the verifier's sake, like `parse_headers`.
#[inline(never)]
pub fn describe_first(event: &mut Event, device: u64) -> u32 {
    let Some(ifindex) = member::<u32>(device, offset!(dev_ifindex)) else {
        if device != 0 {
            event.flags |= EventFlags::READ_FAILED;
        }
        return 0;
    };
    event.ifindex = ifindex;
    event.netns = netns(device);
    if !into(&raw mut event.dev, 16, device.wrapping_add(u64::from(offset!(dev_name)))) {
        event.flags |= EventFlags::READ_FAILED;
    }
    0
}

/// Fills in the second device.
#[inline(never)]
pub fn describe_second(event: &mut Event, device: u64) -> u32 {
    let Some(ifindex) = member::<u32>(device, offset!(dev_ifindex)) else { return 0 };
    event.ifindex2 = ifindex;
    event.netns2 = netns(device);
    if !into(&raw mut event.dev2, 16, device.wrapping_add(u64::from(offset!(dev_name)))) {
        event.flags |= EventFlags::READ_FAILED;
    }
    0
}

#[inline(always)]
fn netns(device: u64) -> u32 {
    let net = member::<u64>(device, offset!(dev_net)).unwrap_or(0);
    member(net, offset!(net_inum)).unwrap_or(0)
}
