//! A line of JSON per packet, or per hop of each, and a last one with the books. `schema/packet.schema.json` describes them; what is not
//! known is left out, not null.
//!
//! Names are escaped as in the text: a program that prints what it reads from here prints nothing hostile. Ids and
//! addresses are strings, since they do not fit into the numbers of every JSON reader.

mod finding;
mod line;

use std::io;

use skbtrace_common::{Context, DeviceKey, EventFlags};

use super::checksum::{code, ip_summed};
use super::diff::change;
use super::headline::{hook_name, netfilter_hook, tcp_flags};
use super::hex::{Sides, digits, sides};
use super::row::device_name;
use super::{Names, place, reason_name};
use crate::hops::Role;
use crate::name::printable;
use crate::trace::{self, Cause, Outcome};
use crate::verdict::{self, Checksums, Explained, Known, Place, checksums};
pub(crate) use finding::{Finding, finding_of};
use line::{
    Branch, Bytes, Checksum, Device, DropReason, End, Event, Flow, Gap, Garbling, Gso, Hop, Icmp, Line, Packet, Pair,
    Part, Payload, Process, Site, Summary, Tcp, Times,
};

/// Version of the format: it rises when a field changes its meaning or goes, not when one is added.
pub const JSON_VERSION: u32 = 1;

/// Writes packets as JSON, one object per line.
#[derive(Clone, Copy, Debug, Default)]
pub struct Json {
    /// With each hop also what changed with it.
    pub diff: bool,
}

impl Json {
    /// Writes a packet with its branches. A packet without a number is not for display: it is passed over.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn packet(
        &self,
        out: &mut dyn io::Write,
        packet: &trace::Packet,
        payload: &verdict::Payload,
        names: &dyn Names,
    ) -> io::Result<()> {
        let Some(number) = packet.number else { return Ok(()) };
        let packet = packet_of(packet, payload, None, self.diff, names);
        write_line(out, &Line::Packet { version: JSON_VERSION, number, packet })
    }

    /// Writes an object per hop of a packet and of its branches, depth first, in place of the one that holds them all.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn events(&self, out: &mut dyn io::Write, packet: &trace::Packet, names: &dyn Names) -> io::Result<()> {
        let Some(number) = packet.number else { return Ok(()) };
        self.events_of(out, number, packet, None, names)
    }

    fn events_of(
        &self,
        out: &mut dyn io::Write,
        number: u64,
        packet: &trace::Packet,
        source: Option<&trace::Step>,
        names: &dyn Names,
    ) -> io::Result<()> {
        for event in hops(packet, source, self.diff, names) {
            let event = Event {
                number,
                id: format!("{:#x}", packet.id),
                parent: packet.parent.map(|parent| format!("{parent:#x}")),
                flow: packet.flow.map(flow_of),
                verdict: status(packet.verdict()),
                event,
            };
            write_line(out, &Line::Event { version: JSON_VERSION, event })?;
        }
        for branch in &packet.branches {
            self.events_of(out, number, &branch.packet, packet.steps.get(branch.after), names)?;
        }
        Ok(())
    }

    /// Writes the books of the run, and what was found in it.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn summary(
        &self,
        out: &mut dyn io::Write,
        summary: &trace::Summary,
        findings: &[Explained],
        names: &dyn Names,
    ) -> io::Result<()> {
        let summary = books(summary, findings, names);
        write_line(out, &Line::Summary { version: JSON_VERSION, summary })
    }
}

/// The books of a run, and what was found in it, as they are in the last line.
pub(crate) fn books(summary: &trace::Summary, findings: &[Explained], names: &dyn Names) -> Summary {
    let drop_reasons = summary
        .drop_reasons
        .iter()
        .map(|(reason, count)| DropReason { reason: reason.map(|reason| reason_name(names, reason)), count: *count });
    let total = summary.latency.total();
    Summary {
        packets: summary.packets,
        delivered: summary.delivered,
        dropped: summary.dropped,
        left: summary.left,
        merged: summary.merged,
        consumed: summary.consumed,
        tapped: summary.tapped,
        waiting: summary.waiting,
        incomplete: summary.incomplete,
        elsewhere: summary.elsewhere,
        garbled: summary.garbled,
        branches: summary.branches,
        retransmissions: summary.retransmissions,
        loopback: summary.loopback,
        drop_reasons: drop_reasons.collect(),
        latency: summary.latency.pairs().iter().map(pair_of).collect(),
        total: (total.count() > 0).then(|| times_of(total)),
        events: summary.events,
        late_events: summary.late_events,
        losses: summary.losses,
        hops: summary.hops.clone(),
        every_packet_complete: summary.every_packet_complete(),
        findings: findings.iter().map(|explained| finding_of(explained, names)).collect(),
    }
}

