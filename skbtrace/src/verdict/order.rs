//! Packets that overtook each other in the queue of a device.
//!
//! Only there: between a device's queue and its driver every packet of a flow has both its times, and one CPU after the other
//! takes them. Two packets entered in this order only if one CPU saw both enter; what two CPUs do at about the same time
//! has no order. They left in that order if their times say so. A retransmission enters anew, and parts of one packet or
//! clones of it are not compared with each other.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;

use skbtrace_common::DeviceKey;

use super::finding::{Detail, Device, Finding, Sighting, neighbours, way};
use super::late::{enters_queue, leaves_queue};
use super::words::{Class, Span};
use crate::trace::{Flow, Packet, Step};

/// Packets of a flow that are compared with each other.
const WINDOW: usize = 128;
/// Flows at a device that are remembered; beyond that the one that was idle longest is forgotten.
const MAX_FLOWS: usize = 1024;

/// The order of packets in the queues of a run.
#[derive(Debug, Default)]
pub(super) struct Order {
    flows: BTreeMap<Key, Recent>,
    clock: u64,
    found: Vec<Finding>,
}

/// A flow at a device. Of ICMP its identifier: an echo is no flow of its own.
type Key = ((u32, u32), u8, IpAddr, IpAddr, (u16, u16));

#[derive(Debug, Default)]
struct Recent {
    used: u64,
    passes: VecDeque<Pass>,
}

/// A packet's way through a queue.
#[derive(Clone, Copy, Debug)]
struct Pass {
    number: u64,
    cpu: u32,
    entered_ns: u64,
    left_ns: u64,
    /// It has been counted: it overtook another.
    counted: bool,
}

impl Order {
    /// Takes a packet in.
    pub(super) fn observe(&mut self, packet: &Packet, number: u64) {
        // Of one that was cut the parts leave, and of one that came in parts it is not known when each did.
        if packet.tree().any(Packet::was_cut) {
            return;
        }
        for (from, to) in neighbours(&packet.steps) {
            let (before, after) = (&packet.steps[from], &packet.steps[to]);
            if enters_queue(before.hop) && leaves_queue(after) {
                self.pass(&packet.steps[..=to], from, number);
            }
        }
    }

    fn pass(&mut self, steps: &[Step], from: usize, number: u64) {
        let (before, after) = (&steps[from], &steps[steps.len() - 1]);
        let Some(device) = Device::of(before).filter(|device| Some(device.key) == after.device()) else { return };
        let Some(key) = key(device.key, before) else { return };
        self.make_room(&key);
        self.clock += 1;
        let recent = self.flows.entry(key).or_default();
        recent.used = self.clock;
        let mut new = Pass {
            number,
            cpu: before.event.cpu,
            entered_ns: before.event.time_ns,
            left_ns: after.event.time_ns,
            counted: false,
        };
        let mut sightings = Vec::new();
        let mut held_ns = 0;
        let (number, cpu) = (new.number, new.cpu);
        for old in recent.passes.iter_mut().filter(|old| old.cpu == cpu && old.number != number) {
            let (first, second) = if old.entered_ns < new.entered_ns { (old, &mut new) } else { (&mut new, old) };
            if first.entered_ns < second.entered_ns && first.left_ns > second.left_ns {
                held_ns = held_ns.max(first.left_ns - first.entered_ns);
                if !second.counted {
                    second.counted = true;
                    sightings.push(Sighting { number: second.number, at_ns: second.left_ns });
                }
            }
        }
        if recent.passes.len() >= WINDOW {
            recent.passes.pop_front();
        }
        recent.passes.push_back(new);
        if sightings.is_empty() {
            return;
        }
        let span = Span::Between(before.hop, after.hop);
        let at = self.found.iter().position(|it| it.span == span && it.device.map(|it| it.key) == Some(device.key));
        let at = at.unwrap_or_else(|| {
            let mut finding = Finding::new(Class::Reordered, span, Some(device), Detail::Reordered { held_ns: 0 });
            finding.way = way(steps);
            self.found.push(finding);
            self.found.len() - 1
        });
        let finding = &mut self.found[at];
        sightings.into_iter().for_each(|sighting| finding.note(sighting));
        if let Detail::Reordered { held_ns: longest } = &mut finding.detail {
            *longest = held_ns.max(*longest);
        }
    }

    fn make_room(&mut self, key: &Key) {
        if self.flows.len() < MAX_FLOWS || self.flows.contains_key(key) {
            return;
        }
        let oldest = self.flows.iter().min_by_key(|(_, recent)| recent.used).map(|(key, _)| *key);
        oldest.and_then(|key| self.flows.remove(&key));
    }

    /// Where packets overtook each other.
    pub(super) fn findings(&self) -> impl Iterator<Item = Finding> {
        self.found.iter().cloned()
    }
}

fn key(device: DeviceKey, step: &Step) -> Option<Key> {
    let flow = Flow::of(&step.event)?;
    let ports = flow.ports.or_else(|| flow.icmp.map(|icmp| (u16::from(icmp.kind), icmp.id))).unwrap_or_default();
    // Fragments of one datagram go their way without ports, beside others.
    (!flow.fragment).then_some(((device.netns, device.ifindex), flow.proto, flow.src, flow.dst, ports))
}
