//! Made-up packets for tests: the hops, lengths and contexts of real ones, at round times.

use skbtrace_common::{Context, Event, EventFlags, HopId, IpSummed};

use HopId::*;

/// A device of the made-up host.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dev {
    pub(crate) netns: u32,
    pub(crate) ifindex: u32,
    pub(crate) name: &'static str,
}

const fn dev(netns: u32, ifindex: u32, name: &'static str) -> Dev {
    Dev { netns, ifindex, name }
}

/// Number of the first network namespace.
pub(crate) const INIT: u32 = 4_026_531_840;
pub(crate) const VETH1: Dev = dev(4_026_532_001, 2, "calmveth1");
pub(crate) const VETH2: Dev = dev(4_026_532_002, 2, "calmveth2");
pub(crate) const PEER1: Dev = dev(INIT, 11, "calmveth1_peer");
pub(crate) const PEER2: Dev = dev(INIT, 12, "calmveth2_peer");
pub(crate) const BRIDGE: Dev = dev(INIT, 9, "calmbr");
pub(crate) const PORT3: Dev = dev(INIT, 13, "calmveth3_peer");
pub(crate) const NIC: Dev = dev(INIT, 3, "eth0");
pub(crate) const LO1: Dev = dev(4_026_532_001, 1, "lo");
const NOWHERE: Dev = dev(0, 0, "");

/// Drop reasons of the made-up kernel.
pub(crate) const REASON_NOT_SPECIFIED: u32 = 2;
pub(crate) const REASON_NETFILTER: u32 = 8;
pub(crate) const REASON_RCVBUFF: u32 = 5;

/// One packet on its way: events with growing steps and times.
#[derive(Clone, Debug)]
pub(crate) struct Trip {
    pub(crate) next: Event,
    pub(crate) events: Vec<Event>,
}

fn name16(name: &str) -> [u8; 16] {
    let mut out = [0; 16];
    out[..name.len()].copy_from_slice(name.as_bytes());
    out
}

fn v4(last: u8) -> [u8; 16] {
    std::net::Ipv4Addr::new(78, 78, 0, last).to_ipv6_mapped().octets()
}

impl Trip {
    /// A packet with an id, at a time.
    pub(crate) fn new(id: u64, now: u64) -> Trip {
        // SAFETY: an Event is made of integers only; all zeroes is one.
        let mut next: Event = unsafe { std::mem::zeroed() };
        next.packet = id;
        next.skb = 0xffff_8880_0100_0000 + id * 0x100;
        next.head = 0xffff_8880_0200_0000 + id * 0x1000;
        next.time_ns = now;
        next.ethertype = 0x0800;
        next.users = 1;
        next.flags = EventFlags::CONTEXT | EventFlags::L3 | EventFlags::L4;
        next.ttl = 64;
        next.ip_summed = IpSummed::PARTIAL;
        next.comm = name16("ksoftirqd/0");
        next.context = Context::SOFTIRQ;
        Trip { next, events: Vec::new() }
    }

    pub(crate) fn addresses(mut self, proto: u8, from: (u8, u16), to: (u8, u16)) -> Trip {
        (self.next.saddr, self.next.sport) = (v4(from.0), from.1);
        (self.next.daddr, self.next.dport) = (v4(to.0), to.1);
        self.next.l4_proto = proto;
        self
    }

    pub(crate) fn tcp(mut self, flags: u8, seq: u32, payload: u32) -> Trip {
        (self.next.tcp_flags, self.next.seq, self.next.payload_len) = (flags, seq, payload);
        self
    }

    pub(crate) fn datagram(mut self, ip_id: u16, payload: u32) -> Trip {
        (self.next.ip_id, self.next.payload_len) = (ip_id, payload);
        self
    }

    pub(crate) fn process(mut self, pid: u32, comm: &str) -> Trip {
        (self.next.pid, self.next.tid, self.next.comm) = (pid, pid, name16(comm));
        self.next.context = Context::PROCESS;
        self
    }

    pub(crate) fn softirq(mut self, cpu: u32) -> Trip {
        (self.next.context, self.next.cpu) = (Context::SOFTIRQ, cpu);
        self
    }

