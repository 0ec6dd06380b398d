//! Capturing: the kernel side is loaded and attached, its ring is read, its counters are summed up.

mod attach;
mod counters;
mod filter;
mod load;
mod misses;
mod ring;
mod tails;

pub use counters::{HopCounters, Totals};
pub use load::{Capture, CaptureError, Settings, Watched};
pub use ring::Ring;
