//! The user's expression in the kernel: a program for each kind of hit that can be a packet's first, put where the kernel side
//! looks for it. Without an expression none of this is loaded.

use std::os::fd::{AsFd as _, AsRawFd as _};

use aya::{Ebpf, EbpfLoader, maps::Map};
use skbtrace_common::{Level, Stage};

use super::{
    CaptureError,
    tails::{load_one, put},
};
use crate::{
    filter::{self, Expression, Kind, Link, Places},
    hops::Backend,
};

/// Where packets begin, by level, and the programs that ask and that hear the answer there.
struct Asker {
    /// The backend that needs it; `None`: both.
    only: Option<Backend>,
    kind: Kind,
    map: &'static str,
    level: Level,
    ask: &'static str,
    answer: &'static str,
}

const ASKERS: [Asker; 3] = [
    Asker {
        only: Some(Backend::Kprobe),
        kind: Kind::Kprobe,
        map: "FILTER_PROBE",
        level: Level::Kprobe,
        ask: "ask_probe",
        answer: "answer_probe",
    },
    Asker {
        only: None,
        kind: Kind::RawTracepoint,
        map: "FILTER_TRACEPOINT",
        level: Level::Softirq,
        ask: "ask_softirq",
        answer: "answer_softirq",
    },
    Asker {
        only: Some(Backend::Tracepoint),
        kind: Kind::RawTracepoint,
        map: "FILTER_TRACEPOINT",
        level: Level::Read,
        ask: "ask_read",
        answer: "answer_read",
    },
];

/// The map of windows.
const WINDOWS: &str = "FILTER_WINDOWS";
/// The name of the programs: as long as a name can be in the kernel.
const PROGRAM: &str = "expression";

/// Loads the programs of an expression, and puts them where the others look. They stay loaded as long as what is returned.
///
/// # Errors
/// When the kernel refuses one.
pub(super) fn load(ebpf: &mut Ebpf, backend: Backend, expression: &Expression) -> Result<Vec<Ebpf>, CaptureError> {
    let mut loaded = Vec::new();
    for asker in ASKERS.iter().filter(|asker| asker.only.is_none_or(|only| only == backend)) {
        for (program, stage) in [(asker.ask, Stage::Copy), (asker.answer, Stage::Answer)] {
            load_one(ebpf, program).map_err(|source| CaptureError::Program { hop: program, source })?;
            put(ebpf, asker.map, stage.place(asker.level as u32), (None, program))?;
        }
        for (link, program) in expression.programs() {
            let stage = match link {
                Link::Ethernet => Stage::Link,
                Link::Network => Stage::Network,
            };
            let places = Places {
                windows: descriptor(ebpf, WINDOWS)?,
                window: asker.level as u32,
                programs: descriptor(ebpf, asker.map)?,
                answer: Stage::Answer.place(asker.level as u32),
            };
            let translated = filter::translate(program, places)?;
            let object = filter::object(PROGRAM, asker.kind, &translated)?;
            // It has no types of its own, and needs none of the kernel's.
            let mut holder = EbpfLoader::new().btf(None).load(&object)?;
            load_one(&mut holder, PROGRAM).map_err(|source| CaptureError::Program { hop: PROGRAM, source })?;
            put(ebpf, asker.map, stage.place(asker.level as u32), (Some(&holder), PROGRAM))?;
            loaded.push(holder);
        }
    }
    Ok(loaded)
}

/// A map's descriptor, as instructions name it.
fn descriptor(ebpf: &Ebpf, name: &'static str) -> Result<i32, CaptureError> {
    match ebpf.map(name) {
        Some(Map::PerCpuArray(map) | Map::ProgramArray(map)) => Ok(map.fd().as_fd().as_raw_fd()),
        _ => Err(CaptureError::Missing(name)),
    }
}
