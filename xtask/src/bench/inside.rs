//! The part of the bench that runs in the machine: `xtask bench-inside`. What it measures it leaves line by line, so that a machine that
//! dies has not measured for nothing.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};

use super::network::{Chain, sysctl};
use super::plan::{Plan, Tool};
use super::sample::Line;
use super::traffic::Iperf;
use super::{curve, round};
use crate::tools;

/// The plan, and where the measured lines are left: names in the shared folder.
pub const PLAN: &str = "plan.json";
/// See [`PLAN`].
pub const LINES: &str = "lines.json";

/// Where the machine has its folder.
#[derive(Debug, clap::Args)]
pub struct Args {
    out: PathBuf,
}

/// Measures what the plan says.
///
/// # Errors
/// Where nothing can be measured at all. What happens to a tool is told in its line.
pub fn run(args: &Args) -> Result<ExitCode> {
    let out = &args.out;
    let plan: Plan = serde_json::from_str(&tools::read(&out.join(PLAN))?)?;
    sysctl("kernel/bpf_stats_enabled", "1")?;
    // The devices to come are to be quiet.
    sysctl("net/ipv6/conf/default/disable_ipv6", "1")?;
    let done = Command::new(&plan.programs.skbtrace).args(["lab", "up", "bridge"]).output()?;
    ensure!(done.status.success(), "no lab: {}", tools::said(&done));
    let mut lines = Lines { file: File::create(out.join(LINES))?, start: Instant::now() };
    rounds(&plan, out, &mut lines)?;
    for bridges in &plan.bridges {
        let point = curve::hops(&plan, *bridges, out).with_context(|| format!("{bridges} bridges"));
        lines.keep(&format!("hops through {bridges} bridges"), point.map(Line::Hops))?;
    }
    for count in &plan.packets {
        let point = curve::packets(&plan, *count, out).with_context(|| format!("{count} packets"));
        lines.keep(&format!("{count} packets"), point.map(Line::Packets))?;
    }
    if plan.soak > 0 {
        lines.keep("soak", curve::soak(&plan, out).map(Line::Soak))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn rounds(plan: &Plan, out: &Path, lines: &mut Lines) -> Result<()> {
    let _unrelated = Chain::up(0)?;
    let iperf = Iperf::start()?;
    for number in 0..plan.rounds {
        for tool in turn(&plan.tools, number) {
            let sample = round::measure(plan, tool, number, &iperf, out);
            let said = sample.failed.as_ref().map_or("measured".to_owned(), |why| format!("failed: {why}"));
            lines.keep(&format!("round {} of {}: {tool} {said}", number + 1, plan.rounds), Ok(Line::Round(sample)))?;
        }
    }
    Ok(())
}

/// Each round begins with another tool: what drifts hits all of them.
fn turn(tools: &[Tool], round: usize) -> Vec<Tool> {
    let mut tools = tools.to_vec();
    let first = round % tools.len().max(1);
    tools.rotate_left(first);
    tools
}

struct Lines {
    file: File,
    start: Instant,
}

impl Lines {
    fn keep(&mut self, what: &str, line: Result<Line>) -> Result<()> {
        let seconds = self.start.elapsed().as_secs();
        match line {
            Ok(line) => {
                eprintln!("{seconds:>5} s  {what}");
                writeln!(self.file, "{}", serde_json::to_string(&line)?)?;
                self.file.flush()?;
            }
            Err(why) => eprintln!("{seconds:>5} s  {what} failed: {why:#}"),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::turn;
    use crate::bench::plan::Tool::{Empty, Floor, None};

    #[test]
    fn every_round_begins_with_another_tool() {
        let tools = [None, Empty, Floor];
        assert_eq!(turn(&tools, 0), [None, Empty, Floor]);
        assert_eq!(turn(&tools, 1), [Empty, Floor, None]);
        assert_eq!(turn(&tools, 5), [Floor, None, Empty]);
        assert!(turn(&[], 1).is_empty());
    }
}
