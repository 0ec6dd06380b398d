//! Filters that drop: nftables, iptables, ebtables, tc, XDP, connection tracking.

use std::net::{Ipv4Addr, SocketAddrV4};

use super::*;

/// Datagrams from a sender that goes on when it is told that it may not.
const BURST: By = By::Burst { to: SocketAddrV4::new(Ipv4Addr::new(78, 78, 0, 10), 8000), count: 20 };

const RULE: &[&str] = &["NETFILTER_DROP"];

pub(super) static PAGE: [Fault; 11] = [
    Fault {
        name: "nft-bridge-drop",
        teaches: "A rule of nftables in the bridge family drops what is forwarded; iptables shows nothing of it.",
        scenario: Scenario::Bridge,
        requires: None,
        steps: &[Step::Rule {
            place: HERE,
            family: "bridge",
            hook: "filter hook forward priority 0",
            rule: "udp dport 8000 counter drop",
            module: "nf_tables",
        }],
        show: traffic(UDP, Effect::Lost),
        verdict: dropped(
            HopId::BrForward,
            (HERE, SERVER_PORT),
            Cause::Nftables,
            "a rule of nftables in the bridge's forward chain",
            RULE,
        ),
    },
    Fault {
        name: "nft-ingress-drop",
        teaches: "A rule at the ingress of one device drops before the bridge and before every other table.",
        scenario: Scenario::Bridge,
        requires: None,
        steps: &[Step::Rule {
            place: HERE,
            family: "netdev",
            hook: "filter hook ingress device calmveth2_peer priority 0",
            rule: "udp dport 8000 counter drop",
            module: "nf_tables",
        }],
        show: traffic(UDP, Effect::Lost),
        verdict: dropped(
            HopId::EnqueueToBacklog,
            (HERE, CLIENT_PORT),
            Cause::Nftables,
            "a rule of nftables at the ingress of the port",
            RULE,
        ),
    },
    Fault {
        name: "nft-input-drop",
        teaches: "The receiver's own firewall drops: the packet has come all the way, and the sender hears nothing.",
        scenario: Scenario::Bridge,
        requires: None,
        steps: &[Step::Rule {
            place: SERVER,
            family: "inet",
            hook: "filter hook input priority 0",
            rule: "udp dport 8000 counter drop",
            module: "nf_tables",
        }],
        show: traffic(UDP, Effect::Lost),
        verdict: dropped(
            HopId::IpRcv,
            (SERVER, SERVER_VETH),
            Cause::Nftables,
            "a rule of nftables in the input chain",
            RULE,
        ),
    },
    Fault {
        name: "nft-output-drop",
        teaches: "The sender's own firewall drops in the output hook: the program is told EPERM, and no device ever \
                  sees the packet.",
        scenario: Scenario::Bridge,
        requires: None,
        steps: &[Step::Rule {
            place: CLIENT,
            family: "inet",
            hook: "filter hook output priority 0",
            rule: "udp dport 8000 counter drop",
            module: "nf_tables",
        }],
        show: Show { by: BURST, effect: Effect::Counted(Counter::Rule) },
        verdict: Verdict {
            span: Span::Unseen,
            beyond_tracepoints: UNFOLLOWED,
            ..dropped(
                HopId::IpOutput,
                (CLIENT, CLIENT_VETH),
                Cause::Nftables,
                "a rule of nftables in the output chain",
                RULE,
            )
        },
    },
    Fault {
        name: "nft-postrouting-drop",
        teaches: "The same one hook later: the route is chosen, and the packet ends between IP and the device.",
        scenario: Scenario::Bridge,
        requires: None,
        steps: &[Step::Rule {
            place: CLIENT,
            family: "inet",
            hook: "filter hook postrouting priority 0",
            rule: "udp dport 8000 counter drop",
            module: "nf_tables",
        }],
        show: Show { by: BURST, effect: Effect::Counted(Counter::Rule) },
        verdict: Verdict {
            beyond_tracepoints: UNFOLLOWED,
            ..dropped(
                HopId::IpOutput,
                (CLIENT, CLIENT_VETH),
                Cause::Nftables,
                "a rule of nftables in the postrouting chain",
                RULE,
            )
        },
    },
    Fault {
        name: "conntrack-invalid",
        teaches: "A firewall drops what belongs to no connection that it knows: here the answer to a SYN that went \
                  another way, as with asymmetric routes.",
        scenario: Scenario::Bridge,
        requires: None,
        steps: &[Step::Rule {
            place: SERVER,
            family: "inet",
            hook: "filter hook input priority 0",
            rule: "ct state invalid counter drop",
            module: "nf_conntrack",
        }],
        show: Show { by: By::Forged(Forged::SynAck), effect: Effect::Counted(Counter::Rule) },
        verdict: dropped(
            HopId::IpRcv,
            (SERVER, SERVER_VETH),
            Cause::Nftables,
            "a rule of nftables drops what connection tracking calls invalid",
            RULE,
        ),
    },
    Fault {
        name: "iptables-forward-policy",
        teaches: "Something has loaded br_netfilter and set the policy of FORWARD to DROP, as container engines do: \
                  now bridged frames, which never were routed, must pass the firewall for routed packets.",
        scenario: Scenario::Bridge,
        requires: Some(Requires::NothingElseForwards),
        steps: &[
            Step::Table { family: "ip" },
            Step::BridgeNetfilter,
            run!(
                HERE,
                "ip link set dev calmbr type bridge nf_call_iptables 1",
                "ip link set dev calmbr type bridge nf_call_iptables 0"
            ),
            run!(HERE, "iptables -P FORWARD DROP", "iptables -P FORWARD ACCEPT", "ip_tables"),
        ],
        show: traffic(UDP, Effect::Lost),
        verdict: dropped(
            HopId::BrForward,
            (HERE, SERVER_PORT),
            Cause::Iptables,
            "the policy of iptables FORWARD is DROP, and br_netfilter makes bridged packets pass it",
            RULE,
        ),
    },
    Fault {
        name: "ebtables-drop",
        teaches: "A rule of ebtables drops IPv4 to one port and lets ARP pass: the neighbour answers, and nothing else \
                  does.",
        scenario: Scenario::Bridge,
        requires: None,
        steps: &[
            Step::Table { family: "bridge" },
            run!(
                HERE,
                "ebtables -A FORWARD -p IPv4 -o calmveth1_peer -j DROP",
                "ebtables -D FORWARD -p IPv4 -o calmveth1_peer -j DROP",
                "ebtables"
            ),
        ],
        show: traffic(UDP, Effect::Lost),
        verdict: dropped(
            HopId::BrForward,
            (HERE, SERVER_PORT),
            Cause::Ebtables,
            "a rule of ebtables in the FORWARD chain",
            RULE,
        ),
    },
    Fault {
        name: "tc-ingress-drop",
        teaches: "A tc filter at the receiver's ingress drops, before IP and before its firewall.",
        scenario: Scenario::Bridge,
        requires: None,
        steps: &[clsact!(SERVER, "calmveth1"), on_port!(SERVER, "calmveth1", "ingress", "drop", "act_gact")],
        show: traffic(UDP, Effect::Lost),
        verdict: dropped(
            HopId::EnqueueToBacklog,
            (SERVER, SERVER_VETH),
            Cause::TcFilter,
            "a tc filter at the ingress of the device",
            &["TC_INGRESS"],
        ),
    },
    Fault {
        name: "tc-egress-drop",
        teaches: "A tc filter at the egress of the bridge port drops what the bridge has already sent.",
        scenario: Scenario::Bridge,
        requires: None,
        steps: &[clsact!(HERE, "calmveth1_peer"), on_port!(HERE, "calmveth1_peer", "egress", "drop", "act_gact")],
        show: traffic(UDP, Effect::Lost),
        verdict: dropped(
            HopId::DevQueueXmit,
            (HERE, SERVER_PORT),
            Cause::TcFilter,
            "a tc filter at the egress of the port",
            &["TC_EGRESS"],
        ),
    },
    Fault {
        name: "xdp-drop",
        teaches: "An XDP program drops: no counter of the firewall moves, and tcpdump on the device shows nothing.",
        scenario: Scenario::Bridge,
        requires: None,
        steps: &[Step::Program {
            place: SERVER,
            program: Program::XdpDrop,
            run: "ip link set dev calmveth1 xdp pinned /sys/fs/bpf/skbtrace-lab",
            undo: "ip link set dev calmveth1 xdp off",
        }],
        show: traffic(UDP, Effect::Lost),
        verdict: Verdict {
            beyond_tracepoints: Some(
                "a packet that is freed as used up behind net_dev_start_xmit is to them one that a device has sent: no hop of \
                 theirs tells a veth from a network card",
            ),
            ..dropped(
                HopId::DevForwardSkb,
                (SERVER, SERVER_VETH),
                Cause::Xdp,
                "an XDP program drops",
                // The veth has copied the frame for the program: the packet ends as used up, the copy as a free page.
                &[],
            )
        },
    },
];
