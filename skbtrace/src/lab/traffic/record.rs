//! The unit of lab traffic: a record that proves itself. Its payload follows from its header, so the receiver knows
//! every byte that it should have got and can name the first that is wrong, not only that a hash differs.
//!
//! | bytes | what (big endian) |
//! |---|---|
//! | 0..4 | magic `skbT` |
//! | 4..8 | the run, so that a late datagram of an earlier run is told apart |
//! | 8..10 | the connection |
//! | 10..12 | zero |
//! | 12..20 | the sequence number in the connection, from 0 |
//! | 20..24 | the length of the whole record |
//! | 24..32 | FNV-1a of everything else, the header first |
//! | 32.. | payload: splitmix64 seeded with run, connection and sequence number |

use std::fmt;

/// The size of the header and so of the smallest record.
pub const HEADER: usize = 32;
/// Where the hash is.
const HASH: std::ops::Range<usize> = 24..HEADER;
const MAGIC: [u8; 4] = *b"skbT";

/// Which record it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Record {
    /// The run.
    pub run: u32,
    /// The connection in the run.
    pub connection: u16,
    /// The number in the connection, from 0.
    pub sequence: u64,
}

/// What is wrong with received bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// An intact record of another run.
    Stray(Record),
    /// A record whose bytes are not as sent.
    Corrupt {
        /// Which record, when its header can be trusted.
        record: Option<Record>,
        /// The first wrong byte: its offset in the record, what it should be and what it is. `None` when even the
        /// header cannot be trusted, or the record was cut short.
        first: Option<(usize, u8, u8)>,
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stray(record) => write!(f, "record {} of another run", record.sequence),
            Self::Corrupt { record: Some(record), first: Some((offset, sent, got)) } => {
                let Record { connection, sequence, .. } = record;
                write!(
                    f,
                    "connection {connection} record {sequence}: byte {offset} sent as {sent:02x}, came as {got:02x}"
                )
            }
            Self::Corrupt { .. } => f.write_str("a record with a damaged header"),
        }
    }
}

/// Fills `buffer` with the record.
///
/// # Panics
/// When `buffer` is shorter than [`HEADER`]. A record longer than 4 GiB is not supported.
pub fn encode(record: Record, buffer: &mut [u8]) {
    let length = buffer.len() as u32;
    buffer[..4].copy_from_slice(&MAGIC);
    buffer[4..8].copy_from_slice(&record.run.to_be_bytes());
    buffer[8..10].copy_from_slice(&record.connection.to_be_bytes());
    buffer[10..12].fill(0);
    buffer[12..20].copy_from_slice(&record.sequence.to_be_bytes());
    buffer[20..24].copy_from_slice(&length.to_be_bytes());
    let mut state = record.sequence ^ u64::from(record.run) << 32 ^ u64::from(record.connection) << 16;
    for chunk in buffer[HEADER..].chunks_mut(8) {
        chunk.copy_from_slice(&splitmix64(&mut state).to_be_bytes()[..chunk.len()]);
    }
    let hash = fnv1a(buffer[..HASH.start].iter().chain(&buffer[HEADER..]));
    buffer[HASH].copy_from_slice(&hash.to_be_bytes());
}

