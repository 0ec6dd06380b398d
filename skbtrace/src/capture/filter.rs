//! The user's expression in the kernel: a program for each kind of hit that can be a packet's first, put where the kernel side
//! looks for it. Without an expression none of this is loaded.

use std::os::fd::AsRawFd as _;

use skbtrace_common::{Level, Stage};

use super::{
    CaptureError,
    home::{Callers, Home},
};
use crate::filter::{self, Expression, Kind, Link, Places};

/// Where packets begin, by level, and the programs that ask and that hear the answer there.
struct Asker {
    /// What packets begin at.
    callers: Callers,
    kind: Kind,
    map: &'static str,
    level: Level,
    ask: &'static str,
    answer: &'static str,
}

const ASKERS: [Asker; 3] = [
    Asker {
        callers: Callers::Probes,
        kind: Kind::Kprobe,
        map: "FILTER_PROBE",
        level: Level::Kprobe,
        ask: "ask_probe",
        answer: "answer_probe",
    },
    Asker {
        callers: Callers::Tracepoints,
        kind: Kind::RawTracepoint,
        map: "FILTER_TRACEPOINT",
        level: Level::Softirq,
        ask: "ask_softirq",
        answer: "answer_softirq",
    },
    Asker {
        callers: Callers::TracepointsAlone,
        kind: Kind::RawTracepoint,
        map: "FILTER_TRACEPOINT",
        level: Level::Read,
        ask: "ask_read",
        answer: "answer_read",
    },
];

/// The map of windows.
const WINDOWS: &str = "FILTER_WINDOWS";

/// Loads the programs of an expression for what these callers begin, and puts them where the others look.
///
/// # Errors
/// When the kernel refuses one.
pub(super) fn load(home: &mut impl Home, callers: &[Callers], expression: &Expression) -> Result<(), CaptureError> {
    for asker in ASKERS.iter().filter(|asker| callers.contains(&asker.callers)) {
        for (program, stage) in [(asker.ask, Stage::Copy), (asker.answer, Stage::Answer)] {
            home.load(program).map_err(|source| CaptureError::Program { hop: program, source })?;
            home.put(asker.map, stage.place(asker.level as u32), program)?;
        }
        for (link, program) in expression.programs() {
            let stage = match link {
                Link::Ethernet => Stage::Link,
                Link::Network => Stage::Network,
            };
            let places = Places {
                windows: home.map(WINDOWS)?.as_raw_fd(),
                window: asker.level as u32,
                programs: home.map(asker.map)?.as_raw_fd(),
                answer: Stage::Answer.place(asker.level as u32),
            };
            let translated = filter::translate(program, places)?;
            home.put_expression(asker.map, stage.place(asker.level as u32), asker.kind, &translated)?;
        }
    }
    Ok(())
}
