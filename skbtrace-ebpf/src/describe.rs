//! What a hit itself tells, beside what the packet says: when and where it was, in which task and context, and what else the
//! traced function or tracepoint was given.

use aya_ebpf::helpers::{
    bpf_get_current_pid_tgid, bpf_get_smp_processor_id, bpf_ktime_get_ns, generated::bpf_get_current_comm,
};
use skbtrace_common::{Context, Event, EventFlags, HopArgs, NO_ARG};

use crate::{
    maps::{offset, tracked},
    packet::Scratch,
    read::{member, value},
};

/// Fills in when, where and by whom.
#[inline(always)]
pub fn describe_hit(plan: &HopArgs, scratch: &mut Scratch, probe: bool) {
    let event = &mut scratch.event;
    // SAFETY: the helper takes nothing and cannot fail.
    event.time_ns = unsafe { bpf_ktime_get_ns() };
    event.cpu = cpu();
    let task = bpf_get_current_pid_tgid();
    event.pid = (task >> 32) as u32;
    event.tid = task as u32;
    // SAFETY: the helper writes at most the size that it is given.
    unsafe { bpf_get_current_comm((&raw mut event.comm).cast(), 16) };
    describe_context(event, probe);
    if plan.sock != NO_ARG {
        event.sock = scratch.hit.arg(plan.sock);
    }
    if plan.location != NO_ARG {
        event.location = scratch.hit.arg(plan.location);
    }
    if plan.other != NO_ARG
        && let Some(other) = tracked(scratch.hit.arg(plan.other))
    {
        // SAFETY: as for the packet's own value.
        event.other = unsafe { (*other.as_ptr()).id };
    }
    if plan.state != NO_ARG {
        let state = scratch.hit.arg(plan.state);
        event.nf_hook = member(state, offset!(nf_hook)).unwrap_or(0);
        event.nf_family = member(state, offset!(nf_family)).unwrap_or(0);
    }
    if plan.copied != NO_ARG {
        event.copied_from = scratch.hit.arg(plan.copied_from) as u32;
        event.copied = scratch.hit.arg(plan.copied) as u32;
    }
    if plan.reason != NO_ARG {
        event.reason = scratch.hit.arg(plan.reason) as u32;
        event.flags |= EventFlags::REASON;
    }
}

/// Softirq, hardirq or process, by the preempt count of this CPU, where its address is known.
#[inline(always)]
fn describe_context(event: &mut Event, probe: bool) {
    let offsets = offset!(per_cpu_offset);
    if offsets == 0 {
        return;
    }
    let Some(base) = value::<u64>(offsets.wrapping_add(u64::from(event.cpu) << 3)) else { return };
    if !probe && are_probes_skipped(base) {
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

/// Whether the kernel calls no program of a kprobe on this CPU, whose per-CPU area begins at `base`: an interrupt has come while
/// one ran, or while a system call had a map. Functions that are attached together have no `kprobe`, and only `bpf_prog_active`
/// keeps their program away (kernel/trace/bpf_trace.c, `kprobe_multi_link_prog_run`); somebody else's that runs is one mark too many.
#[inline(always)]
fn are_probes_skipped(base: u64) -> bool {
    let current_kprobe = offset!(current_kprobe);
    let prog_active = offset!(prog_active);
    current_kprobe != 0 && value::<u64>(base.wrapping_add(current_kprobe)).unwrap_or(0) != 0
        || prog_active != 0 && value::<u32>(base.wrapping_add(prog_active)).unwrap_or(0) != 0
}

/// The CPU that this program runs on.
#[inline(always)]
pub fn cpu() -> u32 {
    // SAFETY: the helper takes nothing and cannot fail.
    unsafe { bpf_get_smp_processor_id() as u32 }
}
