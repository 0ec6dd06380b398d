//! `cargo xtask bench`: what tracing costs, beside what nobody, an empty kprobe, the least that an event can cost, and other people's
//! tracers cost.
//!
//! Everything is measured in one boot of one machine, the tools in turn and in several rounds, each beginning with another one: two
//! boots under emulation differ by more than two tools. Of each figure there is the median, and how far the rounds lie apart. The host
//! builds, boots and reports; the machine runs this same program, which it sees at the same path. No test asserts any of it.

mod command;
mod count;
mod curve;
mod figures;
mod hits;
mod host;
pub mod inside;
mod network;
mod object;
mod others;
mod plan;
pub mod probe;
mod process;
mod programs;
mod report;
mod round;
mod sample;
mod stats;
mod table;
mod tracer;
mod traffic;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum as _;

use crate::{cargo, setup, tools, vm};
use plan::{Plan, Programs, Tool};
use report::{Around, Report};
use sample::Line;

/// How long a tool may take in a round, beside its stages: to get ready, to settle and to end.
const AROUND: u64 = 300;

/// Seconds of a minute.
const MINUTE: u64 = 60;

/// What to measure.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The kernel's series.
    #[arg(long, default_value = "6.12", value_parser = clap::builder::PossibleValuesParser::new(vm::names()))]
    kernel: String,
    /// How often each tool is measured: once is enough to try it.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=100))]
    rounds: u16,
    /// Seconds that each rate, the idle time and each throughput take.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Only these tools, separated by commas, and none of skbtrace's own curves.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "TOOLS")]
    only: Vec<Tool>,
    /// skbtrace's own curves in full: runs of up to so many packets that there are a million events, and of a million packets.
    #[arg(long)]
    long: bool,
    /// Let skbtrace trace 2,000 packets a second for this long (90s, 10m), and look at its memory.
    #[arg(long, value_parser = seconds, value_name = "TIME")]
    soak: Option<u64>,
    /// The report; what it is made of lies beside it, in a folder of that name [default: target/bench/KERNEL-TIME.json].
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Measures and reports.
///
/// # Errors
/// Where something is missing or does not build, or nothing was measured.
pub fn run(args: &Args) -> Result<ExitCode> {
    setup::run(false)?;
    let mut programs = Programs { skbtrace: optimised("skbtrace")?, xtask: optimised("xtask")?, ..Programs::default() };
    let wanted: Vec<Tool> = Tool::value_variants().iter().copied().filter(|tool| args.wants(*tool)).collect();
    let missing = others::find(&wanted, &mut programs);
    let versions = others::versions(&programs).collect();
    let tools = wanted.into_iter().filter(|tool| !missing.contains_key(tool)).collect();
    let plan = args.plan(programs, tools);

    let report = args.report()?;
    let raw = report.with_extension("");
    fs::create_dir_all(&raw).with_context(|| format!("{}: cannot create", raw.display()))?;
    fs::write(raw.join(inside::PLAN), serde_json::to_string_pretty(&plan)?)?;
    let machine = vm::Machine {
        timeout: Duration::from_secs(plan.longest()),
        out: Some(raw.clone()),
        ..vm::Machine::new(&args.kernel)
    };
    let before = host::Moment::now()?;
    let words = vec![plan.programs.xtask.clone().into_os_string(), "bench-inside".into(), "/out".into()];
    let booted = vm::run(&machine, &vm::Job { words, stream: true, ..vm::Job::default() })?;
    let others = before.others_until(&host::Moment::now()?);

    let lines = lines(&raw.join(inside::LINES))?;
    ensure!(!lines.is_empty(), "nothing was measured: {:?}", booted.ending);
    let around = Around { kernel: booted.release.clone(), versions, others, missing };
    let found = Report::new(plan, around, lines);
    let text = found.text();
    fs::write(&report, serde_json::to_string_pretty(&found)?)?;
    fs::write(raw.join("table.txt"), &text)?;
    println!("{text}{}: the figures; {}: what they are made of", report.display(), raw.display());
    Ok(booted.conclude(false))
}

/// One of the workspace's programs, as users run it: the reader of the floor is to be no slower than others.
fn optimised(name: &str) -> Result<PathBuf> {
    cargo::executable(&["build", "--release", "--package", name, "--bin", name], &[], name)
}

/// What the machine has left; all of it but a last line that it did not finish.
fn lines(file: &Path) -> Result<Vec<Line>> {
    let text = tools::read(file).context("the machine measured nothing")?;
    let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    whole.map(|line| serde_json::from_str(line).with_context(|| format!("{}: {line}", file.display()))).collect()
}

impl Args {
    fn wants(&self, tool: Tool) -> bool {
        self.only.is_empty() || self.only.contains(&tool)
    }

