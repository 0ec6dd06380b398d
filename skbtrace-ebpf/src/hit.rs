//! The way of a hit. The program of a hop is short, and there is one for each: it finds the packet's address, sees whether it
//! can be of interest, keeps the arguments, and goes on in `follow`. That one is long, and the kernel verifies it once and not once
//! per hop: it reads the packet, filters, numbers, writes, sends. What each step knows is in files of its own: this one is the
//! order that they come in, and where kprobes and tracepoints differ on it.

use aya_ebpf::{
    EbpfContext,
    helpers::generated::bpf_ringbuf_output,
    macros::{kprobe, raw_tracepoint},
    maps::ProgramArray,
    programs::{ProbeContext, RawTracePointContext},
};
use skbtrace_common::{Counters, Digest, EventFlags, HopArgs, HopId, Level, Stage, hop_flags};

use crate::{
    describe::describe_hit,
    device_of,
    filter::note_kin,
    headers::{note_inner_sum, parse_headers},
    identify::{Verdict, identify, is_followed, is_old_self},
    maps::{
        COPY_PROBE, COPY_TRACEPOINT, COUNTERS, EVENTS, FILTER_PROBE, FILTER_TRACEPOINT, FOLLOW_PROBE,
        FOLLOW_TRACEPOINT, SCRATCH, Tracked, VERIFY_PROBE, VERIFY_TRACEPOINT, filter, hop_args, offset, reach, tracked,
    },
    misses::note_probe,
    packet::Scratch,
    read::value,
    template::describe_template,
};

const IPPROTO_TCP: u8 = 6;

/// What a program was called with.
pub trait Args: EbpfContext {
    /// Whether this is a kprobe.
    const PROBE: bool;
    /// The programs that the others go on in, by level: those that follow a packet, copy what is behind its linear area, and
    /// digest its payload.
    const FOLLOW: &'static ProgramArray;
    /// See `FOLLOW`.
    const COPY: &'static ProgramArray;
    /// See `FOLLOW`.
    const VERIFY: &'static ProgramArray;
    /// Those that ask the user's expression, by stage and level.
    const FILTER: &'static ProgramArray;
    /// An argument by position; 0 when there is none at it.
    fn get(&self, position: u8) -> u64;
    /// Keeps the arguments: of a tracepoint so many.
    fn keep(&self, count: u8, args: &mut [u64; 8]);
    /// Which scratch value the program of this hop may use.
    fn level(hop: HopId) -> Level;
}

impl Args for ProbeContext {
    const PROBE: bool = true;
    const FOLLOW: &'static ProgramArray = &FOLLOW_PROBE;
    const COPY: &'static ProgramArray = &COPY_PROBE;
    const VERIFY: &'static ProgramArray = &VERIFY_PROBE;
    const FILTER: &'static ProgramArray = &FILTER_PROBE;

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
    fn keep(&self, _count: u8, args: &mut [u64; 8]) {
        let register = |n| core::hint::black_box(self.arg::<u64>(n).unwrap_or(0));
        args[0] = register(0);
        args[1] = register(1);
        args[2] = register(2);
        args[3] = register(3);
        args[4] = register(4);
    }

    #[inline(always)]
    fn level(_hop: HopId) -> Level {
        Level::Kprobe
    }
}

impl Args for RawTracePointContext {
    const PROBE: bool = false;
    const FOLLOW: &'static ProgramArray = &FOLLOW_TRACEPOINT;
    const COPY: &'static ProgramArray = &COPY_TRACEPOINT;
    const VERIFY: &'static ProgramArray = &VERIFY_TRACEPOINT;
    const FILTER: &'static ProgramArray = &FILTER_TRACEPOINT;

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
    fn keep(&self, count: u8, args: &mut [u64; 8]) {
        // As above.
        if count > 0 {
            args[0] = core::hint::black_box(self.arg(0));
        }
        if count > 1 {
            args[1] = core::hint::black_box(self.arg(1));
        }
        if count > 2 {
            args[2] = core::hint::black_box(self.arg(2));
        }
    }

