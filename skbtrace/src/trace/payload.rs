//! The bytes of a packet's payload, as far as the kernel side has copied them: kept only where they are other than before.
//!
//! A packet that is as it was has one string of bytes, however many hops it passes. What was copied less far at one hop than
//! at another (its headers took more room) counts as far as both go.

use skbtrace_common::{Digest, DigestState, Event, Frame};

/// So many strings are kept of a packet: what is reported is the first change.
const MOST: usize = 4;
const VLAN: [u16; 2] = [0x8100, 0x88a8];

/// The first bytes of a payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PayloadBytes {
    /// Number of the step from which on they were so.
    pub step: u32,
    /// The bytes. None, where the payload changed more often than is kept.
    pub bytes: Box<[u8]>,
    /// Whether they are all of it.
    whole: bool,
}

/// Notes the payload's bytes at a step, if they are others than at the steps before: at most `limit` of them.
pub(super) fn note(kept: &mut Vec<PayloadBytes>, step: &Event, digest: &Digest, frame: &[u8], limit: usize) {
    let Some(payload) = cut(step, digest, frame) else { return };
    let bytes = payload.get(..limit).unwrap_or(payload);
    let whole = bytes.len() == digest.bytes as usize;
    let new = || PayloadBytes { step: step.step, bytes: bytes.into(), whole };
    let count = kept.len();
    let Some(last) = kept.last_mut() else { return kept.push(new()) };
    let common = last.bytes.len().min(bytes.len());
    let changed = last.bytes[..common] != bytes[..common]
        // Others were appended, or something was cut off.
        || (last.whole && bytes.len() > common)
        || (whole && last.bytes.len() > common);
    if !changed {
        if last.bytes.len() > common {
            (last.bytes, last.whole) = (bytes.into(), false);
        }
    } else if count < MOST {
        kept.push(new());
    } else if count == MOST {
        kept.push(PayloadBytes { step: step.step, bytes: Box::default(), whole: false });
    }
}

/// The payload in the first bytes of a packet; `None` where there is none, or it cannot be told where it begins.
fn cut<'a>(event: &Event, digest: &Digest, frame: &'a [u8]) -> Option<&'a [u8]> {
    if digest.state == DigestState::NONE {
        return None;
    }
    let u16_at = |at: usize| Some(u16::from_be_bytes(*frame.get(at..)?.first_chunk()?));
    let (mut at, mut ethertype) = if event.frame == Frame::ETHERNET { (14, u16_at(12)?) } else { (0, event.ethertype) };
    while VLAN.contains(&ethertype) {
        ethertype = u16_at(at + 2)?;
        at += 4;
    }
    let network = frame.get(at..)?;
    let header = match network.first()? >> 4 {
        4 => usize::from(network[0] & 15) << 2,
        // The kernel side walks one extension header, or that of a fragment.
        6 => match network.get(6)? {
            0 | 43 | 60 => 40 + ((usize::from(*network.get(41)?) + 1) << 3),
            44 => 48,
            _ => 40,
        },
        _ => return None,
    };
    let payload = network.get(header + usize::from(digest.l4_header_len)..)?;
    let payload = payload.get(..digest.bytes as usize).unwrap_or(payload);
    (!payload.is_empty()).then_some(payload)
}

#[cfg(test)]
mod tests {
    use super::{MOST, PayloadBytes, note};
    use crate::store::testkit::with_bytes;
    use crate::trace::Lab;
    use skbtrace_common::{Digest, DigestState, Event, Frame};

    fn digest(bytes: u32, header: u8) -> Digest {
        Digest { state: DigestState::WHOLE, bytes, l4_header_len: header, ..Digest::default() }
    }

    /// A TCP segment of 77 bytes at its hops, each copied so far, with this byte at the offset 20 of its payload.
    fn noted(hops: &[(bool, u16, u8)], limit: usize) -> Vec<PayloadBytes> {
        let mut kept = Vec::new();
        for (step, (ethernet, snaplen, byte)) in hops.iter().enumerate() {
            let event = Event { step: step as u32, ..Lab::new().tcp_data(1, 100, 77)[3] };
            let (event, mut frame) = with_bytes(event, *snaplen, *ethernet);
            let at = 40 + 20 + if *ethernet { 14 } else { 0 };
            if let Some(there) = frame.get_mut(at) {
                *there = *byte;
            }
            note(&mut kept, &event, &digest(77, 20), &frame, limit);
        }
        kept
    }

