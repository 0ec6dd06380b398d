use std::collections::BTreeMap;

use super::{Around, Report};
use crate::bench::host::Others;
use crate::bench::plan::{Plan, Programs, Tool};
use crate::bench::sample::{Line, Point, Program, Round, Soak, Stage, Throughput};

fn plan() -> Plan {
    Plan {
        programs: Programs::default(),
        tools: vec![Tool::None, Tool::Floor, Tool::Skbtrace, Tool::Bpftrace, Tool::Pwru],
        rounds: 2,
        seconds: 5,
        rates: vec![200, 0],
        bridges: vec![1],
        packets: Vec::new(),
        soak: 600,
    }
}

fn stage(name: &str, ns: u64) -> Stage {
    Stage {
        name: name.to_owned(),
        sent: 1000,
        received: 1000,
        seconds: 5.0,
        hits: 7000,
        run_time_ns: 7000 * ns,
        cpu_s: 0.35,
        delivered: 7000,
        compared_hits: 7000,
        compared_delivered: 6300,
    }
}

fn round(tool: Tool, number: usize, ns: u64, mbit: f64) -> Round {
    let mut round = Round::new(tool, number);
    round.throughput = Some(Throughput { udp_mbit: mbit, udp_sent_mbit: mbit, tcp_mbit: mbit * 10.0 });
    if tool != Tool::None {
        round.ready_s = 1.5;
        round.detach_s = 0.25;
        round.rss_kib = 10 << 10;
        round.idle = (0.05, 5.0);
        round.stages = vec![stage("200", ns), stage("full", ns * 2), stage("unrelated", ns / 4)];
    }
    if tool == Tool::Skbtrace {
        round.lost = Some(700);
        let program = |name: &str, run_count, verified| Program {
            name: name.to_owned(),
            run_count,
            run_time_ns: run_count * ns,
            verified: Some(verified),
        };
        round.programs = vec![program("veth_xmit", 2000, 90), program("follow_probe", 0, 41_000)];
    }
    round
}

fn around() -> Around {
    Around {
        kernel: "6.12.117".to_owned(),
        versions: [("bpftrace".to_owned(), "bpftrace v0.17.0".to_owned())].into(),
        others: Others { percent: 12.5 },
        missing: [(Tool::Retis, "it is not on the PATH\nand more".to_owned())].into(),
    }
}

fn report() -> Report {
    Report::new(plan(), around(), lines())
}

fn lines() -> Vec<Line> {
    let mut failed = round(Tool::Floor, 1, 9_999_999, 1.0);
    failed.failed = Some("it ended".to_owned());
    let mut bpftrace = round(Tool::Bpftrace, 0, 1, 1.0);
    bpftrace.failed = Some("no BTF".to_owned());
    vec![
        Line::Round(round(Tool::None, 0, 0, 100.0)),
        Line::Round(round(Tool::Floor, 0, 1400, 80.0)),
        Line::Round(round(Tool::Skbtrace, 0, 4000, 50.0)),
        // The second round is slower as a whole.
        Line::Round(round(Tool::Skbtrace, 1, 6000, 25.0)),
        Line::Round(failed),
        Line::Round(bpftrace),
        Line::Round(round(Tool::None, 1, 0, 50.0)),
        Line::Hops(Point { bridges: 1, stage: stage("200", 4000), rss_kib: 20 << 10, losses: BTreeMap::new() }),
        Line::Soak(Soak {
            rss_kib: vec![(0, 1 << 10), (60, 12 << 10), (70, 13 << 10), (600, 13 << 10)],
            stage: stage("2000", 4000),
            losses: [("ring_full".to_owned(), 2)].into(),
        }),
    ]
}

