//! The wire contract: what the kernel side writes and the user side reads, and what the user side tells the kernel
//! side before it loads it.
//!
//! Both sides are built from these definitions, so there is nothing to keep in step by hand. Everything is `repr(C)`,
//! without padding that is not named, and without logic. Integers are in the host's byte order unless a field says
//! that it is as on the wire.
#![no_std]

mod event;
mod hop;
mod layout;
mod level;
mod window;

pub use event::{Context, DIGEST_BLOCKS, Digest, DigestState, EVENT_FLAGS, Event, EventFlags, Frame, IpSummed};
pub use hop::{HOP_COUNT, HopId, hop_of_cookie};
pub use layout::{
    AddrKey, Bits, Counters, DeviceKey, Filter, HopArgs, MAX_FRAME, MAX_SKB_SIZE, NO_ARG, Offsets, SEGMENT_BY_ADDRESS,
    SEGMENT_MEMBER, SOCK_READ, Source, hop_flags,
};
pub use level::{LEVELS, Level};
pub use window::{STAGE_COUNT, Stage, WINDOW_BYTES, Window};
