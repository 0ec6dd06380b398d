//! `cargo xtask demo`: the lab, a web server, curl, and the packets between them hop by hop; on this machine where it can be
//! traced on, with kprobes or without, and in a virtual machine otherwise.

use std::process::ExitCode;

use anyhow::{Context as _, Result};

use crate::{cargo, native, setup, vm};

/// What to run it on.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Run it on this kernel in a virtual machine, even where this machine could do.
    #[arg(long, value_parser = clap::builder::PossibleValuesParser::new(vm::names()))]
    kernel: Option<String>,
}

const SCRIPT: &str = include_str!("demo.sh");

/// Runs it; the exit status is the one of `skbtrace run`.
///
/// # Errors
/// Where something is missing or does not build.
pub fn run(args: &Args) -> Result<ExitCode> {
    setup::run(false)?;
    let skbtrace =
        cargo::executable(&["build", "--release", "--package", "skbtrace", "--bin", "skbtrace"], &[], "skbtrace")?;
    let obstacle = native::obstacle().or_else(|| (!setup::can_be_root()).then_some("it takes root"));
    let code = if args.kernel.is_none() && obstacle.is_none() {
        let mut command = setup::as_root("sh");
        let status = command.args(["-c", SCRIPT, "demo.sh"]).arg(skbtrace).status().context("sh does not start")?;
        status.code().unwrap_or(1)
    } else {
        let kernel = args.kernel.as_deref().unwrap_or("6.1");
        if let Some(obstacle) = obstacle.filter(|_| args.kernel.is_none()) {
            eprintln!("this machine itself cannot be traced on from here ({obstacle}): a virtual one with {kernel} is");
        }
        let words = ["sh", "-c", SCRIPT, "demo.sh"].iter().map(Into::into).chain([skbtrace.into()]).collect();
        let job = vm::Job { words, stream: true, ..vm::Job::default() };
        return vm::run(&vm::Machine::new(kernel), &job).map(|report| report.conclude(false));
    };
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}
