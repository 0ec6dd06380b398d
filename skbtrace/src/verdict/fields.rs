//! What changed from one hop of a packet to the next: the fields of the `sk_buff` and of the headers, no more and no less.
//!
//! Not every hop knows all of it: at some there is no device, or no header yet. Each field is compared with what was known of
//! it last, so that nothing is called changed for having been out of sight.

use skbtrace_common::{Event, EventFlags};

use crate::trace::Step;

/// Something that can change on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Field {
    /// The device, or its namespace.
    Device,
    /// `skb->len`.
    Len,
    /// `skb->mark`.
    Mark,
    /// The VLAN that the packet is tagged with beside its bytes.
    Vlan,
    /// Whether the data is shared with a clone.
    Cloned,
    /// Who holds the `sk_buff`.
    Users,
    /// Into how many parts of which size the packet is to be cut.
    Gso,
    /// `skb->ip_summed`.
    IpSummed,
    /// TTL or hop limit.
    Ttl,
    /// Source address and port: NAT.
    Source,
    /// Destination address and port: NAT.
    Destination,
}

/// What is known of a packet so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Known {
    /// The last event that could be read.
    skb: Option<Event>,
    /// The last one with a device.
    device: Option<Event>,
    /// The last one with an IP header.
    network: Option<Event>,
    /// The last one with ports.
    ports: Option<Event>,
    /// In how many tunnels the packet was.
    layer: i8,
}

/// A field that changed, with the events that have its old and its new value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Changed {
    /// The field.
    pub field: Field,
    /// The event with the old value.
    pub from: Event,
    /// The event with the new one.
    pub to: Event,
}

impl Known {
    /// Takes the next step, and says what changed with it; nothing with the first. What a tunnel puts in front of a packet are
    /// other headers, not changed ones.
    pub fn next_step(&mut self, step: &Step) -> Vec<Changed> {
        if std::mem::replace(&mut self.layer, step.layer) != step.layer {
            (self.network, self.ports) = (None, None);
        }
        self.next(&step.event)
    }

    fn next(&mut self, event: &Event) -> Vec<Changed> {
        let mut changed = Vec::new();
        // What could not be read is zero.
        if event.flags & EventFlags::READ_FAILED != 0 {
            return changed;
        }
        let mut compare = |known: &mut Option<Event>, differs: &dyn Fn(&Event, Field) -> bool, fields: &[Field]| {
            if let Some(old) = known.replace(*event) {
                let fields = fields.iter().filter(|field| differs(&old, **field));
                changed.extend(fields.map(|field| Changed { field: *field, from: old, to: *event }));
            }
        };
        let differs = |old: &Event, field: Field| differ(old, event, field);
        if event.ifindex != 0 {
            compare(&mut self.device, &differs, &[Field::Device]);
        }
        use Field::{Cloned, Destination, Gso, IpSummed, Len, Mark, Source, Ttl, Users, Vlan};
        compare(&mut self.skb, &differs, &[Len, Mark, Vlan, Cloned, Users, Gso, IpSummed]);
        // A packet that TCP is still making has addresses, and no TTL yet.
        if event.flags & EventFlags::L3 != 0 && event.ttl != 0 {
            compare(&mut self.network, &differs, &[Ttl]);
        }
        let has_ports = event.flags & EventFlags::L4 != 0;
        if event.flags & EventFlags::L3 != 0 && (has_ports || self.ports.is_none()) {
            compare(&mut self.ports, &differs, &[Source, Destination]);
        }
        changed
    }
}

fn differ(old: &Event, new: &Event, field: Field) -> bool {
    // Without a size the number of segments is TCP's own book-keeping.
    let gso = |event: &Event| if event.gso_size == 0 { (0, 0) } else { (event.gso_size, event.gso_segs) };
    // In place of ports, ICMP has its type there.
    let port = |port: u16| if matches!(new.l4_proto, 1 | 58) || old.flags & EventFlags::L4 == 0 { 0 } else { port };
    match field {
        Field::Device => (old.netns, old.ifindex) != (new.netns, new.ifindex),
        Field::Len => old.len != new.len,
        Field::Mark => old.mark != new.mark,
        Field::Vlan => old.vlan_tci != new.vlan_tci,
        Field::Cloned => old.cloned != new.cloned,
        Field::Users => old.users != new.users,
        Field::Gso => gso(old) != gso(new),
        Field::IpSummed => old.ip_summed != new.ip_summed,
        Field::Ttl => old.ttl != new.ttl,
        Field::Source => (old.saddr, port(old.sport)) != (new.saddr, port(new.sport)),
        Field::Destination => (old.daddr, port(old.dport)) != (new.daddr, port(new.dport)),
    }
}

#[cfg(test)]
mod tests {
    use super::{Field, Known};
    use crate::trace::Lab;
    use proptest::prelude::*;
    use skbtrace_common::{Event, EventFlags};

    fn fields(events: &[Event]) -> Vec<Field> {
        let mut known = Known::default();
        let mut all = events.iter().map(|event| known.next(event)).collect::<Vec<_>>();
        all.pop().unwrap().into_iter().map(|changed| changed.field).collect()
    }

    fn event() -> Event {
        Lab::new().tcp_data(1, 100, 77)[3]
    }

    #[test]
    fn each_field_is_told_by_itself() {
        type Change = fn(&mut Event);
        let changes: [(Field, Change); 11] = [
            (Field::Device, |event| event.netns += 1),
            (Field::Len, |event| event.len += 14),
            (Field::Mark, |event| event.mark = 7),
            (Field::Vlan, |event| event.vlan_tci = 5),
            (Field::Cloned, |event| event.cloned = 1),
            (Field::Users, |event| event.users = 2),
            (Field::Gso, |event| event.gso_size = 1448),
            (Field::IpSummed, |event| event.ip_summed = 0),
            (Field::Ttl, |event| event.ttl -= 1),
            (Field::Source, |event| event.sport += 1),
            (Field::Destination, |event| event.daddr[15] += 1),
        ];
        for (field, change) in changes {
            let mut new = event();
            change(&mut new);
            assert_eq!(fields(&[event(), new]), [field]);
            // It is compared with what was known of it last.
            let blind = Event { ifindex: 0, flags: EventFlags::CONTEXT, ..event() };
            assert_eq!(fields(&[event(), blind, new]), [field]);
            let unread = Event { len: 0, flags: EventFlags::READ_FAILED, ..event() };
            assert_eq!(fields(&[event(), unread, new]), [field]);
            assert_eq!(fields(&[event(), unread]), []);
        }
    }

    #[test]
    fn what_is_no_header_yet_has_no_ttl() {
        assert_eq!(fields(&[Event { ttl: 0, ..event() }, event()]), []);
        let echo = Event { l4_proto: 1, sport: 0x0800, ..event() };
        assert_eq!(fields(&[echo, Event { sport: 0, ..echo }]), []);
    }

    proptest! {
        #[test]
        fn nothing_changes_between_equals(len: u32, mark: u32, vlan_tci: u16, flags: u32, l4_proto: u8) {
            let event = Event { len, mark, vlan_tci, flags, l4_proto, ..event() };
            prop_assert_eq!(fields(&[event, event]), []);
        }
    }
}