    fn told(kept: &[PayloadBytes]) -> Vec<(u32, usize, Option<u8>)> {
        kept.iter().map(|kept| (kept.step, kept.bytes.len(), kept.bytes.get(20).copied())).collect()
    }

    #[test]
    fn bytes_that_stay_are_kept_once() {
        let same = [(false, 512, 7), (true, 512, 7), (false, 512, 7)];
        assert_eq!(told(&noted(&same, 256)), [(0, 77, Some(7))]);
        assert_eq!(told(&noted(&same, 32)), [(0, 32, Some(7))]);
    }

    #[test]
    fn bytes_that_change_are_kept_from_there_on() {
        let changed = [(false, 512, 7), (true, 512, 7), (true, 512, 8), (false, 512, 8), (false, 512, 9)];
        assert_eq!(told(&noted(&changed, 256)), [(0, 77, Some(7)), (2, 77, Some(8)), (4, 77, Some(9))]);
        // Behind the limit it is not seen.
        assert_eq!(told(&noted(&changed, 20)), [(0, 20, None)]);
    }

    #[test]
    fn what_was_not_copied_everywhere_is_nobodys() {
        // 64 bytes are 24 of payload without an Ethernet header, and 10 with one.
        let hops = [(false, 64, 7), (true, 64, 0), (false, 64, 9)];
        assert_eq!(told(&noted(&hops, 256)), [(0, 10, None)]);
        assert_eq!(told(&noted(&[(true, 54, 0), (false, 40, 0), (false, 0, 0)], 256)), []);
    }

    #[test]
    fn a_packet_that_never_stays_the_same_is_forgotten_in_time() {
        let hops: Vec<(bool, u16, u8)> = (0..20).map(|byte| (false, 512, byte)).collect();
        let kept = noted(&hops, 256);
        assert_eq!(kept.len(), MOST + 1);
        assert_eq!(told(&kept)[MOST], (MOST as u32, 0, None));
    }

    #[test]
    fn what_is_appended_is_another_payload() {
        let event = Lab::new().tcp_data(1, 100, 77)[3];
        let (event, mut frame) = with_bytes(event, 512, false);
        let mut kept = Vec::new();
        note(&mut kept, &event, &digest(77, 20), &frame, 256);
        frame.extend([b'y'; 23]);
        note(&mut kept, &Event { step: 9, ..event }, &digest(100, 20), &frame, 256);
        assert_eq!(told(&kept), [(event.step, 77, Some(b'x')), (9, 100, Some(b'x'))]);
    }

    #[test]
    fn tags_and_extension_headers_are_passed_over() {
        let event = Event { frame: Frame::ETHERNET, ..Lab::new().tcp_data(1, 100, 77)[3] };
        let tagged =
            [&[0; 12][..], &[0x81, 0, 0, 5, 0x86, 0xdd, 0x60, 0, 0, 0, 0, 0, 60], &[0; 33], &[17, 0], &[0; 14]];
        let frame = [&tagged.concat()[..], b"payload"].concat();
        let mut kept = Vec::new();
        note(&mut kept, &event, &digest(7, 8), &frame, 256);
        assert_eq!(kept.first().map(|kept| &kept.bytes[..]), Some(&b"payload"[..]));
        // An untagged frame that begins with the network header; and one of a kind that nobody knows.
        let network = Event { frame: Frame::NETWORK, ethertype: 0x8100, ..event };
        kept.clear();
        note(&mut kept, &network, &digest(7, 8), &frame[14..], 256);
        assert_eq!(kept.first().map(|kept| &kept.bytes[..]), Some(&b"payload"[..]));
        kept.clear();
        note(&mut kept, &Event { ethertype: 0x0800, ..network }, &digest(7, 8), &[0; 64], 256);
        assert!(kept.is_empty());
    }
}
