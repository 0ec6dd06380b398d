//! From packets to findings: where a packet's payload changed.
//!
//! Pure. A finding rests on evidence that was seen: what lies beyond a gap is neither called garbled nor clean.
//!
//! - `digest`: arithmetic of digests: sums of ranges, and where two of the same range differ
//! - `payload`: the payload of a packet along its path, through clones, parts and wholes
//! - `words`: what a finding may say: its class, its place and its cause

mod digest;
mod payload;
mod words;

pub use digest::{Place, locate, sum};
pub use payload::{Change, Payload, Site, payload};
pub use words::{Cause, Class, Span};
