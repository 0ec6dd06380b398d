//! The table of ends: what an end means by the reason that the kernel gives, or else by what the packet shows.
//!
//! Rows are tried in their order, those that rest on a reason or on a sign before those that rest on a place (`places`): kernels
//! before 5.17 give no reasons, and newer ones not everywhere.

use skbtrace_common::HopId;

use super::table::{CHECKSUMMING, GRO, Reach, SEGMENTS};
use super::{Cause, Sign, Spot};

/// A row of the table.
pub(super) struct End {
    /// Reasons; none: where the kernel gave none in particular.
    pub(super) reasons: &'static [&'static str],
    /// What stands for them where the kernel names no reason: one of these. None: nothing does.
    pub(super) signs: &'static [Sign],
    /// How the name of the function begins that freed it; none: any.
    pub(super) functions: &'static [&'static str],
    /// Hops; none: any.
    pub(super) hops: &'static [HopId],
    pub(super) spots: &'static [Spot],
    pub(super) causes: &'static [Cause],
    /// What a fact must speak of, in one of these words; none: of anything.
    pub(super) words: &'static [&'static str],
    /// Settings of devices that are told of too.
    pub(super) settings: &'static [&'static str],
    pub(super) reach: Reach,
    pub(super) writes: bool,
    pub(super) cause: Cause,
    pub(super) fixed: bool,
    pub(super) because: &'static str,
    /// The reason says it all: it is so whatever is found on the host.
    pub(super) sure: bool,
    pub(super) advice: &'static str,
}

/// What most rows have in common.
pub(super) const END: End = End {
    reasons: &[],
    signs: &[],
    functions: &[],
    hops: &[],
    spots: &[],
    causes: &[],
    words: &[],
    settings: &[],
    reach: Reach::Device,
    writes: false,
    cause: Cause::Device,
    fixed: false,
    because: "",
    sure: false,
    advice: "",
};

/// What a veth's poll took and freed.
const NOT_PASSED_ON: End = End {
    spots: &[Spot::Xdp, Spot::Ingress, Spot::Device],
    cause: Cause::Xdp,
    because: "an XDP program on the device did not pass it on",
    advice: WHICH_PROGRAM,
    ..END
};

const WHICH_PROGRAM: &str =
    "ip link show dev DEVICE: a line `prog/xdp` names the program; `ip link set dev DEVICE xdp off` takes it away";
const QDISC_FULL: &str = "the queueing discipline of the device threw it away: it is full, or loses packets on purpose";
const BROKEN: &str = "the sender's checksum is wrong, or something on the way rewrote the packet and not its checksum";
pub(super) const NOT_FORWARDED: &str =
    "the bridge has no port to send it to: down, disabled, isolated, not in its VLAN, or the one that it came from";

