//! What this machine offers to a tracer, what it lacks, and what to do about it: one row per thing.
//!
//! What is looked at decides, not what a configuration says: a program that the kernel takes is worth more than a line in
//! /boot. The configuration is there to explain.
//!
//! - `facts`: what was observed: plain data, so that machines can be made up
//! - `read`: observes it, by the readers that a run uses
//! - `checks`: one table, from the facts to rows. Pure

mod checks;
mod config;
mod facts;
mod read;
#[cfg(test)]
mod tests;

use serde::Serialize;

pub use config::Config;
pub use facts::{Facts, Hops, Module, Network, Structures, Thing, Tracers};
pub use read::Target;

/// How things stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// As it should be.
    Ok,
    /// Worth knowing: something is left out, or stands in the way on purpose.
    Note,
    /// A run works and shows less than it could, or packets are likely to suffer.
    Warning,
    /// A run cannot work.
    Broken,
}

impl State {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Broken => "broken",
        }
    }
}

/// What one check found. All of it is safe to print.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    /// What was looked at.
    pub name: &'static str,
    /// How it stands.
    pub state: State,
    /// What was found.
    pub found: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

/// What the doctor says of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The kernel's release.
    pub release: String,
    /// In the order of the checks.
    pub rows: Vec<Row>,
}

impl Report {
    /// Judges what was observed.
    #[must_use]
    pub fn of(facts: &Facts) -> Report {
        Report { release: facts.release.clone(), rows: checks::CHECKS.iter().flat_map(|check| check(facts)).collect() }
    }

    /// Whether `skbtrace run` can work here.
    #[must_use]
    pub fn works(&self) -> bool {
        self.count(State::Broken) == 0
    }

    /// How many rows are so.
    #[must_use]
    pub fn count(&self, state: State) -> usize {
        self.rows.iter().filter(|row| row.state == state).count()
    }
}
