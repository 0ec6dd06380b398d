//! The scratch value: a packet's `sk_buff`, copied whole in one read, room for its headers, copied in another, and the event
//! that is made of them.
//!
//! One bulk read costs as much as one small one, so nothing of the `sk_buff` is read twice. Members are read behind masks
//! that show the verifier that they are within the value.

use skbtrace_common::{Bits, Digest, Event, EventFlags, Frame, MAX_FRAME, MAX_SKB_SIZE};

use crate::{
    maps::offset,
    payload::Walk,
    read::{into, member},
};

/// Bytes of an Ethernet header.
pub const ETHERNET: u32 = 14;

/// Room for the headers that are read, and for masked indices behind them.
const HEADER_ROOM: usize = 512;

/// Room for the packet's first bytes, and for masked lengths behind masked offsets.
const FRAME_ROOM: usize = 2 * MAX_FRAME;

/// Where a packet is read to and its event made: per CPU, too large for the stack.
#[repr(C, align(8))]
pub struct Scratch {
    skb: [u8; MAX_SKB_SIZE],
    headers: [u8; HEADER_ROOM],
    /// Where the headers were found.
    pub found: Found,
    /// Where the payload is being read.
    pub walk: Walk,
    /// What the hop's own program hands on.
    pub hit: Hit,
    /// 1 while a tracepoint's program uses this value.
    busy: u64,
    /// The event in the making.
    pub event: Event,
    /// What follows the event to the ring: its digest, if the run wants one, and the packet's first bytes.
    tail: [u8; size_of::<Digest>() + FRAME_ROOM],
}

/// What the program of a hop hands on to the one that follows the packet: that one has no argument of its own.
#[repr(C)]
pub struct Hit {
    /// Address of the `sk_buff`.
    pub skb: u64,
    /// Address of the `net_device` it is on, or 0.
    pub device: u64,
    /// The arguments of the traced function or tracepoint, as many as are of use.
    pub args: [u64; 8],
    /// Number of the hop.
    pub hop: u32,
}

impl Hit {
    /// An argument by position; 0 when there is none at it.
    #[inline(always)]
    pub fn arg(&self, position: u8) -> u64 {
        let at = usize::from(position);
        // Masked, since the verifier has to be shown the bound.
        if at < self.args.len() { self.args[at & 7] } else { 0 }
    }
}

/// Where the headers were found, as offsets from the network header; and the payload, from `skb->head`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Found {
    /// Where the payload begins.
    pub payload: u32,
    /// Its bytes by the network header.
    pub bytes: u32,
    /// The position of its first byte, as digests count.
    pub position: u32,
    /// Where the IP header begins, and its length when it is IPv4.
    pub l3: u32,
    /// See `l3`.
    pub l3_len: u32,
    /// Where the transport header begins, and its length.
    pub l4: u32,
    /// See `l4`.
    pub l4_len: u32,
    /// 1 when there is a payload to be found.
    pub known: u32,
}

impl Scratch {
    /// Takes this value for a tracepoint's program; false when one that this one has interrupted is using it. Before
    /// Linux 6.2 the kernel lets a raw tracepoint's program interrupt itself.
    #[inline(always)]
    pub fn claim(&mut self) -> bool {
        let free = self.busy == 0;
        if free {
            self.busy = 1;
        }
        free
    }

    /// The program is done with this value.
    #[inline(always)]
    pub fn release(&mut self) {
        self.busy = 0;
    }

    /// Copies the `sk_buff` at `address`; false when it cannot be read.
    #[inline(always)]
    pub fn read(&mut self, address: u64) -> bool {
        let size = offset!(skb_size);
        let size = if size > MAX_SKB_SIZE as u32 { MAX_SKB_SIZE as u32 } else { size };
        into(&raw mut self.skb, size, address)
    }

