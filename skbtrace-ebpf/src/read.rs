//! Reading kernel memory.

use aya_ebpf::helpers::generated::bpf_probe_read_kernel as raw_read;
use skbtrace_common::Offsets;

/// A value at `base + offset`; `None` when it cannot be read or the kernel has no such member.
#[inline(always)]
pub fn member<T: Copy + Default>(base: u64, offset: u32) -> Option<T> {
    if base == 0 || offset == Offsets::ABSENT {
        return None;
    }
    value(base.wrapping_add(u64::from(offset)))
}

/// A value at an address.
#[inline(always)]
pub fn value<T: Copy + Default>(address: u64) -> Option<T> {
    let mut out = T::default();
    into(&raw mut out, size_of::<T>() as u32, address).then_some(out)
}

/// Copies `size` bytes from `address` to `to`, which has room for them; false when they cannot be read.
#[inline(always)]
pub fn into<T>(to: *mut T, size: u32, address: u64) -> bool {
    // SAFETY: `to` has room for `size` bytes, which the verifier checks; the helper checks the source.
    unsafe { raw_read(to.cast(), size, address as *const _) == 0 }
}
