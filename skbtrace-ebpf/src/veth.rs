//! drivers/net/veth.c: a frame crosses from one end of a pair to the other.

crate::kprobes! {
    veth_xmit = VethXmit,
    veth_xdp_rcv_skb = VethXdpRcvSkb,
}
