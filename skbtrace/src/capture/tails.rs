//! The programs that the programs of the hops go on in: they follow a packet, copy what is behind its linear area, and digest its
//! payload. They only have to be put where the others look.

use aya::{
    Ebpf,
    maps::{MapError, ProgramArray},
    programs::{KProbe, ProgramError, RawTracePoint},
};
use skbtrace_common::Level;

use super::CaptureError;
use crate::hops::Backend;

/// A program in a program array, in its variants, the better first.
struct Tail {
    /// The backend that needs it; `None`: both.
    only: Option<Backend>,
    map: &'static str,
    /// Its place in the map: that of the scratch value of the programs that go on in it.
    level: Level,
    variants: &'static [&'static str],
}

/// Those that follow a packet.
const FOLLOWERS: [Tail; 6] = [
    Tail { only: Some(Backend::Kprobe), map: "FOLLOW_PROBE", level: Level::Kprobe, variants: &["follow_probe"] },
    Tail { only: None, map: "FOLLOW_TRACEPOINT", level: Level::Drop, variants: &["follow_drop"] },
    Tail { only: None, map: "FOLLOW_TRACEPOINT", level: Level::Consume, variants: &["follow_consume"] },
    Tail { only: None, map: "FOLLOW_TRACEPOINT", level: Level::Softirq, variants: &["follow_softirq"] },
    Tail { only: Some(Backend::Tracepoint), map: "FOLLOW_TRACEPOINT", level: Level::Read, variants: &["follow_read"] },
    Tail { only: Some(Backend::Tracepoint), map: "FOLLOW_TRACEPOINT", level: Level::Tcp, variants: &["follow_tcp"] },
];

/// Those that digest: the first variant needs bpf_loop (Linux 5.17).
const DIGESTERS: [Tail; 3] = [
    Tail {
        only: Some(Backend::Kprobe),
        map: "VERIFY_PROBE",
        level: Level::Kprobe,
        variants: &["verify_probe", "verify_probe_unrolled"],
    },
    Tail {
        only: None,
        map: "VERIFY_TRACEPOINT",
        level: Level::Softirq,
        variants: &["verify_tracepoint", "verify_tracepoint_unrolled"],
    },
    Tail {
        only: Some(Backend::Tracepoint),
        map: "VERIFY_TRACEPOINT",
        level: Level::Read,
        variants: &["verify_read", "verify_read_unrolled"],
    },
];

/// Those that copy.
const COPIERS: [Tail; 5] = [
    Tail { only: Some(Backend::Kprobe), map: "COPY_PROBE", level: Level::Kprobe, variants: &["copy_probe"] },
    Tail { only: None, map: "COPY_TRACEPOINT", level: Level::Drop, variants: &["copy_drop"] },
    Tail { only: None, map: "COPY_TRACEPOINT", level: Level::Consume, variants: &["copy_consume"] },
    Tail { only: None, map: "COPY_TRACEPOINT", level: Level::Softirq, variants: &["copy_softirq"] },
    Tail { only: Some(Backend::Tracepoint), map: "COPY_TRACEPOINT", level: Level::Read, variants: &["copy_read"] },
];

/// Loads those that follow a packet, and puts them where the hops look.
///
/// # Errors
/// When the kernel refuses one.
pub(super) fn load_followers(ebpf: &mut Ebpf, backend: Backend) -> Result<(), CaptureError> {
    load_tails(ebpf, backend, &FOLLOWERS)
}

/// Loads those that copy, and puts them where the hops look.
///
/// # Errors
/// When the kernel refuses one.
pub(super) fn load_copiers(ebpf: &mut Ebpf, backend: Backend) -> Result<(), CaptureError> {
    load_tails(ebpf, backend, &COPIERS)
}

/// Loads those that digest, likewise.
///
/// # Errors
/// When it takes none of the variants of one.
pub(super) fn load_digesters(ebpf: &mut Ebpf, backend: Backend) -> Result<(), CaptureError> {
    load_tails(ebpf, backend, &DIGESTERS)
}

fn load_tails(ebpf: &mut Ebpf, backend: Backend, tails: &[Tail]) -> Result<(), CaptureError> {
    for tail in tails.iter().filter(|tail| tail.only.is_none_or(|only| only == backend)) {
        let mut refusal = None;
        let mut loaded = None;
        for name in tail.variants {
            match load_one(ebpf, name) {
                Ok(()) => {
                    loaded = Some(name);
                    break;
                }
                Err(source) => refusal = Some(CaptureError::Program { hop: name, source }),
            }
        }
        match (loaded, refusal) {
            (Some(name), _) => put(ebpf, tail.map, tail.level as u32, (None, name))?,
            (None, Some(refusal)) => return Err(refusal),
            (None, None) => {}
        }
    }
    Ok(())
}

/// Loads one program.
///
/// # Errors
/// When the kernel refuses it.
pub(super) fn load_one(ebpf: &mut Ebpf, name: &'static str) -> Result<(), ProgramError> {
    match ebpf.program_mut(name) {
        Some(aya::programs::Program::KProbe(program)) => KProbe::load(program),
        Some(aya::programs::Program::RawTracePoint(program)) => RawTracePoint::load(program),
        _ => Err(ProgramError::UnexpectedProgramType),
    }
}

/// Puts a loaded program into the map; it may be one of another object.
///
/// # Errors
/// When it is not loaded, or the map refuses it.
pub(super) fn put(
    ebpf: &mut Ebpf,
    name: &'static str,
    place: u32,
    (of, program): (Option<&Ebpf>, &str),
) -> Result<(), CaptureError> {
    let refused = |source: MapError| CaptureError::Map { name, source };
    let program = of.unwrap_or(&*ebpf).program(program).ok_or(CaptureError::Missing(name))?;
    let fd = program.fd().map_err(|source| CaptureError::Program { hop: name, source })?;
    let fd = fd.try_clone().map_err(|source| refused(source.into()))?;
    let map = ebpf.map_mut(name).ok_or(CaptureError::Missing(name))?;
    let mut map = ProgramArray::try_from(map).map_err(refused)?;
    map.set(place, &fd, 0).map_err(refused)
}
