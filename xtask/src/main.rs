//! The tasks of this repository, as `cargo xtask <task>`.

mod arm64;
mod bench;
mod cargo;
mod demo;
mod gallery;
mod matrix;
mod native;
mod setup;
mod test;
mod toolchain;
mod tools;
mod vm;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about, disable_help_subcommand = true)]
struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what is missing for building and testing; does nothing the second time.
    Setup,
    /// Build the kernel side alone and print the object's path.
    BuildEbpf,
    /// Lint, run all tests, and run those of the whole program on this kernel, as far as it goes, and on others in machines.
    Test(test::Args),
    /// Trace a page on its way through veth pairs and a bridge.
    Demo(demo::Args),
    /// Put every fault of the gallery into a lab, one after another, and see whether skbtrace finds it.
    Gallery(gallery::Args),
    /// Measure in one virtual machine what tracing costs, beside an empty probe and other people's tracers.
    Bench(bench::Args),
    /// What `bench` runs in its machine.
    #[command(hide = true)]
    BenchInside(bench::inside::Args),
    /// The empty probe and the floor of `bench`.
    #[command(hide = true)]
    BenchProbe(bench::probe::Args),
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
    /// More parameters for the kernel, such as lockdown=integrity.
    #[arg(long, value_name = "WORDS", allow_hyphen_values = true)]
    append: Option<String>,
    /// One word is a line for the shell; more are a program and its arguments.
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

fn main() -> ExitCode {
    let done = match Args::parse().task {
        Task::Setup => setup::run(true).map(|()| ExitCode::SUCCESS),
        Task::BuildEbpf => build_ebpf(),
        Task::Test(args) => test::run(&args),
        Task::Demo(args) => demo::run(&args),
        Task::Gallery(args) => gallery::run(&args),
        Task::Bench(args) => bench::run(&args),
        Task::BenchInside(args) => bench::inside::run(&args),
        Task::BenchProbe(args) => bench::probe::run(&args),
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
        append: args.append,
        ..vm::Machine::new(&args.kernel)
    };
    let job = vm::Job { words: args.command, stream: true, ..vm::Job::default() };
    Ok(vm::run(&machine, &job)?.conclude(args.console))
}

fn build_ebpf() -> anyhow::Result<ExitCode> {
    setup::run(false)?;
    let compiler = toolchain::find_compiler().context("no compiler for BPF")?;
    let linker = toolchain::find_linker(&cargo::tools_dirs()?).context("no bpf-linker")?;
    let arch = std::env::consts::ARCH;
    let target_dir = cargo::target_dir()?.join("ebpf").join(arch);
    let object = toolchain::build_object(&compiler, &linker, &cargo::workspace(), &target_dir, arch);
    println!("{}", object.map_err(anyhow::Error::msg)?.display());
    Ok(ExitCode::SUCCESS)
}
