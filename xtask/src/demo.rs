//! `cargo xtask demo`: the lab, a web server, curl, and the packets between them hop by hop; on this machine where its
//! kernel has kprobes, and in a virtual machine otherwise.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result};

use crate::{cargo, setup, vm};

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
    let here = args.kernel.is_none() && kernel_has_kprobes() && setup::can_be_root();
    let code = if here {
        let mut command = setup::as_root("sh");
        let status = command.args(["-c", SCRIPT, "demo.sh"]).arg(skbtrace).status().context("sh does not start")?;
        status.code().unwrap_or(1)
    } else {
        let kernel = args.kernel.as_deref().unwrap_or("6.1");
        if args.kernel.is_none() {
            eprintln!("this machine cannot trace with kprobes from here: a virtual machine with {kernel} does");
        }
        let words = ["sh", "-c", SCRIPT, "demo.sh"].iter().map(Into::into).chain([skbtrace.into()]).collect();
        let job = vm::Job { words, stream: true, ..vm::Job::default() };
        return vm::run(&vm::Machine::new(kernel), &job).map(|report| report.conclude(false));
    };
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}

/// Whether this kernel offers kprobes to BPF programs and BTF to find its structures by. Both can be seen without root.
fn kernel_has_kprobes() -> bool {
    let lockdown = std::fs::read_to_string("/sys/kernel/security/lockdown").unwrap_or_default();
    Path::new("/sys/bus/event_source/devices/kprobe").exists()
        && Path::new("/sys/kernel/btf/vmlinux").exists()
        && !lockdown.contains("[confidentiality]")
}
