//! The hops at which a packet can be seen: the catalogue says what each is, the plan says which of them this host has.

mod catalogue;
mod plan;

pub use catalogue::{CATALOGUE, DeviceAt, Hop, Probe, Role, SkbAt, hop};
pub use plan::{Fate, Plan, Row};
