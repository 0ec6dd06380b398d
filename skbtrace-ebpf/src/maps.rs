//! What the kernel side shares with user space: maps, and the globals that user space fills before the load.

use core::ptr::NonNull;

use aya_ebpf::{
    macros::map,
    maps::{Array, HashMap, LruHashMap, PerCpuArray, ProgramArray, RingBuf},
};
use skbtrace_common::{AddrKey, Counters, DeviceKey, Filter, HOP_COUNT, HopArgs, LEVELS, Offsets, STAGE_COUNT, Window};

use crate::{
    filter::{Kin, KinKey},
    packet::Scratch,
};

/// A packet that is being followed: the value under its `sk_buff`'s address.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Track {
    /// The packet's id.
    pub id: u64,
    /// Number of the next hop.
    pub step: u32,
    /// 1 from the first hop of a packet that is being sent until it has a device.
    pub unsent: u8,
    /// 1 from where it begins to become another packet until its old self is freed.
    pub morphing: u8,
    /// 1 from where tracepoints see it handed to a device until they see it received.
    pub outbound: u16,
    /// Bytes that a process has copied out of it, as the tracepoint tells.
    pub copied: u32,
    /// Inode of the network namespace in which tracepoints saw it last.
    pub netns: u32,
}

/// Events on their way to user space. The size is set at load.
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(4 << 20, 0);

/// `sk_buff` address → the packet being followed.
#[map]
pub static TRACKED: HashMap<u64, Track> = HashMap::with_max_entries(65_536, 0);

/// A packet that may be followed. The value stays readable for the length of the program even when another CPU removes it.
///
/// An `Option` of a bare pointer would keep the pointer apart from whether there is one, undefined where there is none, and before
/// 6.3 the verifier refuses a program that moves such a value about.
pub type Tracked = Option<NonNull<Track>>;

/// The packet that is followed under this address.
#[inline(always)]
pub fn tracked(address: u64) -> Tracked {
    TRACKED.get_ptr_mut(address).and_then(NonNull::new)
}

/// `sock` address → the packet that TCP is making there, until the clone that is sent is seen.
#[map]
pub static PENDING: LruHashMap<u64, Track> = LruHashMap::with_max_entries(4096, 0);

/// The devices of the segment. Empty until every hop is attached: nothing is followed from the middle.
#[map]
pub static DEVICES: HashMap<DeviceKey, u32> = HashMap::with_max_entries(16_384, 0);

/// The addresses of the segment.
#[map]
pub static ADDRS: HashMap<AddrKey, u8> = HashMap::with_max_entries(16_384, 0);

/// What became of the hits of each hop.
#[map]
pub static COUNTERS: PerCpuArray<Counters> = PerCpuArray::with_max_entries(HOP_COUNT as u32, 0);

/// Address of the kernel's `kprobe` of each hop, from user space; and how many hits the kernel says that it missed.
#[map]
pub static PROBES: Array<u64> = Array::with_max_entries(HOP_COUNT as u32, 0);
#[map]
pub static MISSES: Array<u64> = Array::with_max_entries(HOP_COUNT as u32, 0);

/// The programs that follow a packet, for kprobes and, by [`Level`], for tracepoints: what the program of each hop goes on in.
#[map]
pub static FOLLOW_PROBE: ProgramArray = ProgramArray::with_max_entries(LEVELS, 0);
#[map]
pub static FOLLOW_TRACEPOINT: ProgramArray = ProgramArray::with_max_entries(LEVELS, 0);

/// The programs that digest payloads, for kprobes and, by `Level`, for tracepoints; empty when nobody wants digests.
#[map]
pub static VERIFY_PROBE: ProgramArray = ProgramArray::with_max_entries(1, 0);
#[map]
pub static VERIFY_TRACEPOINT: ProgramArray = ProgramArray::with_max_entries(LEVELS, 0);

/// The programs that copy a packet's bytes behind its linear area, by `Level`; empty when nobody wants bytes.
#[map]
pub static COPY_PROBE: ProgramArray = ProgramArray::with_max_entries(LEVELS, 0);
#[map]
pub static COPY_TRACEPOINT: ProgramArray = ProgramArray::with_max_entries(LEVELS, 0);

/// The programs that ask the user's expression, by [`Stage`](skbtrace_common::Stage) and `Level`; empty when there is none.
#[map]
pub static FILTER_PROBE: ProgramArray = ProgramArray::with_max_entries(STAGE_COUNT, 0);
#[map]
pub static FILTER_TRACEPOINT: ProgramArray = ProgramArray::with_max_entries(STAGE_COUNT, 0);

/// What the user's expression looks at, by `Level`.
#[map]
pub static FILTER_WINDOWS: PerCpuArray<Window> = PerCpuArray::with_max_entries(LEVELS, 0);

/// What was last cloned, copied or cut of what is followed.
#[map]
pub static FILTER_KIN: LruHashMap<KinKey, Kin> = LruHashMap::with_max_entries(1024, 0);

/// How many ids each CPU has given, by `Level`.
#[map]
pub static SEQUENCE: PerCpuArray<u64> = PerCpuArray::with_max_entries(LEVELS, 0);

/// Where `sk_buff` and headers are read to: too large for the stack.
#[map]
pub static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(LEVELS, 0);

#[unsafe(no_mangle)]
pub static OFFSETS: Offsets = {
    // SAFETY: Offsets is made of integers, for which zero is a value.
    unsafe { core::mem::zeroed() }
};

#[unsafe(no_mangle)]
pub static HOPS: [HopArgs; HOP_COUNT] = [HopArgs::UNUSED; HOP_COUNT];

#[unsafe(no_mangle)]
pub static FILTER: Filter =
    Filter { host: [0; 16], port: 0, l4_proto: 0, has_host: 0, ethertype: 0, snaplen: 0, verify: 0, reach: 0 };

/// A member of [`OFFSETS`]: read as volatile, since the compiler must not take the initial value for the final one.
macro_rules! offset {
    ($($member:ident).+) => {{
        // SAFETY: a static of this program; user space filled it before the load and nobody writes it since.
        unsafe { core::ptr::read_volatile(&raw const crate::maps::OFFSETS.$($member).+) }
    }};
}
pub(crate) use offset;

/// Where the function of the hop with this number has its arguments.
#[inline(always)]
pub fn hop_args(hop: u32) -> HopArgs {
    let hop = if hop < HOP_COUNT as u32 { hop } else { 0 };
    // SAFETY: as in `offset!`; the number is below HOP_COUNT.
    unsafe { core::ptr::read_volatile((&raw const HOPS).cast::<HopArgs>().add(hop as usize)) }
}

/// What to keep.
#[inline(always)]
pub fn filter() -> Filter {
    // SAFETY: as in `offset!`.
    unsafe { core::ptr::read_volatile(&raw const FILTER) }
}

/// Bytes that the user's expression may look at; 0: there is none.
#[inline(always)]
pub fn reach() -> u16 {
    // SAFETY: as in `offset!`.
    unsafe { core::ptr::read_volatile(&raw const FILTER.reach) }
}
