//! The catalogue: one table, a row per hop. Adding a hop is a row here, a name in `skbtrace_common::HopId`, and one
//! line in the kernel side.
//!
//! Rows stand in the order in which a packet meets them, from a sending process to a receiving one. Argument
//! positions are those of current kernels and serve only where a kernel has no BTF for the function; the plan takes
//! the true ones from BTF.

use skbtrace_common::HopId;

/// How a hop is traced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// A kprobe on the entry of a function.
    Function,
    /// A raw tracepoint.
    Tracepoint,
}

/// What happens to the packet at a hop: what the stitching of timelines and the verdicts rest on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A layer above sends it: where a packet of this host begins.
    Send,
    /// It is handed to a device.
    Transmit,
    /// It crosses from one end of a veth pair to the other.
    Cross,
    /// It is put into the input queue of a CPU, and waits.
    Enqueue,
    /// It was taken from the queue and enters a layer: what passed since the hop before is mostly waiting.
    Receive,
    /// The bridge decides or moves.
    Bridge,
    /// IP decides to route it on.
    Forward,
    /// A transport protocol has it.
    Transport,
    /// It is put into a socket's queue.
    Socket,
    /// A process copies it out of the socket.
    Copy,
    /// A packet socket (tcpdump) takes its copy.
    Tap,
    /// The sk_buff is freed.
    End,
}

/// Where a function has the packet: the argument, and whether it is a pointer to the pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SkbAt {
    /// Position of the argument, from 0.
    pub arg: u8,
    /// A `struct sk_buff **`.
    pub indirect: bool,
}

/// Where a hop finds a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceAt {
    /// There is none.
    None,
    /// `skb->dev`.
    Skb,
    /// An argument that is a `struct net_device *`.
    Arg(u8),
    /// The device of the packet's route.
    Route,
    /// The device of an argument that is a `struct net_bridge_port *`.
    Port(u8),
    /// The peer of the first device, a veth.
    Peer,
}

/// A row of the catalogue.
#[derive(Clone, Copy, Debug)]
pub struct Hop {
    /// Its number, and by that its name.
    pub id: HopId,
    /// How it is traced.
    pub probe: Probe,
    /// The module that the function may live in; `None`: always in the kernel itself.
    pub module: Option<&'static str>,
    /// What happens here.
    pub role: Role,
    /// Where the packet is.
    pub skb: SkbAt,
    /// The device on which the packet is at this hop.
    pub device: DeviceAt,
    /// The device that it goes to.
    pub second: DeviceAt,
    /// Position of the `struct sock *`.
    pub sock: Option<u8>,
    /// What the kernel does here, in a sentence for the reader.
    pub teaches: &'static str,
}

impl Hop {
    /// Name of the kernel function or tracepoint.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.id.name()
    }

    const fn function(id: HopId, role: Role, arg: u8, teaches: &'static str) -> Hop {
        Hop {
            id,
            probe: Probe::Function,
            module: None,
            role,
            skb: SkbAt { arg, indirect: false },
            device: DeviceAt::Skb,
            second: DeviceAt::None,
            sock: None,
            teaches,
        }
    }

    /// An end knows no device: socket queues use `skb->dev` for other things.
    const fn end(id: HopId, teaches: &'static str) -> Hop {
        Hop { device: DeviceAt::None, ..Hop::function(id, Role::End, 0, teaches) }
    }

    const fn tracepoint(id: HopId, teaches: &'static str) -> Hop {
        Hop { probe: Probe::Tracepoint, ..Hop::end(id, teaches) }
    }

    const fn module(self, module: &'static str) -> Hop {
        Hop { module: Some(module), ..self }
    }

    const fn on(self, device: DeviceAt) -> Hop {
        Hop { device, ..self }
    }

    const fn to(self, second: DeviceAt) -> Hop {
        Hop { second, ..self }
    }

    const fn sock(self, arg: u8) -> Hop {
        Hop { sock: Some(arg), ..self }
    }

    const fn indirect(self) -> Hop {
        Hop { skb: SkbAt { arg: self.skb.arg, indirect: true }, ..self }
    }
}

