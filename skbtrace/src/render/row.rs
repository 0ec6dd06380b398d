//! What one hop says of itself: the cells of its row. A remark is made where something changed, not at every hop.

use skbtrace_common::{Context, DeviceKey, Event, EventFlags, HopId};

use super::checksum;
use super::headline::{addresses, counted, hook_name, process_name, protocol, queue_name};
use super::{Names, duration};
use crate::name::printable;
use crate::trace::{Flow, Step};
use crate::verdict::{Checksums, checksums};

/// The cells of a row.
#[derive(Debug, Default)]
pub(crate) struct Row {
    pub(super) netns: String,
    pub(super) device: String,
    pub(super) hop: String,
    pub(super) delta: String,
    pub(super) len: String,
    pub(crate) remarks: Vec<String>,
}

/// Where the rows before left off, so that a row shows only what is new.
#[derive(Debug, Default)]
pub(crate) struct Place {
    device: Option<DeviceKey>,
    /// What was said of the checksums last.
    checksums: Option<Checksums>,
}

impl Place {
    /// Of a branch that begins at this step, whose checksums have been told.
    pub(crate) fn after(source: Option<&Step>) -> Place {
        let checksums = source.and_then(|source| checksums(&source.event, &source.digest));
        Place { device: None, checksums }
    }
}

/// The row of a step. `since_ns` is the time since the step before; `None` for the first of all.
pub(crate) fn row(before: Option<&Step>, step: &Step, since_ns: Option<u64>, at: &mut Place, names: &dyn Names) -> Row {
    let mut row = Row {
        hop: label(step, names),
        delta: since_ns.map_or_else(|| "0".to_owned(), |ns| format!("+{}", duration(ns))),
        len: step.event.len.to_string(),
        remarks: remarks(before, step, &mut at.checksums),
        ..Row::default()
    };
    if let Some(device) = step.device()
        && at.device != Some(device)
    {
        row.device = device_name(&step.event.dev, device.ifindex);
        if at.device.is_none_or(|old| old.netns != device.netns) {
            row.netns = names.netns(device.netns);
        }
        at.device = Some(device);
    }
    row
}

/// The hop, and where it sends the packet: `veth_xmit → calmveth2_peer`, `br_handle_frame (calmbr)`.
fn label(step: &Step, names: &dyn Names) -> String {
    let mut label = step.hop.name().to_owned();
    if let Some(second) = step.second_device() {
        label.push_str(" → ");
        label.push_str(&device_name(&step.event.dev2, second.ifindex));
    }
    if let Some(where_in) = within(step, names) {
        label.push_str(&format!(" ({where_in})"));
    }
    label
}

/// What a hop is at beside a device: the hook of netfilter, or the bridge.
pub(crate) fn within(step: &Step, names: &dyn Names) -> Option<String> {
    match step.hop {
        HopId::NfHookSlow => Some(hook_name(&step.event)),
        HopId::BrHandleFrame | HopId::BrPassFrameUp => step.device().and_then(|device| names.bridge_of(device)),
        _ => None,
    }
}

/// That a packet waited before this hop: how long, and where.
pub(crate) fn wait(step: &Step) -> Option<String> {
    step.waited.map(|queue| format!("waited {} in {}", duration(step.delta_ns), queue_name(queue)))
}

/// A device's name; its index where the name could not be read.
pub(crate) fn device_name(name: &[u8; 16], ifindex: u32) -> String {
    if name[0] == 0 { format!("if{ifindex}") } else { printable(name) }
}

/// What is to be said of a step beside its cells: what differs from the step before.
fn remarks(before: Option<&Step>, step: &Step, told: &mut Option<Checksums>) -> Vec<String> {
    let mut remarks = Vec::new();
    let event = &step.event;
    if event.flags & EventFlags::READ_FAILED != 0 {
        // What could not be read is zero, so nothing can be said of what changed.
        remarks.push("partly unreadable".to_owned());
        return remarks;
    }
    if before.and_then(Step::process) != step.process()
        && let Some(process) = step.process()
    {
        remarks.push(process_name(&process));
    }
    if before.and_then(Step::context) != step.context() {
        match step.context() {
            Some(Context::SOFTIRQ) => remarks.push("softirq".to_owned()),
            Some(Context::HARDIRQ) => remarks.push("hardirq".to_owned()),
            _ => {}
        }
    }
    if event.copied > 0 {
        remarks.push(format!("{} to the application", counted(u64::from(event.copied), "byte")));
    }
    remarks.extend(wait(step));
    let tunnels = step.tunnels_since(before);
    let before = before.filter(|before| before.event.flags & EventFlags::READ_FAILED == 0).map(|before| &before.event);
    if let Some(old) = before.filter(|old| old.cpu != event.cpu) {
        remarks.push(format!("cpu {}→{}", old.cpu, event.cpu));
    }
    remarks.extend(checksum::remarks(before, step, told));
    // Without a size the number of segments is TCP's own book-keeping.
    let gso = |event: &Event| if event.gso_size == 0 { (0, 0) } else { (event.gso_size, event.gso_segs) };
    if before.map_or((0, 0), gso) != gso(event) {
        remarks.push(match (event.gso_segs, event.gso_size) {
            (_, 0) => "gso off".to_owned(),
            (0, size) => format!("gso {size}"),
            (segs, size) => format!("gso {segs}×{size}"),
        });
    }
    if before.is_some_and(|old| old.cloned == 0) && event.cloned != 0 {
        remarks.push("cloned".to_owned());
    }
    if before.is_some_and(|old| old.users != event.users) && event.users > 1 {
        remarks.push(format!("shared by {}", event.users));
    }
    if before.map_or(0, |old| old.vlan_tci) != event.vlan_tci {
        let tag = event.vlan_tci & 0xfff;
        remarks.push(if event.vlan_tci == 0 { "vlan none".to_owned() } else { format!("vlan {tag}") });
    }
    if before.map_or(0, |old| old.mark) != event.mark {
        remarks.push(format!("mark {:#x}", event.mark));
    }
    if tunnels != 0 {
        // Of headers that are others nothing has changed.
        remarks.extend(Flow::of(event).map(|flow| {
            let way = if tunnels > 0 { "into" } else { "out of the tunnel:" };
            format!("{way} {} {}", protocol(flow.proto), addresses(&flow))
        }));
        return remarks;
    }
    if let Some((old, new)) =
        before.and_then(|old| Some((old, Flow::of(old)?, Flow::of(event)?))).map(|(old, was, is)| {
            // A packet that TCP is still making has none.
            let ttl = (old.ttl != event.ttl && old.ttl != 0).then(|| format!("ttl {}", event.ttl));
            let moved =
                (was.src, was.dst) != (is.src, is.dst) || was.ports.zip(is.ports).is_some_and(|(was, is)| was != is);
            (ttl, moved.then(|| format!("now {}", addresses(&is))))
        })
    {
        remarks.extend(old);
        remarks.extend(new);
    }
    remarks
}
