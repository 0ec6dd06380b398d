//! A packet that has not been reported: it goes on, or waits for its branches.

use skbtrace_common::{DigestState, Event, EventFlags, HopId};

use super::flow::{Flow, Tcp};
use super::identity::Identity;
use super::outcome::{How, Outcome};
use super::packet::{Branch, Packet, Part, Step, device};
use super::payload::PayloadBytes;
use super::stitch::Datagram;
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
    /// It went on as the first of its own fragments.
    pub(super) first_part: bool,
    /// The datagram that it waits to become a part of.
    pub(super) fragment_of: Option<Datagram>,
    /// Key of the packet that it is being appended to.
    pub(super) appended_to: Option<u64>,
    /// Id of the packet that it was appended to, and what was appended to it.
    pub(super) joined: Option<u64>,
    pub(super) parts: Vec<Part>,
    pub(super) payloads: Vec<PayloadBytes>,
    /// What it is inside the tunnels that it has gone into, the outermost tunnel last; and in how many it is more than where it
    /// was first seen.
    pub(super) inside: Vec<Identity>,
    pub(super) layer: i8,
    /// What is to be added to the kernel's step numbers: they begin anew when the packet goes on in other memory.
    pub(super) step_base: u32,
    /// Set when it has ended and waits for its branches.
    pub(super) outcome: Option<Outcome>,
}

impl Open {
    /// A packet that begins with this event, which is not among its steps yet.
    pub(super) fn beginning_with(event: &Event) -> Open {
        Open {
            id: event.packet,
            kernel_id: event.packet,
            skb: event.skb,
            head: event.head,
            parent: None,
            parent_id: None,
            depth: 0,
            identity: Identity::default(),
            flow: None,
            tcp: None,
            ethertype: 0,
            payload_len: 0,
            retransmission: false,
            touched: false,
            start_unknown: false,
            next_step: 0,
            steps: Vec::with_capacity(24),
            branches: Vec::new(),
            branches_open: 0,
            uncovered: 0,
            held: false,
            first_part: false,
            fragment_of: None,
            appended_to: None,
            joined: None,
            parts: Vec::new(),
            payloads: Vec::new(),
            inside: Vec::new(),
            layer: 0,
            step_base: 0,
            outcome: None,
        }
    }

    pub(super) fn accepts(&self, hop_id: HopId, event: &Event) -> bool {
        let same = self.skb == event.skb || event.flags & EventFlags::MOVED != 0 || self.is_kept();
        event.step.saturating_add(self.step_base) >= self.next_step && same && self.identity.accepts(hop_id, event)
    }

    /// Whether all that was seen of it is what TCP keeps: whatever comes next is in the `sk_buff` that is sent.
    pub(super) fn is_kept(&self) -> bool {
        self.steps.last().is_some_and(|step| step.hop == HopId::TcpTransmitSkb)
    }

    /// The last step that tells where the packet was.
    pub(super) fn last_place(&self) -> Option<&Step> {
        let tells = |step: &&Step| (step.role().is_place() && step.role() != Role::End) || step.role() == Role::Copy;
        self.steps.iter().rev().find(tells)
    }

    /// Whether an XDP program got it in other memory: its end is then that of the memory alone. Where the compiler has left
    /// nothing of the veth's poll to be a hop (5.10), that is behind the crossing: nobody else uses up what is in a veth's ring.
    /// By tracepoints it may be so wherever a device has sent it.
    pub(super) fn is_handed_over(&self, by_tracepoints: bool) -> bool {
        let [.., last, end] = &self.steps[..] else { return false };
        let is_polled = match last.hop {
            HopId::VethXdpRcvSkb => true,
            HopId::DevForwardSkb => end.missing == 0,
            HopId::NetDevStartXmit => by_tracepoints && end.missing == 0,
            _ => false,
        };
        is_polled && end.hop == HopId::ConsumeSkb
    }

    /// Whether an event is of this packet in other memory, right where it was.
    pub(super) fn goes_on_as(&self, hop_id: HopId, event: &Event) -> bool {
        // What has crossed is at the other end. By tracepoints that is not known of what was sent: there it is received.
        let is_here = |step: &Step| match step.role() {
            Role::Cross => step.second_device() == device(event),
            _ if step.hop == HopId::NetDevStartXmit && hop_id == HopId::NapiGroReceiveEntry => true,
            _ => step.device() == device(event),
        };
        self.last_place().is_some_and(is_here) && self.identity.is_copied_to(hop_id, event)
    }

    /// Whether it was the last fragment to come, by its end: the datagram goes on in its `sk_buff`, which has lost its old self.
    pub(super) fn is_made_whole(&self) -> bool {
        let Some((end, path)) = self.steps.split_last() else { return false };
        let last = path.iter().rev().find(|step| step.role() != Role::Work);
        end.hop == HopId::SkbReleaseHeadState
            && last.is_some_and(|step| matches!(step.hop, HopId::IpDefrag | HopId::Ipv6FragRcv))
    }

