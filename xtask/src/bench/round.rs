//! One tool in one round: started, idle, watched at each rate, beside traffic that is none of its business and beside iperf3, ended.

use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::Result;

use super::network::{Chain, IFACE};
use super::plan::{Plan, Tool, rate_name};
use super::process;
use super::sample::{Round, Stage};
use super::tracer::{Ended, Sums, Tracer};
use super::traffic::{Iperf, Traffic, datagrams};

/// The rate of a stage at which every tool here keeps up, and of traffic that is none of its business.
const CALM: u64 = 1000;

/// How many datagrams make a second at full speed, for lack of knowledge.
const FULL: u64 = 4000;

/// Measures. Why a tool could not be measured is in what it returns, beside what was measured up to there.
pub fn measure(plan: &Plan, tool: Tool, round: usize, iperf: &Iperf, out: &Path) -> Round {
    let mut sample = Round::new(tool, round);
    let complaints = out.join(format!("{tool}-{round}.stderr"));
    if let Err(why) = try_measure(plan, &mut sample, iperf, &complaints) {
        sample.failed = Some(format!("{why:#}"));
    }
    sample
}

fn try_measure(plan: &Plan, sample: &mut Round, iperf: &Iperf, complaints: &Path) -> Result<()> {
    let tracer = Tracer::start(sample.tool, &plan.programs, IFACE, complaints)?;
    let skbtrace = &plan.programs.skbtrace;
    if let Some(tracer) = &tracer {
        sample.ready_s = tracer.ready_s;
        // What it does to get ready is not idleness.
        tracer.settle();
        let before = process::cpu_s(tracer.pid())?;
        thread::sleep(Duration::from_secs(plan.seconds));
        sample.idle = (process::cpu_s(tracer.pid())? - before, plan.seconds as f64);
    }
    for rate in plan.rates.iter().copied() {
        let count = if rate == 0 { FULL } else { rate } * plan.seconds;
        sample.stages.push(stage(&rate_name(rate), tracer.as_ref(), || datagrams(skbtrace, rate, count, &[]))?);
    }
    let count = CALM * plan.seconds;
    let unrelated = || datagrams(skbtrace, CALM, count, &Chain::path());
    sample.stages.push(stage("unrelated", tracer.as_ref(), unrelated)?);
    sample.throughput = Some(iperf.throughput(plan.seconds)?);
    if let Some(tracer) = tracer {
        tracer.settle();
        sample.rss_kib = process::rss_kib(tracer.pid())?;
        sample.programs = tracer.programs()?;
        Ended { detach_s: sample.detach_s, last_line: sample.last_line, lost: sample.lost } = tracer.stop()?;
    }
    Ok(())
}

/// What the tool makes of this traffic.
///
/// # Errors
/// Where there is no traffic, or the tool has ended.
pub fn stage(name: &str, tracer: Option<&Tracer>, traffic: impl FnOnce() -> Result<Traffic>) -> Result<Stage> {
    let sums = || tracer.map_or(Ok(Sums::default()), Tracer::sums);
    let before = sums()?;
    let traffic = traffic()?;
    if let Some(tracer) = tracer {
        tracer.settle();
    }
    Ok(between(name, traffic, &before, &sums()?))
}

fn between(name: &str, traffic: Traffic, before: &Sums, after: &Sums) -> Stage {
    Stage {
        name: name.to_owned(),
        sent: traffic.sent,
        received: traffic.received,
        seconds: traffic.seconds,
        hits: after.hits.saturating_sub(before.hits),
        run_time_ns: after.run_time_ns.saturating_sub(before.run_time_ns),
        cpu_s: after.cpu_s - before.cpu_s,
        delivered: after.delivered.saturating_sub(before.delivered),
        compared_hits: after.compared_hits.saturating_sub(before.compared_hits),
        compared_delivered: after.compared_delivered.saturating_sub(before.compared_delivered),
    }
}

#[cfg(test)]
mod tests {
    use super::{Sums, Traffic, between};

    #[test]
    fn a_stage_is_what_came_since_its_beginning() {
        let before = Sums { hits: 100, run_time_ns: 1000, cpu_s: 0.5, delivered: 90, ..Sums::default() };
        let after = Sums { hits: 170, run_time_ns: 8000, cpu_s: 0.75, delivered: 160, ..before };
        let stage = between("200", Traffic { sent: 10, received: 9, seconds: 0.05 }, &before, &after);
        assert_eq!((stage.hits, stage.run_time_ns, stage.delivered, stage.cpu_s), (70, 7000, 70, 0.25));
        assert_eq!((stage.sent, stage.received, stage.name.as_str()), (10, 9, "200"));
    }
}
