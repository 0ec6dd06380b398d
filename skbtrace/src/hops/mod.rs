//! The hops at which a packet can be seen: the catalogue says what each is, the plan says which of them this host has.

mod catalogue;
mod plan;
mod row;

pub use catalogue::{CATALOGUE, hop, named};
pub use plan::{Fate, Plan, Row};
pub use row::{Backend, DeviceAt, Hop, Probe, Role, SkbAt};
