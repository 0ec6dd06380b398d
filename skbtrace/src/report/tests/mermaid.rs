//! The diagram of a packet.

use super::{garbled, stitched};
use crate::report::Mermaid;
use crate::store::testkit::names;
use crate::trace::Packet;
use crate::trace::testkit::{Lab, VETH2, in_order};
use crate::verdict::payload;

pub(super) fn diagram(packets: &[Packet], wanted: Option<u64>) -> Option<(u64, String)> {
    let mut diagram = Mermaid::new(wanted);
    for packet in packets {
        diagram.packet(packet, &payload(packet), &names());
    }
    diagram.finish()
}

#[test]
fn a_dropped_packet_ends_in_a_cross() {
    let (packets, _) = stitched(&Lab::new().udp_dropped(1, 7));
    insta::assert_snapshot!(diagram(&packets, None).unwrap().1, @r#"
    sequenceDiagram
        box transparent ns-calm2
        participant d0 as calmveth2
        end
        box transparent init
        participant d1 as calmveth2_peer
        end
        Note over d0,d1: #35;1 UDP 78.78.0.11#58;40000 → 78.78.0.10#58;9000 64 bytes<br/>DROPPED after 38.2 µs#58; NETFILTER_DROP
        Note over d0: ip_output<br/>+900 ns __dev_queue_xmit<br/>+1.3 µs veth_xmit<br/>+400 ns __dev_forward_skb
        d0->>d1: __dev_forward_skb
        Note over d1: +800 ns netif_rx_internal<br/>+300 ns enqueue_to_backlog<br/>+30.0 µs br_handle_frame (calmbr), waited 30.0 µs in the CPU#39;s queue<br/>+1.0 µs br_handle_frame_finish<br/>+1.0 µs __br_forward
        d1-xd1: DROPPED in nf_hook_slow+0x44#58; NETFILTER_DROP
    "#);
}

#[test]
fn the_stay_where_a_payload_changed_stands_out() {
    let bad = garbled(&mut Lab::new(), 1);
    insta::assert_snapshot!(diagram(&[bad], None).unwrap().1, @r#"
    sequenceDiagram
        box transparent ns-calm2
        participant d0 as calmveth2
        end
        box transparent init
        participant d1 as calmveth2_peer
        participant d2 as calmveth1_peer
        end
        box transparent ns-calm1
        participant d3 as calmveth1
        end
        Note over d0,d3: #35;1 TCP 78.78.0.11#58;58854 → 78.78.0.10#58;8000 [PSH ACK] seq 1+64#58; GARBLED between __dev_queue_xmit and veth_xmit<br/>delivered to python3[301] in 295 µs
        rect rgba(213, 94, 0, 0.25)
        Note over d0: ip_output<br/>+900 ns __dev_queue_xmit<br/>+1.3 µs veth_xmit<br/>+400 ns __dev_forward_skb
        Note over d0: GARBLED at veth_xmit#58; payload changed#58; it differs from somewhere in bytes 0 to 63 on
        end
        d0->>d1: __dev_forward_skb
        Note over d1: +800 ns netif_rx_internal<br/>+300 ns enqueue_to_backlog<br/>+37.1 µs br_handle_frame (calmbr), waited 37.1 µs in the CPU#39;s queue<br/>+1.1 µs br_handle_frame_finish<br/>+1.0 µs __br_forward
        d1->>d2: __br_forward
        Note over d2: +600 ns br_dev_queue_push_xmit<br/>+900 ns __dev_queue_xmit<br/>+1.3 µs veth_xmit<br/>+400 ns __dev_forward_skb
        d2->>d3: __dev_forward_skb
        Note over d3: +800 ns netif_rx_internal<br/>+300 ns enqueue_to_backlog<br/>+21.7 µs ip_rcv, waited 21.7 µs in the CPU#39;s queue<br/>+3.0 µs tcp_v4_rcv<br/>+3.3 µs tcp_queue_rcv<br/>+220 µs skb_copy_datagram_iter, waited 220 µs in the socket#39;s queue
        Note over d3: delivered to python3[301] in 295 µs
    "#);
}

#[test]
fn a_branch_stands_in_a_box_of_its_own() {
    let mut lab = Lab::new();
    let tapped = lab.udp(1, 7);
    let clone = lab.clone_of(2, &tapped[7]).hop(skbtrace_common::HopId::PacketRcv, 400, VETH2, 92).events;
    let (packets, _) = stitched(&in_order([tapped, clone]));
    let text = diagram(&packets, Some(1)).unwrap().1;
    let (before, branch) = text.split_once("    opt ").unwrap();
    assert!(before.contains("received") || before.contains("delivered"), "{text}");
    assert!(branch.starts_with("branch of #35;1 after ") && branch.contains("packet_rcv"), "{text}");
    assert_eq!(text.matches("\n    end\n").count(), 1 + text.matches("    box ").count());
}

#[test]
fn the_worst_packet_is_drawn_unless_one_is_asked_for() {
    let mut lab = Lab::new();
    let (mut packets, _) = stitched(&[lab.udp(1, 1), lab.udp_dropped(2, 2), lab.udp_dropped(3, 3)].concat());
    let number = |packets: &[Packet], wanted| diagram(packets, wanted).map(|(number, _)| number);
    assert_eq!(number(&packets, None), Some(2));
    assert_eq!(number(&packets, Some(3)), Some(3));
    assert_eq!(number(&packets, Some(4)), None);
    assert_eq!(number(&packets[..1], None), Some(1));
    let bad = Packet { number: Some(9), ..garbled(&mut lab, 9) };
    packets.push(bad);
    assert_eq!(number(&packets, None), Some(9));
}
