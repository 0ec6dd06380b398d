//! What an expression of the user's looks at: a packet's first bytes, laid out one after the other, wherever the kernel has them.
//!
//! The kernel side fills a window, the translated expression reads it and leaves its verdict there. The user side translates
//! expressions, and so it must know where in a window things are.

use crate::level::LEVELS;

/// At most so many bytes of a packet can be looked at: a power of two.
pub const WINDOW_BYTES: usize = 2048;

/// The first bytes of one packet.
#[repr(C)]
pub struct Window {
    /// 1 when the expression wants the packet. Of memory, and not what a program returns: nothing returns from a tail call.
    pub verdict: u32,
    /// Bytes that are there.
    pub copied: u32,
    /// Bytes that the packet has.
    pub len: u32,
    /// Always 0.
    pub reserved: u32,
    /// The bytes, and as much room again for masked lengths behind masked offsets.
    pub bytes: [u8; 2 * WINDOW_BYTES],
}

/// What a packet goes through when an expression is asked: the places of each level in the program arrays of filters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Stage {
    /// Its first bytes are copied into the window of the level.
    Copy = 0,
    /// The expression, for a packet that begins with an Ethernet header.
    Link = 1,
    /// The expression, for a packet that begins with a network header: its Ethernet header is still to come.
    Network = 2,
    /// The answer is heard.
    Answer = 3,
}

/// How many places a level has.
const STAGES: u32 = Stage::Answer as u32 + 1;

/// How many places there are in all.
pub const STAGE_COUNT: u32 = LEVELS * STAGES;

impl Stage {
    /// Its place for this level.
    #[must_use]
    #[inline(always)]
    pub const fn place(self, level: u32) -> u32 {
        level.wrapping_mul(STAGES).wrapping_add(self as u32)
    }
}
