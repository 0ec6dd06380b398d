//! Bridges, ports, devices and neighbours that are not as they should be. None of these is a firewall, and none leaves
//! a rule to be found.

use std::net::Ipv4Addr;

use super::*;

/// A second address of the server, so that what is known of the first stays as it is.
const SECOND: Traffic = Traffic { server: Some(Ipv4Addr::new(78, 78, 0, 12)), ..UDP };

/// Gives the server its second address.
const ADDRESS: Step =
    run!(SERVER, "ip address add 78.78.0.12/24 dev calmveth1", "ip address del 78.78.0.12/24 dev calmveth1");

const fn by_bridge(because: &'static str, reasons: &'static [&'static str]) -> Verdict {
    dropped(HopId::BrHandleFrameFinish, (HERE, CLIENT_PORT), Cause::Bridge, because, reasons)
}

pub(super) static PAGE: [Fault; 9] = [
    Fault {
        name: "port-down",
        teaches: "The bridge port to the server is down: the bridge forgets who is behind it, floods, and has nobody \
                  left to flood to.",
        scenario: Scenario::Bridge,
        requires: None,
        steps: &[run!(HERE, "ip link set dev calmveth1_peer down", "ip link set dev calmveth1_peer up")],
        show: traffic(UDP, Effect::Lost),
        verdict: by_bridge("the port to the receiver is down", &["NOT_SPECIFIED", "NO_TX_TARGET"]),
    },
    Fault {
        name: "port-disabled",
        teaches: "The port is up and the bridge has disabled it, as a spanning tree daemon does with a port that it \
                  does not trust: `ip link` shows nothing of it, `bridge link` does.",
        scenario: Scenario::Bridge,
        requires: None,
        steps: &[run!(
            HERE,
            "bridge link set dev calmveth1_peer state disabled",
            "bridge link set dev calmveth1_peer state forwarding"
        )],
        show: traffic(UDP, Effect::Lost),
        verdict: by_bridge("the bridge has disabled the port to the receiver", &["NOT_SPECIFIED", "NO_TX_TARGET"]),
    },
    Fault {
        name: "port-isolated",
        teaches: "Both ports are isolated: each may talk to the others, and not to one another.",
        scenario: Scenario::Bridge,
        requires: None,
        steps: &[
            run!(
                HERE,
                "bridge link set dev calmveth1_peer isolated on",
                "bridge link set dev calmveth1_peer isolated off"
            ),
            run!(
                HERE,
                "bridge link set dev calmveth2_peer isolated on",
                "bridge link set dev calmveth2_peer isolated off"
            ),
        ],
        show: traffic(UDP, Effect::Lost),
        verdict: by_bridge("both ports are isolated", &["NOT_SPECIFIED", "NO_TX_TARGET"]),
    },
    Fault {
        name: "vlan-filtering",
        teaches: "The bridge filters by VLAN, and the server's port is no member of the VLAN that the client is in.",
        scenario: Scenario::Bridge,
        requires: None,
        steps: &[
            run!(
                HERE,
                "ip link set dev calmbr type bridge vlan_filtering 1",
                "ip link set dev calmbr type bridge vlan_filtering 0"
            ),
            run!(
                HERE,
                "bridge vlan del vid 1 dev calmveth1_peer",
                "bridge vlan add vid 1 dev calmveth1_peer pvid untagged"
            ),
        ],
        show: traffic(UDP, Effect::Lost),
        verdict: by_bridge(
            "the bridge filters by VLAN and the receiver's port is not in it",
            &["NOT_SPECIFIED", "NO_TX_TARGET", "VLAN_FILTER"],
        ),
    },
    Fault {
        name: "fdb-wrong-port",
        teaches: "A static entry says that the server's MAC address is behind the client's port: a bridge never sends \
                  a frame back where it came from.",
        scenario: Scenario::Bridge,
        requires: None,
        steps: &[run!(
            HERE,
            "bridge fdb replace 02:73:6b:62:74:01 dev calmveth2_peer master static sticky",
            "bridge fdb del 02:73:6b:62:74:01 dev calmveth2_peer master"
        )],
        show: traffic(UDP, Effect::Lost),
        verdict: by_bridge(
            "the forwarding entry points to the port that it came from",
            &["NOT_SPECIFIED", "NO_TX_TARGET"],
        ),
    },
    Fault {
        name: "mtu-peer",
        teaches: "The MTU of the receiving end is smaller than that of the sending end: a veth drops what is too long \
                  for its peer and tells nobody.",
        scenario: Scenario::Bridge,
        requires: None,
        steps: &[run!(SERVER, "ip link set dev calmveth1 mtu 400", "ip link set dev calmveth1 mtu 1500")],
        show: traffic(UDP, Effect::Lost),
        verdict: dropped(
            HopId::DevForwardSkb,
            (HERE, SERVER_PORT),
            Cause::Device,
            "the packet is longer than the MTU of the veth's other end",
            &["NOT_SPECIFIED", "PKT_TOO_BIG"],
        ),
    },
    Fault {
        name: "wrong-lladdr",
        teaches: "A static neighbour entry has a MAC address that nobody has: the bridge floods the frame, and the \
                  server's IP throws it away as somebody else's.",
        scenario: Scenario::Bridge,
        requires: None,
        steps: &[
            ADDRESS,
            run!(
                CLIENT,
                "ip neigh replace 78.78.0.12 lladdr 02:73:6b:62:74:99 dev calmveth2 nud permanent",
                "ip neigh del 78.78.0.12 dev calmveth2"
            ),
        ],
        show: traffic(SECOND, Effect::Lost),
        verdict: dropped(
            HopId::IpRcv,
            (SERVER, SERVER_VETH),
            Cause::Neighbour,
            "the frame has a MAC address that the receiver does not have",
            &["OTHERHOST"],
        ),
    },
    Fault {
        name: "arp-unanswered",
        teaches: "Nobody answers ARP for the address: packets wait for a neighbour that never comes, and end three \
                  seconds later, in the namespace of the sender.",
        scenario: Scenario::Bridge,
        requires: None,
        steps: &[ADDRESS, Step::Setting { place: SERVER, name: "net/ipv4/conf/calmveth1/arp_ignore", value: "8" }],
        show: traffic(Traffic { count: 20, rate: 5, ..SECOND }, Effect::Lost),
        verdict: Verdict {
            beyond_tracepoints: UNFOLLOWED,
            ..dropped(
                HopId::IpOutput,
                (CLIENT, CLIENT_VETH),
                Cause::Neighbour,
                "nobody answers ARP for the address",
                &["NEIGH_FAILED"],
            )
        },
    },
    Fault {
        name: "duplicate-address",
        teaches: "The host has the server's address too and has won the race of the ARP answers: packets are \
                  delivered, in perfect order, to the wrong machine, where nobody listens.",
        scenario: Scenario::Bridge,
        requires: None,
        steps: &[
            ADDRESS,
            // With the client as its peer, so that what the host answers goes nowhere else.
            run!(
                HERE,
                "ip address add 78.78.0.12 peer 78.78.0.11/32 dev calmbr",
                "ip address del 78.78.0.12 peer 78.78.0.11/32 dev calmbr"
            ),
            run!(
                CLIENT,
                "ip neigh replace 78.78.0.12 lladdr 02:73:6b:62:74:b0 dev calmveth2 nud permanent",
                "ip neigh del 78.78.0.12 dev calmveth2"
            ),
        ],
        show: traffic(SECOND, Effect::Lost),
        verdict: dropped(
            HopId::IpRcv,
            (HERE, "calmbr"),
            Cause::Neighbour,
            "another host has the address and got the packet",
            &["NO_SOCKET"],
        ),
    },
];
