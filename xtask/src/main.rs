//! The tasks of this repository, as `cargo xtask <task>`.

mod tools;
mod vm;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about, disable_help_subcommand = true)]
struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Run a command on a real kernel in a virtual machine.
    ///
    /// The command runs as root in the current folder and sees all of this machine's files; what it writes is gone
    /// afterwards. The exit status is the command's own; 124: it timed out; 125: the machine died.
    Vm(VmArgs),
}

#[derive(clap::Args)]
struct VmArgs {
    /// The kernel's series.
    #[arg(long, default_value = "6.1", value_parser = clap::builder::PossibleValuesParser::new(vm::names()))]
    kernel: String,
    /// Processors.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    cpus: u32,
    /// Memory in MiB.
    #[arg(long, default_value_t = 2048, value_parser = clap::value_parser!(u32).range(256..))]
    mem: u32,
    /// Seconds that the command may take.
    #[arg(long, default_value_t = 900)]
    timeout: u64,
    /// Show the machine's console on stderr.
    #[arg(long)]
    console: bool,
    /// KVM or TCG, instead of the one that works.
    #[arg(long, value_enum)]
    accel: Option<vm::Accel>,
    /// A folder of this machine that the command can write to, as /out.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// One word is a line for the shell; more are a program and its arguments.
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

fn main() -> ExitCode {
    let done = match Args::parse().task {
        Task::Vm(args) => run_vm(args),
    };
    match done {
        Ok(code) => code,
        Err(why) => {
            eprintln!("error: {why:#}");
            ExitCode::FAILURE
        }
    }
}

fn run_vm(args: VmArgs) -> anyhow::Result<ExitCode> {
    let machine = vm::Machine {
        cpus: args.cpus,
        memory_mib: args.mem,
        timeout: Duration::from_secs(args.timeout),
        console: args.console,
        accel: args.accel,
        out: args.out.map(std::path::absolute).transpose()?,
        ..vm::Machine::new(&args.kernel)
    };
    let job = vm::Job { words: args.command, stream: true, ..vm::Job::default() };
    let report = vm::run(&machine, &job)?;
    let code = match &report.ending {
        vm::Ending::Exited(code) => u8::try_from(*code).unwrap_or(125),
        vm::Ending::Interrupted(signal) => u8::try_from(128 + signal).unwrap_or(130),
        vm::Ending::TimedOut => {
            show_console(&report, args.console);
            eprintln!("error: the command was not done after {} s, and the machine was ended", args.timeout);
            124
        }
        vm::Ending::Died(why) | vm::Ending::NeverBegan(why) => {
            show_console(&report, args.console);
            eprintln!("error: the machine died: {why}");
            125
        }
    };
    Ok(ExitCode::from(code))
}

fn show_console(report: &vm::Report, shown: bool) {
    if !shown {
        eprintln!("console of {}:\n{}", report.release, report.last_words());
    }
}