#[test]
fn the_tables_show_medians_and_how_far_the_rounds_lie_apart() {
    let report = report();
    insta::assert_snapshot!(report.text(), @r"
    6.12.117: 2 rounds of 5 s
    bpftrace v0.17.0
    others used 12.5 % of the host meanwhile: measure again when nothing else runs

    tool             kernel ns/hit      unrelated ns/hit        hits/packet         kernel ns/packet       CPU us/event         % at 200/s  % at 1,000/s  % at 4,000/s    % at full speed       says lost
    none                         -                     -                  -                        -                  -                  -             -             -                  -               -
    floor                    1,400                   350               7.00                    9,800               50.0               90.0             -             -               90.0               -
    skbtrace  5,000 (4,000..6,000)  1,250 (1,000..1,500)  7.00 (7.00..7.00)  35,000 (28,000..42,000)  50.0 (50.0..50.0)  90.0 (90.0..90.0)             -             -  90.0 (90.0..90.0)  700 (700..700)
    bpftrace                     -                     -                  -                        -                  -                  -             -             -                  -               -  not measured: no BTF
    pwru                         -                     -                  -                        -                  -                  -             -             -                  -               -  not measured: the machine ended before
    retis                        -                     -                  -                        -                  -                  -             -             -                  -               -  not measured: it is not on the PATH

    tool      packets/s at most      UDP % of none      TCP % of none         UDP Mbit/s        TCP Mbit/s         idle CPU %            ready s           detach s            RSS MiB
    none                      -     100 (100..100)     100 (100..100)   75.0 (50.0..100)  750 (500..1,000)                  -                  -                  -                  -
    floor                   200               80.0               80.0               80.0               800               1.00               1.50               0.25               10.0
    skbtrace     200 (200..200)  50.0 (50.0..50.0)  50.0 (50.0..50.0)  37.5 (25.0..50.0)    375 (250..500)  1.00 (1.00..1.00)  1.50 (1.50..1.50)  0.25 (0.25..0.25)  10.0 (10.0..10.0)
    bpftrace                  -                  -                  -                  -                 -                  -                  -                  -                  -  not measured: no BTF
    pwru                      -                  -                  -                  -                 -                  -                  -                  -                  -  not measured: the machine ended before
    retis                     -                  -                  -                  -                 -                  -                  -                  -                  -  not measured: it is not on the PATH

    instructions verified, of 2 programs of skbtrace: 41,090 in all
    program       verified   runs  ns/run
    follow_probe    41,000      0       -
    veth_xmit           90  2,000   4,000

    cost by the hops of a packet (skbtrace)
    bridges  packets  events  events/packet  kernel ns/hit  CPU us/event  CPU us/packet  RSS MiB  lost
    1          1,000   7,000           7.00          4,000          50.0            350     20.0     0

    soak: 12.0 MiB after 60 s, 13.0 MiB after 600 s; 1,000 packets sent, 7,000 events, 2 lost

    not measured: floor in round 2: it ended
    not measured: bpftrace in round 1: no BTF
    ");
}

#[test]
fn a_failed_round_is_told_and_counts_for_nothing() {
    let report = report();
    assert_eq!(report.remarks, ["floor in round 2: it ended", "bpftrace in round 1: no BTF"]);
    assert_eq!(report.figures[&Tool::Floor]["ns_per_hit"].values, [1400.0]);
    // In both rounds half of what got through without it.
    assert_eq!(report.figures[&Tool::Skbtrace]["udp_percent"].values, [50.0, 50.0]);
}

#[test]
fn the_json_has_the_figures_by_tool_and_name() {
    let report = report();
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["figures"]["skbtrace"]["ns_per_hit"]["median"], 5000.0);
    assert_eq!(json["figures"]["skbtrace"]["ns_per_hit"]["values"], serde_json::json!([4000.0, 6000.0]));
    assert_eq!(json["missing"]["retis"], "it is not on the PATH\nand more");
    assert_eq!((&json["kernel"], &json["others"]["percent"]), (&"6.12.117".into(), &12.5.into()));
    assert_eq!(json["functions"][0], "veth_xmit");
    assert_eq!(json["programs"][1]["verified"], 41_000);
}

#[test]
fn lines_survive_the_way_from_the_machine() {
    for line in lines() {
        let text = serde_json::to_string(&line).unwrap();
        let back: Line = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_string(&back).unwrap(), text);
    }
}
