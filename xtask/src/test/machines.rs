//! The whole program in virtual machines: a machine per kernel, and beside them a few odd ones, for tests of what a kernel is told when
//! it boots or of how many processors it has. Two run at once: under emulation a machine waits for its own timers often enough.

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

/// The kernels that share the tests where nobody asks for others: a long-lived one, and the newer of the two.
pub const SHARED: [&str; 2] = ["6.1", "6.12"];

/// Tests that both do, by what their names contain: the ways of packets, where and why they end, and what a kernel gives.
const DONE_BY_BOTH: [&str; 3] = ["path::", "drops::", MATRIX];

/// Tests that the first does, so that each is busy for as long. The other does the rest, and so what takes a newer kernel.
const DONE_BY_FIRST: [&str; 14] = [
    "branches::",
    "checksum::",
    "diff::",
    "doctor::",
    "ending::",
    "filter::",
    "filters::",
    "host::",
    "parts::",
    "payload::",
    "privilege::",
    "protocols::",
    "recording::",
    "sockets::",
];

/// So many machines run at once: one that has two processors to itself is idle for a third of its time.
const AT_ONCE: usize = 2;

/// What machines are to do.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The kernels.
    pub kernels: &'a [&'a str],
    /// Each test is done by one of the two at least; else all by each.
    pub is_shared: bool,
    /// This machine itself has done what takes tracepoints alone.
    pub natively: bool,
}

/// A machine and its tests.
struct Round {
    name: String,
    machine: vm::Machine,
    /// Tests whose names contain one of these; all where there is none.
    filters: Vec<String>,
    /// But none whose names contain one of these.
    skip: Vec<&'static str>,
    /// That none ran is a failure.
    must_run: bool,
    /// Where it leaves its kernel's row, if it is asked for one.
    out: Option<tempfile::TempDir>,
}

