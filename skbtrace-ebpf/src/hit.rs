//! The way of a hit: look up, filter, number, write, send.

use aya_ebpf::{
    EbpfContext,
    bindings::{BPF_ANY, BPF_NOEXIST},
    helpers::{
        bpf_get_current_pid_tgid, bpf_get_smp_processor_id, bpf_ktime_get_ns,
        generated::{bpf_get_current_comm, bpf_ringbuf_output},
    },
    programs::{ProbeContext, RawTracePointContext},
};
use skbtrace_common::{Context, Counters, Digest, Event, EventFlags, HopArgs, HopId, Level, NO_ARG, hop_flags};

use crate::{
    device_of,
    maps::{
        COPY_PROBE, COPY_TRACEPOINT, COUNTERS, EVENTS, PENDING, SCRATCH, SEQUENCE, TRACKED, Track, VERIFY_PROBE,
        VERIFY_TRACEPOINT, filter, hop_args, offset,
    },
    packet::{Scratch, parse_headers},
    read::{member, value},
    template::describe_template,
    wanted::wanted,
};

const IPPROTO_TCP: u8 = 6;

/// A [`Track::outbound`]: the address has gone to a packet that nobody follows.
const STALE: u16 = 2;

/// The arguments of the traced function or tracepoint.
pub trait Args: EbpfContext {
    /// An argument by position; 0 when there is none at it.
    fn get(&self, position: u8) -> u64;
    /// Whether this is a kprobe.
    const PROBE: bool;
    /// Goes on in the program that copies what is behind the packet's linear area, and from there in the one that digests
    /// the payload, where that is wanted, and sends the event. Returns only when there is none.
    fn copy(&self, hop: HopId);
    /// Goes on in the program that digests the payload and sends the event. Returns only when there is none.
    fn verify(&self, level: u32);
    /// Which scratch value a program of this kind may use.
    fn level(hop: HopId) -> Level;
}

impl Args for ProbeContext {
    const PROBE: bool = true;

    #[inline(always)]
    fn get(&self, position: u8) -> u64 {
        // Each is loaded for itself: were they loaded behind the match, the compiler would make it one load at a
        // computed address, and the verifier allows only fixed ones into the context.
        let register = |n| core::hint::black_box(self.arg::<u64>(n).unwrap_or(0));
        let (a, b, c, d, e) = (register(0), register(1), register(2), register(3), register(4));
        match position {
            0 => a,
            1 => b,
            2 => c,
            3 => d,
            4 => e,
            _ => 0,
        }
    }

    #[inline(always)]
    fn verify(&self, _level: u32) {
        // SAFETY: nothing is left to be dropped here.
        unsafe { VERIFY_PROBE.tail_call(self, Level::Kprobe as u32) };
    }

    #[inline(always)]
    fn copy(&self, hop: HopId) {
        // SAFETY: likewise.
        unsafe { COPY_PROBE.tail_call(self, Self::level(hop) as u32) };
    }

    #[inline(always)]
    fn level(_hop: HopId) -> Level {
        Level::Kprobe
    }
}

impl Args for RawTracePointContext {
    const PROBE: bool = false;

    #[inline(always)]
    fn get(&self, position: u8) -> u64 {
        // The kernel refuses a program that has code for an argument that its tracepoint has not, so that here each
        // is loaded behind its own test, which the verifier decides.
        if position == 0 {
            return core::hint::black_box(self.arg(0));
        }
        if position == 1 {
            return core::hint::black_box(self.arg(1));
        }
        if position == 2 {
            return core::hint::black_box(self.arg(2));
        }
        0
    }

    #[inline(always)]
    fn verify(&self, level: u32) {
        // SAFETY: nothing is left to be dropped here.
        unsafe { VERIFY_TRACEPOINT.tail_call(self, level) };
    }

    #[inline(always)]
    fn copy(&self, hop: HopId) {
        // SAFETY: likewise.
        unsafe { COPY_TRACEPOINT.tail_call(self, Self::level(hop) as u32) };
    }

    #[inline(always)]
    fn level(hop: HopId) -> Level {
        if hop as u16 == HopId::KfreeSkb as u16 {
            Level::Drop
        } else if hop as u16 == HopId::ConsumeSkb as u16 {
            Level::Consume
        } else if hop as u16 == HopId::SkbCopyDatagramIovec as u16 {
            Level::Read
        } else if hop as u16 == HopId::TcpProbe as u16 {
            Level::Tcp
        } else {
            Level::Softirq
        }
    }
}

