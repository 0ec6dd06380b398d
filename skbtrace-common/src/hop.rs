//! The hops: every place in the kernel at which a packet can be seen, by number.
//!
//! The number travels in events; what a hop means, teaches and needs is a row of the user side's catalogue.

macro_rules! hops {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// A hop. The eBPF program of a hop bears the hop's name.
        #[repr(u16)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[expect(missing_docs, reason = "each variant is the kernel function of that name; the catalogue describes it")]
        pub enum HopId { $($(#[$doc])* $variant,)* }

        impl HopId {
            /// Every hop, in the order of their numbers.
            pub const ALL: &'static [HopId] = &[$(HopId::$variant,)*];

            /// Name of the hop: the kernel function or tracepoint, and the eBPF program.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(HopId::$variant => $name,)* }
            }

            /// The hop of a number that came over the wire.
            #[must_use]
            pub fn from_number(number: u16) -> Option<HopId> {
                Self::ALL.get(usize::from(number)).copied()
            }
        }
    };
}

hops! {
    IpOutput = "ip_output",
    Ip6Output = "ip6_output",
    DevQueueXmit = "__dev_queue_xmit",
    LoopbackXmit = "loopback_xmit",
    VethXmit = "veth_xmit",
    DevForwardSkb = "__dev_forward_skb",
    NetifRxInternal = "netif_rx_internal",
    EnqueueToBacklog = "enqueue_to_backlog",
    BrHandleFrame = "br_handle_frame",
    BrHandleFrameFinish = "br_handle_frame_finish",
    BrForward = "__br_forward",
    BrDevQueuePushXmit = "br_dev_queue_push_xmit",
    BrPassFrameUp = "br_pass_frame_up",
    BrDevXmit = "br_dev_xmit",
    ArpRcv = "arp_rcv",
    PacketRcv = "packet_rcv",
    TpacketRcv = "tpacket_rcv",
    IpRcv = "ip_rcv",
    Ipv6Rcv = "ipv6_rcv",
    IpForward = "ip_forward",
    Ip6Forward = "ip6_forward",
    IcmpRcv = "icmp_rcv",
    Icmpv6Rcv = "icmpv6_rcv",
    TcpV4Rcv = "tcp_v4_rcv",
    TcpV6Rcv = "tcp_v6_rcv",
    TcpAddBacklog = "tcp_add_backlog",
    TcpQueueRcv = "tcp_queue_rcv",
    UdpQueueRcvOneSkb = "udp_queue_rcv_one_skb",
    Udpv6QueueRcvOneSkb = "udpv6_queue_rcv_one_skb",
    UdpEnqueueScheduleSkb = "__udp_enqueue_schedule_skb",
    SkbCopyDatagramIter = "skb_copy_datagram_iter",
    /// Raw tracepoint skb:kfree_skb.
    KfreeSkb = "kfree_skb",
    /// Raw tracepoint skb:consume_skb.
    ConsumeSkb = "consume_skb",
    /// The end of packets that are freed without a tracepoint (most of TCP's receive path).
    SkbReleaseHeadState = "skb_release_head_state",
    /// The reader is done with it: freeing is left to the CPU that allocated it.
    SkbAttemptDeferFree = "skb_attempt_defer_free",
}

/// How many hops there are.
pub const HOP_COUNT: usize = HopId::ALL.len();
