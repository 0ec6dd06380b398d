//! The digest of a payload: read piece by piece, wherever it lies: behind the headers, in page frags, in a frag list.
//!
//! Programs of their own, which those of the hops end in by a tail call, so that the kernel verifies them once and not once
//! per hop. TCP's payload is hardly ever in the linear part, so that nothing less than the frags will do. One flat loop walks
//! pieces and blocks alike: nested ones cost the verifier hundreds of thousands of instructions. Kernels before 5.17 have no
//! bpf_loop; the same step runs there in a loop that the verifier unrolls, as far as it goes.

use aya_ebpf::{
    helpers::generated::bpf_loop,
    macros::{kprobe, raw_tracepoint},
    programs::{ProbeContext, RawTracePointContext},
};
use skbtrace_common::{DIGEST_BLOCKS, DigestState, HopId, Level};

use crate::{
    hit::send,
    maps::{COUNTERS, SCRATCH, offset},
    packet::Scratch,
    read::{into, member, value},
};

/// Bytes that are read at a time: no block of a digest is smaller.
const CHUNK: u32 = 256;
const WORDS: usize = CHUNK as usize / 8;
/// Enough for 64 KiB in the smallest pieces that happen, and for all frags of a long frag list.
const STEPS: u32 = 2048;
/// As many as the verifier of a kernel without bpf_loop can follow: 16 KiB in large pieces.
const FEW_STEPS: u32 = 80;

const IPPROTO_TCP: u8 = 6;
const IPPROTO_UDP: u8 = 17;

/// Where the payload, or the frame, is being read.
#[repr(C)]
pub struct Walk {
    /// Aligned as the positions are: the first byte read stands at its position modulo 8.
    buffer: [u64; WORDS],
    /// Where the piece at hand goes on.
    pub address: u64,
    /// The shared info whose frags are being read.
    pub shared_info: u64,
    /// The next `sk_buff` of the frag list, or 0.
    pub list: u64,
    /// Bytes left in the piece at hand.
    pub left: u32,
    /// Bytes to pass over before the payload begins.
    pub skip: u32,
    /// Bytes still to be read.
    pub remaining: u32,
    /// Bytes from the digest's first aligned position to the next one to be read.
    place: u32,
    /// The next frag, and how many there are.
    pub frag: u32,
    /// See `frag`.
    pub frags: u32,
}

#[kprobe]
pub fn verify_probe(_ctx: ProbeContext) -> u32 {
    verify::<true, { Level::Kprobe as u32 }>();
    0
}

#[kprobe]
pub fn verify_probe_unrolled(_ctx: ProbeContext) -> u32 {
    verify::<false, { Level::Kprobe as u32 }>();
    0
}

#[raw_tracepoint]
pub fn verify_tracepoint(_ctx: RawTracePointContext) -> i32 {
    verify::<true, { Level::Softirq as u32 }>();
    0
}

#[raw_tracepoint]
pub fn verify_tracepoint_unrolled(_ctx: RawTracePointContext) -> i32 {
    verify::<false, { Level::Softirq as u32 }>();
    0
}

#[raw_tracepoint]
pub fn verify_read(_ctx: RawTracePointContext) -> i32 {
    verify::<true, { Level::Read as u32 }>();
    0
}

#[raw_tracepoint]
pub fn verify_read_unrolled(_ctx: RawTracePointContext) -> i32 {
    verify::<false, { Level::Read as u32 }>();
    0
}

/// Digests the payload of the packet in the scratch value of this level, and sends the event.
#[inline(always)]
fn verify<const LOOP: bool, const LEVEL: u32>() {
    let Some(scratch) = SCRATCH.get_ptr_mut(LEVEL) else { return };
    // SAFETY: as in `hit`, in whose place this program runs.
    let scratch = unsafe { &mut *scratch };
    let Some(counters) = COUNTERS.get_ptr_mut(u32::from(scratch.event.hop)) else { return };
    // SAFETY: likewise.
    let counters = unsafe { &mut *counters };
    begin(scratch);
    sum_headers(scratch);
    if LOOP {
        // SAFETY: the callback takes what bpf_loop gives, and needs nothing of it.
        unsafe { bpf_loop(STEPS, step_of::<LEVEL> as *mut _, core::ptr::null_mut(), 0) };
    } else {
        let mut i = 0;
        while i < FEW_STEPS {
            if step(scratch) != 0 {
                break;
            }
            i = i.wrapping_add(1);
        }
    }
    let remaining = scratch.walk.remaining;
    let digest = scratch.digest();
    digest.bytes = digest.bytes.wrapping_sub(remaining);
    if remaining != 0 && digest.state == DigestState::WHOLE {
        digest.state = DigestState::PART;
    }
    send(scratch, counters);
    scratch.release();
}

