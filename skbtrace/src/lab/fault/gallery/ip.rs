//! Routes, and packets that IP, UDP or TCP will not have.

use std::net::{Ipv4Addr, SocketAddrV4};

use super::*;

/// An address that is the business of neither of the two: what the client sends there, the server has to route.
const BEYOND: By = By::Burst { to: SocketAddrV4::new(Ipv4Addr::new(10, 99, 0, 1), 8000), count: 20 };

const FORWARDING: Step = Step::Setting { place: SERVER, name: "net/ipv4/conf/calmveth1/forwarding", value: "1" };

/// Makes the server the client's router.
const VIA: Step = run!(CLIENT, "ip route add 10.99.0.0/24 via 78.78.0.10", "ip route del 10.99.0.0/24 via 78.78.0.10");

const fn by_ip(hop: HopId, cause: Cause, because: &'static str, reasons: &'static [&'static str]) -> Verdict {
    dropped(hop, (SERVER, SERVER_VETH), cause, because, reasons)
}

pub(super) static PAGE: [Fault; 9] = [
    Fault {
        name: "rp-filter",
        teaches: "Strict reverse path filtering: the packet came in by another device than the one that an answer \
                  would leave by, so IP takes its source for forged.",
        scenario: Scenario::Bridge,
        requires: None,
        steps: &[
            run!(CLIENT, "ip address add 10.99.0.11/32 dev calmveth2", "ip address del 10.99.0.11/32 dev calmveth2"),
            run!(SERVER, "ip route add 10.99.0.11/32 dev lo", "ip route del 10.99.0.11/32 dev lo"),
            Step::Setting { place: SERVER, name: "net/ipv4/conf/all/rp_filter", value: "1" },
            Step::Setting { place: SERVER, name: "net/ipv4/conf/calmveth1/rp_filter", value: "1" },
        ],
        show: counted(
            By::Traffic(Traffic { bind: Some(Ipv4Addr::new(10, 99, 0, 11)), ..UDP }),
            SERVER,
            "TcpExt",
            "IPReversePathFilter",
        ),
        verdict: by_ip(
            HopId::IpRcv,
            Cause::Route,
            "the reverse path filter: an answer would leave by another device",
            &["IP_RPFILTER"],
        ),
    },
    Fault {
        name: "ttl-expired",
        teaches: "The packet reaches the router with a TTL of 1, and the router tells the sender by ICMP.",
        scenario: Scenario::Bridge,
        requires: None,
        steps: &[
            FORWARDING,
            run!(
                CLIENT,
                "ip route add 10.99.0.0/24 via 78.78.0.10 hoplimit 1",
                "ip route del 10.99.0.0/24 via 78.78.0.10"
            ),
        ],
        show: counted(BEYOND, SERVER, "Ip", "InHdrErrors"),
        verdict: by_ip(HopId::IpForward, Cause::Route, "the TTL has run out", &["IP_INHDR"]),
    },
    Fault {
        name: "forwarding-off",
        teaches: "The router does not route: its forwarding is off on the device by which the packet came.",
        scenario: Scenario::Bridge,
        requires: None,
        steps: &[Step::Setting { place: SERVER, name: "net/ipv4/conf/calmveth1/forwarding", value: "0" }, VIA],
        show: counted(BEYOND, SERVER, "Ip", "InAddrErrors"),
        verdict: by_ip(
            HopId::IpRcv,
            Cause::Route,
            "forwarding is off, and the packet is for somebody else",
            &["IP_INADDRERRORS", "NOT_SPECIFIED"],
        ),
    },
    Fault {
        name: "no-route",
        teaches: "The router has no route to the destination and says so by ICMP.",
        scenario: Scenario::Bridge,
        requires: None,
        steps: &[
            FORWARDING,
            VIA,
            run!(
                SERVER,
                "ip route del default dev calmveth1",
                "ip route replace default dev calmveth1 proto static scope link"
            ),
        ],
        show: counted(BEYOND, SERVER, "IpExt", "InNoRoutes"),
        verdict: by_ip(
            HopId::IpRcv,
            Cause::Route,
            "no route to the destination",
            &["IP_OUTNOROUTES", "IP_INNOROUTES", "NOT_SPECIFIED"],
        ),
    },
    Fault {
        name: "blackhole-route",
        teaches: "A blackhole route takes the packet, moves no counter and tells nobody.",
        scenario: Scenario::Bridge,
        requires: None,
        steps: &[
            FORWARDING,
            VIA,
            run!(SERVER, "ip route add blackhole 10.99.0.0/24", "ip route del blackhole 10.99.0.0/24"),
        ],
        show: Show { by: BEYOND, effect: Effect::Counted(Counter::Vanished { place: SERVER }) },
        verdict: by_ip(HopId::IpRcv, Cause::Route, "a blackhole route", &["NOT_SPECIFIED"]),
    },
    Fault {
        name: "ip-checksum",
        teaches: "A tc filter changes the TTL and forgets the checksum of the IP header, which is never left to a \
                  device: IP drops the packet.",
        scenario: Scenario::Bridge,
        requires: None,
        steps: &[
            clsact!(HERE, "calmveth1_peer"),
            on_port!(HERE, "calmveth1_peer", "egress", "pedit ex munge ip ttl set 63", "act_pedit"),
        ],
        show: counted(By::Traffic(UDP), SERVER, "IpExt", "InCsumErrors"),
        verdict: by_ip(HopId::IpRcv, Cause::TcFilter, "the checksum of the IP header is wrong", &["IP_CSUM"]),
    },
    Fault {
        name: "udp-checksum",
        teaches: "A program sends UDP through a raw socket with a checksum that is wrong: there it is no device's \
                  business, so the receiver checks it and drops.",
        scenario: Scenario::Bridge,
        requires: None,
        steps: &[],
        show: counted(By::Forged(Forged::UdpChecksum), SERVER, "Udp", "InCsumErrors"),
        verdict: by_ip(HopId::IpRcv, Cause::Sender, "the sender's UDP checksum is wrong", &["UDP_CSUM"]),
    },
    Fault {
        name: "tcp-checksum",
        teaches: "The same for TCP, through a packet socket: the path begins at the device, IP never saw it go.",
        scenario: Scenario::Bridge,
        requires: None,
        steps: &[],
        show: counted(By::Forged(Forged::TcpChecksum), SERVER, "Tcp", "InCsumErrors"),
        verdict: by_ip(HopId::TcpV4Rcv, Cause::Sender, "the sender's TCP checksum is wrong", &["TCP_CSUM"]),
    },
    Fault {
        name: "no-listener",
        teaches: "Nobody listens on the port: the last step of a path that is in perfect order.",
        scenario: Scenario::Bridge,
        requires: None,
        steps: &[],
        show: counted(
            By::Burst { to: SocketAddrV4::new(Ipv4Addr::new(78, 78, 0, 10), 9), count: 20 },
            SERVER,
            "Udp",
            "NoPorts",
        ),
        verdict: by_ip(HopId::IpRcv, Cause::Socket, "no socket listens on the port", &["NO_SOCKET"]),
    },
];
