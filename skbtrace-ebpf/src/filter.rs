//! The user's expression: asked of a packet that nobody follows yet, once everything else wants it.
//!
//! An expression is a program of its own, which user space translates from what libpcap compiles. It reads a window: the packet's
//! first bytes in one piece, from the linear area and from the frags, as a wire would have them. A run without an expression loads
//! none of this. Whoever follows a packet goes on here in three programs, one after the other: the bytes are copied, the
//! expression looks at them, and the answer is heard, which goes on where the first one stopped: all that it found is in the
//! scratch value.
//!
//! What is made of a packet that is followed is not asked: address translation may have been between the two.

use aya_ebpf::{
    bindings::BPF_ANY,
    macros::{kprobe, raw_tracepoint},
    programs::{ProbeContext, RawTracePointContext},
};
use skbtrace_common::{Bits, Event, EventFlags, HopId, Level, Stage, WINDOW_BYTES, Window};

use crate::{
    headers::ETH_P_IPV6,
    hit::{Args, admitted, go_on},
    identify::{Verdict, Way, begin_packet, is_newborn, refuse},
    maps::{COUNTERS, FILTER_KIN, FILTER_WINDOWS, SCRATCH, hop_args, offset, reach, tracked},
    packet::{ETHERNET, Scratch},
    payload::next_piece,
    read::{into, member},
};

/// Two for each piece, as for a frame.
const STEPS: u32 = 38;
/// A `mac_header` that is not set.
const UNSET: u32 = 0xffff;
/// Bytes of an Ethernet header before its type, and of a tag.
const ADDRESSES: u32 = 12;
const TAG: u32 = 4;
/// A cut may have so many parts when nothing says how many.
const PARTS: u32 = 64;

#[kprobe]
pub fn ask_probe(ctx: ProbeContext) -> u32 {
    ask::<_, { Level::Kprobe as u32 }>(&ctx);
    0
}

#[raw_tracepoint]
pub fn ask_softirq(ctx: RawTracePointContext) -> i32 {
    ask::<_, { Level::Softirq as u32 }>(&ctx);
    0
}

#[raw_tracepoint]
pub fn ask_read(ctx: RawTracePointContext) -> i32 {
    ask::<_, { Level::Read as u32 }>(&ctx);
    0
}

#[kprobe]
pub fn answer_probe(ctx: ProbeContext) -> u32 {
    answer::<_, { Level::Kprobe as u32 }>(&ctx);
    0
}

#[raw_tracepoint]
pub fn answer_softirq(ctx: RawTracePointContext) -> i32 {
    answer::<_, { Level::Softirq as u32 }>(&ctx);
    0
}

#[raw_tracepoint]
pub fn answer_read(ctx: RawTracePointContext) -> i32 {
    answer::<_, { Level::Read as u32 }>(&ctx);
    0
}

/// Copies the first bytes of the packet in the scratch value of this level into its window, and goes on in the expression.
#[inline(always)]
fn ask<A: Args, const LEVEL: u32>(args: &A) {
    let Some(scratch) = SCRATCH.get_ptr_mut(LEVEL) else { return };
    let Some(window) = FILTER_WINDOWS.get_ptr_mut(LEVEL) else { return };
    // SAFETY: as in `hit`, in whose place this program runs; a window is used with the scratch value of its level.
    let (scratch, window) = unsafe { (&mut *scratch, &mut *window) };
    window.verdict = 0;
    window.copied = 0;
    let (start, link) = begins(scratch);
    let linear = scratch.u32(offset!(tail)).wrapping_sub(start);
    if start != 0 && linear <= 0xffff {
        window.len = linear.wrapping_add(scratch.u32(offset!(data_len)));
        begin(scratch, start, linear);
        if link {
            put_tag(scratch, window);
        }
        let mut i = 0;
        while i < STEPS {
            if step(scratch, window) != 0 {
                break;
            }
            i = i.wrapping_add(1);
        }
        let stage = if link { Stage::Link } else { Stage::Network };
        // An expression that asks for an Ethernet header is no program where there is none.
        go_on(args, A::FILTER, stage.place(LEVEL));
    }
    go_on(args, A::FILTER, Stage::Answer.place(LEVEL));
    scratch.release();
}

