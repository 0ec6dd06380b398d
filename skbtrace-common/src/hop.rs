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

            /// What tells the hop where the kernel calls one program for all of them. Never 0, which stands for no cookie.
            #[must_use]
            pub const fn cookie(self) -> u64 {
                self as u64 + 1
            }
        }
    };
}

hops! {
    TcpTransmitSkb = "__tcp_transmit_skb",
    IpQueueXmit = "__ip_queue_xmit",
    Ip6Xmit = "ip6_xmit",
    IpOutput = "ip_output",
    IpMcOutput = "ip_mc_output",
    Ip6Output = "ip6_output",
    IpDoFragment = "ip_do_fragment",
    Ip6Fragment = "ip6_fragment",
    NfHookSlow = "nf_hook_slow",
    DevQueueXmit = "__dev_queue_xmit",
    /// Raw tracepoint net:net_dev_queue, in __dev_queue_xmit, behind tc egress.
    NetDevQueue = "net_dev_queue",
    /// Raw tracepoint qdisc:qdisc_enqueue, Linux 5.13 and later.
    QdiscEnqueue = "qdisc_enqueue",
    SkbSegment = "skb_segment",
    /// Raw tracepoint net:net_dev_start_xmit: dev_hard_start_xmit, packet by packet.
    NetDevStartXmit = "net_dev_start_xmit",
    VlanDevHardStartXmit = "vlan_dev_hard_start_xmit",
    LoopbackXmit = "loopback_xmit",
    VethXmit = "veth_xmit",
    DevForwardSkb = "__dev_forward_skb",
    NetifRxInternal = "netif_rx_internal",
    EnqueueToBacklog = "enqueue_to_backlog",
    /// Raw tracepoint net:netif_rx, in netif_rx_internal.
    NetifRx = "netif_rx",
    VethXdpRcvSkb = "veth_xdp_rcv_skb",
    NapiGroReceive = "napi_gro_receive",
    GroReceiveSkb = "gro_receive_skb",
    /// Raw tracepoint net:napi_gro_receive_entry.
    NapiGroReceiveEntry = "napi_gro_receive_entry",
    SkbGroReceive = "skb_gro_receive",
    /// Raw tracepoint net:netif_receive_skb, in __netif_receive_skb_core.
    NetifReceiveSkb = "netif_receive_skb",
    VlanDoReceive = "vlan_do_receive",
    BrHandleFrame = "br_handle_frame",
    BrNfPreRouting = "br_nf_pre_routing",
    BrHandleFrameFinish = "br_handle_frame_finish",
    BrFlood = "br_flood",
    BrForwardDecision = "br_forward",
    BrForward = "__br_forward",
    BrNfForwardIp = "br_nf_forward_ip",
    BrNfForward = "br_nf_forward",
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
    IpDefrag = "ip_defrag",
    Ipv6FragRcv = "ipv6_frag_rcv",
    IpLocalDeliver = "ip_local_deliver",
    Ip6Input = "ip6_input",
    RawRcv = "raw_rcv",
    Rawv6Rcv = "rawv6_rcv",
    IcmpRcv = "icmp_rcv",
    Icmpv6Rcv = "icmpv6_rcv",
    PingRcv = "ping_rcv",
    TcpV4Rcv = "tcp_v4_rcv",
    TcpV6Rcv = "tcp_v6_rcv",
    /// Raw tracepoint tcp:tcp_probe, in tcp_rcv_established.
    TcpProbe = "tcp_probe",
    TcpAddBacklog = "tcp_add_backlog",
    TcpQueueRcv = "tcp_queue_rcv",
    TcpTryCoalesce = "tcp_try_coalesce",
    SkbTryCoalesce = "skb_try_coalesce",
    UdpQueueRcvOneSkb = "udp_queue_rcv_one_skb",
    Udpv6QueueRcvOneSkb = "udpv6_queue_rcv_one_skb",
    UdpEnqueueScheduleSkb = "__udp_enqueue_schedule_skb",
    SkbCopyDatagramIter = "skb_copy_datagram_iter",
    /// Raw tracepoint skb:skb_copy_datagram_iovec, in skb_copy_datagram_iter.
    SkbCopyDatagramIovec = "skb_copy_datagram_iovec",
    SkbClone = "skb_clone",
    SkbCopy = "skb_copy",
    SkbMorph = "skb_morph",
    PskbExpandHead = "pskb_expand_head",
    /// Raw tracepoint skb:kfree_skb.
    KfreeSkb = "kfree_skb",
    /// Raw tracepoint skb:consume_skb.
    ConsumeSkb = "consume_skb",
    /// What is left of a packet whose bytes another one has taken over.
    KfreeSkbPartial = "kfree_skb_partial",
    /// The same after GRO has taken the page that holds the headers too.
    NapiSkbFreeStolenHead = "napi_skb_free_stolen_head",
    /// The end of packets that are freed without a tracepoint (most of TCP's receive path).
    SkbReleaseHeadState = "skb_release_head_state",
    /// The reader is done with it: freeing is left to the CPU that allocated it.
    SkbAttemptDeferFree = "skb_attempt_defer_free",
}

/// Number of the hop that a cookie stands for; none that there is, if it stands for none.
#[inline(always)]
#[must_use]
pub const fn hop_of_cookie(cookie: u64) -> u32 {
    (cookie as u32).wrapping_sub(1)
}

/// How many hops there are.
pub const HOP_COUNT: usize = HopId::ALL.len();

#[cfg(test)]
mod tests {
    use super::{HOP_COUNT, HopId, hop_of_cookie};

    #[test]
    fn a_cookie_leads_back_to_its_hop_and_none_leads_nowhere() {
        for hop in HopId::ALL {
            assert_eq!(hop_of_cookie(hop.cookie()), *hop as u32);
        }
        assert!(hop_of_cookie(0) >= HOP_COUNT as u32);
    }
}
