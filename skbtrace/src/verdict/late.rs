//! Packets that came late: which waits are a finding.
//!
//! A busy machine makes anything slow now and then, an emulated one makes everything slow. So only waits in a place that is
//! made for waiting count: a device's queue, the wait for a neighbour's address, the input queue of a CPU, the hands of a
//! program behind netfilter; only from a threshold on that no function takes; and only where they are not one in many.
//! What waits in a socket for its reader is the reader's business.

use std::collections::BTreeMap;

use skbtrace_common::{Context, DeviceKey, HopId};

use super::finding::{Detail, Device, Finding, Hook, Sighting, neighbours, way};
use super::words::{Class, Span};
use crate::hops::Role;
use crate::trace::{Outcome, Packet, Queue, Step};

/// From when on a wait is too long, when nobody said: in the queue of a device, and elsewhere.
const SLOW_QUEUE_NS: u64 = 50_000_000;
const SLOW_NS: u64 = 100_000_000;
/// What has not left a device's queue for so long when the run ends is late too.
const STUCK_NS: u64 = 1_000_000_000;
/// One in so many packets is chance.
const CHANCE: u64 = 10;
/// So many pairs of hops and devices are told apart.
const MAX_PAIRS: usize = 1024;

/// The waits of a run.
#[derive(Debug, Default)]
pub(super) struct Late {
    slow_ns: Option<u64>,
    pairs: BTreeMap<Key, Pair>,
}

/// From which hop to which, and at which device.
type Key = (HopNumber, Option<HopNumber>, Option<(u32, u32)>);
type HopNumber = u16;

#[derive(Debug, Default)]
struct Pair {
    passed: u64,
    /// Of those, the ones that something had in between.
    held: u64,
    /// Somebody else went on with one that was late: no time on one CPU says so alone.
    is_sure: bool,
    /// Of those that were late.
    finding: Option<Finding>,
}

impl Pair {
    /// Out of how many the late ones are. A CPU that stands still makes a packet late that nothing held: where no other evidence
    /// is there, it has to be many of all that passed.
    fn of(&self) -> u64 {
        if self.is_sure { self.held } else { self.passed }
    }
}

impl Late {
    /// Waits from this time on, nanoseconds, are too long, wherever they are.
    pub(super) fn new(slow_ns: Option<u64>) -> Late {
        Late { slow_ns, pairs: BTreeMap::new() }
    }

    /// Takes the waits of a packet in.
    pub(super) fn observe(&mut self, packet: &Packet, number: u64) {
        for part in packet.tree() {
            for (before, after) in neighbours(&part.steps) {
                self.pair(&part.steps[..=after], before, number);
            }
            self.stuck(part, number);
        }
    }

    fn pair(&mut self, steps: &[Step], from: usize, number: u64) {
        let (before, after) = (&steps[from], &steps[steps.len() - 1]);
        let Some((limit_ns, queue)) = limit(before, after) else { return };
        let limit_ns = self.slow_ns.unwrap_or(limit_ns);
        let took_ns = took(before, after);
        let device = if queue.is_some() { Device::of(after) } else { Device::of(before) };
        let device = device.or_else(|| Device::of(after));
        let key = (before.hop as u16, Some(after.hop as u16), device.map(|it| (it.key.netns, it.key.ifindex)));
        let Some(pair) = self.entry(key) else { return };
        pair.passed += 1;
        // Whoever puts a packet into an empty queue, or into none at all, mostly takes it out again: then it never waited.
        let is_sure = !enters_queue(before.hop) || goes_on_elsewhere(before, after);
        if !is_sure && !must_have_been_handed_on(before, after) {
            return;
        }
        pair.held += 1;
        if took_ns < limit_ns {
            return;
        }
        pair.is_sure |= is_sure;
        let finding = pair.finding.get_or_insert_with(|| {
            let span = Span::Between(before.hop, after.hop);
            let detail = Detail::Delayed { longest_ns: 0, shortest_ns: u64::MAX, passed: 0, queue };
            let mut finding = Finding::new(Class::Delayed, span, device, detail);
            finding.hook = Hook::of(before).filter(|_| before.hop == HopId::NfHookSlow);
            finding.way = way(steps);
            finding
        });
        note(finding, took_ns, Sighting { number, at_ns: after.event.time_ns });
    }

