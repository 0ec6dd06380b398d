//! The kernel side: one small eBPF program per hop, and beneath them one way that every hit goes:
//! look the packet up, filter, number it, and send an event to the ring.
//!
//! - `veth`, `bridge`, `device`, `netfilter`, `ip`, `transport`, `skb`, `end`: the entry points, a line per hop
//! - `together`: one entry point in place of all those of kprobes, where the kernel attaches a program to many functions at once
//! - `hit`: the way of a hit; `identify`: which packet it is of; `wanted`: the segment and the filter; `describe`: when,
//!   where and by whom it was
//! - `filter`: the user's expression, in programs of their own, which a packet goes through before it is followed
//! - `packet`: where `sk_buff` and headers are read to, in bulk; `headers`: what they say; `template`: a packet that has
//!   no headers yet
//! - `frame`: a packet's bytes behind its linear area, in programs of their own that the others go on in
//! - `payload`: the digest of the payload, in a program of its own that the others end in
//! - `misses`: what the kernel's probes missed
//! - `device_of`: devices, their netns and names
//! - `maps`: what is shared with user space
//! - `read`: reading kernel memory at offsets that BTF gave
//!
//! Nothing here knows a number of any kernel: offsets and argument positions are read-only globals that user space
//! fills before the load, so that the verifier sees constants and drops the code that a kernel does not need.
#![no_std]
#![no_main]

mod bridge;
mod describe;
mod device;
mod device_of;
mod end;
mod filter;
mod frame;
mod headers;
mod hit;
mod identify;
mod ip;
mod maps;
mod misses;
mod netfilter;
mod packet;
mod payload;
mod read;
mod skb;
mod template;
mod together;
mod transport;
mod veth;
mod wanted;

/// An entry point of a hop: the program bears the hop's name, the section says where it goes.
macro_rules! kprobes {
    ($($program:ident = $hop:ident,)*) => {
        $(
            #[aya_ebpf::macros::kprobe]
            pub fn $program(ctx: aya_ebpf::programs::ProbeContext) -> u32 {
                crate::hit::hit(&ctx, skbtrace_common::HopId::$hop);
                0
            }
        )*
    };
}
pub(crate) use kprobes;

/// The same for hops that are raw tracepoints.
macro_rules! tracepoints {
    ($($program:ident = $hop:ident,)*) => {
        $(
            #[aya_ebpf::macros::raw_tracepoint]
            pub fn $program(ctx: aya_ebpf::programs::RawTracePointContext) -> i32 {
                crate::hit::hit(&ctx, skbtrace_common::HopId::$hop);
                0
            }
        )*
    };
}
pub(crate) use tracepoints;

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // No panic path survives into the object: the verifier would refuse this loop on 5.10.
    loop {}
}

// The helpers that read kernel memory are for GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
