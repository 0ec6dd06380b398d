//! Which of the packets that ended early ended by a fault.
//!
//! The kernel frees many packets as dropped in the course of a day's work: what nobody asked for on a broadcast, segments that
//! came twice, what was on its way when a connection closed. Of those nothing is said. What a rule, a queue or a device
//! refuses is always said; what the receiver refuses, only of packets that were meant for it and wanted an answer.

use std::net::IpAddr;

use skbtrace_common::HopId;

use super::finding::{Detail, Device, Finding, Hook, lineage, way};
use super::signs::{Sign, owner, sign};
use super::words::{Class, Span};
use crate::hops::{Role, hop};
use crate::trace::{Outcome, Packet, Reasons, Stage, Step, tcp_flag};

/// Reasons that name a rule, a program or a queue: whatever the packet was, somebody has decided.
const DELIBERATE: [&str; 14] = [
    "NETFILTER_DROP",
    "TC_INGRESS",
    "TC_EGRESS",
    "TC_CHAIN_NOTFOUND",
    "TC_RECLASSIFY_LOOP",
    "XDP",
    "QDISC_DROP",
    "QDISC_OVERLIMIT",
    "QDISC_CONGESTED",
    "CPU_BACKLOG",
    "FULL_RING",
    "CONNTRACK",
    "BPF_CGROUP_EGRESS",
    "FQ_FLOW_LIMIT",
];

/// Reasons of TCP's, and of a socket's, that are none of the usual ends of a segment.
const REFUSED_BY_TCP: [&str; 13] = [
    "TCP_CSUM",
    "SOCKET_RCVBUFF",
    "SOCKET_BACKLOG",
    "SOCKET_FILTER",
    "PROTO_MEM",
    "NOMEM",
    "XFRM_POLICY",
    "TCP_MINTTL",
    "TCP_MD5NOTFOUND",
    "TCP_MD5UNEXPECTED",
    "TCP_MD5FAILURE",
    "TCP_LISTEN_OVERFLOW",
    "TCP_REQQFULLDROP",
];

/// What a finding is to say of the end of this packet; `None` where it ended as packets do.
pub(super) fn dropped(
    packet: &Packet,
    reasons: &Reasons,
    symbol: &dyn Fn(u64) -> Option<String>,
) -> Option<(Finding, u64)> {
    let ending = |ended: &Packet| of_end(packet, ended, reasons, symbol);
    ending(decisive(packet, reasons, symbol)?).or_else(|| refused(packet, reasons).and_then(ending))
}

/// What a finding is to say of this end, of the packet or of a branch.
fn of_end(
    packet: &Packet,
    ended: &Packet,
    reasons: &Reasons,
    symbol: &dyn Fn(u64) -> Option<String>,
) -> Option<(Finding, u64)> {
    let steps = lineage(packet, ended.id)?;
    let end_ns = steps.last()?.event.time_ns;
    // A clone that was made and not seen may be what went where the packet was meant to go.
    let clones = steps.iter().filter(|step| step.hop == HopId::SkbClone).count();
    let unseen_clone = clones >= packet.tree().count();
    let path: Vec<Step> = steps.into_iter().filter(is_of_path).collect();
    let (at, detail) = match &ended.outcome {
        Outcome::Dropped { reason, location, at, stage: Stage::Path } => {
            let name = named(reasons, *reason);
            let (location, sign) = (function(*location, symbol), sign_of(ended, symbol));
            let end = Ending {
                packet,
                path: &path,
                at: *at,
                reason: name,
                location: location.as_deref(),
                sign,
                unseen_clone,
            };
            if !end.is_fault() {
                return None;
            }
            (*at, Detail::Dropped { reason: name.map(str::to_owned), location, sign, silent: false, held_ns: None })
        }
        // The frame was copied for the program, and the copy is a page: the packet ends as if it had been used up. Where the
        // kernel has no hop for the poll, that is behind the crossing.
        Outcome::Consumed { at: at @ (HopId::VethXdpRcvSkb | HopId::DevForwardSkb) } if ended.branches.is_empty() => {
            let sign = (*at == HopId::DevForwardSkb).then_some(Sign::Polled);
            (Some(*at), Detail::Dropped { reason: None, location: None, sign, silent: true, held_ns: None })
        }
        _ => return None,
    };
    // A hook of netfilter is no place: what ends in the first one was nowhere yet.
    let at = at.filter(|_| path.iter().any(|step| step.role() != Role::Netfilter));
    let span = at.map_or(Span::Unseen, Span::At);
    let (mut device, toward) = place(&path);
    if matches!(detail, Detail::Dropped { sign: Some(Sign::Polled), .. }) {
        // It had crossed.
        device = toward.or(device);
    }
    let mut finding = Finding::new(Class::Dropped, span, device, detail);
    finding.toward = toward;
    finding.hook = hook_of(&path, &finding);
    finding.way = way(&path);
    finding.bridged = is_bridged(&path);
    Some((finding, end_ns))
}

