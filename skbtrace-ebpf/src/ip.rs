//! net/ipv4 and net/ipv6: a packet is sent, received, or routed on.

crate::kprobes! {
    ip_output = IpOutput,
    ip6_output = Ip6Output,
    arp_rcv = ArpRcv,
    ip_rcv = IpRcv,
    ipv6_rcv = Ipv6Rcv,
    ip_forward = IpForward,
    ip6_forward = Ip6Forward,
}
