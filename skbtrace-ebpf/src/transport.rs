//! net/ipv4/{tcp,udp,icmp}*.c and their like for IPv6: a packet reaches its protocol, its socket, its reader.

crate::kprobes! {
    __tcp_transmit_skb = TcpTransmitSkb,
    raw_rcv = RawRcv,
    rawv6_rcv = Rawv6Rcv,
    icmp_rcv = IcmpRcv,
    icmpv6_rcv = Icmpv6Rcv,
    ping_rcv = PingRcv,
    tcp_v4_rcv = TcpV4Rcv,
    tcp_v6_rcv = TcpV6Rcv,
    tcp_add_backlog = TcpAddBacklog,
    tcp_queue_rcv = TcpQueueRcv,
    tcp_try_coalesce = TcpTryCoalesce,
    udp_queue_rcv_one_skb = UdpQueueRcvOneSkb,
    udpv6_queue_rcv_one_skb = Udpv6QueueRcvOneSkb,
    __udp_enqueue_schedule_skb = UdpEnqueueScheduleSkb,
    skb_copy_datagram_iter = SkbCopyDatagramIter,
}

crate::tracepoints! {
    tcp_probe = TcpProbe,
    skb_copy_datagram_iovec = SkbCopyDatagramIovec,
}