/// The packet or branch whose end is the end of it all. Of several that were dropped it is the one that came last, but for
/// copies that got to somebody they were not for: a bridge that floods, or whose own device somebody listens on, makes such.
fn decisive<'a>(packet: &'a Packet, reasons: &Reasons, symbol: &dyn Fn(u64) -> Option<String>) -> Option<&'a Packet> {
    let verdict = packet.verdict();
    if !matches!(verdict, Outcome::Dropped { .. }) {
        return packet.tree().find(|part| std::ptr::eq(&raw const part.outcome, verdict));
    }
    let stray =
        |part: &Packet| reason_of(part, reasons) == Some("OTHERHOST") || sign_of(part, symbol) == Some(Sign::OtherHost);
    let dropped = packet.tree().filter(|part| matches!(part.outcome, Outcome::Dropped { .. }));
    dropped.max_by_key(|part| (!stray(part), part.last_ns()))
}

/// Of a packet whose copies were all dropped, the last that somebody has decided to drop: that another ended later as copies do
/// which nobody waits for takes nothing from it.
fn refused<'a>(packet: &'a Packet, reasons: &Reasons) -> Option<&'a Packet> {
    if !matches!(packet.verdict(), Outcome::Dropped { .. }) {
        return None;
    }
    let decided = |part: &&Packet| reason_of(part, reasons).is_some_and(is_decided);
    packet.tree().filter(decided).max_by_key(|part| part.last_ns())
}

fn is_decided(reason: &str) -> bool {
    DELIBERATE.contains(&reason)
}

/// Why this packet or branch itself was dropped, if it was and there is a name for it.
fn reason_of<'a>(part: &Packet, reasons: &'a Reasons) -> Option<&'a str> {
    let Outcome::Dropped { reason, .. } = part.outcome else { return None };
    named(reasons, reason)
}

/// What this packet or branch shows of why it was dropped, if it was and the kernel names no reason.
fn sign_of(part: &Packet, symbol: &dyn Fn(u64) -> Option<String>) -> Option<Sign> {
    let Outcome::Dropped { reason: None, location, .. } = part.outcome else { return None };
    let last = part.steps.iter().rev().find(|step| is_of_path(step))?;
    sign(last, function(location, symbol).as_deref())
}

/// The function that freed a packet, where that is known.
fn function(location: u64, symbol: &dyn Fn(u64) -> Option<String>) -> Option<String> {
    (location != 0).then(|| symbol(location)).flatten()
}

/// Whether a step is one of the packet's way, and not of what is done to it there.
fn is_of_path(step: &Step) -> bool {
    !matches!(step.role(), Role::Work | Role::End)
}

/// A reason by its name, where it is one.
fn named(reasons: &Reasons, reason: Option<u32>) -> Option<&str> {
    reason.and_then(|reason| reasons.name(reason)).filter(|name| *name != "NOT_SPECIFIED")
}

