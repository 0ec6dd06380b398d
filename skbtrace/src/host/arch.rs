//! What differs between architectures, and nowhere else: where the kernel maps its memory when it does not randomise that, and
//! where it counts in which context it is. An architecture that is not here can be traced on: page frags are then not read,
//! and contexts are not known.

use super::Host;

/// Where the array of `struct page` and the mapping of all memory begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bases {
    /// The array of `struct page`.
    pub vmemmap: u64,
    /// The mapping of all memory.
    pub page_offset: u64,
}

/// The bases of a kernel that does not randomise them (Documentation/arch/x86/x86_64/mm.rst), with four levels of page tables
/// and with five. `None` where they are not constants.
pub fn fixed_bases(five_levels: bool) -> Option<Bases> {
    cfg!(target_arch = "x86_64").then_some(if five_levels {
        Bases { vmemmap: 0xffd4_0000_0000_0000, page_offset: 0xff11_0000_0000_0000 }
    } else {
        Bases { vmemmap: 0xffff_ea00_0000_0000, page_offset: 0xffff_8880_0000_0000 }
    })
}

/// Whether the kernel was started with its memory randomised, as the boot loader or the kernel's own decompressor left it in the
/// boot parameters: KASLR_FLAG in `hdr.loadflags` (Documentation/arch/x86/boot.rst). `None` where that is not known.
pub fn is_randomised(boot_params: &[u8]) -> Option<bool> {
    const LOADFLAGS: usize = 0x211;
    const KASLR_FLAG: u8 = 1 << 1;
    cfg!(target_arch = "x86_64").then(|| boot_params.get(LOADFLAGS).map(|flags| flags & KASLR_FLAG != 0)).flatten()
}

/// Address of `__per_cpu_offset` and the per-CPU address of the preempt count: a variable of its own until 6.1 and
/// again from 6.15 on, a member of `pcpu_hot` between (arch/x86/include/asm/preempt.h). Elsewhere it is a member of the task,
/// which is not needed to tell a path.
pub fn preempt_count(host: &Host) -> Option<(u64, u64)> {
    if !cfg!(target_arch = "x86_64") {
        return None;
    }
    let offsets = host.symbols.data("__per_cpu_offset")?;
    let count = match host.symbols.data("pcpu_hot") {
        Some(hot) => hot + u64::from(host.btf.member("pcpu_hot", "preempt_count", None)?),
        None => host.symbols.data("__preempt_count")?,
    };
    Some((offsets, count))
}
