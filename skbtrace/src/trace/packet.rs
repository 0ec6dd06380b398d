//! What a packet is to the reader: the steps it took, its branches and how it ended.

use std::net::SocketAddr;

use skbtrace_common::{Context, DeviceKey, Digest, Event, EventFlags, HopId};

use super::flow::{Flow, Tcp, address};
use super::outcome::{Outcome, rank};
use super::payload::PayloadBytes;
use crate::hops::{Role, hop};

/// A packet with everything that was seen of it.
///
/// One packet is one life of one `sk_buff`, and of what it goes on in: the clone that TCP sends, the copy for an XDP program,
/// the datagram in place of its last fragment. Other clones and copies of it are [`Branch`]es, and so are the parts that it
/// is cut into; a retransmission is a packet of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Position in the output, from 1; `None` for a branch, and for a packet that did not touch the target.
    pub number: Option<u64>,
    /// The id that the kernel side gave. Two packets share one only when the end of the first was missed and its
    /// address was used again: then the first is incomplete, with [`super::Cause::AddressReused`].
    pub id: u64,
    /// Id of the packet that this one was cloned from.
    pub parent: Option<u64>,
    /// Addresses as they were first seen, before NAT. `None` for ARP and everything that is not IP.
    pub flow: Option<Flow>,
    /// `skb->protocol` of the first event that knew one.
    pub ethertype: u16,
    /// Flags and numbers of a TCP segment.
    pub tcp: Option<Tcp>,
    /// Bytes of L4 payload as first seen.
    pub payload_len: u32,
    /// The same bytes of this connection had been sent before from the same place.
    pub retransmission: bool,
    /// Id of the packet that its bytes were appended to: by GRO, or in a socket's queue.
    pub joined: Option<u64>,
    /// Packets that were appended to this one, in their order.
    pub parts: Vec<Part>,
    /// Whether it, or a branch of it, was at the device of interest; true when there is none.
    pub touched_target: bool,
    /// The first bytes of its payload, each time that they were others than before; none unless they are wanted.
    pub payloads: Vec<PayloadBytes>,
    /// Hops in their order; the last may be the end of the `sk_buff`. Never empty.
    pub steps: Vec<Step>,
    /// Clones, copies and parts, in the order of their beginning.
    pub branches: Vec<Branch>,
    /// How this `sk_buff` ended; see [`Packet::verdict`] for the packet as a whole.
    pub outcome: Outcome,
}

/// A clone, a copy or a part of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Branch {
    /// Index in the parent's steps after which it was seen first; of a part, that of the step where it was cut.
    pub after: usize,
    /// The branch, with branches of its own.
    pub packet: Packet,
}

/// A packet that another one took over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its id.
    pub id: u64,
    /// Bytes of L4 payload that it brought.
    pub payload_len: u32,
    /// The last digest of its payload, unless something was missed behind it.
    pub digest: Option<Digest>,
}

/// One hop of one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// The hop.
    pub hop: HopId,
    /// Nanoseconds since the step before; 0 for the first.
    pub delta_ns: u64,
    /// When that time was spent mostly in a queue: which.
    pub waited: Option<Queue>,
    /// Events lost between the step before (or the beginning) and this one.
    pub missing: u32,
    /// In how many tunnels the packet is here, more than where it was first seen: its headers, and what they call its payload,
    /// are others in each.
    pub layer: i8,
    /// Everything else.
    pub event: Event,
    /// The digest of its payload; an empty one where there is none.
    pub digest: Digest,
}

/// Where a packet waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Queue {
    /// A CPU's input queue (softnet backlog).
    Backlog,
    /// The ring of a veth that polls (NAPI).
    VethRing,
    /// A TCP socket's backlog: a process held its lock.
    SocketBacklog,
    /// A socket's receive queue.
    Socket,
}

/// A process, as the kernel knew it at a hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    /// Process id in the initial pid namespace.
    pub pid: u32,
    /// Its name, as the kernel has it: NUL-terminated, hostile.
    pub comm: [u8; 16],
}

impl Step {
    /// What happens at this hop.
    #[must_use]
    pub fn role(&self) -> Role {
        hop(self.hop).role
    }

    /// Into how many tunnels the packet went between the step before, of a branch the one that it was cloned at, and this one;
    /// negative: out of how many it came.
    #[must_use]
    pub fn tunnels_since(&self, before: Option<&Step>) -> i8 {
        before.map_or(0, |before| self.layer.saturating_sub(before.layer))
    }

