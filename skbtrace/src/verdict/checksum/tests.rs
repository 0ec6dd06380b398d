//! Verdicts on packets that a library has built, read as the kernel side reads them.

use etherparse::PacketBuilder;
use proptest::prelude::*;
use skbtrace_common::{Digest, Event, EventFlags, HopId, IpSummed};

use super::{Checksum, Checksums, Why, checksums, fold, is_trust_unearned};
use crate::trace::Lab;
use crate::verdict::digest::tests::digest_of;

/// What a test packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Tcp,
    Udp,
    Icmp,
    Tcp6,
    Udp6,
    Icmp6,
}

const KINDS: [Kind; 6] = [Kind::Tcp, Kind::Udp, Kind::Icmp, Kind::Tcp6, Kind::Udp6, Kind::Icmp6];

/// A packet from its IP header on.
#[derive(Clone, Debug)]
struct Made {
    bytes: Vec<u8>,
    ip: usize,
    l4: usize,
    protocol: u8,
    /// Where the transport header has its checksum.
    field: usize,
}

fn made(kind: Kind, seq: u32, payload: &[u8]) -> Made {
    let v4 = || PacketBuilder::ipv4([78, 78, 0, 11], [78, 78, 0, 10], 64);
    let v6 = || PacketBuilder::ipv6([0xfd; 16], [0xfe; 16], 64);
    let mut bytes = Vec::new();
    let (protocol, l4, field) = match kind {
        Kind::Tcp | Kind::Tcp6 => (6, 20, 16),
        Kind::Udp | Kind::Udp6 => (17, 8, 6),
        Kind::Icmp => (1, 8, 2),
        Kind::Icmp6 => (58, 8, 2),
    };
    match kind {
        Kind::Tcp => v4().tcp(58_854, 8000, seq, 502).psh().write(&mut bytes, payload).unwrap(),
        Kind::Tcp6 => v6().tcp(58_854, 8000, seq, 502).psh().write(&mut bytes, payload).unwrap(),
        Kind::Udp => v4().udp(40_000, 9000).write(&mut bytes, payload).unwrap(),
        Kind::Udp6 => v6().udp(40_000, 9000).write(&mut bytes, payload).unwrap(),
        Kind::Icmp => v4().icmpv4_echo_request(7, 1).write(&mut bytes, payload).unwrap(),
        Kind::Icmp6 => v6().icmpv6_echo_request(7, 1).write(&mut bytes, payload).unwrap(),
    }
    let ip = if matches!(kind, Kind::Tcp | Kind::Udp | Kind::Icmp) { 20 } else { 40 };
    Made { bytes, ip, l4, protocol, field: ip + field }
}

fn words(bytes: &[u8]) -> u32 {
    bytes.chunks(2).map(|word| u32::from(u16::from_ne_bytes([word[0], *word.get(1).unwrap_or(&0)]))).sum()
}

impl Made {
    fn event(&self, ip_summed: u8) -> Event {
        let mut event = Lab::new().tcp_data(1, 1, 1)[0];
        let address = |at: usize| -> [u8; 16] {
            if self.ip == 20 {
                let v4: [u8; 4] = self.bytes[at..at + 4].try_into().unwrap();
                std::net::Ipv4Addr::from(v4).to_ipv6_mapped().octets()
            } else {
                self.bytes[at..at + 16].try_into().unwrap()
            }
        };
        let places = if self.ip == 20 { (12, 16) } else { (8, 24) };
        (event.saddr, event.daddr) = (address(places.0), address(places.1));
        event.l4_proto = self.protocol;
        event.ip_summed = ip_summed;
        event.payload_len = (self.bytes.len() - self.ip - self.l4) as u32;
        event.flags |= EventFlags::DIGEST;
        event
    }

    fn digest(&self) -> Digest {
        let (headers, payload) = self.bytes.split_at(self.ip + self.l4);
        let start = if self.protocol == 6 {
            u32::from_be_bytes(headers[self.ip + 4..self.ip + 8].try_into().unwrap())
        } else {
            self.l4 as u32
        };
        let mut plain = 0u64;
        for (n, byte) in payload.iter().enumerate() {
            plain += u64::from(*byte) << ((u64::from(start % 8) + n as u64) % 4 * 8);
        }
        Digest {
            plain,
            l3_header: if self.ip == 20 { words(&headers[..20]) } else { 0 },
            l4_header: words(&headers[self.ip..]),
            l4_header_len: self.l4 as u8,
            checksum: u16::from_be_bytes(self.bytes[self.field..self.field + 2].try_into().unwrap()),
            ..digest_of(start, payload)
        }
    }

    fn judged(&self, ip_summed: u8) -> Checksums {
        checksums(&self.event(ip_summed), &self.digest()).unwrap()
    }

    fn transport(&self, ip_summed: u8) -> Checksum {
        self.judged(ip_summed).transport.unwrap()
    }