    #[inline(always)]
    fn skb<T: Copy>(&self, offset: u32) -> T {
        let offset = offset as usize & (MAX_SKB_SIZE - 1);
        // SAFETY: `skb` is followed by `headers` in the same value, so that 8 bytes from any offset are inside it;
        // members are aligned in the kernel, and the copy begins at a multiple of 8.
        unsafe { (&raw const *self).cast::<u8>().add(offset).cast::<T>().read() }
    }

    /// A member of the `sk_buff` of 8 bytes.
    #[inline(always)]
    pub fn u64(&self, offset: u32) -> u64 {
        self.skb(offset)
    }

    /// A member of 4 bytes.
    #[inline(always)]
    pub fn u32(&self, offset: u32) -> u32 {
        self.skb(offset)
    }

    /// A member of 2 bytes.
    #[inline(always)]
    pub fn u16(&self, offset: u32) -> u16 {
        self.skb(offset)
    }

    /// A bit field of it.
    #[inline(always)]
    pub fn bits(&self, bits: Bits) -> u8 {
        (self.skb::<u8>(u32::from(bits.offset)) >> (bits.shift & 7)) & bits.mask
    }

    /// Fills in what the `sk_buff` itself says.
    #[inline(always)]
    pub fn describe(&mut self) {
        let head = self.u64(offset!(head));
        let shared_info = head.wrapping_add(u64::from(self.u32(offset!(end))));
        self.event.head = head;
        self.event.len = self.u32(offset!(len));
        self.event.data_len = self.u32(offset!(data_len));
        self.event.mark = self.u32(offset!(mark));
        self.event.users = self.u32(offset!(users));
        let present: Bits = offset!(vlan_present);
        let tagged = present.mask == 0 || self.bits(present) != 0;
        self.event.vlan_tci = if tagged { self.u16(offset!(vlan_tci)) } else { 0 };
        self.event.ip_summed = self.bits(offset!(ip_summed));
        self.event.cloned = self.bits(offset!(cloned));
        self.event.pkt_type = self.bits(offset!(pkt_type));
        // Three members of one structure, next to each other on every kernel; read apart, for they need not be.
        self.event.gso_size = member(shared_info, offset!(gso_size)).unwrap_or(0);
        self.event.gso_segs = member(shared_info, offset!(gso_segs)).unwrap_or(0);
        self.event.gso_type = member(shared_info, offset!(gso_type)).unwrap_or(0);
    }

    /// Copies the packet's first bytes of the linear area, from the Ethernet header on where there is one. Whether a
    /// digest comes before them must be known. True when more is wanted, and the packet goes on in page frags.
    #[inline(always)]
    pub fn copy_frame(&mut self, snaplen: u16) -> bool {
        let network = u32::from(self.u16(offset!(network_header)));
        let mac = u32::from(self.u16(offset!(mac_header)));
        let mut start = mac;
        if network != 0 && network.wrapping_sub(mac) != ETHERNET {
            // No Ethernet header, or none yet. A tag between the two counts as the network header's.
            start = network;
            self.event.frame = Frame::NETWORK;
        }
        let linear = self.u32(offset!(tail)).wrapping_sub(start);
        if linear > 0xffff {
            return false;
        }
        self.event.frame_len = linear.wrapping_add(self.event.data_len);
        let mut length = linear;
        if length > u32::from(snaplen) {
            length = u32::from(snaplen);
        }
        if length > MAX_FRAME as u32 {
            length = MAX_FRAME as u32;
        }
        let address = self.u64(offset!(head)).wrapping_add(u64::from(start));
        let at = if self.event.flags & EventFlags::DIGEST == 0 { 0 } else { size_of::<Digest>() };
        // SAFETY: the digest's size is within `tail`, and leaves MAX_FRAME bytes.
        let frame = unsafe { (&raw mut self.tail).cast::<u8>().add(at) };
        if !into(frame, length, address) {
            return false;
        }
        self.event.caplen = length as u16;
        linear < u32::from(snaplen) && length == linear && self.event.data_len != 0
    }