    /// Whether the kernel was skipping probes here: hops right before and right behind this one may have been missed.
    #[must_use]
    pub fn is_nested(&self) -> bool {
        self.event.flags & EventFlags::NESTED != 0
    }

    /// Whether the `sk_buff` is freed here.
    #[must_use]
    pub fn is_end(&self) -> bool {
        is_end(self.hop, &self.event)
    }

    /// The device where the packet is.
    #[must_use]
    pub fn device(&self) -> Option<DeviceKey> {
        device(&self.event)
    }

    /// The device that it goes to.
    #[must_use]
    pub fn second_device(&self) -> Option<DeviceKey> {
        second_device(&self.event)
    }

    /// The context in which the hop ran: a [`Context`], when known.
    #[must_use]
    pub fn context(&self) -> Option<u8> {
        (self.event.flags & EventFlags::CONTEXT != 0).then_some(self.event.context)
    }

    /// The process that acts here. `None` in interrupts: the current task is then whoever was interrupted. Only a process can
    /// read a packet.
    #[must_use]
    pub fn process(&self) -> Option<Process> {
        let reads = self.context().is_none() && self.role() == Role::Copy;
        (reads || self.context() == Some(Context::PROCESS))
            .then_some(Process { pid: self.event.pid, comm: self.event.comm })
    }
}

impl Packet {
    /// When it was first seen: CLOCK_MONOTONIC, nanoseconds.
    #[must_use]
    pub fn first_ns(&self) -> u64 {
        self.steps.first().map_or(0, |step| step.event.time_ns)
    }

    /// When it was last seen.
    #[must_use]
    pub fn last_ns(&self) -> u64 {
        self.steps.last().map_or(0, |step| step.event.time_ns)
    }

    /// The addresses of what came out of it where tunnels ended: of the innermost. `None` where none ended.
    #[must_use]
    pub fn carried(&self) -> Option<Flow> {
        let innermost = self.steps.iter().map(|step| step.layer).min().filter(|layer| *layer < 0)?;
        self.steps.iter().filter(|step| step.layer == innermost).find_map(|step| Flow::of(&step.event))
    }

    /// Whether it was cut into parts (GSO, fragments): they are its branches, and went on in its place. Or beside it, when it
    /// went on itself as the first of its own fragments.
    #[must_use]
    pub fn was_cut(&self) -> bool {
        self.cut_at().is_some()
    }

    /// The step at which it was cut, and whether it then went on as the first of its parts.
    fn cut_at(&self) -> Option<(usize, bool)> {
        let at = self.steps.iter().rposition(|step| step.role() == Role::Split)?;
        let whole = self.steps[at].event.payload_len;
        let on = self.steps[at..].iter().find(|step| step.role().is_place() && step.role() != Role::End);
        let shrunk = on.is_some_and(|step| step.event.payload_len < whole);
        let cut = !self.branches.is_empty() && (on.is_none() || shrunk);
        cut.then_some((at, shrunk))
    }

    /// What netfilter decided at this step, told from what came of the packet: it went on, or it was dropped there. `None`
    /// where the step is none of netfilter's, or nothing came after it.
    #[must_use]
    pub fn netfilter_accepted(&self, step: usize) -> Option<bool> {
        (self.steps.get(step)?.hop == HopId::NfHookSlow).then_some(())?;
        let mut after = self.steps.iter().skip(step + 1).filter(|step| step.role() != Role::Work);
        let next = after.next().filter(|next| next.missing == 0)?;
        Some(!next.is_end() || !matches!(self.outcome, Outcome::Dropped { .. }))
    }

    /// The outcome of the packet as a whole: of this `sk_buff`, or, when it was only the source of a clone that went
    /// on in its place (beside a tcpdump, out of a bridge's flood), of the branch that came furthest. A taken copy in
    /// a tap never counts. When anything was lost anywhere in the tree, it is the incomplete one. A packet that was cut
    /// fared as the worst of its parts did; a part whose bytes another one of them took over fared as that one did.
    #[must_use]
    pub fn verdict(&self) -> &Outcome {
        if let Some((at, first_part)) = self.cut_at()
            && !matches!(self.outcome, Outcome::Incomplete { .. })
        {
            let own = first_part.then_some((self, &self.outcome));
            let others = self.branches.iter().filter(|branch| branch.after >= at);
            let parts = own.into_iter().chain(others.map(|branch| (&branch.packet, branch.packet.verdict())));
            let is_here = |id| self.tree().any(|packet| Some(packet.id) == id);
            let ends = parts.filter(|(part, end)| !(matches!(end, Outcome::Merged { .. }) && is_here(part.joined)));
            // Every part of a whole is wanted: a lost one loses it, and the last one to come is when it has come.
            return ends.map(|(_, end)| end).max_by_key(|end| badness(end)).unwrap_or(&self.outcome);
        }
        let mut best = &self.outcome;
        for branch in &self.branches {
            let theirs = branch.packet.verdict();
            if rank(theirs) > rank(best) {
                best = theirs;
            }
        }
        best
    }

