//! From a `struct page` to the memory that it stands for: two bases, which most kernels randomise.
//!
//! TCP's payload lies in page frags, so that without these no payload is compared. A wrong base would make garbage of every
//! payload, so that a base that is not known for certain is none: then frags are not read, and the verdicts say so.

use std::fs;

use super::{Host, arch};

/// A base of the memory layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// The kernel has a variable for it, at this address.
    Variable(u64),
    /// It is here.
    Fixed(u64),
    /// Nobody says.
    Unknown,
}

impl Base {
    /// Address of the kernel's variable, or 0.
    #[must_use]
    pub fn address(self) -> u64 {
        if let Base::Variable(address) = self { address } else { 0 }
    }

    /// The base itself, where it is known beforehand, or 0.
    #[must_use]
    pub fn value(self) -> u64 {
        if let Base::Fixed(value) = self { value } else { 0 }
    }
}

/// Both bases, and how they came to be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pages {
    /// Of the array of `struct page`.
    pub vmemmap: Base,
    /// Of the mapping of all memory.
    pub page_offset: Base,
    /// Where that is from, in a few words; `None`: from nowhere.
    pub source: Option<&'static str>,
}

impl Pages {
    /// Those of the running kernel: from its variables where /proc/kallsyms shows data (CONFIG_KALLSYMS_ALL), else the
    /// architecture's constants if this kernel was not started with a randomised layout.
    #[must_use]
    pub fn of(host: &Host) -> Pages {
        let variables = host.symbols.data("vmemmap_base").zip(host.symbols.data("page_offset_base"));
        if let Some((vmemmap, page_offset)) = variables {
            let [vmemmap, page_offset] = [vmemmap, page_offset].map(Base::Variable);
            return Pages { vmemmap, page_offset, source: Some("the kernel's variables") };
        }
        let unknown = Pages { vmemmap: Base::Unknown, page_offset: Base::Unknown, source: None };
        let boot_params = fs::read("/sys/kernel/boot_params/data").unwrap_or_default();
        if arch::is_randomised(&boot_params) != Some(false) {
            return unknown;
        }
        let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let cmdline = fs::read_to_string("/proc/cmdline").unwrap_or_default();
        let five_levels = has_word(&cpu, "la57") && !has_word(&cmdline, "no5lvl");
        match arch::fixed_bases(five_levels) {
            Some(bases) => Pages {
                vmemmap: Base::Fixed(bases.vmemmap),
                page_offset: Base::Fixed(bases.page_offset),
                source: Some("constants, for the boot parameters say that nothing is randomised"),
            },
            None => unknown,
        }
    }
}

fn has_word(text: &str, word: &str) -> bool {
    text.split_ascii_whitespace().any(|found| found == word)
}

#[cfg(test)]
mod tests {
    use super::has_word;
    use crate::host::arch::{fixed_bases, is_randomised};

    #[test]
    fn a_layout_counts_as_fixed_only_if_the_boot_parameters_say_so() {
        let mut boot_params = vec![0; 4096];
        assert_eq!(is_randomised(&boot_params), cfg!(target_arch = "x86_64").then_some(false));
        boot_params[0x211] = 0x83;
        assert_eq!(is_randomised(&boot_params), cfg!(target_arch = "x86_64").then_some(true));
        assert_eq!(is_randomised(&[]), None);
    }

    #[test]
    fn five_levels_of_page_tables_move_both_bases() {
        assert_eq!(fixed_bases(false).is_some(), cfg!(target_arch = "x86_64"));
        assert_ne!(fixed_bases(false), fixed_bases(true).filter(|_| cfg!(target_arch = "x86_64")));
    }

    #[test]
    fn flags_are_words() {
        assert!(has_word("flags : fpu la57 sse\n", "la57") && !has_word("flags : la57x", "la57"));
    }
}