/// Checks received bytes against the record that their header names. `scratch` saves an allocation for each.
///
/// # Errors
/// The [`Fault`], when it is not an intact record of this run.
pub fn verify(run: u32, bytes: &[u8], scratch: &mut Vec<u8>) -> Result<Record, Fault> {
    let unknown = Fault::Corrupt { record: None, first: None };
    let Some(header) = bytes.first_chunk::<HEADER>() else { return Err(unknown) };
    let [_, _, _, _, r0, r1, r2, r3, c0, c1, _, _, s @ ..] = header;
    let Some(sequence) = s.first_chunk::<8>() else { return Err(unknown) };
    let claimed = Record {
        run: u32::from_be_bytes([*r0, *r1, *r2, *r3]),
        connection: u16::from_be_bytes([*c0, *c1]),
        sequence: u64::from_be_bytes(*sequence),
    };
    scratch.resize(bytes.len(), 0);
    encode(claimed, scratch);
    let Some(offset) = scratch.iter().zip(bytes).position(|(sent, got)| sent != got) else {
        return if claimed.run == run { Ok(claimed) } else { Err(Fault::Stray(claimed)) };
    };
    // The header is believed when its hash is the right one for what it says, or when nothing but the hash is wrong.
    // The second needs a payload that bears the header out.
    let hash_fits = scratch[HASH] == bytes[HASH];
    let has_payload = bytes.len() >= HEADER + 8;
    let rest_fits = has_payload && scratch[..HASH.start] == bytes[..HASH.start] && scratch[HEADER..] == bytes[HEADER..];
    if claimed.run == run && (hash_fits || rest_fits) {
        Err(Fault::Corrupt { record: Some(claimed), first: Some((offset, scratch[offset], bytes[offset])) })
    } else {
        Err(unknown)
    }
}

fn splitmix64(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

fn fnv1a<'a>(bytes: impl Iterator<Item = &'a u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// What the receiver of one run counts.
#[derive(Debug, Default)]
pub struct Tally {
    /// Records of this run that came, whatever their state.
    pub received: u64,
    /// Different records that came intact.
    pub intact: u64,
    /// Intact records that had come before.
    pub duplicate: u64,
    /// Intact records that came after one with a higher number.
    pub reordered: u64,
    /// Records whose bytes were not as sent.
    pub corrupt: u64,
    /// Records of another run.
    pub stray: u64,
    /// The first fault that is worth a line.
    pub first_fault: Option<Fault>,
    connections: Vec<Seen>,
}

#[derive(Debug, Default, Clone)]
struct Seen {
    /// A bit for each sequence number.
    bits: Vec<u64>,
    highest: Option<u64>,
}

impl Seen {
    /// Remembers a number; whether it is new.
    fn insert(&mut self, sequence: u64) -> bool {
        let (word, bit) = ((sequence / 64) as usize, 1 << (sequence % 64));
        if word >= self.bits.len() {
            self.bits.resize(word + 1, 0);
        }
        let is_new = self.bits[word] & bit == 0;
        self.bits[word] |= bit;
        is_new
    }
}

impl Tally {
    /// Counts one received record.
    pub fn count(&mut self, result: Result<Record, Fault>) {
        match result {
            Err(Fault::Stray(_)) => self.stray += 1,
            Err(fault) => {
                self.received += 1;
                self.corrupt += 1;
                self.first_fault.get_or_insert(fault);
            }
            Ok(record) => {
                self.received += 1;
                self.count_intact(record);
            }
        }
    }

    fn count_intact(&mut self, record: Record) {
        let connection = usize::from(record.connection);
        if connection >= self.connections.len() {
            self.connections.resize(connection + 1, Seen::default());
        }
        let seen = &mut self.connections[connection];
        if !seen.insert(record.sequence) {
            self.duplicate += 1;
            return;
        }
        self.intact += 1;
        if seen.highest.is_some_and(|highest| highest > record.sequence) {
            self.reordered += 1;
        } else {
            seen.highest = Some(record.sequence);
        }
    }

    /// Adds what another receiver of the same run counted.
    pub fn merge(&mut self, other: Self) {
        self.received += other.received;
        self.intact += other.intact;
        self.duplicate += other.duplicate;
        self.reordered += other.reordered;
        self.corrupt += other.corrupt;
        self.stray += other.stray;
        self.first_fault = self.first_fault.take().or(other.first_fault);
    }

    /// How many of `sent` never came. A corrupt record came.
    #[must_use]
    pub fn lost(&self, sent: u64) -> u64 {
        sent.saturating_sub(self.intact).saturating_sub(self.corrupt)
    }
}

#[cfg(test)]
mod tests;
