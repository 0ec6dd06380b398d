//! The books of a run: every packet in exactly one column, every loss counted.

use std::collections::BTreeMap;

use skbtrace_common::{Counters, Event, HopId};

use super::latency::Latency;
use super::outcome::Outcome;
use super::packet::Packet;

/// What the run did not see. Numbers of events or packets since its beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Losses {
    /// Events lost because the ring was full.
    pub ring_full: u64,
    /// Events that the kernel side sent and that were not read: 0, or the books do not balance.
    pub unread: u64,
    /// Packets not followed because the map of tracked packets was full.
    pub map_full: u64,
    /// Packets not seen because their `sk_buff` could not be read.
    pub unreadable: u64,
    /// Hits that the kernel itself skipped: a probe was hit while another one ran.
    pub missed_probes: u64,
    /// Events that came but in which something could not be read: not lost, only poorer.
    pub read_failed: u64,
}

impl Losses {
    /// Whether the end of a packet may be among them.
    #[must_use]
    pub fn may_hide_events(&self) -> bool {
        self.hidden_events() > 0
    }

    /// How many of them may have been the end of a packet.
    pub(super) fn hidden_events(&self) -> u64 {
        self.ring_full + self.unread + self.unreadable + self.missed_probes
    }

    /// Whether the run saw everything.
    #[must_use]
    pub fn none(&self) -> bool {
        *self == Losses::default()
    }
}

/// The books of one hop: every hit that the kernel let it see is in one of the columns.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct HopBooks {
    /// Its name. `kprobe.multi`: what is known only of all hops together that are attached so, how often they ran and what was
    /// missed.
    pub hop: String,
    /// How often the kernel ran it: the sum of the five columns below, those of all of them for `kprobe.multi`. Only where the
    /// kernel counts (sysctl kernel.bpf_stats_enabled).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_count: Option<u64>,
    /// Packets that are not of the segment, or that the filter does not want.
    pub filtered: u64,
    /// Events sent.
    pub sent: u64,
    /// Events lost: the ring was full.
    pub ring_full: u64,
    /// Packets not followed: the map of tracked packets was full.
    pub map_full: u64,
    /// Packets not seen: the `sk_buff` could not be read.
    pub unreadable: u64,
    /// Hits that it was not let see: another probe was running on that CPU. In none of the columns.
    pub missed: u64,
}

impl From<Counters> for Losses {
    /// From the sum of the kernel side's counters over all hops and CPUs.
    fn from(total: Counters) -> Losses {
        Losses {
            ring_full: total.ring_full,
            unread: 0,
            map_full: total.map_full,
            unreadable: total.unreadable,
            missed_probes: 0,
            read_failed: total.read_failed,
        }
    }
}

/// Counts of a run. A packet counts once, whatever its branches, by its [`Packet::verdict`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Summary {
    /// Packets reported that touched the target: the sum of the eight columns below.
    pub packets: u64,
    /// Reached who they were for.
    pub delivered: u64,
    /// Dropped.
    pub dropped: u64,
    /// Left through a device that is no veth.
    pub left: u64,
    /// Appended to another packet.
    pub merged: u64,
    /// Freed in good order on the way.
    pub consumed: u64,
    /// Nothing but a copy for a packet socket.
    pub tapped: u64,
    /// Not ended when the run was.
    pub waiting: u64,
    /// With a gap.
    pub incomplete: u64,
    /// Packets of the segment that never touched the target; in none of the columns.
    pub elsewhere: u64,
    /// Clones and copies of the packets.
    pub branches: u64,
    /// Packets whose payload changed on the way, in whatever column they are. Who judges payloads counts them.
    pub garbled: u64,
    /// Retransmissions among the packets.
    pub retransmissions: u64,
    /// Packets that went through `loopback_xmit`.
    pub loopback: u64,
    /// Drops by reason; the reason is `None` where the kernel gave none.
    pub drop_reasons: BTreeMap<Option<u32>, u64>,
    /// How long they took, from hop to hop and in all.
    pub latency: Latency,
    /// Events taken in.
    pub events: u64,
    /// Events that came for packets which had been reported already, because too many were open.
    pub late_events: u64,
    /// What was not seen.
    pub losses: Losses,
    /// The books of every hop; empty before the end of the run.
    pub hops: Vec<HopBooks>,
}

impl Summary {
    /// Books a reported packet.
    pub(super) fn book(&mut self, packet: &Packet) {
        if !packet.touched_target {
            self.elsewhere += 1;
            return;
        }
        self.packets += 1;
        self.branches += packet.tree().count() as u64 - 1;
        self.retransmissions += u64::from(packet.retransmission);
        self.loopback += u64::from(through_loopback(packet));
        let verdict = packet.verdict();
        self.latency.note(packet, matches!(verdict, Outcome::Delivered { .. }));
        let column = match verdict {
            Outcome::Delivered { .. } => &mut self.delivered,
            Outcome::Dropped { reason, .. } => {
                *self.drop_reasons.entry(*reason).or_default() += 1;
                &mut self.dropped
            }
            Outcome::Left => &mut self.left,
            Outcome::Merged { .. } => &mut self.merged,
            Outcome::Consumed { .. } => &mut self.consumed,
            Outcome::Tapped { .. } => &mut self.tapped,
            Outcome::Waiting { .. } => &mut self.waiting,
            Outcome::Incomplete { .. } => &mut self.incomplete,
        };
        *column += 1;
    }

    /// Whether all that the run saw, it saw from beginning to end.
    #[must_use]
    pub fn every_packet_complete(&self) -> bool {
        self.incomplete == 0 && self.late_events == 0 && Losses { read_failed: 0, ..self.losses }.none()
    }
}

/// Whether a loopback device has the packet: by its driver, or, where that has no probe, by its number, which is the same in every netns.
pub(super) fn loops(hop_id: HopId, event: &Event) -> bool {
    const LOOPBACK_IFINDEX: u32 = 1;
    hop_id == HopId::LoopbackXmit || (hop_id == HopId::NetDevStartXmit && event.ifindex == LOOPBACK_IFINDEX)
}

/// Whether a packet, or a branch of it, went through a loopback device.
#[must_use]
pub fn through_loopback(packet: &Packet) -> bool {
    packet.tree().any(|packet| packet.steps.iter().any(|step| loops(step.hop, &step.event)))
}
