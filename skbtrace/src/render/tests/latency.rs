//! The table of times at the end.

use skbtrace_common::Event;

use super::{LabNames, stitch, text};
use crate::render::{Style, Text};
use crate::trace::testkit::Lab;
use crate::trace::{Losses, Summary};

/// What comes behind the packets.
fn books(summary: &Summary) -> String {
    let mut out = Vec::new();
    Text::new(Style::default()).summary(&mut out, summary, &LabNames).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn the_table_comes_when_two_were_delivered_and_before_the_books() {
    let mut lab = Lab::new();
    let one = [lab.udp(1, 1), lab.udp_dropped(2, 2), lab.datagram(3, 3).events].concat();
    assert!(!text(&one).contains("hop → hop"));
    let two = text(&[one, lab.udp(4, 4)].concat());
    let after = two.split_once("\nhop → hop").unwrap().1;
    let after: Vec<&str> = after.split_once("\n\n").unwrap().1.lines().collect();
    assert_eq!(
        after,
        [
            "dropped: 1 NETFILTER_DROP",
            "4 packets: 2 delivered, 1 dropped, 0 incomplete, 1 in flight · 0 events lost · every packet complete"
        ]
    );
}

#[test]
fn what_took_least_is_left_out_of_a_long_table_and_counted() {
    let mut lab = Lab::new();
    let dropped = lab.udp_dropped(5, 1);
    let mut slow = lab.udp(6, 2);
    for (step, event) in slow.iter_mut().enumerate() {
        event.time_ns += 1_000_000 * step as u64;
    }
    let kinds = [lab.tcp_data(1, 1, 9), lab.arp(3), lab.ping_loopback(4), dropped, slow, lab.tcp_coalesced(2, 9, 9)];
    let events: Vec<Event> = kinds.concat();
    let (_, summary) = stitch(&events, Losses::default());
    let table = books(&summary);
    insta::assert_snapshot!(table, @r#"
    hop → hop                                            count      p50      p90      p99      max
    ip_output → __dev_queue_xmit                             5   903 ns   1.0 ms   1.0 ms   1.0 ms
    __dev_queue_xmit → veth_xmit                             7   1.3 µs   1.0 ms   1.0 ms   1.0 ms
    veth_xmit → __dev_forward_skb                            7   401 ns   1.0 ms   1.0 ms   1.0 ms
    __dev_forward_skb → netif_rx_internal                    7   803 ns   1.0 ms   1.0 ms   1.0 ms
    netif_rx_internal → enqueue_to_backlog                   8   301 ns   1.0 ms   1.0 ms   1.0 ms
    enqueue_to_backlog → arp_rcv                             1   9.0 µs   9.0 µs   9.0 µs   9.0 µs  waiting in the CPU's queue
    enqueue_to_backlog → br_handle_frame                     3  37.1 µs  37.1 µs  37.1 µs  37.1 µs  waiting in the CPU's queue
    br_handle_frame → br_handle_frame_finish                 3   1.1 µs   1.1 µs   1.1 µs   1.1 µs
    br_handle_frame_finish → __br_forward                    3   1.0 µs   1.0 µs   1.0 µs   1.0 µs
    __br_forward → kfree_skb                                 1   2.5 µs   2.5 µs   2.5 µs   2.5 µs
    br_dev_queue_push_xmit → __dev_queue_xmit                2   900 ns   900 ns   900 ns   900 ns
    enqueue_to_backlog → ip_rcv                              4  21.8 µs   1.0 ms   1.0 ms   1.0 ms  waiting in the CPU's queue
    ip_rcv → udp_queue_rcv_one_skb                           1   1.0 ms   1.0 ms   1.0 ms   1.0 ms
    udp_queue_rcv_one_skb → __udp_enqueue_schedule_skb       1   1.0 ms   1.0 ms   1.0 ms   1.0 ms
    __udp_enqueue_schedule_skb → skb_copy_datagram_iter      1   1.0 ms   1.0 ms   1.0 ms   1.0 ms  waiting in the socket's queue
    skb_copy_datagram_iter → consume_skb                     1   1.0 ms   1.0 ms   1.0 ms   1.0 ms
    icmp_rcv → consume_skb                                   1   2.0 µs   2.0 µs   2.0 µs   2.0 µs
    ip_rcv → tcp_v4_rcv                                      2   3.0 µs   3.0 µs   3.0 µs   3.0 µs
    tcp_v4_rcv → tcp_queue_rcv                               2   3.3 µs   3.3 µs   3.3 µs   3.3 µs
    tcp_queue_rcv → skb_copy_datagram_iter                   1   220 µs   220 µs   220 µs   220 µs  waiting in the socket's queue
    … and 7 pairs that took less time in all
    first hop → delivery                                     5  75.3 µs   9.0 ms   9.0 ms   9.0 ms

    dropped: 1 NETFILTER_DROP
    also: 1 retransmission
    6 packets: 5 delivered, 1 dropped, 0 incomplete, 0 in flight · 0 events lost · every packet complete
    "#);
    // Nothing that was left out took longer than anything that was not.
    let (shown, out): (Vec<_>, Vec<_>) = summary
        .latency
        .pairs()
        .iter()
        .partition(|pair| table.contains(&format!("\n{} → {} ", pair.from.name(), pair.to.name())));
    let sums = |pairs: &[&crate::trace::Pair]| -> Vec<u64> { pairs.iter().map(|pair| pair.times.sum_ns()).collect() };
    assert_eq!(shown.len(), 20);
    assert!(sums(&shown).iter().min() >= sums(&out).iter().max());
    assert!(table.contains(&format!("\n… and {} pairs that took less time in all\n", out.len())));
}
