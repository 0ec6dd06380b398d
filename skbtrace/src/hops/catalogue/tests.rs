//! The table's own order and prose.

use super::{CATALOGUE, hop};
use skbtrace_common::HopId;

#[test]
fn every_hop_has_its_own_row() {
    for id in HopId::ALL {
        assert_eq!(hop(*id).id, *id, "the row of {} stands in the wrong place", id.name());
    }
    assert_eq!(CATALOGUE.len(), HopId::ALL.len());
}

#[test]
fn every_hop_teaches_in_one_sentence() {
    for row in &CATALOGUE {
        assert!(row.teaches.ends_with(['.', '?']) && row.teaches.len() > 30, "{}", row.name());
    }
}
