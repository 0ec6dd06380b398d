//! One event: one packet seen at one hop. Written in place in the ring buffer by the kernel side.

/// Which parts of an [`Event`] the kernel side could fill in: the bits of [`Event::flags`].
pub struct EventFlags;

impl EventFlags {
    /// The network header was found and read: addresses, TTL and `l4_proto` are valid.
    pub const L3: u32 = 1 << 0;
    /// The transport header was found and read: ports (or ICMP type and id) and TCP fields are valid.
    pub const L4: u32 = 1 << 1;
    /// This is the first event of the packet: the kernel side gave it its id here.
    pub const FIRST: u32 = 1 << 2;
    /// The packet ended here: its `sk_buff` is being freed, its address may be used again.
    pub const END: u32 = 1 << 3;
    /// `reason` holds a drop reason of the running kernel (5.17 and later).
    pub const REASON: u32 = 1 << 4;
    /// At least one read of kernel memory for this event failed; the fields that it feeds are zero.
    pub const READ_FAILED: u32 = 1 << 5;
    /// `context` is known.
    pub const CONTEXT: u32 = 1 << 6;
    /// The address of this `sk_buff` was still tracked for an older packet whose end was never seen.
    pub const REUSED: u32 = 1 << 7;
    /// A fragment of an IP datagram that is not the first one: there is no transport header in it.
    pub const FRAGMENT: u32 = 1 << 8;
    /// The packet goes on in another `sk_buff` from here on: TCP sends a clone of what it keeps.
    pub const MOVED: u32 = 1 << 9;
    /// This CPU is serving an interrupt that came while a kprobe ran: until it is done, the kernel skips all other kprobes
    /// there, and hops around this one may have been missed.
    pub const NESTED: u32 = 1 << 10;
    /// A [`Digest`] follows the event in its record, before the bytes of the packet. Its state may still be
    /// [`DigestState::NONE`].
    pub const DIGEST: u32 = 1 << 11;
    /// A fragment of an IP datagram that is not the last one: with [`EventFlags::FRAGMENT`] unset, the first.
    pub const MORE_FRAGMENTS: u32 = 1 << 12;
    /// This host sends the packet, and it has not been received since (`skb->skb_iif` is 0): only where a hop asks.
    pub const LOCAL: u32 = 1 << 13;
    /// The checksum that is left to a device (`ip_summed` is PARTIAL) is not that of the transport header found here: it is that
    /// of a packet inside it, as a tunnel's is.
    pub const INNER_SUM: u32 = 1 << 14;
}

/// Names of the bits of [`Event::flags`], for display and for recordings.
pub const EVENT_FLAGS: &[(u32, &str)] = &[
    (EventFlags::L3, "l3"),
    (EventFlags::L4, "l4"),
    (EventFlags::FIRST, "first"),
    (EventFlags::END, "end"),
    (EventFlags::REASON, "reason"),
    (EventFlags::READ_FAILED, "read_failed"),
    (EventFlags::CONTEXT, "context"),
    (EventFlags::REUSED, "reused"),
    (EventFlags::FRAGMENT, "fragment"),
    (EventFlags::MOVED, "moved"),
    (EventFlags::NESTED, "nested"),
    (EventFlags::DIGEST, "digest"),
    (EventFlags::MORE_FRAGMENTS, "more_fragments"),
    (EventFlags::LOCAL, "local"),
    (EventFlags::INNER_SUM, "inner_sum"),
];

/// In which context of the kernel a hop ran: the values of [`Event::context`], told from the preempt count
/// (include/linux/preempt.h: softirq in bits 8 to 15, hardirq in bits 16 to 19).
pub struct Context;

impl Context {
    /// A system call or a kernel thread: `pid` and `comm` are those of the process that does this.
    pub const PROCESS: u8 = 0;
    /// A softirq is being served: `pid` and `comm` are those of whoever it interrupted.
    pub const SOFTIRQ: u8 = 1;
    /// A hard interrupt.
    pub const HARDIRQ: u8 = 2;
}

/// What is known of a packet's checksum: the values of [`Event::ip_summed`] (include/linux/skbuff.h).
pub struct IpSummed;

