//! How a packet ended, told from its steps.

use std::net::SocketAddr;

use skbtrace_common::{Context, EventFlags, HopId};

use super::flow::tcp_flag;
use super::open::Open;
use super::packet::{Process, Queue, Step, destination};
use super::stitch::StitchOptions;
use crate::hops::Role;

mod reasons;
mod taken;

pub use reasons::Reasons;

/// How a packet ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It reached who it was for.
    Delivered {
        /// How far it was seen to come.
        how: How,
        /// Who read it: only for [`How::Copied`], and only where the context is known.
        process: Option<Process>,
        /// The address that received it, after NAT.
        socket: Option<SocketAddr>,
        /// When: CLOCK_MONOTONIC, nanoseconds.
        at_ns: u64,
    },
    /// The kernel freed it before its time.
    Dropped {
        /// A value of the running kernel's `enum skb_drop_reason`; kernels before 5.17 give none.
        reason: Option<u32>,
        /// Address of the code that dropped it.
        location: u64,
        /// Last hop before the drop; `None` when nothing else was seen of it.
        at: Option<HopId>,
        /// How far it had come.
        stage: Stage,
    },
    /// It went out through a device that is no veth: a network card, a tap.
    Left,
    /// Freed in good order, by the code behind this hop: replaced by clones, or of no further use.
    Consumed {
        /// Last hop.
        at: HopId,
    },
    /// Its bytes were appended to another packet, which goes on with them: by GRO, or as a fragment.
    Merged {
        /// Id of that packet, where it is known.
        into: Option<u64>,
        /// Where that was.
        at: HopId,
    },
    /// It was a copy for a packet socket.
    Tapped {
        /// The packet socket refused it: its buffer was full, for one.
        dropped: bool,
    },
    /// It had not ended when the run did.
    Waiting {
        /// Last hop.
        at: HopId,
        /// The queue that it is in; `None`: under way, or in a queue of a device.
        queue: Option<Queue>,
        /// Nanoseconds since then.
        for_ns: u64,
    },
    /// Something of it was not seen. Never called delivered, whatever was seen.
    Incomplete {
        /// What is missing, in the order of the path. Never empty.
        causes: Vec<Cause>,
        /// The outcome that it would have without the gap. `None` when its end was not seen.
        seen: Option<Box<Outcome>>,
    },
}

/// How a packet was delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// A process copied it out of the socket.
    Copied,
    /// It joined the socket's receive queue and was freed without being copied by itself: it bore no data, or its reader
    /// was not seen.
    Queued,
    /// TCP appended it to a segment before it, in the socket's queue or backlog: it is read with that one.
    Coalesced,
    /// The kernel's own protocol used it up: an ACK, an echo request, an ARP question.
    Protocol,
}

/// How far a dropped packet had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// It was still on its way.
    Path,
    /// It was in a socket's receive queue: closed with unread data, for one.
    SocketQueue,
    /// A process had copied from it.
    Copied,
}

/// Why a packet is incomplete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Events were lost.
    Missing {
        /// The hop before the gap; `None`: the beginning is missing.
        after: Option<HopId>,
        /// How many.
        count: u32,
    },
    /// It came to light in place of another packet whose end was missed, and not at a sender: where it began is unknown.
    StartUnknown,
    /// Its address came to be another packet's although no end was seen.
    AddressReused,
    /// Its end was not seen, and this run lost events: its end may be one of them.
    EndLost,
    /// A CPU skipped its probes while it had the packet, from this hop on: hops may be missing.
    ProbesMissed {
        /// The first hop at which that is known.
        at: HopId,
    },
    /// It was cut into parts, and of so many bytes no part was seen.
    PartsUnseen {
        /// Bytes of L4 payload.
        bytes: u32,
    },
}

