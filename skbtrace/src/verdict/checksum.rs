//! What the checksums of a packet are worth at a hop.
//!
//! A checksum that does not fit is mostly none that is wrong: between two veths of one machine it is left to a device that
//! never comes, and the field holds the sum of the pseudo-header alone. And one that is wrong is not always found: whoever
//! receives the packet looks only if `ip_summed` says that nobody has. So the field, the bytes and `ip_summed` are judged
//! together. The bytes are not at hand: the sums that the digest has of them are.

use skbtrace_common::{Digest, DigestState, Event, EventFlags, HopId, IpSummed};

use crate::hops::{Role, hop};

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;

/// What a checksum is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// Left to a device: the field holds the sum of the pseudo-header, over the whole length also where the packet is still to
    /// be cut (GSO).
    Deferred,
    /// Right.
    Ok,
    /// Wrong, and whoever receives the packet will see it: it is dropped then.
    BadDropped,
    /// Wrong, and `ip_summed` says that nobody has to look: it is delivered.
    BadTrusted,
    /// The sender made none, which UDP over IPv4 allows.
    None,
    /// It cannot be told.
    NotComputable(Why),
}

/// Why it cannot be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Part of the packet could not be read.
    Unread,
    /// A fragment: the checksum is that of the whole datagram.
    Fragment,
    /// It is still to be cut, and no pseudo-header speaks for the whole.
    Gso,
    /// Others have been appended to it.
    Appended,
    /// The checksum of a packet inside it is still to be filled in.
    Inner,
}

/// The checksums of a packet at a hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checksums {
    /// Of the IPv4 header; `None` where there is no such header.
    pub header: Option<Checksum>,
    /// Of TCP, UDP, ICMP or ICMPv6; `None` where it is none of them, or has no header yet.
    pub transport: Option<Checksum>,
}

impl Checksum {
    /// Whether it is wrong.
    #[must_use]
    pub fn is_bad(self) -> bool {
        matches!(self, Checksum::BadDropped | Checksum::BadTrusted)
    }
}

/// Judges the checksums of an event with a digest; `None` where it has none.
#[must_use]
pub fn checksums(event: &Event, digest: &Digest) -> Option<Checksums> {
    if event.flags & EventFlags::DIGEST == 0 || event.flags & EventFlags::L3 == 0 || digest.state == DigestState::NONE {
        return None;
    }
    // A packet that TCP is still making has no headers: its sum is zero, which that of no IPv4 header is.
    let header = (digest.l3_header != 0).then(|| header(event, digest));
    let sums = Checksums { header, transport: transport(event, digest) };
    (sums.header.is_some() || sums.transport.is_some()).then_some(sums)
}

/// Whether a veth has passed a packet on as checked that nobody had checked, as Linux did before 4.4.
#[must_use]
pub fn is_trust_unearned(before: &Event, after: &Event) -> bool {
    let crossing = before.ifindex2 != 0 && (before.netns2, before.ifindex2) == (after.netns, after.ifindex);
    let hops = [HopId::VethXmit, HopId::DevForwardSkb].map(|hop| hop as u16);
    crossing
        && hops.contains(&before.hop)
        && before.ip_summed == IpSummed::NONE
        && after.ip_summed == IpSummed::UNNECESSARY
}

fn header(event: &Event, digest: &Digest) -> Checksum {
    if event.flags & EventFlags::READ_FAILED != 0 {
        return Checksum::NotComputable(Why::Unread);
    }
    // No device is ever trusted with it.
    if fold(u64::from(digest.l3_header)) == 0xffff { Checksum::Ok } else { Checksum::BadDropped }
}

fn transport(event: &Event, digest: &Digest) -> Option<Checksum> {
    if event.flags & EventFlags::FRAGMENT != 0 {
        return matches!(event.l4_proto, ICMP | TCP | UDP | ICMPV6).then_some(Checksum::NotComputable(Why::Fragment));
    }
    if digest.l4_header_len == 0 || !matches!(event.l4_proto, ICMP | TCP | UDP | ICMPV6) {
        return None;
    }
    Some(judge(event, digest))
}

fn judge(event: &Event, digest: &Digest) -> Checksum {
    if event.flags & EventFlags::MORE_FRAGMENTS != 0 {
        return Checksum::NotComputable(Why::Fragment);
    }
    let is_ipv4 = digest.l3_header != 0;
    if event.l4_proto == UDP && is_ipv4 && digest.checksum == 0 {
        return Checksum::None;
    }
    // A tunnel has made it for the bytes as they will be then (lco_csum in the kernel), not as they are.
    if event.flags & EventFlags::INNER_SUM != 0 {
        return Checksum::NotComputable(Why::Inner);
    }
    let length = u32::from(digest.l4_header_len).saturating_add(event.payload_len);
    let pseudo = match event.l4_proto {
        ICMP => 0,
        _ => pseudo_header(event, is_ipv4, length),
    };
    // As it lies in memory, as all sums here.
    let field = u16::from_ne_bytes(digest.checksum.to_be_bytes());
    // What has come as far as a socket has lost its header, and with it the place that PARTIAL speaks of: to the kernel it is
    // then NONE, and was found good before.
    let is_left =
        event.ip_summed == IpSummed::PARTIAL || (event.ip_summed == IpSummed::NONE && is_past_transport(event));
    // The two zeroes of ones' complement are one.
    if is_left && fold(pseudo) % 0xffff == field % 0xffff {
        return Checksum::Deferred;
    }
    if event.gso_size != 0 && event.ip_summed != IpSummed::PARTIAL {
        return Checksum::NotComputable(Why::Gso);
    }
    if digest.bytes != event.payload_len && digest.state == DigestState::WHOLE {
        return Checksum::NotComputable(Why::Appended);
    }
    if digest.state != DigestState::WHOLE || event.flags & EventFlags::READ_FAILED != 0 {
        return Checksum::NotComputable(Why::Unread);
    }
    let payload = fold(digest.plain);
    // The words of the digest begin at even positions, those of the checksum with the payload.
    let payload = if digest.start.is_multiple_of(2) { payload } else { payload.swap_bytes() };
    let total = fold(pseudo + u64::from(digest.l4_header) + u64::from(payload));
    match event.ip_summed {
        _ if total == 0xffff => Checksum::Ok,
        IpSummed::UNNECESSARY | IpSummed::PARTIAL => Checksum::BadTrusted,
        _ => Checksum::BadDropped,
    }
}

/// Whether the transport protocol has had the packet.
fn is_past_transport(event: &Event) -> bool {
    HopId::from_number(event.hop).is_some_and(|id| matches!(hop(id).role, Role::Socket | Role::Copy))
}

/// The sum of addresses, protocol and length, as the words lie in memory.
fn pseudo_header(event: &Event, is_ipv4: bool, length: u32) -> u64 {
    let from = if is_ipv4 { 12 } else { 0 };
    let words = |bytes: &[u8]| -> u64 {
        bytes.chunks_exact(2).map(|word| u64::from(u16::from_ne_bytes([word[0], word[1]]))).sum()
    };
    words(&event.saddr[from..])
        + words(&event.daddr[from..])
        + words(&length.to_be_bytes())
        + words(&[0, event.l4_proto])
}

/// The sum in ones' complement.
fn fold(sum: u64) -> u16 {
    let mut sum = sum;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    // It fits by now.
    sum as u16
}

#[cfg(test)]
mod tests;
