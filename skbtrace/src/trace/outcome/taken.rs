//! How a packet ended that was traced by tracepoints alone: what TCP takes it frees without one, and between a device and a
//! socket there is none at all. But whatever is dropped passes one, and so does all that others than TCP use up.

use skbtrace_common::{EventFlags, HopId};

use super::{How, Outcome, delivered, is_empty, is_unnamed, reason};
use crate::hops::Role;
use crate::trace::flow::tcp_flag;
use crate::trace::packet::{Queue, Step};
use crate::trace::stitch::StitchOptions;

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
        // From 6.18 on UDP leaves the freeing of what was read to another CPU, as TCP does.
        (TCP, None) | (UDP, _) => Some(delivered(steps, How::Queued, last)),
        (TCP, Some(over_ns)) => {
            let for_ns = over_ns.saturating_sub(last.event.time_ns);
            Some(Outcome::Waiting { at: last.hop, queue: Some(Queue::Socket), for_ns })
        }
        _ => None,
    }
}

/// The outcome of a packet that was freed in good order behind the last hop that tracepoints have on the way up: its protocol
/// used it up, or, a datagram, its reader. `None` for all others.
pub(super) fn used_up(steps: &[Step], options: &StitchOptions) -> Option<Outcome> {
    let (end, path) = steps.split_last()?;
    match end.role() {
        Role::Copy => return Some(delivered(steps, How::Copied, end)),
        Role::Transport => return Some(delivered(steps, How::Protocol, end)),
        _ => {}
    }
    let last = last(path).filter(|last| is_received(last))?;
    let in_order = end.hop == HopId::ConsumeSkb || options.reasons.is(reason(end), "CONSUMED");
    if !in_order && !is_used_up_by_tcp(last, end, options) {
        return None;
    }
    let how = if protocol(path) == UDP { How::Queued } else { How::Protocol };
    Some(delivered(steps, how, last))
}

/// As `is_used_up` of other backends, which see that TCP has the segment: here the place of the code that frees it says so, or that
/// a stream's end was still queued when the socket was closed.
fn is_used_up_by_tcp(last: &Step, end: &Step, options: &StitchOptions) -> bool {
    let (reasons, reason) = (&options.reasons, reason(end));
    let unnamed = is_unnamed(reason, reasons);
    let code = options.tcp_code.partition_point(|(start, _)| *start <= end.event.location);
    let by_tcp = code.checked_sub(1).is_some_and(|range| end.event.location < options.tcp_code[range].1);
    // Kernels before the reason's name give none: but then TCP was seen to have it.
    let purged = reasons.is(reason, "QUEUE_PURGE") || (unnamed && last.hop == HopId::TcpProbe);
    let ends_stream = last.event.tcp_flags & tcp_flag::FIN != 0 && purged;
    is_empty(last) && last.event.l4_proto == TCP && (ends_stream || (unnamed && by_tcp))
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
