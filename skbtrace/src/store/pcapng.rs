//! The blocks of a pcapng file (draft-ietf-opsawg-pcapng), as far as a recording needs them, and the seal on each.
//!
//! The crates that write pcapng know no checksums, and those that read it stop at, or stumble over, what is damaged
//! without saying where. A recording has to tell damage from truth, so every block ends in a seal: a custom option with
//! the block's ordinal and the CRC-32 of all that is before it. What the seal does not cover (the end of the options,
//! the second length) can have one value only. So each flipped bit, lost block or torn tail is found, and where it is.
//!
//! Sections are written in the byte order of the host, since the events in them are; readers are told by the header.

use crc32fast::hash;

/// Section header.
pub(super) const SECTION: u32 = 0x0a0d_0d0a;
/// Interface description.
pub(super) const INTERFACE: u32 = 1;
/// Enhanced packet.
pub(super) const PACKET: u32 = 6;
/// What is recorded beside packets: a type for local use, "SKB" with the highest bit. Other tools skip it. Custom blocks,
/// which would seem right, are shown by Wireshark as packets.
pub(super) const LOCAL: u32 = 0x8053_4b42;

/// First field of a section, by which a reader knows the byte order.
pub(super) const BYTE_ORDER: u32 = 0x1a2b_3c4d;
/// Link type of what is recorded.
pub(super) const ETHERNET: u16 = 1;
/// The private enterprise number that RFC 5612 sets aside for examples: skbtrace has none of its own. What is ours is
/// told from what is not by the tags behind it.
pub(super) const PEN: u32 = 32473;

/// Codes of options.
pub(super) mod option {
    pub(in crate::store) const COMMENT: u16 = 1;
    pub(in crate::store) const SECTION_HARDWARE: u16 = 2;
    pub(in crate::store) const SECTION_OS: u16 = 3;
    pub(in crate::store) const SECTION_APPLICATION: u16 = 4;
    pub(in crate::store) const INTERFACE_NAME: u16 = 2;
    pub(in crate::store) const INTERFACE_DESCRIPTION: u16 = 3;
    pub(in crate::store) const INTERFACE_TIME_RESOLUTION: u16 = 9;
    pub(in crate::store) const PACKET_FLAGS: u16 = 2;
    /// Binary, of the private enterprise whose number comes first, and may be copied.
    pub(in crate::store) const CUSTOM: u16 = 2989;
    /// The same, and may not: a block that another tool has rewritten is another block.
    pub(in crate::store) const CUSTOM_NO_COPY: u16 = 19373;
}

/// No block is longer: a length beyond is damage, and no reason to read on.
pub(super) const MAX_BLOCK: u32 = 16 << 20;
/// From the seal's code to the end of the block: the option (code, length, PEN, ordinal, checksum), the end of the
/// options, and the length.
const TAIL: usize = 4 + 12 + 4 + 4;
/// The shortest sealed block: type and length, and the tail.
pub(super) const MIN_BLOCK: u32 = 8 + TAIL as u32;
/// Options are shorter than this; longer text is cut.
const MAX_TEXT: usize = 4096;

/// A block that is being written, at the end of a buffer.
pub(super) struct Block<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
}