    /// Copies `size` bytes to behind what was copied of the packet so far; false when they cannot be read. Whoever calls
    /// this sees to it that there are no more than [`MAX_FRAME`] of them in all.
    #[inline(always)]
    pub fn append_frame(&mut self, size: u32, address: u64) -> bool {
        let digest = u64::from(self.event.flags & EventFlags::DIGEST != 0).wrapping_mul(size_of::<Digest>() as u64);
        let at = core::hint::black_box(u64::from(self.event.caplen)) & (MAX_FRAME as u64 - 1);
        // The verifier has to be shown bounds.
        let size = core::hint::black_box(size) & (MAX_FRAME as u32 - 1);
        // SAFETY: the digest's size and two masked numbers are within `tail`.
        let to = unsafe { (&raw mut self.tail).cast::<u8>().add(digest as usize).add(at as usize) };
        if !into(to, size, address) {
            return false;
        }
        self.event.caplen = self.event.caplen.wrapping_add(size as u16);
        true
    }

    /// The digest in the making: there is room for it at every hop, and use for it where the event's flags say so.
    #[inline(always)]
    pub fn digest(&mut self) -> &mut Digest {
        // SAFETY: it is within `tail`, which is aligned to 8 by what stands before it, and made of integers.
        unsafe { &mut *(&raw mut self.tail).cast::<Digest>() }
    }

    /// The bytes of the record: the event and what was copied of the packet.
    #[inline(always)]
    pub fn record(&self) -> (*const Event, u64) {
        let mut frame = u64::from(self.event.caplen);
        if frame > MAX_FRAME as u64 {
            frame = MAX_FRAME as u64;
        }
        if self.event.flags & EventFlags::DIGEST != 0 {
            frame = frame.wrapping_add(size_of::<Digest>() as u64);
        }
        (&raw const self.event, size_of::<Event>() as u64 + frame)
    }

    /// A member of one byte.
    #[inline(always)]
    pub fn u8(&self, offset: u32) -> u8 {
        self.skb(offset)
    }

    /// Copies `size` bytes of something else to where headers are read to; false when they cannot be read.
    #[inline(always)]
    pub fn read_headers(&mut self, address: u64, size: u32) -> bool {
        into(&raw mut self.headers, size, address)
    }

    /// An IPv4 address among the headers, mapped into IPv6.
    #[inline(always)]
    pub fn mapped(&self, offset: u32) -> [u8; 16] {
        mapped(self.header(offset))
    }

    /// What stands among the headers.
    #[inline(always)]
    pub fn header<T: Copy>(&self, offset: u32) -> T {
        let offset = offset as usize & (HEADER_ROOM / 2 - 1);
        // SAFETY: the masked offset is in the first half of `headers`; no T here is larger than the second half. The
        // copy begins at a multiple of 8 with the network header, whose and whose followers' fields are aligned to it.
        unsafe { (&raw const self.headers).cast::<u8>().add(offset).cast::<T>().read() }
    }

    /// The same for one byte.
    #[inline(always)]
    pub fn byte(&self, offset: u32) -> u8 {
        self.header(offset)
    }

    /// The same for two bytes as on the wire.
    #[inline(always)]
    pub fn be16(&self, offset: u32) -> u16 {
        u16::from_be(self.header(offset))
    }

    /// The same for four.
    #[inline(always)]
    pub fn be32(&self, offset: u32) -> u32 {
        u32::from_be(self.header(offset))
    }
}

/// An IPv4 address, as it is on the wire, as IPv6: `::ffff:a.b.c.d`.
#[inline(always)]
fn mapped(address: [u8; 4]) -> [u8; 16] {
    let [a, b, c, d] = address;
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
}

const _: () = assert!(size_of::<Event>() % 8 == 0, "the frame must follow the event without a gap");
