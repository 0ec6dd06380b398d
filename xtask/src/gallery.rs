//! `cargo xtask gallery`: every fault of the gallery on a real kernel, traced by the optimised program: a table of what was
//! expected beside what was found.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;

use crate::{cargo, setup, vm};

/// How long the whole gallery may take on one kernel.
const TIMEOUT: Duration = Duration::from_secs(60 * 60);

/// What to try.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Kernels, separated by commas.
    #[arg(long, alias = "kernels", value_delimiter = ',', default_value = "6.1,6.12,7.3")]
    #[arg(value_parser = clap::builder::PossibleValuesParser::new(vm::names()))]
    kernel: Vec<String>,
    /// All the named faults at once.
    #[arg(long, requires = "faults")]
    together: bool,
    /// What to trace by: the best that works there, or this.
    #[arg(long, default_value = "auto", value_parser = ["auto", "kprobe", "tracepoint"])]
    backend: String,
    /// Only these faults.
    faults: Vec<String>,
}

/// Runs it; the exit status is 1 if anything was not found, or found without being there, on any kernel.
///
/// # Errors
/// Where something is missing or does not build.
pub fn run(args: &Args) -> Result<ExitCode> {
    setup::run(false)?;
    let skbtrace =
        cargo::executable(&["build", "--release", "--package", "skbtrace", "--bin", "skbtrace"], &[], "skbtrace")?;
    let mut all = ExitCode::SUCCESS;
    for kernel in &args.kernel {
        let mut words = vec![skbtrace.clone().into_os_string()];
        words.extend(["lab", "fault", "prove"].map(Into::into));
        words.extend(["--backend".into(), args.backend.clone().into()]);
        words.extend(args.together.then(|| "--together".into()));
        words.extend(args.faults.iter().map(Into::into));
        let job = vm::Job { words, stream: true, ..vm::Job::default() };
        let machine = vm::Machine { timeout: TIMEOUT, ..vm::Machine::new(kernel) };
        let code = vm::run(&machine, &job)?.conclude(false);
        if code != ExitCode::SUCCESS {
            println!("gallery {kernel}: failed");
            all = ExitCode::FAILURE;
        } else {
            println!("gallery {kernel}: ok");
        }
    }
    Ok(all)
}
