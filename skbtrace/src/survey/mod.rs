//! What on this host can garble, drop, hold up, double or reorder a packet of a segment: tc filters, XDP programs, queueing
//! disciplines, rules of netfilter, settings of bridges, devices and routing. A finding is explained by the fact that is in
//! its place and can do what was seen.
//!
//! The types are plain data, which a recording keeps, so that it is explained on any machine as on the one it was made on.
//!
//! - `fact`: what a fact says
//! - `read`: reads the facts of a segment off this host, and changes nothing there

mod fact;
mod read;

pub use fact::{Effects, Fact, Spot, Survey};