/// What is known of the last moment of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Closing {
    /// Its end was seen: it is the last step.
    End,
    /// The run is over.
    RunOver {
        /// Events were lost in it.
        lossy: bool,
        /// When: CLOCK_MONOTONIC, nanoseconds.
        now_ns: u64,
    },
    /// Another packet has its address.
    AddressReused {
        /// The kernel side saw its end, and the event was lost.
        end_lost: bool,
    },
    /// TCP took it, and has been silent since.
    Taken {
        /// Events were lost since it was seen last.
        lossy: bool,
    },
    /// Its bytes were read, or went up the stack, as a part of this packet.
    PartOf(u64),
}

/// The outcome of a packet of which no more is known than this.
pub(super) fn judge(open: &Open, closing: Closing, options: &StitchOptions) -> Outcome {
    let steps = &open.steps[..];
    let mut causes = Vec::new();
    if open.start_unknown {
        causes.push(Cause::StartUnknown);
    }
    let mut before = None;
    for step in steps {
        if step.missing > 0 {
            causes.push(Cause::Missing { after: before, count: step.missing });
        }
        before = Some(step.hop);
    }
    if let Some(step) = steps.iter().find(|step| step.is_nested()) {
        causes.push(Cause::ProbesMissed { at: step.hop });
    }
    if let Some(end) = steps.last().filter(|_| !options.tcp_ends_unseen && is_reader_missed(steps)) {
        causes.push(Cause::ProbesMissed { at: end.hop });
    }
    let taken = |waits| options.tcp_ends_unseen.then(|| taken::outcome(steps, waits)).flatten();
    let seen = match closing {
        Closing::End if options.tcp_ends_unseen && !open.has_branches() => {
            taken::used_up(steps, options).or_else(|| Some(ended(steps, &options.reasons)))
        }
        Closing::End => Some(ended(steps, &options.reasons)),
        Closing::RunOver { lossy, now_ns } => {
            if lossy {
                causes.push(Cause::EndLost);
            }
            taken(Some(now_ns)).or_else(|| unfinished(steps, now_ns))
        }
        Closing::AddressReused { end_lost } => {
            let taken = taken(None).filter(|_| !end_lost);
            if taken.is_none() {
                causes.push(Cause::AddressReused);
            }
            taken
        }
        Closing::Taken { lossy } => {
            if lossy {
                causes.push(Cause::EndLost);
            }
            taken(None)
        }
        Closing::PartOf(whole) => taken::part_of(steps, whole),
    };
    match seen {
        Some(seen) if causes.is_empty() => seen,
        seen => Outcome::Incomplete { causes, seen: seen.filter(|_| closing == Closing::End).map(Box::new) },
    }
}

/// The outcome of a packet whose last step is its end.
fn ended(steps: &[Step], reasons: &Reasons) -> Outcome {
    let Some((end, path)) = steps.split_last() else { return Outcome::Left };
    let last = path.iter().rev().find(|step| step.role().is_place());
    let role = last.map(Step::role);
    let copied = path.iter().rev().find(|step| step.role() == Role::Copy);
    let reason = reason(end);
    let killed = end.hop == HopId::KfreeSkb && !reasons.is(reason, "CONSUMED");
    if role == Some(Role::Tap) {
        return Outcome::Tapped { dropped: killed };
    }
    let deliberate = !is_unnamed(reason, reasons);
    if let Some(merge) = merged(end, path)
        && !(killed && (deliberate || is_left_alone(merge)))
    {
        let joined = (merge.event.other != 0).then_some(merge.event.other);
        let in_socket = matches!(role, Some(Role::Transport | Role::Socket));
        return match last.filter(|_| in_socket) {
            Some(last) => delivered(steps, How::Coalesced, last),
            None => Outcome::Merged { into: joined, at: merge.hop },
        };
    }
    if killed && !is_used_up(last, reason, reasons) {
        let stage = match (role, copied) {
            (_, Some(_)) => Stage::Copied,
            (Some(Role::Socket), None) if !is_refused(end, reason, reasons) => Stage::SocketQueue,
            _ => Stage::Path,
        };
        let at = path.iter().rev().find(|step| step.role() != Role::Work).map(|step| step.hop);
        return Outcome::Dropped { reason, location: end.event.location, at, stage };
    }
    let Some(last) = last else {
        // Nothing but the end, and perhaps a copy, was seen of it.
        return copied.map_or(Outcome::Consumed { at: end.hop }, |copy| delivered(steps, How::Copied, copy));
    };
    match (last.role(), copied) {
        _ if path.last().is_some_and(|step| step.role() == Role::Split) => {
            Outcome::Consumed { at: path[path.len() - 1].hop }
        }
        // A tap device: the program behind it reads frames in the way in which others read sockets.
        (Role::Transmit, _) => Outcome::Left,
        (_, Some(copy)) => delivered(steps, How::Copied, copy),
        (Role::Socket, None) if was_read(last, end) => delivered(steps, How::Copied, end),
        (Role::Socket, None) => delivered(steps, How::Queued, last),
        (Role::Transport, None) => delivered(steps, How::Protocol, end),
        (Role::Receive, None) if takes_it_up(last.hop) => delivered(steps, How::Protocol, end),
        _ => Outcome::Consumed { at: last.hop },
    }
}