fn write_line(out: &mut dyn io::Write, line: &Line) -> io::Result<()> {
    let mut bytes = serde_json::to_vec(line)?;
    bytes.push(b'\n');
    out.write_all(&bytes)
}

fn packet_of(
    packet: &trace::Packet,
    payload: &verdict::Payload,
    source: Option<&trace::Step>,
    diff: bool,
    names: &dyn Names,
) -> Packet {
    let branches = packet.branches.iter();
    Packet {
        id: format!("{:#x}", packet.id),
        parent: packet.parent.map(|parent| format!("{parent:#x}")),
        time_ns: packet.first_ns(),
        total_ns: packet.total_ns(),
        ethertype: packet.ethertype,
        flow: packet.flow.map(flow_of),
        tcp: packet.tcp.map(|tcp| Tcp {
            flags: tcp_flags(tcp.flags),
            seq: tcp.seq,
            ack: tcp.ack,
            relative_seq: tcp.relative_seq,
        }),
        payload_len: packet.payload_len,
        payload: payload_of(packet, payload),
        retransmission: packet.retransmission,
        verdict: status(packet.verdict()),
        joined: packet.joined.map(|id| format!("{id:#x}")),
        parts: packet
            .parts
            .iter()
            .map(|part| Part { id: format!("{:#x}", part.id), payload_len: part.payload_len })
            .collect(),
        outcome: end(&packet.outcome, netfilter_hook(packet, names), names),
        hops: hops(packet, source, diff, names),
        branches: branches
            .map(|branch| {
                let payload = verdict::payload(&branch.packet);
                let source = packet.steps.get(branch.after);
                Branch { after: branch.after, packet: packet_of(&branch.packet, &payload, source, diff, names) }
            })
            .collect(),
    }
}

fn payload_of(packet: &trace::Packet, payload: &verdict::Payload) -> Option<Payload> {
    match payload {
        verdict::Payload::Unverified => None,
        verdict::Payload::Same { hops } => Some(Payload::Same { hops: *hops }),
        verdict::Payload::Garbled(changes) => {
            let change = |change| garbling_of(packet, change);
            Some(Payload::Garbled { first: change(changes.first()), again: changes.more().map(change).collect() })
        }
    }
}

fn garbling_of(packet: &trace::Packet, change: &verdict::Change) -> Garbling {
    let site =
        |site: &verdict::Site| Site { packet: format!("{:#x}", site.packet), hop: site.hop.name(), step: site.step };
    let (offset, difference, to) = match change.place {
        Some(Place::Byte { offset, difference }) => (Some(offset), Some(difference), Some(offset + 1)),
        Some(Place::Range { from, to }) => (Some(from), None, Some(to)),
        None => (None, None, None),
    };
    let (before, after) = (site(&change.before), site(&change.after));
    Garbling { before, after, offset, to, difference, bytes: bytes_of(packet, change) }
}

fn bytes_of(packet: &trace::Packet, change: &verdict::Change) -> Option<Bytes> {
    let Sides::Differ(excerpt) = sides(packet, change) else { return None };
    Some(Bytes { offset: excerpt.offset, before: digits(excerpt.before), after: digits(excerpt.after) })
}

fn flow_of(flow: trace::Flow) -> Flow {
    Flow {
        protocol: flow.proto,
        src: flow.src,
        dst: flow.dst,
        sport: flow.ports.map(|ports| ports.0),
        dport: flow.ports.map(|ports| ports.1),
        icmp: flow.icmp.map(|icmp| Icmp { kind: icmp.kind, code: icmp.code, id: icmp.id, seq: icmp.seq }),
        fragment: flow.fragment,
    }
}

/// The hops of a packet. `source` is the step that it was cloned at.
fn hops(packet: &trace::Packet, source: Option<&trace::Step>, diff: bool, names: &dyn Names) -> Vec<Hop> {
    let mut known = Known::default();
    if let Some(source) = source {
        known.next_step(source);
    }
    let changed = |(index, step): (usize, &trace::Step)| {
        let changed = known.next_step(step);
        let changed = diff.then(|| changed.iter().map(|changed| change(changed, names)).collect());
        Hop { changed, ..hop(packet, index, source, names) }
    };
    packet.steps.iter().enumerate().map(changed).collect()
}

