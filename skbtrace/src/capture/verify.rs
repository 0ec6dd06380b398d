//! The programs that digest payloads: the programs of the hops end in them, so they only have to be put where those look.

use aya::{
    Ebpf,
    maps::{MapError, ProgramArray},
    programs::{KProbe, ProgramError, RawTracePoint},
};

use super::CaptureError;

/// For kprobes: the map, and the program in its variants, the better first.
const PROBE: (&str, [&str; 2]) = ("VERIFY_PROBE", ["verify_probe", "verify_probe_unrolled"]);
/// For tracepoints.
const TRACEPOINT: (&str, [&str; 2]) = ("VERIFY_TRACEPOINT", ["verify_tracepoint", "verify_tracepoint_unrolled"]);

/// Loads the variants that this kernel takes: the first needs bpf_loop (Linux 5.17).
///
/// # Errors
/// When it takes none.
pub(super) fn load(ebpf: &mut Ebpf) -> Result<(), CaptureError> {
    for (map, variants) in [PROBE, TRACEPOINT] {
        let mut refusal = None;
        let mut loaded = None;
        for name in variants {
            match load_one(ebpf, name) {
                Ok(()) => {
                    loaded = Some(name);
                    break;
                }
                Err(source) => refusal = Some(CaptureError::Program { hop: name, source }),
            }
        }
        match (loaded, refusal) {
            (Some(name), _) => put(ebpf, map, name)?,
            (None, Some(refusal)) => return Err(refusal),
            (None, None) => {}
        }
    }
    Ok(())
}

fn load_one(ebpf: &mut Ebpf, name: &'static str) -> Result<(), ProgramError> {
    match ebpf.program_mut(name) {
        Some(aya::programs::Program::KProbe(program)) => KProbe::load(program),
        Some(aya::programs::Program::RawTracePoint(program)) => RawTracePoint::load(program),
        _ => Err(ProgramError::UnexpectedProgramType),
    }
}

/// Puts a loaded program into the map.
fn put(ebpf: &mut Ebpf, name: &'static str, program: &str) -> Result<(), CaptureError> {
    let refused = |source: MapError| CaptureError::Map { name, source };
    let program = ebpf.program(program).ok_or(CaptureError::Missing(name))?;
    let fd = program.fd().map_err(|source| CaptureError::Program { hop: name, source })?;
    let fd = fd.try_clone().map_err(|source| refused(source.into()))?;
    let map = ebpf.map_mut(name).ok_or(CaptureError::Missing(name))?;
    let mut map = ProgramArray::try_from(map).map_err(refused)?;
    map.set(0, &fd, 0).map_err(refused)
}