    #[inline(always)]
    fn level(hop: HopId) -> Level {
        match hop {
            HopId::KfreeSkb => Level::Drop,
            HopId::ConsumeSkb => Level::Consume,
            HopId::SkbCopyDatagramIovec => Level::Read,
            HopId::TcpProbe => Level::Tcp,
            _ => Level::Softirq,
        }
    }
}

/// Goes on in the program of this level, and returns only when there is none.
#[inline(always)]
pub fn go_on<A: Args>(args: &A, programs: &ProgramArray, level: u32) {
    // SAFETY: nothing is left to be dropped here.
    unsafe { programs.tail_call(args, level) };
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
    arrive(args, hop as u32, A::level(hop) as u32, counters);
}

/// Goes on with a packet that was seen at the hop of this number, if it can be of interest.
#[inline(always)]
pub fn arrive<A: Args>(args: &A, hop: u32, level: u32, counters: &mut Counters) {
    let plan = hop_args(hop);
    let mut address = args.get(plan.skb);
    if plan.flags & hop_flags::INDIRECT != 0 {
        address = value(address).unwrap_or(0);
    }
    if plan.flags & (hop_flags::END | hop_flags::TRACKED_ONLY) != 0 {
        let packet = tracked(address);
        if !is_followed(packet) || is_old_self(hop, packet) {
            counters.filtered = counters.filtered.wrapping_add(1);
            return;
        }
    }
    let Some(scratch) = SCRATCH.get_ptr_mut(level) else { return };
    // SAFETY: a per-CPU value that only programs of this level use. Kprobes do not interrupt one another, be they attached one by
    // one or together: the kernel calls none while `bpf_prog_active` says that one runs. A tracepoint's program claims it.
    let scratch = unsafe { &mut *scratch };
    if A::PROBE || scratch.claim() {
        scratch.hit.skb = address;
        scratch.hit.hop = hop;
        args.keep(plan.count, &mut scratch.hit.args);
        go_on(args, A::FOLLOW, level);
        scratch.release();
    }
    counters.unreadable = counters.unreadable.wrapping_add(1);
}

#[kprobe]
pub fn follow_probe(ctx: ProbeContext) -> u32 {
    follow::<_, { Level::Kprobe as u32 }>(&ctx);
    0
}

#[raw_tracepoint]
pub fn follow_drop(ctx: RawTracePointContext) -> i32 {
    follow::<_, { Level::Drop as u32 }>(&ctx);
    0
}

#[raw_tracepoint]
pub fn follow_consume(ctx: RawTracePointContext) -> i32 {
    follow::<_, { Level::Consume as u32 }>(&ctx);
    0
}

#[raw_tracepoint]
pub fn follow_softirq(ctx: RawTracePointContext) -> i32 {
    follow::<_, { Level::Softirq as u32 }>(&ctx);
    0
}

#[raw_tracepoint]
pub fn follow_read(ctx: RawTracePointContext) -> i32 {
    follow::<_, { Level::Read as u32 }>(&ctx);
    0
}

#[raw_tracepoint]
pub fn follow_tcp(ctx: RawTracePointContext) -> i32 {
    follow::<_, { Level::Tcp as u32 }>(&ctx);
    0
}

/// Follows the packet in the scratch value of this level.
#[inline(always)]
fn follow<A: Args, const LEVEL: u32>(args: &A) {
    let Some(scratch) = SCRATCH.get_ptr_mut(LEVEL) else { return };
    // SAFETY: as in `hit`, in whose place this program runs.
    let scratch = unsafe { &mut *scratch };
    let Some(counters) = COUNTERS.get_ptr_mut(scratch.hit.hop) else { return };
    // SAFETY: likewise.
    let counters = unsafe { &mut *counters };
    record::<A, LEVEL>(args, scratch, counters);
    scratch.release();
}

