//! A packet's stays at devices, one after another: what a track or a lane shows of it.

use crate::hops::Role;
use crate::trace::{Packet, Step};
use crate::verdict::Device;

/// Steps at one device that follow each other.
#[derive(Clone, Debug)]
pub(super) struct Visit<'a> {
    /// `None`: no hop knew one.
    pub(super) device: Option<Device>,
    /// Their places among the packet's steps. Those at which a packet is freed are none.
    pub(super) steps: Vec<usize>,
    packet: &'a Packet,
}

impl<'a> Visit<'a> {
    /// The steps.
    pub(super) fn steps(&self) -> impl Iterator<Item = &'a Step> {
        let packet = self.packet;
        self.steps.iter().filter_map(|step| packet.steps.get(*step))
    }

    /// When it began.
    pub(super) fn begin_ns(&self) -> u64 {
        self.steps().next().map_or(0, |step| step.event.time_ns)
    }
}

/// The stays of a packet, without those of its branches. A step that knows no device is where the one before it was.
pub(super) fn visits(packet: &Packet) -> Vec<Visit<'_>> {
    let mut visits: Vec<Visit<'_>> = Vec::new();
    for (index, step) in packet.steps.iter().enumerate().filter(|(_, step)| step.role() != Role::End) {
        let device = step.device().map(|key| Device { key, name: step.event.dev });
        match visits.last_mut() {
            Some(visit) if device.is_none() || visit.device.is_none() || visit.device == device => {
                visit.device = visit.device.or(device);
                visit.steps.push(index);
            }
            _ => visits.push(Visit { device, steps: vec![index], packet }),
        }
    }
    visits
}
