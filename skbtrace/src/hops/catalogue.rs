//! The catalogue: one table, a row per hop. Adding a hop is a row here, a name in `skbtrace_common::HopId`, and one
//! line in the kernel side.
//!
//! Rows stand in the order in which a packet meets them, from a sending process to a receiving one. Argument
//! positions are those of current kernels and serve only where a kernel has no BTF for the function; the plan takes
//! the true ones from BTF.

use skbtrace_common::{HopId, NO_ARG, hop_flags};

use super::row::{Backend, DeviceAt, Hop, Role};

/// The row of a hop.
#[must_use]
pub fn hop(id: HopId) -> &'static Hop {
    &CATALOGUE[id as usize]
}

/// The hop of this name, if there is one.
#[must_use]
pub fn named(name: &str) -> Option<HopId> {
    HopId::ALL.iter().copied().find(|id| id.name() == name)
}

/// Every hop, in the order of [`HopId`].
pub static CATALOGUE: [Hop; skbtrace_common::HOP_COUNT] = [
    Hop {
        ack: Some(4),
        ..Hop::function(
            HopId::TcpTransmitSkb,
            Role::Output,
            1,
            "TCP sends a segment: it keeps this sk_buff until it is acknowledged, and gives a clone of it a header.",
        )
    }
    .on(DeviceAt::Socket(0))
    .sock(0)
    .flags(hop_flags::TEMPLATE),
    Hop::function(
        HopId::IpQueueXmit,
        Role::Output,
        1,
        "TCP hands the segment to IPv4, which looks up the route, or takes the socket's, and writes the IP header.",
    )
    .on(DeviceAt::Socket(0))
    .sock(0)
    .flags(hop_flags::ADOPT | hop_flags::ORIGIN),
    Hop::function(
        HopId::Ip6Xmit,
        Role::Output,
        1,
        "TCP hands the segment to IPv6, which writes the IP header; netfilter's LOCAL_OUT comes next.",
    )
    .on(DeviceAt::Route)
    .sock(0)
    .flags(hop_flags::ADOPT | hop_flags::ORIGIN),
    Hop::function(
        HopId::IpOutput,
        Role::Send,
        2,
        "IPv4 has routed the packet and sends it: netfilter's POSTROUTING comes next, then the neighbour's address.",
    )
    .on(DeviceAt::Route),
    Hop::function(
        HopId::IpMcOutput,
        Role::Send,
        2,
        "IPv4 has routed the packet and sends it to many: a clone comes back to this host, if somebody here listens.",
    )
    .on(DeviceAt::Route),
    Hop::function(HopId::Ip6Output, Role::Send, 2, "IPv6 has routed the packet and sends it.").on(DeviceAt::Route),
    Hop::function(
        HopId::IpDoFragment,
        Role::Split,
        2,
        "The packet is larger than the MTU of the device it leaves by: it is cut into fragments, each with an IP header.",
    )
    .on(DeviceAt::Route),
    Hop::function(
        HopId::Ip6Fragment,
        Role::Split,
        2,
        "The packet is larger than the MTU: IPv6 cuts it into fragments, which only a sender may do.",
    )
    .on(DeviceAt::Route),
    Hop::function(
        HopId::NfHookSlow,
        Role::Netfilter,
        0,
        "Netfilter has rules at this hook: nftables, iptables, NAT and connection tracking look at the packet in turn.",
    )
    .on(DeviceAt::Hook(1))
    .hook_state(1)
    .flags(hop_flags::ORIGIN),
    Hop::function(
        HopId::DevQueueXmit,
        Role::Transmit,
        0,
        "The packet enters the link layer: tc egress runs here, then the queueing discipline, if the device has one.",
    ),
    Hop::tracepoint(
        HopId::NetDevQueue,
        "The packet has passed tc egress and a queue of the device was chosen: the queueing discipline, if any, comes next.",
    )
    .role(Role::Transmit)
    .on(DeviceAt::Skb)
    .only(Backend::Tracepoint),
    Hop::tracepoint(
        HopId::QdiscEnqueue,
        "The device has a queueing discipline: the packet waits in it until it may leave.",
    )
    .role(Role::Transmit)
    .on(DeviceAt::Skb)
    .at(2)
    .only(Backend::Tracepoint),
    Hop::function(
        HopId::SkbSegment,
        Role::Split,
        0,
        "The device cannot take so large a packet: GSO cuts it into segments that fit the MTU, each a packet of its own.",
    )
    .on(DeviceAt::None),
    Hop::tracepoint(
        HopId::NetDevStartXmit,
        "The queueing discipline, if any, has let the packet go: dev_hard_start_xmit hands it to the device's driver.",
    )
    .role(Role::Transmit)
    .on(DeviceAt::Arg(1)),
    Hop::function(
        HopId::VlanDevHardStartXmit,
        Role::Transmit,
        0,
        "A VLAN device tags the frame and sends it on through the device below it.",
    )
    .module("8021q")
    .on(DeviceAt::Arg(1)),
    Hop::function(
        HopId::LoopbackXmit,
        Role::Cross,
        0,
        "Both addresses are in this netns, so the packet goes through lo and never touches a veth.",
    )
    .on(DeviceAt::Arg(1)),
    Hop::function(
        HopId::VethXmit,
        Role::Cross,
        0,
        "The veth driver's transmit function: there is no wire, it hands the packet straight to its peer.",
    )
    .module("veth")
    .on(DeviceAt::Arg(1))
    .to(DeviceAt::Peer),
    Hop::function(
        HopId::DevForwardSkb,
        Role::Cross,
        1,
        "The packet is scrubbed of what belongs to the sender's netns; eth_type_trans then makes the peer its device.",
    )
    .to(DeviceAt::Arg(0)),
    Hop::function(
        HopId::NetifRxInternal,
        Role::Enqueue,
        0,
        "The peer has received the packet: it looks for the CPU whose input queue is to take it.",
    ),
    Hop::function(
        HopId::EnqueueToBacklog,
        Role::Enqueue,
        0,
        "The packet is put into the CPU's input queue and a softirq is raised: from here on nobody waits for it.",
    ),
    Hop::tracepoint(
        HopId::NetifRx,
        "The peer has received the packet: it is put into a CPU's input queue, and from here on nobody waits for it.",
    )
    .role(Role::Enqueue)
    .on(DeviceAt::Skb)
    .only(Backend::Tracepoint),
    Hop::function(
        HopId::VethXdpRcvSkb,
        Role::Receive,
        1,
        "The veth's own NAPI poll, in use with XDP or GRO, took the packet from the veth's ring; an XDP program runs here.",
    )
    .module("veth"),
    Hop::function(
        HopId::NapiGroReceive,
        Role::Receive,
        1,
        "GRO looks whether the packet continues one that it holds: then the two go up the stack as one.",
    ),
    Hop::function(
        HopId::GroReceiveSkb,
        Role::Receive,
        1,
        "GRO looks whether the packet continues one that it holds: then the two go up the stack as one.",
    ),
    Hop::tracepoint(
        HopId::NapiGroReceiveEntry,
        "GRO looks whether the packet continues one that it holds: then the two go up the stack as one.",
    )
    .role(Role::Receive)
    .on(DeviceAt::Skb)
    .only(Backend::Tracepoint),
    Hop::function(
        HopId::SkbGroReceive,
        Role::Merge,
        1,
        "GRO appends the packet's payload to the packet that it continues; the rest of it is freed.",
    )
    .appended_to(0),
    Hop::tracepoint(
        HopId::NetifReceiveSkb,
        "The packet enters the stack (__netif_receive_skb_core): taps see it, tc ingress and the rx_handler come next.",
    )
    .role(Role::Receive)
    .on(DeviceAt::Skb),
    Hop::function(
        HopId::VlanDoReceive,
        Role::Receive,
        0,
        "The frame has a VLAN tag and there is a device for it: the packet becomes that device's, without the tag.",
    )
    .indirect(),
    Hop::function(
        HopId::BrHandleFrame,
        Role::Receive,
        0,
        "The softirq took the packet from the queue; the device is a bridge port, so its rx_handler gets the frame.",
    )
    .module("bridge")
    .indirect(),
    Hop::function(
        HopId::BrNfPreRouting,
        Role::Netfilter,
        1,
        "br_netfilter shows the bridged frame to the IP hooks: iptables' PREROUTING sees it as if it were routed.",
    )
    .module("br_netfilter"),
    Hop::function(
        HopId::BrHandleFrameFinish,
        Role::Bridge,
        2,
        "The bridge learns the source address and looks up the destination: forward, flood, or up to this host.",
    )
    .module("bridge"),
    Hop::function(
        HopId::BrFlood,
        Role::Bridge,
        1,
        "The destination is unknown, or is everyone: the frame goes to every port but its own, a clone for each.",
    )
    .module("bridge"),
    Hop::function(
        HopId::BrForwardDecision,
        Role::Bridge,
        1,
        "The bridge knows the port of this destination: may the frame leave there (state, VLAN, isolation)?",
    )
    .module("bridge")
    .to(DeviceAt::Port(0)),
    Hop::function(
        HopId::BrForward,
        Role::Bridge,
        1,
        "The egress port is known: the packet leaves its ingress port for that one, through netfilter's FORWARD.",
    )
    .module("bridge")
    .to(DeviceAt::Port(0)),
    Hop::function(
        HopId::BrNfForwardIp,
        Role::Netfilter,
        1,
        "br_netfilter shows the bridged frame to iptables' FORWARD chain, whose policy may drop it.",
    )
    .module("br_netfilter"),
    Hop::function(
        HopId::BrNfForward,
        Role::Netfilter,
        1,
        "br_netfilter shows the bridged frame to iptables' FORWARD chain, whose policy may drop it.",
    )
    .module("br_netfilter"),
    Hop::function(
        HopId::BrDevQueuePushXmit,
        Role::Bridge,
        2,
        "The bridge puts the Ethernet header back and hands the frame to the egress port's device.",
    )
    .module("bridge"),
    Hop::function(
        HopId::BrPassFrameUp,
        Role::Bridge,
        0,
        "The frame is for this host, or for everyone: it goes up the stack as if the bridge device had received it.",
    )
    .module("bridge"),
    Hop::function(
        HopId::BrDevXmit,
        Role::Bridge,
        0,
        "This host itself sends through the bridge device: the bridge looks up the port, or floods to all.",
    )
    .module("bridge")
    .on(DeviceAt::Arg(1)),
    Hop::function(HopId::ArpRcv, Role::Receive, 0, "An ARP packet arrived: who has this address?").on(DeviceAt::Arg(1)),
    Hop::function(
        HopId::PacketRcv,
        Role::Tap,
        0,
        "A packet socket (tcpdump, a DHCP client) takes its copy of the packet.",
    )
    .on(DeviceAt::Arg(1)),
    Hop::function(
        HopId::TpacketRcv,
        Role::Tap,
        0,
        "A packet socket with a mapped ring (tcpdump) takes its copy of the packet.",
    )
    .on(DeviceAt::Arg(1)),
    Hop::function(
        HopId::IpRcv,
        Role::Receive,
        0,
        "IPv4 receives: header and checksum are checked, PREROUTING runs, then the route decides where it goes.",
    )
    .on(DeviceAt::Arg(1)),
    Hop::function(HopId::Ipv6Rcv, Role::Receive, 0, "IPv6 receives: the header is checked, the route decides.")
        .on(DeviceAt::Arg(1)),
    Hop::function(
        HopId::IpForward,
        Role::Forward,
        0,
        "The packet is not for this netns: it is routed on, its TTL falls by one, FORWARD runs.",
    ),
    Hop::function(HopId::Ip6Forward, Role::Forward, 0, "The packet is not for this netns: it is routed on."),
    Hop::function(
        HopId::IpDefrag,
        Role::Merge,
        1,
        "The packet is a fragment: it waits here for the others, and the last one to come makes the datagram whole.",
    ),
    Hop::function(
        HopId::Ipv6FragRcv,
        Role::Merge,
        0,
        "The packet is a fragment: it waits here for the others, and the last one to come makes the datagram whole.",
    ),
    Hop::function(
        HopId::IpLocalDeliver,
        Role::Receive,
        0,
        "The packet is for this netns: fragments are put together, netfilter's INPUT runs, the protocol is looked up.",
    ),
    Hop::function(
        HopId::Ip6Input,
        Role::Receive,
        0,
        "The packet is for this netns: netfilter's INPUT runs, extension headers and the protocol are looked up.",
    ),
    Hop::function(
        HopId::RawRcv,
        Role::Socket,
        1,
        "A raw socket (ping, a routing daemon) has asked for this protocol: it gets the packet or a clone of it.",
    )
    .sock(0),
    Hop::function(
        HopId::Rawv6Rcv,
        Role::Socket,
        1,
        "A raw socket (ping, a routing daemon) has asked for this protocol: it gets the packet or a clone of it.",
    )
    .sock(0),
    Hop::function(HopId::IcmpRcv, Role::Transport, 0, "ICMP receives: an echo request is answered in the kernel."),
    Hop::function(HopId::Icmpv6Rcv, Role::Transport, 0, "ICMPv6 receives: echoes, errors, neighbour discovery."),
    Hop::function(
        HopId::PingRcv,
        Role::Transport,
        0,
        "An echo reply looks for the ping socket that sent the request; a raw socket has had its clone before.",
    ),
    Hop::function(
        HopId::TcpV4Rcv,
        Role::Transport,
        0,
        "TCP receives: the checksum is checked (or trusted), the socket is looked up by addresses and ports.",
    ),
    Hop::function(HopId::TcpV6Rcv, Role::Transport, 0, "TCP receives over IPv6: the socket is looked up."),
    Hop::tracepoint(
        HopId::TcpProbe,
        "TCP has the segment, and its connection is established: it is queued for the reader, or used up if it is an ACK.",
    )
    .role(Role::Transport)
    .sock(0)
    .at(1)
    .flags(hop_flags::TRACKED_ONLY)
    .only(Backend::Tracepoint),
    Hop::function(
        HopId::TcpAddBacklog,
        Role::Transport,
        1,
        "A process holds the socket's lock: the segment waits in the socket's backlog until it lets go.",
    )
    .sock(0),
    Hop::function(
        HopId::TcpQueueRcv,
        Role::Socket,
        1,
        "The segment is in order: it joins the socket's receive queue, the reader is woken and an ACK is due.",
    )
    .sock(0),
    Hop::function(
        HopId::TcpTryCoalesce,
        Role::Merge,
        2,
        "The segment before is still unread: TCP tries to append this one to it, to save memory and wake-ups.",
    )
    .appended_to(1)
    .sock(0),
    Hop::function(
        HopId::SkbTryCoalesce,
        Role::Merge,
        1,
        "The payload moves to the packet before, page by page and without a copy, if there is room for more pages.",
    )
    .appended_to(0),
    Hop::function(
        HopId::UdpQueueRcvOneSkb,
        Role::Transport,
        1,
        "UDP found the socket; socket filters and the checksum come next.",
    )
    .sock(0),
    Hop::function(HopId::Udpv6QueueRcvOneSkb, Role::Transport, 1, "UDP over IPv6 found the socket.").sock(0),
    Hop::function(
        HopId::UdpEnqueueScheduleSkb,
        Role::Socket,
        1,
        "The datagram joins the socket's receive queue, if its buffer has room, and the reader is woken.",
    )
    .sock(0),
    Hop {
        copied: Some((1, 3)),
        ..Hop::function(
            HopId::SkbCopyDatagramIter,
            Role::Copy,
            0,
            "The process reads: the payload is copied from the packet into the buffer of the application.",
        )
    }
    .on(DeviceAt::None),
    Hop {
        copied: Some((NO_ARG, 1)),
        ..Hop::tracepoint(
            HopId::SkbCopyDatagramIovec,
            "The process reads: the payload is copied from the packet into the buffer of the application.",
        )
        .role(Role::Copy)
        .only(Backend::Tracepoint)
    },
    Hop::work(HopId::SkbClone, "A second sk_buff for the same data: a tap, a flood, or a socket beside the first wants it too."),
    Hop::work(HopId::SkbCopy, "The whole packet is copied, data and all: somebody wants to change it, and others hold it too."),
    Hop::work(
        HopId::SkbMorph,
        "The last fragment has come: its sk_buff loses its old self and becomes the datagram, with the headers of the first.",
    ),
    Hop::work(
        HopId::PskbExpandHead,
        "The headers move to new memory, for more room or because others share the old: what was read there is stale.",
    ),
    Hop::tracepoint(
        HopId::KfreeSkb,
        "The packet is dropped: the kernel frees it before its time, from 5.17 on with a reason.",
    ),
    Hop::tracepoint(HopId::ConsumeSkb, "The packet has served its purpose and is freed."),
    Hop::end(HopId::KfreeSkbPartial, "Its payload belongs to the packet before now; what is left of it is freed."),
    Hop::end(
        HopId::NapiSkbFreeStolenHead,
        "Its payload, with the page that it lies in, belongs to the packet before now; what is left of it is freed.",
    ),
    Hop::end(
        HopId::SkbReleaseHeadState,
        "The packet is freed by the code that used it up, as TCP does with what it has received.",
    ),
    Hop::end(
        HopId::SkbAttemptDeferFree,
        "The reader is done with the packet and leaves its freeing to the CPU that allocated it.",
    ),
];

#[cfg(test)]
mod tests;
