//! A packet that has not been reported: it goes on, or waits for its branches.

use skbtrace_common::{DigestState, Event, EventFlags, HopId};

use super::flow::{Flow, Tcp};
use super::identity::Identity;
use super::outcome::{How, Outcome};
use super::packet::{Branch, Packet, Part, Step, device};
use crate::hops::Role;

/// What is known of it so far.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) id: u64,
    /// The id that the kernel side knows it by now.
    pub(super) kernel_id: u64,
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
    /// Cut into parts: bytes of payload of which no part has been seen yet. It waits for them.
    pub(super) uncovered: u32,
    /// It has ended and is among `branches_open` itself until all its parts have been seen.
    pub(super) held: bool,
    /// Id of the packet that it was appended to, and what was appended to it.
    pub(super) joined: Option<u64>,
    pub(super) parts: Vec<Part>,
    /// What is to be added to the kernel's step numbers: they begin anew when the packet goes on in other memory.
    pub(super) step_base: u32,
    /// Set when it has ended and waits for its branches.
    pub(super) outcome: Option<Outcome>,
}

impl Open {
    pub(super) fn accepts(&self, hop_id: HopId, event: &Event) -> bool {
        let same = self.skb == event.skb || event.flags & EventFlags::MOVED != 0;
        event.step.saturating_add(self.step_base) >= self.next_step && same && self.identity.accepts(hop_id, event)
    }

    /// The last step that tells where the packet was.
    pub(super) fn last_place(&self) -> Option<&Step> {
        let tells = |step: &&Step| (step.role().is_place() && step.role() != Role::End) || step.role() == Role::Copy;
        self.steps.iter().rev().find(tells)
    }

    /// Whether an XDP program got it in other memory: its end is then that of the memory alone.
    pub(super) fn is_handed_over(&self) -> bool {
        let [.., last, end] = &self.steps[..] else { return false };
        last.hop == HopId::VethXdpRcvSkb && end.hop == HopId::ConsumeSkb
    }

    /// Whether an event is of this packet in other memory, right where it was.
    pub(super) fn goes_on_as(&self, hop_id: HopId, event: &Event) -> bool {
        let here = self.last_place().and_then(Step::device);
        here == device(event) && self.identity.is_copied_to(hop_id, event)
    }

    /// Takes note of the packet that this one was appended to, if that is how it ended.
    pub(super) fn append(&mut self) -> Option<u64> {
        let merged = match &self.outcome {
            Some(Outcome::Merged { .. } | Outcome::Delivered { how: How::Coalesced, .. }) => true,
            Some(Outcome::Incomplete { seen: Some(seen), .. }) => {
                matches!(**seen, Outcome::Merged { .. } | Outcome::Delivered { how: How::Coalesced, .. })
            }
            _ => false,
        };
        let step = self.steps.iter().rev().find(|step| step.role() == Role::Merge && step.event.other != 0);
        self.joined = step.filter(|_| merged).map(|step| step.event.other);
        self.joined
    }

    /// What it is to the packet that it was appended to.
    pub(super) fn as_part(&self) -> Part {
        let digest = self.steps.iter().rev().map(|step| step.digest).find(|digest| digest.state != DigestState::NONE);
        Part { id: self.id, payload_len: self.payload_len, digest }
    }

    /// Whether it was cut into parts that go on in its place.
    pub(super) fn is_cut(&self) -> bool {
        let mut steps = self.steps.iter().rev().filter(|step| !matches!(step.role(), Role::End | Role::Work));
        steps.next().is_some_and(|step| step.role() == Role::Split)
            && self.steps.last().is_some_and(|end| end.hop == HopId::ConsumeSkb)
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
            joined: self.joined,
            parts: self.parts,
            touched_target: self.touched,
            steps: self.steps,
            branches: self.branches.into_iter().map(|(_, branch)| branch).collect(),
            outcome: self.outcome?,
        })
    }
}