impl IpSummed {
    /// Nobody has looked at it.
    pub const NONE: u8 = 0;
    /// It need not be looked at.
    pub const UNNECESSARY: u8 = 1;
    /// `skb->csum` is the sum over the whole packet.
    pub const COMPLETE: u8 = 2;
    /// It is left to a device; `csum_start` says where what it covers begins.
    pub const PARTIAL: u8 = 3;
}

/// Where the packet's bytes begin that follow an event: the values of [`Event::frame`].
pub struct Frame;

impl Frame {
    /// With the Ethernet header.
    pub const ETHERNET: u8 = 0;
    /// With the network header: there is no Ethernet header, or not any more, or not yet.
    pub const NETWORK: u8 = 1;
}

/// A packet at a hop. In the ring, and in recordings, [`Event::caplen`] bytes of the packet follow it.
///
/// 248 bytes, aligned to 8, without hidden padding. Names are as in the kernel: NUL-terminated, chosen by people,
/// thus hostile: any byte but NUL and `/` may stand in a device's name, any byte in a comm.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// `bpf_ktime_get_ns`: CLOCK_MONOTONIC, nanoseconds.
    pub time_ns: u64,
    /// The packet's id: unique within a run, never 0. The CPU that gave it is in the upper 16 bits.
    pub packet: u64,
    /// Address of the `sk_buff`. No identity: it is reused within microseconds.
    pub skb: u64,
    /// `skb->head`: the address of the data; clones share it.
    pub head: u64,
    /// Address of the `sock` at hops that have one, else 0.
    pub sock: u64,
    /// At an end: the address in the kernel that freed the packet. Else 0.
    pub location: u64,
    /// At hops that speak of two packets (GRO, coalescing): id of the one that this one is appended to, or 0.
    pub other: u64,
    /// Number of the network namespace of `ifindex` (its inode in nsfs).
    pub netns: u32,
    /// Interface where the packet is at this hop; 0 when the hop knows none.
    pub ifindex: u32,
    /// Number of the network namespace of `ifindex2`.
    pub netns2: u32,
    /// Second device of this hop (veth_xmit: the peer; __br_forward: the egress port), or 0.
    pub ifindex2: u32,
    /// Name of `ifindex`.
    pub dev: [u8; 16],
    /// Name of `ifindex2`.
    pub dev2: [u8; 16],
    /// Name of the current task: the actor only when `context` is [`Context::PROCESS`].
    pub comm: [u8; 16],
    /// Source address as IPv6; IPv4 is mapped (`::ffff:a.b.c.d`).
    pub saddr: [u8; 16],
    /// Destination address, likewise.
    pub daddr: [u8; 16],
    /// Process id (the kernel's tgid) of the current task.
    pub pid: u32,
    /// Thread id (the kernel's pid) of the current task.
    pub tid: u32,
    /// CPU on which the hop ran.
    pub cpu: u32,
    /// Ordinal of this hop in the packet's life, from 0, counted also when the event could not be sent: a gap in
    /// these numbers is a lost event.
    pub step: u32,
    /// `skb->len`, bytes.
    pub len: u32,
    /// `skb->data_len`: the bytes of `len` that are in page frags.
    pub data_len: u32,
    /// `skb->mark`.
    pub mark: u32,
    /// `skb->users`.
    pub users: u32,
    /// Drop reason (with [`EventFlags::REASON`]): a value of the running kernel's `enum skb_drop_reason`.
    pub reason: u32,
    /// TCP sequence number, or the sequence number of an ICMP echo.
    pub seq: u32,
    /// TCP acknowledgement number.
    pub ack: u32,
    /// Bytes of L4 payload by the network header's own length; 0 when there is none.
    pub payload_len: u32,
    /// `gso_type` of the shared info.
    pub gso_type: u32,
    /// Bytes from where the frame begins (see `frame`) to the packet's end, whether they were copied or not.
    pub frame_len: u32,
    /// At a copy to a process: how many bytes it asks for.
    pub copied: u32,
    /// At a copy to a process: from which byte on, counted from `skb->data`.
    pub copied_from: u32,
    /// Bits of [`EventFlags`].
    pub flags: u32,
    /// Hop: a [`crate::HopId`].
    pub hop: u16,
    /// `skb->protocol`, host order (0x0800 IPv4, 0x86dd IPv6, 0x0806 ARP).
    pub ethertype: u16,
    /// Source port, host order. ICMP: type in the upper byte, code in the lower.
    pub sport: u16,
    /// Destination port, host order. ICMP echo: its identifier.
    pub dport: u16,
    /// IPv4 identification, host order. Of an IPv6 fragment the lower half of its own, else 0.
    pub ip_id: u16,
    /// `gso_size` of the shared info: 0 when the packet is no GSO packet.
    pub gso_size: u16,
    /// `gso_segs` of the shared info.
    pub gso_segs: u16,
    /// `skb->vlan_tci`.
    pub vlan_tci: u16,
    /// Transport protocol (6 TCP, 17 UDP, 1 ICMP, 58 ICMPv6).
    pub l4_proto: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// TCP flags byte as on the wire.
    pub tcp_flags: u8,
    /// `skb->ip_summed`: see [`IpSummed`].
    pub ip_summed: u8,
    /// `skb->cloned`.
    pub cloned: u8,
    /// `skb->pkt_type` (0 HOST, 1 BROADCAST, 2 MULTICAST, 3 OTHERHOST, 4 OUTGOING).
    pub pkt_type: u8,
    /// One of [`Context`], valid with [`EventFlags::CONTEXT`].
    pub context: u8,
    /// Where the bytes that follow the event begin: one of [`Frame`].
    pub frame: u8,
    /// How many bytes of the packet follow the event in its record.
    pub caplen: u16,
    /// At netfilter: `nf_hook_state.hook`, the hook's number in its family.
    pub nf_hook: u8,
    /// At netfilter: `nf_hook_state.pf`, the family (2 IPv4, 7 bridge, 10 IPv6); 0 elsewhere.
    pub nf_family: u8,
}

