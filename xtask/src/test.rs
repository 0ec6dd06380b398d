//! `cargo xtask test`: lint, unit tests, then the whole program: on this machine's kernel, by raw tracepoints, and on real
//! kernels in virtual machines.
//!
//! Everything is counted from what the test programs report, and a step that fails without a report counts as one
//! failure: the last line is never better than the exit status.

mod machines;

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context as _, Result};

use self::machines::Asked;
use crate::{arm64, cargo, native, setup, vm};

/// How long all tests may take on one kernel.
const TIMEOUT: Duration = Duration::from_secs(60 * 60);

/// Tests that need no kprobes and change nothing of the machine.
const NATIVE: &str = "tracepoint::";

/// Runs a program in namespaces of its own: a network that nobody else is in, and a /run/netns with that alone, so that neither
/// the machine's devices and settings nor a lab of somebody else's is touched. They are gone with the last process.
const APART: &str = "mkdir -p /run/netns && mount -t tmpfs tmpfs /run/netns && touch /run/netns/tests && \
    mount --bind /proc/self/ns/net /run/netns/tests && mount -t sysfs sysfs /sys && exec \"$@\"";

/// What to test.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Kernels to run all tests on, separated by commas; `none` for no machine at all. Without it 6.1 and 6.12 share them.
    #[arg(long, value_delimiter = ',')]
    kernels: Vec<String>,
    /// Leave out rustfmt and clippy, for this machine and for arm64.
    #[arg(long)]
    no_lint: bool,
    /// On real kernels, test what developers build, not what users run: several times slower there.
    #[arg(long)]
    debug: bool,
    /// Show the output of the tests on real kernels while they run.
    #[arg(long)]
    verbose: bool,
    /// On real kernels, also put in place every fault of the gallery, one after another: some ten minutes more on each.
    #[arg(long)]
    gallery: bool,
    /// Write what each kernel gives into README.md's table, instead of saying where the table is out of date.
    #[arg(long)]
    write_table: bool,
    /// Only tests whose name contains one of these.
    filters: Vec<String>,
}

impl Args {
    /// Whether a test, or all those whose names begin so, are asked for.
    fn wants(&self, tests: &str) -> bool {
        self.filters.is_empty()
            || self.filters.iter().any(|filter| tests.contains(filter.as_str()) || filter.contains(tests))
    }
}

/// Tests that passed and tests that failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count {
    passed: u64,
    failed: u64,
}

impl Count {
    /// Adds up the reports of Rust's test programs: `test result: ok. 3 passed; 0 failed; …`.
    fn of(output: &str) -> Self {
        output.lines().filter_map(Self::of_line).fold(Self::default(), Self::plus)
    }

    fn of_line(line: &str) -> Option<Self> {
        let (_, rest) = line.strip_prefix("test result: ")?.split_once(". ")?;
        let number = |word: &str| rest.split("; ").find_map(|part| part.strip_suffix(word)?.trim().parse().ok());
        Some(Self { passed: number("passed")?, failed: number("failed")? })
    }

    fn plus(self, other: Self) -> Self {
        Self { passed: self.passed + other.passed, failed: self.failed + other.failed }
    }

    /// A step that says that it failed has failed at least once.
    fn at_least_one_failure(self, unless: bool) -> Self {
        if unless { self } else { Self { failed: self.failed.max(1), ..self } }
    }
}

/// Runs all of it.
///
/// # Errors
/// Where a step cannot even be started; failing tests are in the exit status.
pub fn run(args: &Args) -> Result<ExitCode> {
    setup::run(false)?;
    let interrupted = vm::interruptions()?;
    let mut total = Count::default();
    if !args.no_lint {
        total = total.plus(lint()?);
    }
    if interrupted.load(Ordering::Relaxed) == 0 {
        total = total.plus(unit(args)?);
    }
    let is_shared = args.kernels.is_empty();
    let kernels: Vec<&str> = match is_shared {
        true => machines::SHARED.to_vec(),
        false => args.kernels.iter().map(String::as_str).filter(|kernel| *kernel != "none").collect(),
    };
    let obstacle = native::obstacle().or_else(|| (!setup::is_root()).then_some("it takes root"));
    if let Some(obstacle) = obstacle {
        println!("native: not run on this machine: {obstacle}");
    }
    if (!kernels.is_empty() || obstacle.is_none()) && interrupted.load(Ordering::Relaxed) == 0 {
        // An optimised program is for machines under emulation.
        match vm_tests(args.debug || kernels.is_empty()) {
            Ok(program) => {
                if obstacle.is_none() {
                    total = total.plus(natively(program.as_os_str(), args)?);
                }
                let asked = Asked { kernels: &kernels, is_shared, natively: obstacle.is_none() };
                total = total.plus(machines::run(asked, &program, args, &interrupted)?);
            }
            Err(why) => {
                println!("vm: {why:#}");
                total.failed += 1;
            }
        }
    }
    println!("{} passed, {} failed", total.passed, total.failed);
    let signal = interrupted.load(Ordering::Relaxed);
    Ok(match (signal, total.failed) {
        (0, 0) => ExitCode::SUCCESS,
        (0, _) => ExitCode::FAILURE,
        (signal, _) => ExitCode::from(u8::try_from(128 + signal).unwrap_or(130)),
    })
}