/// A packet was seen at a hop.
#[inline(always)]
pub fn hit<A: Args>(args: &A, hop: HopId) {
    let Some(counters) = COUNTERS.get_ptr_mut(hop as u32) else { return };
    // SAFETY: a per-CPU value; a program on this CPU that interrupts this one counts another hop.
    let counters = unsafe { &mut *counters };
    if A::PROBE {
        note_probe(counters);
    }
    let plan = hop_args(hop);
    let mut address = args.get(plan.skb);
    if plan.flags & hop_flags::INDIRECT != 0 {
        address = value(address).unwrap_or(0);
    }
    let template = plan.flags & hop_flags::TEMPLATE != 0;
    let tracked = if template { None } else { TRACKED.get_ptr_mut(address) };
    if plan.flags & (hop_flags::END | hop_flags::TRACKED_ONLY) != 0 && !is_followed(tracked) {
        counters.filtered = counters.filtered.wrapping_add(1);
        return;
    }
    let Some(scratch) = SCRATCH.get_ptr_mut(A::level(hop) as u32) else { return };
    // SAFETY: a per-CPU value that only programs of this level use. Kprobes do not interrupt one another; a tracepoint's
    // program claims it.
    let scratch = unsafe { &mut *scratch };
    if A::PROBE {
        follow(args, hop, scratch, counters, address, tracked);
    } else if scratch.claim() {
        follow(args, hop, scratch, counters, address, tracked);
        scratch.release();
    } else {
        counters.unreadable = counters.unreadable.wrapping_add(1);
    }
}

/// Whether the packet is one that is followed.
#[inline(always)]
fn is_followed(tracked: Option<*mut Track>) -> bool {
    // SAFETY: the value stays readable for the length of this program.
    tracked.is_some_and(|track| unsafe { (*track).outbound } != STALE)
}

/// Reads the packet and sends the event, if it is wanted. May go on in another program and never return.
#[inline(always)]
fn follow<A: Args>(
    args: &A,
    hop: HopId,
    scratch: &mut Scratch,
    counters: &mut Counters,
    address: u64,
    tracked: Option<*mut Track>,
) {
    let plan = hop_args(hop);
    let template = plan.flags & hop_flags::TEMPLATE != 0;
    if !scratch.read(address) {
        counters.unreadable = counters.unreadable.wrapping_add(1);
        return;
    }
    // SAFETY: zero is a value of every member.
    unsafe { core::ptr::write_bytes(&raw mut scratch.event, 0, 1) };
    scratch.event.skb = address;
    scratch.event.hop = hop as u16;
    let device = device_of::address(args, scratch, plan.dev_from, plan.dev, 0);
    device_of::describe_first(&mut scratch.event, device);
    if template {
        scratch.event.ack = args.get(plan.ack) as u32;
        describe_template(scratch, args.get(plan.sock));
    } else {
        parse_headers(scratch);
    }
    // Known by its socket until it is seen.
    let key = if template { args.get(plan.sock) } else { address };
    let pending = if plan.flags & hop_flags::ADOPT != 0 { args.get(plan.sock) } else { 0 };
    if is_end(args, hop, &plan, scratch, tracked) {
        scratch.event.flags |= EventFlags::END;
    }
    match identify(hop, A::level(hop), scratch, &plan, key, pending, tracked) {
        Verdict::Follow => {}
        Verdict::Filtered => {
            counters.filtered = counters.filtered.wrapping_add(1);
            return;
        }
        Verdict::Full => {
            counters.map_full = counters.map_full.wrapping_add(1);
            return;
        }
    }
    scratch.describe();
    let second = device_of::address(args, scratch, plan.dev2_from, plan.dev2, device);
    if plan.dev2_from != 0 {
        device_of::describe_second(&mut scratch.event, second);
    }
    describe_hit(args, &plan, scratch);
    let digested = filter().verify != 0 && plan.flags & hop_flags::PAYLOAD != 0 && scratch.found.known != 0;
    if digested {
        *scratch.digest() = Digest::default();
        scratch.event.flags |= EventFlags::DIGEST;
    }
    let snaplen = filter().snaplen;
    if snaplen != 0 && scratch.copy_frame(snaplen) {
        // Where the kernel would not go there, the linear area is all.
        args.copy(hop);
    }
    if digested {
        // Where the kernel would not go there, the digest says nothing.
        args.verify(A::level(hop) as u32);
    }
    send(scratch, counters);
}

