//! What a packet says of itself in one line, and how it ended, in words.

use std::fmt::Write as _;
use std::net::SocketAddr;

use skbtrace_common::{Event, HopId};

use super::payload::garbled;
use super::{Names, duration, place, reason_name};
use crate::name::printable;
use crate::trace::{Cause, Flow, How, Icmp, Outcome, Packet, Process, Queue, Stage, tcp_flag};
use crate::verdict::{Hook, Payload};

/// What a piece of text means; the colours follow it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    Good,
    Bad,
    Doubtful,
    Plain,
}

pub(super) fn tone(outcome: &Outcome) -> Tone {
    match outcome {
        Outcome::Delivered { .. } => Tone::Good,
        Outcome::Dropped { .. } => Tone::Bad,
        Outcome::Incomplete { .. } => Tone::Doubtful,
        _ => Tone::Plain,
    }
}

/// The packet itself: `TCP 78.78.0.11:58854 → 78.78.0.10:8000 [PSH ACK] seq 1+77`.
pub(crate) fn headline(packet: &Packet) -> String {
    let Some(flow) = packet.flow else { return frame(packet.ethertype) };
    let mut line = format!("{} {}", protocol(flow.proto), addresses(&flow));
    if flow.fragment {
        line.push_str(" fragment");
    } else if let Some(tcp) = packet.tcp {
        let seq = tcp.relative_seq.unwrap_or(tcp.seq);
        let _ = write!(line, " [{}] seq {seq}", tcp_flags(tcp.flags));
        if packet.payload_len > 0 {
            let _ = write!(line, "+{}", packet.payload_len);
        }
    } else if let Some(icmp) = flow.icmp {
        let _ = write!(line, " {}", icmp_message(flow.proto, &icmp));
    } else if flow.ports.is_some() {
        let _ = write!(line, " {}", counted(u64::from(packet.payload_len), "byte"));
    }
    if packet.retransmission {
        line.push_str(" retransmission");
    }
    if let Some(carried) = packet.carried() {
        let _ = write!(line, " carrying {} {}", protocol(carried.proto), addresses(&carried));
    }
    line
}

/// What a frame holds, where no more than that is known.
fn frame(ethertype: u16) -> String {
    match ethertype {
        0x0800 => "IPv4".to_owned(),
        0x86dd => "IPv6".to_owned(),
        0x0806 => "ARP".to_owned(),
        other => format!("ethertype {other:#06x}"),
    }
}

/// Both ends of a flow.
pub(super) fn addresses(flow: &Flow) -> String {
    match flow.ports {
        Some((sport, dport)) => {
            format!("{} → {}", SocketAddr::new(flow.src, sport), SocketAddr::new(flow.dst, dport))
        }
        None => format!("{} → {}", flow.src, flow.dst),
    }
}

/// Name of a transport protocol.
pub(crate) fn protocol(number: u8) -> String {
    let name = match number {
        1 => "ICMP",
        2 => "IGMP",
        6 => "TCP",
        17 => "UDP",
        47 => "GRE",
        50 => "ESP",
        58 => "ICMPv6",
        132 => "SCTP",
        _ => return format!("IP protocol {number}"),
    };
    name.to_owned()
}

/// Flags of a TCP segment in the order in which people say them.
pub(super) fn tcp_flags(flags: u8) -> String {
    const NAMES: [(u8, &str); 6] = [
        (tcp_flag::SYN, "SYN"),
        (tcp_flag::FIN, "FIN"),
        (tcp_flag::RST, "RST"),
        (tcp_flag::PSH, "PSH"),
        (tcp_flag::URG, "URG"),
        (tcp_flag::ACK, "ACK"),
    ];
    let set: Vec<&str> = NAMES.iter().filter(|(bit, _)| flags & bit != 0).map(|(_, name)| *name).collect();
    if set.is_empty() { "no flags".to_owned() } else { set.join(" ") }
}

fn icmp_message(proto: u8, icmp: &Icmp) -> String {
    let (name, is_echo) = match (proto, icmp.kind) {
        (1, 8) | (58, 128) => ("echo request", true),
        (1, 0) | (58, 129) => ("echo reply", true),
        (1, 3) | (58, 1) => ("destination unreachable", false),
        (1, 5) | (58, 137) => ("redirect", false),
        (1, 11) | (58, 3) => ("time exceeded", false),
        (58, 2) => ("packet too big", false),
        (58, 133) => ("router solicitation", false),
        (58, 134) => ("router advertisement", false),
        (58, 135) => ("neighbour solicitation", false),
        (58, 136) => ("neighbour advertisement", false),
        _ => return format!("type {} code {}", icmp.kind, icmp.code),
    };
    if is_echo {
        format!("{name} id {} seq {}", icmp.id, icmp.seq)
    } else if icmp.code != 0 {
        format!("{name} code {}", icmp.code)
    } else {
        name.to_owned()
    }
}