/// Why the packet was freed, if the kernel says.
fn reason(end: &Step) -> Option<u32> {
    (end.event.flags & EventFlags::REASON != 0).then_some(end.event.reason)
}

/// Whether the kernel says no more than that the packet was freed.
fn is_unnamed(reason: Option<u32>, reasons: &Reasons) -> bool {
    reason.is_none() || reasons.is(reason, "NOT_SPECIFIED")
}

/// Whether it is a TCP segment with an ACK and without data.
fn is_empty(step: &Step) -> bool {
    let event = &step.event;
    event.flags & EventFlags::L4 != 0 && event.tcp_flags & tcp_flag::ACK != 0 && event.payload_len == 0
}

/// Whether a socket that was about to queue the packet had no room for it (net/ipv4/udp.c, __udp_enqueue_schedule_skb;
/// net/core/sock.c, __sock_queue_rcv_skb). A kernel that gives no reasons refuses in the softirq that brings the packet;
/// what has been queued is thrown away by a process: its reader, or who closes the socket.
fn is_refused(end: &Step, reason: Option<u32>, reasons: &Reasons) -> bool {
    match reason {
        Some(_) => reasons.is(reason, "SOCKET_RCVBUFF") || reasons.is(reason, "PROTO_MEM"),
        None => end.process().is_none(),
    }
}

/// Whether a protocol without a hop of its own gets the packet from here.
fn takes_it_up(hop: HopId) -> bool {
    matches!(hop, HopId::ArpRcv | HopId::IpLocalDeliver | HopId::Ip6Input)
}

/// The step at which the packet's bytes came to be another's, if that is how it ended. Coalescing and GRO are tried at that
/// step, and can fail: then the packet goes on, or its end is another one.
pub(super) fn merged<'a>(end: &Step, path: &'a [Step]) -> Option<&'a Step> {
    let failed = |step: &Step| tries_to_join(step.hop) && end.hop != HopId::KfreeSkbPartial;
    let step = path.iter().rev().find(|step| step.role() != Role::Work && !failed(step))?;
    (step.role() == Role::Merge).then_some(step)
}

/// Whether the hop tries to append the packet to another one, which can fail.
fn tries_to_join(hop: HopId) -> bool {
    matches!(hop, HopId::TcpTryCoalesce | HopId::SkbTryCoalesce)
}

/// A fragment that waited in vain for the others of its datagram.
fn is_left_alone(merge: &Step) -> bool {
    matches!(merge.hop, HopId::IpDefrag | HopId::Ipv6FragRcv) && merge.event.other == 0
}