/// The row of a hop.
#[must_use]
pub fn hop(id: HopId) -> &'static Hop {
    &CATALOGUE[id as usize]
}

/// Every hop, in the order of [`HopId`].
pub static CATALOGUE: [Hop; skbtrace_common::HOP_COUNT] = [
    Hop::function(
        HopId::IpOutput,
        Role::Send,
        2,
        "IPv4 has routed the packet and sends it: netfilter's POSTROUTING comes next, then the neighbour's address.",
    )
    .on(DeviceAt::Route),
    Hop::function(HopId::Ip6Output, Role::Send, 2, "IPv6 has routed the packet and sends it.").on(DeviceAt::Route),
    Hop::function(
        HopId::DevQueueXmit,
        Role::Transmit,
        0,
        "The packet enters the link layer: tc egress runs here, then the queueing discipline, if the device has one.",
    ),
    Hop::function(
        HopId::LoopbackXmit,
        Role::Cross,
        0,
        "Both addresses are in this netns, so the packet goes through lo and never touches a veth.",
    )
    .on(DeviceAt::Arg(1)),
    Hop::function(
        HopId::VethXmit,
        Role::Cross,
        0,
        "The veth driver's transmit function: there is no wire, it hands the packet straight to its peer.",
    )
    .module("veth")
    .on(DeviceAt::Arg(1))
    .to(DeviceAt::Peer),
    Hop::function(
        HopId::DevForwardSkb,
        Role::Cross,
        1,
        "The packet is scrubbed of what belongs to the sender's netns; eth_type_trans then makes the peer its device.",
    )
    .to(DeviceAt::Arg(0)),
    Hop::function(
        HopId::NetifRxInternal,
        Role::Enqueue,
        0,
        "The peer has received the packet: it looks for the CPU whose input queue is to take it.",
    ),
    Hop::function(
        HopId::EnqueueToBacklog,
        Role::Enqueue,
        0,
        "The packet is put into the CPU's input queue and a softirq is raised: from here on nobody waits for it.",
    ),
    Hop::function(
        HopId::BrHandleFrame,
        Role::Receive,
        0,
        "The softirq took the packet from the queue; the device is a bridge port, so its rx_handler gets the frame.",
    )
    .module("bridge")
    .indirect(),
    Hop::function(
        HopId::BrHandleFrameFinish,
        Role::Bridge,
        2,
        "The bridge learns the source address and looks up the destination: forward, flood, or up to this host.",
    )
    .module("bridge"),
    Hop::function(
        HopId::BrForward,
        Role::Bridge,
        1,
        "The egress port is known: the packet leaves its ingress port for that one, through netfilter's FORWARD.",
    )
    .module("bridge")
    .to(DeviceAt::Port(0)),
    Hop::function(
        HopId::BrDevQueuePushXmit,
        Role::Bridge,
        2,
        "The bridge puts the Ethernet header back and hands the frame to the egress port's device.",
    )
    .module("bridge"),
    Hop::function(
        HopId::BrPassFrameUp,
        Role::Bridge,
        0,
        "The frame is for this host, or for everyone: it goes up the stack as if the bridge device had received it.",
    )
    .module("bridge"),
    Hop::function(
        HopId::BrDevXmit,
        Role::Bridge,
        0,
        "This host itself sends through the bridge device: the bridge looks up the port, or floods to all.",
    )
    .module("bridge")
    .on(DeviceAt::Arg(1)),
    Hop::function(HopId::ArpRcv, Role::Receive, 0, "An ARP packet arrived: who has this address?").on(DeviceAt::Arg(1)),
    Hop::function(
        HopId::PacketRcv,
        Role::Tap,
        0,
        "A packet socket (tcpdump, a DHCP client) takes its copy of the packet.",
    )
    .on(DeviceAt::Arg(1)),
    Hop::function(
        HopId::TpacketRcv,
        Role::Tap,
        0,
        "A packet socket with a mapped ring (tcpdump) takes its copy of the packet.",
    )
    .on(DeviceAt::Arg(1)),
    Hop::function(
        HopId::IpRcv,
        Role::Receive,
        0,
        "IPv4 receives: header and checksum are checked, PREROUTING runs, then the route decides where it goes.",
    )
    .on(DeviceAt::Arg(1)),
    Hop::function(HopId::Ipv6Rcv, Role::Receive, 0, "IPv6 receives: the header is checked, the route decides.")
        .on(DeviceAt::Arg(1)),
    Hop::function(
        HopId::IpForward,
        Role::Forward,
        0,
        "The packet is not for this netns: it is routed on, its TTL falls by one, FORWARD runs.",
    ),
    Hop::function(HopId::Ip6Forward, Role::Forward, 0, "The packet is not for this netns: it is routed on."),
    Hop::function(HopId::IcmpRcv, Role::Transport, 0, "ICMP receives: an echo request is answered in the kernel."),
    Hop::function(HopId::Icmpv6Rcv, Role::Transport, 0, "ICMPv6 receives: echoes, errors, neighbour discovery."),
    Hop::function(
        HopId::TcpV4Rcv,
        Role::Transport,
        0,
        "TCP receives: the checksum is checked (or trusted), the socket is looked up by addresses and ports.",
    ),
    Hop::function(HopId::TcpV6Rcv, Role::Transport, 0, "TCP receives over IPv6: the socket is looked up."),
    Hop::function(
        HopId::TcpAddBacklog,
        Role::Transport,
        1,
        "A process holds the socket's lock: the segment waits in the socket's backlog until it lets go.",
    )
    .sock(0),
    Hop::function(
        HopId::TcpQueueRcv,
        Role::Socket,
        1,
        "The segment is in order: it joins the socket's receive queue, the reader is woken and an ACK is due.",
    )
    .sock(0),
    Hop::function(
        HopId::UdpQueueRcvOneSkb,
        Role::Transport,
        1,
        "UDP found the socket; socket filters and the checksum come next.",
    )
    .sock(0),
    Hop::function(HopId::Udpv6QueueRcvOneSkb, Role::Transport, 1, "UDP over IPv6 found the socket.").sock(0),
    Hop::function(
        HopId::UdpEnqueueScheduleSkb,
        Role::Socket,
        1,
        "The datagram joins the socket's receive queue, if its buffer has room, and the reader is woken.",
    )
    .sock(0),
    Hop::function(
        HopId::SkbCopyDatagramIter,
        Role::Copy,
        0,
        "The process reads: the payload is copied from the packet into the buffer of the application.",
    )
    .on(DeviceAt::None),
    Hop::tracepoint(
        HopId::KfreeSkb,
        "The packet is dropped: the kernel frees it before its time, from 5.17 on with a reason.",
    ),
    Hop::tracepoint(HopId::ConsumeSkb, "The packet has served its purpose and is freed."),
    Hop::end(
        HopId::SkbReleaseHeadState,
        "The packet is freed by the code that used it up, as TCP does with what it has received.",
    ),
    Hop::end(
        HopId::SkbAttemptDeferFree,
        "The reader is done with the packet and leaves its freeing to the CPU that allocated it.",
    ),
];

#[cfg(test)]
mod tests {
    use super::{CATALOGUE, hop};
    use skbtrace_common::HopId;

    #[test]
    fn every_hop_has_its_own_row() {
        for id in HopId::ALL {
            assert_eq!(hop(*id).id, *id, "the row of {} stands in the wrong place", id.name());
        }
        assert_eq!(CATALOGUE.len(), HopId::ALL.len());
    }

    #[test]
    fn every_hop_teaches_in_one_sentence() {
        for row in &CATALOGUE {
            assert!(row.teaches.ends_with(['.', '?']) && row.teaches.len() > 30, "{}", row.name());
        }
    }
}
