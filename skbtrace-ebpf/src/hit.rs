//! The way of a hit: look up, filter, number, write, send; and where kprobes and tracepoints differ on it. What each step
//! knows is in files of its own: this one is the order that they come in.

use aya_ebpf::{
    EbpfContext,
    helpers::generated::bpf_ringbuf_output,
    programs::{ProbeContext, RawTracePointContext},
};
use skbtrace_common::{Counters, Digest, EventFlags, HopArgs, HopId, Level, hop_flags};

use crate::{
    describe::describe_hit,
    device_of,
    headers::{note_inner_sum, parse_headers},
    identify::{Verdict, identify, is_followed},
    maps::{
        COPY_PROBE, COPY_TRACEPOINT, COUNTERS, EVENTS, SCRATCH, TRACKED, Track, VERIFY_PROBE, VERIFY_TRACEPOINT,
        filter, hop_args, offset,
    },
    misses::note_probe,
    packet::Scratch,
    read::value,
    template::describe_template,
};

const IPPROTO_TCP: u8 = 6;

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
    if !template {
        // One that TCP is still making has no headers that its checksum could be of.
        note_inner_sum(scratch);
    }
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
