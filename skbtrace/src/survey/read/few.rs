//! As many rules of a chain as anyone reads. Tens of thousands are one fact more: how many they are, and all that they can do,
//! so that what one of them has done is still looked for in the right chain.

use super::NOTHING;
use crate::survey::{Effects, Fact};

/// So many rules of a chain are facts of their own.
pub(super) const LISTED: usize = 64;

/// The rules of a chain.
pub(super) struct Few {
    facts: Vec<Fact>,
    more: usize,
    effects: Effects,
}

impl Few {
    pub(super) fn new() -> Self {
        Self { facts: Vec::new(), more: 0, effects: NOTHING }
    }

    /// Takes a rule that can do this in; `fact` says what it is, where there is still room.
    pub(super) fn add(&mut self, effects: Effects, fact: impl FnOnce() -> Fact) {
        if self.facts.len() < LISTED {
            self.facts.push(fact());
        } else {
            self.more += 1;
            self.effects = self.effects | effects;
        }
    }

    /// All of them; `rest` makes the fact of those that are left out, from the words for them and what they can do.
    pub(super) fn all(self, rest: impl FnOnce(String, Effects) -> Fact) -> Vec<Fact> {
        let mut facts = self.facts;
        if self.more > 0 {
            let rules = if self.more == 1 { "rule" } else { "rules" };
            facts.push(rest(format!("{} more {rules}, not listed here", self.more), self.effects));
        }
        facts
    }
}