    /// As a sender leaves it to the device.
    fn deferred(mut self) -> Made {
        self.bytes[self.field..self.field + 2].fill(0);
        let length = (self.bytes.len() - self.ip) as u32;
        let addresses = if self.ip == 20 { 12..20 } else { 8..40 };
        let sum = words(&self.bytes[addresses]) + words(&length.to_be_bytes()) + words(&[0, self.protocol]);
        self.bytes[self.field..self.field + 2].copy_from_slice(&fold(u64::from(sum)).to_ne_bytes());
        self
    }
}

#[test]
fn what_is_right_is_right_whoever_looks() {
    for kind in KINDS {
        for seq in 0..9 {
            let made = made(kind, (u32::MAX - 4).wrapping_add(seq), b"an odd number of bytes, and more of them");
            for ip_summed in [IpSummed::NONE, IpSummed::UNNECESSARY, IpSummed::COMPLETE, IpSummed::PARTIAL] {
                let judged = made.judged(ip_summed);
                assert_eq!(judged.transport, Some(Checksum::Ok), "{kind:?} {seq} {ip_summed}");
                assert_eq!(judged.header, (made.ip == 20).then_some(Checksum::Ok), "{kind:?}");
            }
        }
    }
}

#[test]
fn what_is_left_to_a_device_is_no_fault() {
    for kind in KINDS.into_iter().filter(|kind| !matches!(kind, Kind::Icmp)) {
        let mut deferred = made(kind, 5, b"payload").deferred();
        assert_eq!(deferred.transport(IpSummed::PARTIAL), Checksum::Deferred, "{kind:?}");
        // It does not speak of the payload, which is the point.
        *deferred.bytes.last_mut().unwrap() ^= 1;
        assert_eq!(deferred.transport(IpSummed::PARTIAL), Checksum::Deferred, "{kind:?}");
        // Nor may anybody take it for a checksum.
        assert_eq!(deferred.transport(IpSummed::NONE), Checksum::BadDropped, "{kind:?}");
        assert_eq!(deferred.transport(IpSummed::UNNECESSARY), Checksum::BadTrusted, "{kind:?}");
        // Of another length, as that of a GSO packet would be if it spoke of none.
        let mut longer = made(kind, 5, b"payload and more").deferred();
        longer.bytes[deferred.field..deferred.field + 2]
            .copy_from_slice(&deferred.bytes[deferred.field..deferred.field + 2]);
        assert_eq!(longer.transport(IpSummed::PARTIAL), Checksum::BadTrusted, "{kind:?}");
    }
}

#[test]
fn a_socket_has_what_was_found_good() {
    let udp = made(Kind::Udp, 5, b"payload");
    let judge = |made: &Made, hop: HopId| {
        let event = Event { hop: hop as u16, ..made.event(IpSummed::NONE) };
        checksums(&event, &made.digest()).unwrap().transport.unwrap()
    };
    // udp_queue_rcv_one_skb pulls the header, and PARTIAL becomes NONE.
    assert_eq!(judge(&udp.clone().deferred(), HopId::UdpEnqueueScheduleSkb), Checksum::Deferred);
    assert_eq!(judge(&udp.clone().deferred(), HopId::UdpQueueRcvOneSkb), Checksum::BadDropped);
    let mut wrong = udp;
    *wrong.bytes.last_mut().unwrap() ^= 1;
    assert_eq!(judge(&wrong, HopId::UdpEnqueueScheduleSkb), Checksum::BadDropped);
}

#[test]
fn a_packet_that_is_still_to_be_cut_is_judged_by_its_pseudo_header_alone() {
    let whole = made(Kind::Tcp, 5, &[7; 4000]);
    let judge = |made: &Made, ip_summed| {
        let event = Event { gso_size: 1448, ..made.event(ip_summed) };
        checksums(&event, &made.digest()).unwrap().transport
    };
    assert_eq!(judge(&whole.clone().deferred(), IpSummed::PARTIAL), Some(Checksum::Deferred));
    assert_eq!(judge(&whole, IpSummed::UNNECESSARY), Some(Checksum::NotComputable(Why::Gso)));
}

#[test]
fn what_cannot_be_told_is_not_told() {
    let udp = made(Kind::Udp, 0, b"payload");
    let judge = |change: &dyn Fn(&mut Event, &mut Digest)| {
        let (mut event, mut digest) = (udp.event(IpSummed::NONE), udp.digest());
        change(&mut event, &mut digest);
        checksums(&event, &digest).and_then(|sums| sums.transport)
    };
    let not = |why| Some(Checksum::NotComputable(why));
    assert_eq!(judge(&|event, _| event.flags |= EventFlags::MORE_FRAGMENTS), not(Why::Fragment));
    assert_eq!(judge(&|event, _| event.flags |= EventFlags::FRAGMENT), not(Why::Fragment));
    assert_eq!(judge(&|event, _| event.flags |= EventFlags::READ_FAILED), not(Why::Unread));
    assert_eq!(judge(&|_, digest| (digest.state, digest.bytes) = (2, 3)), not(Why::Unread));
    assert_eq!(judge(&|_, digest| digest.bytes = 9), not(Why::Appended));
    assert_eq!(judge(&|event, _| event.l4_proto = 50), None);
    assert_eq!(judge(&|_, digest| digest.l4_header_len = 0), None);
    // Where there is no digest, nothing is judged at all.
    assert_eq!(checksums(&Event { flags: EventFlags::L3, ..udp.event(IpSummed::NONE) }, &udp.digest()), None);
    assert_eq!(checksums(&udp.event(IpSummed::NONE), &Digest::default()), None);
}

