//! What came of it: one JSON object to keep, and tables to read. Both are made of the lines that the machine has left.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use clap::ValueEnum as _;
use serde::Serialize;

use super::figures::{figures, longest};
use super::host::Others;
use super::plan::{FUNCTIONS, Plan, Tool};
use super::sample::{Line, Point, Program, Round, Soak};
use super::stats::{Spread, share};
use super::table::{Table, cell, count, number};

/// Titles and figures of the columns: what a hit and an event cost, what arrives, and what did not by the tool's own account.
const COSTS: [(&str, &str); 10] = [
    ("kernel ns/hit", "ns_per_hit"),
    ("unrelated ns/hit", "ns_per_hit_unrelated"),
    ("hits/packet", "hits_per_packet"),
    ("kernel ns/packet", "ns_per_packet"),
    ("CPU us/event", "cpu_us_per_event"),
    ("% at 200/s", "delivered_percent_200"),
    ("% at 1,000/s", "delivered_percent_1000"),
    ("% at 4,000/s", "delivered_percent_4000"),
    ("% at full speed", "delivered_percent_full"),
    ("says lost", "lost"),
];

/// And of the others: what it does to the machine.
const BURDEN: [(&str, &str); 9] = [
    ("packets/s at most", "packets_per_s_full"),
    ("UDP % of none", "udp_percent"),
    ("TCP % of none", "tcp_percent"),
    ("UDP Mbit/s", "udp_mbit"),
    ("TCP Mbit/s", "tcp_mbit"),
    ("idle CPU %", "idle_percent"),
    ("ready s", "ready_s"),
    ("detach s", "detach_s"),
    ("RSS MiB", "rss_mib"),
];

/// From so much of the host on that others used, percent, figures are for trying the bench alone.
const BUSY: f64 = 5.0;

/// So many programs are shown with what the verifier looked at.
const LONGEST: usize = 8;

/// What the host knows: it is not in the machine's lines.
#[derive(Serialize)]
pub struct Around {
    /// The kernel, as `uname -r` tells it.
    pub kernel: String,
    /// Versions of the tools, as they tell them.
    pub versions: BTreeMap<String, String>,
    /// What else ran.
    pub others: Others,
    /// Tools that cannot be had, and why.
    pub missing: BTreeMap<Tool, String>,
}

/// All of it.
#[derive(Serialize)]
pub struct Report {
    /// Raised when a member changes its meaning.
    version: u32,
    #[serde(flatten)]
    around: Around,
    /// The functions that all tools trace.
    functions: Vec<&'static str>,
    plan: Plan,
    /// By tool and name of the figure.
    figures: BTreeMap<Tool, BTreeMap<String, Spread>>,
    /// Rounds that failed, in words.
    remarks: Vec<String>,
    /// The programs of skbtrace.
    programs: Vec<Program>,
    hops: Vec<Point>,
    packets: Vec<Point>,
    soak: Option<Soak>,
}

impl Report {
    /// Of the lines of one machine.
    pub fn new(plan: Plan, around: Around, lines: Vec<Line>) -> Self {
        let (mut rounds, mut hops, mut packets, mut soak) = (Vec::new(), Vec::new(), Vec::new(), None);
        for line in lines {
            match line {
                Line::Round(round) => rounds.push(round),
                Line::Hops(point) => hops.push(point),
                Line::Packets(point) => packets.push(point),
                Line::Soak(long) => soak = Some(long),
            }
        }
        let failed = rounds.iter().filter_map(|round| {
            Some(format!("{} in round {}: {}", round.tool, round.round + 1, round.failed.as_ref()?))
        });
        let programs = rounds.iter().find(|round| round.tool == Tool::Skbtrace && round.failed.is_none());
        Self {
            version: 1,
            around,
            functions: FUNCTIONS.iter().map(|function| function.name).collect(),
            plan,
            figures: medians(&rounds),
            remarks: failed.collect(),
            programs: programs.map(|round| round.programs.clone()).unwrap_or_default(),
            hops,
            packets,
            soak,
        }
    }

    /// The tables.
    pub fn text(&self) -> String {
        let (around, plan) = (&self.around, &self.plan);
        let versions: Vec<&str> =
            around.versions.values().map(|version| version.lines().next().unwrap_or("")).collect();
        let mut text = format!("{}: {} rounds of {} s\n", around.kernel, plan.rounds, plan.seconds);
        // Writing to a string does not fail, here and below.
        let _ = writeln!(text, "{}", versions.join(", "));
        let busy = if around.others.percent > BUSY { ": measure again when nothing else runs" } else { "" };
        let _ = writeln!(text, "others used {} % of the host meanwhile{busy}\n", number(around.others.percent));
        for columns in [&COSTS[..], &BURDEN[..]] {
            text.push_str(&self.table(columns));
            text.push('\n');
        }
        self.verified(&mut text);
        points(&mut text, "cost by the hops of a packet", &self.hops);
        points(&mut text, "cost by the packets of a run", &self.packets);
        if let Some(soak) = &self.soak {
            soaked(&mut text, soak);
        }
        for remark in &self.remarks {
            let _ = writeln!(text, "not measured: {remark}");
        }
        text
    }

