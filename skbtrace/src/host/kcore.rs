//! The memory layout by the program headers of /proc/kcore: where the variables that hold it are hidden, and on architectures that
//! have none.
//!
//! Of each range of memory the kernel lists two segments there (fs/proc/kcore.c): the memory itself, with its physical address,
//! and the part of the array of `struct page` that describes it, cut to whole pages. The second is not marked as what it is.
//! It is known by its size, which follows from the first's: what fits a large range exactly is taken for it, and nothing where two
//! segments do, or where another range's structs would then be at no segment.

use std::{fs::File, io, os::unix::fs::FileExt as _};

use object::{
    Endianness,
    elf::{FileHeader64, PT_LOAD, ProgramHeader64},
    read::elf::{FileHeader as _, ProgramHeader as _},
};

use super::arch::Bases;

/// The physical address of what is no memory of its own.
const NO_ADDRESS: u64 = u64::MAX;
/// The array is looked for by ranges of memory that have so many bytes at least.
const LARGE: u64 = 16 << 20;

/// A segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    /// Where it is mapped.
    address: u64,
    /// Where in physical memory; [`NO_ADDRESS`] where that is not told.
    physical: u64,
    /// Its bytes.
    size: u64,
    /// The size of a page.
    page: u64,
}

/// Those of the running kernel. It takes CAP_SYS_RAWIO, and no lockdown for confidentiality.
///
/// # Errors
/// Where the file is not there, closed, or not what it should be.
pub(super) fn segments() -> io::Result<Vec<Segment>> {
    let file = File::open("/proc/kcore")?;
    // All headers lie together at the file's beginning, and nothing else need be read of the kernel's memory.
    let mut bytes = vec![0; size_of::<FileHeader64<Endianness>>()];
    file.read_exact_at(&mut bytes, 0)?;
    let size = headers_size(&bytes).ok_or(io::ErrorKind::InvalidData)?;
    bytes.resize(size, 0);
    file.read_exact_at(&mut bytes, 0)?;
    parse(&bytes).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// The size of all headers, by the first.
fn headers_size(bytes: &[u8]) -> Option<usize> {
    let header = FileHeader64::<Endianness>::parse(bytes).ok()?;
    let endian = header.endian().ok()?;
    let all = usize::from(header.e_phnum(endian)) * size_of::<ProgramHeader64<Endianness>>();
    usize::try_from(header.e_phoff(endian)).ok()?.checked_add(all).filter(|size| *size < 1 << 24)
}

fn parse(bytes: &[u8]) -> Option<Vec<Segment>> {
    let header = FileHeader64::<Endianness>::parse(bytes).ok()?;
    let endian = header.endian().ok()?;
    let all = header.program_headers(endian, bytes).ok()?;
    let loaded = all.iter().filter(|it| it.p_type(endian) == PT_LOAD);
    let segment = |it: &ProgramHeader64<Endianness>| Segment {
        address: it.p_vaddr(endian),
        physical: it.p_paddr(endian),
        size: it.p_memsz(endian),
        page: it.p_align(endian),
    };
    Some(loaded.map(segment).collect())
}

/// The bases by these segments, where a `struct page` has so many bytes; `None` where they do not tell for certain.
pub(super) fn bases(segments: &[Segment], page_struct: u64) -> Option<Bases> {
    // Of a small range the part could be as large as something else.
    let mut memory: Vec<_> = segments.iter().filter(|it| it.physical != NO_ADDRESS && it.size >= LARGE).collect();
    memory.sort_by_key(|it| std::cmp::Reverse(it.size));
    // A range that begins in a page of structs that is listed before has none, and another's may be as large.
    let mut arrays = memory.iter().filter_map(|it| array(segments, it, page_struct));
    let vmemmap = arrays.find(|array| describes_all(segments, *array, page_struct))?;
    // The kernel's own text is listed too, at another distance; it is never the largest, for it lies in memory.
    let largest = memory.first()?;
    Some(Bases { vmemmap, page_offset: largest.address.wrapping_sub(largest.physical) })
}

/// Where the array of `struct page` begins, by the only segment that is as large as the part of it that describes this memory.
fn array(segments: &[Segment], memory: &Segment, page_struct: u64) -> Option<u64> {
    let page = Some(memory.page).filter(|page| page.is_power_of_two())?;
    let begin = (memory.physical / page).checked_mul(page_struct)?;
    let end = begin.checked_add((memory.size / page).checked_mul(page_struct)?)?;
    let (begin, end) = (begin & !(page - 1), end.checked_next_multiple_of(page)?);
    let mut parts = segments.iter().filter(|it| it.physical == NO_ADDRESS && it.size == end - begin);
    let (part, second) = (parts.next()?, parts.next());
    second.is_none().then(|| part.address.wrapping_sub(begin))
}

/// Whether every range of memory has its first struct in a segment, if the array of `struct page` begins here.
fn describes_all(segments: &[Segment], array: u64, page_struct: u64) -> bool {
    let (memory, others): (Vec<&Segment>, Vec<&Segment>) = segments.iter().partition(|it| it.physical != NO_ADDRESS);
    memory.iter().all(|range| {
        let first =
            (range.physical / range.page.max(1)).checked_mul(page_struct).map(|offset| array.wrapping_add(offset));
        first.is_some_and(|first| others.iter().any(|it| first.wrapping_sub(it.address) < it.size))
    })
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::{Bases, LARGE, NO_ADDRESS, Segment, bases, headers_size, parse};

    /// All headers of a machine with 2 GiB.
    const X86: &[u8] = include_bytes!("recorded/kcore-6.1-x86_64.elf");
    /// The same of one with 4 GiB, some of them above the addresses of devices.
    const TWO_RANGES: &[u8] = include_bytes!("recorded/kcore-6.12-x86_64.elf");
    /// What the variables of the first kernel held.
    const RIGHT: Bases = Bases { vmemmap: 0xffff_f54f_0000_0000, page_offset: 0xffff_8ed4_c000_0000 };

    #[test]
    fn recorded_headers_tell_what_the_variables_told() {
        assert_eq!(headers_size(&X86[..64]), Some(X86.len()));
        assert_eq!(bases(&parse(X86).unwrap(), 64), Some(RIGHT));
        let right = Bases { vmemmap: 0xffff_fc14_8000_0000, page_offset: 0xffff_8cb7_c000_0000 };
        assert_eq!(bases(&parse(TWO_RANGES).unwrap(), 64), Some(right));
        // Were a struct larger, nothing would fit.
        assert_eq!(bases(&parse(X86).unwrap(), 56), None);
        assert_eq!(parse(&X86[..X86.len() - 1]), None);
        assert_eq!(parse(b"not an ELF file"), None);
    }

    #[test]
    fn what_could_be_two_things_is_none() {
        let mut segments = parse(X86).unwrap();
        let part = *segments.iter().find(|it| it.address == RIGHT.vmemmap + 0x4000).unwrap();
        segments.push(Segment { address: 0xffff_c000_0000_0000, ..part });
        assert_eq!(bases(&segments, 64), None);
        segments.retain(|it| it.size != part.size);
        assert_eq!(bases(&segments, 64), None);
    }

    /// What the kernel lists of these ranges of memory, given by first page and number of pages (get_sparsemem_vmemmap_info in
    /// fs/proc/kcore.c), between what it lists of other things.
    fn listed(memory: &[(u64, u64)], is: Bases, page: u64, page_struct: u64) -> Vec<Segment> {
        let other = |address, size| Segment { address, physical: NO_ADDRESS, size, page };
        let mut all = vec![other(0xffff_c900_0000_0000, 1 << 45), other(0xffff_ffff_ff60_0000, 4096)];
        let mut parts: Vec<Segment> = Vec::new();
        for (first, pages) in memory {
            let (physical, size) = (first * page, pages * page);
            all.push(Segment { address: is.page_offset.wrapping_add(physical), physical, size, page });
            let begin = is.vmemmap.wrapping_add(first * page_struct) & !(page - 1);
            let end = is.vmemmap.wrapping_add((first + pages) * page_struct).next_multiple_of(page);
            let cut = parts.iter().filter(|it| begin < it.address + it.size && end > it.address).map(|it| it.address);
            let end = cut.fold(end, u64::min);
            if begin < end {
                parts.push(other(begin, end - begin));
            }
        }
        all.extend(parts);
        all
    }

    #[test]
    fn large_pages_and_a_physical_memory_that_begins_late_are_no_hindrance() {
        // As on arm64: the mapping begins where memory does, so that the bases are below what is mapped, or wrap.
        let first = 0x8000_0000 / 65_536;
        let is = Bases {
            vmemmap: 0xffff_ffbf_f000_0000_u64.wrapping_sub(first * 64),
            page_offset: 0xfff0_0000_0000_0000_u64.wrapping_sub(0x8000_0000),
        };
        assert_eq!(bases(&listed(&[(first, 0x4000)], is, 65_536, 64), 64), Some(is));
    }

    #[test]
    fn a_range_whose_structs_are_listed_with_anothers_is_not_taken_for_one_as_large() {
        let is = Bases { vmemmap: 0xffff_ea00_0000_0000, page_offset: 0xffff_8880_0000_0000 };
        // The last begins where the one before it ends, amid a page of structs, and as many pages describe it as the first.
        let memory = [(852, 191_709), (193_676, 42_551), (236_757, 2860), (239_617, 192_512)];
        assert_eq!(bases(&listed(&memory, is, 65_536, 64), 64), Some(is));
    }

    proptest! {
        #[test]
        fn what_is_said_is_right(
            gaps in vec((0_u64..5000, 1_u64..200_000), 1..6),
            page in prop::sample::select(vec![4096_u64, 16_384, 65_536]),
            page_struct in prop::sample::select(vec![56_u64, 64, 80]),
        ) {
            let is = Bases { vmemmap: 0xffff_ea00_0000_0000, page_offset: 0xffff_8880_0000_0000 };
            let mut at = 1;
            let mut memory = Vec::new();
            for (gap, pages) in gaps {
                memory.push((at + gap, pages));
                at += gap + pages;
            }
            let said = bases(&listed(&memory, is, page, page_struct), page_struct);
            prop_assert!(said.is_none_or(|said| said == is), "{said:x?}");
            // The first range shares its structs' page with none before it.
            let alone = bases(&listed(&memory[..1], is, page, page_struct), page_struct);
            prop_assert_eq!(alone, (memory[0].1 * page >= LARGE).then_some(is));
        }
    }
}