    pub(crate) fn hop(mut self, hop: HopId, after_ns: u64, at: Dev, len: u32) -> Trip {
        self.next.time_ns += after_ns;
        let mut event = Event { hop: hop as u16, len, netns: at.netns, ifindex: at.ifindex, ..self.next };
        event.dev = name16(at.name);
        if self.events.is_empty() {
            event.flags |= EventFlags::FIRST;
        } else {
            event.step = self.events[self.events.len() - 1].step + 1;
        }
        self.events.push(event);
        self
    }

    pub(crate) fn to(mut self, second: Dev) -> Trip {
        if let Some(event) = self.events.last_mut() {
            (event.netns2, event.ifindex2, event.dev2) = (second.netns, second.ifindex, name16(second.name));
        }
        self
    }

    pub(crate) fn end(self, hop: HopId, after_ns: u64) -> Trip {
        let mut trip = self.hop(hop, after_ns, NOWHERE, 0);
        if let Some(event) = trip.events.last_mut() {
            event.flags |= EventFlags::END;
        }
        trip
    }

    /// A process reads so many bytes of it, of which nothing is left then.
    pub(crate) fn seen_read(self, after_ns: u64, bytes: u32) -> Trip {
        self.process(301, "python3").hop(SkbCopyDatagramIovec, after_ns, NOWHERE, bytes).flag(EventFlags::END)
    }

    pub(crate) fn dropped(self, after_ns: u64, location: u64, reason: Option<u32>) -> Trip {
        let mut trip = self.end(KfreeSkb, after_ns);
        if let Some(event) = trip.events.last_mut() {
            event.location = location;
            if let Some(reason) = reason {
                event.flags |= EventFlags::REASON;
                event.reason = reason;
            }
        }
        trip
    }

    /// Over a veth pair into the other CPU's queue.
    pub(crate) fn cross(self, from: Dev, to: Dev, len: u32) -> Trip {
        self.hop(DevQueueXmit, 900, from, len + 14)
            .hop(VethXmit, 1_300, from, len + 14)
            .to(to)
            .hop(DevForwardSkb, 400, from, len + 14)
            .to(to)
            .hop(NetifRxInternal, 800, to, len)
            .hop(EnqueueToBacklog, 300, to, len)
    }

    /// The same as tracepoints see it, and into the stack there.
    pub(crate) fn seen_crossing(self, from: Dev, to: Dev, len: u32) -> Trip {
        self.seen_sent(from, len).hop(NetifRx, 800, to, len).softirq(1).hop(NetifReceiveSkb, 9_000, to, len)
    }

    /// To a device and its driver, as tracepoints see it.
    pub(crate) fn seen_sent(self, from: Dev, len: u32) -> Trip {
        self.hop(NetDevQueue, 900, from, len + 14).hop(NetDevStartXmit, 300, from, len + 14)
    }

    /// TCP hands down a clone of what it keeps at this address.
    pub(crate) fn sent_by_tcp(mut self, kept: u64, at: Dev) -> Trip {
        let (skb, len) = (self.next.skb, self.next.payload_len);
        self.next.skb = kept;
        let mut trip = self.hop(TcpTransmitSkb, 0, at, len);
        trip.next.skb = skb;
        trip.hop(IpQueueXmit, 700, at, len + 32).flag(EventFlags::MOVED).hop(IpOutput, 600, at, len + 52)
    }

    /// The last event has this flag too.
    pub(crate) fn flag(mut self, flag: u32) -> Trip {
        if let Some(event) = self.events.last_mut() {
            event.flags |= flag;
        }
        self
    }

    /// At the last hop it is to be appended to this packet.
    pub(crate) fn onto(mut self, other: u64) -> Trip {
        if let Some(event) = self.events.last_mut() {
            event.other = other;
        }
        self
    }

    /// A fragment behind the first: no ports, this many bytes.
    pub(crate) fn fragment(mut self, bytes: u32) -> Trip {
        self.next.flags = self.next.flags & !EventFlags::L4 | EventFlags::FRAGMENT;
        (self.next.sport, self.next.dport, self.next.payload_len) = (0, 0, bytes);
        self
    }

