//! What the user side tells the kernel side: where things are in this kernel, what to watch, what to keep.
//!
//! All of it comes from the running kernel's BTF and from netlink. The kernel side holds no number of its own.

/// `sk_buff` is copied whole, up to this many bytes: a power of two above its size on every known kernel (232 to 240).
pub const MAX_SKB_SIZE: usize = 256;

/// So many bytes of a `sock` are read: addresses and ports are among them.
pub const SOCK_READ: u32 = 128;

/// At most so many bytes of a packet follow its event: a power of two.
pub const MAX_FRAME: usize = 2048;

/// In [`HopArgs`]: the function has no such argument.
pub const NO_ARG: u8 = 0xff;

/// A bit field of `sk_buff`: `(byte[offset] >> shift) & mask`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bits {
    /// Byte offset in `sk_buff`.
    pub offset: u16,
    /// Bits to shift right.
    pub shift: u8,
    /// Mask after the shift.
    pub mask: u8,
}

/// Byte offsets in the structures of the running kernel; those of `sk_buff` come first.
///
/// [`Offsets::ABSENT`] stands for a member that this kernel has not.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offsets {
    /// `sizeof(struct sk_buff)`.
    pub skb_size: u32,
    /// `sk_buff.len`
    pub len: u32,
    /// `sk_buff.data_len`
    pub data_len: u32,
    /// `sk_buff.head`
    pub head: u32,
    /// `sk_buff.data`
    pub data: u32,
    /// `sk_buff.next`
    pub next: u32,
    /// `sk_buff.tail`: an offset from head on 64-bit kernels.
    pub tail: u32,
    /// `sk_buff.end`: likewise.
    pub end: u32,
    /// `sk_buff.network_header`
    pub network_header: u32,
    /// `sk_buff.mac_header`
    pub mac_header: u32,
    /// `sk_buff.protocol`
    pub protocol: u32,
    /// `sk_buff.users`
    pub users: u32,
    /// `sk_buff.dev`
    pub skb_dev: u32,
    /// `sk_buff._skb_refdst`
    pub refdst: u32,
    /// `sk_buff.mark`
    pub mark: u32,
    /// `sk_buff.skb_iif`
    pub skb_iif: u32,
    /// `sk_buff.vlan_tci`
    pub vlan_tci: u32,
    /// `sk_buff.csum_start`: an offset from head.
    pub csum_start: u32,
    /// `sk_buff.ip_summed`
    pub ip_summed: Bits,
    /// `sk_buff.cloned`
    pub cloned: Bits,
    /// `sk_buff.pkt_type`
    pub pkt_type: Bits,
    /// `sk_buff.vlan_present`, before Linux 6.2: taking a tag off clears nothing but that. Later kernels clear `vlan_tci`, and
    /// the mask is 0.
    pub vlan_present: Bits,
    /// `skb_shared_info.gso_size`
    pub gso_size: u32,
    /// `skb_shared_info.gso_segs`
    pub gso_segs: u32,
    /// `skb_shared_info.gso_type`
    pub gso_type: u32,
    /// `skb_shared_info.nr_frags`
    pub nr_frags: u32,
    /// `skb_shared_info.frags`
    pub frags: u32,
    /// `skb_shared_info.frag_list`
    pub frag_list: u32,
    /// Size of an element of `frags`, and where it has its page, its length and its offset in the page.
    pub frag_size: u32,
    /// See `frag_size`.
    pub frag_page: u32,
    /// See `frag_size`.
    pub frag_len: u32,
    /// See `frag_size`.
    pub frag_offset: u32,
    /// Bytes of the array of `struct page` for each 4 KiB of memory: `sizeof(struct page)`, where a page has no more.
    pub page_size: u32,
    /// `dst_entry.dev`
    pub dst_dev: u32,
    /// `net_device.name`
    pub dev_name: u32,
    /// `net_device.ifindex`
    pub dev_ifindex: u32,
    /// `net_device.nd_net`
    pub dev_net: u32,
    /// `net.ns.inum`
    pub net_inum: u32,
    /// From a veth's `net_device` to the pointer to its peer (private area plus `veth_priv.peer`).
    pub veth_peer: u32,
    /// `net_bridge_port.dev`
    pub port_dev: u32,
    /// `sk_buff.cb` plus `tcp_skb_cb.seq`
    pub tcp_cb_seq: u32,
    /// `sk_buff.cb` plus `tcp_skb_cb.tcp_flags`
    pub tcp_cb_flags: u32,
    /// `sock.sk_dst_cache`
    pub sock_dst: u32,
    /// `sock_common.skc_family`; this and the following five are below [`SOCK_READ`].
    pub sock_family: u32,
    /// `sock_common.skc_rcv_saddr`
    pub sock_saddr: u32,
    /// `sock_common.skc_daddr`
    pub sock_daddr: u32,
    /// `sock_common.skc_v6_rcv_saddr`
    pub sock_saddr6: u32,
    /// `sock_common.skc_v6_daddr`
    pub sock_daddr6: u32,
    /// `sock_common.skc_num`
    pub sock_num: u32,
    /// `sock_common.skc_dport`
    pub sock_dport: u32,
    /// `nf_hook_state.hook`
    pub nf_hook: u32,
    /// `nf_hook_state.pf`
    pub nf_family: u32,
    /// `nf_hook_state.in`
    pub nf_in: u32,
    /// `nf_hook_state.out`
    pub nf_out: u32,
    /// `kprobe.nmissed`
    pub probe_missed: u32,
    /// `sk_buff.vlan_proto`
    pub vlan_proto: u32,
    /// Address of the `__per_cpu_offset` array, or 0 when unknown.
    pub per_cpu_offset: u64,
    /// Per-CPU address of the preempt count, or 0 when unknown.
    pub preempt_count: u64,
    /// Address of `vmemmap_base`, or 0: then `vmemmap` counts.
    pub vmemmap_base: u64,
    /// Address of `page_offset_base`, or 0: then `page_offset` counts.
    pub page_offset_base: u64,
    /// Where the array of `struct page` begins, or 0 when nobody knows: then page frags cannot be read.
    pub vmemmap: u64,
    /// Where the kernel has all memory mapped; likewise.
    pub page_offset: u64,
    /// Per-CPU address of `current_kprobe`, or 0 when unknown.
    pub current_kprobe: u64,
    /// Per-CPU address of `kprobe_instance`: set where several probes share a place; 0 when unknown.
    pub kprobe_instance: u64,
    /// Per-CPU address of `bpf_prog_active`, or 0 when unknown: not 0 there while the kernel calls no program of a kprobe
    /// (kernel/trace/bpf_trace.c, `trace_call_bpf`).
    pub prog_active: u64,
}