/// A packet that the kernel freed as dropped.
struct Ending<'a> {
    packet: &'a Packet,
    /// Its steps and those of the packets it goes back to, but for work and ends.
    path: &'a [Step],
    at: Option<HopId>,
    reason: Option<&'a str>,
    location: Option<&'a str>,
    /// What the packet shows, where there is no reason.
    sign: Option<Sign>,
    unseen_clone: bool,
}

impl Ending<'_> {
    fn is_fault(&self) -> bool {
        if self.reason.is_some_and(is_decided) || self.by_netfilter() {
            return true;
        }
        let wanted = self.packet.flow.is_some_and(|flow| !is_many(flow.dst)) && !self.path.iter().any(went_to_many);
        // A frame for others, on a device that listens to all, is nobody's fault unless it was sent here.
        // Tracepoints have no hop before that of the device that a packet is sent by.
        let is_start =
            |step: &Step| step.role().is_origin() || step.role() == Role::Netfilter || step.hop == HopId::NetDevQueue;
        let sent_here = self.path.first().is_some_and(is_start);
        // Nor is the copy that a bridge makes for its own device while somebody listens there to all that it forwards.
        let copy = self.unseen_clone || self.path.iter().any(|step| step.hop == HopId::BrPassFrameUp);
        if !wanted || (self.is_for_others() && (!sent_here || copy)) {
            return false;
        }
        match self.packet.flow.map_or(0, |flow| flow.proto) {
            6 => self.is_fault_of_tcp(),
            // A reply that comes when ping has gone, an error about a connection that is over.
            1 | 58 => !self.at_receiver() || self.is("ICMP_CSUM") || self.is_broken(),
            _ => !matches!(self.at, Some(HopId::RawRcv | HopId::Rawv6Rcv)),
        }
    }

    fn is_fault_of_tcp(&self) -> bool {
        let opens = self.packet.tcp.is_some_and(|tcp| tcp.flags & (tcp_flag::SYN | tcp_flag::ACK) == tcp_flag::SYN);
        match self.reason {
            // What comes after a connection is over is answered by a reset, and that is that.
            Some("NO_SOCKET") => opens,
            Some(reason) if reason.starts_with("TCP_") || self.at_receiver() => REFUSED_BY_TCP.contains(&reason),
            Some(_) => true,
            None => opens || !self.at_receiver() || self.is_broken(),
        }
    }

    /// Whether its MAC address is not the receiver's.
    fn is_for_others(&self) -> bool {
        self.is("OTHERHOST") || self.sign == Some(Sign::OtherHost)
    }

    /// Whether it shows a checksum that is wrong.
    fn is_broken(&self) -> bool {
        self.sign.is_some_and(Sign::is_of_bytes)
    }

    fn is(&self, reason: &str) -> bool {
        self.reason == Some(reason)
    }

    /// Whether the receiving end had it: what happens to it there is mostly the protocol's own business.
    fn at_receiver(&self) -> bool {
        let last = self.path.iter().rev().find(|step| step.role().is_place());
        let taken = |step: &Step| {
            matches!(step.role(), Role::Transport | Role::Socket | Role::Copy)
                || matches!(step.hop, HopId::IpLocalDeliver | HopId::Ip6Input)
        };
        // Where a kernel has no hop for it, the hook before says so.
        let is_input = |step: &Step| Hook::of(step).is_some_and(|hook| hook.number == 1 && hook.family != 7);
        // Tracepoints show no more than that it was received: the function that freed it tells whose it was by then.
        let freed_there = |step: &&Step| {
            step.hop == HopId::NetifReceiveSkb
                && self.location.and_then(owner).is_some_and(|id| hop(id).role == Role::Transport)
        };
        last.is_some_and(taken) || last.filter(freed_there).is_some() || self.path.last().is_some_and(is_input)
    }

    /// Kernels before 5.18 do not say so, but their function does.
    fn by_netfilter(&self) -> bool {
        self.reason.is_none() && self.location.is_some_and(|location| location.starts_with("nf_hook_slow"))
    }
}