/// Runs them all, and sees to the table of what each kernel gives.
///
/// # Errors
/// Where a machine cannot be started, or the table not be written.
pub fn run(asked: Asked<'_>, program: &Path, args: &Args, interrupted: &AtomicUsize) -> Result<Count> {
    let rounds = rounds(asked, args)?;
    let next = AtomicUsize::new(0);
    let lane = || {
        let mut count = Count::default();
        while interrupted.load(Ordering::Relaxed) == 0
            && let Some(round) = rounds.get(next.fetch_add(1, Ordering::Relaxed))
        {
            count = count.plus(boot(round, program, args.verbose)?);
        }
        anyhow::Ok(count)
    };
    // What is shown while it runs is shown of one.
    let lanes = if args.verbose { 1 } else { AT_ONCE };
    let counts: Vec<Result<Count>> = std::thread::scope(|scope| {
        let lanes: Vec<_> = (0..lanes).map(|_| scope.spawn(lane)).collect();
        let joined = lanes.into_iter().map(std::thread::ScopedJoinHandle::join);
        joined.map(|lane| lane.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    });
    let mut count = Count::default();
    for of_lane in counts {
        count = count.plus(of_lane?);
    }
    let mut rows = Vec::new();
    for round in &rounds {
        let Some(out) = &round.out else { continue };
        match std::fs::read_to_string(out.path().join("matrix.json")) {
            Ok(row) => rows.push((round.machine.kernel.as_str(), row)),
            Err(_) if !args.wants(MATRIX) || count.failed > 0 || interrupted.load(Ordering::Relaxed) != 0 => {}
            Err(_) => {
                println!("vm {}: it left no row for the table", round.name);
                count.failed += 1;
            }
        }
    }
    let readme = cargo::workspace().join("README.md");
    if !rows.is_empty() && !matrix::settle(&readme, &rows, args.write_table)? {
        count.failed += 1;
    }
    Ok(count)
}

/// Each kernel's machine, and after them the odd ones.
fn rounds(asked: Asked<'_>, args: &Args) -> Result<Vec<Round>> {
    let mut rounds = Vec::new();
    let module = |odd: &Odd| odd.tests.split("::").next().unwrap_or_default();
    let is_of_odd = |filter: &String| ODD.iter().any(|odd| filter.starts_with(module(odd)));
    // Who asks for nothing else needs no usual machine.
    let usual = if !args.filters.is_empty() && args.filters.iter().all(is_of_odd) { &[] } else { asked.kernels };
    let is_shared = asked.is_shared && args.filters.is_empty();
    for (at, kernel) in usual.iter().enumerate() {
        let mut filters = args.filters.clone();
        let mut skip: Vec<&str> = ODD.iter().map(|odd| odd.tests).collect();
        if !args.gallery && !args.filters.iter().any(|filter| filter.contains("gallery")) {
            skip.push("gallery::");
        }
        if is_shared && asked.natively {
            skip.push("tracepoint::");
        }
        if is_shared && at == 0 {
            filters.extend(DONE_BY_FIRST.iter().chain(&DONE_BY_BOTH).map(|&tests| tests.to_owned()));
        } else if is_shared {
            skip.extend(DONE_BY_FIRST);
        }
        let out = tempfile::tempdir()?;
        let machine = vm::Machine { timeout: TIMEOUT, out: Some(out.path().to_path_buf()), ..vm::Machine::new(kernel) };
        let must_run = args.filters.is_empty();
        rounds.push(Round { name: (*kernel).to_owned(), machine, filters, skip, must_run, out: Some(out) });
    }
    for odd in ODD.iter().filter(|odd| args.wants(odd.tests)) {
        let Some(kernel) = asked.kernels.last() else { break };
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
        let filters = vec![odd.tests.to_owned()];
        rounds.push(Round { name, machine, filters, skip: Vec::new(), must_run: true, out: None });
    }
    Ok(rounds)
}

/// Runs tests in a machine and counts them. What is to be said of it is said at its end, and in one piece.
fn boot(round: &Round, program: &Path, verbose: bool) -> Result<Count> {
    let Round { name, machine, .. } = round;
    let mut words: Vec<OsString> = vec![program.into(), "--test-threads=1".into(), "--include-ignored".into()];
    words.push("--show-output".into());
    words.extend(round.skip.iter().flat_map(|tests| ["--skip", tests]).map(OsString::from));
    words.extend(round.filters.iter().map(OsString::from));
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

    // Until this is dropped nobody else prints there.
    let _whole = std::io::stdout().lock();
    let stdout = String::from_utf8_lossy(&report.stdout);
    let mut count = Count::of(&stdout).at_least_one_failure(report.ending == vm::Ending::Exited(0));
    let mut remark = match &report.ending {
        vm::Ending::Exited(_) => String::new(),
        vm::Ending::TimedOut => format!(" (not done after {} s)", TIMEOUT.as_secs()),
        vm::Ending::Died(why) | vm::Ending::NeverBegan(why) => format!(" (the machine died: {why})"),
        vm::Ending::Interrupted(_) => " (interrupted)".to_owned(),
    };
    if count == Count::default() && round.must_run {
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

#[cfg(test)]
mod tests {
    use super::{DONE_BY_BOTH, DONE_BY_FIRST, ODD};
    use crate::cargo;

    #[test]
    fn whatever_is_named_here_is_there() {
        let main = std::fs::read_to_string(cargo::workspace().join("tests/vm/main.rs")).unwrap();
        for tests in DONE_BY_BOTH.iter().chain(&DONE_BY_FIRST).copied().chain(ODD.iter().map(|odd| odd.tests)) {
            let module = tests.split("::").next().unwrap();
            assert!(main.lines().any(|line| line == format!("mod {module};")), "{module}");
        }
        assert!(DONE_BY_BOTH.iter().all(|tests| !DONE_BY_FIRST.contains(tests)));
    }
}
