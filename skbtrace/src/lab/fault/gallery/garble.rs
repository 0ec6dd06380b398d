//! Payload that changes on the way. Between two veths of one machine the checksum is left to the device and never
//! filled in, so the receiver has nothing to check: only a comparison of the payload from hop to hop finds the place.

use super::*;

/// Where tc's egress filters and the root qdisc are: behind the call that hands a packet to a device.
const EGRESS: (HopId, HopId) = (HopId::DevQueueXmit, HopId::VethXmit);
/// Where tc's ingress filters and generic XDP are on a bridge port.
const PORT_INGRESS: (HopId, HopId) = (HopId::EnqueueToBacklog, HopId::BrHandleFrame);
/// The same on a device that IP receives from.
const INGRESS: (HopId, HopId) = (HopId::EnqueueToBacklog, HopId::IpRcv);

const PEDIT: &str = "a tc filter rewrites a byte (pedit) and leaves the checksum as it is";

pub(super) static PAGE: [Fault; 15] = [
    Fault {
        name: "pedit-port-egress",
        teaches: "A tc filter on the bridge port to the server inverts one byte of payload: on a veth no checksum is \
                  ever filled in, so the application reads it without an error.",
        scenario: Scenario::Bridge,
        requires: None,
        steps: &[clsact!(HERE, "calmveth1_peer"), on_port!(HERE, "calmveth1_peer", "egress", invert!(), "act_pedit")],
        show: traffic(TCP, Effect::Corrupt),
        verdict: garbled(EGRESS, (HERE, SERVER_PORT), Cause::TcFilter, PEDIT),
    },
    Fault {
        name: "pedit-port-ingress",
        teaches: "A tc filter changes a byte as the frame comes out of the client's veth, before the bridge sees it.",
        scenario: Scenario::Bridge,
        requires: None,
        steps: &[clsact!(HERE, "calmveth2_peer"), on_port!(HERE, "calmveth2_peer", "ingress", invert!(), "act_pedit")],
        show: traffic(UDP, Effect::Corrupt),
        verdict: garbled(PORT_INGRESS, (HERE, CLIENT_PORT), Cause::TcFilter, PEDIT),
    },
    Fault {
        name: "pedit-receiver-ingress",
        teaches: "A tc filter in the receiver's own namespace changes a byte in the last moment before IP: tcpdump on \
                  the receiving device, which comes first, still shows the right one.",
        scenario: Scenario::Bridge,
        requires: None,
        steps: &[clsact!(SERVER, "calmveth1"), on_port!(SERVER, "calmveth1", "ingress", invert!(), "act_pedit")],
        show: traffic(TCP, Effect::Corrupt),
        verdict: garbled(INGRESS, (SERVER, SERVER_VETH), Cause::TcFilter, PEDIT),
    },
    Fault {
        name: "pedit-sender-egress",
        teaches: "A tc filter in the sender's namespace changes a byte before the frame reaches the veth: every device \
                  beyond it shows the wrong byte, so none of them is to blame.",
        scenario: Scenario::Bridge,
        requires: None,
        steps: &[clsact!(CLIENT, "calmveth2"), on_port!(CLIENT, "calmveth2", "egress", invert!(), "act_pedit")],
        show: traffic(UDP, Effect::Corrupt),
        verdict: Verdict {
            beyond_tracepoints: ALREADY_CHANGED,
            ..garbled(EGRESS, (CLIENT, CLIENT_VETH), Cause::TcFilter, PEDIT)
        },
    },
    Fault {
        name: "pedit-with-checksum",
        teaches: "A tc filter changes a byte and puts the checksum right, as a proxy does: no checksum anywhere will \
                  ever notice, not even on a real wire.",
        scenario: Scenario::Bridge,
        requires: None,
        steps: &[
            clsact!(HERE, "calmveth1_peer"),
            on_port!(HERE, "calmveth1_peer", "egress", concat!(invert!(), " pipe action csum udp"), "act_csum"),
        ],
        show: traffic(UDP, Effect::Corrupt),
        verdict: garbled(
            EGRESS,
            (HERE, SERVER_PORT),
            Cause::TcFilter,
            "a tc filter rewrites a byte (pedit) and the checksum with it (csum)",
        ),
    },
    Fault {
        name: "pedit-loopback",
        teaches: "Traffic between two addresses of one namespace goes through lo, veth or not, and a filter on lo is \
                  all that it passes.",
        scenario: Scenario::Loopback,
        requires: None,
        steps: &[clsact!(SERVER, "lo"), on_port!(SERVER, "lo", "egress", invert!(), "act_pedit")],
        show: traffic(TCP, Effect::Corrupt),
        verdict: Verdict {
            beyond_tracepoints: ALREADY_CHANGED,
            ..garbled((HopId::DevQueueXmit, HopId::LoopbackXmit), (SERVER, "lo"), Cause::TcFilter, PEDIT)
        },
    },
    Fault {
        name: "tc-bpf-port-egress",
        teaches: "A tc BPF program on the bridge port writes into the payload, as a buggy load balancer does: \
                  `tc filter` shows its name and not what it does.",
        scenario: Scenario::Bridge,
        requires: None,
        steps: &[
            clsact!(HERE, "calmveth1_peer"),
            Step::Program {
                place: HERE,
                program: Program::TcInvert,
                run: "tc filter add dev calmveth1_peer egress protocol ip prio 1 bpf da pinned /sys/fs/bpf/skbtrace-lab",
                undo: "tc filter del dev calmveth1_peer egress prio 1",
            },
        ],
        show: traffic(TCP, Effect::Corrupt),
        verdict: garbled(EGRESS, (HERE, SERVER_PORT), Cause::TcFilter, "a tc BPF program writes into the packet"),
    },
    Fault {
        name: "tc-bpf-pair",
        teaches: "The same without a bridge: a BPF program on the receiving end of a lone veth pair.",
        scenario: Scenario::Pair,
        requires: None,
        steps: &[
            clsact!(SERVER, "calmveth1"),
            Step::Program {
                place: SERVER,
                program: Program::TcInvert,
                run: "tc filter add dev calmveth1 ingress protocol ip prio 1 bpf da pinned /sys/fs/bpf/skbtrace-lab",
                undo: "tc filter del dev calmveth1 ingress prio 1",
            },
        ],
        show: traffic(UDP, Effect::Corrupt),
        verdict: Verdict {
            beyond_tracepoints: Some(
                "behind netif_receive_skb, which comes before tc ingress, a datagram that is read in one piece comes by no hop \
                 of theirs",
            ),
            ..garbled(INGRESS, (SERVER, SERVER_VETH), Cause::TcFilter, "a tc BPF program writes into the packet")
        },
    },
    Fault {
        name: "xdp-receiver",
        teaches: "An XDP program on the receiver's veth writes into the frame before the kernel has made a packet of \
                  it; from then on the veth takes its NAPI path, and netif_rx is not called.",
        scenario: Scenario::Bridge,
        requires: None,
        steps: &[Step::Program {
            place: SERVER,
            program: Program::XdpInvert,
            run: "ip link set dev calmveth1 xdp pinned /sys/fs/bpf/skbtrace-lab",
            undo: "ip link set dev calmveth1 xdp off",
        }],
        show: traffic(UDP, Effect::Corrupt),
        verdict: garbled(
            (HopId::DevForwardSkb, HopId::NapiGroReceive),
            (SERVER, SERVER_VETH),
            Cause::Xdp,
            "an XDP program writes into the frame",
        ),
    },
    Fault {
        name: "xdp-generic-port",
        teaches: "Generic XDP on a bridge port runs on the finished packet, behind the CPU's queue and before the \
                  bridge.",
        scenario: Scenario::Bridge,
        requires: None,
        steps: &[Step::Program {
            place: HERE,
            program: Program::XdpInvert,
            run: "ip link set dev calmveth2_peer xdpgeneric pinned /sys/fs/bpf/skbtrace-lab",
            undo: "ip link set dev calmveth2_peer xdpgeneric off",
        }],
        show: traffic(UDP, Effect::Corrupt),
        verdict: garbled(PORT_INGRESS, (HERE, CLIENT_PORT), Cause::Xdp, "an XDP program writes into the packet"),
    },
    Fault {
        name: "nft-bridge-payload",
        teaches: "A rule of nftables in the bridge writes into the payload of what is forwarded: the firewall of a \
                  switch that nobody thinks of as one.",
        scenario: Scenario::Bridge,
        requires: None,
        steps: &[Step::Rule {
            place: HERE,
            family: "bridge",
            hook: "filter hook forward priority 0",
            rule: "udp dport 8000 @th,640,16 set 0x5a5a counter",
            module: "nf_tables",
        }],
        show: traffic(UDP, Effect::Corrupt),
        verdict: garbled(
            (HopId::BrForward, HopId::BrDevQueuePushXmit),
            (HERE, SERVER_PORT),
            Cause::Nftables,
            "a rule of nftables in the bridge writes into the packet",
        ),
    },
    Fault {
        name: "nft-input-payload",
        teaches: "A rule of nftables in the receiver's namespace writes into the payload between IP and TCP.",
        scenario: Scenario::Bridge,
        requires: None,
        steps: &[Step::Rule {
            place: SERVER,
            family: "inet",
            hook: "filter hook input priority 0",
            rule: "tcp dport 8000 @th,640,16 set 0x5a5a counter",
            module: "nf_tables",
        }],
        show: traffic(TCP, Effect::Corrupt),
        verdict: garbled(
            (HopId::IpRcv, HopId::TcpV4Rcv),
            (SERVER, SERVER_VETH),
            Cause::Nftables,
            "a rule of nftables in the input chain writes into the packet",
        ),
    },
    Fault {
        name: "sendfile-rewrite",
        teaches: "A program writes to a file that it has just sent with sendfile: the packet in the queue points to \
                  the page itself and carries whatever the page holds when it gets its turn.",
        scenario: Scenario::Bridge,
        requires: None,
        steps: &[qdisc!(CLIENT, "calmveth2", "netem delay 400ms", "sch_netem")],
        show: Show { by: By::Rewrite(Rewrite::Sendfile), effect: Effect::Corrupt },
        verdict: Verdict {
            held: true,
            ..garbled(
                EGRESS,
                (CLIENT, CLIENT_VETH),
                Cause::Sender,
                "the sender writes to pages of a file that sendfile has lent to packets in the queue",
            )
        },
    },
    Fault {
        name: "vmsplice-rewrite",
        teaches: "A program reuses memory that it has lent to the kernel by vmsplice: zero copy means that nobody has \
                  a copy.",
        scenario: Scenario::Bridge,
        requires: None,
        steps: &[qdisc!(HERE, "calmveth1_peer", "netem delay 400ms", "sch_netem")],
        show: Show { by: By::Rewrite(Rewrite::Vmsplice), effect: Effect::Corrupt },
        verdict: Verdict {
            held: true,
            ..garbled(
                EGRESS,
                (HERE, SERVER_PORT),
                Cause::Sender,
                "the sender writes to memory that vmsplice has lent to packets in the queue",
            )
        },
    },
    Fault {
        name: "netem-corrupt",
        teaches: "netem flips a bit, and fills in the checksum first, as a bad cable behind a good card does: the \
                  receiver finds out and drops, so the application sees a loss and not a wrong byte.",
        scenario: Scenario::Bridge,
        requires: None,
        steps: &[qdisc!(HERE, "calmveth1_peer", "netem corrupt 50%", "sch_netem")],
        show: traffic(UDP, Effect::Lost),
        verdict: Verdict {
            // Whatever header the bit is in; a reader of the socket that finds the checksum wrong gives no reason.
            reasons: &[
                "NOT_SPECIFIED",
                "UDP_CSUM",
                "IP_CSUM",
                "IP_INHDR",
                "PKT_TOO_SMALL",
                "OTHERHOST",
                "NO_SOCKET",
                "UNHANDLED_PROTO",
                "IP_INADDRERRORS",
                "IP_NOPROTO",
            ],
            ..garbled(EGRESS, (HERE, SERVER_PORT), Cause::Qdisc, "netem flips bits; the checksum tells the receiver")
        },
    },
];