    fn plan(&self, programs: Programs, tools: Vec<Tool>) -> Plan {
        let curves = self.only.is_empty() || self.long;
        // Twenty-two hops in the lab: the third is a million events.
        let (bridges, packets) = match (curves, self.long) {
            (false, _) => (Vec::new(), Vec::new()),
            (true, false) => (vec![0, 1, 2, 4], vec![1000, 10_000]),
            (true, true) => (vec![0, 1, 2, 3, 4, 5, 6], vec![1000, 10_000, 50_000, 1_000_000]),
        };
        Plan {
            programs,
            tools,
            rounds: usize::from(self.rounds),
            seconds: self.seconds,
            rates: vec![200, 1000, 4000, 0],
            bridges,
            packets,
            soak: self.soak.unwrap_or(0),
        }
    }

    /// Where the report goes.
    fn report(&self) -> Result<PathBuf> {
        if let Some(out) = &self.out {
            ensure!(out.extension().is_some(), "{}: give it an extension, such as .json", out.display());
            return Ok(std::path::absolute(out)?);
        }
        let now = Command::new("date").args(["-u", "+%Y-%m-%dT%H%M%SZ"]).output().context("date does not start")?;
        let now = String::from_utf8_lossy(&now.stdout).trim().to_owned();
        // Not `with_extension`, for which the version's dot begins one.
        Ok(cargo::target_dir()?.join("bench").join(format!("{}-{now}.json", self.kernel)))
    }
}

impl Plan {
    /// Seconds after which something hangs: emulation makes every stage several times as long as it is asked to be.
    fn longest(&self) -> u64 {
        let stages = self.rates.len() as u64 + 4;
        let a_round = AROUND + 4 * stages * self.seconds;
        let rounds = self.rounds as u64 * self.tools.len() as u64 * a_round;
        let curves = (self.bridges.len() + self.packets.len()) as u64 * a_round;
        let packets: u64 = self.packets.iter().map(|count| count / 200).sum();
        10 * MINUTE + rounds + curves + packets + 2 * self.soak
    }
}

/// Seconds, also as `90s` and `10m`.
fn seconds(text: &str) -> Result<u64, String> {
    let (digits, unit) = match text.strip_suffix('m') {
        Some(minutes) => (minutes, MINUTE),
        None => (text.strip_suffix('s').unwrap_or(text), 1),
    };
    let number: u64 = digits.parse().map_err(|_| "not a time: try 90s or 10m".to_owned())?;
    number.checked_mul(unit).filter(|seconds| *seconds > 0).ok_or_else(|| "not a time".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::{Parser as _, ValueEnum as _};

    use super::plan::{Programs, Tool};
    use super::{Args, lines, seconds};

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn args(words: &[&str]) -> Args {
        Line::parse_from(["bench"].iter().chain(words)).args
    }

    #[test]
    fn who_asks_for_some_tools_gets_those_alone() {
        let some = args(&["--only", "floor,skbtrace", "--rounds", "1", "--seconds", "2"]);
        let wanted: Vec<Tool> = Tool::value_variants().iter().copied().filter(|tool| some.wants(*tool)).collect();
        assert_eq!(wanted, [Tool::Floor, Tool::Skbtrace]);
        let plan = some.plan(Programs::default(), wanted);
        assert!(plan.bridges.is_empty() && plan.packets.is_empty() && plan.soak == 0);
        assert!(Tool::value_variants().iter().all(|tool| args(&[]).wants(*tool)));
    }

    #[test]
    fn a_million_packets_are_for_who_has_the_time() {
        let most = |words: &[&str]| *args(words).plan(Programs::default(), Vec::new()).packets.last().unwrap();
        assert_eq!((most(&[]), most(&["--long"])), (10_000, 1_000_000));
    }

    #[test]
    fn the_machine_has_time_for_what_it_is_asked_for() {
        let plan = args(&["--long", "--soak", "10m"]).plan(Programs::default(), vec![Tool::None; 9]);
        let at_least = 3 * 9 * 8 * plan.seconds + 1_061_000 / 2000 + 600;
        assert!(plan.longest() > 2 * at_least, "{} {at_least}", plan.longest());
    }

    #[test]
    fn a_time_has_a_unit_or_is_in_seconds() {
        assert_eq!((seconds("90"), seconds("90s"), seconds("10m")), (Ok(90), Ok(90), Ok(600)));
        for wrong in ["", "m", "0", "-1", "10h", "99999999999999999999", "18446744073709551615m"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_last_line_that_is_not_whole_is_left_out() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let whole = serde_json::to_string(&super::Line::Round(super::sample::Round::new(Tool::None, 0))).unwrap();
        std::fs::write(file.path(), format!("{whole}\n{{\"round\":")).unwrap();
        assert_eq!(lines(file.path()).unwrap().len(), 1);
        std::fs::write(file.path(), "nonsense\n").unwrap();
        assert!(lines(file.path()).is_err());
    }
}