impl Offsets {
    /// A member that the running kernel has not.
    pub const ABSENT: u32 = u32::MAX;
}

/// Where a hop finds a device: the values of [`HopArgs::dev_from`] and [`HopArgs::dev2_from`].
pub struct Source;

impl Source {
    /// There is none.
    pub const NONE: u8 = 0;
    /// `skb->dev`.
    pub const SKB: u8 = 1;
    /// An argument that is a `struct net_device *`.
    pub const ARG: u8 = 2;
    /// The device of the packet's route: `skb_dst(skb)->dev`.
    pub const DST: u8 = 3;
    /// The device of an argument that is a `struct net_bridge_port *`.
    pub const PORT: u8 = 4;
    /// The peer of the hop's first device, which is a veth.
    pub const PEER: u8 = 5;
    /// The device of the route that the socket argument has cached.
    pub const SOCK: u8 = 6;
    /// Where an argument that is a `struct nf_hook_state *` says that the packet came in, or else goes out; behind routing, at
    /// POSTROUTING, the other way round.
    pub const HOOK: u8 = 7;
}

/// The bits of [`HopArgs::flags`].
pub mod hop_flags {
    /// The argument is a `struct sk_buff **`.
    pub const INDIRECT: u8 = 1 << 0;
    /// A packet is born here when `skb->dev` is NULL: if its address is tracked, the older packet's end was missed.
    pub const ORIGIN: u8 = 1 << 1;
    /// The `sk_buff` is freed here.
    pub const END: u8 = 1 << 2;
    /// Only packets that are tracked already are of interest here.
    pub const TRACKED_ONLY: u8 = 1 << 3;
    /// The `sk_buff` is one that TCP keeps: a clone of it is sent, and known by its socket until it is seen.
    pub const TEMPLATE: u8 = 1 << 4;
    /// A packet that begins here may be one that [`TEMPLATE`] has announced.
    pub const ADOPT: u8 = 1 << 5;
    /// Behind this hop `skb->dev` is set: with [`ORIGIN`], the last hop at which a packet can be born.
    pub const SENT: u8 = 1 << 6;
    /// The payload is digested here, when the run wants that.
    pub const PAYLOAD: u8 = 1 << 7;
}

