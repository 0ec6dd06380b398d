//! The packet's bytes behind its linear area: from page frags, and from a frag list.
//!
//! Programs of their own, as those that digest: the kernel verifies them once and not once per hop, and a run that wants no
//! bytes does not load them. They take the pieces as the digest does, and end in it. A frame is short: a plain loop over the
//! pieces that a few hundred bytes can lie in is one that every kernel's verifier follows.

use aya_ebpf::{
    macros::{kprobe, raw_tracepoint},
    programs::{ProbeContext, RawTracePointContext},
};
use skbtrace_common::{EventFlags, Level, MAX_FRAME};

use crate::{
    hit::{Args, go_on, send},
    maps::{COUNTERS, SCRATCH, filter, offset},
    packet::Scratch,
    payload::next_piece,
    read::member,
};

/// Two for each piece: enough for all frags of an `sk_buff`.
const STEPS: u32 = 36;

#[kprobe]
pub fn copy_probe(ctx: ProbeContext) -> u32 {
    copy::<_, { Level::Kprobe as u32 }>(&ctx);
    0
}

#[raw_tracepoint]
pub fn copy_softirq(ctx: RawTracePointContext) -> i32 {
    copy::<_, { Level::Softirq as u32 }>(&ctx);
    0
}

#[raw_tracepoint]
pub fn copy_read(ctx: RawTracePointContext) -> i32 {
    copy::<_, { Level::Read as u32 }>(&ctx);
    0
}

#[raw_tracepoint]
pub fn copy_drop(ctx: RawTracePointContext) -> i32 {
    copy::<_, { Level::Drop as u32 }>(&ctx);
    0
}

#[raw_tracepoint]
pub fn copy_consume(ctx: RawTracePointContext) -> i32 {
    copy::<_, { Level::Consume as u32 }>(&ctx);
    0
}

/// Goes on with the frame in the scratch value of this level, and then to the digest, or sends the event.
#[inline(always)]
fn copy<A: Args, const LEVEL: u32>(args: &A) {
    let Some(scratch) = SCRATCH.get_ptr_mut(LEVEL) else { return };
    // SAFETY: as in `hit`, in whose place this program runs.
    let scratch = unsafe { &mut *scratch };
    let Some(counters) = COUNTERS.get_ptr_mut(u32::from(scratch.event.hop)) else { return };
    // SAFETY: likewise.
    let counters = unsafe { &mut *counters };
    begin(scratch);
    let mut i = 0;
    while i < STEPS {
        if step(scratch) != 0 {
            break;
        }
        i = i.wrapping_add(1);
    }
    if scratch.event.flags & EventFlags::DIGEST != 0 {
        go_on(args, A::VERIFY, LEVEL);
    }
    send(scratch, counters);
    scratch.release();
}

/// The linear area has been copied: what follows are the frags.
#[inline(always)]
fn begin(scratch: &mut Scratch) {
    let snaplen = u32::from(filter().snaplen);
    let wanted = if snaplen > MAX_FRAME as u32 { MAX_FRAME as u32 } else { snaplen };
    let shared_info = scratch.u64(offset!(head)).wrapping_add(u64::from(scratch.u32(offset!(end))));
    let caplen = u32::from(scratch.event.caplen);
    let walk = &mut scratch.walk;
    walk.shared_info = shared_info;
    walk.left = 0;
    walk.skip = 0;
    walk.remaining = wanted.saturating_sub(caplen);
    walk.frag = 0;
    walk.frags = u32::from(member::<u8>(shared_info, offset!(nr_frags)).unwrap_or(0));
    walk.list = member(shared_info, offset!(frag_list)).unwrap_or(0);
}

/// Copies what is wanted of the piece at hand, or finds the next one. Not 0 when there is nothing more to do.
#[inline(always)]
fn step(scratch: &mut Scratch) -> u64 {
    if scratch.walk.remaining == 0 {
        return 1;
    }
    if scratch.walk.left == 0 {
        return next_piece(scratch);
    }
    let mut size = scratch.walk.left;
    if size > scratch.walk.remaining {
        size = scratch.walk.remaining;
    }
    if size > MAX_FRAME as u32 - 1 {
        size = MAX_FRAME as u32 - 1;
    }
    if !scratch.append_frame(size, scratch.walk.address) {
        return 1;
    }
    let walk = &mut scratch.walk;
    walk.address = walk.address.wrapping_add(u64::from(size));
    walk.left = walk.left.wrapping_sub(size);
    walk.remaining = walk.remaining.wrapping_sub(size);
    0
}
