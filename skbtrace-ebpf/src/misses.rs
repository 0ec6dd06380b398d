//! What the kernel's probes missed: a kprobe that is hit while another one runs on the same CPU is not called, and the kernel
//! counts that in its own record of the probe. Only a program can read it there; user space runs this one when it wants to
//! know (BPF_PROG_TEST_RUN, Linux 5.10 and later). It is attached nowhere.

use aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext};
use skbtrace_common::HOP_COUNT;

use crate::{
    maps::{MISSES, PROBES, offset},
    read::member,
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
