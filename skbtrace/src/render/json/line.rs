//! The shape of the JSON: what serde writes is what `schema/packet.schema.json` describes.

use std::net::{IpAddr, SocketAddr};

use serde::Serialize;

use crate::render::diff::Change;
use crate::trace::{HopBooks, How, Losses, Queue, Stage};

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Line {
    Packet {
        version: u32,
        number: u64,
        #[serde(flatten)]
        packet: Packet,
    },
    Event {
        version: u32,
        #[serde(flatten)]
        event: Event,
    },
    Summary {
        version: u32,
        #[serde(flatten)]
        summary: Summary,
    },
}

#[derive(Serialize)]
pub(super) struct Packet {
    pub(super) id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) parent: Option<String>,
    pub(super) time_ns: u64,
    pub(super) total_ns: u64,
    pub(super) ethertype: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) flow: Option<Flow>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tcp: Option<Tcp>,
    pub(super) payload_len: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) payload: Option<Payload>,
    pub(super) retransmission: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) joined: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) parts: Vec<Part>,
    pub(super) verdict: &'static str,
    pub(super) outcome: End,
    pub(super) hops: Vec<Hop>,
    pub(super) branches: Vec<Branch>,
}

#[derive(Serialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub(super) enum Payload {
    Same {
        hops: u32,
    },
    Garbled {
        #[serde(flatten)]
        first: Garbling,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        again: Vec<Garbling>,
    },
}

#[derive(Serialize)]
pub(super) struct Garbling {
    pub(super) before: Site,
    pub(super) after: Site,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) offset: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) to: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) difference: Option<i16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) bytes: Option<Bytes>,
}

#[derive(Serialize)]
pub(super) struct Bytes {
    pub(super) offset: u32,
    pub(super) before: String,
    pub(super) after: String,
}

#[derive(Serialize)]
pub(super) struct Site {
    pub(super) packet: String,
    pub(super) hop: &'static str,
    pub(super) step: u32,
}

#[derive(Serialize)]
pub(super) struct Part {
    pub(super) id: String,
    pub(super) payload_len: u32,
}

#[derive(Serialize)]
pub(super) struct Event {
    pub(super) number: u64,
    pub(super) id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) parent: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) flow: Option<Flow>,
    pub(super) verdict: &'static str,
    pub(super) event: Hop,
}

#[derive(Serialize)]
pub(super) struct Branch {
    pub(super) after: usize,
    #[serde(flatten)]
    pub(super) packet: Packet,
}

#[derive(Serialize)]
pub(super) struct Flow {
    pub(super) protocol: u8,
    pub(super) src: IpAddr,
    pub(super) dst: IpAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) sport: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) dport: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) icmp: Option<Icmp>,
    pub(super) fragment: bool,
}

#[derive(Serialize)]
pub(super) struct Icmp {
    #[serde(rename = "type")]
    pub(super) kind: u8,
    pub(super) code: u8,
    pub(super) id: u16,
    pub(super) seq: u32,
}

#[derive(Serialize)]
pub(super) struct Tcp {
    pub(super) flags: String,
    pub(super) seq: u32,
    pub(super) ack: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) relative_seq: Option<u32>,
}

#[derive(Serialize)]
pub(super) struct Process {
    pub(super) pid: u32,
    pub(super) name: String,
}

#[derive(Debug, Serialize)]
pub(super) struct Device {
    pub(super) name: String,
    pub(super) ifindex: u32,
    pub(super) netns: u32,
    pub(super) netns_name: String,
}

#[derive(Serialize)]
pub(super) struct Gso {
    pub(super) size: u16,
    pub(super) segs: u16,
    #[serde(rename = "type")]
    pub(super) kind: u32,
}

#[derive(Serialize)]
pub(super) struct Checksum {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) header: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) transport: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) why: Option<&'static str>,
}

#[derive(Serialize)]
pub(super) struct Hop {
    pub(super) hop: &'static str,
    pub(super) step: u32,
    pub(super) time_ns: u64,
    pub(super) delta_ns: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) lost_before: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) waited: Option<Queue>,
    pub(super) cpu: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) context: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) process: Option<Process>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) device: Option<Device>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) to: Option<Device>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) bridge: Option<String>,
    pub(super) skb: String,
    pub(super) len: u32,
    pub(super) data_len: u32,
    pub(super) ip_summed: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) checksum: Option<Checksum>,
    pub(super) cloned: bool,
    pub(super) users: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) gso: Option<Gso>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) vlan: Option<u16>,
    pub(super) mark: u32,
    #[serde(skip_serializing_if = "is_no_layer")]
    pub(super) layer: i8,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) flow: Option<Flow>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ttl: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) netfilter: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) accepted: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) copied: Option<u32>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) read_failed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) changed: Option<Vec<Change>>,
}

#[derive(Serialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub(super) enum End {
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
        #[serde(skip_serializing_if = "Option::is_none")]
        netfilter: Option<String>,
        stage: Stage,
    },
    Left,
    Merged {
        #[serde(skip_serializing_if = "Option::is_none")]
        into: Option<String>,
        after: &'static str,
    },
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
pub(super) enum Gap {
    EventsLost {
        #[serde(skip_serializing_if = "Option::is_none")]
        after: Option<&'static str>,
        count: u32,
    },
    StartUnknown,
    AddressReused,
    EndLost,
    ProbesMissed {
        at: &'static str,
    },
    PartsUnseen {
        bytes: u32,
    },
}

#[derive(Serialize)]
pub(super) struct DropReason {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<String>,
    pub(super) count: u64,
}

#[derive(Serialize)]
pub(super) struct Pair {
    pub(super) from: &'static str,
    pub(super) to: &'static str,
    #[serde(flatten)]
    pub(super) times: Times,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) waited: Option<Queue>,
}

#[derive(Serialize)]
pub(super) struct Times {
    pub(super) count: u64,
    pub(super) p50_ns: u64,
    pub(super) p90_ns: u64,
    pub(super) p99_ns: u64,
    pub(super) max_ns: u64,
}

#[derive(Serialize)]
pub(crate) struct Summary {
    pub(super) packets: u64,
    pub(super) delivered: u64,
    pub(super) dropped: u64,
    pub(super) left: u64,
    pub(super) merged: u64,
    pub(super) consumed: u64,
    pub(super) tapped: u64,
    pub(super) waiting: u64,
    pub(super) incomplete: u64,
    pub(super) elsewhere: u64,
    pub(super) garbled: u64,
    pub(super) branches: u64,
    pub(super) retransmissions: u64,
    pub(super) loopback: u64,
    pub(super) drop_reasons: Vec<DropReason>,
    pub(super) latency: Vec<Pair>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) total: Option<Times>,
    pub(super) events: u64,
    pub(super) late_events: u64,
    pub(super) losses: Losses,
    pub(super) hops: Vec<HopBooks>,
    pub(super) every_packet_complete: bool,
    pub(super) findings: Vec<super::finding::Finding>,
}

fn is_no_layer(layer: &i8) -> bool {
    *layer == 0
}

fn is_zero(count: &u32) -> bool {
    *count == 0
}
