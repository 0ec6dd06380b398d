//! What the tracer said, beside what it should have said.
//!
//! A fault is found when a finding has its class, its cause and its device, and a pair of hops within the span that the row
//! names: the tracer may know more hops than the row. Where its backend has fewer, `enclose` says which place is right, and
//! where none could be, the row says why: then it must not be found. Whatever else it finds is wrong, but for a drop that
//! follows from the fault: of a packet that a checksum then refuses, for one.

use std::io;

use serde::Serialize;
use serde_json::Value;

use super::{
    beside::{Flowed, PORT},
    enclose::Way,
};
use crate::lab::fault::{Cause, Class, Error, Span, Verdict};

/// Functions that stand in for others on newer kernels: the rows name the older ones.
const RENAMED: [(&str, &str); 1] = [("gro_receive_skb", "napi_gro_receive")];

/// The name that the rows know a hop by.
fn known(name: &str) -> &str {
    RENAMED.iter().find(|(new, _)| *new == name).map_or(name, |(_, old)| old)
}

/// A finding of the tracer's, as its JSON has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Found {
    /// Class.
    pub class: String,
    /// The hop before.
    pub from: Option<String>,
    /// The hop after.
    pub to: Option<String>,
    /// Name of the device.
    pub device: String,
    /// Cause.
    pub cause: String,
    /// Packets.
    pub count: u64,
    /// The kernel's reasons for a drop.
    pub reasons: Vec<String>,
}

/// What is wrong with what was said, if anything.
#[derive(Debug, Default, Serialize)]
pub struct Judgement {
    /// What was found.
    pub found: Vec<Found>,
    /// Sentences.
    pub wrong: Vec<String>,
    /// Of each finding that should not be, the first packet that it names; and behind them, if there are any, the books.
    pub witnesses: Vec<Value>,
}

impl Found {
    fn of(finding: &Value) -> Found {
        let text = |key: &str| finding[key].as_str().map(str::to_owned);
        let reasons = finding["reasons"].as_array().into_iter().flatten();
        Found {
            class: text("class").unwrap_or_default(),
            from: text("from"),
            to: text("to"),
            device: text("device").unwrap_or_default(),
            cause: text("cause").unwrap_or_default(),
            count: finding["count"].as_u64().unwrap_or_default(),
            reasons: reasons.filter_map(|reason| reason.as_str().map(str::to_owned)).collect(),
        }
    }

    /// In words, as the rows of the gallery are: `garbled between a and b at device (cause)`.
    #[must_use]
    pub fn line(&self) -> String {
        let Found { class, from, to, device, cause, count, reasons } = self;
        let span = match (from, to) {
            (Some(from), Some(to)) => format!("between {from} and {to}"),
            (Some(at), None) | (None, Some(at)) => format!("at {at}"),
            (None, None) => "before the first hop".to_owned(),
        };
        let why = if reasons.is_empty() { String::new() } else { format!(", {}", reasons.join(" ")) };
        format!("{count} {class} {span} at {device} ({cause}{why})")
    }

    /// Whether it says what is expected, at a place on this path.
    fn is(&self, expected: &Verdict, path: &[&Value], way: &Way) -> bool {
        let place = if way.has(expected.span) {
            self.device == expected.device && self.is_at(expected.span, path)
        } else {
            way.encloses(self, expected, path)
        };
        place && self.has_cause(expected.cause) && self.class == expected.class.name()
    }

    /// Whether it lies within the span, where the backend has the hops that this names.
    fn is_at(&self, span: Span, path: &[&Value]) -> bool {
        // A hop may stand on the way more than once: the device tells which of them it is.
        let names: Vec<&str> = path.iter().filter_map(|hop| hop["hop"].as_str().map(known)).collect();
        let all = |hop: Option<&str>| -> Vec<usize> {
            (0..names.len()).filter(|at| Some(names[*at]) == hop.map(known)).collect()
        };
        let (from, to) = (all(self.from.as_deref()), all(self.to.as_deref()));
        match span {
            Span::Unseen => self.from.is_none(),
            Span::At(hop) => all(Some(hop.name())).first().is_some_and(|hop| from.iter().any(|from| from >= hop)),
            Span::Between(first, last) => match (all(Some(first.name())).first(), all(Some(last.name())).last()) {
                (Some(first), Some(last)) => {
                    let ends = |from: &usize| to.iter().any(|to| from < to && to <= last);
                    from.iter().any(|from| first <= from && ends(from))
                }
                _ => false,
            },
        }
    }

