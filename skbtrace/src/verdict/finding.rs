//! A finding: what befell some packets of a run, all at the same place and in the same way.
//!
//! It says what was seen, in numbers; who did it, and what to do about it, is for `rules`.

use std::fmt;

use skbtrace_common::DeviceKey;

use super::digest::Place;
use super::signs::Sign;
use super::words::{Class, Span};
use crate::hops::Role;
use crate::trace::{Packet, Queue, Step};

/// So many packets of a finding are named.
const NAMED: usize = 8;
/// So many devices of a packet's way are remembered.
const DEVICES: usize = 32;

/// What befell packets of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What became of them.
    pub class: Class,
    /// Between which hops, or at which.
    pub span: Span,
    /// The device at which it happened; `None` where no hop knew one.
    pub device: Option<Device>,
    /// Of a span between two hops: the hook of netfilter that the second is at.
    pub next_hook: Option<Hook>,
    /// The device that the last hop was handing them to.
    pub toward: Option<Device>,
    /// The hook of netfilter that they were in, or had just passed.
    pub hook: Option<Hook>,
    /// What there is to say of this class of findings.
    pub detail: Detail,
    /// How many packets.
    pub count: u64,
    /// How many packets the run reported, for scale.
    pub packets: u64,
    /// The numbers of the first of them, in the order in which they were reported.
    pub numbers: Vec<u64>,
    /// Time of the first, CLOCK_MONOTONIC, nanoseconds.
    pub first_ns: u64,
    /// The number of the last.
    pub last: u64,
    /// Time of the last, likewise.
    pub last_ns: u64,
    /// The devices that the first of them came by until then, in their order.
    pub way: Vec<Device>,
    /// Whether the first of them was on its way through a bridge there.
    pub bridged: bool,
}

/// A device, and its name at that time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    /// Which.
    pub key: DeviceKey,
    /// As the kernel has it: NUL-terminated, hostile.
    pub name: [u8; 16],
}

/// A hook of netfilter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hook {
    /// `nf_hook_state.pf`.
    pub family: u8,
    /// `nf_hook_state.hook`.
    pub number: u8,
}

impl fmt::Display for Hook {
    /// Family and hook: `IPv4 FORWARD`, `bridge POSTROUTING` (include/uapi/linux/netfilter.h).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = match self.family {
            1 => "inet",
            2 => "IPv4",
            3 => "ARP",
            5 => "netdev",
            7 => "bridge",
            10 => "IPv6",
            _ => "unknown",
        };
        let hooks: &[&str] = match self.family {
            3 => &["INPUT", "OUTPUT", "FORWARD"],
            5 => &["INGRESS", "EGRESS"],
            7 => &["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING", "BROUTING"],
            _ => &["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING", "INGRESS"],
        };
        match hooks.get(usize::from(self.number)) {
            Some(hook) => write!(f, "{family} {hook}"),
            None => write!(f, "{family} hook {}", self.number),
        }
    }
}

/// What a class of findings has to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Detail {
    /// Of changed payload.
    Garbled {
        /// Where in the payload, of the first packet.
        place: Option<Place>,
        /// Whether that payload lay in pages that need not be the packet's own.
        paged: bool,
        /// Whether it came to its first device from a packet socket: no protocol made it.
        raw: bool,
    },
    /// Of packets that ended.
    Dropped {
        /// The kernel's reason, by name; `None` where it gave none, or none in particular.
        reason: Option<String>,
        /// The function that freed the packet, and the offset in it.
        location: Option<String>,
        /// What stands for a reason on a kernel that names none.
        sign: Option<Sign>,
        /// No kernel calls such an end a drop.
        silent: bool,
        /// Of a queue that threw some away: the longest that it held others, where that was too long.
        held_ns: Option<u64>,
    },
    /// Of packets that came late.
    Delayed {
        /// The longest time, nanoseconds.
        longest_ns: u64,
        /// The shortest of those that were too long.
        shortest_ns: u64,
        /// How many packets came by there, late or not.
        passed: u64,
        /// The queue, where it is not a device's.
        queue: Option<Queue>,
    },
    /// Of packets that came more than once.
    Duplicated,
    /// Of packets that overtook others.
    Reordered {
        /// The longest time for which one was held while others passed, nanoseconds.
        held_ns: u64,
    },
}

