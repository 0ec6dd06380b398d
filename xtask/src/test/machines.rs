//! The whole program in virtual machines: a machine per kernel, and beside them a few odd ones, for tests of what a kernel is told when
//! it boots or of how many processors it has.

use std::ffi::OsString;
use std::io::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Result;

use super::{Args, Count, TIMEOUT};
use crate::{cargo, matrix, vm};

/// A machine that is not like the others. One kernel is tried on it: the last of those asked for.
struct Odd {
    /// How the names of its tests begin; other machines leave them out.
    tests: &'static str,
    /// What its kernel is told.
    append: Option<&'static str>,
    /// Its processors.
    cpus: u32,
    /// Its memory in MiB: each processor takes its share of it.
    memory_mib: u32,
}

const ODD: [Odd; 3] = [
    Odd { tests: "lockdown::integrity", append: Some("lockdown=integrity"), cpus: 2, memory_mib: 2048 },
    Odd { tests: "lockdown::confidentiality", append: Some("lockdown=confidentiality"), cpus: 2, memory_mib: 2048 },
    Odd { tests: "processors::", append: None, cpus: 24, memory_mib: 4096 },
];

/// The test that leaves a kernel's row of the table.
const MATRIX: &str = "matrix::";

/// Runs them all, one machine at a time, and sees to the table of what each kernel gives.
///
/// # Errors
/// Where a machine cannot be started, or the table not be written.
pub fn run(kernels: &[&String], program: &Path, args: &Args, interrupted: &AtomicUsize) -> Result<Count> {
    let mut count = Count::default();
    let mut rows = Vec::new();
    let of_odd: Vec<&str> = ODD.iter().map(|odd| odd.tests).collect();
    let module = |odd: &Odd| odd.tests.split("::").next().unwrap_or_default();
    let is_of_odd = |filter: &String| ODD.iter().any(|odd| filter.starts_with(module(odd)));
    // Who asks for nothing else needs no usual machine.
    let usual = if !args.filters.is_empty() && args.filters.iter().all(is_of_odd) { &[] } else { kernels };
    for kernel in usual {
        if interrupted.load(Ordering::Relaxed) != 0 {
            break;
        }
        let out = tempfile::tempdir()?;
        let machine = vm::Machine { timeout: TIMEOUT, out: Some(out.path().to_path_buf()), ..vm::Machine::new(kernel) };
        let mut skip = of_odd.clone();
        if !args.gallery && !args.filters.iter().any(|filter| filter.contains("gallery")) {
            skip.push("gallery::");
        }
        let tests = Tests { filters: &args.filters, skip: &skip, must_run: args.filters.is_empty() };
        count = count.plus(boot(&machine, program, &tests, kernel, args.verbose)?);
        match std::fs::read_to_string(out.path().join("matrix.json")) {
            Ok(row) => rows.push((kernel.as_str(), row)),
            Err(_) if !args.wants(MATRIX) || count.failed > 0 => {}
            Err(_) => {
                println!("vm {kernel}: it left no row for the table");
                count.failed += 1;
            }
        }
    }
    for odd in ODD.iter().filter(|odd| args.wants(odd.tests)) {
        let Some(kernel) = kernels.last().filter(|_| interrupted.load(Ordering::Relaxed) == 0) else { break };
        let machine = vm::Machine {
            timeout: TIMEOUT,
            cpus: odd.cpus,
            memory_mib: odd.memory_mib,
            append: odd.append.map(str::to_owned),
            ..vm::Machine::new(kernel)
        };
        let name = match odd.append {
            Some(append) => format!("{kernel} {append}"),
            None => format!("{kernel} with {} processors", odd.cpus),
        };
        let tests = Tests { filters: &[odd.tests.to_owned()], skip: &[], must_run: true };
        count = count.plus(boot(&machine, program, &tests, &name, args.verbose)?);
    }
    let readme = cargo::workspace().join("README.md");
    if !rows.is_empty() && !matrix::settle(&readme, &rows, args.write_table)? {
        count.failed += 1;
    }
    Ok(count)
}

/// Which tests a machine runs.
struct Tests<'a> {
    /// Those whose names contain one of these; all where there is none.
    filters: &'a [String],
    /// But none whose names contain one of these.
    skip: &'a [&'a str],
    /// That none ran is a failure.
    must_run: bool,
}

/// Runs tests in a machine and counts them.
fn boot(machine: &vm::Machine, program: &Path, tests: &Tests<'_>, name: &str, verbose: bool) -> Result<Count> {
    let mut words: Vec<OsString> = vec![program.into(), "--test-threads=1".into(), "--include-ignored".into()];
    words.push("--show-output".into());
    words.extend(tests.skip.iter().flat_map(|tests| ["--skip", tests]).map(OsString::from));
    words.extend(tests.filters.iter().map(OsString::from));
    let package = cargo::workspace().join("skbtrace");
    let env = [
        ("SKBTRACE_VM", "1"),
        ("SKBTRACE_VM_KERNEL", &machine.kernel),
        ("SKBTRACE_MATRIX", "/out/matrix.json"),
        // As under cargo: tests may look for their files there.
        ("CARGO_MANIFEST_DIR", &package.to_string_lossy()),
    ];
    let env = env.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let job = vm::Job { words, dir: Some(package), env, stream: verbose };
    let report = vm::run(machine, &job)?;

    let stdout = String::from_utf8_lossy(&report.stdout);
    let mut count = Count::of(&stdout).at_least_one_failure(report.ending == vm::Ending::Exited(0));
    let mut remark = match &report.ending {
        vm::Ending::Exited(_) => String::new(),
        vm::Ending::TimedOut => format!(" (not done after {} s)", TIMEOUT.as_secs()),
        vm::Ending::Died(why) | vm::Ending::NeverBegan(why) => format!(" (the machine died: {why})"),
        vm::Ending::Interrupted(_) => " (interrupted)".to_owned(),
    };
    if count == Count::default() && tests.must_run {
        // Tests that do not run do not pass.
        count.failed = 1;
        remark = " (no test ran)".to_owned();
    }
    if count.failed > 0 {
        if !verbose {
            std::io::stdout().write_all(&report.stdout)?;
            std::io::stderr().write_all(&report.stderr)?;
        }
        report.show_last_words();
    }
    println!("vm {name}: {} passed, {} failed{remark}", count.passed, count.failed);
    // What a test measures and asserts nothing of.
    for figure in stdout.lines().filter_map(|line| line.strip_prefix("figure: ")) {
        println!("vm {name}: {figure}");
    }
    Ok(count)
}
