//! net/ipv4 and net/ipv6: a packet is sent, received, or routed on.

crate::kprobes! {
    __ip_queue_xmit = IpQueueXmit,
    ip6_xmit = Ip6Xmit,
    ip_output = IpOutput,
    ip_mc_output = IpMcOutput,
    ip6_output = Ip6Output,
    ip_do_fragment = IpDoFragment,
    ip6_fragment = Ip6Fragment,
    arp_rcv = ArpRcv,
    ip_rcv = IpRcv,
    ipv6_rcv = Ipv6Rcv,
    ip_forward = IpForward,
    ip6_forward = Ip6Forward,
    ip_defrag = IpDefrag,
    ipv6_frag_rcv = Ipv6FragRcv,
    ip_local_deliver = IpLocalDeliver,
    ip6_input = Ip6Input,
}
