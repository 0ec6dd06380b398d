//! A packet: its `sk_buff`, copied whole in one read, and its headers, copied in another.
//!
//! One bulk read costs as much as one small one, so nothing of the `sk_buff` is read twice.

use skbtrace_common::{Bits, MAX_SKB_SIZE};

use crate::{
    maps::offset,
    read::{into, member},
};

/// Room for a VLAN tag, the longest IPv4 header, one IPv6 extension header, and a TCP header, and for masked indices.
const HEADER_ROOM: usize = 512;
/// Bytes of headers that are read.
const HEADER_READ: u32 = 128;

/// Where bulk reads go: per CPU.
#[repr(C, align(8))]
pub struct Scratch {
    skb: [u8; MAX_SKB_SIZE],
    headers: [u8; HEADER_ROOM],
}

/// A copy of an `sk_buff`.
pub struct Skb<'a> {
    scratch: &'a mut Scratch,
}

impl<'a> Skb<'a> {
    /// Copies the `sk_buff` at `address`.
    #[inline(always)]
    pub fn read(address: u64, scratch: &'a mut Scratch) -> Option<Skb<'a>> {
        let size = offset!(skb_size);
        let size = if size > MAX_SKB_SIZE as u32 { MAX_SKB_SIZE as u32 } else { size };
        into(&raw mut scratch.skb, size, address).then_some(Skb { scratch })
    }

    #[inline(always)]
    fn at<T: Copy>(&self, offset: u32) -> T {
        let offset = offset as usize & (MAX_SKB_SIZE - 1);
        // SAFETY: `skb` is followed by `headers` in the same value, so that 8 bytes from any offset are inside it;
        // members are aligned in the kernel, and the copy begins at a multiple of 8.
        unsafe { (&raw const *self.scratch).cast::<u8>().add(offset).cast::<T>().read() }
    }

    #[inline(always)]
    pub fn u64(&self, offset: u32) -> u64 {
        self.at(offset)
    }

    #[inline(always)]
    pub fn u32(&self, offset: u32) -> u32 {
        self.at(offset)
    }

    #[inline(always)]
    pub fn u16(&self, offset: u32) -> u16 {
        self.at(offset)
    }

    #[inline(always)]
    pub fn bits(&self, bits: Bits) -> u8 {
        (self.at::<u8>(u32::from(bits.offset)) >> (bits.shift & 7)) & bits.mask
    }

    /// Address of the `skb_shared_info`: at the end of the linear area.
    #[inline(always)]
    pub fn shared_info(&self) -> u64 {
        self.u64(offset!(head)).wrapping_add(u64::from(self.u32(offset!(end))))
    }

    /// The packet's headers.
    #[inline(always)]
    pub fn headers(&mut self) -> Headers {
        let mut out = Headers { ethertype: u16::from_be(self.u16(offset!(protocol))), ..Headers::default() };
        let mut start = u32::from(self.u16(offset!(network_header)));
        if start == 0 {
            // Not set yet on a frame that a driver has just made: IP is behind the Ethernet header.
            start = u32::from(self.u16(offset!(mac_header))).wrapping_add(ETHERNET);
        }
        self.parse(start, &mut out);
        out
    }

    /// Reads the headers from `start` (from `head`) on, if there is an IP header.
    #[inline(always)]
    fn parse(&mut self, start: u32, out: &mut Headers) {
        let available = self.u32(offset!(tail)).wrapping_sub(start);
        if available > 0xffff || available < 20 {
            return;
        }
        let address = self.u64(offset!(head)).wrapping_add(u64::from(start));
        if !into(&raw mut self.scratch.headers, HEADER_READ, address) {
            return;
        }
        let mut ethertype = out.ethertype;
        let mut l3 = 0;
        if ethertype == ETH_P_8021Q || ethertype == ETH_P_8021AD {
            ethertype = self.be16(2);
            l3 = 4;
        }
        let version = self.byte(l3) >> 4;
        if version == 4 && (ethertype == ETH_P_IP || ethertype == 0) {
            self.ipv4(l3, available, out);
        } else if version == 6 && (ethertype == ETH_P_IPV6 || ethertype == 0) {
            self.ipv6(l3, available, out);
        }
    }

    #[inline(always)]
    fn ipv4(&self, l3: u32, available: u32, out: &mut Headers) {
        let length = u32::from(self.byte(l3) & 15) << 2;
        let total = u32::from(self.be16(l3.wrapping_add(2)));
        out.ip_id = self.be16(l3.wrapping_add(4));
        out.ttl = self.byte(l3.wrapping_add(8));
        out.l4_proto = self.byte(l3.wrapping_add(9));
        out.saddr = [0, 0, MAPPED, self.word(l3.wrapping_add(12))];
        out.daddr = [0, 0, MAPPED, self.word(l3.wrapping_add(16))];
        out.l3 = true;
        out.fragment = self.be16(l3.wrapping_add(6)) & 0x1fff != 0;
        if !out.fragment {
            self.transport(l3.wrapping_add(length), available, total.wrapping_sub(length), out);
        }
    }

    #[inline(always)]
    fn ipv6(&self, l3: u32, available: u32, out: &mut Headers) {
        let mut l4 = l3.wrapping_add(40);
        let mut payload = u32::from(self.be16(l3.wrapping_add(4)));
        let mut next = self.byte(l3.wrapping_add(6));
        out.ttl = self.byte(l3.wrapping_add(7));
        out.saddr = self.words(l3.wrapping_add(8));
        out.daddr = self.words(l3.wrapping_add(24));
        out.l3 = true;
        // Hop-by-hop, routing, destination options: one of them is walked, which multicast listener reports need.
        if next == 0 || next == 43 || next == 60 {
            next = self.byte(l4);
            let length = u32::from(self.byte(l4.wrapping_add(1))).wrapping_add(1) << 3;
            l4 = l4.wrapping_add(length);
            payload = payload.wrapping_sub(length);
        } else if next == 44 {
            next = self.byte(l4);
            out.fragment = self.be16(l4.wrapping_add(2)) & 0xfff8 != 0;
            l4 = l4.wrapping_add(8);
            payload = payload.wrapping_sub(8);
        }
        out.l4_proto = next;
        if !out.fragment {
            self.transport(l4, available, payload, out);
        }
    }

    /// `length` is that of transport header and payload by the network header.
    #[inline(always)]
    fn transport(&self, l4: u32, available: u32, length: u32, out: &mut Headers) {
        let header = match out.l4_proto {
            IPPROTO_TCP => 20,
            IPPROTO_UDP | IPPROTO_ICMP | IPPROTO_ICMPV6 => 8,
            _ => return,
        };
        let end = l4.wrapping_add(header);
        if end > available || end > HEADER_READ {
            return;
        }
        out.l4 = true;
        out.sport = self.be16(l4);
        let mut header_length = 8;
        match out.l4_proto {
            IPPROTO_TCP => {
                out.dport = self.be16(l4.wrapping_add(2));
                out.seq = u32::from_be(self.word(l4.wrapping_add(4)));
                out.ack = u32::from_be(self.word(l4.wrapping_add(8)));
                header_length = u32::from(self.byte(l4.wrapping_add(12)) >> 4) << 2;
                out.tcp_flags = self.byte(l4.wrapping_add(13));
            }
            IPPROTO_UDP => out.dport = self.be16(l4.wrapping_add(2)),
            _ => {
                out.dport = self.be16(l4.wrapping_add(4));
                out.seq = u32::from(self.be16(l4.wrapping_add(6)));
            }
        }
        let payload = length.wrapping_sub(header_length);
        out.payload_len = if payload > 0xffff { 0 } else { payload };
    }

    #[inline(always)]
    fn header<T: Copy>(&self, offset: u32) -> T {
        let offset = offset as usize & (HEADER_ROOM / 2 - 1);
        // SAFETY: the masked offset is in the first half of `headers`; no T here is larger than the second half. The
        // copy begins at a multiple of 8 with the network header, whose and whose followers' fields are aligned to it.
        unsafe { (&raw const self.scratch.headers).cast::<u8>().add(offset).cast::<T>().read() }
    }

    #[inline(always)]
    fn byte(&self, offset: u32) -> u8 {
        self.header(offset)
    }

    #[inline(always)]
    fn be16(&self, offset: u32) -> u16 {
        u16::from_be(self.header(offset))
    }

    /// Four bytes as they are on the wire.
    #[inline(always)]
    fn word(&self, offset: u32) -> u32 {
        self.header(offset)
    }

    #[inline(always)]
    fn words(&self, offset: u32) -> [u32; 4] {
        self.header(offset)
    }
}

/// Third word of an IPv4 address mapped into IPv6: `::ffff:a.b.c.d`.
const MAPPED: u32 = u32::from_ne_bytes([0, 0, 0xff, 0xff]);
const ETHERNET: u32 = 14;
const ETH_P_IP: u16 = 0x0800;
const ETH_P_IPV6: u16 = 0x86dd;
const ETH_P_8021Q: u16 = 0x8100;
const ETH_P_8021AD: u16 = 0x88a8;
const IPPROTO_ICMP: u8 = 1;
const IPPROTO_TCP: u8 = 6;
const IPPROTO_UDP: u8 = 17;
const IPPROTO_ICMPV6: u8 = 58;

/// What the headers say, as the event wants it. Addresses are words as on the wire.
#[derive(Clone, Copy, Default)]
pub struct Headers {
    pub saddr: [u32; 4],
    pub daddr: [u32; 4],
    pub seq: u32,
    pub ack: u32,
    pub payload_len: u32,
    pub ethertype: u16,
    pub sport: u16,
    pub dport: u16,
    pub ip_id: u16,
    pub l4_proto: u8,
    pub ttl: u8,
    pub tcp_flags: u8,
    pub l3: bool,
    pub l4: bool,
    pub fragment: bool,
}

/// `gso_size`, `gso_segs` and `gso_type` of the shared info.
#[inline(always)]
pub fn gso(shared_info: u64) -> Option<(u16, u16, u32)> {
    let size = member(shared_info, offset!(gso_size))?;
    let segs = member(shared_info, offset!(gso_segs))?;
    let kind = member(shared_info, offset!(gso_type))?;
    Some((size, segs, kind))
}
