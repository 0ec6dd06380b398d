//! What the kernel's probes missed. A kprobe that is hit while another one runs on that CPU (a softirq came in between) is not
//! called; the kernel counts that in its own record of the probe, which no system call shows before 6.7. A program of
//! ours reads it there: see the kernel side's `misses`. Hops that are attached together have no such record: see `together`.

use aya::{
    Ebpf,
    maps::{Array, MapError},
    programs::{RawTracePoint, RawTracePointRunOptions, TestRun as _},
};

use super::counters::HopCounters;
use crate::hops::Hop;

/// Name of the program.
const PROGRAM: &str = "read_misses";

/// Loads the program. Without it nothing is known of misses, and all else works.
pub(super) fn load(ebpf: &mut Ebpf) {
    let program = ebpf.program_mut(PROGRAM).and_then(|program| <&mut RawTracePoint>::try_from(program).ok());
    if let Some(program) = program {
        // A kernel that refuses it is one before 5.10.
        let _ = program.load();
    }
}

/// Adds what the kernel's records of the probes say to the counters. The probes must still be attached.
pub(super) fn read(ebpf: &mut Ebpf, hops: &mut [HopCounters]) -> Option<()> {
    let mut probes: Array<_, u64> = Array::try_from(ebpf.map_mut("PROBES")?).ok()?;
    for (hop, counters) in hops.iter().filter_map(|row| Some((row.hop?, row.counters))) {
        probes.set(hop.id as u32, counters.probe, 0).ok()?;
    }
    let program: &RawTracePoint = ebpf.program(PROGRAM)?.try_into().ok()?;
    program.test_run(RawTracePointRunOptions::default()).ok()?;
    let misses: Array<_, u64> = Array::try_from(ebpf.map("MISSES")?).ok()?;
    let missed = |hop: &Hop| -> Result<u64, MapError> { misses.get(&(hop.id as u32), 0) };
    for row in hops {
        row.missed += row.hop.map_or(Ok(0), missed).ok()?;
    }
    Some(())
}
