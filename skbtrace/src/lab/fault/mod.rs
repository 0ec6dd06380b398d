//! The gallery of faults: one table, a row per fault: what it is, how it is put in place by the system's own means
//! and taken back, the traffic that shows it, and the verdict that a tracer must give.
//!
//! The rows stand in `gallery`, a file per layer. Everything else follows from the row: `inject` takes its steps and
//! takes them back, `show` sends its traffic and says whether the effect was seen. Adding a fault is adding a row.

pub mod command;
mod gallery;
mod inject;
pub mod mark;
pub mod program;
pub mod prove;
pub mod show;
pub mod step;
mod verdict;

use serde::Serialize;

use super::{Missing, Scenario, join};
use crate::name::printable;

pub use crate::verdict::{Cause, Class, Span};
pub use inject::{Cleared, Injected, clear, in_place, inject, placed};
pub(in crate::lab) use inject::{Lab, clear_observed};
pub use show::Show;
pub use step::Step;
pub use verdict::Verdict;

/// A row of the gallery.
#[derive(Debug, Serialize)]
pub struct Fault {
    /// Its name, in kebab case.
    pub name: &'static str,
    /// What happens and why it matters, in a sentence for the reader.
    pub teaches: &'static str,
    /// The scenario that it needs.
    pub scenario: Scenario,
    /// What must be so for it to hit the lab alone.
    pub requires: Option<Requires>,
    /// How it is put in place. None where the traffic itself is at fault.
    pub steps: &'static [Step],
    /// The traffic that shows it, and the effect.
    pub show: Show,
    /// What a tracer must find in that traffic.
    pub verdict: Verdict,
}

impl Fault {
    /// The interface to trace for it: the sender's, which all of its traffic comes by, however far it gets.
    #[must_use]
    pub fn iface(&self) -> &'static str {
        let [_, client] = self.scenario.layout().talkers;
        client.device
    }
}

/// What must be so for a fault to hit the lab alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Requires {
    /// Nothing but the lab's bridge asks the FORWARD chain of iptables.
    NothingElseForwards,
}

/// Every fault, in the order of the layers that they are in.
pub fn all() -> impl Iterator<Item = &'static Fault> {
    gallery::PAGES.iter().copied().flatten()
}

/// Faults that are tried two at once.
///
/// # Errors
/// [`Error::Unknown`]: never, as long as the table is right.
pub fn pairs() -> Result<Vec<Vec<&'static Fault>>, Error> {
    gallery::PAIRS.iter().map(|names| names.iter().map(|name| find(name)).collect()).collect()
}

/// The fault of that name.
///
/// # Errors
/// [`Error::Unknown`], with the nearest name.
pub fn find(name: &str) -> Result<&'static Fault, Error> {
    all().find(|fault| fault.name == name).ok_or_else(|| {
        let near = all().map(|fault| (strsim::jaro_winkler(fault.name, name), fault.name));
        let near = near.max_by(|a, b| a.0.total_cmp(&b.0)).filter(|(score, _)| *score > 0.8);
        let advice = near.map_or_else(String::new, |(_, name)| format!(" did you mean {name}?"));
        Error::Unknown { name: name.to_owned(), advice }
    })
}

/// What can go wrong with a fault.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// As with the lab.
    #[error(transparent)]
    Lab(#[from] super::Error),
    /// There is no such fault.
    #[error("no fault {}:{advice} `skbtrace lab fault list` has them all", printable(name.as_bytes()))]
    Unknown {
        /// Its name.
        name: String,
        /// The nearest.
        advice: String,
    },
    /// A fault needs a lab.
    #[error("no lab is up, and {name} needs the {needed} lab: `skbtrace lab up {needed}`")]
    NotUp {
        /// The fault.
        name: &'static str,
        /// What it needs.
        needed: Scenario,
    },
    /// It needs another lab.
    #[error("{name} needs the {needed} lab, and the {up} lab is up: `skbtrace lab up {needed}` replaces it")]
    Elsewhere {
        /// The fault.
        name: &'static str,
        /// What it needs.
        needed: Scenario,
        /// What is there.
        up: Scenario,
    },
    /// The lab is not whole.
    #[error("the lab is incomplete ({}): `skbtrace lab up` repairs it", join(missing))]
    Incomplete {
        /// What it lacks.
        missing: Vec<Missing>,
    },
    /// Another fault is in place.
    #[error("{} is in place: `skbtrace lab fault clear` takes it back, --also adds to it", names.join(", "))]
    Occupied {
        /// Which.
        names: Vec<String>,
    },
    /// Two faults want the same thing.
    #[error("{name} and {other}, which is in place, change the same thing: `skbtrace lab fault clear` first")]
    Clash {
        /// The fault.
        name: &'static str,
        /// The one in place.
        other: &'static str,
    },
    /// It would hit more than the lab.
    #[error("{name} would hit more than the lab: {why}; try it in a virtual machine (cargo xtask vm)")]
    TooWide {
        /// The fault.
        name: &'static str,
        /// What else.
        why: &'static str,
    },
    /// The mark holds no more.
    #[error("too many faults at once: the alias that names them holds {} bytes", mark::LIMIT)]
    TooMany,
    /// A part of the lab could not be reached.
    #[error(transparent)]
    Step(#[from] command::Error),
    /// A step failed; what was done before it has been taken back.
    #[error("could not inject {name}: {cause}")]
    Inject {
        /// The fault.
        name: &'static str,
        /// Why.
        cause: command::Error,
    },
    /// A step failed, and taking back what was done before it failed too.
    #[error("{cause}; taking back what was done failed too ({}): `skbtrace lab fault clear`", failures.join("; "))]
    Half {
        /// Why.
        cause: Box<Error>,
        /// What could not be taken back.
        failures: Vec<String>,
    },
    /// Something could not be taken back.
    #[error("could not take everything back: {}", failures.join("; "))]
    NotCleared {
        /// What, and why.
        failures: Vec<String>,
    },
    /// The traffic that shows a fault could not be sent.
    #[error("could not {doing}: {answer}")]
    Show {
        /// What, to be read after "could not".
        doing: String,
        /// The kernel's answer.
        answer: std::io::Error,
    },
    /// No fault was named, and there is not exactly one in place.
    #[error("name the fault: {0} are in place")]
    WhichOne(usize),
}

#[cfg(test)]
mod tests;
