//! From what was measured to what it means: the figures of one tool in one round, by their names. Medians of them are taken over
//! rounds, never over stages.

use std::collections::BTreeMap;

use super::sample::{Program, Round, Stage};
use super::stats::share;

/// Stages that are not paced.
const FULL: &str = "full";
const UNRELATED: &str = "unrelated";

/// Figures by name. Those of `none`, the same round without a tracer, are what throughput is compared with.
pub fn figures(round: &Round, none: Option<&Round>) -> BTreeMap<String, f64> {
    let mut all = BTreeMap::new();
    let mut put = |name: &str, value: f64| {
        if value.is_finite() {
            all.insert(name.to_owned(), value);
        }
    };
    let paced = sum(round.stages.iter().filter(|stage| stage.name != FULL && stage.name != UNRELATED));
    put("ns_per_hit", share(paced.run_time_ns as f64, paced.hits as f64));
    put("ns_per_packet", share(paced.run_time_ns as f64, paced.sent as f64));
    put("hits_per_packet", share(paced.hits as f64, paced.sent as f64));
    put("cpu_us_per_event", share(paced.cpu_s * 1e6, paced.delivered as f64));
    for stage in &round.stages {
        let name = &stage.name;
        put(&format!("ns_per_hit_{name}"), share(stage.run_time_ns as f64, stage.hits as f64));
        put(&format!("cpu_us_per_event_{name}"), share(stage.cpu_s * 1e6, stage.delivered as f64));
        put(&format!("packets_per_s_{name}"), share(stage.sent as f64, stage.seconds));
        // One that sends no events delivers none.
        if name != UNRELATED && round.stages.iter().any(|stage| stage.delivered > 0) {
            let delivered = share(stage.compared_delivered as f64, stage.compared_hits as f64);
            put(&format!("delivered_percent_{name}"), 100.0 * delivered);
        }
    }
    if let Some(throughput) = round.throughput {
        put("udp_mbit", throughput.udp_mbit);
        put("tcp_mbit", throughput.tcp_mbit);
        if let Some(none) = none.and_then(|none| none.throughput) {
            put("udp_percent", 100.0 * share(throughput.udp_mbit, none.udp_mbit));
            put("tcp_percent", 100.0 * share(throughput.tcp_mbit, none.tcp_mbit));
        }
    }
    if let Some(lost) = round.lost {
        put("lost", lost as f64);
    }
    // Where nobody traces, nothing starts.
    if round.ready_s > 0.0 {
        put("idle_percent", 100.0 * share(round.idle.0, round.idle.1));
        put("ready_s", round.ready_s);
        put("detach_s", round.detach_s);
        put("rss_mib", round.rss_kib as f64 / 1024.0);
    }
    if let Some(most) = round.programs.iter().filter_map(|program| program.verified).max() {
        put("verified_most", f64::from(most));
    }
    all
}

fn sum<'a>(stages: impl Iterator<Item = &'a Stage>) -> Stage {
    stages.fold(Stage::default(), |sum, stage| Stage {
        sent: sum.sent + stage.sent,
        hits: sum.hits + stage.hits,
        run_time_ns: sum.run_time_ns + stage.run_time_ns,
        cpu_s: sum.cpu_s + stage.cpu_s,
        delivered: sum.delivered + stage.delivered,
        ..sum
    })
}

/// The programs that the verifier looked at longest, with what a run of each cost.
pub fn longest(programs: &[Program], most: usize) -> Vec<&Program> {
    let mut programs: Vec<&Program> = programs.iter().filter(|program| program.verified.is_some()).collect();
    programs.sort_by(|a, b| b.verified.cmp(&a.verified).then_with(|| a.name.cmp(&b.name)));
    programs.truncate(most);
    programs
}

#[cfg(test)]
mod tests {
    use super::{figures, longest};
    use crate::bench::plan::Tool;
    use crate::bench::sample::{Program, Round, Stage, Throughput};

    fn stage(name: &str, hits: u64, run_time_ns: u64, delivered: u64) -> Stage {
        Stage {
            name: name.to_owned(),
            sent: hits / 7,
            seconds: 2.0,
            hits,
            run_time_ns,
            cpu_s: 0.07,
            delivered,
            compared_hits: hits,
            compared_delivered: delivered,
            ..Stage::default()
        }
    }

    #[test]
    fn hits_weigh_the_same_at_whatever_pace_and_full_speed_is_apart() {
        let mut round = Round::new(Tool::Floor, 0);
        round.stages = vec![
            stage("200", 700, 700_000, 700),
            stage("1000", 2100, 6_300_000, 2100),
            stage("full", 7000, 70_000_000, 3500),
            stage("unrelated", 70, 7000, 0),
        ];
        let figures = figures(&round, None);
        assert_eq!(figures["ns_per_hit"], 2500.0);
        assert_eq!(figures["ns_per_packet"], 17_500.0);
        assert_eq!(figures["hits_per_packet"], 7.0);
        assert_eq!(figures["cpu_us_per_event"], 50.0);
        assert_eq!((figures["ns_per_hit_full"], figures["ns_per_hit_unrelated"]), (10_000.0, 100.0));
        assert_eq!((figures["delivered_percent_200"], figures["delivered_percent_full"]), (100.0, 50.0));
        assert!(!figures.contains_key("delivered_percent_unrelated") && !figures.contains_key("ready_s"));
    }

    #[test]
    fn throughput_is_compared_with_that_of_nobody_in_the_same_round() {
        let mut none = Round::new(Tool::None, 3);
        none.throughput = Some(Throughput { udp_mbit: 80.0, udp_sent_mbit: 80.0, tcp_mbit: 0.0 });
        let mut round = Round::new(Tool::Pwru, 3);
        round.throughput = Some(Throughput { udp_mbit: 20.0, udp_sent_mbit: 80.0, tcp_mbit: 5.0 });
        let figures = figures(&round, Some(&none));
        assert_eq!(figures["udp_percent"], 25.0);
        assert!(!figures.contains_key("tcp_percent"), "a share of nothing");
        assert_eq!(figures["tcp_mbit"], 5.0);
    }

    #[test]
    fn an_empty_probe_delivers_nothing_and_loses_nothing() {
        let mut round = Round::new(Tool::Empty, 0);
        round.stages = vec![stage("200", 700, 700, 0)];
        let figures = figures(&round, None);
        assert!(!figures.contains_key("delivered_percent_200") && !figures.contains_key("cpu_us_per_event"));
        assert_eq!(figures["ns_per_hit"], 1.0);
    }

    #[test]
    fn the_longest_programs_come_first() {
        let program = |name: &str, verified| Program { name: name.to_owned(), run_count: 0, run_time_ns: 0, verified };
        let programs = [program("b", Some(5)), program("no", None), program("a", Some(5)), program("c", Some(9))];
        let names: Vec<&str> = longest(&programs, 2).iter().map(|program| program.name.as_str()).collect();
        assert_eq!(names, ["c", "a"]);
    }
}