/// A process: `curl[312]`.
pub(super) fn process_name(process: &Process) -> String {
    format!("{}[{}]", printable(&process.comm), process.pid)
}

/// How the packet ended, for its first line.
pub(crate) fn status(packet: &Packet, names: &dyn Names) -> String {
    let verdict = packet.verdict();
    let took = duration(packet.total_ns());
    match verdict {
        Outcome::Delivered { .. } => format!("{} in {took}", delivered(packet, verdict)),
        Outcome::Dropped { reason: Some(reason), .. } => {
            format!("DROPPED after {took}: {}", reason_name(names, *reason))
        }
        Outcome::Dropped { reason: None, .. } => format!("DROPPED after {took}"),
        Outcome::Incomplete { causes, .. } => {
            let lost: u64 = causes
                .iter()
                .map(|cause| if let Cause::Missing { count, .. } = cause { u64::from(*count) } else { 0 })
                .sum();
            match (lost, causes.first()) {
                (0, Some(Cause::ProbesMissed { .. })) => "INCOMPLETE: hops may have been missed".to_owned(),
                (0, Some(Cause::StartUnknown)) => "INCOMPLETE: beginning not seen".to_owned(),
                (0, _) => "INCOMPLETE: end not seen".to_owned(),
                (lost, _) => format!("INCOMPLETE: {} lost", counted(lost, "event")),
            }
        }
        other => ending(packet, other, names),
    }
}

/// A packet and how it ended, in one line, for a place that shows nothing else of it.
#[must_use]
pub fn finding(packet: &Packet, payload: &Payload, names: &dyn Names) -> String {
    let (status, words) = (status(packet, names), last_words(packet, names));
    let number = packet.number.map_or_else(String::new, |number| format!("#{number} "));
    let mut line = format!("{number}{}: ", headline(packet));
    if let Payload::Garbled(changes) = payload {
        let _ = write!(line, "{}; ", garbled(changes));
    }
    line.push_str(&status);
    if !words.is_empty() && words != status {
        let _ = write!(line, "; {words}");
    }
    line
}

/// How a packet ended, for the line under its hops. Empty where the hops say all.
pub(crate) fn last_words(packet: &Packet, names: &dyn Names) -> String {
    match &packet.outcome {
        Outcome::Delivered { .. } => String::new(),
        Outcome::Incomplete { causes, seen } => {
            let causes: Vec<String> = causes.iter().map(cause).collect();
            let mut line = format!("INCOMPLETE: {}", causes.join(", "));
            if let Some(seen) = seen {
                let _ = write!(line, "; what was seen: {}", ending(packet, seen, names));
            }
            line
        }
        other => ending(packet, other, names),
    }
}

/// An outcome in words.
fn ending(packet: &Packet, outcome: &Outcome, names: &dyn Names) -> String {
    match outcome {
        Outcome::Delivered { .. } => delivered(packet, outcome),
        Outcome::Dropped { reason, location, stage, .. } => {
            let mut line = String::from("DROPPED");
            if let Some(hook) = netfilter_hook(packet, names) {
                let _ = write!(line, " by netfilter at {hook},");
            }
            if *location != 0 {
                let _ = write!(line, " in {}", place(names, *location));
            }
            match reason {
                Some(reason) => drop(write!(line, ": {}", reason_name(names, *reason))),
                None => line.push_str(", no reason given by this kernel"),
            }
            line.push_str(match stage {
                Stage::Path => "",
                Stage::SocketQueue => ", after it was queued in the socket",
                Stage::Copied => ", after a process had copied from it",
            });
            line
        }
        Outcome::Left => {
            let device = packet.steps.iter().rev().find(|step| step.device().is_some());
            let device = device.map_or_else(|| "another device".to_owned(), |step| printable(&step.event.dev));
            format!("left the segment through {device}")
        }
        Outcome::Merged { at, .. } => format!("appended to another packet by {}", at.name()),
        Outcome::Consumed { at } if packet.was_cut() => {
            format!("cut into {} by {}", counted(packet.branches.len() as u64, "part"), at.name())
        }
        Outcome::Consumed { at } if packet.branches.is_empty() => format!("freed after {}", at.name()),
        Outcome::Consumed { at } => format!("freed after {}, its clones went on", at.name()),
        Outcome::Tapped { dropped: false } => "taken by a packet socket".to_owned(),
        Outcome::Tapped { dropped: true } => "refused by a packet socket".to_owned(),
        Outcome::Waiting { at, queue: None, for_ns } => {
            format!("still under way after {}, for {}", at.name(), duration(*for_ns))
        }
        Outcome::Waiting { queue: Some(queue), for_ns, .. } => {
            format!("still in {}, for {}", queue_name(*queue), duration(*for_ns))
        }
        Outcome::Incomplete { .. } => "INCOMPLETE".to_owned(),
    }
}

