//! Which packet a hit is of: one that is followed, under its address or its socket's, or a new one from here on.
//!
//! An address outlives its packet, and not every end is seen. What tells a new packet from the one that had the address
//! before is here too: where the hop stands on a packet's way, and what is remembered of the packet.

use aya_ebpf::bindings::{BPF_ANY, BPF_NOEXIST};
use skbtrace_common::{EventFlags, HopArgs, HopId, NO_ARG, hop_flags};

use crate::{
    describe::cpu,
    filter::is_kin,
    maps::{PENDING, SEQUENCE, TRACKED, Track, Tracked, hop_args, offset, reach},
    packet::Scratch,
    wanted::wanted,
};

/// A [`Track::outbound`]: the address has gone to a packet that nobody follows.
const STALE: u16 = 2;

/// Whether the packet is one that is followed.
#[inline(always)]
pub fn is_followed(tracked: Tracked) -> bool {
    // SAFETY: the value stays readable for the length of this program.
    tracked.is_some_and(|track| unsafe { (*track.as_ptr()).outbound } != STALE)
}

/// Whether what is freed is the old self of a packet that becomes another one: it is no end. That is said once.
#[inline(always)]
pub fn is_old_self(hop: u32, tracked: Tracked) -> bool {
    let Some(track) = tracked else { return false };
    // SAFETY: the value stays readable for the length of this program, and only the CPU that has the packet in hand writes to it.
    hop == HopId::SkbReleaseHeadState as u32 && unsafe { core::mem::replace(&mut (*track.as_ptr()).morphing, 0) } != 0
}

/// What becomes of a hit.
pub enum Verdict {
    Follow,
    Filtered,
    Full,
    /// The user's expression decides.
    Ask,
}

/// Gives the packet its id and the hop its number, if the packet is followed or is to be from here on.
#[inline(always)]
pub fn identify(
    hop: u32,
    level: u32,
    scratch: &mut Scratch,
    plan: &HopArgs,
    key: u64,
    pending: u64,
    tracked: Tracked,
) -> Verdict {
    if pending != 0
        && let Some(track) = PENDING.get_ptr_mut(pending)
    {
        // SAFETY: the socket is locked from where this value was made to here: nobody else writes to it.
        let track = unsafe { *track };
        let _ = PENDING.remove(pending);
        scratch.event.packet = track.id;
        scratch.event.step = track.step;
        scratch.event.flags |= EventFlags::MOVED;
        let next = Track { step: track.step.wrapping_add(1), unsent: 1, ..track };
        return if TRACKED.insert(key, next, u64::from(BPF_ANY)).is_ok() { Verdict::Follow } else { Verdict::Full };
    }
    let newborn = is_newborn(scratch, plan);
    let way = Way::of(hop);
    let local = way.asks() && scratch.u32(offset!(skb_iif)) == 0;
    if local && way.is_out() {
        scratch.event.flags |= EventFlags::LOCAL;
    }
    let mut older = false;
    if let Some(track) = tracked {
        // SAFETY: the value stays readable for the length of this program even when another CPU removes it, and only
        // the CPU that has the packet in hand writes to it.
        let track = unsafe { &mut *track.as_ptr() };
        // What was received last is not received again, nor sent as if it never had been.
        older = (newborn && track.unsent == 0) || (local && track.outbound == 0) || track.outbound == STALE;
        // What GSO has cut comes to a driver without having been seen to come to its device.
        older |= way.is_cut() && track.outbound == 0;
        // What is handed on goes out of the namespace that it came into.
        older |= way.begins() && track.outbound == 0 && track.netns != scratch.event.netns;
        if !older {
            scratch.event.packet = track.id;
            scratch.event.step = track.step;
            track.step = track.step.wrapping_add(1);
            if plan.flags & hop_flags::SENT != 0 {
                track.unsent = 0;
            }
            if hop == HopId::SkbMorph as u32 {
                track.morphing = 1;
            }
            if way.tells() {
                track.outbound = u16::from(way.is_out());
                track.netns = scratch.event.netns;
            }
            if scratch.event.flags & EventFlags::END != 0 {
                // A packet that is no longer there was ended by another CPU: nothing is left to do.
                let _ = TRACKED.remove(key);
            }
            return Verdict::Follow;
        }
    }
    if wanted(&scratch.event) == 0 {
        return refuse(if older { tracked } else { None });
    }
    if reach() != 0 && !is_kin(&scratch.event) {
        // TCP's own has no headers to look at: the clone of it that is sent is asked.
        return if plan.flags & hop_flags::TEMPLATE != 0 { Verdict::Filtered } else { Verdict::Ask };
    }
    begin_packet(level, scratch, plan, key, older, (newborn, way))
}

