//! The trace for Perfetto.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::Value;

use super::{garbled, stitched};
use crate::report::{Perfetto, perfetto::micros};
use crate::store::testkit::{names, traffic};
use crate::trace::Packet;
use crate::trace::testkit::Lab;
use crate::verdict::payload;

fn trace(packets: &[Packet]) -> Vec<Value> {
    let mut trace = Perfetto::default();
    for packet in packets {
        trace.packet(packet, &payload(packet), &names());
    }
    trace.note("a note");
    let trace: Value = serde_json::from_str(&trace.finish().unwrap()).unwrap();
    assert_eq!(trace["otherData"]["notes"][0], "a note");
    trace["traceEvents"].as_array().unwrap().clone()
}

/// An event in a line, its times as nanoseconds, as Perfetto takes them.
fn line(event: &Value) -> String {
    let ph = event["ph"].as_str().unwrap();
    let name = event["name"].as_str().unwrap();
    let ns = |key: &str| {
        event.get(key).map_or_else(String::new, |time| format!(" {key} {}", (time.as_f64().unwrap() * 1000.0) as u64))
    };
    let name = if ph == "M" { format!("{name} {}", event["args"]) } else { name.to_owned() };
    let id = event.get("id").map_or_else(String::new, |id| format!(" id {id}"));
    format!("{ph} {}/{}{}{}{id} {name}", event["pid"], event.get("tid").unwrap_or(&Value::Null), ns("ts"), ns("dur"))
}

#[test]
fn a_packet_is_a_slice_per_device_with_its_hops_and_a_flow() {
    let (packets, _) = stitched(&Lab::new().udp_dropped(1, 7));
    let lines: Vec<String> = trace(&packets).iter().map(line).collect();
    insta::assert_snapshot!(lines.join("\n"), @r##"
    M 1/null process_name {"name":"init"}
    M 2/null process_name {"name":"ns-calm2"}
    M 1/1 thread_name {"name":"calmveth2_peer"}
    M 1/1 thread_sort_index {"sort_index":1}
    M 2/2 thread_name {"name":"calmveth2"}
    M 2/2 thread_sort_index {"sort_index":2}
    X 2/2 ts 0 dur 3400 #1 UDP 78.78.0.11:40000 → 78.78.0.10:9000 64 bytes
    X 2/2 ts 0 dur 900 ip_output
    X 2/2 ts 900 dur 1300 __dev_queue_xmit
    X 2/2 ts 2200 dur 400 veth_xmit
    X 2/2 ts 2600 dur 800 __dev_forward_skb
    s 2/2 ts 0 id "#1" packet
    X 1/1 ts 3400 dur 34800 #1 UDP 78.78.0.11:40000 → 78.78.0.10:9000 64 bytes
    X 1/1 ts 3400 dur 300 netif_rx_internal
    X 1/1 ts 3700 dur 30000 enqueue_to_backlog
    X 1/1 ts 33700 dur 1000 br_handle_frame (calmbr)
    X 1/1 ts 34700 dur 1000 br_handle_frame_finish
    X 1/1 ts 35700 dur 2500 __br_forward
    f 1/1 ts 3400 id "#1" packet
    i 1/1 ts 38200 DROPPED in nf_hook_slow+0x44: NETFILTER_DROP
    "##);
}

#[test]
fn where_a_payload_changed_there_is_a_mark() {
    let bad = garbled(&mut Lab::new(), 1);
    let events = trace(&[bad]);
    let marks: Vec<&str> =
        events.iter().filter(|event| event["ph"] == "i").map(|event| event["name"].as_str().unwrap()).collect();
    insta::assert_snapshot!(marks.join("\n"), @"GARBLED: payload changed: it differs from somewhere in bytes 0 to 63 on");
}

#[test]
fn slices_of_a_track_nest_however_many_packets_there_are_at_once() {
    let events: Vec<_> = traffic(20).into_iter().map(|(event, _)| event).collect();
    let (mut packets, _) = stitched(&events);
    // All at the same time.
    let begin = packets[0].first_ns();
    for packet in &mut packets {
        let shift = packet.first_ns() - begin;
        for (at, step) in packet.steps.iter_mut().enumerate() {
            // Not in round numbers.
            step.event.time_ns = step.event.time_ns - shift + at as u64 * 17;
        }
        packet.branches.clear();
    }
    let events = trace(&packets);
    // As Perfetto takes times: whole nanoseconds, cut off.
    let ns = |event: &Value, key: &str| (event[key].as_f64().unwrap() * 1000.0) as u64;
    let mut tracks: BTreeMap<(u64, u64), Vec<(u64, u64)>> = BTreeMap::new();
    let mut flows: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for event in &events {
        let track = || (event["pid"].as_u64().unwrap(), event["tid"].as_u64().unwrap());
        match event["ph"].as_str().unwrap() {
            "X" => {
                let begin = ns(event, "ts");
                tracks.entry(track()).or_default().push((begin, begin + ns(event, "dur")));
            }
            ph @ ("s" | "t" | "f") => {
                flows.entry(event["id"].as_str().unwrap().to_owned()).or_default().push(ph.to_owned());
            }
            _ => {}
        }
    }
    for (track, slices) in tracks {
        let mut open: Vec<(u64, u64)> = Vec::new();
        for slice in slices {
            open.retain(|outer| outer.1 > slice.0);
            if let Some(outer) = open.last() {
                assert!(slice.0 >= outer.0 && slice.1 <= outer.1, "{track:?}: {slice:?} in {outer:?}");
            }
            open.push(slice);
        }
    }
    assert!(flows.len() >= 100, "{}", flows.len());
    for (id, phases) in flows {
        assert_eq!((phases[0].as_str(), phases[phases.len() - 1].as_str()), ("s", "f"), "{id}: {phases:?}");
        assert!(phases[1..phases.len() - 1].iter().all(|phase| phase == "t"), "{id}: {phases:?}");
    }
    let names: Vec<&Value> =
        events.iter().filter(|event| event["name"] == "thread_name").map(|event| &event["args"]["name"]).collect();
    assert!(
        names.iter().any(|name| *name == "calmveth1") && names.iter().any(|name| *name == "calmveth1 (2)"),
        "{names:?}"
    );
}

proptest! {
    #[test]
    fn times_are_the_same_nanoseconds_again(ns in prop_oneof![0u64..100_000, 0u64..1 << 51]) {
        prop_assert_eq!((micros(ns) * 1000.0) as u64, ns);
    }
}
