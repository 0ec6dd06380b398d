//! From a `struct page` to the memory that it stands for: two bases, which most kernels randomise.
//!
//! TCP's payload lies in page frags, so that without these no payload is compared. A wrong base would make garbage of every
//! payload, so that a base that is not known for certain is none: then frags are not read, and the verdicts say so.

use std::fs;

use rustix::param::page_size;

use super::{
    Host,
    arch::{self, Bases, Boot},
    kcore,
};

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
    /// Bytes of that array for each 4 KiB of memory, which is what the kernel side counts in: the size of a `struct page`, where
    /// pages have 4 KiB.
    pub array_bytes: u32,
    /// Where that is from, in a few words; `None`: from nowhere.
    pub source: Option<&'static str>,
}

impl Pages {
    /// Those of the running kernel: from its variables where /proc/kallsyms shows data (CONFIG_KALLSYMS_ALL), else from
    /// the segments of /proc/kcore, else the architecture's constants if this kernel was not started with a randomised layout.
    #[must_use]
    pub fn of(host: &Host) -> Pages {
        let size = host.btf.size("page", None);
        let Some((size, array_bytes)) = size.and_then(|size| Some((size, array_bytes(size, page_size())?))) else {
            return Pages { vmemmap: Base::Unknown, page_offset: Base::Unknown, array_bytes: 0, source: None };
        };
        let variables = host.symbols.data("vmemmap_base").zip(host.symbols.data("page_offset_base"));
        if let Some((vmemmap, page_offset)) = variables {
            let [vmemmap, page_offset] = [vmemmap, page_offset].map(Base::Variable);
            return Pages { vmemmap, page_offset, array_bytes, source: Some("the kernel's variables") };
        }
        let listed = kcore::segments().ok().and_then(|segments| kcore::bases(&segments, u64::from(size)));
        let (bases, source) = match listed {
            Some(bases) => (Some(bases), "the segments of /proc/kcore"),
            None => (fixed_bases(), "constants, for the boot parameters say that nothing is randomised"),
        };
        let base = |of: fn(Bases) -> u64| bases.map_or(Base::Unknown, |bases| Base::Fixed(of(bases)));
        Pages {
            vmemmap: base(|bases| bases.vmemmap),
            page_offset: base(|bases| bases.page_offset),
            array_bytes,
            source: bases.map(|_| source),
        }
    }
}

fn fixed_bases() -> Option<Bases> {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let params = fs::read("/sys/kernel/boot_params/data").unwrap_or_default();
    arch::fixed_bases(Boot { params: &params, cpu: &read("/proc/cpuinfo"), cmdline: &read("/proc/cmdline") })
}

/// See [`Pages::array_bytes`]; `None` where it is no whole number.
fn array_bytes(page: u32, page_size: usize) -> Option<u32> {
    let times = u32::try_from(page_size / 4096).ok().filter(|times| *times > 0)?;
    page.is_multiple_of(times).then_some(page / times)
}

#[cfg(test)]
mod tests {
    use super::array_bytes;

    #[test]
    fn large_pages_are_counted_in_small_ones() {
        assert_eq!(array_bytes(64, 4096), Some(64));
        assert_eq!(array_bytes(64, 65_536), Some(4));
        // As the kernel side does it: page 3 of 64 KiB begins at 3 × 64 KiB.
        assert_eq!((3 * 64 / 4) << 12, 3 * 65_536);
        assert_eq!(array_bytes(56, 65_536), None);
    }
}
