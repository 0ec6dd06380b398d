//! Packets that became two.
//!
//! Clones are nothing out of the ordinary: a tap has one, and a bridge that floods makes one for each port. But a packet and a
//! clone of it that leave by the same device are the same packet twice. Parts of a packet are not the same, nor is what TCP
//! sends again: that begins anew, at the sender.

use skbtrace_common::{DeviceKey, HopId};

use super::finding::{Detail, Device, Finding, lineage, way};
use super::words::{Class, Span};
use crate::hops::{Role, hop};
use crate::trace::{Outcome, Packet, Step};

/// The finding, if the packet left twice by a device, and when.
pub(super) fn duplicated(packet: &Packet) -> Option<(Finding, u64)> {
    let is_whole = |part: &Packet| !part.was_cut() && !matches!(part.outcome, Outcome::Incomplete { .. });
    if !packet.tree().all(is_whole) {
        return None;
    }
    // By tracepoints alone the driver is not seen, but that the packet is handed to it.
    let by_tracepoints = packet.tree().flat_map(|part| &part.steps).any(|step| hop(step.hop).is_of_tracepoints_alone());
    let leaves = if by_tracepoints { HopId::NetDevStartXmit } else { HopId::VethXmit };
    let mut seen: Vec<(DeviceKey, u64)> = Vec::new();
    for part in packet.tree() {
        let mut own: Vec<DeviceKey> = Vec::new();
        for (index, step) in part.steps.iter().enumerate() {
            let Some(device) = Device::of(step).filter(|_| step.hop == leaves) else {
                continue;
            };
            if seen.iter().any(|(key, _)| *key == device.key) {
                return Some((finding(packet, part, index, device)?, step.event.time_ns));
            }
            own.push(device.key);
        }
        seen.extend(own.into_iter().map(|key| (key, part.id)));
    }
    None
}

/// The packet, the clone of it, and the step at which the clone left as the packet had.
fn finding(packet: &Packet, clone: &Packet, index: usize, device: Device) -> Option<Finding> {
    let steps = lineage(packet, clone.id)?;
    let own = clone.steps.len();
    let path: Vec<Step> = steps.iter().copied().filter(|step| step.role() != Role::Work).collect();
    // Where the clone was seen first, and what the packet had come through by then at this device.
    let born = steps.get(steps.len() - own).filter(|step| step.role() != Role::Work);
    let to = born.filter(|step| step.device() == Some(device.key)).map_or(clone.steps[index].hop, |step| step.hop);
    let before = &path[..path.iter().position(|step| clone.steps.first().is_some_and(|first| step == first))?];
    // Where the packet itself left there, before or after its clone did.
    let left = before.iter().position(|step| step.hop == to && step.device() == Some(device.key));
    let before = &before[..left.unwrap_or(before.len())];
    let from = before.iter().rev().find(|step| step.hop != to && step.role().is_place())?;
    let span = Span::Between(from.hop, to);
    let mut finding = Finding::new(Class::Duplicated, span, Device::of(from).or(Some(device)), Detail::Duplicated);
    finding.way = way(before);
    Some(finding)
}
