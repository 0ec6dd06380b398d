//! Capturing: the kernel side is loaded and attached, its ring is read, its counters are summed up.

mod attach;
mod bpf;
mod counters;
mod error;
mod filter;
mod home;
mod load;
mod misses;
mod ring;
mod tails;
mod together;

pub use counters::{HopCounters, Totals};
pub use error::CaptureError;
pub use load::{Capture, Settings, Watched};
pub use ring::Ring;
