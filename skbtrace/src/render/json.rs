//! A line of JSON per packet, and a last one with the books. `schema/packet.schema.json` describes both; what is not
//! known is left out, not null.
//!
//! Names are escaped as in the text: a program that prints what it reads from here prints nothing hostile. Ids and
//! addresses are strings, since they do not fit into the numbers of every JSON reader.

use std::io;
use std::net::{IpAddr, SocketAddr};

use serde::Serialize;
use skbtrace_common::{Context, DeviceKey, EventFlags};

use super::headline::tcp_flags;
use super::row::{device_name, ip_summed};
use super::{Names, place, reason_name};
use crate::name::printable;
use crate::trace::{self, Cause, How, Losses, Outcome, Queue, Stage, Step};

/// Version of the format: it rises when a field changes its meaning or goes, not when one is added.
pub const JSON_VERSION: u32 = 1;

/// Writes packets as JSON, one object per line.
#[derive(Clone, Copy, Debug, Default)]
pub struct Json;

impl Json {
    /// Writes a packet with its branches. A packet without a number is not for display: it is passed over.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn packet(&self, out: &mut dyn io::Write, packet: &trace::Packet, names: &dyn Names) -> io::Result<()> {
        let Some(number) = packet.number else { return Ok(()) };
        write_line(out, &Line::Packet { version: JSON_VERSION, number, packet: packet_of(packet, names) })
    }

    /// Writes the books of the run.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn summary(&self, out: &mut dyn io::Write, summary: &trace::Summary, names: &dyn Names) -> io::Result<()> {
        let drop_reasons = summary.drop_reasons.iter().map(|(reason, count)| DropReason {
            reason: reason.map(|reason| reason_name(names, reason)),
            count: *count,
        });
        let books = Summary {
            packets: summary.packets,
            delivered: summary.delivered,
            dropped: summary.dropped,
            left: summary.left,
            consumed: summary.consumed,
            tapped: summary.tapped,
            waiting: summary.waiting,
            incomplete: summary.incomplete,
            elsewhere: summary.elsewhere,
            branches: summary.branches,
            retransmissions: summary.retransmissions,
            loopback: summary.loopback,
            drop_reasons: drop_reasons.collect(),
            events: summary.events,
            late_events: summary.late_events,
            losses: summary.losses,
            every_packet_complete: summary.every_packet_complete(),
        };
        write_line(out, &Line::Summary { version: JSON_VERSION, summary: books })
    }
}

