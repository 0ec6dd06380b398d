//! A trace for Perfetto and chrome://tracing: JSON of the Trace Event Format. A namespace is a process, a device is a track in
//! it, a packet's stay at a device is a slice with its hops inside, and a flow leads from stay to stay.
//!
//! Slices of one track must nest, and packets at a device do not: where they overlap, the device has further tracks of its name.
//! That is known only when all stays are, so they are kept, and written in the order of time.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};
use skbtrace_common::DeviceKey;

use super::visits::{Visit, visits};
use crate::render::headline::{headline, last_words, status};
use crate::render::payload::mark;
use crate::render::row::{device_name, within};
use crate::render::{Names, json::status as verdict_name};
use crate::trace::{Outcome, Packet, Step};
use crate::verdict::{Changes, Payload};

/// Number of the process for what no device is known of.
const NOWHERE: (u32, u32) = (0, 0);

/// Gathers a recording for a trace viewer.
#[derive(Debug, Default)]
pub struct Perfetto {
    stays: Vec<Stay>,
    netns: BTreeMap<u32, String>,
    devices: BTreeMap<(u32, u32), String>,
    notes: Vec<String>,
}

/// A track: one of those that a device has.
type Track = ((u32, u32), usize);

/// A stay of a packet at a device.
#[derive(Debug)]
struct Stay {
    device: (u32, u32),
    begin_ns: u64,
    end_ns: u64,
    title: String,
    args: Value,
    hops: Vec<Slice>,
    /// What happened there, and when.
    marks: Vec<(String, u64)>,
    /// The flow, and whether this is its first and its last stay.
    flow: (String, bool, bool),
}

/// A hop of a stay.
#[derive(Debug)]
struct Slice {
    name: String,
    begin_ns: u64,
    end_ns: u64,
    args: Value,
}

/// An event of the format. Times are microseconds.
#[derive(Debug, Serialize)]
struct Event<'a> {
    name: &'a str,
    cat: &'static str,
    ph: &'static str,
    ts: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    dur: Option<f64>,
    pid: usize,
    tid: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    /// A flow ends in the slice that encloses it; a mark is one of its track.
    #[serde(skip_serializing_if = "Option::is_none")]
    bp: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    s: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    args: Option<&'a Value>,
}

impl Perfetto {
    /// A packet; one without a number is not for display, and passed over.
    pub fn packet(&mut self, packet: &Packet, payload: &Payload, names: &dyn Names) {
        let Some(number) = packet.number else { return };
        let changes = if let Payload::Garbled(changes) = payload { Some(changes) } else { None };
        self.life(number, format!("#{number}"), packet, changes, names);
    }

    /// Something that was said to the person at the run, or is wrong with the recording.
    pub fn note(&mut self, text: &str) {
        self.notes.push(text.to_owned());
    }

    fn life(&mut self, number: u64, flow: String, packet: &Packet, changes: Option<&Changes>, names: &dyn Names) {
        let title = format!("#{number} {}", headline(packet));
        let end = (status(packet, names), packet.last_ns());
        let stays = visits(packet);
        let last = stays.len().saturating_sub(1);
        for (place, visit) in stays.iter().enumerate() {
            let end_ns = stays.get(place + 1).map_or(end.1, Visit::begin_ns);
            let steps: Vec<&Step> = visit.steps().collect();
            let until = steps.iter().skip(1).map(|step| step.event.time_ns).chain([end_ns]);
            let hops = steps.iter().zip(until).map(|(step, until)| slice(step, until, names)).collect();
            let mut marks: Vec<(String, u64)> = Vec::new();
            for change in changes.into_iter().flat_map(Changes::all) {
                let here = |step: &&&Step| (change.after.packet, change.after.step) == (packet.id, step.event.step);
                let what = || format!("GARBLED: {}", mark(change).trim_start_matches("◀ "));
                marks.extend(steps.iter().find(here).map(|step| (what(), step.event.time_ns)));
            }
            if place == last && !matches!(packet.outcome, Outcome::Delivered { .. }) {
                let words = last_words(packet, names);
                marks.push((if words.is_empty() { end.0.clone() } else { words }, end.1));
            }
            let args = json!({"packet": number, "outcome": end.0, "verdict": verdict_name(packet.verdict())});
            let device = self.device(visit, names);
            self.stays.push(Stay {
                device,
                begin_ns: visit.begin_ns(),
                end_ns: end_ns.max(visit.begin_ns()),
                title: title.clone(),
                args,
                hops,
                marks,
                flow: (flow.clone(), place == 0, place == last),
            });
        }
        for branch in &packet.branches {
            // A flow of its own: it does not end where another one does.
            let flow = format!("#{number} {:#x}", branch.packet.id);
            self.life(number, flow, &branch.packet, changes, names);
        }
    }

    fn device(&mut self, visit: &Visit<'_>, names: &dyn Names) -> (u32, u32) {
        let Some(device) = visit.device else {
            self.netns.entry(NOWHERE.0).or_insert_with(|| "no device known".to_owned());
            self.devices.entry(NOWHERE).or_insert_with(|| "no device known".to_owned());
            return NOWHERE;
        };
        let DeviceKey { netns, ifindex } = device.key;
        self.netns.entry(netns).or_insert_with(|| names.netns(netns));
        self.devices.entry((netns, ifindex)).or_insert_with(|| device_name(&device.name, ifindex));
        (netns, ifindex)
    }

