//! Who speaks to whom: addresses of packets, relative sequence numbers and retransmissions of TCP connections.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};

use skbtrace_common::{Event, EventFlags};

/// Flags of the TCP header, as on the wire.
pub mod tcp_flag {
    /// The sender has nothing more to send.
    pub const FIN: u8 = 0x01;
    /// Opens a connection.
    pub const SYN: u8 = 0x02;
    /// Breaks a connection.
    pub const RST: u8 = 0x04;
    /// The receiver is to hand the data over at once.
    pub const PSH: u8 = 0x08;
    /// The acknowledgement number counts.
    pub const ACK: u8 = 0x10;
    /// The urgent pointer counts.
    pub const URG: u8 = 0x20;
}

/// Source and destination of a packet as it was first seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Flow {
    /// Transport protocol: 6 TCP, 17 UDP, 1 ICMP, 58 ICMPv6, …
    pub proto: u8,
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// Source and destination port of TCP and UDP; `None` in fragments that have no transport header.
    pub ports: Option<(u16, u16)>,
    /// What ICMP and ICMPv6 have in place of ports.
    pub icmp: Option<Icmp>,
    /// A fragment of a datagram that is not the first.
    pub fragment: bool,
}

/// The header of an ICMP or ICMPv6 message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Icmp {
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// Identifier of an echo.
    pub id: u16,
    /// Sequence number of an echo.
    pub seq: u32,
}

/// A TCP segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tcp {
    /// Flags byte: bits of [`tcp_flag`].
    pub flags: u8,
    /// Sequence number as on the wire.
    pub seq: u32,
    /// Acknowledgement number as on the wire.
    pub ack: u32,
    /// Sequence number counted as Wireshark does: the SYN is 0 and data starts at 1; when the SYN was not seen, the
    /// first segment seen of this direction is taken to start at 1. `None` for a segment from before that one.
    pub relative_seq: Option<u32>,
}

impl Flow {
    /// The flow of an event; `None` without a network header.
    #[must_use]
    pub fn of(event: &Event) -> Option<Flow> {
        if event.flags & EventFlags::L3 == 0 {
            return None;
        }
        let l4 = event.flags & EventFlags::L4 != 0;
        let is_icmp = matches!(event.l4_proto, 1 | 58);
        let [kind, code] = event.sport.to_be_bytes();
        Some(Flow {
            proto: event.l4_proto,
            src: address(event.saddr),
            dst: address(event.daddr),
            ports: (l4 && !is_icmp).then_some((event.sport, event.dport)),
            icmp: (l4 && is_icmp).then_some(Icmp { kind, code, id: event.dport, seq: event.seq }),
            fragment: event.flags & EventFlags::FRAGMENT != 0,
        })
    }
}

/// An address of the wire format, where IPv4 is mapped into IPv6.
pub(super) fn address(bytes: [u8; 16]) -> IpAddr {
    Ipv6Addr::from(bytes).to_canonical()
}

/// A place where packets of a flow begin: the first hop and its device. The same bytes seen again at the same place
/// are a retransmission; seen again elsewhere they are the same packet in another `sk_buff`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Vantage {
    hop: u16,
    netns: u32,
    ifindex: u32,
}

/// One direction of one TCP connection.
#[derive(Debug)]
struct Direction {
    /// Sequence number that counts as 0.
    base: u32,
    /// Bytes seen, per place, as offsets from `base`.
    seen: Vec<(Vantage, Ranges)>,
    /// When it was last used, for forgetting.
    used: u64,
}

/// Half-open ranges, apart from each other, in ascending order. A connection without losses has one.
#[derive(Debug, Default)]
struct Ranges(Vec<(u64, u64)>);

impl Ranges {
    /// Adds a range and tells whether its first byte had been there already.
    fn insert(&mut self, mut start: u64, mut end: u64) -> bool {
        let known = self.0.iter().any(|range| range.0 <= start && start < range.1);
        let from = self.0.partition_point(|range| range.1 < start);
        let to = self.0.partition_point(|range| range.0 <= end);
        if from < to {
            start = start.min(self.0[from].0);
            end = end.max(self.0[to - 1].1);
        }
        self.0.splice(from..to, [(start, end)]);
        if self.0.len() > MAX_RANGES {
            self.0.remove(0);
        }
        known
    }

    fn end(&self) -> u64 {
        self.0.last().map_or(0, |range| range.1)
    }
}

/// Holes remembered per place; beyond that the oldest are forgotten.
const MAX_RANGES: usize = 64;
/// TCP directions remembered; beyond that the older half is forgotten.
const MAX_DIRECTIONS: usize = 16_384;
/// A segment up to so many bytes below the base counts as older than the base, not as 4 GiB newer.
const BEFORE_BASE: u32 = 1 << 24;
/// Where offsets start, so that a segment a little before the base has one too.
const ORIGIN: u64 = 1 << 33;

/// The TCP connections seen so far.
#[derive(Debug, Default)]
pub(super) struct FlowTable {
    directions: HashMap<(IpAddr, u16, IpAddr, u16), Direction>,
    clock: u64,
}

