//! How a packet ended that was traced by tracepoints alone: what TCP takes it frees without one, and between a device and a
//! socket there is none at all. But whatever is dropped passes one, and so does all that others than TCP use up.

use skbtrace_common::{EventFlags, HopId};

use super::{How, Outcome, Reasons, delivered, is_used_up};
use crate::hops::Role;
use crate::trace::packet::{Queue, Step};

const TCP: u8 = 6;
const UDP: u8 = 17;

/// The outcome of a packet whose end was not seen: for the run was over at `over_ns`, or its address was another's. `None` when
/// that does not mean that the stack has taken it.
pub(super) fn outcome(steps: &[Step], over_ns: Option<u64>) -> Option<Outcome> {
    let last = last(steps)?;
    if last.role() == Role::Copy {
        return Some(delivered(steps, How::Copied, last));
    }
    let proto = is_received(last).then(|| protocol(steps))?;
    let has_data = last.event.payload_len > 0;
    match (proto, over_ns) {
        (TCP, _) if !has_data => Some(delivered(steps, How::Protocol, last)),
        (TCP, None) => Some(delivered(steps, How::Queued, last)),
        (TCP | UDP, Some(over_ns)) => {
            let for_ns = over_ns.saturating_sub(last.event.time_ns);
            Some(Outcome::Waiting { at: last.hop, queue: Some(Queue::Socket), for_ns })
        }
        _ => None,
    }
}

/// The outcome of a packet that was freed in good order behind the last hop that tracepoints have on the way up: its protocol
/// used it up, or, a datagram, its reader. `None` for all others.
pub(super) fn used_up(steps: &[Step], reasons: &Reasons) -> Option<Outcome> {
    let (end, path) = steps.split_last()?;
    match end.role() {
        Role::Copy => return Some(delivered(steps, How::Copied, end)),
        Role::Transport => return Some(delivered(steps, How::Protocol, end)),
        _ => {}
    }
    let last = last(path).filter(|last| is_received(last))?;
    let reason = (end.event.flags & EventFlags::REASON != 0).then_some(end.event.reason);
    let in_order =
        end.hop == HopId::ConsumeSkb || reasons.is(reason, "CONSUMED") || is_used_up(Some(last), reason, reasons);
    if !in_order {
        return None;
    }
    let how = if protocol(path) == UDP { How::Queued } else { How::Protocol };
    Some(delivered(steps, how, last))
}

/// The outcome of a packet whose bytes came to be a part of another: GRO's, when it had come no further than there, or TCP's.
pub(super) fn part_of(steps: &[Step], whole: u64) -> Option<Outcome> {
    let last = last(steps)?;
    Some(if last.hop == HopId::NapiGroReceiveEntry {
        Outcome::Merged { into: Some(whole), at: last.hop }
    } else {
        delivered(steps, How::Coalesced, last)
    })
}

fn last(steps: &[Step]) -> Option<&Step> {
    steps.iter().rev().find(|step| step.role().is_place() || step.role() == Role::Copy)
}

fn is_received(step: &Step) -> bool {
    matches!(step.hop, HopId::NetifReceiveSkb | HopId::TcpProbe)
}

/// The transport protocol; 0 when it is not known.
fn protocol(steps: &[Step]) -> u8 {
    let known = steps.iter().rev().find(|step| step.event.flags & EventFlags::L3 != 0);
    known.map_or(0, |step| step.event.l4_proto)
}