    fn has_cause(&self, cause: Cause) -> bool {
        serde_json::to_value(cause).is_ok_and(|cause| cause == self.cause.as_str())
    }

    /// Whether it follows from a fault that has been found: a packet that was changed is refused, one that waits in a queue for
    /// the fault to befall it is late, a sender that writes when it likes garbles in more than one place, and whoever cannot be
    /// reached through the bridge is forgotten in the end.
    fn follows_from(&self, expected: &Verdict) -> bool {
        if expected.cause == Cause::Bridge && self.reasons == ["NEIGH_FAILED"] {
            return true;
        }
        if expected.held && self.class == Class::Delayed.name() {
            return true;
        }
        if expected.cause == Cause::Sender && self.class == expected.class.name() {
            return self.has_cause(Cause::Sender);
        }
        let reasons = expected.reasons;
        let named = !reasons.is_empty() && self.reasons.iter().all(|reason| reasons.contains(&reason.as_str()));
        self.class == Class::Dropped.name() && expected.class != Class::Dropped && named
    }
}

/// Compares. `output` is what `skbtrace run --json` printed.
pub(super) fn judge(expected: &[(&str, Verdict)], way: &Way, clean: &Flowed, output: &str) -> Result<Judgement, Error> {
    let lines: Result<Vec<Value>, _> = output.lines().map(serde_json::from_str).collect();
    let lines = lines.map_err(|error| unreadable(&error.to_string()))?;
    let Some((summary, packets)) = lines.split_last() else { return Err(unreadable("it is empty")) };
    let findings: Vec<&Value> = summary["findings"].as_array().into_iter().flatten().collect();
    let mut judgement =
        Judgement { found: findings.iter().map(|one| Found::of(one)).collect(), ..Judgement::default() };
    let mut explained = vec![false; findings.len()];
    for (name, verdict) in expected {
        let mut matched = false;
        for ((finding, found), explained) in findings.iter().zip(&judgement.found).zip(&mut explained) {
            if found.is(verdict, &path(finding, packets), way) {
                (matched, *explained) = (true, true);
            }
            *explained |= found.follows_from(verdict);
        }
        match (verdict.beyond(way.backend()), matched) {
            (None, false) => judgement.wrong.push(format!("{name} is not found")),
            (Some(reason), true) => judgement.wrong.push(format!("{name} is found, and cannot be: {reason}")),
            _ => {}
        }
    }
    for ((finding, found), _) in
        findings.iter().zip(&judgement.found).zip(&explained).filter(|(_, explained)| !**explained)
    {
        judgement.wrong.push(format!("found too: {}", found.line()));
        judgement.witnesses.extend(first_packet(finding, packets).cloned());
    }
    if !judgement.witnesses.is_empty() {
        judgement.witnesses.push(summary.clone());
    }
    let blamed = packets.iter().filter(|packet| is_blamed(packet) && is_intact(packet, clean)).count();
    if blamed > 0 {
        judgement.wrong.push(format!("{blamed} packets that arrived intact are blamed"));
    }
    Ok(judgement)
}

/// The hops of the first packet that a finding names, and of its branches.
fn path<'a>(finding: &Value, packets: &'a [Value]) -> Vec<&'a Value> {
    fn hops<'a>(packet: &'a Value, into: &mut Vec<&'a Value>) {
        into.extend(packet["hops"].as_array().into_iter().flatten());
        packet["branches"].as_array().into_iter().flatten().for_each(|branch| hops(branch, into));
    }
    let mut path = Vec::new();
    if let Some(packet) = first_packet(finding, packets) {
        hops(packet, &mut path);
    }
    path
}

/// The first packet that a finding names.
fn first_packet<'a>(finding: &Value, packets: &'a [Value]) -> Option<&'a Value> {
    let number = finding["packets"].get(0)?;
    packets.iter().find(|packet| packet.get("number") == Some(number))
}

fn is_blamed(packet: &Value) -> bool {
    packet["payload"]["verdict"] == "garbled" || packet["verdict"] == "dropped"
}

fn is_intact(packet: &Value, clean: &Flowed) -> bool {
    let port = |key: &str| packet["flow"][key].as_u64().and_then(|port| u16::try_from(port).ok());
    port("dport") == Some(PORT) && port("sport").is_some_and(|port| clean.intact.contains(&port))
}