/// Each failing check counts as one failed test; a passing one as none, for it tests nothing that runs.
fn lint() -> Result<Count> {
    let clippy = |what: &[&'static str]| [&["clippy"], what, &["--", "-D", "warnings"]].concat();
    let mut checks = vec![
        ("fmt", vec!["fmt", "--all", "--check"]),
        ("clippy", clippy(&["--all-targets"])),
        // Without the tests: what those depend on may take a C compiler for the target.
        ("clippy for arm64", clippy(&["--lib", "--bins", "--target", arm64::TARGET])),
    ];
    if let Some(obstacle) = arm64::obstacle() {
        println!("lint clippy for arm64: left out: {obstacle}");
        checks.pop();
    }
    let mut count = Count::default();
    for (name, check) in checks {
        let good = cargo::command().args(check).status().context("cargo does not start")?.success();
        println!("lint {name}: {}", if good { "ok" } else { "failed" });
        count.failed += u64::from(!good);
    }
    Ok(count)
}

fn unit(args: &Args) -> Result<Count> {
    let mut command = cargo::command();
    command.args(["test", "--workspace", "--exclude", "skbtrace-ebpf", "--no-fail-fast"]);
    command.arg("--").args(&args.filters).stdout(Stdio::piped());
    let mut child = command.spawn().context("cargo does not start")?;
    let mut count = Count::default();
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).split(b'\n') {
            let line = line?;
            let text = String::from_utf8_lossy(&line);
            println!("{text}");
            count = count.plus(Count::of_line(&text).unwrap_or_default());
        }
    }
    let count = count.at_least_one_failure(child.wait()?.success());
    println!("unit: {} passed, {} failed", count.passed, count.failed);
    Ok(count)
}

/// The tests for real kernels. They are built as the unit tests are, so that what they rest on is built once; the program
/// that they test is the optimised one.
fn vm_tests(debug: bool) -> Result<PathBuf> {
    let tests = ["test", "--no-run", "--package", "skbtrace", "--test", "vm"];
    if debug {
        return cargo::executable(&tests, &[], "vm");
    }
    let build = ["build", "--release", "--package", "skbtrace", "--bin", "skbtrace"];
    let program = cargo::executable(&build, &[], "skbtrace")?;
    cargo::executable(&tests, &[("SKBTRACE_PROGRAM", program.as_os_str())], "vm")
}

/// The tests that this machine's own kernel can do.
fn natively(program: &OsStr, args: &Args) -> Result<Count> {
    let list = Command::new(program).args(["--list", "--format=terse", NATIVE]).output().context("no list of tests")?;
    let list = String::from_utf8_lossy(&list.stdout).into_owned();
    let names = list.lines().filter_map(|line| line.strip_suffix(": test"));
    let wanted =
        |name: &&str| args.filters.is_empty() || args.filters.iter().any(|filter| name.contains(filter.as_str()));
    let names: Vec<&str> = names.filter(|name| name.starts_with(NATIVE)).filter(wanted).collect();
    if names.is_empty() {
        println!("native: none of the tests is asked for");
        return Ok(Count { passed: 0, failed: u64::from(args.filters.is_empty()) });
    }
    let mut command = Command::new("timeout");
    command.args(["--foreground", "--kill-after=10", &TIMEOUT.as_secs().to_string()]);
    command.args(["unshare", "--net", "--mount", "--propagation", "private", "sh", "-c", APART, "sh"]).arg(program);
    command.args(["--test-threads=1", "--include-ignored", "--exact"]).args(names);
    let netns = std::fs::read_link("/proc/self/ns/net").context("which network this is")?;
    command.env("SKBTRACE_NATIVE", netns).env("CARGO_MANIFEST_DIR", cargo::workspace().join("skbtrace"));
    let done = command.stdin(Stdio::null()).output().context("timeout does not start")?;
    let stdout = String::from_utf8_lossy(&done.stdout);
    let count = Count::of(&stdout).at_least_one_failure(done.status.success());
    let remark = if done.status.code() == Some(124) { " (not done in time)" } else { "" };
    if count.failed > 0 || args.verbose {
        std::io::stdout().write_all(&done.stdout)?;
        std::io::stderr().write_all(&done.stderr)?;
    }
    println!("native: {} passed, {} failed{remark}", count.passed, count.failed);
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::Count;

    #[test]
    fn reports_of_several_programs_add_up() {
        let output = "running 3 tests\ntest a ... ok\n\n\
            test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\
            test result: FAILED. 10 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.50s\n";
        assert_eq!(Count::of(output), Count { passed: 13, failed: 2 });
    }

    #[test]
    fn a_step_that_fails_without_a_report_is_a_failure() {
        assert_eq!(Count::of("error: could not compile").at_least_one_failure(false), Count { passed: 0, failed: 1 });
        assert_eq!(Count { passed: 1, failed: 2 }.at_least_one_failure(false), Count { passed: 1, failed: 2 });
        assert_eq!(Count { passed: 1, failed: 0 }.at_least_one_failure(true), Count { passed: 1, failed: 0 });
    }
}
