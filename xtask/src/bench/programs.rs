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

/// The kernel keeps so many bytes of a name.
const NAME: usize = 15;

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

/// Whether a program or a hop of skbtrace's is one of the functions that all tools trace, as far as the kernel's names tell:
/// `br_handle_frame` is taken for `br_handle_frame_finish` there, and so it is here, for hits and for events.
pub fn is_compared(name: &str) -> bool {
    let short = |name: &str| name.get(..NAME).unwrap_or(name).to_owned();
    FUNCTIONS.iter().any(|function| short(function.name) == short(name))
}

#[cfg(test)]
mod tests {
    use super::is_compared;

    #[test]
    fn names_are_compared_as_the_kernel_keeps_them() {
        for name in ["veth_xmit", "netif_rx_intern", "netif_rx_internal", "br_handle_frame", "__br_forward"] {
            assert!(is_compared(name), "{name}");
        }
        for name in ["", "netif_rx", "br_forward", "follow_probe"] {
            assert!(!is_compared(name), "{name}");
        }
    }
}
