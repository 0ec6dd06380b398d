//! One entry point for all functions: where the kernel attaches a program to many of them at once (kprobe.multi, Linux 5.18 and
//! later), user space loads this one in place of a program per hop. Which hop it is stands in the cookie that user space gave the
//! function.
//!
//! What it goes on in are the programs of the kprobes, loaded once more: a program goes on only in such as are attached like it.

use aya_ebpf::{EbpfContext as _, helpers::generated::bpf_get_attach_cookie, macros::kprobe, programs::ProbeContext};
use skbtrace_common::{HOP_COUNT, Level, hop_of_cookie};

use crate::{hit::arrive, maps::COUNTERS};

#[kprobe]
pub fn together(ctx: ProbeContext) -> u32 {
    // SAFETY: the helper takes the context that the program was called with.
    let cookie = unsafe { bpf_get_attach_cookie(ctx.as_ptr()) };
    let hop = hop_of_cookie(cookie);
    let is_known = hop < HOP_COUNT as u32;
    let Some(counters) = COUNTERS.get_ptr_mut(if is_known { hop } else { 0 }) else { return 0 };
    // SAFETY: a per-CPU value; a program on this CPU that interrupts this one counts another hop.
    let counters = unsafe { &mut *counters };
    if is_known {
        // The kernel's record of a kprobe is not looked for: there is none.
        arrive(&ctx, hop, Level::Kprobe as u32, counters);
    } else {
        // A kernel that does not find the cookie of a function that it calls this for. The hit is lost, and booked.
        counters.unreadable = counters.unreadable.wrapping_add(1);
    }
    0
}