/// Whether somebody other than one receiver was meant.
fn is_many(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_multicast() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_multicast(),
    }
}

/// Whether the frame was a broadcast or a multicast (`skb->pkt_type`).
fn went_to_many(step: &Step) -> bool {
    matches!(step.event.pkt_type, 1 | 2)
}

/// Where a packet ended, and where it was going.
pub(super) fn place(path: &[Step]) -> (Option<Device>, Option<Device>) {
    let Some(last) = path.last() else { return (None, None) };
    let toward = Device::second_of(last);
    // The bridge has chosen the port: what stands between is that port's.
    let chosen = path.iter().rev().find(|step| step.role() != Role::Netfilter);
    let port = chosen.filter(|step| step.hop == HopId::BrForward).and_then(Device::second_of);
    let nearest = || path.iter().rev().find_map(Device::of);
    (port.or_else(nearest), toward)
}

/// The hook of netfilter that a packet ended in.
fn hook_of(path: &[Step], finding: &Finding) -> Option<Hook> {
    let Detail::Dropped { reason, location, .. } = &finding.detail else { return None };
    let done = reason.as_deref() == Some("NETFILTER_DROP")
        || location.as_deref().is_some_and(|location| location.starts_with("nf_hook_slow"));
    if !done {
        return None;
    }
    // Tracepoints show no more than that it was received: any hook of its way up may have done it.
    if path.last()?.hop == HopId::NetifReceiveSkb && path.iter().any(|step| hop(step.hop).is_of_tracepoints_alone()) {
        return None;
    }
    match path.last()?.hop {
        // br_netfilter's function is called by a hook, and lets others at the same hook have their say.
        HopId::NfHookSlow | HopId::BrNfForward | HopId::BrNfForwardIp => path.iter().rev().find_map(Hook::of),
        // The bridge itself goes through the list of this hook.
        HopId::BrHandleFrame | HopId::BrNfPreRouting => Some(Hook { family: 7, number: 0 }),
        HopId::NetifReceiveSkb | HopId::EnqueueToBacklog | HopId::NapiGroReceive | HopId::GroReceiveSkb => {
            Some(Hook { family: 5, number: 0 })
        }
        HopId::DevQueueXmit => Some(Hook { family: 5, number: 1 }),
        // Where nf_hook_slow is not traced, or is not called for lists: the hook that comes next.
        HopId::BrPassFrameUp => Some(Hook { family: 7, number: 1 }),
        HopId::BrForward => Some(Hook { family: 7, number: 2 }),
        HopId::BrDevXmit => Some(Hook { family: 7, number: 3 }),
        HopId::IpRcv => Some(Hook { family: 2, number: 0 }),
        HopId::Ipv6Rcv => Some(Hook { family: 10, number: 0 }),
        HopId::IpLocalDeliver => Some(Hook { family: 2, number: 1 }),
        HopId::Ip6Input => Some(Hook { family: 10, number: 1 }),
        HopId::IpForward => Some(Hook { family: 2, number: 2 }),
        HopId::Ip6Forward => Some(Hook { family: 10, number: 2 }),
        HopId::IpQueueXmit => Some(Hook { family: 2, number: 3 }),
        HopId::Ip6Xmit => Some(Hook { family: 10, number: 3 }),
        HopId::IpOutput | HopId::IpMcOutput => Some(Hook { family: 2, number: 4 }),
        HopId::Ip6Output => Some(Hook { family: 10, number: 4 }),
        _ => None,
    }
}

/// Whether the packet was in a bridge when it was seen last.
pub(super) fn is_bridged(path: &[Step]) -> bool {
    let last = path.iter().rev().find(|step| step.role().is_place());
    last.is_some_and(|step| hop(step.hop).role == Role::Bridge || step.hop == HopId::BrHandleFrame)
}