    /// Through the bridge, from port to port.
    pub(crate) fn bridge(self, from: Dev, to: Dev, len: u32) -> Trip {
        self.hop(BrHandleFrame, 37_100, from, len)
            .hop(BrHandleFrameFinish, 1_100, from, len)
            .hop(BrForward, 1_000, from, len)
            .to(to)
            .hop(BrDevQueuePushXmit, 600, to, len)
    }
}

/// The lab of two namespaces behind a bridge, and the traffic in it.
#[derive(Clone, Debug)]
pub(crate) struct Lab {
    pub(crate) now: u64,
}

impl Lab {
    pub(crate) fn new() -> Lab {
        Lab { now: 1_000_000_000 }
    }

    pub(crate) fn trip(&mut self, id: u64) -> Trip {
        self.now += 1_000_000;
        Trip::new(id, self.now)
    }

    /// A segment as tracepoints see it cross a pair: TCP's own end of it is not seen.
    pub(crate) fn seen_segment(&mut self, id: u64, flags: u8, seq: u32, payload: u32) -> Trip {
        let trip = self.trip(id).addresses(6, (11, 58_854), (10, 8000)).tcp(flags, seq, payload).process(312, "curl");
        trip.seen_crossing(VETH2, VETH1, payload + 52)
    }

    /// The same that an established connection gets.
    pub(crate) fn seen_data(&mut self, id: u64, seq: u32, payload: u32) -> Trip {
        self.seen_segment(id, 0x18, seq, payload).hop(TcpProbe, 3_000, NOWHERE, payload + 32)
    }

    /// A segment of curl's connection, from calmveth2 as far as the other end's tcp_v4_rcv.
    fn segment(&mut self, id: u64, flags: u8, seq: u32, payload: u32) -> Trip {
        let len = payload + 52;
        self.trip(id)
            .addresses(6, (11, 58_854), (10, 8000))
            .tcp(flags, seq, payload)
            .process(312, "curl")
            .hop(IpOutput, 0, VETH2, len)
            .cross(VETH2, PEER2, len)
            .softirq(0)
            .bridge(PEER2, PEER1, len)
            .cross(PEER1, VETH1, len)
            .softirq(1)
            .hop(IpRcv, 21_700, VETH1, len)
            .hop(TcpV4Rcv, 3_000, VETH1, len - 20)
    }

    /// Data that a process reads.
    pub(crate) fn tcp_data(&mut self, id: u64, seq: u32, payload: u32) -> Vec<Event> {
        let trip = self.segment(id, 0x18, seq, payload).hop(TcpQueueRcv, 3_300, VETH1, payload);
        let trip = trip.process(301, "python3").hop(SkbCopyDatagramIter, 220_000, NOWHERE, payload);
        trip.end(SkbReleaseHeadState, 1_200).events
    }

    /// Data that TCP appends to the segment before it.
    pub(crate) fn tcp_coalesced(&mut self, id: u64, seq: u32, payload: u32) -> Vec<Event> {
        let trip = self.segment(id, 0x18, seq, payload).hop(TcpQueueRcv, 3_300, VETH1, payload);
        trip.end(SkbReleaseHeadState, 500).events
    }

    /// A SYN or a pure ACK.
    pub(crate) fn tcp_control(&mut self, id: u64, flags: u8, seq: u32) -> Vec<Event> {
        self.segment(id, flags, seq, 0).end(SkbReleaseHeadState, 2_000).events
    }

    /// An ACK that TCP frees as if it dropped it.
    pub(crate) fn tcp_last_ack(&mut self, id: u64, seq: u32) -> Vec<Event> {
        self.segment(id, 0x10, seq, 0).dropped(2_000, 0xffff_ffff_8100_1000, Some(REASON_NOT_SPECIFIED)).events
    }

    /// The end of a stream, which nobody reads before the socket is closed; and data with the same fate.
    pub(crate) fn tcp_unread(&mut self, id: u64, flags: u8, seq: u32, payload: u32) -> Vec<Event> {
        let trip = self.segment(id, flags, seq, payload).hop(TcpQueueRcv, 3_300, VETH1, payload);
        trip.dropped(900_000, 0xffff_ffff_8100_2000, Some(REASON_NOT_SPECIFIED)).events
    }

