//! Queueing disciplines: what holds packets before a device sends them, and what it does to them meanwhile.

use std::io;

use super::{DELAY, DROP, DUPLICATE, Found, GARBLE, NOTHING, REORDER, place::Place};
use crate::{
    name::printable,
    survey::{Effects, Fact, Spot},
    topology::netlink::{RouteSocket, attributes, int, text},
    verdict::Cause,
};

// linux/rtnetlink.h, linux/pkt_sched.h
const RTM_NEWQDISC: u16 = 36;
const RTM_GETQDISC: u16 = 38;
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_TBF_PARMS: u16 = 1;
const TCA_NETEM_REORDER: u16 = 3;
const TCA_NETEM_CORRUPT: u16 = 4;
const TCA_NETEM_LOSS: u16 = 5;
const TCA_NETEM_RATE: u16 = 6;
const TCA_NETEM_LATENCY64: u16 = 10;
const TCA_NETEM_JITTER64: u16 = 11;
const TCA_NETEM_SLOT: u16 = 12;
/// Length of `struct tc_netem_qopt`, which netem's attributes come behind.
const NETEM: usize = 24;
/// A tick of the packet scheduler in nanoseconds (`PSCHED_SHIFT`), for kernels that say nothing finer.
const TICK: u64 = 64;
/// The parent of a device's outermost queueing discipline.
pub(super) const ROOT: u32 = 0xffff_ffff;

/// A queueing discipline.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Qdisc {
    pub(super) ifindex: u32,
    pub(super) handle: u32,
    pub(super) parent: u32,
    pub(super) kind: Vec<u8>,
    pub(super) options: Vec<u8>,
}

/// Those of the devices that matter.
pub(super) fn read(socket: &mut RouteSocket, place: &Place<'_>) -> io::Result<Vec<Qdisc>> {
    let mut qdiscs = socket.dump(RTM_GETQDISC, RTM_NEWQDISC, &[0; 20], parse)?; // struct tcmsg
    qdiscs.retain(|qdisc| place.matters(qdisc.ifindex));
    Ok(qdiscs)
}

fn parse(payload: &[u8]) -> Option<Qdisc> {
    let word = |at: usize| payload.get(at..at + 4).and_then(int);
    let find = |wanted| attributes(payload, 20).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    Some(Qdisc {
        ifindex: word(4)?,
        handle: word(8)?,
        parent: word(12)?,
        kind: text(find(TCA_KIND)?),
        options: find(TCA_OPTIONS).unwrap_or_default().to_vec(),
    })
}

/// What they do.
pub(super) fn facts(place: &Place<'_>, qdiscs: &[Qdisc], found: &mut Found) {
    found.facts.extend(qdiscs.iter().filter_map(|qdisc| fact(place, qdisc)));
}

/// `1:` or `1:10`, as tc writes it.
pub(super) fn handle(handle: u32) -> String {
    match handle & 0xffff {
        0 => format!("{:x}:", handle >> 16),
        minor => format!("{:x}:{minor:x}", handle >> 16),
    }
}

fn fact(place: &Place<'_>, qdisc: &Qdisc) -> Option<Fact> {
    let (does, effects) = match qdisc.kind.as_slice() {
        // No queue; places for filters, which speak for themselves; and what only holds others.
        b"noqueue" | b"clsact" | b"ingress" | b"mq" | b"mqprio" => return None,
        b"netem" => netem(&qdisc.options),
        b"tbf" => tbf(&qdisc.options),
        // Every queue holds what it cannot send yet, and drops when it is full.
        _ => (Vec::new(), DROP | DELAY),
    };
    let kind = printable(&qdisc.kind);
    let parent = if qdisc.parent == ROOT { "root".into() } else { format!("parent {}", handle(qdisc.parent)) };
    let does = if does.is_empty() { String::new() } else { format!(": {}", does.join(", ")) };
    let what = format!("qdisc {kind} {} {parent}{does}", handle(qdisc.handle));
    // One without a handle is the kernel's default: there is nothing to take away.
    let undo = place.word(qdisc.ifindex).filter(|_| qdisc.handle != 0);
    let undo = undo.map(|device| format!("tc qdisc del dev {device} {parent}"));
    Some(Fact { undo: place.undo(undo), ..place.fact(Cause::Qdisc, Some(qdisc.ifindex), Spot::Queue, effects, what) })
}

