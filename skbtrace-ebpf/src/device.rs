//! net/core/dev.c, net/8021q and drivers/net/loopback.c: what every device does with a packet; net/packet: taps.

crate::kprobes! {
    __dev_queue_xmit = DevQueueXmit,
    vlan_dev_hard_start_xmit = VlanDevHardStartXmit,
    loopback_xmit = LoopbackXmit,
    __dev_forward_skb = DevForwardSkb,
    netif_rx_internal = NetifRxInternal,
    enqueue_to_backlog = EnqueueToBacklog,
    napi_gro_receive = NapiGroReceive,
    gro_receive_skb = GroReceiveSkb,
    vlan_do_receive = VlanDoReceive,
    packet_rcv = PacketRcv,
    tpacket_rcv = TpacketRcv,
}

crate::tracepoints! {
    net_dev_queue = NetDevQueue,
    qdisc_enqueue = QdiscEnqueue,
    net_dev_start_xmit = NetDevStartXmit,
    netif_rx = NetifRx,
    napi_gro_receive_entry = NapiGroReceiveEntry,
    netif_receive_skb = NetifReceiveSkb,
}