/// Whether the packet is at its end here. TCP frees what it has taken without a tracepoint: as the tracepoints see it, an
/// ACK ends where TCP takes it, and a segment where its last byte is read.
#[inline(always)]
fn is_end<A: Args>(args: &A, hop: HopId, plan: &HopArgs, scratch: &Scratch, tracked: Option<*mut Track>) -> bool {
    if hop as u16 == HopId::TcpProbe as u16 {
        return scratch.event.payload_len == 0;
    }
    if hop as u16 == HopId::SkbCopyDatagramIovec as u16
        && scratch.event.l4_proto == IPPROTO_TCP
        && let Some(track) = tracked
    {
        // SAFETY: the value stays readable; only who reads from the socket, which is locked, writes this member.
        let track = unsafe { &mut *track };
        track.copied = track.copied.wrapping_add(args.get(plan.copied) as u32);
        return track.copied >= scratch.u32(offset!(len));
    }
    plan.flags & hop_flags::END != 0
}

/// What becomes of a hit.
enum Verdict {
    Follow,
    Filtered,
    Full,
}

/// Gives the packet its id and the hop its number, if the packet is followed or is to be from here on.
#[inline(always)]
fn identify(
    hop: HopId,
    level: Level,
    scratch: &mut Scratch,
    plan: &HopArgs,
    key: u64,
    pending: u64,
    tracked: Option<*mut Track>,
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
    let newborn = plan.flags & hop_flags::ORIGIN != 0 && scratch.u64(offset!(skb_dev)) == 0;
    let way = Way::of(hop);
    let local = way.asks() && scratch.u32(offset!(skb_iif)) == 0;
    if local && way.is_out() {
        scratch.event.flags |= EventFlags::LOCAL;
    }
    let mut older = false;
    if let Some(track) = tracked {
        // SAFETY: the value stays readable for the length of this program even when another CPU removes it, and only
        // the CPU that has the packet in hand writes to it.
        let track = unsafe { &mut *track };
        // What was received last is not received again, nor sent as if it never had been.
        older = (newborn && track.unsent == 0) || (local && track.outbound == 0) || track.outbound == STALE;
        // What GSO has cut comes to a driver without having been seen to come to its device.
        older |= way.is_cut() && track.outbound == 0;
        if !older {
            scratch.event.packet = track.id;
            scratch.event.step = track.step;
            track.step = track.step.wrapping_add(1);
            if plan.flags & hop_flags::SENT != 0 {
                track.unsent = 0;
            }
            if way.tells() {
                track.outbound = u16::from(way.is_out());
            }
            if scratch.event.flags & EventFlags::END != 0 {
                // A packet that is no longer there was ended by another CPU: nothing is left to do.
                let _ = TRACKED.remove(key);
            }
            return Verdict::Follow;
        }
    }
    if wanted(&scratch.event) == 0 {
        if older && let Some(track) = tracked {
            // Its address is that of a packet which nobody wants to know of. Its end was not seen, and that must not be forgotten.
            // SAFETY: as above.
            unsafe { (*track).outbound = STALE };
        }
        return Verdict::Filtered;
    }
    let Some(id) = next_id(level) else { return Verdict::Full };
    scratch.event.packet = id;
    scratch.event.flags |= EventFlags::FIRST;
    let unsent = u16::from(newborn && plan.flags & hop_flags::SENT == 0);
    let track = Track { id, step: 1, unsent, outbound: u16::from(way.is_out()), copied: 0 };
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

/// Which way a packet goes at a tracepoint: where no kprobe shows how packets begin and end, that tells new ones from old.
#[derive(Clone, Copy)]
enum Way {
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
    fn of(hop: HopId) -> Way {
        match hop {
            HopId::NetDevQueue => Way::Begins,
            HopId::NetDevStartXmit => Way::Out,
            HopId::NetifRx | HopId::NapiGroReceiveEntry => Way::Arrives,
            HopId::NetifReceiveSkb => Way::In,
            _ => Way::Unknown,
        }
    }

    /// Whether a packet may begin here.
    #[inline(always)]
    fn asks(self) -> bool {
        matches!(self, Way::Begins | Way::Arrives)
    }

    #[inline(always)]
    fn is_out(self) -> bool {
        matches!(self, Way::Begins | Way::Out)
    }

    /// Whether a packet may begin here because it was cut from another. By kprobes that is seen.
    #[inline(always)]
    fn is_cut(self) -> bool {
        matches!(self, Way::Out) && hop_args(HopId::NetDevQueue).skb != NO_ARG
    }

    #[inline(always)]
    fn tells(self) -> bool {
        !matches!(self, Way::Unknown)
    }
}

/// An id that no other packet of this run has: the CPU, from 1, the level, and a count.
#[inline(always)]
fn next_id(level: Level) -> Option<u64> {
    let count = SEQUENCE.get_ptr_mut(level as u32)?;
    // SAFETY: a per-CPU value; only programs of this level use it, which do not interrupt one another on a CPU.
    let count = unsafe {
        *count = (*count).wrapping_add(1);
        *count
    };
    let giver = (u64::from(cpu()).wrapping_add(1) << 48) | (u64::from(level as u32) << 44);
    Some(giver | (count & 0xfff_ffff_ffff))
}

#[inline(always)]
fn cpu() -> u32 {
    // SAFETY: the helper takes nothing and cannot fail.
    unsafe { bpf_get_smp_processor_id() as u32 }
}

/// Fills in when, where and by whom.
#[inline(always)]
fn describe_hit<A: Args>(args: &A, plan: &HopArgs, scratch: &mut Scratch) {
    let event = &mut scratch.event;
    // SAFETY: the helper takes nothing and cannot fail.
    event.time_ns = unsafe { bpf_ktime_get_ns() };
    event.cpu = cpu();
    let task = bpf_get_current_pid_tgid();
    event.pid = (task >> 32) as u32;
    event.tid = task as u32;
    // SAFETY: the helper writes at most the size that it is given.
    unsafe { bpf_get_current_comm((&raw mut event.comm).cast(), 16) };
    describe_context(event, A::PROBE);
    if plan.sock != NO_ARG {
        event.sock = args.get(plan.sock);
    }
    if plan.location != NO_ARG {
        event.location = args.get(plan.location);
    }
    if plan.other != NO_ARG
        && let Some(other) = TRACKED.get_ptr_mut(args.get(plan.other))
    {
        // SAFETY: as for the packet's own value.
        event.other = unsafe { (*other).id };
    }
    if plan.state != NO_ARG {
        let state = args.get(plan.state);
        event.nf_hook = member(state, offset!(nf_hook)).unwrap_or(0);
        event.nf_family = member(state, offset!(nf_family)).unwrap_or(0);
    }
    if plan.copied != NO_ARG {
        event.copied_from = args.get(plan.copied_from) as u32;
        event.copied = args.get(plan.copied) as u32;
    }
    if plan.reason != NO_ARG {
        event.reason = args.get(plan.reason) as u32;
        event.flags |= EventFlags::REASON;
    }
}

/// Keeps the address of the kernel's own record of this hop's probe, where its misses are counted: while a probe runs, the
/// kernel has it at hand per CPU.
#[inline(always)]
fn note_probe(counters: &mut Counters) {
    if offset!(current_kprobe) == 0 || counters.probe != 0 {
        return;
    }
    let Some(base) = value::<u64>(offset!(per_cpu_offset).wrapping_add(u64::from(cpu()) << 3)) else { return };
    let mut probe = value::<u64>(base.wrapping_add(offset!(kprobe_instance))).unwrap_or(0);
    if probe == 0 {
        probe = value::<u64>(base.wrapping_add(offset!(current_kprobe))).unwrap_or(0);
    }
    counters.probe = probe;
}

/// Softirq, hardirq or process, by the preempt count of this CPU, where its address is known.
#[inline(always)]
fn describe_context(event: &mut Event, probe: bool) {
    let offsets = offset!(per_cpu_offset);
    if offsets == 0 {
        return;
    }
    let Some(base) = value::<u64>(offsets.wrapping_add(u64::from(event.cpu) << 3)) else { return };
    let current_kprobe = offset!(current_kprobe);
    if !probe && current_kprobe != 0 && value::<u64>(base.wrapping_add(current_kprobe)).unwrap_or(0) != 0 {
        event.flags |= EventFlags::NESTED;
    }
    let Some(count) = value::<u32>(base.wrapping_add(offset!(preempt_count))) else { return };
    event.context = if count & 0xf_0000 != 0 {
        Context::HARDIRQ
    } else if count & 0x100 != 0 {
        Context::SOFTIRQ
    } else {
        Context::PROCESS
    };
    event.flags |= EventFlags::CONTEXT;
}

/// Sends the event.
#[inline(always)]
pub fn send(scratch: &Scratch, counters: &mut Counters) {
    if scratch.event.flags & EventFlags::READ_FAILED != 0 {
        counters.read_failed = counters.read_failed.wrapping_add(1);
    }
    let (record, size) = scratch.record();
    // SAFETY: the record is within the scratch value; the helper copies it.
    let sent = unsafe { bpf_ringbuf_output((&raw const EVENTS).cast_mut().cast(), record.cast_mut().cast(), size, 0) };
    if sent == 0 {
        counters.sent = counters.sent.wrapping_add(1);
    } else {
        counters.ring_full = counters.ring_full.wrapping_add(1);
    }
}