/// Where a hop's function has its arguments on this kernel: positions from 0, or [`NO_ARG`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HopArgs {
    /// The `sk_buff`.
    pub skb: u8,
    /// A [`Source`] for the device of this hop.
    pub dev_from: u8,
    /// Argument that `dev_from` speaks of.
    pub dev: u8,
    /// A [`Source`] for the second device.
    pub dev2_from: u8,
    /// Argument that `dev2_from` speaks of.
    pub dev2: u8,
    /// The `sock`.
    pub sock: u8,
    /// The drop reason.
    pub reason: u8,
    /// The address that frees the packet.
    pub location: u8,
    /// Another `sk_buff`: the one that this one is appended to.
    pub other: u8,
    /// A `struct nf_hook_state *`.
    pub state: u8,
    /// First byte and number of bytes that are copied to a process.
    pub copied_from: u8,
    /// See `copied_from`.
    pub copied: u8,
    /// The acknowledgement number that TCP is about to send.
    pub ack: u8,
    /// How many arguments are to be kept, from the first one on: of a tracepoint, which has no others.
    pub count: u8,
    /// Bits of [`hop_flags`].
    pub flags: u8,
}

impl HopArgs {
    /// A hop that is not attached.
    pub const UNUSED: HopArgs = HopArgs {
        skb: NO_ARG,
        dev_from: Source::NONE,
        dev: NO_ARG,
        dev2_from: Source::NONE,
        dev2: NO_ARG,
        sock: NO_ARG,
        reason: NO_ARG,
        location: NO_ARG,
        other: NO_ARG,
        state: NO_ARG,
        copied_from: NO_ARG,
        copied: NO_ARG,
        ack: NO_ARG,
        count: 0,
        flags: 0,
    };
}

/// What to keep of the packets on the segment. Zero means any.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Source or destination address; IPv4 mapped.
    pub host: [u8; 16],
    /// Source or destination port.
    pub port: u16,
    /// Transport protocol.
    pub l4_proto: u8,
    /// 1 when `host` is to be looked at.
    pub has_host: u8,
    /// `skb->protocol`, host order (for ARP).
    pub ethertype: u16,
    /// Bytes of each packet to copy behind its event, at most [`MAX_FRAME`].
    pub snaplen: u16,
    /// 1 when payloads are to be digested.
    pub verify: u16,
    /// Bytes of a packet that the user's expression may look at, at most [`crate::WINDOW_BYTES`]; 0: there is none.
    pub reach: u16,
}

/// A device, as netlink knows it: key of the segment map.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceKey {
    /// Inode of the network namespace.
    pub netns: u32,
    /// Interface index in it.
    pub ifindex: u32,
}

/// Value of the segment map: every packet on this device is of interest.
pub const SEGMENT_MEMBER: u32 = 1;
/// Value of the segment map: only packets from or to an address of the segment (a loopback device).
pub const SEGMENT_BY_ADDRESS: u32 = 2;

/// An address of the segment: key of the address map.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AddrKey {
    /// The address as IPv6; IPv4 mapped.
    pub addr: [u8; 16],
    /// Inode of the network namespace.
    pub netns: u32,
}

/// What happened to the hits of one hop on one CPU. Every hit is counted in exactly one of the fields
/// but `read_failed`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets that are not of the segment or that the filter does not want.
    pub filtered: u64,
    /// Events sent to user space.
    pub sent: u64,
    /// Events lost: the ring was full.
    pub ring_full: u64,
    /// Packets not followed: the map of tracked packets was full.
    pub map_full: u64,
    /// Packets not seen: the `sk_buff` could not be read.
    pub unreadable: u64,
    /// Events sent although a part of them could not be read.
    pub read_failed: u64,
    /// Not a count: address of the kernel's `kprobe` of this hop, once it has been hit; 0 before, and where unknown.
    pub probe: u64,
}

#[cfg(feature = "user")]
mod pod {
    //! Lets aya copy these types to and from the kernel.
    use super::{AddrKey, Counters, DeviceKey, Filter, HopArgs, Offsets};

    // SAFETY: repr(C), made of integers only, without implicit padding that anyone reads, valid for every bit pattern.
    unsafe impl aya::Pod for Offsets {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Filter {}
    // SAFETY: as above.
    unsafe impl aya::Pod for DeviceKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for AddrKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for HopArgs {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Counters {}
}
