//! The programs that copy what is behind a packet's linear area and that digest payloads: the programs of the hops go on in
//! them, so they only have to be put where those look.

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

/// The programs that copy: the map, the place in it, which is that of their scratch value, and the program.
const COPIERS: [(&str, u32, &str); 4] = [
    ("COPY_PROBE", 0, "copy_probe"),
    ("COPY_TRACEPOINT", 1, "copy_drop"),
    ("COPY_TRACEPOINT", 2, "copy_consume"),
    ("COPY_TRACEPOINT", 3, "copy_softirq"),
];

/// Loads those that copy, and puts them where the hops look.
///
/// # Errors
/// When the kernel refuses one.
pub(super) fn load_copiers(ebpf: &mut Ebpf) -> Result<(), CaptureError> {
    for (map, index, name) in COPIERS {
        load_one(ebpf, name).map_err(|source| CaptureError::Program { hop: name, source })?;
        put(ebpf, map, index, name)?;
    }
    Ok(())
}

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
            (Some(name), _) => put(ebpf, map, 0, name)?,
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
fn put(ebpf: &mut Ebpf, name: &'static str, index: u32, program: &str) -> Result<(), CaptureError> {
    let refused = |source: MapError| CaptureError::Map { name, source };
    let program = ebpf.program(program).ok_or(CaptureError::Missing(name))?;
    let fd = program.fd().map_err(|source| CaptureError::Program { hop: name, source })?;
    let fd = fd.try_clone().map_err(|source| refused(source.into()))?;
    let map = ebpf.map_mut(name).ok_or(CaptureError::Missing(name))?;
    let mut map = ProgramArray::try_from(map).map_err(refused)?;
    map.set(index, &fd, 0).map_err(refused)
}