impl<'a> Block<'a> {
    /// Begins a block of this type.
    pub(super) fn new(out: &'a mut Vec<u8>, kind: u32) -> Block<'a> {
        let start = out.len();
        let mut block = Block { out, start };
        block.u32(kind).u32(0);
        block
    }

    pub(super) fn u16(&mut self, value: u16) -> &mut Self {
        self.out.extend_from_slice(&value.to_ne_bytes());
        self
    }

    pub(super) fn u32(&mut self, value: u32) -> &mut Self {
        self.out.extend_from_slice(&value.to_ne_bytes());
        self
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.out.extend_from_slice(bytes);
        self
    }

    /// Zeroes up to the next multiple of four bytes.
    pub(super) fn pad(&mut self) -> &mut Self {
        let length = self.out.len() - self.start;
        self.out.resize(self.start + length.next_multiple_of(4), 0);
        self
    }

    /// An option. Its value is cut at 65,535 bytes.
    pub(super) fn option(&mut self, code: u16, value: &[u8]) -> &mut Self {
        let length = u16::try_from(value.len()).unwrap_or(u16::MAX);
        self.u16(code).u16(length).bytes(&value[..usize::from(length)]).pad()
    }

    /// An option of text.
    pub(super) fn text(&mut self, code: u16, text: &str) -> &mut Self {
        self.option(code, &text.as_bytes()[..text.floor_char_boundary(MAX_TEXT)])
    }

    /// Seals the block: it is complete.
    pub(super) fn seal(&mut self, ordinal: u32) {
        let length = (self.out.len() - self.start + TAIL) as u32;
        self.out[self.start + 4..self.start + 8].copy_from_slice(&length.to_ne_bytes());
        self.u16(option::CUSTOM_NO_COPY).u16(12).u32(PEN).u32(ordinal);
        let checksum = hash(&self.out[self.start..]);
        self.u32(checksum).u32(0).u32(length);
    }
}

/// What is wrong with a block.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The file ends within it.
    #[error("the file ends in the middle of a block: the recording was cut short")]
    Torn,
    /// Nothing but zeroes: space that a file system gave and nobody filled.
    #[error("there are only zeroes: the machine went down before the data was on the disk")]
    Zeroes,
    /// No block has such a length.
    #[error("a block cannot have {0} bytes")]
    Length(u32),
    /// The checksum is wrong.
    #[error("the checksum of the block is wrong: bytes have changed since they were written")]
    Checksum,
    /// Sealed and sound, but not the next one.
    #[error("block {found} comes where block {expected} should be: a part of the file is missing")]
    Order {
        /// Ordinal that should have come.
        expected: u32,
        /// The one that did.
        found: u32,
    },
    /// Sound, and nothing that a recording holds.
    #[error("{0}")]
    Content(String),
}

/// A sealed block, opened: what is in it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Opened<'a> {
    pub(super) kind: u32,
    /// Between the lengths and the seal.
    pub(super) body: &'a [u8],
}

/// Whether the block ends in a seal at all, sound or not.
pub(super) fn is_sealed(block: &[u8]) -> bool {
    let at = block.len().saturating_sub(TAIL);
    let start = [option::CUSTOM_NO_COPY.to_ne_bytes(), 12u16.to_ne_bytes()].concat();
    block.len() >= MIN_BLOCK as usize && block[at..at + 4] == start && u32_at(block, at + 4) == Some(PEN)
}

/// Opens a block of the length that it announces, if its seal is that of the block that is expected.
pub(super) fn open(block: &[u8], ordinal: u32) -> Result<Opened<'_>, Fault> {
    if !is_sealed(block) {
        return Err(Fault::Checksum);
    }
    let end = block.len();
    let [found, checksum, options_end, length] = [16, 12, 8, 4].map(|back| u32_at(block, end - back));
    if checksum != Some(hash(&block[..end - 12])) || options_end != Some(0) || length != u32_at(block, 4) {
        return Err(Fault::Checksum);
    }
    match found {
        Some(found) if found != ordinal => Err(Fault::Order { expected: ordinal, found }),
        _ => Ok(opened(block)),
    }
}

/// What is in a block that [`open`] has found to be sound.
pub(super) fn opened(block: &[u8]) -> Opened<'_> {
    let body = block.get(8..block.len().saturating_sub(TAIL)).unwrap_or_default();
    Opened { kind: u32_at(block, 0).unwrap_or(0), body }
}

/// The number at this place.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let field = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_ne_bytes(field.try_into().ok()?))
}

/// The options in these bytes, as far as they are any.
pub(super) fn options(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let code = u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?);
        let length = usize::from(u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?));
        let value = bytes.get(4..4 + length)?;
        bytes = bytes.get(4 + length.next_multiple_of(4)..).unwrap_or_default();
        (code != 0).then_some((code, value))
    })
}
