//! Whether an event can belong to a packet.
//!
//! The kernel side knows packets by the address of their `sk_buff`, and addresses are used again within microseconds.
//! When the end of a packet was not seen, the next owner of the address comes under the old id. So each event is
//! compared with what is known of the packet: what no stage of the network stack can change must not have changed,
//! and the hops must come in an order that the stack can take. When in doubt, it is another packet: a packet in two
//! pieces can be seen, two packets in one cannot.

use skbtrace_common::{Event, EventFlags, HopId};

use super::flow::{address, tcp_flag};
use super::packet::is_end;
use crate::hops::{Role, hop};

/// What is known of a packet from the newest events that could tell.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Identity {
    ethertype: u16,
    l3: Option<L3>,
    l4: Option<L4>,
    last_hop: Option<HopId>,
    /// It is being cut into parts, and may go on as the first of them.
    cut: bool,
    /// What it was when it was cut.
    whole: Option<(L3, Option<L4>)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct L3 {
    saddr: [u8; 16],
    daddr: [u8; 16],
    proto: u8,
    ttl: u8,
    ip_id: u16,
    payload_len: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct L4 {
    sport: u16,
    dport: u16,
    seq: u32,
    ack: u32,
    tcp_flags: u8,
}

impl Identity {
    /// Takes over what the event tells; it has been accepted.
    pub(super) fn learn(&mut self, hop_id: HopId, event: &Event) {
        if is_known(event.ethertype) {
            self.ethertype = event.ethertype;
        }
        self.l3 = L3::of(event).or(self.l3);
        self.l4 = L4::of(event).or(self.l4);
        let role = hop(hop_id).role;
        if role.is_place() || role == Role::Copy {
            self.last_hop = Some(hop_id);
        }
        if role == Role::Split {
            self.cut = true;
            self.whole = self.l3.map(|l3| (l3, self.l4));
        } else if role != Role::Work {
            self.cut = false;
        }
    }

    /// Bytes of L4 payload, as last seen.
    pub(super) fn payload_len(&self) -> Option<u32> {
        self.l3.map(|l3| l3.payload_len)
    }

    /// Whether it is being cut, and nothing has been seen of it since.
    pub(super) fn is_being_cut(&self) -> bool {
        self.cut
    }

    /// Whether the event can be the next one of this packet.
    pub(super) fn accepts(&self, hop_id: HopId, event: &Event) -> bool {
        event.flags & (EventFlags::REUSED | EventFlags::FIRST) == 0
            && self.order_allows(hop_id, event)
            && self.content_allows(hop(hop_id).role, event)
    }

    /// Whether the headers of the event are this packet's, as far as they are known of it.
    pub(super) fn is_seen_in(&self, hop_id: HopId, event: &Event) -> bool {
        let known = self.l3.is_none() || L3::of(event).is_some();
        let typed = self.ethertype == 0 || self.ethertype == event.ethertype;
        known && typed && self.content_allows(hop(hop_id).role, event)
    }

    /// Whether the event can be the first one of a clone of this packet.
    pub(super) fn is_source_of(&self, hop_id: HopId, event: &Event) -> bool {
        let role = hop(hop_id).role;
        !role.is_origin() && self.content_allows(role, event)
    }

    /// Whether the event can be of a packet that goes on in place of this one, in other memory.
    pub(super) fn is_copied_to(&self, hop_id: HopId, event: &Event) -> bool {
        self.order_allows(hop_id, event) && self.is_source_of(hop_id, event)
    }

    /// Whether the event can be of this packet when a tunnel's headers have been taken off it.
    pub(super) fn is_uncovered_by(&self, hop_id: HopId, event: &Event) -> bool {
        let is_of_parts = self.l3.is_none() && self.whole.is_some();
        if is_of_parts { self.is_cut_into(hop_id, event) } else { self.content_allows(hop(hop_id).role, event) }
    }

    /// The same packet where it comes in anew: any hop may be the next.
    pub(super) fn arriving(self) -> Identity {
        Identity { last_hop: None, ..self }
    }

    /// What is known of the parts that the packet is cut into.
    pub(super) fn of_parts(&self) -> Identity {
        Identity { whole: self.l3.map(|l3| (l3, self.l4)), l3: None, l4: None, ..*self }
    }

    /// Whether the event can be of a part that was cut from this packet, by GSO or into fragments.
    pub(super) fn is_cut_into(&self, hop_id: HopId, event: &Event) -> bool {
        let (Some((whole, l4)), Some(part)) = (self.whole, L3::of(event)) else { return false };
        let addressed = |l3: &L3| (l3.saddr, l3.daddr, l3.proto);
        if hop(hop_id).role.is_origin() || addressed(&whole) != addressed(&part) || part.payload_len > whole.payload_len
        {
            return false;
        }
        match l4.zip(L4::of(event)) {
            // A fragment has no ports. It has the datagram's identification.
            None => whole.has_id_of(&part),
            Some((old, new)) if (old.sport, old.dport) != (new.sport, new.dport) => false,
            Some((old, new)) => part.proto != 6 || new.seq.wrapping_sub(old.seq) < whole.payload_len,
        }
    }

    /// Whether the stack can come to this hop from the one before.
    fn order_allows(&self, hop_id: HopId, event: &Event) -> bool {
        if is_end(hop_id, event) {
            return true;
        }
        let role = hop(hop_id).role;
        match (self.last_hop.map(|last| hop(last).role), role) {
            (None, _) | (_, Role::Work) => true,
            // TCP hands a packet down once, function by function.
            (Some(last), Role::Output) => last == Role::Output,
            (Some(Role::Output), Role::Send) => true,
            // ARP answers with a packet of its own.
            _ if self.last_hop == Some(HopId::ArpRcv) => role == Role::Tap,
            // What a socket has is read or freed; nothing sends it on.
            (Some(Role::Socket | Role::Copy), _) => matches!(role, Role::Socket | Role::Copy | Role::Merge),
            // What a transport has is queued or used up.
            (Some(Role::Transport), _) => {
                matches!(role, Role::Transport | Role::Tap | Role::Socket | Role::Copy | Role::Merge)
            }
            // A routed packet is sent by the same function as a new one. Its TTL has fallen.
            (Some(Role::Forward), Role::Send) => true,
            (Some(_), Role::Send) => match (self.l3, L3::of(event)) {
                (Some(old), Some(new)) => new.ttl < old.ttl,
                _ => false,
            },
            _ => true,
        }
    }

    /// Whether the headers can be those of this packet.
    fn content_allows(&self, role: Role, event: &Event) -> bool {
        if self.ethertype != 0 && is_known(event.ethertype) && self.ethertype != event.ethertype {
            return false;
        }
        let (Some(old), Some(new)) = (self.l3, L3::of(event)) else { return true };
        if old.proto != new.proto {
            return false;
        }
        // GRO on the way up appends segments to the first one; nothing makes a packet shorter.
        let may_grow = !role.is_origin();
        if (new.payload_len < old.payload_len && !self.cut) || (new.payload_len > old.payload_len && !may_grow) {
            return false;
        }
        let l4 = self.l4.zip(L4::of(event));
        if old.proto == 6 {
            // NAT rewrites addresses and ports. GRO adds flags of later segments, but never SYN or RST.
            const OPENING: u8 = tcp_flag::SYN | tcp_flag::RST;
            return l4.is_none_or(|(old, new)| {
                (old.seq, old.ack) == (new.seq, new.ack) && (old.tcp_flags ^ new.tcp_flags) & OPENING == 0
            });
        }
        if !old.has_id_of(&new) {
            return false;
        }
        let seq_same = l4.is_none_or(|(old, new)| old.seq == new.seq);
        // Nothing in a datagram is unique. NAT changes one side of it at a time: when both changed at once and there is
        // no IPv4 identification to vouch for it, it is another one.
        let sides_changed = u8::from(old.saddr != new.saddr || l4.is_some_and(|(old, new)| old.sport != new.sport))
            + u8::from(old.daddr != new.daddr || l4.is_some_and(|(old, new)| old.dport != new.dport));
        seq_same && (sides_changed < 2 || old.ip_id != 0)
    }
}

/// `skb->protocol` is not set yet at the first hop of a sent packet, and names the tag of a VLAN frame.
fn is_known(ethertype: u16) -> bool {
    matches!(ethertype, 0x0800 | 0x0806 | 0x86dd)
}

impl L3 {
    /// Whether two headers can have the same identification. IPv6 has one only while a packet is in fragments.
    fn has_id_of(&self, other: &L3) -> bool {
        let is_v6 = address(self.saddr).is_ipv6();
        self.ip_id == other.ip_id || (is_v6 && (self.ip_id == 0 || other.ip_id == 0))
    }

    fn of(event: &Event) -> Option<L3> {
        (event.flags & EventFlags::L3 != 0).then_some(L3 {
            saddr: event.saddr,
            daddr: event.daddr,
            proto: event.l4_proto,
            ttl: event.ttl,
            ip_id: event.ip_id,
            payload_len: event.payload_len,
        })
    }
}

impl L4 {
    fn of(event: &Event) -> Option<L4> {
        (event.flags & EventFlags::L4 != 0).then_some(L4 {
            sport: event.sport,
            dport: event.dport,
            seq: event.seq,
            ack: event.ack,
            tcp_flags: event.tcp_flags,
        })
    }
}
