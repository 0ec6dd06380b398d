//! What is measured: the tools, the functions that they all trace, and how long. The host writes it into the folder that it shares
//! with the machine, and the machine reads it there.

use std::fmt;
use std::path::PathBuf;

use clap::ValueEnum as _;
use serde::{Deserialize, Serialize};

/// A function, and which of its arguments is the skb.
pub struct Function {
    /// Its name, in all kernels that machines run.
    pub name: &'static str,
    /// The skb's position.
    pub skb: usize,
}

/// The six of the seed's trace that every tool can attach to: `br_handle_frame`, which takes a pointer to a pointer, is none for pwru,
/// so it is the function behind it. A datagram through the lab's bridge hits five of them, seven times in all; the last is TCP's.
pub const FUNCTIONS: [Function; 6] = [
    Function { name: "veth_xmit", skb: 0 },
    Function { name: "netif_rx_internal", skb: 0 },
    Function { name: "br_handle_frame_finish", skb: 2 },
    Function { name: "__br_forward", skb: 1 },
    Function { name: "ip_rcv", skb: 0 },
    Function { name: "tcp_queue_rcv", skb: 1 },
];

/// Who traces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Tool {
    /// Nobody.
    None,
    /// A kprobe that does nothing.
    Empty,
    /// A kprobe that sends an event of the size of skbtrace's, and wakes its reader as skbtrace's does: whenever the reader waits.
    Floor,
    /// The same, but it never wakes its reader, who looks a hundred times a second.
    FloorNoWakeup,
    /// `skbtrace run`.
    Skbtrace,
    /// `skbtrace run --no-verify`.
    SkbtraceNoVerify,
    /// A script that prints function, skb, length and device.
    Bpftrace,
    /// The same with the stack that the seed's script prints.
    BpftraceStack,
    /// `pwru`, told to print the length and the device too.
    Pwru,
    /// `retis collect` with probes on the six functions.
    Retis,
}

impl Tool {
    /// Whether it is `skbtrace run`, which traces all of its hops and only what is on the segment.
    pub fn is_skbtrace(self) -> bool {
        matches!(self, Self::Skbtrace | Self::SkbtraceNoVerify)
    }
}

impl fmt::Display for Tool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_possible_value().map_or(Ok(()), |value| f.pad(value.get_name()))
    }
}

/// Programs of others, where they are on this machine and in the guest.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Programs {
    /// The optimised one.
    pub skbtrace: PathBuf,
    /// This program, optimised: it is the empty kprobe and the floor.
    pub xtask: PathBuf,
    /// Debian's.
    pub bpftrace: Option<PathBuf>,
    /// Debian's.
    pub pwru: Option<PathBuf>,
    /// Whoever's is on the PATH.
    pub retis: Option<PathBuf>,
}

/// All that the machine is to measure.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// What it runs.
    pub programs: Programs,
    /// The tools, in the order of the first round.
    pub tools: Vec<Tool>,
    /// How often each is measured.
    pub rounds: usize,
    /// Seconds that each rate, the idle time and each throughput take.
    pub seconds: u64,
    /// Datagrams a second, one stage for each; 0: as fast as they are received.
    pub rates: Vec<u64>,
    /// Numbers of bridges that skbtrace is to trace a path through, one behind the other.
    pub bridges: Vec<u32>,
    /// Numbers of packets that skbtrace is to trace in one run.
    pub packets: Vec<u64>,
    /// Seconds of the soak; 0: none.
    pub soak: u64,
}

/// The name of a stage with this rate.
pub fn rate_name(rate: u64) -> String {
    if rate == 0 { "full".to_owned() } else { rate.to_string() }
}

#[cfg(test)]
mod tests {
    use super::Tool;

    #[test]
    fn a_tool_has_one_name_everywhere() {
        for tool in [Tool::None, Tool::FloorNoWakeup, Tool::SkbtraceNoVerify, Tool::BpftraceStack] {
            assert_eq!(serde_json::to_value(tool).unwrap(), tool.to_string());
        }
        assert_eq!(format!("{:>8}|", Tool::Pwru), "    pwru|");
    }
}
