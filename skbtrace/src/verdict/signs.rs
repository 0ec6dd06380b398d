//! What a packet itself shows of why it was dropped, for kernels that name no reasons (before 5.17).
//!
//! There a drop comes with the place in the kernel's code alone, and a function drops for more than one cause. But what it looks
//! at can be seen here too. So a sign is taken only where whoever dropped the packet looks for it, and for nothing before it:
//! ip_rcv_core at the packet's type and then at the header's checksum (net/ipv4/ip_input.c, net/ipv6/ip6_input.c), a transport
//! at its own checksum (tcp_v4_rcv, __udp4_lib_rcv, icmp_rcv). A kernel that names a reason is believed, and no sign is read.

use skbtrace_common::HopId;

use super::checksum::{Checksum, checksums};
use crate::hops::Role;
use crate::trace::Step;

/// `PACKET_OTHERHOST` (include/uapi/linux/if_packet.h).
const OTHERHOST: u8 = 3;

/// What was seen of a packet that was dropped, and says why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// IP received it with `skb->pkt_type` OTHERHOST: its MAC address is not that of the device.
    OtherHost,
    /// IP received it with a wrong checksum of the IPv4 header.
    HeaderChecksum,
    /// A transport received it with a wrong checksum that nobody had vouched for.
    TransportChecksum,
    /// A veth took it from its ring and freed it: which its poll does, where there is no hop in it, for an XDP program alone
    /// (drivers/net/veth.c, veth_xdp_rcv_skb, inlined).
    Polled,
}

impl Sign {
    /// Whether it is one of bytes that changed.
    pub(super) fn is_of_bytes(self) -> bool {
        matches!(self, Sign::HeaderChecksum | Sign::TransportChecksum)
    }
}

/// The sign that a packet shows. `last` is its last step but for work and its end, `function` freed it, as dropped.
pub(super) fn sign(last: &Step, function: Option<&str>) -> Option<Sign> {
    if last.hop == HopId::DevForwardSkb && function.is_some_and(is_poll) {
        return Some(Sign::Polled);
    }
    // Where the function has no name, whoever the packet had come to.
    let owner = function.map_or(Some(last.hop), owner)?;
    match owner {
        HopId::IpRcv | HopId::Ipv6Rcv if has_just_come(last) => {
            if last.event.pkt_type == OTHERHOST {
                return Some(Sign::OtherHost);
            }
            let header = checksums(&last.event, &last.digest)?.header;
            (header == Some(Checksum::BadDropped)).then_some(Sign::HeaderChecksum)
        }
        HopId::TcpV4Rcv
        | HopId::TcpV6Rcv
        | HopId::TcpAddBacklog
        | HopId::UdpQueueRcvOneSkb
        | HopId::Udpv6QueueRcvOneSkb
        | HopId::IcmpRcv
        | HopId::Icmpv6Rcv
            // What a socket was about to queue it refused for want of room.
            if last.role() != Role::Socket =>
        {
            let transport = checksums(&last.event, &last.digest)?.transport;
            (transport == Some(Checksum::BadDropped)).then_some(Sign::TransportChecksum)
        }
        _ => None,
    }
}

/// Whether IP has the packet and has not looked at it yet. Packets that come as a list are seen one hop earlier (ip_list_rcv).
fn has_just_come(step: &Step) -> bool {
    matches!(step.hop, HopId::IpRcv | HopId::Ipv6Rcv | HopId::NetifReceiveSkb)
}

/// Whether a function is a veth's NAPI poll, or what the compiler left of it.
fn is_poll(function: &str) -> bool {
    ["veth_poll", "veth_xdp_rcv"].iter().any(|name| function.starts_with(name))
}

/// Whose code a function is, by how its name begins: the hop at which its layer gets packets.
pub(super) fn owner(function: &str) -> Option<HopId> {
    const OWNERS: [(&str, HopId); 12] = [
        ("tcp_", HopId::TcpV4Rcv),
        ("__udp_enqueue", HopId::UdpEnqueueScheduleSkb),
        ("udp", HopId::UdpQueueRcvOneSkb),
        ("__udp", HopId::UdpQueueRcvOneSkb),
        ("icmp", HopId::IcmpRcv),
        ("raw", HopId::RawRcv),
        ("arp_", HopId::ArpRcv),
        ("ip_forward", HopId::IpForward),
        ("ip6_forward", HopId::Ip6Forward),
        ("ip_", HopId::IpRcv),
        ("ip", HopId::Ipv6Rcv),
        ("br_", HopId::BrHandleFrameFinish),
    ];
    OWNERS.iter().find(|(prefix, _)| function.starts_with(prefix)).map(|(_, hop)| *hop)
}

#[cfg(test)]
mod tests;
