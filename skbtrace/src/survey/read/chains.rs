//! Chains that call each other: at which hooks the rules of a chain are asked.

use std::collections::{BTreeMap, BTreeSet};

/// Which chains call which. A chain that is called by a chain at a hook is at that hook too.
#[derive(Default)]
pub(super) struct Calls {
    calls: BTreeMap<String, BTreeSet<String>>,
}

impl Calls {
    pub(super) fn add(&mut self, from: &str, to: &str) {
        self.calls.entry(from.to_owned()).or_default().insert(to.to_owned());
    }

    /// All chains that packets get to from `start`, itself too.
    pub(super) fn reached(&self, start: &str) -> BTreeSet<String> {
        let mut reached = BTreeSet::from([start.to_owned()]);
        let mut next = vec![start.to_owned()];
        while let Some(chain) = next.pop() {
            for called in self.calls.get(&chain).into_iter().flatten() {
                if reached.insert(called.clone()) {
                    next.push(called.clone());
                }
            }
        }
        reached
    }
}

#[cfg(test)]
mod tests {
    use super::Calls;

    #[test]
    fn what_is_called_is_reached_and_loops_end() {
        let mut calls = Calls::default();
        for (from, to) in [("INPUT", "a"), ("a", "b"), ("b", "a"), ("OUTPUT", "c")] {
            calls.add(from, to);
        }
        assert_eq!(calls.reached("INPUT").into_iter().collect::<Vec<_>>(), ["INPUT", "a", "b"]);
        assert_eq!(calls.reached("alone").into_iter().collect::<Vec<_>>(), ["alone"]);
    }
}
