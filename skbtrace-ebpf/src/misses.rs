//! What the kernel's probes missed: a kprobe that is hit while another one runs on the same CPU is not called, and the kernel
//! counts that in its own record of the probe. Only a program can read it there: a hit notes where the record is, and user
//! space runs the program here when it wants to know (BPF_PROG_TEST_RUN, Linux 5.10 and later). It is attached nowhere.

use aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext};
use skbtrace_common::{Counters, HOP_COUNT};

use crate::{
    describe::cpu,
    maps::{MISSES, PROBES, offset},
    read::{member, value},
};

#[raw_tracepoint]
pub fn read_misses(_ctx: RawTracePointContext) -> i32 {
    let mut hop = 0;
    while hop < HOP_COUNT as u32 {
        if let Some(probe) = PROBES.get(hop)
            && let Some(missed) = MISSES.get_ptr_mut(hop)
        {
            // SAFETY: a value of the map, which only this program writes, one run at a time.
            unsafe { *missed = member::<u64>(*probe, offset!(probe_missed)).unwrap_or(0) };
        }
        hop = hop.wrapping_add(1);
    }
    0
}

/// Keeps the address of the kernel's own record of this hop's probe, where its misses are counted: while a probe runs, the
/// kernel has it at hand per CPU.
#[inline(always)]
pub fn note_probe(counters: &mut Counters) {
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
