//! What the kernel counts of BPF programs while `kernel.bpf_stats_enabled` is 1: the numbers that `bpftool prog show` prints
//! (`run_time_ns`, `run_cnt`), asked for directly, since bpftool takes longer to start under emulation than many a stage.
//!
//! The kernel's counting is on in all stages of all tools: it adds two readings of a clock to each run, and to the throughput beside
//! a tracer what that costs.

use std::collections::BTreeSet;

use anyhow::Result;
use aya::programs::loaded_programs;

use super::plan::FUNCTIONS;
use super::sample::Program;

/// The ids of all programs.
///
/// # Errors
/// Where the kernel does not tell.
pub fn ids() -> Result<BTreeSet<u32>> {
    loaded_programs().map(|program| Ok(program?.id())).collect()
}

/// All programs but these.
///
/// # Errors
/// Where the kernel does not tell.
pub fn besides(others: &BTreeSet<u32>) -> Result<Vec<Program>> {
    let mut found = Vec::new();
    for program in loaded_programs() {
        let program = program?;
        if !others.contains(&program.id()) {
            found.push(Program {
                name: program.name_as_str().unwrap_or_default().to_owned(),
                run_count: program.run_count(),
                run_time_ns: u64::try_from(program.run_time().as_nanos())?,
                verified: program.verified_instruction_count(),
            });
        }
    }
    Ok(found)
}

/// Whether a hop of skbtrace's is one of the functions that all tools trace.
pub fn is_compared(hop: &str) -> bool {
    FUNCTIONS.iter().any(|function| function.name == hop)
}

#[cfg(test)]
mod tests {
    use super::is_compared;

    #[test]
    fn a_hop_is_compared_by_its_whole_name() {
        for name in ["veth_xmit", "netif_rx_internal", "br_handle_frame_finish", "__br_forward"] {
            assert!(is_compared(name), "{name}");
        }
        for name in ["", "netif_rx", "br_handle_frame", "br_forward", "kprobe.multi"] {
            assert!(!is_compared(name), "{name}");
        }
    }
}