    /// A datagram over a veth pair without a bridge, as far as the socket.
    pub(crate) fn datagram(&mut self, id: u64, ip_id: u16) -> Trip {
        self.trip(id)
            .addresses(17, (10, 40_000), (11, 9000))
            .datagram(ip_id, 64)
            .process(400, "sender")
            .hop(IpOutput, 0, VETH1, 92)
            .cross(VETH1, VETH2, 92)
            .softirq(0)
            .hop(IpRcv, 12_000, VETH2, 92)
            .hop(UdpQueueRcvOneSkb, 2_000, VETH2, 72)
            .hop(UdpEnqueueScheduleSkb, 1_000, VETH2, 72)
    }

    pub(crate) fn udp(&mut self, id: u64, ip_id: u16) -> Vec<Event> {
        let trip = self.datagram(id, ip_id).process(401, "receiver").hop(SkbCopyDatagramIter, 5_000, NOWHERE, 72);
        trip.end(ConsumeSkb, 600).events
    }

    /// A datagram that the bridge's FORWARD chain drops.
    pub(crate) fn udp_dropped(&mut self, id: u64, ip_id: u16) -> Vec<Event> {
        self.trip(id)
            .addresses(17, (11, 40_000), (10, 9000))
            .datagram(ip_id, 64)
            .process(400, "sender")
            .hop(IpOutput, 0, VETH2, 92)
            .cross(VETH2, PEER2, 92)
            .softirq(0)
            .hop(BrHandleFrame, 30_000, PEER2, 92)
            .hop(BrHandleFrameFinish, 1_000, PEER2, 92)
            .hop(BrForward, 1_000, PEER2, 92)
            .to(PEER1)
            .dropped(2_500, 0xffff_ffff_8188_0044, Some(REASON_NETFILTER))
            .events
    }

    /// A packet that the bridge hands from one network card to another: no hop tells where one ends and the next begins.
    pub(crate) fn bridged(&mut self, headers: impl FnOnce(Trip) -> Trip) -> Vec<Event> {
        let trip = headers(self.trip(1).softirq(0)).bridge(NIC, PORT3, 500);
        trip.hop(DevQueueXmit, 500, PORT3, 514).end(ConsumeSkb, 3_000).events
    }

    /// An ARP question over the pair.
    pub(crate) fn arp(&mut self, id: u64) -> Vec<Event> {
        let mut trip = self.trip(id).softirq(0);
        trip.next.flags = EventFlags::CONTEXT;
        trip.next.ethertype = 0x0806;
        trip.cross(VETH1, VETH2, 28).hop(ArpRcv, 9_000, VETH2, 28).end(ConsumeSkb, 700).events
    }

    /// A ping to an address of the own netns.
    pub(crate) fn ping_loopback(&mut self, id: u64) -> Vec<Event> {
        let mut trip = self.trip(id).addresses(1, (10, 0x0800), (10, 77)).datagram(5, 64).process(500, "ping");
        trip.next.seq = 1;
        trip.hop(IpOutput, 0, LO1, 84)
            .hop(DevQueueXmit, 700, LO1, 98)
            .hop(LoopbackXmit, 600, LO1, 98)
            .hop(NetifRxInternal, 500, LO1, 84)
            .hop(EnqueueToBacklog, 300, LO1, 84)
            .softirq(0)
            .hop(IpRcv, 4_000, LO1, 84)
            .hop(IcmpRcv, 1_000, LO1, 64)
            .end(ConsumeSkb, 2_000)
            .events
    }

    /// A clone of the packet of `source`, made right after that event.
    pub(crate) fn clone_of(&mut self, id: u64, source: &Event) -> Trip {
        let mut trip = Trip::new(id, source.time_ns + 100);
        trip.next = Event { packet: id, step: 0, skb: trip.next.skb, time_ns: trip.next.time_ns, cloned: 1, ..*source };
        trip.next.flags &= !EventFlags::FIRST;
        (trip.next.netns2, trip.next.ifindex2, trip.next.dev2) = (0, 0, [0; 16]);
        trip
    }
}

/// Events of several packets in the order of their times.
pub(crate) fn in_order(packets: impl IntoIterator<Item = Vec<Event>>) -> Vec<Event> {
    let mut events: Vec<Event> = packets.into_iter().flatten().collect();
    events.sort_by_key(|event| event.time_ns);
    events
}