fn unreadable(why: &str) -> Error {
    Error::Show { doing: "read what the tracer said".to_owned(), answer: io::Error::other(why.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        hops::Backend,
        lab::{Scenario, fault::find},
    };

    fn output(findings: &str, packets: &[&str]) -> String {
        format!("{}\n{{\"type\":\"summary\",\"findings\":[{findings}]}}\n", packets.join("\n"))
    }

    fn way() -> Way {
        Way::new(Scenario::Bridge.layout(), Backend::Kprobe)
    }

    fn wrong(fault: &str, findings: &str) -> Vec<String> {
        wrong_on(
            fault,
            &["ip_output", "__dev_queue_xmit", "net_dev_start_xmit", "veth_xmit", "enqueue_to_backlog"],
            findings,
        )
    }

    /// What is wrong with these findings of a packet with these hops.
    fn wrong_on(fault: &str, hops: &[&str], findings: &str) -> Vec<String> {
        let hops: Vec<_> = hops.iter().map(|hop| format!("{{\"hop\":\"{hop}\"}}")).collect();
        let packet =
            format!("{{\"type\":\"packet\",\"number\":1,\"verdict\":\"delivered\",\"hops\":[{}]}}", hops.join(","));
        let verdict = find(fault).unwrap().verdict;
        judge(&[(fault, verdict)], &way(), &Flowed::default(), &output(findings, &[&packet])).unwrap().wrong
    }

    /// What is wrong with this pair of hops as the place of a fault that was found.
    fn wrong_between(fault: &str, pair: [&str; 2], hops: &[&str]) -> Vec<String> {
        let verdict = find(fault).unwrap().verdict;
        let (class, device) = (verdict.class.name(), verdict.device);
        let cause = serde_json::to_string(&verdict.cause).unwrap();
        let finding = format!(
            r#"{{"class":"{class}","from":"{}","to":"{}","device":"{device}","cause":{cause},"count":3,"reasons":[],"packets":[1]}}"#,
            pair[0], pair[1]
        );
        wrong_on(fault, hops, &finding)
    }

    #[test]
    fn a_row_is_found_by_the_hops_that_the_kernel_has_under_whatever_names() {
        let xdp = |pair, hops: &[&str]| wrong_between("xdp-receiver", pair, hops);
        let new = ["veth_xmit", "__dev_forward_skb", "veth_xdp_rcv_skb", "gro_receive_skb", "ip_rcv"];
        assert_eq!(xdp(["veth_xdp_rcv_skb", "gro_receive_skb"], &new), Vec::<String>::new());
        let old = ["veth_xmit", "__dev_forward_skb", "napi_gro_receive", "ip_rcv"];
        assert_eq!(xdp(["__dev_forward_skb", "napi_gro_receive"], &old), Vec::<String>::new());
        assert_eq!(xdp(["napi_gro_receive", "ip_rcv"], &old)[0], "xdp-receiver is not found");
    }

    const RIGHT: &str = r#"{"class":"garbled","from":"__dev_queue_xmit","to":"net_dev_start_xmit",
        "device":"calmveth1_peer","cause":"tc_filter","count":3,"reasons":[],"packets":[1]}"#;

    #[test]
    fn a_pair_within_the_span_is_right() {
        let right = RIGHT.replace('\n', "");
        assert_eq!(wrong("pedit-port-egress", &right), Vec::<String>::new());
    }

    #[test]
    fn each_part_of_a_finding_counts() {
        let right = RIGHT.replace('\n', "");
        let changes = [("garbled", "dropped"), ("__dev_queue_xmit", "ip_output"), ("_peer", ""), ("tc_filter", "xdp")];
        for (old, new) in changes {
            let wrong = wrong("pedit-port-egress", &right.replace(old, new));
            assert_eq!(wrong[0], "pedit-port-egress is not found", "{new}");
            assert!(wrong[1].starts_with("found too: 3 "), "{wrong:?}");
        }
    }

    #[test]
    fn what_arrived_intact_is_not_to_be_blamed() {
        let packet = |port, verdict| {
            format!(
                r#"{{"type":"packet","number":1,"verdict":"{verdict}","flow":{{"sport":{port},"dport":8999}},"hops":[]}}"#
            )
        };
        let clean = Flowed { sent: 2, intact: vec![20_000] };
        let wrong =
            |port, verdict| judge(&[], &way(), &clean, &output("", &[&packet(port, verdict)])).unwrap().wrong.len();
        assert_eq!((wrong(20_000, "dropped"), wrong(20_000, "delivered"), wrong(20_001, "dropped")), (1, 0, 0));
    }
}
