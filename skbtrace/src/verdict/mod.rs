//! From packets to findings: where payloads changed, packets ended, waited, doubled or overtook each other; why, and what
//! to do about it.
//!
//! Pure. A finding rests on evidence that was seen: what lies beyond a gap is neither called garbled nor clean.
//!
//! - `checksum`: what the checksums of a packet are worth at a hop
//! - `digest`: arithmetic of digests: sums of ranges, and where two of the same range differ
//! - `fields`: what changed from one hop of a packet to the next
//! - `payload`: the payload of a packet along its path, through clones, parts and wholes
//! - `words`: what a finding may say: its class, its place and its cause
//! - `finding`: what befell some packets, all in the same place and in the same way
//! - `findings`: the findings of a run
//! - `drops`, `late`, `twice`, `order`: which ends, waits, clones and orders of packets are findings
//! - `signs`: what a packet shows of why it was dropped, where the kernel names no reason
//! - `spots`: what stands between two hops
//! - `rules`: one table, from a finding and what is known of the host to its cause and to advice

mod checksum;
mod digest;
mod drops;
mod fields;
mod finding;
mod findings;
mod late;
mod order;
mod payload;
mod rules;
mod signs;
mod spots;
mod twice;
mod words;

pub use checksum::{Checksum, Checksums, Why, checksums, is_trust_unearned};
pub use digest::{Place, locate, sum};
pub use fields::{Changed, Field, Known};
pub use finding::{Detail, Device, Finding, Hook};
pub use findings::Findings;
pub use payload::{Change, Changes, Payload, Site, payload};
pub use rules::{Explained, Host, explain, label};
pub use signs::Sign;
pub use words::{Cause, Class, Span};
