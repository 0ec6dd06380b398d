//! The findings of a run: every packet that is reported comes by here once, and what befell it is added to what befell
//! others in the same place. Memory is bounded: places are few, and packets are counted, not kept.

use skbtrace_common::{EventFlags, HopId};

use super::drops::{dropped, is_bridged, place};
use super::finding::{Detail, Device, Finding, Hook, Sighting, lineage, way};
use super::late::{Late, enters_queue};
use super::order::Order;
use super::payload::{Change, Payload};
use super::signs::owner;
use super::twice::duplicated;
use super::words::{Class, Span};
use crate::hops::{Role, hop};
use crate::trace::{Outcome, Packet, Reasons, Step};

/// So many findings are told apart; there is no place for more to come from but a hostile recording.
const MAX_FINDINGS: usize = 256;

/// Gathers the findings of a run.
#[derive(Debug, Default)]
pub struct Findings {
    reasons: Reasons,
    packets: u64,
    found: Vec<Finding>,
    late: Late,
    order: Order,
}

impl Findings {
    /// Of a run on a kernel with these drop reasons. Waits of `slow_ns` nanoseconds are too long; without it, those that
    /// hardly anything but a fault explains.
    #[must_use]
    pub fn new(reasons: Reasons, slow_ns: Option<u64>) -> Findings {
        Findings { reasons, late: Late::new(slow_ns), ..Findings::default() }
    }

    /// Takes a packet in, with what is known of its payload; `symbol` names the place of an address of the kernel's code. A
    /// packet without a number is not for display, and passed over.
    pub fn observe(&mut self, packet: &Packet, payload: &Payload, symbol: &dyn Fn(u64) -> Option<String>) {
        let Some(number) = packet.number else { return };
        self.packets += 1;
        let is_garbled = matches!(payload, Payload::Garbled(_));
        if let Payload::Garbled(changes) = payload {
            // Of its copies several may have met the same fault: that is one packet.
            let mut told: Vec<(Finding, u64)> = Vec::new();
            for new in changes.all().filter_map(|change| garbled(packet, change)) {
                if !told.iter().any(|(other, _)| other.is_same(&new.0)) {
                    told.push(new);
                }
            }
            for (finding, at_ns) in told {
                self.note(finding, Sighting { number, at_ns });
            }
        }
        if !matches!(packet.verdict(), Outcome::Incomplete { .. })
            && let Some((finding, at_ns)) = dropped(packet, &self.reasons, symbol)
            // A packet that was garbled and then dropped for it has been told of.
            && !(is_garbled && may_be_for_its_bytes(&finding))
        {
            self.note(finding, Sighting { number, at_ns });
        }
        if let Some((finding, at_ns)) = duplicated(packet) {
            self.note(finding, Sighting { number, at_ns });
        }
        self.late.observe(packet, number);
        self.order.observe(packet, number);
    }

    fn note(&mut self, finding: Finding, sighting: Sighting) {
        let at = self.found.iter().position(|known| known.is_same(&finding));
        let at = at.or_else(|| {
            (self.found.len() < MAX_FINDINGS).then(|| {
                self.found.push(finding);
                self.found.len() - 1
            })
        });
        if let Some(at) = at {
            self.found[at].note(sighting);
        }
    }

    /// What has been found so far: by class, and what befell most packets first.
    #[must_use]
    pub fn all(&self) -> Vec<Finding> {
        let reordered: Vec<Finding> = self.order.findings().collect();
        // What overtakes overtakes something that was held, and a queue that is full holds what it takes: that is one finding.
        let mut delayed: Vec<Finding> = self.late.findings().collect();
        let mut found = self.found.clone();
        for full in &mut found {
            let (at, device) = (full.span, full.device);
            let Detail::Dropped { reason, held_ns, .. } = &mut full.detail else { continue };
            if !matches!(at, Span::At(hop) if enters_queue(hop))
                || !reason.as_deref().is_some_and(|it| it.starts_with("QDISC_"))
            {
                continue;
            }
            delayed.retain(|late| {
                let same = late.device.map(|it| it.key) == device.map(|it| it.key)
                    && matches!(late.span, Span::Between(hop, _) if enters_queue(hop));
                if let (true, Detail::Delayed { longest_ns, .. }) = (same, &late.detail) {
                    *held_ns = Some(held_ns.unwrap_or(0).max(*longest_ns));
                }
                !same
            });
        }
        let held = |finding: &Finding| (finding.span, finding.device.map(|device| device.key));
        delayed.retain(|late| reordered.iter().all(|other| held(other) != held(late)));
        let mut all: Vec<Finding> = found.into_iter().chain(delayed).chain(reordered).collect();
        for finding in &mut all {
            finding.packets = self.packets;
            if let Detail::Reordered { held_ns } = &mut finding.detail {
                let longest = self.late.longest_ns(finding.span, finding.device.map(|device| device.key));
                *held_ns = longest.unwrap_or(0).max(*held_ns);
            }
        }
        all.sort_by_key(|finding| (finding.class, std::cmp::Reverse(finding.count), finding.first_ns));
        all
    }
}

/// Whether a packet may have been dropped because its bytes did not fit its checksum any more: by whoever received it. A kernel
/// that names no reason leaves that open, unless the packet shows it, or the function that freed it belongs to nobody who looks.
fn may_be_for_its_bytes(finding: &Finding) -> bool {
    let Detail::Dropped { reason, location, sign, .. } = &finding.detail else { return false };
    let received = |at| matches!(hop(at).role, Role::Receive | Role::Transport | Role::Socket | Role::Copy);
    match (reason, sign) {
        (Some(reason), _) => reason.contains("CSUM"),
        (None, Some(sign)) => sign.is_of_bytes(),
        (None, None) => match location {
            Some(function) => owner(function).is_some_and(received),
            None => matches!(finding.span, Span::At(at) if received(at)),
        },
    }
}

/// What a finding is to say of a payload that changed.
fn garbled(packet: &Packet, change: &Change) -> Option<(Finding, u64)> {
    let steps = lineage(packet, change.after.packet)?;
    let own = packet.tree().find(|part| part.id == change.after.packet)?.steps.len();
    // Its own steps are the last; those of the packets that it goes back to have numbers of their own.
    let at = (steps.len() - own..steps.len()).find(|at| steps[*at].event.step == change.after.step)?;
    let after = steps[at];
    let before = steps[..at].iter().rev().find(|step| step.hop == change.before.hop).copied();
    let path: Vec<Step> =
        steps[..=at].iter().copied().filter(|step| !matches!(step.role(), Role::Work | Role::End)).collect();
    let span = Span::Between(change.before.hop, change.after.hop);
    let device = Device::of(&after).filter(|_| after.role() != Role::Netfilter).or_else(|| place(&path).0);
    let paged = before.is_some_and(|step| step.event.data_len > 0 && step.event.flags & EventFlags::READ_FAILED == 0);
    let raw = steps
        .first()
        .is_some_and(|step| matches!(step.hop, HopId::DevQueueXmit | HopId::NetDevStartXmit | HopId::VethXmit));
    let detail = Detail::Garbled { place: change.place, paged, raw };
    let mut finding = Finding::new(Class::Garbled, span, device, detail);
    finding.hook = before.as_ref().and_then(Hook::of);
    finding.next_hook = Hook::of(&after);
    finding.way = way(&path);
    finding.bridged = is_bridged(&path);
    Some((finding, after.event.time_ns))
}

#[cfg(test)]
mod tests;