    /// From its first hop to its delivery, nanoseconds, along the branch that was delivered; when it was not, to the
    /// last thing that was seen.
    #[must_use]
    pub fn total_ns(&self) -> u64 {
        let until = match self.verdict() {
            Outcome::Delivered { at_ns, .. } => *at_ns,
            _ => self.last_ns(),
        };
        until.saturating_sub(self.first_ns())
    }

    /// The process that sent it, when it began in a system call.
    #[must_use]
    pub fn sender(&self) -> Option<Process> {
        let sends = |step: &&Step| step.role() == Role::Send || step.event.flags & EventFlags::LOCAL != 0;
        self.steps.first().filter(sends).and_then(Step::process)
    }

    /// This packet and all its branches, depth first.
    pub fn tree(&self) -> impl Iterator<Item = &Packet> {
        let mut stack = vec![self];
        std::iter::from_fn(move || {
            let packet = stack.pop()?;
            stack.extend(packet.branches.iter().rev().map(|branch| &branch.packet));
            Some(packet)
        })
    }
}

/// Which of the outcomes of the parts speaks for the whole: the highest.
fn badness(outcome: &Outcome) -> (u8, u64) {
    match outcome {
        Outcome::Delivered { at_ns, .. } => (0, *at_ns),
        Outcome::Merged { .. } | Outcome::Left | Outcome::Tapped { .. } => (1, 0),
        Outcome::Consumed { .. } => (2, 0),
        Outcome::Waiting { .. } => (3, 0),
        Outcome::Dropped { .. } => (4, 0),
        Outcome::Incomplete { .. } => (5, 0),
    }
}

pub(super) fn is_end(hop_id: HopId, event: &Event) -> bool {
    event.flags & EventFlags::END != 0 || hop(hop_id).role == Role::End
}

pub(super) fn device(event: &Event) -> Option<DeviceKey> {
    (event.ifindex != 0).then_some(DeviceKey { netns: event.netns, ifindex: event.ifindex })
}

pub(super) fn second_device(event: &Event) -> Option<DeviceKey> {
    (event.ifindex2 != 0).then_some(DeviceKey { netns: event.netns2, ifindex: event.ifindex2 })
}

/// The receiving end of a flow: where the packet was going when it was last seen, after NAT.
pub(super) fn destination(steps: &[Step]) -> Option<SocketAddr> {
    let has_ports = |event: &Event| event.flags & EventFlags::L4 != 0 && matches!(event.l4_proto, 6 | 17);
    let event = steps.iter().rev().map(|step| &step.event).find(|event| has_ports(event))?;
    Some(SocketAddr::new(address(event.daddr), event.dport))
}

/// Nanoseconds between two steps, and whether they were a wait. A gap between them says nothing about either.
///
/// `before` is the last step that told where the packet was.
pub(super) fn waited(before: &Step, hop_id: HopId, missing: u32) -> Option<Queue> {
    if missing > 0 {
        return None;
    }
    match (before.role(), hop(hop_id).role) {
        // Without a hop in the veth's poll GRO is the first to have it from the ring.
        (Role::Cross, _) if matches!(hop_id, HopId::VethXdpRcvSkb | HopId::NapiGroReceive | HopId::GroReceiveSkb) => {
            Some(Queue::VethRing)
        }
        (_, Role::End | Role::Enqueue | Role::Work) => None,
        (Role::Enqueue, _) => Some(Queue::Backlog),
        (Role::Socket, Role::Copy) => Some(Queue::Socket),
        // Tracepoints do not show where between the two it was queued.
        (Role::Receive | Role::Transport, Role::Copy) => Some(Queue::Socket),
        (Role::Transport, Role::Socket) if before.hop == HopId::TcpAddBacklog => Some(Queue::SocketBacklog),
        _ => None,
    }
}