/// TCP frees some of the ACKs that it has used up (those that close a connection, and more before 5.17) by the function
/// that otherwise drops packets, without naming a reason. These are no drops. A segment that TCP refuses has a reason.
/// Nor is it a drop when the end of a stream has been queued and the socket is closed before anybody reads it: there is
/// nothing to read, and TCP has taken note of the end when it came. ICMPv6 frees all that it has used up in that way before
/// 6.3, but for replies that found their socket.
fn is_used_up(last: Option<&Step>, reason: Option<u32>, reasons: &Reasons) -> bool {
    let Some(step) = last else { return false };
    let (empty, unnamed) = (is_empty(step), is_unnamed(reason, reasons));
    match step.hop {
        HopId::TcpV4Rcv | HopId::TcpV6Rcv | HopId::TcpAddBacklog => empty && unnamed,
        HopId::TcpQueueRcv => empty && step.event.tcp_flags & tcp_flag::FIN != 0,
        HopId::Icmpv6Rcv => unnamed,
        _ => false,
    }
}

/// A datagram that is not in page frags is copied without the function that the copy hop is on (net/ipv4/udp.c,
/// copy_linear_skb): it was read if a process then consumed it. One that nobody read is dropped with its socket.
fn was_read(last: &Step, end: &Step) -> bool {
    last.hop == HopId::UdpEnqueueScheduleSkb
        && matches!(end.hop, HopId::ConsumeSkb | HopId::SkbAttemptDeferFree)
        && end.process().is_some()
}

/// Whether a datagram was queued and then used up by no process. Nobody but its reader lets go of one in good order
/// (net/ipv4/udp.c, skb_consume_udp); from 6.18 on it leaves the freeing to another CPU, which is seen although the reader was on
/// a CPU that skipped its probes: a task with a map in hand may be preempted there.
fn is_reader_missed(steps: &[Step]) -> bool {
    let Some((end, path)) = steps.split_last() else { return false };
    let is_in_place = |step: &&Step| step.role().is_place() || step.role() == Role::Copy;
    let last = path.iter().rev().find(is_in_place);
    last.is_some_and(|last| last.hop == HopId::UdpEnqueueScheduleSkb)
        && end.hop == HopId::ConsumeSkb
        && end.context().is_some_and(|context| context != Context::PROCESS)
}

fn delivered(steps: &[Step], how: How, at: &Step) -> Outcome {
    Outcome::Delivered {
        how,
        process: if how == How::Copied { at.process() } else { None },
        socket: destination(steps),
        at_ns: at.event.time_ns,
    }
}

/// The outcome of a packet that has not ended. What a process has copied is delivered: the kernel frees it when it
/// finds the time.
fn unfinished(steps: &[Step], now_ns: u64) -> Option<Outcome> {
    // Its bytes are another's: with that one it is freed, and some kernels take their time over it.
    let at_end = steps.iter().rev().find(|step| step.role() != Role::Work && !tries_to_join(step.hop));
    if let Some(merge) = at_end.filter(|step| step.role() == Role::Merge && step.event.other != 0) {
        return Some(Outcome::Merged { into: Some(merge.event.other), at: merge.hop });
    }
    let last = steps.iter().rev().find(|step| step.role().is_place() || step.role() == Role::Copy).or(steps.last())?;
    let socket_had_it = steps.iter().any(|step| matches!(step.role(), Role::Socket | Role::Transport));
    let queue = match last.role() {
        Role::Copy if socket_had_it => return Some(delivered(steps, How::Copied, last)),
        Role::Tap => return Some(Outcome::Tapped { dropped: false }),
        Role::Enqueue => Some(Queue::Backlog),
        Role::Socket => Some(Queue::Socket),
        Role::Transport if last.hop == HopId::TcpAddBacklog => Some(Queue::SocketBacklog),
        _ => None,
    };
    Some(Outcome::Waiting { at: last.hop, queue, for_ns: now_ns.saturating_sub(last.event.time_ns) })
}

/// Which of two outcomes speaks for a packet and its clones: the higher.
pub(super) fn rank(outcome: &Outcome) -> u8 {
    match outcome {
        Outcome::Tapped { .. } => 0,
        Outcome::Consumed { .. } => 1,
        Outcome::Dropped { .. } => 2,
        Outcome::Waiting { .. } => 3,
        Outcome::Left | Outcome::Merged { .. } => 4,
        Outcome::Delivered { .. } => 5,
        Outcome::Incomplete { .. } => 6,
    }
}