    fn table(&self, columns: &[(&str, &str)]) -> String {
        let titles: Vec<&str> = ["tool"].into_iter().chain(columns.iter().map(|(title, _)| *title)).collect();
        let mut table = Table::new(&titles);
        for tool in Tool::value_variants() {
            let figures = self.figures.get(tool);
            let cells = columns.iter().map(|(_, name)| cell(figures.and_then(|figures| figures.get(*name))));
            let cells = [tool.to_string()].into_iter().chain(cells).collect();
            match self.why_not(*tool) {
                Some(why) => table.noted(cells, &format!("not measured: {why}")),
                None if figures.is_some() => table.row(cells),
                // Nobody asked for it.
                None => {}
            }
        }
        table.text()
    }

    /// Why there are no figures of a tool that was asked for, in a line.
    fn why_not(&self, tool: Tool) -> Option<&str> {
        if let Some(why) = self.around.missing.get(&tool) {
            return Some(why.lines().next().unwrap_or("nobody knows why"));
        }
        if self.figures.contains_key(&tool) || !self.plan.tools.contains(&tool) {
            return None;
        }
        let rounds = format!("{tool} in round ");
        let why = self.remarks.iter().find_map(|remark| remark.strip_prefix(&rounds)?.split_once(": "));
        Some(why.map_or("the machine ended before", |(_, why)| why.lines().next().unwrap_or("nobody knows why")))
    }

    fn verified(&self, text: &mut String) {
        let longest = longest(&self.programs, LONGEST);
        if longest.is_empty() {
            return;
        }
        let all: u64 = self.programs.iter().filter_map(|program| program.verified).map(u64::from).sum();
        let _ = writeln!(
            text,
            "instructions verified, of {} programs of skbtrace: {} in all",
            self.programs.len(),
            count(all)
        );
        let mut table = Table::new(&["program", "verified", "runs", "ns/run"]);
        for program in longest {
            let cost = share(program.run_time_ns as f64, program.run_count as f64);
            table.row(vec![
                program.name.clone(),
                count(program.verified.unwrap_or(0).into()),
                count(program.run_count),
                cell(Spread::of(&[cost]).as_ref()),
            ]);
        }
        text.push_str(&table.text());
        text.push('\n');
    }
}

/// The medians of all rounds that did not fail, each compared with that of nobody in the same round.
fn medians(rounds: &[Round]) -> BTreeMap<Tool, BTreeMap<String, Spread>> {
    let good = || rounds.iter().filter(|round| round.failed.is_none());
    let mut values: BTreeMap<Tool, BTreeMap<String, Vec<f64>>> = BTreeMap::new();
    for round in good() {
        let none = good().find(|other| other.tool == Tool::None && other.round == round.round);
        let of_tool = values.entry(round.tool).or_default();
        for (name, value) in figures(round, none) {
            of_tool.entry(name).or_default().push(value);
        }
    }
    let spreads = |of_tool: BTreeMap<String, Vec<f64>>| {
        of_tool.into_iter().filter_map(|(name, values)| Some((name, Spread::of(&values)?))).collect()
    };
    values.into_iter().map(|(tool, of_tool)| (tool, spreads(of_tool))).collect()
}

fn points(text: &mut String, title: &str, points: &[Point]) {
    if points.is_empty() {
        return;
    }
    let _ = writeln!(text, "{title} (skbtrace)");
    let mut table = Table::new(&[
        "bridges",
        "packets",
        "events",
        "events/packet",
        "kernel ns/hit",
        "CPU us/event",
        "CPU us/packet",
        "RSS MiB",
        "lost",
    ]);
    for Point { bridges, stage, rss_kib, losses } in points {
        let ratio = |part: f64, whole: u64| cell(Spread::of(&[share(part, whole as f64)]).as_ref());
        table.row(vec![
            bridges.to_string(),
            count(stage.sent),
            count(stage.delivered),
            ratio(stage.delivered as f64, stage.sent),
            ratio(stage.run_time_ns as f64, stage.hits),
            ratio(stage.cpu_s * 1e6, stage.delivered),
            ratio(stage.cpu_s * 1e6, stage.sent),
            number(*rss_kib as f64 / 1024.0),
            count(losses.values().sum::<u64>()),
        ]);
    }
    text.push_str(&table.text());
    text.push('\n');
}

fn soaked(text: &mut String, soak: &Soak) {
    let at_minute = soak.rss_kib.iter().find(|(second, _)| *second >= 60);
    let (Some(first), Some(last)) = (at_minute.or(soak.rss_kib.first()), soak.rss_kib.last()) else { return };
    let mib = |kib: u64| number(kib as f64 / 1024.0);
    let _ = writeln!(
        text,
        "soak: {} MiB after {} s, {} MiB after {} s; {} packets sent, {} events, {} lost\n",
        mib(first.1),
        first.0,
        mib(last.1),
        last.0,
        count(soak.stage.sent),
        count(soak.stage.delivered),
        count(soak.losses.values().sum::<u64>()),
    );
}

#[cfg(test)]
mod tests;
