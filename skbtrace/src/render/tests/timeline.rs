//! Timelines of made-up packets as text.

use skbtrace_common::HopId;

use super::{text, text_with};
use crate::render::Style;
use crate::trace::Losses;
use crate::trace::testkit::{BRIDGE, Lab, PEER1, PEER2, REASON_NETFILTER, VETH1, VETH2, in_order};

#[test]
fn a_segment_over_the_bridge() {
    let mut lab = Lab::new();
    let events = [lab.tcp_control(1, 0x02, 1000), lab.tcp_data(2, 1001, 77)].concat();
    insta::assert_snapshot!(text(&events), @r#"
    #1  TCP 78.78.0.11:58854 → 78.78.0.10:8000 [SYN] seq 0    received by TCP in 73.9 µs
        ns-calm2  calmveth2        ip_output                                   0      52  curl[312], csum partial
                                   __dev_queue_xmit                      +900 ns      66
                                   veth_xmit → calmveth2_peer            +1.3 µs      66
                                   __dev_forward_skb → calmveth2_peer    +400 ns      66
        init      calmveth2_peer   netif_rx_internal                     +800 ns      52
                                   enqueue_to_backlog                    +300 ns      52
                                   br_handle_frame (calmbr)             +37.1 µs      52  softirq, waited 37.1 µs in the CPU's queue
                                   br_handle_frame_finish                +1.1 µs      52
                                   __br_forward → calmveth1_peer         +1.0 µs      52
                  calmveth1_peer   br_dev_queue_push_xmit                +600 ns      52
                                   __dev_queue_xmit                      +900 ns      66
                                   veth_xmit → calmveth1                 +1.3 µs      66
                                   __dev_forward_skb → calmveth1         +400 ns      66
        ns-calm1  calmveth1        netif_rx_internal                     +800 ns      52
                                   enqueue_to_backlog                    +300 ns      52
                                   ip_rcv                               +21.7 µs      52  waited 21.7 µs in the CPU's queue, cpu 0→1
                                   tcp_v4_rcv                            +3.0 µs      32

    #2  TCP 78.78.0.11:58854 → 78.78.0.10:8000 [PSH ACK] seq 1+77    delivered to python3[301] in 295 µs
        ns-calm2  calmveth2        ip_output                                   0     129  curl[312], csum partial
                                   __dev_queue_xmit                      +900 ns     143
                                   veth_xmit → calmveth2_peer            +1.3 µs     143
                                   __dev_forward_skb → calmveth2_peer    +400 ns     143
        init      calmveth2_peer   netif_rx_internal                     +800 ns     129
                                   enqueue_to_backlog                    +300 ns     129
                                   br_handle_frame (calmbr)             +37.1 µs     129  softirq, waited 37.1 µs in the CPU's queue
                                   br_handle_frame_finish                +1.1 µs     129
                                   __br_forward → calmveth1_peer         +1.0 µs     129
                  calmveth1_peer   br_dev_queue_push_xmit                +600 ns     129
                                   __dev_queue_xmit                      +900 ns     143
                                   veth_xmit → calmveth1                 +1.3 µs     143
                                   __dev_forward_skb → calmveth1         +400 ns     143
        ns-calm1  calmveth1        netif_rx_internal                     +800 ns     129
                                   enqueue_to_backlog                    +300 ns     129
                                   ip_rcv                               +21.7 µs     129  waited 21.7 µs in the CPU's queue, cpu 0→1
                                   tcp_v4_rcv                            +3.0 µs     109
                                   tcp_queue_rcv                         +3.3 µs      77
                                   skb_copy_datagram_iter                +220 µs      77  python3[301], waited 220 µs in the socket's queue

    hop → hop                                        count      p50      p90      p99      max
    ip_output → __dev_queue_xmit                         2   900 ns   900 ns   900 ns   900 ns
    __dev_queue_xmit → veth_xmit                         4   1.3 µs   1.3 µs   1.3 µs   1.3 µs
    veth_xmit → __dev_forward_skb                        4   400 ns   400 ns   400 ns   400 ns
    __dev_forward_skb → netif_rx_internal                4   800 ns   800 ns   800 ns   800 ns
    netif_rx_internal → enqueue_to_backlog               4   300 ns   300 ns   300 ns   300 ns
    enqueue_to_backlog → br_handle_frame                 2  37.1 µs  37.1 µs  37.1 µs  37.1 µs  waiting in the CPU's queue
    br_handle_frame → br_handle_frame_finish             2   1.1 µs   1.1 µs   1.1 µs   1.1 µs
    br_handle_frame_finish → __br_forward                2   1.0 µs   1.0 µs   1.0 µs   1.0 µs
    __br_forward → br_dev_queue_push_xmit                2   600 ns   600 ns   600 ns   600 ns
    br_dev_queue_push_xmit → __dev_queue_xmit            2   900 ns   900 ns   900 ns   900 ns
    enqueue_to_backlog → ip_rcv                          2  21.7 µs  21.7 µs  21.7 µs  21.7 µs  waiting in the CPU's queue
    ip_rcv → tcp_v4_rcv                                  2   3.0 µs   3.0 µs   3.0 µs   3.0 µs
    tcp_v4_rcv → tcp_queue_rcv                           1   3.3 µs   3.3 µs   3.3 µs   3.3 µs
    tcp_queue_rcv → skb_copy_datagram_iter               1   220 µs   220 µs   220 µs   220 µs  waiting in the socket's queue
    skb_copy_datagram_iter → skb_release_head_state      1   1.2 µs   1.2 µs   1.2 µs   1.2 µs
    tcp_v4_rcv → skb_release_head_state                  1   2.0 µs   2.0 µs   2.0 µs   2.0 µs
    first hop → delivery                                 2  74.2 µs   295 µs   295 µs   295 µs

    2 packets: 2 delivered, 0 dropped, 0 incomplete, 0 in flight · 0 events lost · every packet complete
    "#);
}

#[test]
fn drops_with_and_without_a_reason() {
    let mut lab = Lab::new();
    let closed = lab.datagram(2, 2).process(401, "receiver").dropped(1_000, 0xabcd, None).events;
    insta::assert_snapshot!(text(&[lab.udp_dropped(1, 1), closed].concat()), @r#"
    #1  UDP 78.78.0.11:40000 → 78.78.0.10:9000 64 bytes    DROPPED after 38.2 µs: NETFILTER_DROP
        ns-calm2  calmveth2        ip_output                                   0      92  sender[400], csum partial
                                   __dev_queue_xmit                      +900 ns     106
                                   veth_xmit → calmveth2_peer            +1.3 µs     106
                                   __dev_forward_skb → calmveth2_peer    +400 ns     106
        init      calmveth2_peer   netif_rx_internal                     +800 ns      92
                                   enqueue_to_backlog                    +300 ns      92
                                   br_handle_frame (calmbr)             +30.0 µs      92  softirq, waited 30.0 µs in the CPU's queue
                                   br_handle_frame_finish                +1.0 µs      92
                                   __br_forward → calmveth1_peer         +1.0 µs      92
        DROPPED in nf_hook_slow+0x44: NETFILTER_DROP

    #2  UDP 78.78.0.10:40000 → 78.78.0.11:9000 64 bytes    DROPPED after 19.7 µs
        ns-calm1  calmveth1        ip_output                                   0      92  sender[400], csum partial
                                   __dev_queue_xmit                      +900 ns     106
                                   veth_xmit → calmveth2                 +1.3 µs     106
                                   __dev_forward_skb → calmveth2         +400 ns     106
        ns-calm2  calmveth2        netif_rx_internal                     +800 ns      92
                                   enqueue_to_backlog                    +300 ns      92
                                   ip_rcv                               +12.0 µs      92  softirq, waited 12.0 µs in the CPU's queue
                                   udp_queue_rcv_one_skb                 +2.0 µs      72
                                   __udp_enqueue_schedule_skb            +1.0 µs      72
        DROPPED in 0xabcd, no reason given by this kernel, after it was queued in the socket

    dropped: 1 without a reason, 1 NETFILTER_DROP
    2 packets: 0 delivered, 2 dropped, 0 incomplete, 0 in flight · 0 events lost · every packet complete
    "#);
}

#[test]
fn a_gap_is_shown_where_it_is() {
    let mut lab = Lab::new();
    let mut events = lab.tcp_data(1, 500, 77);
    events.drain(5..7);
    let unread = lab.datagram(2, 1).events;
    let losses = Losses { ring_full: 2, map_full: 1, ..Losses::default() };
    insta::assert_snapshot!(text_with(Style::default(), &[events, unread].concat(), losses), @r#"
    #1  TCP 78.78.0.11:58854 → 78.78.0.10:8000 [PSH ACK] seq 1+77    INCOMPLETE: 2 events lost
        ns-calm2  calmveth2        ip_output                                   0     129  curl[312], csum partial
                                   __dev_queue_xmit                      +900 ns     143
                                   veth_xmit → calmveth2_peer            +1.3 µs     143
                                   __dev_forward_skb → calmveth2_peer    +400 ns     143
        init      calmveth2_peer   netif_rx_internal                     +800 ns     129
                                   … 2 events lost
                                   br_handle_frame_finish               +38.5 µs     129  softirq
                                   __br_forward → calmveth1_peer         +1.0 µs     129
                  calmveth1_peer   br_dev_queue_push_xmit                +600 ns     129
                                   __dev_queue_xmit                      +900 ns     143
                                   veth_xmit → calmveth1                 +1.3 µs     143
                                   __dev_forward_skb → calmveth1         +400 ns     143
        ns-calm1  calmveth1        netif_rx_internal                     +800 ns     129
                                   enqueue_to_backlog                    +300 ns     129
                                   ip_rcv                               +21.7 µs     129  waited 21.7 µs in the CPU's queue, cpu 0→1
                                   tcp_v4_rcv                            +3.0 µs     109
                                   tcp_queue_rcv                         +3.3 µs      77
                                   skb_copy_datagram_iter                +220 µs      77  python3[301], waited 220 µs in the socket's queue
        INCOMPLETE: 2 events lost after netif_rx_internal; what was seen: delivered to python3[301]

    #2  UDP 78.78.0.10:40000 → 78.78.0.11:9000 64 bytes    INCOMPLETE: end not seen
        ns-calm1  calmveth1        ip_output                                   0      92  sender[400], csum partial
                                   __dev_queue_xmit                      +900 ns     106
                                   veth_xmit → calmveth2                 +1.3 µs     106
                                   __dev_forward_skb → calmveth2         +400 ns     106
        ns-calm2  calmveth2        netif_rx_internal                     +800 ns      92
                                   enqueue_to_backlog                    +300 ns      92
                                   ip_rcv                               +12.0 µs      92  softirq, waited 12.0 µs in the CPU's queue
                                   udp_queue_rcv_one_skb                 +2.0 µs      72
                                   __udp_enqueue_schedule_skb            +1.0 µs      72
        INCOMPLETE: its end was not seen, and events were lost in this run

    2 packets: 0 delivered, 0 dropped, 2 incomplete, 0 in flight · 2 events lost · 1 packet not followed (too many at once) · not everything was seen
    "#);
}

#[test]
fn branches_stand_below_the_packet() {
    let mut lab = Lab::new();
    let mut trip = lab.datagram(1, 3);
    trip.events.truncate(1);
    let trip = trip.cross(VETH2, PEER2, 92).hop(HopId::BrHandleFrame, 9_000, PEER2, 92);
    let trip = trip.hop(HopId::BrHandleFrameFinish, 900, PEER2, 92);
    let source = trip.events[trip.events.len() - 1];
    let tap = lab.clone_of(3, &trip.events[1]).hop(HopId::PacketRcv, 0, VETH2, 106).end(HopId::ConsumeSkb, 50).events;
    let flood = lab.clone_of(2, &source).hop(HopId::BrForward, 0, PEER2, 92).to(PEER1);
    let flood = flood.cross(PEER1, VETH1, 92).hop(HopId::IpRcv, 9_000, VETH1, 92).dropped(300, 0, Some(77)).events;
    let own = trip.hop(HopId::BrPassFrameUp, 20_000, PEER2, 92).hop(HopId::IpRcv, 800, BRIDGE, 92);
    let own = own.hop(HopId::UdpQueueRcvOneSkb, 700, BRIDGE, 72).end(HopId::ConsumeSkb, 500).events;
    insta::assert_snapshot!(text(&in_order([own, flood, tap])), @r#"
    #1  UDP 78.78.0.10:40000 → 78.78.0.11:9000 64 bytes    received by UDP in 54.3 µs
        ns-calm1  calmveth1        ip_output                                   0      92  sender[400], csum partial
        ns-calm2  calmveth2        __dev_queue_xmit                     +19.6 µs     106  softirq
                                   veth_xmit → calmveth2_peer            +1.3 µs     106
                                   __dev_forward_skb → calmveth2_peer    +400 ns     106
        init      calmveth2_peer   netif_rx_internal                     +800 ns      92
                                   enqueue_to_backlog                    +300 ns      92
                                   br_handle_frame (calmbr)              +9.0 µs      92  waited 9.0 µs in the CPU's queue
                                   br_handle_frame_finish                +900 ns      92
                                   br_pass_frame_up (calmbr)            +20.0 µs      92
                  calmbr           ip_rcv                                +800 ns      92
                                   udp_queue_rcv_one_skb                 +700 ns      72
        └ branch after __dev_queue_xmit: taken by a packet socket
          ns-calm2  calmveth2        packet_rcv                            +100 ns     106  cloned
        └ branch after br_handle_frame_finish: DROPPED after 13.0 µs: reason 77
          init      calmveth2_peer   __br_forward → calmveth1_peer         +100 ns      92  cloned
                    calmveth1_peer   __dev_queue_xmit                      +900 ns     106
                                     veth_xmit → calmveth1                 +1.3 µs     106
                                     __dev_forward_skb → calmveth1         +400 ns     106
          ns-calm1  calmveth1        netif_rx_internal                     +800 ns      92
                                     enqueue_to_backlog                    +300 ns      92
                                     ip_rcv                                +9.0 µs      92  waited 9.0 µs in the CPU's queue
          DROPPED: reason 77

    also: 2 clones
    1 packet: 1 delivered, 0 dropped, 0 incomplete, 0 in flight · 0 events lost · every packet complete
    "#);
}

#[test]
fn loopback_is_explained_once_and_arp_has_no_addresses() {
    let mut lab = Lab::new();
    let events = [lab.ping_loopback(1), lab.ping_loopback(2), lab.arp(3)].concat();
    insta::assert_snapshot!(text(&events), @r#"
    #1  ICMP 78.78.0.10 → 78.78.0.10 echo request id 77 seq 1    received by ICMP in 9.1 µs
        ns-calm1  lo               ip_output                                   0      84  ping[500], csum partial
                                   __dev_queue_xmit                      +700 ns      98
                                   loopback_xmit                         +600 ns      98
                                   netif_rx_internal                     +500 ns      84
                                   enqueue_to_backlog                    +300 ns      84
                                   ip_rcv                                +4.0 µs      84  softirq, waited 4.0 µs in the CPU's queue
                                   icmp_rcv                              +1.0 µs      64
        This traffic goes from a network namespace to itself: through lo (loopback_xmit), so it never touches the veth.

    #2  ICMP 78.78.0.10 → 78.78.0.10 echo request id 77 seq 1    received by ICMP in 9.1 µs
        ns-calm1  lo               ip_output                                   0      84  ping[500], csum partial
                                   __dev_queue_xmit                      +700 ns      98
                                   loopback_xmit                         +600 ns      98
                                   netif_rx_internal                     +500 ns      84
                                   enqueue_to_backlog                    +300 ns      84
                                   ip_rcv                                +4.0 µs      84  softirq, waited 4.0 µs in the CPU's queue
                                   icmp_rcv                              +1.0 µs      64

    #3  ARP    received by ARP in 12.5 µs
        ns-calm1  calmveth1        __dev_queue_xmit                            0      42  softirq, csum partial
                                   veth_xmit → calmveth2                 +1.3 µs      42
                                   __dev_forward_skb → calmveth2         +400 ns      42
        ns-calm2  calmveth2        netif_rx_internal                     +800 ns      28
                                   enqueue_to_backlog                    +300 ns      28
                                   arp_rcv                               +9.0 µs      28  waited 9.0 µs in the CPU's queue

    hop → hop                               count     p50      p90      p99      max
    ip_output → __dev_queue_xmit                2  700 ns   700 ns   700 ns   700 ns
    __dev_queue_xmit → loopback_xmit            2  600 ns   600 ns   600 ns   600 ns
    loopback_xmit → netif_rx_internal           2  500 ns   500 ns   500 ns   500 ns
    __dev_queue_xmit → veth_xmit                1  1.3 µs   1.3 µs   1.3 µs   1.3 µs
    veth_xmit → __dev_forward_skb               1  400 ns   400 ns   400 ns   400 ns
    __dev_forward_skb → netif_rx_internal       1  800 ns   800 ns   800 ns   800 ns
    netif_rx_internal → enqueue_to_backlog      3  300 ns   300 ns   300 ns   300 ns
    enqueue_to_backlog → arp_rcv                1  9.0 µs   9.0 µs   9.0 µs   9.0 µs  waiting in the CPU's queue
    arp_rcv → consume_skb                       1  700 ns   700 ns   700 ns   700 ns
    enqueue_to_backlog → ip_rcv                 2  4.0 µs   4.0 µs   4.0 µs   4.0 µs  waiting in the CPU's queue
    ip_rcv → icmp_rcv                           2  1.0 µs   1.0 µs   1.0 µs   1.0 µs
    icmp_rcv → consume_skb                      2  2.0 µs   2.0 µs   2.0 µs   2.0 µs
    first hop → delivery                        3  9.2 µs  12.5 µs  12.5 µs  12.5 µs

    3 packets: 3 delivered, 0 dropped, 0 incomplete, 0 in flight · 0 events lost · every packet complete
    "#);
}

#[test]
fn every_hop_is_explained_once() {
    let mut lab = Lab::new();
    let style = Style { explain: true, ..Style::default() };
    insta::assert_snapshot!(text_with(style, &[lab.udp(1, 1), lab.udp(2, 2)].concat(), Losses::default()), @r#"
    #1  UDP 78.78.0.10:40000 → 78.78.0.11:9000 64 bytes    delivered to receiver[401] in 23.7 µs
        ns-calm1  calmveth1        ip_output                                   0      92  sender[400], csum partial
                                     IPv4 has routed the packet and sends it: netfilter's POSTROUTING comes next, then the neighbour's address.
                                   __dev_queue_xmit                      +900 ns     106
                                     The packet enters the link layer: tc egress runs here, then the queueing discipline, if the device has one.
                                   veth_xmit → calmveth2                 +1.3 µs     106
                                     The veth driver's transmit function: there is no wire, it hands the packet straight to its peer.
                                   __dev_forward_skb → calmveth2         +400 ns     106
                                     The packet is scrubbed of what belongs to the sender's netns; eth_type_trans then makes the peer its device.
        ns-calm2  calmveth2        netif_rx_internal                     +800 ns      92
                                     The peer has received the packet: it looks for the CPU whose input queue is to take it.
                                   enqueue_to_backlog                    +300 ns      92
                                     The packet is put into the CPU's input queue and a softirq is raised: from here on nobody waits for it.
                                   ip_rcv                               +12.0 µs      92  softirq, waited 12.0 µs in the CPU's queue
                                     IPv4 receives: header and checksum are checked, PREROUTING runs, then the route decides where it goes.
                                   udp_queue_rcv_one_skb                 +2.0 µs      72
                                     UDP found the socket; socket filters and the checksum come next.
                                   __udp_enqueue_schedule_skb            +1.0 µs      72
                                     The datagram joins the socket's receive queue, if its buffer has room, and the reader is woken.
                                   skb_copy_datagram_iter                +5.0 µs      72  receiver[401], waited 5.0 µs in the socket's queue
                                     The process reads: the payload is copied from the packet into the buffer of the application.

    #2  UDP 78.78.0.10:40000 → 78.78.0.11:9000 64 bytes    delivered to receiver[401] in 23.7 µs
        ns-calm1  calmveth1        ip_output                                   0      92  sender[400], csum partial
                                   __dev_queue_xmit                      +900 ns     106
                                   veth_xmit → calmveth2                 +1.3 µs     106
                                   __dev_forward_skb → calmveth2         +400 ns     106
        ns-calm2  calmveth2        netif_rx_internal                     +800 ns      92
                                   enqueue_to_backlog                    +300 ns      92
                                   ip_rcv                               +12.0 µs      92  softirq, waited 12.0 µs in the CPU's queue
                                   udp_queue_rcv_one_skb                 +2.0 µs      72
                                   __udp_enqueue_schedule_skb            +1.0 µs      72
                                   skb_copy_datagram_iter                +5.0 µs      72  receiver[401], waited 5.0 µs in the socket's queue

    hop → hop                                            count      p50      p90      p99      max
    ip_output → __dev_queue_xmit                             2   900 ns   900 ns   900 ns   900 ns
    __dev_queue_xmit → veth_xmit                             2   1.3 µs   1.3 µs   1.3 µs   1.3 µs
    veth_xmit → __dev_forward_skb                            2   400 ns   400 ns   400 ns   400 ns
    __dev_forward_skb → netif_rx_internal                    2   800 ns   800 ns   800 ns   800 ns
    netif_rx_internal → enqueue_to_backlog                   2   300 ns   300 ns   300 ns   300 ns
    enqueue_to_backlog → ip_rcv                              2  12.0 µs  12.0 µs  12.0 µs  12.0 µs  waiting in the CPU's queue
    ip_rcv → udp_queue_rcv_one_skb                           2   2.0 µs   2.0 µs   2.0 µs   2.0 µs
    udp_queue_rcv_one_skb → __udp_enqueue_schedule_skb       2   1.0 µs   1.0 µs   1.0 µs   1.0 µs
    __udp_enqueue_schedule_skb → skb_copy_datagram_iter      2   5.0 µs   5.0 µs   5.0 µs   5.0 µs  waiting in the socket's queue
    skb_copy_datagram_iter → consume_skb                     2   600 ns   600 ns   600 ns   600 ns
    first hop → delivery                                     2  23.7 µs  23.7 µs  23.7 µs  23.7 µs

    2 packets: 2 delivered, 0 dropped, 0 incomplete, 0 in flight · 0 events lost · every packet complete
    "#);
}

#[test]
fn what_changes_on_the_way_is_remarked() {
    let mut lab = Lab::new();
    let mut trip = lab.datagram(1, 7);
    trip.events.truncate(7);
    (trip.events[0].gso_segs, trip.events[0].gso_size) = (3, 1448);
    let mut trip = trip.hop(HopId::IpForward, 900, VETH2, 92);
    (trip.next.ttl, trip.next.ip_summed, trip.next.vlan_tci, trip.next.mark) = (63, 0, 0x2005, 0x10);
    (trip.next.saddr, trip.next.sport) = (std::net::Ipv6Addr::LOCALHOST.octets(), 1);
    let mut trip = trip.hop(HopId::Ip6Output, 900, VETH2, 92);
    (trip.next.cloned, trip.next.users) = (1, 2);
    let trip = trip.hop(HopId::DevQueueXmit, 500, VETH2, 106);
    let out = text(&trip.events);
    let remarks: Vec<&str> = out
        .lines()
        .filter_map(|line| line.split_once("      92  ").or(line.split_once("     106  ")))
        .map(|cells| cells.1)
        .collect();
    assert_eq!(
        remarks,
        [
            "sender[400], csum partial, gso 3×1448",
            "gso off",
            "softirq, waited 12.0 µs in the CPU's queue",
            "csum partial→none, vlan 5, mark 0x10, ttl 63, now [::1]:1 → 78.78.0.11:9000",
            "cloned, shared by 2"
        ]
    );
}

#[test]
fn netfilter_is_named_where_it_dropped_the_packet_and_nowhere_else() {
    let last_words = |hop: HopId, reason| {
        let mut lab = Lab::new();
        let mut trip = lab.datagram(1, 1);
        trip.events.truncate(1);
        let mut trip = trip.hop(HopId::NfHookSlow, 900, VETH1, 92);
        if let Some(event) = trip.events.last_mut() {
            (event.nf_family, event.nf_hook) = (7, 2);
        }
        let out = text(&trip.hop(hop, 100, VETH1, 92).dropped(900, 0xabcd, reason).events);
        out.lines().find(|line| line.starts_with("    DROPPED")).map(|line| line.trim().to_owned())
    };
    let netfilter = Some(REASON_NETFILTER);
    assert_eq!(
        [
            (HopId::BrNfForwardIp, netfilter),
            (HopId::BrHandleFrame, netfilter),
            (HopId::BrForward, netfilter),
            (HopId::NfHookSlow, Some(9)),
            (HopId::NfHookSlow, None)
        ]
        .map(|(hop, reason)| last_words(hop, reason).unwrap()),
        [
            "DROPPED by netfilter at bridge FORWARD, in 0xabcd: NETFILTER_DROP",
            "DROPPED by netfilter at bridge PREROUTING, in 0xabcd: NETFILTER_DROP",
            "DROPPED in 0xabcd: NETFILTER_DROP",
            "DROPPED in 0xabcd: reason 9",
            "DROPPED in 0xabcd, no reason given by this kernel",
        ]
    );
}
