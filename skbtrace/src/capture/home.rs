//! Where programs go on in others: maps of programs, and the programs that are put there. There are two such places: of what is
//! attached one by one, and of what is attached together, for the kernel lets no program go on in one that is attached otherwise.

use std::os::fd::{AsFd as _, BorrowedFd};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Map, MapError, ProgramArray},
    programs::{KProbe, Program, ProgramError, ProgramFd, RawTracePoint},
};

use super::CaptureError;
use crate::filter::{self, Insn, Kind};

/// The name of an expression's programs: as long as a name can be in the kernel.
pub(super) const EXPRESSION: &str = "expression";

/// Who calls a program: what a run attaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Callers {
    /// Functions.
    Probes,
    /// Tracepoints that every run has.
    Tracepoints,
    /// Tracepoints of a run that has no others.
    TracepointsAlone,
}

/// A place where programs go on in others.
pub(super) trait Home {
    /// Loads a program of the object.
    ///
    /// # Errors
    /// When the kernel refuses it.
    fn load(&mut self, program: &'static str) -> Result<(), ProgramError>;

    /// Puts a loaded program into a map of programs.
    ///
    /// # Errors
    /// When it is not loaded, or the map refuses it.
    fn put(&mut self, map: &'static str, place: u32, program: &'static str) -> Result<(), CaptureError>;

    /// A map.
    ///
    /// # Errors
    /// When there is none of this name.
    fn map(&self, name: &'static str) -> Result<BorrowedFd<'_>, CaptureError>;

    /// Loads a program that a user's expression has become, and puts it into a map of programs, which keeps it.
    ///
    /// # Errors
    /// When the kernel refuses it.
    fn put_expression(
        &mut self,
        map: &'static str,
        place: u32,
        kind: Kind,
        instructions: &[Insn],
    ) -> Result<(), CaptureError>;
}

impl Home for Ebpf {
    fn load(&mut self, program: &'static str) -> Result<(), ProgramError> {
        match self.program_mut(program) {
            Some(Program::KProbe(program)) => KProbe::load(program),
            Some(Program::RawTracePoint(program)) => RawTracePoint::load(program),
            _ => Err(ProgramError::UnexpectedProgramType),
        }
    }

    fn put(&mut self, map: &'static str, place: u32, program: &'static str) -> Result<(), CaptureError> {
        let fd = descriptor(self, program)?;
        set(self, map, place, &fd)
    }

    fn map(&self, name: &'static str) -> Result<BorrowedFd<'_>, CaptureError> {
        Ebpf::map(self, name).and_then(map_descriptor).ok_or(CaptureError::Missing(name))
    }

    fn put_expression(
        &mut self,
        map: &'static str,
        place: u32,
        kind: Kind,
        instructions: &[Insn],
    ) -> Result<(), CaptureError> {
        let object = filter::object(EXPRESSION, kind, instructions)?;
        // It has no types of its own, and needs none of the kernel's.
        let mut holder = EbpfLoader::new().btf(None).load(&object)?;
        Home::load(&mut holder, EXPRESSION).map_err(|source| CaptureError::Program { hop: EXPRESSION, source })?;
        let fd = descriptor(&holder, EXPRESSION)?;
        set(self, map, place, &fd)
    }
}

/// A descriptor of a loaded program.
fn descriptor(ebpf: &Ebpf, name: &'static str) -> Result<ProgramFd, CaptureError> {
    let refused = |source| CaptureError::Program { hop: name, source };
    let fd = ebpf.program(name).ok_or(CaptureError::Missing(name))?.fd().map_err(refused)?;
    fd.try_clone().map_err(|source| CaptureError::Call { call: "dup", source })
}

fn set(ebpf: &mut Ebpf, name: &'static str, place: u32, program: &ProgramFd) -> Result<(), CaptureError> {
    let refused = |source: MapError| CaptureError::Map { name, source };
    let map = ebpf.map_mut(name).ok_or(CaptureError::Missing(name))?;
    ProgramArray::try_from(map).and_then(|mut map| map.set(place, program, 0)).map_err(refused)
}

/// The descriptor of a map of a kind that the object has.
pub(super) fn map_descriptor(map: &Map) -> Option<BorrowedFd<'_>> {
    match map {
        Map::Array(map)
        | Map::HashMap(map)
        | Map::LruHashMap(map)
        | Map::PerCpuArray(map)
        | Map::ProgramArray(map)
        | Map::RingBuf(map) => Some(map.fd().as_fd()),
        _ => None,
    }
}