fn write_line(out: &mut dyn io::Write, line: &Line) -> io::Result<()> {
    let mut bytes = serde_json::to_vec(line)?;
    bytes.push(b'\n');
    out.write_all(&bytes)
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Line {
    Packet {
        version: u32,
        number: u64,
        #[serde(flatten)]
        packet: Packet,
    },
    Summary {
        version: u32,
        #[serde(flatten)]
        summary: Summary,
    },
}

#[derive(Serialize)]
struct Packet {
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent: Option<String>,
    time_ns: u64,
    total_ns: u64,
    ethertype: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    flow: Option<Flow>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tcp: Option<Tcp>,
    payload_len: u32,
    retransmission: bool,
    verdict: &'static str,
    outcome: End,
    hops: Vec<Hop>,
    branches: Vec<Branch>,
}

#[derive(Serialize)]
struct Branch {
    after: usize,
    #[serde(flatten)]
    packet: Packet,
}

#[derive(Serialize)]
struct Flow {
    protocol: u8,
    src: IpAddr,
    dst: IpAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    sport: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dport: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    icmp: Option<Icmp>,
    fragment: bool,
}

#[derive(Serialize)]
struct Icmp {
    #[serde(rename = "type")]
    kind: u8,
    code: u8,
    id: u16,
    seq: u32,
}

#[derive(Serialize)]
struct Tcp {
    flags: String,
    seq: u32,
    ack: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    relative_seq: Option<u32>,
}

#[derive(Serialize)]
struct Process {
    pid: u32,
    name: String,
}

#[derive(Serialize)]
struct Device {
    name: String,
    ifindex: u32,
    netns: u32,
    netns_name: String,
}

#[derive(Serialize)]
struct Gso {
    size: u16,
    segs: u16,
    #[serde(rename = "type")]
    kind: u32,
}

#[derive(Serialize)]
struct Hop {
    hop: &'static str,
    step: u32,
    time_ns: u64,
    delta_ns: u64,
    #[serde(skip_serializing_if = "is_zero")]
    lost_before: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    waited: Option<Queue>,
    cpu: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    context: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    process: Option<Process>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<Device>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<Device>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bridge: Option<String>,
    skb: String,
    len: u32,
    data_len: u32,
    ip_summed: &'static str,
    cloned: bool,
    users: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    gso: Option<Gso>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vlan: Option<u16>,
    mark: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl: Option<u8>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    read_failed: bool,
}

#[derive(Serialize)]
#[serde(tag = "status", rename_all = "snake_case")]
enum End {
    Delivered {
        how: How,
        #[serde(skip_serializing_if = "Option::is_none")]
        process: Option<Process>,
        #[serde(skip_serializing_if = "Option::is_none")]
        socket: Option<SocketAddr>,
        at_ns: u64,
    },
    Dropped {
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        location: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        after: Option<&'static str>,
        stage: Stage,
    },
    Left,
    Consumed {
        after: &'static str,
    },
    Tapped {
        dropped: bool,
    },
    Waiting {
        after: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        queue: Option<Queue>,
        for_ns: u64,
    },
    Incomplete {
        causes: Vec<Gap>,
        #[serde(skip_serializing_if = "Option::is_none")]
        seen: Option<Box<End>>,
    },
}

#[derive(Serialize)]
#[serde(tag = "cause", rename_all = "snake_case")]
enum Gap {
    EventsLost {
        #[serde(skip_serializing_if = "Option::is_none")]
        after: Option<&'static str>,
        count: u32,
    },
    StartUnknown,
    AddressReused,
    EndLost,
}

#[derive(Serialize)]
struct DropReason {
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    count: u64,
}

#[derive(Serialize)]
struct Summary {
    packets: u64,
    delivered: u64,
    dropped: u64,
    left: u64,
    consumed: u64,
    tapped: u64,
    waiting: u64,
    incomplete: u64,
    elsewhere: u64,
    branches: u64,
    retransmissions: u64,
    loopback: u64,
    drop_reasons: Vec<DropReason>,
    events: u64,
    late_events: u64,
    losses: Losses,
    every_packet_complete: bool,
}

fn is_zero(count: &u32) -> bool {
    *count == 0
}

fn packet_of(packet: &trace::Packet, names: &dyn Names) -> Packet {
    let branches = packet.branches.iter();
    Packet {
        id: format!("{:#x}", packet.id),
        parent: packet.parent.map(|parent| format!("{parent:#x}")),
        time_ns: packet.first_ns(),
        total_ns: packet.total_ns(),
        ethertype: packet.ethertype,
        flow: packet.flow.map(|flow| Flow {
            protocol: flow.proto,
            src: flow.src,
            dst: flow.dst,
            sport: flow.ports.map(|ports| ports.0),
            dport: flow.ports.map(|ports| ports.1),
            icmp: flow.icmp.map(|icmp| Icmp { kind: icmp.kind, code: icmp.code, id: icmp.id, seq: icmp.seq }),
            fragment: flow.fragment,
        }),
        tcp: packet.tcp.map(|tcp| Tcp {
            flags: tcp_flags(tcp.flags),
            seq: tcp.seq,
            ack: tcp.ack,
            relative_seq: tcp.relative_seq,
        }),
        payload_len: packet.payload_len,
        retransmission: packet.retransmission,
        verdict: status(packet.verdict()),
        outcome: end(&packet.outcome, names),
        hops: packet.steps.iter().map(|step| hop(step, names)).collect(),
        branches: branches
            .map(|branch| Branch { after: branch.after, packet: packet_of(&branch.packet, names) })
            .collect(),
    }
}

fn hop(step: &Step, names: &dyn Names) -> Hop {
    let event = &step.event;
    let device = |key: DeviceKey, name| Device {
        name: device_name(name, key.ifindex),
        ifindex: key.ifindex,
        netns: key.netns,
        netns_name: printable(names.netns(key.netns).as_bytes()),
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
        bridge: step.device().and_then(|key| names.bridge_of(key)).map(|name| printable(name.as_bytes())),
        skb: format!("{:#x}", event.skb),
        len: event.len,
        data_len: event.data_len,
        ip_summed: ip_summed(event.ip_summed),
        cloned: event.cloned != 0,
        users: event.users,
        gso: (event.gso_size > 0).then_some(Gso { size: event.gso_size, segs: event.gso_segs, kind: event.gso_type }),
        vlan: (event.vlan_tci != 0).then_some(event.vlan_tci & 0xfff),
        mark: event.mark,
        ttl: (event.flags & EventFlags::L3 != 0).then_some(event.ttl),
        read_failed: event.flags & EventFlags::READ_FAILED != 0,
    }
}

fn process_of(process: &trace::Process) -> Process {
    Process { pid: process.pid, name: printable(&process.comm) }
}

/// The word for an outcome.
fn status(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Delivered { .. } => "delivered",
        Outcome::Dropped { .. } => "dropped",
        Outcome::Left => "left",
        Outcome::Consumed { .. } => "consumed",
        Outcome::Tapped { .. } => "tapped",
        Outcome::Waiting { .. } => "waiting",
        Outcome::Incomplete { .. } => "incomplete",
    }
}

fn end(outcome: &Outcome, names: &dyn Names) -> End {
    match outcome {
        Outcome::Delivered { how, process, socket, at_ns } => {
            End::Delivered { how: *how, process: process.as_ref().map(process_of), socket: *socket, at_ns: *at_ns }
        }
        Outcome::Dropped { reason, location, at, stage } => End::Dropped {
            reason: reason.map(|reason| reason_name(names, reason)),
            location: (*location != 0).then(|| place(names, *location)),
            after: at.map(|at| at.name()),
            stage: *stage,
        },
        Outcome::Left => End::Left,
        Outcome::Consumed { at } => End::Consumed { after: at.name() },
        Outcome::Tapped { dropped } => End::Tapped { dropped: *dropped },
        Outcome::Waiting { at, queue, for_ns } => End::Waiting { after: at.name(), queue: *queue, for_ns: *for_ns },
        Outcome::Incomplete { causes, seen } => End::Incomplete {
            causes: causes.iter().map(gap).collect(),
            seen: seen.as_deref().map(|seen| Box::new(end(seen, names))),
        },
    }
}

fn gap(cause: &Cause) -> Gap {
    match cause {
        Cause::Missing { after, count } => Gap::EventsLost { after: after.map(|after| after.name()), count: *count },
        Cause::StartUnknown => Gap::StartUnknown,
        Cause::AddressReused => Gap::AddressReused,
        Cause::EndLost => Gap::EndLost,
    }
}