    /// A packet that the end of the run found in the queue of a device.
    fn stuck(&mut self, part: &Packet, number: u64) {
        let Outcome::Waiting { at, queue: None, for_ns } = part.outcome else { return };
        let Some(last) = part.steps.iter().rev().find(|step| step.role() != Role::Work) else { return };
        if !enters_queue(at) || last.hop != at || for_ns < STUCK_NS.max(self.slow_ns.unwrap_or(0)) {
            return;
        }
        let device = Device::of(last);
        let key = (last.hop as u16, None, device.map(|it| (it.key.netns, it.key.ifindex)));
        let Some(pair) = self.entry(key) else { return };
        pair.passed += 1;
        pair.held += 1;
        let finding = pair.finding.get_or_insert_with(|| {
            let detail = Detail::Delayed { longest_ns: 0, shortest_ns: u64::MAX, passed: 0, queue: None };
            let mut finding = Finding::new(Class::Delayed, Span::At(last.hop), device, detail);
            finding.way = way(&part.steps);
            finding
        });
        note(finding, for_ns, Sighting { number, at_ns: last.event.time_ns });
    }

    fn entry(&mut self, key: Key) -> Option<&mut Pair> {
        if self.pairs.len() >= MAX_PAIRS && !self.pairs.contains_key(&key) {
            return None;
        }
        Some(self.pairs.entry(key).or_default())
    }

    /// What is too much for chance.
    pub(super) fn findings(&self) -> impl Iterator<Item = Finding> {
        self.pairs.values().filter_map(|pair| {
            let mut finding = pair.finding.clone()?;
            if let Detail::Delayed { passed, .. } = &mut finding.detail {
                *passed = pair.of();
            }
            (finding.count.saturating_mul(CHANCE) >= pair.of()).then_some(finding)
        })
    }

    /// The longest that a packet was held between these hops, of the packets that were too late there.
    pub(super) fn longest_ns(&self, span: Span, device: Option<DeviceKey>) -> Option<u64> {
        let findings = self.pairs.values().filter_map(|pair| pair.finding.as_ref());
        let mut here = findings.filter(|finding| (finding.span, finding.device.map(|it| it.key)) == (span, device));
        here.find_map(|finding| match finding.detail {
            Detail::Delayed { longest_ns, .. } => Some(longest_ns),
            _ => None,
        })
    }
}

fn note(finding: &mut Finding, ns: u64, sighting: Sighting) {
    finding.note(sighting);
    if let Detail::Delayed { longest_ns, shortest_ns, .. } = &mut finding.detail {
        *longest_ns = ns.max(*longest_ns);
        *shortest_ns = ns.min(*shortest_ns);
    }
}

/// How long a packet may take from one step to the next, and which queue it waits in, where that is not a device's. `None`
/// where it has nothing to wait for.
fn limit(before: &Step, after: &Step) -> Option<(u64, Option<Queue>)> {
    match (before.hop, after.hop) {
        _ if after.role() == Role::End => None,
        (hop, _) if enters_queue(hop) && leaves_queue(after) => {
            (before.device() == after.device()).then_some((SLOW_QUEUE_NS, None))
        }
        // What goes out waits for the neighbour's address.
        (HopId::IpOutput | HopId::Ip6Output, HopId::DevQueueXmit) => Some((SLOW_NS, None)),
        (HopId::NfHookSlow, HopId::DevQueueXmit) => Some((SLOW_NS, None)),
        // A program decides (NFQUEUE), in its own time.
        (HopId::NfHookSlow, _) if goes_on_elsewhere(before, after) => Some((SLOW_NS, None)),
        _ => match after.waited {
            Some(queue @ (Queue::Backlog | Queue::VethRing)) => Some((SLOW_NS, Some(queue))),
            _ => None,
        },
    }
}

/// Whether a packet comes to the queue of its device at this hop.
pub(super) fn enters_queue(hop: HopId) -> bool {
    matches!(hop, HopId::DevQueueXmit | HopId::NetDevQueue | HopId::QdiscEnqueue)
}

/// Whether a packet leaves the queue of its device by this step.
pub(super) fn leaves_queue(step: &Step) -> bool {
    matches!(step.hop, HopId::NetDevStartXmit | HopId::VethXmit | HopId::LoopbackXmit)
}

/// Whether somebody else goes on with the packet than whoever had it before: another context, another thread, or, in interrupts,
/// another CPU. A function that is merely slow, or was interrupted, goes on where it was; so does one whose whole CPU stood still,
/// as that of a virtual machine may.
fn goes_on_elsewhere(before: &Step, after: &Step) -> bool {
    match (before.context(), after.context()) {
        (Some(Context::PROCESS), Some(Context::PROCESS)) => before.event.tid != after.event.tid,
        (Some(old), Some(new)) if old != new => true,
        _ => before.event.cpu != after.event.cpu,
    }
}

/// Whether a softirq took so long, on one CPU, that it must have been another that went on: by the time alone.
fn must_have_been_handed_on(before: &Step, after: &Step) -> bool {
    let in_softirq = before.context() == Some(Context::SOFTIRQ) && after.context() == Some(Context::SOFTIRQ);
    in_softirq && took(before, after) >= SLOW_QUEUE_NS
}

/// Nanoseconds from one step to the next.
fn took(before: &Step, after: &Step) -> u64 {
    after.event.time_ns.saturating_sub(before.event.time_ns)
}
