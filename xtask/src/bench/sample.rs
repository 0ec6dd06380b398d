//! What the machine measures, as it is kept: a line of JSON each in a file beside the report. Nothing here is computed from anything
//! else: that is for `figures`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::plan::Tool;

/// One tool in one round.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Round {
    /// Which tool.
    pub tool: Tool,
    /// Which round, from 0.
    pub round: usize,
    /// Why nothing else here is to be believed.
    pub failed: Option<String>,
    /// Seconds from its start until it traces.
    pub ready_s: f64,
    /// Seconds from the signal until it and its probes are gone.
    pub detach_s: f64,
    /// What it holds of memory before it is ended, KiB.
    pub rss_kib: u64,
    /// Seconds of processor time that it used while there was no traffic, and how long that was.
    pub idle: (f64, f64),
    /// The traffic that it saw.
    pub stages: Vec<Stage>,
    /// What gets through beside it.
    pub throughput: Option<Throughput>,
    /// Its BPF programs at the end.
    pub programs: Vec<Program>,
    /// The last line that it printed: the books of skbtrace.
    pub last_line: String,
    /// How many events it lost, by its own account; none where it gives none.
    pub lost: Option<u64>,
}

impl Round {
    /// Of a tool that has not been started yet.
    pub fn new(tool: Tool, round: usize) -> Self {
        Self {
            tool,
            round,
            failed: None,
            ready_s: 0.0,
            detach_s: 0.0,
            rss_kib: 0,
            idle: (0.0, 0.0),
            stages: Vec::new(),
            throughput: None,
            programs: Vec::new(),
            last_line: String::new(),
            lost: None,
        }
    }
}

/// Traffic, and what the tool made of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Stage {
    /// Its rate, `full`, or `unrelated`.
    pub name: String,
    /// Datagrams sent.
    pub sent: u64,
    /// Datagrams received.
    pub received: u64,
    /// How long that took.
    pub seconds: f64,
    /// How often its programs ran, and how long all together, nanoseconds.
    pub hits: u64,
    /// See `hits`.
    pub run_time_ns: u64,
    /// Seconds of processor time that it used, user and system.
    pub cpu_s: f64,
    /// Events that came out of it.
    pub delivered: u64,
    /// Hits at the functions that all trace, and of the events those of such hits. Where a tool counts, as skbtrace does, the hits
    /// are those that it should have told: packets of others are not among them.
    pub compared_hits: u64,
    /// See `compared_hits`.
    pub compared_delivered: u64,
}

/// What iperf3 measured, Mbit/s of payload received.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Throughput {
    /// By datagrams of 1,000 bytes, sent as fast as the sender can; what the receiver could not take is lost, and not in it.
    pub udp_mbit: f64,
    /// How fast those were sent.
    pub udp_sent_mbit: f64,
    /// By one TCP connection.
    pub tcp_mbit: f64,
}

/// A BPF program.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Program {
    /// The kernel's name for it: fifteen bytes at most.
    pub name: String,
    /// How often it ran. One that others go on in is counted with them, and here 0.
    pub run_count: u64,
    /// How long all together, nanoseconds.
    pub run_time_ns: u64,
    /// Instructions that the verifier looked at; not told before 5.16.
    pub verified: Option<u32>,
}

/// One run of skbtrace over a path of some length, with some number of packets.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Point {
    /// Bridges on the path.
    pub bridges: u32,
    /// The traffic.
    pub stage: Stage,
    /// What it held of memory at the end, KiB.
    pub rss_kib: u64,
    /// What its books say was lost, by kind.
    pub losses: BTreeMap<String, u64>,
}

/// A long run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Soak {
    /// Second and memory (KiB), from the start on.
    pub rss_kib: Vec<(u64, u64)>,
    /// The traffic.
    pub stage: Stage,
    /// What its books say was lost, by kind.
    pub losses: BTreeMap<String, u64>,
}

/// A line of what the machine leaves.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// See [`Round`].
    Round(Round),
    /// Cost by the number of hops.
    Hops(Point),
    /// Cost by the number of packets.
    Packets(Point),
    /// See [`Soak`].
    Soak(Soak),
}
