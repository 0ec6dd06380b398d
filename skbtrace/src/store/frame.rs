//! From what an event holds of its packet to a frame that other tools can read.
//!
//! A hop above the device sees no Ethernet header: its bytes begin with the network header. They get one in front, of
//! zero addresses and the right type, so that all interfaces of a recording are Ethernet and every hop is decoded.

use skbtrace_common::{Event, Frame};

/// Length of an Ethernet header, bytes.
pub(super) const ETHERNET_HEADER: usize = 14;
const IPV4: u16 = 0x0800;
const ARP: u16 = 0x0806;
const IPV6: u16 = 0x86dd;
const VLAN: [u16; 2] = [0x8100, 0x88a8];

/// The header that is put in front of these bytes; `None` when they have one, or there are none.
pub(super) fn header(event: &Event, bytes: &[u8]) -> Option<[u8; ETHERNET_HEADER]> {
    if bytes.is_empty() || event.frame == Frame::ETHERNET {
        return None;
    }
    // What the bytes say is surer than `skb->protocol`, which is not set yet where a packet begins.
    let ethertype = match bytes[0] >> 4 {
        4 if event.ethertype != ARP => IPV4,
        6 if event.ethertype != ARP => IPV6,
        _ => event.ethertype,
    };
    let mut header = [0; ETHERNET_HEADER];
    header[12..].copy_from_slice(&ethertype.to_be_bytes());
    Some(header)
}

/// Length of the whole frame. `frame` is its beginning, with an Ethernet header, or empty.
///
/// `skb->len` counts from wherever `skb->data` stands at the hop: the network header itself knows best, and for what is
/// not IP the kernel side has counted. Both are believed unless they say less than there is.
pub(super) fn original_length(event: &Event, frame: &[u8]) -> u32 {
    let counted = match (event.frame_len, event.frame) {
        (0, _) => event.len,
        (length, Frame::ETHERNET) => length,
        (length, _) => length.saturating_add(ETHERNET_HEADER as u32),
    };
    let known = network_length(frame).unwrap_or(counted);
    // Nothing is shorter than its header: to Wireshark that would be malformed, and not just cut off.
    known.max(u32::try_from(frame.len().max(ETHERNET_HEADER)).unwrap_or(u32::MAX))
}

fn network_length(frame: &[u8]) -> Option<u32> {
    let u16_at = |at: usize| Some(u16::from_be_bytes(frame.get(at..at + 2)?.try_into().ok()?));
    let mut at = 12;
    while VLAN.contains(&u16_at(at)?) {
        at += 4;
    }
    let start = at + 2;
    let length = match u16_at(at)? {
        // 0 in both: larger than the field can say (BIG TCP).
        IPV4 => u32::from(u16_at(start + 2).filter(|length| *length > 0)?),
        IPV6 => 40 + u32::from(u16_at(start + 4).filter(|length| *length > 0)?),
        ARP => 28,
        _ => return None,
    };
    Some(start as u32 + length)
}

#[cfg(test)]
mod tests {
    use super::{header, original_length};
    use crate::trace::Lab;
    use skbtrace_common::{Event, Frame};

    fn event() -> Event {
        Event { len: 1000, ..Lab::new().tcp_data(1, 100, 77)[3] }
    }

    #[test]
    fn a_network_packet_gets_a_header_of_its_own_kind() {
        let network = Event { frame: Frame::NETWORK, ethertype: 0, ..event() };
        assert_eq!(header(&network, &[0x45, 0, 0, 52]), Some([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0]));
        assert_eq!(header(&network, &[0x60]).map(|header| header[12..].to_vec()), Some(vec![0x86, 0xdd]));
        let arp = Event { ethertype: 0x0806, ..network };
        assert_eq!(header(&arp, &[0, 1]).map(|header| header[12..].to_vec()), Some(vec![8, 6]));
        assert_eq!(header(&network, &[]), None);
        assert_eq!(header(&Event { frame: Frame::ETHERNET, ..network }, &[0x45]), None);
    }

    #[test]
    fn the_length_is_that_of_the_network_header() {
        let ethernet = |ethertype: [u8; 2], rest: &[u8]| [&[0; 12][..], &ethertype, rest].concat();
        let v4 = ethernet([8, 0], &[0x45, 0, 5, 220]);
        let v6 = ethernet([0x86, 0xdd], &[0x60, 0, 0, 0, 0, 8]);
        let tagged = ethernet([0x81, 0], &[0, 7, 8, 0, 0x45, 0, 5, 220]);
        let big = ethernet([8, 0], &[0x45, 0, 0, 0]);
        let arp = ethernet([8, 6], &[0; 28]);
        let lengths = [&v4, &v6, &tagged, &big, &arp, &v4[..16].to_vec(), &Vec::new()];
        assert_eq!(lengths.map(|frame| original_length(&event(), frame)), [1514, 62, 1518, 1000, 42, 1000, 1000]);
        let liar = ethernet([8, 0], &[0x45, 0, 0, 1, 9, 9, 9, 9]);
        assert_eq!(original_length(&event(), &liar), 22);
    }
}