fn hop(packet: &trace::Packet, index: usize, source: Option<&trace::Step>, names: &dyn Names) -> Hop {
    let step = &packet.steps[index];
    let before = index.checked_sub(1).map_or(source, |before| packet.steps.get(before));
    let event = &step.event;
    let device = |key: DeviceKey, name| Device {
        name: device_name(name, key.ifindex),
        ifindex: key.ifindex,
        netns: key.netns,
        netns_name: names.netns(key.netns),
    };
    Hop {
        hop: step.hop.name(),
        step: event.step,
        time_ns: event.time_ns,
        delta_ns: step.delta_ns,
        lost_before: step.missing,
        waited: step.waited,
        cpu: event.cpu,
        context: step.context().and_then(|context| match context {
            Context::PROCESS => Some("process"),
            Context::SOFTIRQ => Some("softirq"),
            Context::HARDIRQ => Some("hardirq"),
            _ => None,
        }),
        process: step.process().map(|process| process_of(&process)),
        device: step.device().map(|key| device(key, &event.dev)),
        to: step.second_device().map(|key| device(key, &event.dev2)),
        bridge: step.device().and_then(|key| names.bridge_of(key)),
        skb: format!("{:#x}", event.skb),
        len: event.len,
        data_len: event.data_len,
        ip_summed: ip_summed(event.ip_summed),
        checksum: checksums(event, &step.digest).map(checksum_of),
        cloned: event.cloned != 0,
        users: event.users,
        gso: (event.gso_size > 0).then_some(Gso { size: event.gso_size, segs: event.gso_segs, kind: event.gso_type }),
        vlan: (event.vlan_tci != 0).then_some(event.vlan_tci & 0xfff),
        mark: event.mark,
        layer: step.layer,
        flow: (step.tunnels_since(before) != 0).then(|| trace::Flow::of(event)).flatten().map(flow_of),
        ttl: (event.flags & EventFlags::L3 != 0).then_some(event.ttl),
        accepted: packet.netfilter_accepted(index),
        netfilter: (event.nf_family != 0).then(|| hook_name(event)),
        copied: (step.role() == Role::Copy).then_some(event.copied),
        read_failed: event.flags & EventFlags::READ_FAILED != 0,
        changed: None,
    }
}

fn checksum_of(sums: Checksums) -> Checksum {
    let transport = sums.transport.map(code);
    Checksum {
        header: sums.header.map(|header| code(header).0),
        transport: transport.map(|(word, _)| word),
        why: transport.and_then(|(_, why)| why),
    }
}

fn process_of(process: &trace::Process) -> Process {
    Process { pid: process.pid, name: printable(&process.comm) }
}

fn pair_of(pair: &trace::Pair) -> Pair {
    Pair { from: pair.from.name(), to: pair.to.name(), times: times_of(&pair.times), waited: pair.waited }
}

fn times_of(times: &trace::Times) -> Times {
    Times {
        count: times.count(),
        p50_ns: times.percentile_ns(50.0),
        p90_ns: times.percentile_ns(90.0),
        p99_ns: times.percentile_ns(99.0),
        max_ns: times.max_ns(),
    }
}

/// The word for an outcome.
pub(crate) fn status(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Delivered { .. } => "delivered",
        Outcome::Dropped { .. } => "dropped",
        Outcome::Left => "left",
        Outcome::Merged { .. } => "merged",
        Outcome::Consumed { .. } => "consumed",
        Outcome::Tapped { .. } => "tapped",
        Outcome::Waiting { .. } => "waiting",
        Outcome::Incomplete { .. } => "incomplete",
    }
}

fn end(outcome: &Outcome, netfilter: Option<String>, names: &dyn Names) -> End {
    match outcome {
        Outcome::Delivered { how, process, socket, at_ns } => {
            End::Delivered { how: *how, process: process.as_ref().map(process_of), socket: *socket, at_ns: *at_ns }
        }
        Outcome::Dropped { reason, location, at, stage } => End::Dropped {
            reason: reason.map(|reason| reason_name(names, reason)),
            location: (*location != 0).then(|| place(names, *location)),
            after: at.map(|at| at.name()),
            netfilter,
            stage: *stage,
        },
        Outcome::Left => End::Left,
        Outcome::Merged { into, at } => End::Merged { into: into.map(|id| format!("{id:#x}")), after: at.name() },
        Outcome::Consumed { at } => End::Consumed { after: at.name() },
        Outcome::Tapped { dropped } => End::Tapped { dropped: *dropped },
        Outcome::Waiting { at, queue, for_ns } => End::Waiting { after: at.name(), queue: *queue, for_ns: *for_ns },
        Outcome::Incomplete { causes, seen } => End::Incomplete {
            causes: causes.iter().map(gap).collect(),
            seen: seen.as_deref().map(|seen| Box::new(end(seen, None, names))),
        },
    }
}

fn gap(cause: &Cause) -> Gap {
    match cause {
        Cause::Missing { after, count } => Gap::EventsLost { after: after.map(|after| after.name()), count: *count },
        Cause::StartUnknown => Gap::StartUnknown,
        Cause::AddressReused => Gap::AddressReused,
        Cause::EndLost => Gap::EndLost,
        Cause::ProbesMissed { at } => Gap::ProbesMissed { at: at.name() },
        Cause::PartsUnseen { bytes } => Gap::PartsUnseen { bytes: *bytes },
    }
}