/// How many blocks a [`Digest`] has.
pub const DIGEST_BLOCKS: usize = 8;

/// How much of the payload a [`Digest`] speaks of: the values of [`Digest::state`].
pub struct DigestState;

impl DigestState {
    /// Nothing: there is no payload here, or it could not be found.
    pub const NONE: u8 = 0;
    /// All of it.
    pub const WHOLE: u8 = 1;
    /// Less than the headers promise: the packet was cut short, or is longer than what is read.
    pub const PART: u8 = 2;
    /// A part of it could not be read.
    pub const UNREADABLE: u8 = 3;
}

/// A digest of the L4 payload, linear part, page frags and frag list alike.
///
/// Each byte counts with a weight that depends on its position alone: for TCP that is its sequence number, else its
/// place in the IP payload. So digests of neighbouring ranges add up to the digest of both together, wherever the
/// packet was cut or put together, and however the bytes lie in memory; and a byte that changed, moved or is missing
/// changes the sum. All sums are modulo 2^64.
///
/// The weight of the lower half of the aligned 8-byte word `j` (position / 8, a 32-bit position) is `mix(j) | 1` with
/// `mix(j) = x ^ (x >> 32)`, `x = j * 0x9E37_79B9_7F4A_7C15`; that of its upper half is the same times
/// `0xD6E8_FEB8_6659_FD93`. Words are little-endian, and what lies outside of the range counts as 0 in them. Odd weights
/// have inverses: no change of a single half goes unseen, and that of a single byte tells where it is.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest {
    /// Weighted sums by block of `256 << block_shift` bytes, counted from the first position rounded down to 8.
    pub blocks: [u64; DIGEST_BLOCKS],
    /// Plain sum of the 32-bit halves of the words: for the internet checksum.
    pub plain: u64,
    /// Position of the first byte.
    pub start: u32,
    /// Bytes that were digested.
    pub bytes: u32,
    /// Plain sum of the 16-bit words of the transport header, as they lie in memory.
    pub l4_header: u32,
    /// Plain sum of the 16-bit words of the IPv4 header, likewise.
    pub l3_header: u32,
    /// The transport header's checksum field, host order.
    pub checksum: u16,
    /// Length of the transport header, bytes; 0 when there is none.
    pub l4_header_len: u8,
    /// One of [`DigestState`].
    pub state: u8,
    /// See `blocks`.
    pub block_shift: u8,
    /// Always 0.
    pub reserved: [u8; 3],
}

const _: () = assert!(size_of::<Digest>() == 96);
const _: () = assert!(size_of::<Event>() == 248);