/// A packet to which it happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sighting {
    /// Its number.
    pub(super) number: u64,
    /// When it happened.
    pub(super) at_ns: u64,
}

impl Device {
    /// The device where the packet is at this step.
    pub(super) fn of(step: &Step) -> Option<Device> {
        Some(Device { key: step.device()?, name: step.event.dev })
    }

    /// The one that it goes to.
    pub(super) fn second_of(step: &Step) -> Option<Device> {
        Some(Device { key: step.second_device()?, name: step.event.dev2 })
    }
}

impl Hook {
    /// The hook that the step is at.
    pub(super) fn of(step: &Step) -> Option<Hook> {
        (step.event.nf_family != 0).then_some(Hook { family: step.event.nf_family, number: step.event.nf_hook })
    }
}

impl Finding {
    /// A finding of no packet yet.
    pub(super) fn new(class: Class, span: Span, device: Option<Device>, detail: Detail) -> Finding {
        Finding {
            class,
            span,
            device,
            next_hook: None,
            toward: None,
            hook: None,
            detail,
            count: 0,
            packets: 0,
            numbers: Vec::new(),
            first_ns: 0,
            last: 0,
            last_ns: 0,
            way: Vec::new(),
            bridged: false,
        }
    }

    /// Takes another packet in.
    pub(super) fn note(&mut self, sighting: Sighting) {
        if self.count == 0 {
            self.first_ns = sighting.at_ns;
        }
        self.count += 1;
        if self.numbers.len() < NAMED && !self.numbers.contains(&sighting.number) {
            self.numbers.push(sighting.number);
        }
        // A packet is reported when it ends: the last to end need not be the last to begin.
        self.first_ns = self.first_ns.min(sighting.at_ns);
        if sighting.at_ns >= self.last_ns {
            (self.last, self.last_ns) = (sighting.number, sighting.at_ns);
        }
    }

    /// The number of the first packet, of those that are named.
    #[must_use]
    pub fn first(&self) -> u64 {
        self.numbers.iter().copied().min().unwrap_or(self.last)
    }

    /// What distinguishes it from others.
    pub(super) fn is_same(&self, other: &Finding) -> bool {
        let key = |finding: &Finding| (finding.class, finding.span, finding.device.map(|it| it.key), finding.hook);
        let why = |finding: &Finding| match &finding.detail {
            // Where there is no reason and no sign, the place in the kernel's code is what there is.
            Detail::Dropped { reason: None, location, sign: None, silent, .. } => {
                (None, location.clone(), None, *silent)
            }
            Detail::Dropped { reason, sign, silent, .. } => (reason.clone(), None, *sign, *silent),
            _ => (None, None, None, false),
        };
        key(self) == key(other) && why(self) == why(other)
    }
}

/// Steps of the packet's path that follow each other, by their places; of the pairs between which nothing was missed. Work that
/// is done on the packet where it is is no step of its path.
pub(super) fn neighbours(steps: &[Step]) -> impl Iterator<Item = (usize, usize)> {
    let mut path = (0..steps.len()).filter(|at| steps[*at].role() != Role::Work);
    let mut before = path.next();
    let pairs = path.filter_map(move |at| before.replace(at).map(|before| (before, at)));
    pairs.filter(|(from, to)| {
        let seen = steps[from + 1..=*to].iter().all(|step| step.missing == 0);
        seen && !steps[*from].is_nested() && !steps[*to].is_nested()
    })
}

/// The devices of a packet's way as far as to a step.
pub(super) fn way(steps: &[Step]) -> Vec<Device> {
    let mut way: Vec<Device> = Vec::new();
    for device in steps.iter().flat_map(|step| [Device::of(step), Device::second_of(step)]).flatten() {
        if way.len() < DEVICES && way.iter().all(|seen| seen.key != device.key) {
            way.push(device);
        }
    }
    way
}

/// The steps of the packets that a packet of this id goes back to, in their order, and its own.
pub(super) fn lineage(packet: &Packet, id: u64) -> Option<Vec<Step>> {
    if packet.id == id {
        return Some(packet.steps.clone());
    }
    packet.branches.iter().find_map(|branch| {
        let own = lineage(&branch.packet, id)?;
        let before = packet.steps.iter().take(branch.after + 1).copied();
        Some(before.chain(own).collect())
    })
}
