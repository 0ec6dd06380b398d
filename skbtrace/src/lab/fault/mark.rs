//! The mark that says which faults are in place: a tail on the alias of the lab's bridge, or, where there is none, of
//! `lo` in its first namespace. So it lives in the kernel as the lab's own marks do and goes with the lab; and what a
//! fault changed outside the namespaces is known even when somebody has removed those.
//!
//! `skbtrace lab bridge; rp-filter 2=0 3=0; netem-loss`: the faults in the order in which they came, each with the
//! values that its steps found, by the number of the step. It is written before the first step is taken, so that what
//! a killed run left half done is known.

use std::fmt::Write as _;

use crate::lab::{LAYOUTS, Layout, MARK, Observed, Place, Scenario};

/// The kernel takes an alias of up to 255 bytes.
pub const LIMIT: usize = 255;

/// A fault that is in place, in part at least.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InPlace {
    /// Its name.
    pub name: String,
    /// What steps found and must put back: the number of the step, and the value.
    pub saved: Vec<(usize, String)>,
}

impl InPlace {
    /// What a step found.
    #[must_use]
    pub fn saved(&self, step: usize) -> Option<&str> {
        self.saved.iter().find(|(index, _)| *index == step).map(|(_, value)| value.as_str())
    }
}

/// The faults that an alias speaks of.
#[must_use]
pub fn parse(alias: &str) -> Vec<InPlace> {
    if !alias.starts_with(MARK) {
        return Vec::new();
    }
    let one = |text: &str| {
        let mut words = text.split_whitespace();
        let name = words.next()?.to_owned();
        let saved = words.filter_map(|word| {
            let (index, value) = word.split_once('=')?;
            Some((index.parse().ok()?, value.to_owned()))
        });
        Some(InPlace { name, saved: saved.collect() })
    };
    alias.split(';').skip(1).filter_map(one).collect()
}

/// The alias that speaks of these faults.
#[must_use]
pub fn format(scenario: Scenario, faults: &[InPlace]) -> String {
    let mut alias = scenario.alias();
    for fault in faults {
        alias.push_str("; ");
        alias.push_str(&fault.name);
        for (index, value) in &fault.saved {
            // Writing to a String cannot fail.
            let _ = write!(alias, " {index}={value}");
        }
    }
    alias
}

/// The device that bears the mark.
#[must_use]
pub fn bearer(layout: &Layout) -> (Place, &'static str) {
    match (layout.bridge, layout.namespaces.first()) {
        (None, Some((name, _))) => (Some(name), "lo"),
        (bridge, _) => (None, bridge.unwrap_or("lo")),
    }
}

/// The faults that are in place, in part at least.
#[must_use]
pub fn in_place(observed: &Observed) -> Vec<InPlace> {
    let bearers = LAYOUTS.iter().map(bearer).filter_map(|(place, device)| observed.device(place, device));
    bearers.filter_map(|device| device.alias.as_deref()).map(parse).find(|found| !found.is_empty()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_as_it_was_written() {
        let faults = vec![
            InPlace { name: "rp-filter".into(), saved: vec![(2, "0".into()), (3, "2".into())] },
            InPlace { name: "netem-loss".into(), saved: Vec::new() },
        ];
        let alias = format(Scenario::Bridge, &faults);
        assert_eq!(alias, "skbtrace lab bridge; rp-filter 2=0 3=2; netem-loss");
        assert_eq!(parse(&alias), faults);
        assert_eq!(faults[0].saved(3), Some("2"));
        assert_eq!(faults[0].saved(1), None);
    }

    #[test]
    fn what_is_no_mark_speaks_of_no_fault() {
        assert_eq!(parse(&Scenario::Bridge.alias()), []);
        assert_eq!(parse("somebody's; netem-loss"), []);
        assert_eq!(parse("skbtrace lab bridge; ; rp-filter x=1 =2"), parse("skbtrace lab bridge; rp-filter"));
    }
}