/// Reads the packet and sends the event, if it is wanted. May go on in another program and never return.
#[inline(always)]
fn record<A: Args, const LEVEL: u32>(args: &A, scratch: &mut Scratch, counters: &mut Counters) {
    let hop = scratch.hit.hop;
    let address = scratch.hit.skb;
    let plan = hop_args(hop);
    let template = plan.flags & hop_flags::TEMPLATE != 0;
    if !scratch.read(address) {
        counters.unreadable = counters.unreadable.wrapping_add(1);
        return;
    }
    let packet = if template { None } else { tracked(address) };
    // SAFETY: zero is a value of every member.
    unsafe { core::ptr::write_bytes(&raw mut scratch.event, 0, 1) };
    scratch.event.skb = address;
    scratch.event.hop = hop as u16;
    let device = device_of::address(scratch, plan.dev_from, plan.dev, 0);
    scratch.hit.device = device;
    device_of::describe_first(&mut scratch.event, device);
    let sock = scratch.hit.arg(plan.sock);
    if template {
        scratch.event.ack = scratch.hit.arg(plan.ack) as u32;
        describe_template(scratch, sock);
    } else {
        parse_headers(scratch);
    }
    // Known by its socket until it is seen.
    let key = if template { sock } else { address };
    let pending = if plan.flags & hop_flags::ADOPT != 0 { sock } else { 0 };
    if is_end(&plan, scratch, packet) {
        scratch.event.flags |= EventFlags::END;
    }
    let verdict = identify(hop, LEVEL, scratch, &plan, key, pending, packet);
    if let Verdict::Ask = verdict {
        go_on(args, A::FILTER, Stage::Copy.place(LEVEL));
        counters.unreadable = counters.unreadable.wrapping_add(1);
        return;
    }
    admitted::<A, LEVEL>(args, scratch, counters, &plan, verdict);
}

/// Describes the hit of a packet that is followed, and sends the event; of one that is not, counts it. May go on in another
/// program and never return.
#[inline(always)]
pub fn admitted<A: Args, const LEVEL: u32>(
    args: &A,
    scratch: &mut Scratch,
    counters: &mut Counters,
    plan: &HopArgs,
    verdict: Verdict,
) {
    match verdict {
        Verdict::Follow => {}
        Verdict::Ask => return,
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
    if plan.flags & hop_flags::TEMPLATE == 0 {
        // One that TCP is still making has no headers that its checksum could be of.
        note_inner_sum(scratch);
    }
    if plan.dev2_from != 0 {
        let second = device_of::address(scratch, plan.dev2_from, plan.dev2, scratch.hit.device);
        device_of::describe_second(&mut scratch.event, second);
    }
    describe_hit(plan, scratch, A::PROBE);
    if reach() != 0 {
        note_kin(&scratch.event);
    }
    let digested = filter().verify != 0 && plan.flags & hop_flags::PAYLOAD != 0 && scratch.found.known != 0;
    if digested {
        *scratch.digest() = Digest::default();
        scratch.event.flags |= EventFlags::DIGEST;
    }
    let snaplen = filter().snaplen;
    if snaplen != 0 && scratch.copy_frame(snaplen) {
        // Where the kernel would not go there, the linear area is all.
        go_on(args, A::COPY, LEVEL);
    }
    if digested {
        // Where the kernel would not go there, the digest says nothing.
        go_on(args, A::VERIFY, LEVEL);
    }
    send(scratch, counters);
}

/// Whether the packet is at its end here. TCP frees what it has taken without a tracepoint: as the tracepoints see it, an
/// ACK ends where TCP takes it, and a segment where its last byte is read.
#[inline(always)]
fn is_end(plan: &HopArgs, scratch: &Scratch, packet: Tracked) -> bool {
    let hop = scratch.hit.hop;
    if hop == HopId::TcpProbe as u32 {
        return scratch.event.payload_len == 0;
    }
    if hop == HopId::SkbCopyDatagramIovec as u32
        && scratch.event.l4_proto == IPPROTO_TCP
        && let Some(track) = packet
    {
        // SAFETY: the value stays readable; only who reads from the socket, which is locked, writes this member.
        let track = unsafe { &mut *track.as_ptr() };
        track.copied = track.copied.wrapping_add(scratch.hit.arg(plan.copied) as u32);
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
