//! net/core/dev.c and drivers/net/loopback.c: what every device does with a packet; net/packet: taps.

crate::kprobes! {
    __dev_queue_xmit = DevQueueXmit,
    loopback_xmit = LoopbackXmit,
    __dev_forward_skb = DevForwardSkb,
    netif_rx_internal = NetifRxInternal,
    enqueue_to_backlog = EnqueueToBacklog,
    packet_rcv = PacketRcv,
    tpacket_rcv = TpacketRcv,
}