    /// How many stays there are.
    #[must_use]
    pub fn stays(&self) -> usize {
        self.stays.len()
    }

    /// The trace. Times are those of the traced kernel's CLOCK_MONOTONIC, less that of the first event.
    ///
    /// # Errors
    /// When it cannot be written as JSON, which would be a defect.
    pub fn finish(mut self) -> serde_json::Result<String> {
        self.stays.sort_by_key(|stay| stay.begin_ns);
        let begin_ns = self.stays.first().map_or(0, |stay| stay.begin_ns);
        let (tracks, tids) = tracks(&self.stays);
        let pids: BTreeMap<u32, usize> =
            self.netns.keys().enumerate().map(|(place, inum)| (*inum, place + 1)).collect();
        let pid = |netns: u32| pids.get(&netns).copied().unwrap_or(0);
        let mut events: Vec<Value> = Vec::new();
        for (inum, name) in &self.netns {
            events.push(json!({"name": "process_name", "ph": "M", "pid": pid(*inum), "args": {"name": name}}));
        }
        for ((device, row), tid) in &tids {
            let name = self.devices.get(device).map_or("", String::as_str);
            let name = if *row == 0 { name.to_owned() } else { format!("{name} ({})", row + 1) };
            let of = |what: &str, args: Value| json!({"name": what, "ph": "M", "pid": pid(device.0), "tid": tid, "args": args});
            events.push(of("thread_name", json!({ "name": name })));
            events.push(of("thread_sort_index", json!({ "sort_index": tid })));
        }
        let at = |ns: u64| micros(ns.saturating_sub(begin_ns));
        for (stay, row) in self.stays.iter().zip(&tracks) {
            let tid = tids.get(&(stay.device, *row)).copied().unwrap_or(0);
            let event = |name, ph, ns| Event {
                name,
                cat: "packet",
                ph,
                ts: at(ns),
                dur: None,
                pid: pid(stay.device.0),
                tid,
                id: None,
                bp: None,
                s: None,
                args: None,
            };
            let slice = |name, args, from: u64, to: u64| Event {
                dur: Some(micros(to.saturating_sub(from))),
                args: Some(args),
                ..event(name, "X", from)
            };
            let mut all = vec![slice(stay.title.as_str(), &stay.args, stay.begin_ns, stay.end_ns)];
            all.extend(stay.hops.iter().map(|hop| slice(&hop.name, &hop.args, hop.begin_ns, hop.end_ns)));
            let (flow, first, last) = &stay.flow;
            if !(*first && *last) {
                let ph = if *first {
                    "s"
                } else if *last {
                    "f"
                } else {
                    "t"
                };
                all.push(Event { id: Some(flow.as_str()), bp: Some("e"), ..event("packet", ph, stay.begin_ns) });
            }
            all.extend(stay.marks.iter().map(|(what, ns)| Event { s: Some("t"), ..event(what.as_str(), "i", *ns) }));
            for event in &all {
                events.push(serde_json::to_value(event)?);
            }
        }
        serde_json::to_string(&json!({
            "displayTimeUnit": "ns",
            "otherData": {"tool": concat!("skbtrace ", env!("CARGO_PKG_VERSION")), "notes": self.notes},
            "traceEvents": events,
        }))
    }
}

/// Microseconds that are the same nanoseconds again when what is less than one is cut off, as Perfetto does: else a slice could
/// begin before that in front of it ends.
pub(super) fn micros(ns: u64) -> f64 {
    let micros = ns as f64 / 1000.0;
    if ((micros * 1000.0) as u64) < ns { micros.next_up() } else { micros }
}

fn slice(step: &Step, until_ns: u64, names: &dyn Names) -> Slice {
    let mut name = step.hop.name().to_owned();
    if let Some(within) = within(step, names) {
        name.push_str(&format!(" ({within})"));
    }
    let mut args = json!({"len": step.event.len, "cpu": step.event.cpu});
    if let Some(second) = step.second_device() {
        args["to"] = device_name(&step.event.dev2, second.ifindex).into();
    }
    if step.missing > 0 {
        args["events lost before"] = step.missing.into();
    }
    let begin_ns = step.event.time_ns;
    Slice { name, begin_ns, end_ns: until_ns.max(begin_ns), args }
}

/// On which of its device's tracks each stay is, and the number of every track. The stays are in the order of time.
fn tracks(stays: &[Stay]) -> (Vec<usize>, BTreeMap<Track, usize>) {
    let mut busy: BTreeMap<(u32, u32), Vec<u64>> = BTreeMap::new();
    let mut rows = Vec::with_capacity(stays.len());
    for stay in stays {
        let until = busy.entry(stay.device).or_default();
        let row = until.iter().position(|until| *until <= stay.begin_ns).unwrap_or(until.len());
        match until.get_mut(row) {
            Some(until) => *until = stay.end_ns,
            None => until.push(stay.end_ns),
        }
        rows.push(row);
    }
    let all = busy.iter().flat_map(|(device, until)| (0..until.len()).map(|row| (*device, row)));
    let tids = all.enumerate().map(|(place, track)| (track, place + 1)).collect();
    (rows, tids)
}
