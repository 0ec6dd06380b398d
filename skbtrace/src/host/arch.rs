//! What differs between architectures, and nowhere else. Those that are known here are x86-64 and arm64.
//!
//! - In which registers a function has its arguments: the kernel side is built once for each architecture, and aya-ebpf knows
//!   the `pt_regs` of it (`cfg(bpf_target_arch)`, which `build.rs` sets to what cargo compiles for). Its own code asks for
//!   arguments by number.
//! - Where the kernel maps its memory: by variables on x86-64, which may be hidden; by constants that depend on its
//!   configuration on arm64. /proc/kcore tells of both.
//! - Where the kernel counts in which context it is: per CPU on x86-64. On arm64 it is in the task: contexts are not known
//!   there, nor, before Linux 6.7, what its probes missed.
//! - Pages: of 4 KiB on x86-64, of up to 64 KiB on arm64. The kernel side counts in 4 KiB; see `memory`.

use super::Host;

/// The architectures that hops can be traced on, as `uname -m` has them.
pub const KNOWN: [&str; 2] = ["x86_64", "aarch64"];

/// Where the array of `struct page` and the mapping of all memory begin: of the memory that has physical address 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bases {
    /// The array of `struct page`.
    pub vmemmap: u64,
    /// The mapping of all memory.
    pub page_offset: u64,
}

/// What a kernel says of itself that tells whether its bases are constants.
#[derive(Clone, Copy, Debug)]
pub struct Boot<'a> {
    /// /sys/kernel/boot_params/data, which x86 alone has.
    pub params: &'a [u8],
    /// /proc/cpuinfo.
    pub cpu: &'a str,
    /// /proc/cmdline.
    pub cmdline: &'a str,
}

/// The bases of a kernel that does not randomise them (Documentation/arch/x86/x86_64/mm.rst), with four levels of page tables
/// or with five. `None` where they are not constants, or not known to be.
pub fn fixed_bases(boot: Boot<'_>) -> Option<Bases> {
    if !cfg!(target_arch = "x86_64") || is_randomised(boot.params)? {
        return None;
    }
    Some(if has_word(boot.cpu, "la57") && !has_word(boot.cmdline, "no5lvl") {
        Bases { vmemmap: 0xffd4_0000_0000_0000, page_offset: 0xff11_0000_0000_0000 }
    } else {
        Bases { vmemmap: 0xffff_ea00_0000_0000, page_offset: 0xffff_8880_0000_0000 }
    })
}

/// Whether the kernel was started with its memory randomised, as the boot loader or the kernel's own decompressor left it in the
/// boot parameters: KASLR_FLAG in `hdr.loadflags` (Documentation/arch/x86/boot.rst). `None` where that is not known.
fn is_randomised(boot_params: &[u8]) -> Option<bool> {
    const LOADFLAGS: usize = 0x211;
    const KASLR_FLAG: u8 = 1 << 1;
    boot_params.get(LOADFLAGS).map(|flags| flags & KASLR_FLAG != 0)
}

fn has_word(text: &str, word: &str) -> bool {
    text.split_ascii_whitespace().any(|found| found == word)
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Boot, KNOWN, fixed_bases, has_word, is_randomised};

    #[test]
    fn a_layout_counts_as_fixed_only_if_the_boot_parameters_say_so() {
        let mut params = vec![0; 4096];
        let fixed = |params: &[u8]| fixed_bases(Boot { params, cpu: "", cmdline: "" }).is_some();
        assert_eq!(fixed(&params), cfg!(target_arch = "x86_64"));
        params[0x211] = 0x83;
        assert_eq!(is_randomised(&params), Some(true));
        assert!(!fixed(&params) && !fixed(&[]));
    }

    #[test]
    fn five_levels_of_page_tables_move_both_bases() {
        let params = &[0; 4096];
        let of = |cpu, cmdline| fixed_bases(Boot { params, cpu, cmdline });
        let (four, five) = (of("flags : fpu sse\n", ""), of("flags : fpu la57 sse\n", "quiet"));
        assert_eq!(four != five, cfg!(target_arch = "x86_64"));
        assert_eq!(of("flags : fpu la57 sse\n", "quiet no5lvl"), four);
    }

    #[test]
    fn flags_are_words() {
        assert!(has_word("flags : fpu la57 sse\n", "la57") && !has_word("flags : la57x", "la57"));
    }

    /// Rust has no other way to ask for an architecture.
    #[test]
    fn nothing_is_of_one_architecture_outside_this_file() {
        fn visit(dir: &Path, found: &mut Vec<String>) {
            for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
                let path = entry.path();
                if path.is_dir() {
                    visit(&path, found);
                } else if path.extension().is_some_and(|it| it == "rs")
                    && std::fs::read_to_string(&path).unwrap().contains("target_arch")
                {
                    found.push(path.display().to_string());
                }
            }
        }
        let own = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut found = Vec::new();
        for dir in ["src", "../skbtrace-common/src", "../skbtrace-ebpf/src"] {
            visit(&own.join(dir), &mut found);
        }
        assert_eq!(found, [own.join("src/host/arch.rs").display().to_string()]);
        assert!(KNOWN.contains(&std::env::consts::ARCH), "{} is not known", std::env::consts::ARCH);
    }
}