    /// The step after which a branch begins that comes to light now: a part, where it was cut.
    pub(super) fn branches_off(&self, is_part: bool) -> usize {
        let cut = || self.steps.iter().rposition(|step| step.role() == Role::Split);
        is_part.then(cut).flatten().unwrap_or(self.steps.len().saturating_sub(1))
    }

    /// Whether a part that begins with this event is the last one that was waited for.
    pub(super) fn covers(&mut self, part: &Event) -> bool {
        let was_awaited = self.uncovered > 0;
        self.uncovered = self.uncovered.saturating_sub(part.payload_len);
        let is_last = was_awaited && self.uncovered == 0;
        if is_last {
            // From here on it waits for its branches alone.
            self.branches_open -= u32::from(std::mem::take(&mut self.held));
        }
        is_last
    }

    /// It goes on after it was cut: as the first of its own fragments, or whole. Returns whether no part is waited for.
    pub(super) fn goes_on_cut(&mut self, event: &Event) -> bool {
        if event.flags & EventFlags::L3 == 0 || event.payload_len >= self.uncovered {
            self.uncovered = 0;
        } else {
            self.first_part = true;
            self.uncovered -= event.payload_len;
        }
        self.uncovered == 0
    }

    /// Whether it has ended before all its parts were seen.
    pub(super) fn awaits_parts(&self) -> bool {
        self.uncovered > 0 && (self.first_part || self.is_cut())
    }

    /// The step at which it was appended to another packet that is known, if that is how it ended, and if it is not known to
    /// both by now.
    pub(super) fn joins(&self) -> Option<usize> {
        let is_merge = |outcome: &Outcome| {
            matches!(outcome, Outcome::Merged { .. } | Outcome::Delivered { how: How::Coalesced, .. })
        };
        let merged = match self.outcome.as_ref()? {
            Outcome::Incomplete { seen, .. } => seen.as_deref().is_some_and(is_merge),
            outcome => is_merge(outcome),
        };
        let step = self.steps.iter().rposition(|step| step.role() == Role::Merge && step.event.other != 0);
        step.filter(|_| merged && self.joined.is_none())
    }

    /// It was appended at this step to the packet with this id.
    pub(super) fn was_appended_to(&mut self, step: usize, id: u64) {
        self.joined = Some(id);
        self.steps[step].event.other = id;
        let seen = match &mut self.outcome {
            Some(Outcome::Incomplete { seen: Some(seen), .. }) => Some(&mut **seen),
            outcome => outcome.as_mut(),
        };
        if let Some(Outcome::Merged { into, .. }) = seen {
            *into = Some(id);
        }
    }

    /// Another fragment, with this id, has made the datagram whole.
    pub(super) fn was_taken_over(&mut self, id: u64) {
        let waits = |step: &&mut Step| matches!(step.hop, HopId::IpDefrag | HopId::Ipv6FragRcv);
        if let Some(step) = self.steps.iter_mut().rev().find(waits) {
            step.event.other = id;
            self.joined = Some(id);
        }
    }

    /// What it is to the packet that it was appended to.
    pub(super) fn as_part(&self) -> Part {
        let has_digest = |step: &&Step| step.digest.state != DigestState::NONE;
        // What comes behind a gap may have other bytes than the last that were seen.
        let last = self.steps.iter().rev().find(|step| has_digest(step) || step.missing > 0);
        let digest = last.filter(|step| has_digest(step) && !step.is_nested()).map(|step| step.digest);
        let payload_len = self.identity.payload_len().unwrap_or(self.payload_len);
        Part { id: self.id, payload_len, digest }
    }

    /// Whether it was cut into parts that go on in its place.
    pub(super) fn is_cut(&self) -> bool {
        let mut steps = self.steps.iter().rev().filter(|step| !matches!(step.role(), Role::End | Role::Work));
        steps.next().is_some_and(|step| step.role() == Role::Split)
            && self.steps.last().is_some_and(|end| end.hop == HopId::ConsumeSkb)
    }

    /// Whether TCP may have it, as far as tracepoints tell.
    pub(super) fn is_taken(&self) -> bool {
        let hop = self.last_place().map(|step| step.hop);
        matches!(hop, Some(HopId::NetifReceiveSkb | HopId::TcpProbe)) && self.flow.is_some_and(|flow| flow.proto == 6)
    }

    /// Whether others were made of it.
    pub(super) fn has_branches(&self) -> bool {
        self.branches_open > 0 || !self.branches.is_empty()
    }

    pub(super) fn last_ns(&self) -> u64 {
        self.steps.last().map_or(0, |step| step.event.time_ns)
    }

    /// Keeps what the headers said when they were first readable.
    pub(super) fn learn_headers(&mut self, event: &Event) {
        if self.layer != 0 {
            return;
        }
        if self.ethertype == 0 {
            self.ethertype = event.ethertype;
        }
        // A fragment stays one, although the datagram may go on in its place.
        let better = self.flow.is_none_or(|flow| flow.ports.is_none() && flow.icmp.is_none() && !flow.fragment);
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
            payloads: self.payloads,
            touched_target: self.touched,
            steps: self.steps,
            branches: self.branches.into_iter().map(|(_, branch)| branch).collect(),
            outcome: self.outcome?,
        })
    }
}