/// Where the packet begins, from `skb->head`, and whether with an Ethernet header. 0: nobody knows.
#[inline(always)]
fn begins(scratch: &Scratch) -> (u32, bool) {
    let network = u32::from(scratch.u16(offset!(network_header)));
    let mac = u32::from(scratch.u16(offset!(mac_header)));
    let data = (scratch.u64(offset!(data)) as u32).wrapping_sub(scratch.u64(offset!(head)) as u32);
    if mac != UNSET && (network == 0 || is_ethernet(network.wrapping_sub(mac))) {
        (mac, true)
    } else if mac == UNSET && network != 0 && is_ethernet(network.wrapping_sub(data)) {
        // It has just been pushed: who sends the packet sets `mac_header` later.
        (data, true)
    } else {
        (network, false)
    }
}

/// Whether an Ethernet header is so long, with up to two tags.
#[inline(always)]
fn is_ethernet(length: u32) -> bool {
    length == ETHERNET || length == ETHERNET + TAG || length == ETHERNET + 2 * TAG
}

/// The linear area is the first piece.
#[inline(always)]
fn begin(scratch: &mut Scratch, start: u32, linear: u32) {
    let head = scratch.u64(offset!(head));
    let shared_info = head.wrapping_add(u64::from(scratch.u32(offset!(end))));
    let walk = &mut scratch.walk;
    walk.shared_info = shared_info;
    walk.address = head.wrapping_add(u64::from(start));
    walk.left = linear;
    walk.skip = 0;
    walk.remaining = u32::from(reach());
    walk.frag = 0;
    walk.frags = u32::from(member::<u8>(shared_info, offset!(nr_frags)).unwrap_or(0));
    walk.list = member(shared_info, offset!(frag_list)).unwrap_or(0);
}

/// A tag that the kernel keeps apart from the packet goes to where it is on a wire, and the addresses before it.
#[inline(always)]
fn put_tag(scratch: &mut Scratch, window: &mut Window) {
    let present: Bits = offset!(vlan_present);
    let tci = scratch.u16(offset!(vlan_tci));
    let protocol = scratch.u16(offset!(vlan_proto));
    // Where no bit says so, a tag is there when it has a protocol.
    let tagged = if present.mask == 0 { protocol != 0 } else { scratch.bits(present) != 0 };
    if !tagged || scratch.walk.left < ADDRESSES {
        return;
    }
    if !into(&raw mut window.bytes, ADDRESSES, scratch.walk.address) {
        return;
    }
    let [p0, p1] = protocol.to_ne_bytes();
    let [t0, t1] = tci.to_be_bytes();
    window.bytes[12] = p0;
    window.bytes[13] = p1;
    window.bytes[14] = t0;
    window.bytes[15] = t1;
    window.copied = ADDRESSES + TAG;
    window.len = window.len.wrapping_add(TAG);
    let walk = &mut scratch.walk;
    walk.address = walk.address.wrapping_add(u64::from(ADDRESSES));
    walk.left = walk.left.wrapping_sub(ADDRESSES);
    walk.remaining = walk.remaining.saturating_sub(ADDRESSES + TAG);
}

/// Copies what is wanted of the piece at hand, or finds the next one. Not 0 when there is nothing more to do.
#[inline(always)]
fn step(scratch: &mut Scratch, window: &mut Window) -> u64 {
    if scratch.walk.remaining == 0 {
        return 1;
    }
    if scratch.walk.left == 0 {
        return next_piece(scratch);
    }
    let walk = &mut scratch.walk;
    let mut size = walk.left;
    if size > walk.remaining {
        size = walk.remaining;
    }
    if size > WINDOW_BYTES as u32 - 1 {
        size = WINDOW_BYTES as u32 - 1;
    }
    // The verifier has to be shown bounds.
    let at = core::hint::black_box(u64::from(window.copied)) & (WINDOW_BYTES as u64 - 1);
    let shown = core::hint::black_box(size) & (WINDOW_BYTES as u32 - 1);
    // SAFETY: two masked numbers are within the bytes, which are twice as many.
    let to = unsafe { (&raw mut window.bytes).cast::<u8>().add(at as usize) };
    if !into(to, shown, walk.address) {
        return 1;
    }
    window.copied = window.copied.wrapping_add(size);
    walk.address = walk.address.wrapping_add(u64::from(size));
    walk.left = walk.left.wrapping_sub(size);
    walk.remaining = walk.remaining.wrapping_sub(size);
    0
}

