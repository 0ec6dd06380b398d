//! What a packet's headers say: VLAN tag, IPv4 or IPv6, TCP, UDP or ICMP.
//!
//! What is found is written straight into the event in the scratch value, never kept in registers or on the stack: the
//! verifier forgets what memory of a map holds, and so the many ways through the headers become one again behind them.

use skbtrace_common::{EventFlags, IpSummed, Offsets};

use crate::{
    maps::offset,
    packet::{ETHERNET, Scratch},
};

/// Bytes of headers that are read: a VLAN tag, the longest IPv4 header and a TCP header, or one IPv6 extension header.
const HEADER_READ: u32 = 128;

const ETH_P_IP: u16 = 0x0800;
pub const ETH_P_IPV6: u16 = 0x86dd;
const ETH_P_8021Q: u16 = 0x8100;
const ETH_P_8021AD: u16 = 0x88a8;
const IP_MF: u16 = 0x2000;
const IP6_MF: u16 = 1;
const IPPROTO_ICMP: u8 = 1;
const IPPROTO_TCP: u8 = 6;
const IPPROTO_UDP: u8 = 17;
const IPPROTO_ICMPV6: u8 = 58;

/// Fills in what the headers say. A function of its own in the object: the verifier then sees each way through the
/// headers end at its return.
#[inline(never)]
pub fn parse_headers(scratch: &mut Scratch) -> u32 {
    scratch.found.known = 0;
    scratch.event.ethertype = u16::from_be(scratch.u16(offset!(protocol)));
    let mut start = u32::from(scratch.u16(offset!(network_header)));
    if start == 0 {
        // Not set yet on a frame that a driver has just made: IP is behind the Ethernet header.
        start = u32::from(scratch.u16(offset!(mac_header))).wrapping_add(ETHERNET);
    }
    let available = scratch.u32(offset!(tail)).wrapping_sub(start);
    if available > 0xffff || available < 20 {
        return 0;
    }
    let address = scratch.u64(offset!(head)).wrapping_add(u64::from(start));
    if !scratch.read_headers(address, HEADER_READ) {
        return 0;
    }
    let mut ethertype = scratch.event.ethertype;
    let mut l3 = 0;
    if ethertype == ETH_P_8021Q || ethertype == ETH_P_8021AD {
        ethertype = scratch.be16(2);
        l3 = 4;
    }
    let version = scratch.byte(l3) >> 4;
    // Length of the transport header and what follows it, and where it begins.
    let length;
    let l4;
    if version == 4 && (ethertype == ETH_P_IP || ethertype == 0) {
        let header = u32::from(scratch.byte(l3) & 15) << 2;
        scratch.event.ip_id = scratch.be16(l3.wrapping_add(4));
        scratch.event.ttl = scratch.byte(l3.wrapping_add(8));
        scratch.event.l4_proto = scratch.byte(l3.wrapping_add(9));
        scratch.event.saddr = scratch.mapped(l3.wrapping_add(12));
        scratch.event.daddr = scratch.mapped(l3.wrapping_add(16));
        scratch.event.flags |= EventFlags::L3;
        scratch.found.l3 = l3;
        scratch.found.l3_len = header;
        length = u32::from(scratch.be16(l3.wrapping_add(2))).wrapping_sub(header);
        l4 = l3.wrapping_add(header);
        let fragment = scratch.be16(l3.wrapping_add(6));
        if fragment & IP_MF != 0 {
            scratch.event.flags |= EventFlags::MORE_FRAGMENTS;
        }
        let place = u32::from(fragment & 0x1fff) << 3;
        if place != 0 {
            later_fragment(scratch, start.wrapping_add(l4), length, place);
            return 0;
        }
    } else if version == 6 && (ethertype == ETH_P_IPV6 || ethertype == 0) {
        let payload = u32::from(scratch.be16(l3.wrapping_add(4)));
        let next = scratch.byte(l3.wrapping_add(6));
        scratch.event.ttl = scratch.byte(l3.wrapping_add(7));
        scratch.event.saddr = scratch.header(l3.wrapping_add(8));
        scratch.event.daddr = scratch.header(l3.wrapping_add(24));
        scratch.event.flags |= EventFlags::L3;
        let first = l3.wrapping_add(40);
        scratch.found.l3 = l3;
        scratch.found.l3_len = 0;
        let mut extension = 0;
        scratch.event.l4_proto = next;
        // Hop-by-hop, routing, destination options: one of them is walked, which multicast listener reports need.
        if next == 0 || next == 43 || next == 60 {
            scratch.event.l4_proto = scratch.byte(first);
            extension = u32::from(scratch.byte(first.wrapping_add(1))).wrapping_add(1) << 3;
        } else if next == 44 {
            scratch.event.l4_proto = scratch.byte(first);
            extension = 8;
            // The lower half of its identification.
            scratch.event.ip_id = scratch.be16(first.wrapping_add(6));
            let fragment = scratch.be16(first.wrapping_add(2));
            if fragment & IP6_MF != 0 {
                scratch.event.flags |= EventFlags::MORE_FRAGMENTS;
            }
            let place = u32::from(fragment & 0xfff8);
            if place != 0 {
                let at = start.wrapping_add(first).wrapping_add(8);
                later_fragment(scratch, at, payload.wrapping_sub(8), place);
                return 0;
            }
        }
        length = payload.wrapping_sub(extension);
        l4 = first.wrapping_add(extension);
    } else {
        return 0;
    }
    parse_transport(scratch, l4, available, length);
    scratch.found.payload = start.wrapping_add(l4).wrapping_add(scratch.found.l4_len);
    0
}

