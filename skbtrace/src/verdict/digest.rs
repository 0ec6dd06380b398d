//! Arithmetic of digests: sums of ranges, and where two digests of the same range differ.
//!
//! The kernel side sends weighted sums, not bytes. When a single byte has changed, the change of the sum still tells which:
//! each weight is odd, so it has an inverse, and only at the right place does the quotient come out as a single byte's
//! difference. The chance that another one fits as well is some 2^-20 at worst.

use skbtrace_common::{DIGEST_BLOCKS, Digest, DigestState};

/// Bytes of the smallest block.
const BLOCK: u32 = 256;
/// Bytes of a word.
const WORD: u32 = 8;
/// Bytes that have a weight of their own.
const HALF: u32 = 4;

/// Where two payloads differ first. Offsets are bytes from the beginning of the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In this byte, and in no other.
    Byte {
        /// Its offset.
        offset: u32,
        /// What has been added to it.
        difference: i16,
    },
    /// Somewhere in these bytes, and perhaps behind them.
    Range {
        /// Offset of the first.
        from: u32,
        /// Offset of the one behind the last.
        to: u32,
    },
}

/// Whether it speaks of a whole payload.
pub(super) fn is_whole(digest: &Digest) -> bool {
    digest.state == DigestState::WHOLE && digest.bytes > 0
}

/// The digest in one number: those of neighbouring ranges add up.
#[must_use]
pub fn sum(digest: &Digest) -> u64 {
    digest.blocks.iter().fold(0, |sum, block| sum.wrapping_add(*block))
}

/// Where two digests of the same range differ first; `None` when they are the same.
#[must_use]
pub fn locate(before: &Digest, after: &Digest) -> Option<Place> {
    let changes: Vec<usize> = (0..DIGEST_BLOCKS).filter(|n| before.blocks[*n] != after.blocks[*n]).collect();
    let first = *changes.first()?;
    let shift = u32::from(before.block_shift.min(15));
    let block = BLOCK << shift;
    // Counted from the first position rounded down to a word.
    let pad = before.start % WORD;
    let number = u32::try_from(first).unwrap_or(0);
    let (from, to) = (number * block, (number + 1) * block);
    if changes.len() == 1 {
        let change = after.blocks[first].wrapping_sub(before.blocks[first]);
        for half in from / HALF..to / HALF {
            let position = (before.start - pad).wrapping_add(half * HALF);
            let difference = change.wrapping_mul(inverse(weight(position)));
            if let Some((byte, difference)) = single_byte(difference)
                && let Some(offset) = (half * HALF + byte).checked_sub(pad)
                && offset < before.bytes
            {
                return Some(Place::Byte { offset, difference });
            }
        }
    }
    let end = to.saturating_sub(pad).min(before.bytes);
    Some(Place::Range { from: from.saturating_sub(pad).min(end), to: end })
}

/// The weight of the half of a word at this position: see [`Digest`].
fn weight(position: u32) -> u64 {
    let x = u64::from(position / WORD).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let weight = (x ^ (x >> 32)) | 1;
    if position % WORD < HALF { weight } else { weight.wrapping_mul(0xD6E8_FEB8_6659_FD93) }
}

/// The inverse of an odd number modulo 2^64, by Newton's iteration: each step doubles the bits that are right.
fn inverse(odd: u64) -> u64 {
    (0..5)
        .fold(odd.wrapping_mul(3) ^ 2, |inverse, _| inverse.wrapping_mul(2_u64.wrapping_sub(odd.wrapping_mul(inverse))))
}

/// The byte of a half, and its difference, when the difference of two halves is that of one byte.
fn single_byte(difference: u64) -> Option<(u32, i16)> {
    let byte = difference.trailing_zeros() / 8;
    let rest = i16::try_from(difference.cast_signed() >> (byte.min(7) * 8)).ok()?;
    (difference != 0 && byte < HALF && (-255..=255).contains(&rest)).then_some((byte, rest))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::{BLOCK, HALF, Place, WORD, locate, sum, weight};
    use proptest::prelude::*;
    use skbtrace_common::{DIGEST_BLOCKS, Digest, DigestState};

    /// What the kernel side says of these bytes at this position.
    pub(crate) fn digest_of(start: u32, bytes: &[u8]) -> Digest {
        let mut digest = Digest { start, bytes: bytes.len() as u32, state: DigestState::WHOLE, ..Digest::default() };
        while digest.block_shift < 9 && (digest.bytes + 8) >> digest.block_shift > BLOCK * DIGEST_BLOCKS as u32 {
            digest.block_shift += 1;
        }
        for (n, byte) in bytes.iter().enumerate() {
            let place = start % WORD + n as u32;
            let position = (start - start % WORD).wrapping_add(place);
            let value = u64::from(*byte) << (position % HALF * 8);
            let block = &mut digest.blocks[((place / BLOCK) >> digest.block_shift) as usize % DIGEST_BLOCKS];
            *block = block.wrapping_add(value.wrapping_mul(weight(position)));
        }
        digest
    }

    proptest! {
        #[test]
        fn neighbours_add_up(start: u32, bytes in prop::collection::vec(any::<u8>(), 1..4000), cut in any::<prop::sample::Index>()) {
            let cut = cut.index(bytes.len());
            let parts = [digest_of(start, &bytes[..cut]), digest_of(start.wrapping_add(cut as u32), &bytes[cut..])];
            prop_assert_eq!(sum(&digest_of(start, &bytes)), sum(&parts[0]).wrapping_add(sum(&parts[1])));
        }

        #[test]
        fn a_changed_byte_is_found(
            start: u32,
            bytes in prop::collection::vec(any::<u8>(), 1..40_000),
            at in any::<prop::sample::Index>(),
            change in 1u8..,
        ) {
            let at = at.index(bytes.len());
            let mut garbled = bytes.clone();
            garbled[at] = garbled[at].wrapping_add(change);
            let difference = i16::from(garbled[at]) - i16::from(bytes[at]);
            let found = locate(&digest_of(start, &bytes), &digest_of(start, &garbled));
            let Some(Place::Byte { offset, difference: seen }) = found else { panic!("{found:?}") };
            prop_assert_eq!(offset, at as u32);
            prop_assert_eq!(seen, difference);
        }

        #[test]
        fn changes_are_in_the_range(
            start: u32,
            bytes in prop::collection::vec(any::<u8>(), 2..9000),
            at in prop::collection::vec(any::<prop::sample::Index>(), 2..9),
        ) {
            let mut garbled = bytes.clone();
            for at in &at {
                garbled[at.index(bytes.len())] ^= 0x55;
            }
            let first = garbled.iter().zip(&bytes).position(|(a, b)| a != b);
            let found = locate(&digest_of(start, &bytes), &digest_of(start, &garbled));
            match (first.map(|first| first as u32), found) {
                (None, None) => {}
                (Some(first), Some(Place::Range { from, to })) => prop_assert!((from..to).contains(&first)),
                (Some(first), Some(Place::Byte { offset, .. })) => prop_assert_eq!(offset, first),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn swapped_words_differ() {
        let bytes: Vec<u8> = (0..64).collect();
        for distance in 1..8 {
            let mut swapped = bytes.clone();
            for n in 0..8 {
                swapped.swap(n, distance * 8 + n);
            }
            assert_ne!(sum(&digest_of(0, &bytes)), sum(&digest_of(0, &swapped)));
        }
    }
}