/// Every row that rests on a reason.
pub(super) static ENDS: &[End] = &[
    End {
        // At a hook that no hop tells.
        reasons: &["NETFILTER_DROP"],
        causes: &[Cause::Nftables, Cause::Iptables, Cause::Ebtables],
        reach: Reach::Netns,
        cause: Cause::Nftables,
        because: "a rule or a policy of netfilter drops",
        advice: "nft list ruleset; iptables -L -v -n; ebtables -L",
        ..END
    },
    End {
        reasons: &["TC_INGRESS"],
        spots: &[Spot::Ingress],
        causes: &[Cause::TcFilter],
        cause: Cause::TcFilter,
        because: "a tc filter at the ingress of the device drops",
        advice: "tc filter show dev DEVICE ingress",
        sure: true,
        ..END
    },
    End {
        reasons: &["TC_EGRESS"],
        spots: &[Spot::Egress],
        causes: &[Cause::TcFilter],
        cause: Cause::TcFilter,
        because: "a tc filter at the egress of the device drops",
        advice: "tc filter show dev DEVICE egress",
        sure: true,
        ..END
    },
    End {
        reasons: &["XDP"],
        spots: &[Spot::Ingress, Spot::Xdp],
        causes: &[Cause::Xdp],
        cause: Cause::Xdp,
        because: "an XDP program on the device drops",
        advice: WHICH_PROGRAM,
        sure: true,
        ..END
    },
    End { hops: &[HopId::VethXdpRcvSkb], ..NOT_PASSED_ON },
    End { signs: &[Sign::Polled], ..NOT_PASSED_ON },
    End {
        reasons: &["QDISC_DROP", "QDISC_OVERLIMIT", "QDISC_CONGESTED", "FQ_FLOW_LIMIT"],
        spots: &[Spot::Queue],
        cause: Cause::Qdisc,
        because: QDISC_FULL,
        advice: "tc -s qdisc show dev DEVICE: what it is, its limit, and how many it dropped",
        sure: true,
        ..END
    },
    End {
        reasons: &["CPU_BACKLOG"],
        cause: Cause::Device,
        because: "the input queue of the CPU is full: packets come faster than the softirq takes them",
        sure: true,
        advice: "sysctl -w net.core.netdev_max_backlog=10000",
        ..END
    },
    End {
        reasons: &["OTHERHOST"],
        signs: &[Sign::OtherHost],
        spots: &[Spot::Neighbour],
        words: &["lladdr"],
        reach: Reach::Anywhere,
        cause: Cause::Neighbour,
        because: "the frame has a MAC address that is not the receiver's: the sender's neighbour entry is wrong",
        sure: true,
        advice: "ip neigh show, in the sender's namespace: compare with the receiver's `ip link`; `ip neigh flush` asks anew",
        ..END
    },
    End {
        reasons: &["IP_RPFILTER", "IP_LOCAL_SOURCE", "IP_INVALID_SOURCE"],
        spots: &[Spot::Route],
        words: &["rp_filter"],
        reach: Reach::Netns,
        cause: Cause::Route,
        because: "the reverse path filter: an answer would not leave by the device that the packet came by",
        sure: true,
        advice: "sysctl -w net.ipv4.conf.DEVICE.rp_filter=2, and net.ipv4.conf.all.rp_filter likewise, or set the route right",
        ..END
    },
    End {
        reasons: &["IP_CSUM", "UDP_CSUM", "TCP_CSUM", "ICMP_CSUM", "SKB_CSUM", "CSUM"],
        signs: &[Sign::HeaderChecksum, Sign::TransportChecksum],
        settings: CHECKSUMMING,
        reach: Reach::Way,
        writes: true,
        cause: Cause::Sender,
        because: BROKEN,
        advice: "look for what rewrites packets on the way; if nothing does, the sender computes the checksum wrongly",
        ..END
    },
    End {
        reasons: &["IP_INHDR"],
        hops: &[HopId::IpForward, HopId::Ip6Forward],
        spots: &[Spot::Route],
        causes: &[Cause::Route],
        words: &["hoplimit"],
        reach: Reach::Anywhere,
        cause: Cause::Route,
        because: "the TTL has run out: the packet went round, or began with too small a one",
        sure: true,
        advice: "ip route get ADDRESS, on each router: look for a loop, or for a route with a hoplimit",
        ..END
    },
    End {
        reasons: &["IP_INHDR", "PKT_TOO_SMALL", "HDR_TRUNC", "IP_INVALID_DEST"],
        reach: Reach::Way,
        writes: true,
        cause: Cause::Sender,
        because: "the header is broken: the sender built it so, or something on the way rewrote it",
        advice: "look for what rewrites packets on the way; if nothing does, the sender builds them wrongly",
        ..END
    },
    End {
        reasons: &["IP_INADDRERRORS"],
        spots: &[Spot::Route],
        words: &["forwarding"],
        reach: Reach::Netns,
        cause: Cause::Route,
        because: "the packet is for another host, and forwarding is off on the device that it came by",
        advice: "sysctl -w net.ipv4.conf.DEVICE.forwarding=1, if this host is to route",
        ..END
    },
    End {
        reasons: &["IP_OUTNOROUTES", "IP_INNOROUTES", "IPV6_NDISC_FRAG"],
        spots: &[Spot::Route],
        words: &["no default route", "unreachable", "prohibit"],
        reach: Reach::Netns,
        cause: Cause::Route,
        because: "there is no route to the destination",
        advice: "ip route get ADDRESS, in that namespace",
        ..END
    },
    End {
        reasons: &["NO_SOCKET"],
        spots: &[Spot::Neighbour],
        words: &["address "],
        reach: Reach::Netns,
        cause: Cause::Socket,
        because: "no socket listens on the port",
        sure: true,
        advice: "ss -lntup, in that namespace: start the service, or correct address and port",
        ..END
    },
    End {
        reasons: &["SOCKET_RCVBUFF", "PROTO_MEM", "SOCKET_BACKLOG"],
        spots: &[Spot::Socket],
        reach: Reach::Netns,
        cause: Cause::Socket,
        because: "the receiver's socket buffer is full: it reads too slowly, or not at all",
        sure: true,
        advice: "a faster reader, or a larger buffer: SO_RCVBUF in the program, net.core.rmem_max for its limit",
        ..END
    },
    End {
        reasons: &["SOCKET_FILTER", "BPF_CGROUP_EGRESS"],
        spots: &[Spot::Socket],
        reach: Reach::Netns,
        cause: Cause::Socket,
        because: "a BPF program on the socket, or on its cgroup, refuses it",
        sure: true,
        advice: "bpftool cgroup tree; ss -0pb",
        ..END
    },
    End {
        reasons: &["NEIGH_FAILED", "NEIGH_QUEUEFULL", "NEIGH_DEAD", "NEIGH_CREATEFAIL", "NEIGH_HH_FILLFAIL"],
        // Who does not answer may not have been asked: a port that is down.
        spots: &[Spot::Neighbour, Spot::Bridge],
        reach: Reach::Anywhere,
        cause: Cause::Neighbour,
        because: "nobody answers who has the next hop's address",
        sure: true,
        advice: "ip neigh show, in the sender's namespace; is the address on a host behind this device, and does it answer ARP?",
        ..END
    },
    End {
        reasons: &["VLAN_FILTER", "NO_TX_TARGET", "BRIDGE_INGRESS_STP_STATE", "MAC_INVALID_SOURCE", "LOCAL_MAC"],
        spots: &[Spot::Bridge, Spot::Device],
        reach: Reach::Netns,
        cause: Cause::Bridge,
        fixed: true,
        because: NOT_FORWARDED,
        advice: "bridge -d link show; bridge vlan show; bridge fdb show",
        ..END
    },
    End {
        reasons: &["PKT_TOO_BIG", "FRAG_NEEDED"],
        spots: &[Spot::Device],
        words: &["MTU"],
        reach: Reach::Way,
        causes: &[Cause::Device],
        cause: Cause::Device,
        because: "the packet is longer than the MTU of the device that it was going to",
        sure: true,
        advice: "ip link show: give both ends and the bridge between the same MTU",
        ..END
    },
    End {
        reasons: &["SKB_GSO_SEG"],
        spots: &[Spot::Device],
        settings: SEGMENTS,
        reach: Reach::Way,
        cause: Cause::Device,
        because: "the packet had to be cut into segments, and could not be: its headers are not what they were when it was made",
        advice: "look for what rewrites or merges packets on the way; ethtool -k DEVICE: segmentation and GRO",
        ..END
    },
    End {
        reasons: &["DEV_READY", "DEV_HDR", "FULL_RING"],
        spots: &[Spot::Device],
        settings: GRO,
        cause: Cause::Device,
        because: "the device does not take packets: it is down, or its ring is full",
        advice: "ip -s link show dev DEVICE",
        ..END
    },
    End {
        reasons: &["FRAG_REASM_TIMEOUT", "FRAG_TOO_FAR", "DUP_FRAG"],
        reach: Reach::Way,
        cause: Cause::Device,
        because: "other fragments of its datagram did not come in time",
        advice: "find the drop of the other fragments, or send no more than the MTU",
        ..END
    },
];

/// What has no row.
pub(super) const OTHER: End = End {
    reach: Reach::Device,
    cause: Cause::Device,
    because: "the kernel's reason is all that is known",
    advice: "look the reason up in include/net/dropreason-core.h of the kernel's source",
    ..END
};