/// Finds the first piece.
#[inline(always)]
fn begin(scratch: &mut Scratch) {
    let head = scratch.u64(offset!(head));
    let shared_info = head.wrapping_add(u64::from(scratch.u32(offset!(end))));
    let mut at = scratch.found.payload;
    let mut bytes = scratch.found.bytes;
    let hop = scratch.event.hop;
    let is_read = hop == HopId::SkbCopyDatagramIter as u16 || hop == HopId::SkbCopyDatagramIovec as u16;
    if is_read && scratch.event.l4_proto == IPPROTO_TCP {
        // Others may have been appended: what is read is all that there is.
        at = (scratch.u64(offset!(data)) as u32).wrapping_sub(head as u32);
        bytes = scratch.u32(offset!(len));
    }
    let position = scratch.found.position;
    let tail = scratch.u32(offset!(tail));
    let linear = tail.wrapping_sub(at);
    let walk = &mut scratch.walk;
    walk.shared_info = shared_info;
    walk.address = head.wrapping_add(u64::from(at));
    // Headers may end behind the linear part: then the first bytes of the frags are still theirs.
    walk.left = if linear > 0xffff_0000 { 0 } else { linear };
    walk.skip = if linear > 0xffff_0000 { at.wrapping_sub(tail) } else { 0 };
    walk.remaining = bytes;
    walk.place = position & 7;
    walk.frag = 0;
    walk.frags = u32::from(member::<u8>(shared_info, offset!(nr_frags)).unwrap_or(0));
    walk.list = member(shared_info, offset!(frag_list)).unwrap_or(0);
    let digest = scratch.digest();
    digest.start = position;
    digest.bytes = bytes;
    digest.state = DigestState::WHOLE;
    let mut shift = 0;
    while shift < 9 && (bytes.wrapping_add(8) >> shift) > CHUNK * DIGEST_BLOCKS as u32 {
        shift += 1;
    }
    digest.block_shift = shift;
}

extern "C" fn step_of<const LEVEL: u32>(_index: u32, _context: *mut core::ffi::c_void) -> u64 {
    let Some(scratch) = SCRATCH.get_ptr_mut(LEVEL) else { return 1 };
    // SAFETY: as in `verify`, whose loop calls this.
    step(unsafe { &mut *scratch })
}