#[test]
fn a_tunnel_has_its_own_for_when_the_one_inside_is_filled_in() {
    let judge = |made: &Made, flags| {
        let mut event = made.event(IpSummed::PARTIAL);
        event.flags |= flags;
        checksums(&event, &made.digest()).unwrap().transport.unwrap()
    };
    let inner = Checksum::NotComputable(Why::Inner);
    for kind in KINDS {
        let whole = made(kind, 5, b"a packet inside");
        let mut other = whole.clone();
        *other.bytes.last_mut().unwrap() ^= 1;
        for (made, alone) in [(&whole, Checksum::Ok), (&other, Checksum::BadTrusted)] {
            assert_eq!(judge(made, 0), alone, "{kind:?}");
            assert_eq!(judge(made, EventFlags::INNER_SUM), inner, "{kind:?}");
        }
        if kind != Kind::Icmp {
            // As that of a tunnel's packet that is still to be cut.
            let deferred = whole.deferred();
            assert_eq!(judge(&deferred, 0), Checksum::Deferred, "{kind:?}");
            assert_eq!(judge(&deferred, EventFlags::INNER_SUM), inner, "{kind:?}");
        }
    }
    // Most make none.
    for (kind, expected) in [(Kind::Udp, Checksum::None), (Kind::Udp6, inner)] {
        let mut udp = made(kind, 5, b"a packet inside");
        udp.bytes[udp.field..udp.field + 2].fill(0);
        assert_eq!(judge(&udp, EventFlags::INNER_SUM), expected, "{kind:?}");
    }
    // The IP header's is its own.
    let mut event = made(Kind::Udp, 5, b"a packet inside").event(IpSummed::PARTIAL);
    event.flags |= EventFlags::INNER_SUM;
    let digest = made(Kind::Udp, 5, b"a packet inside").digest();
    assert_eq!(checksums(&event, &digest).unwrap().header, Some(Checksum::Ok));
}

#[test]
fn udp_needs_none_over_ipv4() {
    let mut udp = made(Kind::Udp, 0, b"payload");
    udp.bytes[udp.field..udp.field + 2].fill(0);
    assert_eq!(udp.transport(IpSummed::NONE), Checksum::None);
    let mut udp = made(Kind::Udp6, 0, b"payload");
    udp.bytes[udp.field..udp.field + 2].fill(0);
    assert_eq!(udp.transport(IpSummed::NONE), Checksum::BadDropped);
}

#[test]
fn trust_that_a_veth_makes_up_is_seen() {
    let trip = Lab::new().datagram(1, 1).events;
    let at = |hop| *trip.iter().find(|event| event.hop == hop as u16).unwrap();
    let sent = Event { ip_summed: IpSummed::NONE, ..at(HopId::DevForwardSkb) };
    let came = Event { ip_summed: IpSummed::UNNECESSARY, ..at(HopId::NetifRxInternal) };
    assert!(is_trust_unearned(&sent, &came));
    assert!(!is_trust_unearned(&Event { ip_summed: IpSummed::PARTIAL, ..sent }, &came));
    // GRO has looked before it says so.
    assert!(!is_trust_unearned(&Event { ip_summed: IpSummed::NONE, ..came }, &came));
}

proptest! {
    #[test]
    fn no_bit_can_change_unseen(
        kind in prop::sample::select(&KINDS[..]),
        seq: u32,
        payload in prop::collection::vec(any::<u8>(), 1..600),
        at in any::<prop::sample::Index>(),
        bit in 0u8..8,
    ) {
        let mut made = made(kind, seq, &payload);
        prop_assert_eq!(made.transport(IpSummed::NONE), Checksum::Ok);
        let at = at.index(made.bytes.len());
        made.bytes[at] ^= 1u8 << bit;
        let (header, transport) = (made.judged(IpSummed::NONE).header, made.transport(IpSummed::NONE));
        if at >= made.ip {
            // A checksum that becomes zero is none.
            let bad = Checksum::BadDropped;
            prop_assert!(transport == bad || transport == Checksum::None, "{:?}", transport);
            let bad = Checksum::BadTrusted;
            let transport = made.transport(IpSummed::UNNECESSARY);
            prop_assert!(transport == bad || transport == Checksum::None, "{:?}", transport);
        } else if made.ip == 20 {
            prop_assert_eq!(header, Some(Checksum::BadDropped));
        }
    }
}