fn netem(options: &[u8]) -> (Vec<String>, Effects) {
    // struct tc_netem_qopt: latency, limit, loss, gap, duplicate, jitter
    let fixed = |index: usize| options.get(index * 4..index * 4 + 4).and_then(int).unwrap_or_default();
    let find = |wanted| attributes(options, NETEM).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    let time = |wanted, index| {
        let exact = find(wanted).and_then(|value| <[u8; 8]>::try_from(value).ok()).map(u64::from_ne_bytes);
        exact.unwrap_or_else(|| u64::from(fixed(index)) * TICK)
    };
    let chance = |wanted| find(wanted).and_then(|value| value.get(..4)).and_then(int).unwrap_or_default();
    let (mut does, mut effects) = (Vec::new(), NOTHING);
    let mut add = |text: String, what: Effects| {
        does.push(text);
        effects = effects | what;
    };
    let (delay, jitter) = (time(TCA_NETEM_LATENCY64, 0), time(TCA_NETEM_JITTER64, 5));
    if delay > 0 || jitter > 0 {
        let jitter_text = if jitter > 0 { format!(" ± {}", milliseconds(jitter)) } else { String::new() };
        // With a delay that varies, a later packet may be due earlier.
        let reorder = if jitter > 0 { REORDER } else { NOTHING };
        add(format!("delay {}{jitter_text}", milliseconds(delay)), DELAY | reorder);
    }
    if find(TCA_NETEM_RATE).and_then(|value| value.get(..4)).and_then(int).is_some_and(|rate| rate > 0) {
        add("rate".into(), DELAY | DROP);
    }
    if find(TCA_NETEM_SLOT).is_some_and(|slot| slot.iter().any(|byte| *byte != 0)) {
        add("slots".into(), DELAY);
    }
    if fixed(2) > 0 {
        add(format!("loss {}", percent(fixed(2))), DROP);
    } else if find(TCA_NETEM_LOSS).is_some_and(|model| !model.is_empty()) {
        add("loss by a model".into(), DROP);
    }
    if fixed(4) > 0 {
        add(format!("duplicate {}", percent(fixed(4))), DUPLICATE);
    }
    if chance(TCA_NETEM_REORDER) > 0 {
        add(format!("reorder {}", percent(chance(TCA_NETEM_REORDER))), REORDER);
    }
    if chance(TCA_NETEM_CORRUPT) > 0 {
        add(format!("corrupt {}", percent(chance(TCA_NETEM_CORRUPT))), GARBLE);
    }
    (does, effects)
}

fn tbf(options: &[u8]) -> (Vec<String>, Effects) {
    // struct tc_tbf_qopt: tc_ratespec rate (its last word is bytes per second), tc_ratespec peakrate, limit, buffer, mtu
    let parms = attributes(options, 0).find(|(kind, _)| *kind == TCA_TBF_PARMS).map(|(_, value)| value);
    let number = |at: usize| parms.and_then(|parms| parms.get(at..at + 4)).and_then(int).unwrap_or_default();
    let (rate, limit) = (u64::from(number(8)) * 8, number(24));
    (vec![format!("rate {} kbit/s", rate / 1000), format!("limit {limit} bytes")], DROP | DELAY)
}

fn milliseconds(ns: u64) -> String {
    format!("{} ms", (ns as f64 / 1e3).round() / 1e3)
}

/// A chance of netem's, of which `u32::MAX` is one.
fn percent(chance: u32) -> String {
    format!("{} %", (f64::from(chance) / f64::from(u32::MAX) * 1e5).round() / 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::survey::read::testkit::{PORT, attribute, with_place};

    fn netem_options(loss: u32, duplicate: u32, latency: u64, corrupt: u32) -> Vec<u8> {
        let mut options = [0, 1000, loss, 0, duplicate, 0].map(u32::to_ne_bytes).concat();
        options.extend(attribute(TCA_NETEM_LATENCY64, &latency.to_ne_bytes()));
        options.extend(attribute(TCA_NETEM_CORRUPT, &[corrupt.to_ne_bytes(), [0; 4]].concat()));
        options
    }

    fn qdisc(kind: &[u8], handle: u32, options: Vec<u8>) -> Qdisc {
        Qdisc { ifindex: PORT, handle, parent: ROOT, kind: kind.to_vec(), options }
    }

    #[test]
    fn netem_says_each_thing_that_it_does() {
        let options = netem_options(u32::MAX / 10 * 3, 0, 300_000_000, u32::MAX / 2);
        with_place("veth0", |place| {
            let fact = fact(place, &qdisc(b"netem", 0x8001_0000, options)).unwrap();
            assert_eq!(fact.what, "qdisc netem 8001: root: delay 300 ms, loss 30 %, corrupt 50 %");
            assert_eq!(fact.effects, DELAY | DROP | GARBLE);
            assert_eq!(fact.undo.as_deref(), Some("ip netns exec blue tc qdisc del dev veth0 root"));
        });
        assert_eq!(netem(&netem_options(0, u32::MAX, 0, 0)), (vec!["duplicate 100 %".into()], DUPLICATE));
        assert_eq!(netem(&[]), (Vec::new(), NOTHING));
    }

    #[test]
    fn a_bucket_says_how_fast_and_how_long_and_no_queue_says_nothing() {
        let mut parms = vec![0; 36];
        parms[8..12].copy_from_slice(&32_000u32.to_ne_bytes());
        parms[24..28].copy_from_slice(&3072u32.to_ne_bytes());
        with_place("veth0", |place| {
            let fact = fact(place, &qdisc(b"tbf", 0x1_0000, attribute(TCA_TBF_PARMS, &parms))).unwrap();
            assert_eq!(fact.what, "qdisc tbf 1: root: rate 256 kbit/s, limit 3072 bytes");
            assert_eq!(fact.effects, DROP | DELAY);
        });
        with_place("veth0", |place| assert_eq!(fact(place, &qdisc(b"noqueue", 0, Vec::new())), None));
    }
}
