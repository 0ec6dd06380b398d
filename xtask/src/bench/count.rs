//! How many events a line that a tool printed stands for.

use std::collections::BTreeMap;

use serde_json::Value;

use super::plan::Tool;
use super::programs::is_compared;

/// What a line tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// So many more events; and so many of them at the functions that all tools trace.
    More(u64, u64),
    /// So many events up to now.
    Sum(u64),
}

/// Counts.
pub fn count(tool: Tool, line: &str) -> Told {
    let one = |is_event: bool| Told::More(u64::from(is_event), u64::from(is_event));
    match tool {
        Tool::None | Tool::Empty => one(false),
        Tool::Floor | Tool::FloorNoWakeup => {
            line.trim().strip_prefix("events ").and_then(|sum| sum.parse().ok()).map_or(one(false), Told::Sum)
        }
        Tool::Skbtrace | Tool::SkbtraceNoVerify => hops(line),
        Tool::Bpftrace | Tool::BpftraceStack => one(line.contains(" skb=")),
        Tool::Pwru => one(line.trim_start().starts_with("0x")),
        // The first line of an event names its kind of probe.
        Tool::Retis => one(line.contains(" [k] ")),
    }
}

/// A packet's line has an object for each of its hops. It is not parsed: a thread does this beside what is being measured.
fn hops(line: &str) -> Told {
    if !line.starts_with(r#"{"type":"packet""#) {
        return Told::More(0, 0);
    }
    let names = line.split(r#""hop":""#).skip(1).filter_map(|rest| rest.split('"').next());
    let (mut all, mut compared) = (0, 0);
    for name in names {
        all += 1;
        compared += u64::from(is_compared(name));
    }
    Told::More(all, compared)
}

/// What skbtrace's books, its last line, say was lost, by kind. An event of which a part could not be read is not lost.
pub fn losses(last_line: &str) -> BTreeMap<String, u64> {
    let books: Value = serde_json::from_str(last_line).unwrap_or_default();
    let losses = books.get("losses").and_then(Value::as_object);
    let losses = losses.into_iter().flatten().filter(|(kind, _)| *kind != "read_failed");
    losses.filter_map(|(kind, count)| Some((kind.clone(), count.as_u64()?))).collect()
}

/// How many events more are lost, as bpftrace says whenever its buffer was full.
pub fn told_lost(line: &str) -> u64 {
    let rest = line.split_once("Lost ").and_then(|(_, rest)| rest.strip_suffix(" events"));
    rest.and_then(|count| count.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::{Told, count, losses, told_lost};
    use crate::bench::plan::Tool;
    use crate::bench::programs::is_compared;
    use serde_json::Value;

    #[test]
    fn a_packet_of_skbtrace_is_as_many_events_as_it_has_hops() {
        let packet = r#"{"type":"packet","version":1,"hops":[{"hop":"veth_xmit","step":0},{"hop":"enqueue_to_backlog"}],
            "branches":[{"after":1,"hops":[{"hop":"ip_rcv"}]}]}"#;
        assert_eq!(count(Tool::Skbtrace, packet), Told::More(3, 2));
        let books = r#"{"type":"summary","hops":[{"hop":"veth_xmit","sent":7}],"losses":{"ring_full":3,"unread":0,"read_failed":5}}"#;
        assert_eq!(count(Tool::SkbtraceNoVerify, books), Told::More(0, 0));
        assert_eq!(losses(books), [("ring_full".to_owned(), 3), ("unread".to_owned(), 0)].into());
        assert!(losses("not JSON").is_empty());
    }

    /// Lines of a run on 6.12: the first packet of six, which a bridge floods, the fourth, and the books.
    const RUN: &str = include_str!("count/run.json");

    #[test]
    fn a_run_is_counted_as_its_books_say() {
        let told: Vec<Told> = RUN.lines().map(|line| count(Tool::Skbtrace, line)).collect();
        assert_eq!(told, [Told::More(26, 6), Told::More(26, 7), Told::More(0, 0)]);
        let books = RUN.lines().last().unwrap();
        assert_eq!((losses(books).len(), losses(books).values().sum::<u64>()), (5, 0));

        // Two packets as the first is and four as the other: the second of ARP is not flooded, which is no function of the six.
        let books: Value = serde_json::from_str(books).unwrap();
        let rows = books["hops"].as_array().unwrap();
        let compared = rows.iter().filter(|row| is_compared(row["hop"].as_str().unwrap()));
        assert_eq!(compared.map(|row| row["sent"].as_u64().unwrap()).sum::<u64>(), 2 * 6 + 4 * 7);
        // What the kernel counts of the functions that one link attaches is one number for all of them.
        let together = rows.iter().find(|row| row["hop"] == "kprobe.multi").unwrap();
        assert_eq!((together["run_count"].as_u64(), together["sent"].as_u64()), (Some(213), Some(0)));
    }

    #[test]
    fn losses_that_are_told_are_added_up() {
        assert_eq!(["Lost 1918 events", "WARNING: Lost 2 events"].map(told_lost), [1918, 2]);
        assert_eq!(["Lost events", "ip_rcv skb=1 len=2 dev=Lost 3 events!", ""].map(told_lost), [0, 0, 0]);
    }

    #[test]
    fn the_floor_tells_its_sum() {
        assert_eq!(count(Tool::Floor, "events 7000\n"), Told::Sum(7000));
        assert_eq!(count(Tool::FloorNoWakeup, "events\n"), Told::More(0, 0));
    }

    #[test]
    fn headings_and_stacks_are_no_events() {
        for (tool, event, other) in [
            (Tool::Bpftrace, "ip_rcv skb=ffff888 len=84 dev=calmveth1", "Attaching 6 probes..."),
            (Tool::BpftraceStack, "ip_rcv skb=ffff888 len=84 dev=calmveth1", "        ip_rcv+1"),
            (Tool::Pwru, "0xffff88810 1 curl:312 4026531840 0 calmveth1:3 0x0800 1500 84 a->b(udp) ip_rcv", "SKB CPU"),
            (Tool::Retis, "1234567 (1) [curl] 312 [k] ip_rcv #0 (skb 1)", "  ns 0x1/4026531840 if 3 (calmveth1)"),
        ] {
            assert_eq!(count(tool, event), Told::More(1, 1), "{tool}");
            assert_eq!(count(tool, other), Told::More(0, 0), "{tool}");
        }
    }
}
