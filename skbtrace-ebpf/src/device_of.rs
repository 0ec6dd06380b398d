//! Devices: which one a hop speaks of, its index, its netns, its name.

use skbtrace_common::{DeviceKey, Source};

use crate::{
    hit::Args,
    maps::offset,
    packet::Skb,
    read::{into, member},
};

/// Address of the `net_device` that `source` names; 0 when there is none.
#[inline(always)]
pub fn address(args: &impl Args, skb: &Skb<'_>, source: u8, arg: u8, first: u64) -> u64 {
    match source {
        Source::SKB => skb.u64(offset!(skb_dev)),
        Source::ARG => args.get(arg),
        // The lowest bit says that the reference is not counted (include/linux/skbuff.h, SKB_DST_NOREF).
        Source::DST => member(skb.u64(offset!(refdst)) & !1, offset!(dst_dev)).unwrap_or(0),
        Source::PORT => member(args.get(arg), offset!(port_dev)).unwrap_or(0),
        Source::PEER => member(first, offset!(veth_peer)).unwrap_or(0),
        _ => 0,
    }
}

/// Index and netns of a device.
#[inline(always)]
pub fn key(device: u64) -> Option<DeviceKey> {
    let ifindex = member::<u32>(device, offset!(dev_ifindex))?;
    let net = member::<u64>(device, offset!(dev_net))?;
    let netns = member::<u32>(net, offset!(net_inum))?;
    Some(DeviceKey { netns, ifindex })
}

/// Copies the name of a device to `to`.
#[inline(always)]
pub fn name(device: u64, to: *mut [u8; 16]) -> bool {
    into(to, 16, device.wrapping_add(u64::from(offset!(dev_name))))
}
