//! From packets to findings: where a packet's payload changed.
//!
//! Pure. A finding rests on evidence that was seen: what lies beyond a gap is neither called garbled nor clean.
//!
//! - `checksum`: what the checksums of a packet are worth at a hop
//! - `digest`: arithmetic of digests: sums of ranges, and where two of the same range differ
//! - `fields`: what changed from one hop of a packet to the next
//! - `payload`: the payload of a packet along its path, through clones, parts and wholes
//! - `words`: what a finding may say: its class, its place and its cause

mod checksum;
mod digest;
mod fields;
mod payload;
mod words;

pub use checksum::{Checksum, Checksums, Why, checksums, is_trust_unearned};
pub use digest::{Place, locate, sum};
pub use fields::{Changed, Field, Known};
pub use payload::{Change, Payload, Site, payload};
pub use words::{Cause, Class, Span};