/// Hears the answer, and goes on with the packet or leaves it.
#[inline(always)]
fn answer<A: Args, const LEVEL: u32>(args: &A) {
    let Some(scratch) = SCRATCH.get_ptr_mut(LEVEL) else { return };
    let Some(window) = FILTER_WINDOWS.get_ptr_mut(LEVEL) else { return };
    // SAFETY: as in `ask`.
    let (scratch, window) = unsafe { (&mut *scratch, &mut *window) };
    let Some(counters) = COUNTERS.get_ptr_mut(scratch.hit.hop) else { return };
    // SAFETY: as in `hit`.
    let counters = unsafe { &mut *counters };
    let plan = hop_args(scratch.hit.hop);
    // An older packet of this address: one that was followed would not have been asked.
    let older = tracked(scratch.hit.skb);
    let verdict = if window.verdict == 0 {
        refuse(older)
    } else {
        let (newborn, way) = (is_newborn(scratch, &plan), Way::of(scratch.hit.hop));
        begin_packet(LEVEL, scratch, &plan, scratch.hit.skb, older.is_some(), (newborn, way))
    };
    admitted::<A, LEVEL>(args, scratch, counters, &plan, verdict);
    scratch.release();
}

/// What packets that were made of a followed one, by being cloned, copied or cut, have in common with it.
#[repr(C)]
pub struct KinKey {
    saddr: [u8; 16],
    daddr: [u8; 16],
    /// 0 for fragments: all but the first have no ports.
    sport: u16,
    /// As `sport`.
    dport: u16,
    /// 0 for segments, of which each has its own, and for fragments of IPv6, which get one by being cut.
    ip_id: u16,
    l4_proto: u8,
    what: u8,
}

/// Who may still come of it.
#[repr(C)]
pub struct Kin {
    seq: u32,
    /// Payload, and of fragments what has not come yet.
    bytes: u32,
    /// So many packets.
    left: u32,
}

/// Values of [`KinKey::what`].
const COPIED: u8 = 0;
const SEGMENTED: u8 = 1;
const FRAGMENTED: u8 = 2;

impl KinKey {
    #[inline(always)]
    fn new(event: &Event, what: u8) -> KinKey {
        let mut key = KinKey {
            saddr: event.saddr,
            daddr: event.daddr,
            sport: event.sport,
            dport: event.dport,
            ip_id: event.ip_id,
            l4_proto: event.l4_proto,
            what,
        };
        if what == SEGMENTED || what == FRAGMENTED && event.ethertype == ETH_P_IPV6 {
            key.ip_id = 0;
        }
        if what == FRAGMENTED {
            key.sport = 0;
            key.dport = 0;
        }
        key
    }
}

/// Keeps what a followed packet is where it is cloned, copied or cut: what is made of it may be seen next on another CPU.
#[inline(always)]
pub fn note_kin(event: &Event) {
    let hop = u32::from(event.hop);
    let what = if hop == HopId::SkbClone as u32 || hop == HopId::SkbCopy as u32 {
        COPIED
    } else if hop == HopId::SkbSegment as u32 {
        SEGMENTED
    } else if hop == HopId::IpDoFragment as u32 || hop == HopId::Ip6Fragment as u32 {
        FRAGMENTED
    } else {
        return;
    };
    let parts = if event.gso_segs == 0 { PARTS } else { u32::from(event.gso_segs) };
    let left = if what == COPIED { 1 } else { parts };
    let kin = Kin { seq: event.seq, bytes: event.payload_len, left };
    // Where there is no room, its kin are asked like all others.
    let _ = FILTER_KIN.insert(KinKey::new(event, what), kin, u64::from(BPF_ANY));
}

/// Whether the packet was made of one that is followed.
#[inline(always)]
pub fn is_kin(event: &Event) -> bool {
    if event.flags & EventFlags::L3 == 0 {
        return false;
    }
    let is_part = event.flags & (EventFlags::FRAGMENT | EventFlags::MORE_FRAGMENTS) != 0;
    is_kin_as(event, COPIED) || is_kin_as(event, if is_part { FRAGMENTED } else { SEGMENTED })
}

#[inline(always)]
fn is_kin_as(event: &Event, what: u8) -> bool {
    let Some(kin) = FILTER_KIN.get_ptr_mut(KinKey::new(event, what)) else { return false };
    // SAFETY: the value stays readable for the length of this program. Where two CPUs count at once, one more is taken for kin.
    let kin = unsafe { &mut *kin };
    let ahead = event.seq.wrapping_sub(kin.seq);
    // Of UDP both are 0.
    let is_kin = match what {
        COPIED => ahead == 0,
        SEGMENTED => ahead <= kin.bytes,
        _ => kin.bytes != 0,
    };
    if kin.left == 0 || !is_kin {
        return false;
    }
    kin.left = kin.left.wrapping_sub(1);
    if what == FRAGMENTED {
        kin.bytes = kin.bytes.saturating_sub(event.payload_len);
    }
    true
}
