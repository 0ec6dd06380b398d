//! Looks at the host for what can do something to the packets of a segment.

use crate::{
    survey::Survey,
    topology::{Segment, Topology},
};

/// What is there now.
pub fn read(_topology: &Topology, _segment: &Segment) -> Survey {
    Survey::default()
}