/// The hook at which netfilter dropped the packet. `None` when somebody else dropped it: behind a hook that let it pass
/// there may be no other hop.
pub(super) fn netfilter_hook(packet: &Packet, names: &dyn Names) -> Option<String> {
    let Outcome::Dropped { reason, location, at: Some(at), .. } = packet.outcome else { return None };
    let said = reason.and_then(|reason| names.reason(reason)).is_some_and(|reason| reason == "NETFILTER_DROP");
    // The kernel says so from 5.18 on.
    let done = || names.symbol(location).is_some_and(|place| place.starts_with("nf_hook_slow"));
    if !said && !done() {
        return None;
    }
    match at {
        // br_netfilter's function is called by a hook, and lets others at the same hook have their say.
        HopId::NfHookSlow | HopId::BrNfForward | HopId::BrNfForwardIp => {
            packet.steps.iter().rev().find(|step| step.hop == HopId::NfHookSlow).map(|step| hook_name(&step.event))
        }
        // The bridge itself goes through the list of this hook.
        HopId::BrHandleFrame | HopId::BrNfPreRouting => Some("bridge PREROUTING".to_owned()),
        _ => None,
    }
}

/// Family and hook of netfilter: `IPv4 FORWARD`, `bridge POSTROUTING` (include/uapi/linux/netfilter.h).
pub(super) fn hook_name(event: &Event) -> String {
    Hook { family: event.nf_family, number: event.nf_hook }.to_string()
}

fn delivered(packet: &Packet, outcome: &Outcome) -> String {
    let Outcome::Delivered { how, process, .. } = outcome else { return String::new() };
    match (how, process) {
        (How::Copied, Some(process)) => format!("delivered to {}", process_name(process)),
        (How::Copied, None) => "delivered to the application".to_owned(),
        (How::Queued, _) => "delivered to the socket".to_owned(),
        (How::Coalesced, _) => "delivered to the socket, appended to an unread segment".to_owned(),
        (How::Protocol, _) => {
            format!("received by {}", receiver(packet))
        }
    }
}

/// The protocol that a packet was for, in the end: what came out of a tunnel may be for another than the tunnel was.
fn receiver(packet: &Packet) -> String {
    let layer = packet.steps.last().map_or(0, |step| step.layer);
    let known = packet.steps.iter().rev().filter(|step| step.layer == layer);
    match known.clone().find_map(|step| Flow::of(&step.event)).or(packet.flow.filter(|_| layer == 0)) {
        Some(flow) => protocol(flow.proto),
        None => frame(known.map(|step| step.event.ethertype).next().unwrap_or(packet.ethertype)),
    }
}

fn cause(cause: &Cause) -> String {
    match cause {
        Cause::Missing { after: Some(after), count } => {
            format!("{} lost after {}", counted(u64::from(*count), "event"), after.name())
        }
        Cause::Missing { after: None, count } => format!("the first {} lost", counted(u64::from(*count), "event")),
        Cause::StartUnknown => "its beginning was not seen".to_owned(),
        Cause::AddressReused => "its end was not seen before its address became another packet's".to_owned(),
        Cause::PartsUnseen { bytes } => {
            format!("it was cut into parts, and those with {} of it were not seen", counted(u64::from(*bytes), "byte"))
        }
        Cause::ProbesMissed { at } => {
            format!("an interrupt came while a probe ran, and hops around {} may have been missed", at.name())
        }
        Cause::EndLost => "its end was not seen, and events were lost in this run".to_owned(),
    }
}

pub(crate) fn queue_name(queue: Queue) -> &'static str {
    match queue {
        Queue::Backlog => "the CPU's queue",
        Queue::VethRing => "the veth's ring",
        Queue::SocketBacklog => "the socket's backlog",
        Queue::Socket => "the socket's queue",
    }
}

/// `1 event`, `2 events`.
pub(super) fn counted(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}