/// The packet is not followed. An older one of its address may be there, whose end was not seen.
#[inline(always)]
pub fn refuse(older: Tracked) -> Verdict {
    if let Some(track) = older {
        // Its address is that of a packet which nobody wants to know of, and that must not be forgotten.
        // SAFETY: the value stays readable for the length of this program.
        unsafe { (*track.as_ptr()).outbound = STALE };
    }
    Verdict::Filtered
}

/// Gives a packet its id: it is followed from here on.
#[inline(always)]
pub fn begin_packet(
    level: u32,
    scratch: &mut Scratch,
    plan: &HopArgs,
    key: u64,
    older: bool,
    (newborn, way): (bool, Way),
) -> Verdict {
    let Some(id) = next_id(level) else { return Verdict::Full };
    scratch.event.packet = id;
    scratch.event.flags |= EventFlags::FIRST;
    let unsent = u8::from(newborn && plan.flags & hop_flags::SENT == 0);
    let netns = scratch.event.netns;
    let track = Track { id, step: 1, unsent, morphing: 0, outbound: u16::from(way.is_out()), copied: 0, netns };
    let inserted = if plan.flags & hop_flags::TEMPLATE != 0 {
        PENDING.insert(key, track, u64::from(BPF_ANY))
    } else if older {
        // A new packet is born under an address whose packet never ended: the end was not seen.
        scratch.event.flags |= EventFlags::REUSED;
        TRACKED.insert(key, track, u64::from(BPF_ANY))
    } else {
        TRACKED.insert(key, track, u64::from(BPF_NOEXIST))
    };
    if inserted.is_ok() { Verdict::Follow } else { Verdict::Full }
}

/// Whether this host makes the packet here.
#[inline(always)]
pub fn is_newborn(scratch: &Scratch, plan: &HopArgs) -> bool {
    plan.flags & hop_flags::ORIGIN != 0 && scratch.u64(offset!(skb_dev)) == 0
}

/// Which way a packet goes at a tracepoint: where no kprobe shows how packets begin and end, that tells new ones from old.
#[derive(Clone, Copy)]
pub enum Way {
    /// To a device, and by a hop where a packet may begin.
    Begins,
    /// To a device.
    Out,
    /// Received, and by a hop where a packet may begin.
    Arrives,
    /// Received.
    In,
    /// This hop does not tell.
    Unknown,
}

impl Way {
    #[inline(always)]
    pub fn of(hop: u32) -> Way {
        if hop == HopId::NetDevQueue as u32 {
            Way::Begins
        } else if hop == HopId::NetDevStartXmit as u32 {
            Way::Out
        } else if hop == HopId::NetifRx as u32 || hop == HopId::NapiGroReceiveEntry as u32 {
            Way::Arrives
        } else if hop == HopId::NetifReceiveSkb as u32 {
            Way::In
        } else {
            Way::Unknown
        }
    }

    /// Whether a packet may begin here.
    #[inline(always)]
    fn asks(self) -> bool {
        matches!(self, Way::Begins | Way::Arrives)
    }

    #[inline(always)]
    fn begins(self) -> bool {
        matches!(self, Way::Begins)
    }

    #[inline(always)]
    fn is_out(self) -> bool {
        matches!(self, Way::Begins | Way::Out)
    }

    /// Whether a packet may begin here because it was cut from another. By kprobes that is seen.
    #[inline(always)]
    fn is_cut(self) -> bool {
        matches!(self, Way::Out) && hop_args(HopId::NetDevQueue as u32).skb != NO_ARG
    }

    #[inline(always)]
    fn tells(self) -> bool {
        !matches!(self, Way::Unknown)
    }
}

/// An id that no other packet of this run has: the CPU, from 1, the level, and a count.
#[inline(always)]
fn next_id(level: u32) -> Option<u64> {
    let count = SEQUENCE.get_ptr_mut(level)?;
    // SAFETY: a per-CPU value; only programs of this level use it, which do not interrupt one another on a CPU.
    let count = unsafe {
        *count = (*count).wrapping_add(1);
        *count
    };
    let giver = (u64::from(cpu()).wrapping_add(1) << 48) | (u64::from(level) << 44);
    Some(giver | (count & 0xfff_ffff_ffff))
}
