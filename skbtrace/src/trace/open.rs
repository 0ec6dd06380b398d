//! A packet that has not been reported: it goes on, or waits for its branches.

use skbtrace_common::{Event, HopId};

use super::flow::{Flow, Tcp};
use super::identity::Identity;
use super::outcome::Outcome;
use super::packet::{Branch, Packet, Step};

/// What is known of it so far.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) id: u64,
    pub(super) skb: u64,
    pub(super) head: u64,
    /// Key of the packet that it was cloned from, and the index of the last step there.
    pub(super) parent: Option<(u64, usize)>,
    pub(super) parent_id: Option<u64>,
    pub(super) depth: u32,
    pub(super) identity: Identity,
    pub(super) flow: Option<Flow>,
    pub(super) tcp: Option<Tcp>,
    pub(super) ethertype: u16,
    pub(super) payload_len: u32,
    pub(super) retransmission: bool,
    pub(super) touched: bool,
    pub(super) start_unknown: bool,
    pub(super) next_step: u32,
    pub(super) steps: Vec<Step>,
    pub(super) branches: Vec<(u64, Branch)>,
    pub(super) branches_open: u32,
    /// Set when it has ended and waits for its branches.
    pub(super) outcome: Option<Outcome>,
}

impl Open {
    pub(super) fn accepts(&self, hop_id: HopId, event: &Event) -> bool {
        event.step >= self.next_step && self.skb == event.skb && self.identity.accepts(hop_id, event)
    }

    pub(super) fn last_ns(&self) -> u64 {
        self.steps.last().map_or(0, |step| step.event.time_ns)
    }

    /// Keeps what the headers said when they were first readable.
    pub(super) fn learn_headers(&mut self, event: &Event) {
        if self.ethertype == 0 {
            self.ethertype = event.ethertype;
        }
        let better = self.flow.is_none_or(|flow| flow.ports.is_none() && flow.icmp.is_none());
        if better && let Some(flow) = Flow::of(event) {
            self.flow = Some(flow);
            self.payload_len = event.payload_len;
        }
    }

    /// The packet; `None` when it has no outcome yet.
    pub(super) fn into_packet(mut self) -> Option<Packet> {
        self.branches.sort_unstable_by_key(|(key, _)| *key);
        Some(Packet {
            number: None,
            id: self.id,
            parent: self.parent_id,
            flow: self.flow,
            ethertype: self.ethertype,
            tcp: self.tcp,
            payload_len: self.payload_len,
            retransmission: self.retransmission,
            touched_target: self.touched,
            steps: self.steps,
            branches: self.branches.into_iter().map(|(_, branch)| branch).collect(),
            outcome: self.outcome?,
        })
    }
}
