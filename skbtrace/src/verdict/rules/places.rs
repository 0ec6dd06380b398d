//! The rows of the table of ends that rest on a place: the function that freed the packet, or the hop, where the kernel gives no
//! reason, or one that says nothing.

use skbtrace_common::HopId;

use super::ends::{END, End, NOT_FORWARDED};
use super::table::{GRO, Reach};
use super::{Cause, Spot};

/// Every row that rests on a place.
pub(super) static PLACES: &[End] = &[
    End {
        functions: &["dst_discard", "blackhole", "ip_pkt_drop", "ip6_pkt_drop"],
        spots: &[Spot::Route],
        words: &["blackhole", "unreachable", "prohibit"],
        reach: Reach::Netns,
        cause: Cause::Route,
        because: "a route says to drop it: blackhole, prohibit or unreachable",
        advice: "ip route get ADDRESS, in that namespace",
        ..END
    },
    End {
        functions: &["ip_error"],
        spots: &[Spot::Route],
        words: &["forwarding", "no default route", "unreachable", "prohibit"],
        reach: Reach::Netns,
        cause: Cause::Route,
        because: "there is no route to the destination, or forwarding is off",
        advice: "ip route get ADDRESS, in that namespace; sysctl net.ipv4.conf.DEVICE.forwarding",
        ..END
    },
    End {
        functions: &["neigh_", "arp_error_report", "ndisc_error_report"],
        // Who does not answer may not have been asked: a port that is down.
        spots: &[Spot::Neighbour, Spot::Bridge],
        reach: Reach::Anywhere,
        cause: Cause::Neighbour,
        because: "nobody answers who has the next hop's address",
        advice: "ip neigh show, in the sender's namespace; is the address on a host behind this device, and does it answer ARP?",
        ..END
    },
    End {
        functions: &["__udp4_lib_rcv", "__udp6_lib_rcv"],
        spots: &[Spot::Neighbour],
        words: &["address "],
        reach: Reach::Netns,
        cause: Cause::Socket,
        because: "no socket listens on the port",
        advice: "ss -lnup, in that namespace: start the service, or correct address and port",
        ..END
    },
    End {
        hops: &[HopId::UdpEnqueueScheduleSkb],
        spots: &[Spot::Socket],
        reach: Reach::Netns,
        cause: Cause::Socket,
        because: "the receiver's socket buffer is full: it reads too slowly, or not at all",
        advice: "a faster reader, or a larger buffer: SO_RCVBUF in the program, net.core.rmem_max for its limit",
        ..END
    },
    End {
        hops: &[HopId::DevForwardSkb, HopId::VethXmit],
        spots: &[Spot::Device],
        settings: GRO,
        reach: Reach::Way,
        cause: Cause::Device,
        because: "the veth's other end does not take it: it is down, or its MTU is smaller than the packet",
        advice: "ip link show: give both ends the same MTU, and bring the other end up",
        ..END
    },
    End {
        hops: &[HopId::BrDevQueuePushXmit],
        spots: &[Spot::Device, Spot::BridgePostrouting],
        reach: Reach::Way,
        cause: Cause::Device,
        because: "the packet is longer than the MTU of the port that it was going to",
        advice: "ip link show: give the bridge and all its ports the same MTU",
        ..END
    },
    End {
        hops: &[
            HopId::BrHandleFrameFinish,
            HopId::BrFlood,
            HopId::BrForwardDecision,
            HopId::BrForward,
            HopId::BrHandleFrame,
            HopId::BrPassFrameUp,
            HopId::BrDevXmit,
        ],
        spots: &[Spot::Bridge, Spot::Device],
        reach: Reach::Netns,
        cause: Cause::Bridge,
        fixed: true,
        because: NOT_FORWARDED,
        advice: "bridge -d link show; bridge vlan show; bridge fdb show",
        ..END
    },
    End {
        hops: &[HopId::DevQueueXmit],
        spots: &[Spot::Queue, Spot::Egress, Spot::Device],
        cause: Cause::Qdisc,
        because: "it ended between the call that hands it to the device and the driver: a filter, the queue, or a device that is down",
        advice: "tc -s qdisc show dev DEVICE; tc filter show dev DEVICE egress",
        ..END
    },
    End {
        hops: &[
            HopId::NetifRxInternal,
            HopId::EnqueueToBacklog,
            HopId::NapiGroReceive,
            HopId::GroReceiveSkb,
            HopId::NetifReceiveSkb,
        ],
        spots: &[Spot::Ingress, Spot::Xdp],
        cause: Cause::TcFilter,
        because: "it ended before any protocol had it: a filter at the ingress of the device, or a program",
        advice: "tc filter show dev DEVICE ingress; nft list ruleset; ip link show dev DEVICE",
        ..END
    },
    End {
        hops: &[HopId::TcpV4Rcv, HopId::TcpV6Rcv],
        spots: &[Spot::Socket],
        reach: Reach::Netns,
        cause: Cause::Socket,
        because: "the listener did not take it: nobody listens, or its queue is full",
        advice: "ss -lnt, in that namespace: Recv-Q against Send-Q; net.core.somaxconn",
        ..END
    },
    End {
        hops: &[HopId::IpOutput, HopId::Ip6Output, HopId::IpMcOutput],
        spots: &[Spot::Neighbour, Spot::Route],
        reach: Reach::Netns,
        cause: Cause::Neighbour,
        because: "it never came to the device: the next hop's address is not known, or a route says to drop it",
        advice: "ip neigh show; ip route get ADDRESS, in that namespace",
        ..END
    },
    End {
        hops: &[HopId::IpRcv, HopId::Ipv6Rcv, HopId::IpForward, HopId::Ip6Forward, HopId::NfHookSlow],
        spots: &[Spot::Route],
        reach: Reach::Netns,
        cause: Cause::Route,
        because: "the route of the packet says to drop it, or there is none",
        advice: "ip route get ADDRESS, in that namespace",
        ..END
    },
    End {
        hops: &[HopId::IpLocalDeliver, HopId::Ip6Input, HopId::UdpQueueRcvOneSkb, HopId::Udpv6QueueRcvOneSkb],
        spots: &[Spot::Socket],
        reach: Reach::Netns,
        cause: Cause::Socket,
        because: "no socket took it",
        advice: "ss -lntup, in that namespace",
        ..END
    },
];