/// Reads the next chunk, or finds the next piece. Not 0 when there is nothing more to do.
#[inline(always)]
fn step(scratch: &mut Scratch) -> u64 {
    if scratch.walk.remaining == 0 {
        return 1;
    }
    if scratch.walk.left == 0 {
        let found = next_piece(scratch);
        if found == UNREADABLE {
            scratch.digest().state = DigestState::UNREADABLE;
        }
        // The kernel refuses a loop whose body may return anything but 0 and 1.
        return u64::from(found != 0);
    }
    let walk = &mut scratch.walk;
    let place = walk.place;
    let pad = place & 7;
    let mut size = CHUNK.wrapping_sub(place & (CHUNK - 1));
    if size > walk.left {
        size = walk.left;
    }
    if size > walk.remaining {
        size = walk.remaining;
    }
    // The first and the last word may be taken in part.
    let last = core::hint::black_box(pad.wrapping_add(size).wrapping_sub(1) >> 3) as usize & (WORDS - 1);
    walk.buffer[0] = 0;
    walk.buffer[last] = 0;
    // The compiler knows that it is no more than CHUNK; the verifier has to be shown a bound.
    let size = core::hint::black_box(size) & (CHUNK * 2 - 1);
    // SAFETY: padding and bytes together are no more than CHUNK, for the chunk ends where the next aligned one begins.
    let to = unsafe { (&raw mut walk.buffer).cast::<u8>().add(core::hint::black_box(pad) as usize & 7) };
    if !into(to, size, walk.address) {
        scratch.digest().state = DigestState::UNREADABLE;
        return 1;
    }
    let start = scratch.found.position & !7;
    let word = start.wrapping_add(place & !7) >> 3;
    let (mut weighted, mut plain) = (0u64, 0u64);
    let mut i = 0;
    while i < WORDS {
        if i > last {
            break;
        }
        let value = scratch.walk.buffer[i];
        let x = u64::from(word.wrapping_add(i as u32)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let (low, high) = (value & 0xffff_ffff, value >> 32);
        let halves = low.wrapping_add(high.wrapping_mul(0xD6E8_FEB8_6659_FD93));
        weighted = weighted.wrapping_add(halves.wrapping_mul((x ^ (x >> 32)) | 1));
        plain = plain.wrapping_add(low).wrapping_add(high);
        i += 1;
    }
    let digest = scratch.digest();
    let block = core::hint::black_box(place >> 8 >> (digest.block_shift & 15)) as usize & (DIGEST_BLOCKS - 1);
    digest.blocks[block] = digest.blocks[block].wrapping_add(weighted);
    digest.plain = digest.plain.wrapping_add(plain);
    let walk = &mut scratch.walk;
    walk.address = walk.address.wrapping_add(u64::from(size));
    walk.left = walk.left.wrapping_sub(size);
    walk.remaining = walk.remaining.wrapping_sub(size);
    walk.place = place.wrapping_add(size);
    0
}

/// What [`next_piece`] returns for a piece that has no address.
const UNREADABLE: u64 = 2;

/// The next frag, or the linear part of the next `sk_buff` of the frag list. Not 0 when there is none.
#[inline(always)]
pub fn next_piece(scratch: &mut Scratch) -> u64 {
    let walk = &mut scratch.walk;
    if walk.frag < walk.frags {
        let place = u64::from(walk.frag).wrapping_mul(u64::from(offset!(frag_size)));
        let frag = walk.shared_info.wrapping_add(u64::from(offset!(frags))).wrapping_add(place);
        walk.frag = walk.frag.wrapping_add(1);
        let page: u64 = member(frag, offset!(frag_page)).unwrap_or(0);
        let (pages, memory) = (vmemmap(), page_offset());
        // Memory of a device has no address here: its lowest bit says so.
        if page == 0 || page & 1 != 0 || pages == 0 || memory == 0 {
            return UNREADABLE;
        }
        let number = page.wrapping_sub(pages).checked_div(u64::from(offset!(page_size))).unwrap_or(0);
        let within: u32 = member(frag, offset!(frag_offset)).unwrap_or(0);
        walk.address = memory.wrapping_add(number << 12).wrapping_add(u64::from(within));
        walk.left = member(frag, offset!(frag_len)).unwrap_or(0);
    } else if walk.list != 0 {
        let skb = walk.list;
        let next = member(skb, offset!(next)).unwrap_or(0);
        let head: u64 = member(skb, offset!(head)).unwrap_or(0);
        let end: u32 = member(skb, offset!(end)).unwrap_or(0);
        let len: u32 = member(skb, offset!(len)).unwrap_or(0);
        let data_len: u32 = member(skb, offset!(data_len)).unwrap_or(0);
        walk.address = member(skb, offset!(data)).unwrap_or(0);
        walk.left = len.wrapping_sub(data_len);
        walk.shared_info = head.wrapping_add(u64::from(end));
        walk.frag = 0;
        walk.frags = u32::from(member::<u8>(walk.shared_info, offset!(nr_frags)).unwrap_or(0));
        walk.list = next;
    } else {
        return 1;
    }
    let skip = if walk.skip < walk.left { walk.skip } else { walk.left };
    walk.skip = walk.skip.wrapping_sub(skip);
    walk.left = walk.left.wrapping_sub(skip);
    walk.address = walk.address.wrapping_add(u64::from(skip));
    0
}

/// Where the array of `struct page` begins; 0 when that is not known.
#[inline(always)]
fn vmemmap() -> u64 {
    match offset!(vmemmap_base) {
        0 => offset!(vmemmap),
        address => value(address).unwrap_or(0),
    }
}

/// Where the kernel has all memory mapped; likewise.
#[inline(always)]
fn page_offset() -> u64 {
    match offset!(page_offset_base) {
        0 => offset!(page_offset),
        address => value(address).unwrap_or(0),
    }
}

/// Sums up the headers that were read.
#[inline(always)]
fn sum_headers(scratch: &mut Scratch) {
    let (l3, l3_len) = (scratch.found.l3, scratch.found.l3_len);
    let (l4, l4_len) = (scratch.found.l4, scratch.found.l4_len);
    let l3_sum = sum(scratch, l3, l3_len);
    let l4_sum = sum(scratch, l4, l4_len);
    let checksum = match scratch.event.l4_proto {
        IPPROTO_TCP => 16,
        IPPROTO_UDP => 6,
        _ => 2,
    };
    let checksum = if l4_len == 0 { 0 } else { scratch.be16(l4.wrapping_add(checksum)) };
    let digest = scratch.digest();
    digest.l3_header = l3_sum;
    digest.l4_header = l4_sum;
    digest.l4_header_len = l4_len as u8;
    digest.checksum = checksum;
}

/// The 16-bit words of a header of at most 60 bytes.
#[inline(always)]
fn sum(scratch: &Scratch, at: u32, len: u32) -> u32 {
    let mut total = 0u32;
    let mut i = 0;
    while i < 30 {
        if i << 1 >= len {
            break;
        }
        let word: u16 = scratch.header(core::hint::black_box(at.wrapping_add(i << 1)));
        total = total.wrapping_add(u32::from(word));
        i = i.wrapping_add(1);
    }
    total
}
