//! The bytes of the ring as events, and back. The kernel side is trusted to write whole events; a recording is not.

use skbtrace_common::{Digest, Event, EventFlags, HopId};

/// Size of an event on the wire, bytes.
pub const EVENT_SIZE: usize = size_of::<Event>();
/// Size of the digest that may follow it, bytes.
pub const DIGEST_SIZE: usize = size_of::<Digest>();

/// Bytes that are no event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The record is not as long as an event and the bytes of the packet that it announces.
    #[error(
        "a record of {0} bytes is no event (from {EVENT_SIZE} bytes): it was written by another version of skbtrace"
    )]
    Size(usize),
    /// The hop's number is not in the catalogue.
    #[error("hop number {0} is unknown: the event was written by a newer version of skbtrace")]
    Hop(u16),
    /// Packet ids are never 0.
    #[error("the event belongs to no packet (id 0)")]
    NoPacket,
}

/// Reads an event from a record of the ring, the digest of its payload (an empty one where it has none), and the bytes of
/// the packet behind them. The record needs no alignment.
///
/// # Errors
/// When the size is not that of an event and its bytes, the hop is unknown or there is no packet id.
pub fn decode(bytes: &[u8]) -> Result<(Event, Digest, &[u8]), DecodeError> {
    let Some((event, rest)) = bytes.split_at_checked(EVENT_SIZE) else {
        return Err(DecodeError::Size(bytes.len()));
    };
    // SAFETY: the slice has exactly the size of an Event, which is made of integers only: every bit pattern is valid.
    let event = unsafe { event.as_ptr().cast::<Event>().read_unaligned() };
    let (digest, frame) = if event.flags & EventFlags::DIGEST == 0 {
        (Digest::default(), rest)
    } else {
        let Some((digest, frame)) = rest.split_at_checked(DIGEST_SIZE) else {
            return Err(DecodeError::Size(bytes.len()));
        };
        // SAFETY: the slice has exactly the size of a Digest, which is made of integers only.
        (unsafe { digest.as_ptr().cast::<Digest>().read_unaligned() }, frame)
    };
    // A ring's record has room for the longest frame; a recording's is as long as what it holds.
    let Some(frame) = frame.get(..usize::from(event.caplen)) else {
        return Err(DecodeError::Size(bytes.len()));
    };
    if HopId::from_number(event.hop).is_none() {
        return Err(DecodeError::Hop(event.hop));
    }
    if event.packet == 0 {
        return Err(DecodeError::NoPacket);
    }
    Ok((event, digest, frame))
}

/// The bytes of an event, as the kernel side would have written them.
#[must_use]
pub fn encode(event: &Event) -> [u8; EVENT_SIZE] {
    // SAFETY: an Event has no padding (its size is the sum of its fields), so all of its bytes are initialised.
    unsafe { std::mem::transmute::<Event, [u8; EVENT_SIZE]>(*event) }
}

/// The bytes of a digest, likewise.
#[must_use]
pub fn encode_digest(digest: &Digest) -> [u8; DIGEST_SIZE] {
    // SAFETY: as an Event, a Digest has no padding.
    unsafe { std::mem::transmute::<Digest, [u8; DIGEST_SIZE]>(*digest) }
}

#[cfg(test)]
mod tests {
    use super::{DIGEST_SIZE, DecodeError, EVENT_SIZE, decode, encode, encode_digest};
    use crate::trace::Lab;
    use proptest::prelude::*;
    use skbtrace_common::{Digest, EventFlags};

    #[test]
    fn an_event_survives_the_wire_at_any_alignment() {
        let event = Lab::new().tcp_data(1, 100, 77)[3];
        for shift in 0..8 {
            let mut bytes = vec![0xee; shift];
            bytes.extend_from_slice(&encode(&event));
            assert_eq!(decode(&bytes[shift..]), Ok((event, Digest::default(), &[][..])));
        }
    }

    #[test]
    fn the_packets_bytes_follow_the_event() {
        let mut event = Lab::new().tcp_data(1, 100, 77)[3];
        event.caplen = 3;
        let record = [&encode(&event)[..], b"abc\0\0"].concat();
        assert_eq!(decode(&record), Ok((event, Digest::default(), &b"abc"[..])));
        assert_eq!(decode(&record[..EVENT_SIZE + 2]), Err(DecodeError::Size(EVENT_SIZE + 2)));
    }

    #[test]
    fn a_digest_stands_between_them() {
        let mut event = Lab::new().tcp_data(1, 100, 77)[3];
        event.caplen = 3;
        event.flags |= EventFlags::DIGEST;
        let digest = Digest { plain: 7, bytes: 77, ..Digest::default() };
        let record = [&encode(&event)[..], &encode_digest(&digest), b"abc"].concat();
        assert_eq!(decode(&record), Ok((event, digest, &b"abc"[..])));
        assert_eq!(
            decode(&record[..EVENT_SIZE + DIGEST_SIZE + 2]),
            Err(DecodeError::Size(EVENT_SIZE + DIGEST_SIZE + 2))
        );
        assert_eq!(decode(&record[..EVENT_SIZE + 9]), Err(DecodeError::Size(EVENT_SIZE + 9)));
    }

    #[test]
    fn what_is_no_event_is_refused() {
        let mut event = Lab::new().tcp_data(1, 100, 77)[0];
        let bytes = encode(&event);
        assert_eq!(decode(&bytes[1..]), Err(DecodeError::Size(EVENT_SIZE - 1)));
        assert_eq!(decode(&[]), Err(DecodeError::Size(0)));
        event.hop = 9999;
        assert_eq!(decode(&encode(&event)), Err(DecodeError::Hop(9999)));
        event.hop = 0;
        event.packet = 0;
        assert_eq!(decode(&encode(&event)), Err(DecodeError::NoPacket));
    }

    proptest! {
        #[test]
        fn hostile_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), EVENT_SIZE..EVENT_SIZE + 300)) {
            if let Ok((event, digest, frame)) = decode(&bytes) {
                let digest = if event.flags & EventFlags::DIGEST == 0 { vec![] } else { encode_digest(&digest).to_vec() };
                let record = [&encode(&event)[..], &digest, frame].concat();
                prop_assert_eq!(&record[..], &bytes[..record.len()]);
            }
        }
    }
}