/// Notes where the checksum that is left to a device is not that of the transport header found, but of one inside it: a tunnel
/// makes its own so that it is right once the other is filled in (lco_csum, include/linux/skbuff.h). `ip_summed` must be known.
#[inline(always)]
pub fn note_inner_sum(scratch: &mut Scratch) {
    let place = offset!(csum_start);
    if place == Offsets::ABSENT || scratch.event.ip_summed != IpSummed::PARTIAL {
        return;
    }
    let transport = scratch.found.payload.wrapping_sub(scratch.found.l4_len);
    if scratch.event.flags & EventFlags::L4 != 0 && u32::from(scratch.u16(place)) != transport {
        scratch.event.flags |= EventFlags::INNER_SUM;
    }
}

/// A fragment that is not the first: all of it is payload, of which it is a part.
#[inline(always)]
fn later_fragment(scratch: &mut Scratch, at: u32, bytes: u32, place: u32) {
    scratch.event.flags |= EventFlags::FRAGMENT;
    if bytes <= 0xffff {
        scratch.event.payload_len = bytes;
        scratch.found.payload = at;
        scratch.found.bytes = bytes;
        scratch.found.position = place;
        scratch.found.l4_len = 0;
        scratch.found.known = 1;
    }
}

#[inline(always)]
fn parse_transport(scratch: &mut Scratch, l4: u32, available: u32, length: u32) {
    let protocol = scratch.event.l4_proto;
    let header = if protocol == IPPROTO_TCP {
        20
    } else if protocol == IPPROTO_UDP || protocol == IPPROTO_ICMP || protocol == IPPROTO_ICMPV6 {
        8
    } else {
        return;
    };
    let end = l4.wrapping_add(header);
    if end > available || end > HEADER_READ {
        return;
    }
    // The compiler knows by now that the mask in `header` changes nothing, and would drop it; the verifier does not.
    let l4 = core::hint::black_box(l4);
    scratch.event.flags |= EventFlags::L4;
    scratch.event.sport = scratch.be16(l4);
    let mut header_length = 8;
    if protocol == IPPROTO_TCP {
        scratch.event.dport = scratch.be16(l4.wrapping_add(2));
        scratch.event.seq = scratch.be32(l4.wrapping_add(4));
        scratch.event.ack = scratch.be32(l4.wrapping_add(8));
        header_length = u32::from(scratch.byte(l4.wrapping_add(12)) >> 4) << 2;
        scratch.event.tcp_flags = scratch.byte(l4.wrapping_add(13));
    } else if protocol == IPPROTO_UDP {
        scratch.event.dport = scratch.be16(l4.wrapping_add(2));
    } else {
        scratch.event.dport = scratch.be16(l4.wrapping_add(4));
        scratch.event.seq = u32::from(scratch.be16(l4.wrapping_add(6)));
    }
    let payload = length.wrapping_sub(header_length);
    if payload <= 0xffff {
        scratch.event.payload_len = payload;
        scratch.found.bytes = payload;
        scratch.found.position = if protocol == IPPROTO_TCP { scratch.event.seq } else { header_length };
        scratch.found.known = 1;
    }
    scratch.found.l4 = l4;
    scratch.found.l4_len = header_length;
}