impl FlowTable {
    /// Notes a segment that begins with this event. Returns its facts, and whether its bytes had been sent before.
    pub(super) fn note(&mut self, event: &Event, is_branch: bool) -> Option<(Tcp, bool)> {
        if event.flags & EventFlags::L4 == 0 || event.l4_proto != 6 {
            return None;
        }
        self.clock += 1;
        let syn = event.tcp_flags & tcp_flag::SYN != 0;
        let key = (address(event.saddr), event.sport, address(event.daddr), event.dport);
        if self.directions.len() >= MAX_DIRECTIONS && !self.directions.contains_key(&key) {
            let horizon = self.clock - (MAX_DIRECTIONS / 2) as u64;
            self.directions.retain(|_, direction| direction.used > horizon);
        }
        let base = if syn { event.seq } else { event.seq.wrapping_sub(1) };
        let direction =
            self.directions.entry(key).or_insert_with(|| Direction { base, seen: Vec::new(), used: self.clock });
        direction.used = self.clock;
        if syn && direction.base != base {
            // The same ports, another initial sequence number: a new connection.
            direction.base = base;
            direction.seen.clear();
        }
        let relative = event.seq.wrapping_sub(direction.base);
        let tcp = Tcp {
            flags: event.tcp_flags,
            seq: event.seq,
            ack: event.ack,
            relative_seq: (relative < u32::MAX - BEFORE_BASE).then_some(relative),
        };
        let fin = event.tcp_flags & tcp_flag::FIN != 0;
        let length = u64::from(event.payload_len) + u64::from(syn) + u64::from(fin);
        if length == 0 || is_branch {
            return Some((tcp, false));
        }
        let vantage = Vantage { hop: event.hop, netns: event.netns, ifindex: event.ifindex };
        let place = match direction.seen.iter().position(|(place, _)| *place == vantage) {
            Some(place) => place,
            None => {
                direction.seen.push((vantage, Ranges::default()));
                direction.seen.len() - 1
            }
        };
        let ranges = &mut direction.seen[place].1;
        // Sequence numbers wrap: take the offset that lies nearest to the end of what was seen.
        let end = ranges.end().max(ORIGIN);
        #[expect(clippy::cast_possible_truncation, reason = "distances of sequence numbers are modulo 2^32")]
        let distance = relative.wrapping_sub((end - ORIGIN) as u32).cast_signed();
        let start = end.saturating_add_signed(i64::from(distance));
        let known = ranges.insert(start, start + length);
        Some((tcp, known))
    }
}

#[cfg(test)]
mod tests {
    use super::{FlowTable, MAX_DIRECTIONS, ORIGIN, Ranges};
    use crate::trace::Lab;
    use proptest::prelude::*;

    fn note(table: &mut FlowTable, seq: u32, len: u32, flags: u8) -> (Option<u32>, bool) {
        let mut event = Lab::new().tcp_data(1, seq, len)[0];
        event.tcp_flags = flags;
        let (tcp, again) = table.note(&event, false).unwrap();
        (tcp.relative_seq, again)
    }

    #[test]
    fn sequence_numbers_count_from_the_syn() {
        let mut table = FlowTable::default();
        assert_eq!(note(&mut table, u32::MAX, 0, 0x02), (Some(0), false));
        assert_eq!(note(&mut table, 0, 77, 0x18), (Some(1), false));
        assert_eq!(note(&mut table, 77, 77, 0x18), (Some(78), false));
        assert_eq!(note(&mut table, 0, 77, 0x18), (Some(1), true));
        // A new connection on the same ports.
        assert_eq!(note(&mut table, 5000, 0, 0x02), (Some(0), false));
        assert_eq!(note(&mut table, 5000, 0, 0x02), (Some(0), true));
        assert_eq!(note(&mut table, 5001, 10, 0x18), (Some(1), false));
    }

    #[test]
    fn without_a_syn_the_first_segment_starts_at_1() {
        let mut table = FlowTable::default();
        assert_eq!(note(&mut table, 1000, 10, 0x10), (Some(1), false));
        assert_eq!(note(&mut table, 1010, 0, 0x10), (Some(11), false));
        assert_eq!(note(&mut table, 1010, 0, 0x10), (Some(11), false), "a pure ACK is never a retransmission");
        // An older segment that comes late is no retransmission: its bytes were not seen.
        assert_eq!(note(&mut table, 500, 10, 0x10), (None, false));
    }

    #[test]
    fn the_table_of_connections_is_bounded() {
        let mut table = FlowTable::default();
        let mut event = Lab::new().tcp_data(1, 1, 1)[0];
        for n in 0..(MAX_DIRECTIONS as u32 * 3) {
            event.sport = (n & 0xffff) as u16;
            event.dport = (n >> 16) as u16;
            table.note(&event, false);
        }
        assert!(table.directions.len() <= MAX_DIRECTIONS);
        // The newest is remembered.
        assert!(table.note(&event, false).unwrap().1);
    }

    proptest! {
        #[test]
        fn ranges_know_what_a_set_of_bytes_knows(inserts in prop::collection::vec((0u64..60, 1u64..9), 1..40)) {
            let mut ranges = Ranges::default();
            let mut bytes = [false; 80];
            for (start, length) in inserts {
                let expected = bytes[start as usize];
                prop_assert_eq!(ranges.insert(start, start + length), expected);
                bytes[start as usize..(start + length) as usize].fill(true);
            }
            prop_assert!(ranges.0.windows(2).all(|pair| pair[0].1 < pair[1].0));
        }

        #[test]
        fn a_stream_that_wraps_has_no_retransmission(start: u32, sizes in prop::collection::vec(1u32..1 << 20, 1..60)) {
            let mut table = FlowTable::default();
            let mut seq = start;
            for size in sizes {
                prop_assert!(!note(&mut table, seq, size, 0x10).1);
                prop_assert!(note(&mut table, seq, size, 0x10).1);
                seq = seq.wrapping_add(size);
            }
        }
    }

    #[test]
    fn offsets_before_the_base_stay_positive() {
        assert!(ORIGIN > u64::from(u32::MAX));
    }
}
