//! From a finding and what is known of the host to its cause and to advice.
//!
//! One table says for every kind of end where to look and what it means when nothing is found there; for payloads, waits,
//! doubles and orders the spots between the two hops are where to look. A fact of the survey is a cause only if it stands in
//! the finding's place and can do what was seen. If several do, all are named: which of them it was, nobody has seen.

mod ends;
mod places;
mod table;

use super::digest::Place;
use super::finding::{Detail, Device, Finding};
use super::late::enters_queue;
use super::signs::{Sign, owner};
use super::spots::{Point, between, of_hook};
use super::words::{Cause, Class, Span};
use crate::name::printable;
use crate::survey::{Effects, Fact, Spot, Survey};
use table::{Reach, Row};

/// So many facts are named where several fit.
const NAMED: usize = 4;

/// What a program that sends from a ring is to do.
const GIVEN_BACK: &str =
    "the sending program must leave a frame of its ring alone until the kernel has given it back (TP_STATUS_AVAILABLE)";

/// A finding with its cause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    /// What was found.
    pub finding: Finding,
    /// What kind of thing did it.
    pub cause: Cause,
    /// The cause in words.
    pub because: String,
    /// What that rests on, a sentence each.
    pub evidence: Vec<String>,
    /// What to do about it, mostly a command each.
    pub advice: Vec<String>,
}

/// What the rules need to know of a host beside the survey. What it hands out is safe to print.
pub trait Host {
    /// Name of the network namespace with this number.
    fn netns(&self, inum: u32) -> String;

    /// A duration in words.
    fn duration(&self, ns: u64) -> String;
}

/// What a finding comes from. Without a survey nothing is known of the host but what the packets tell.
#[must_use]
pub fn explain(finding: Finding, survey: Option<&Survey>, host: &dyn Host) -> Explained {
    let mut evidence = seen(&finding, host);
    let row = table::row(&finding, survey.is_some());
    let mut facts = survey.map_or_else(Vec::new, |survey| fitting(&finding, &row, survey));
    let mut advice: Vec<String> = Vec::new();
    if let (true, Some(survey)) = (facts.is_empty() && row.cause == Cause::Sender, survey) {
        facts = lenders(&finding, survey);
        advice.extend((!facts.is_empty()).then(|| GIVEN_BACK.to_owned()));
    }
    let (because, cause) = match facts[..] {
        [] => (unfounded(&finding, &row, survey), row.cause),
        [fact] => (format!("{}{}", fact.what, on(fact, &finding, host)), row.cause_of(fact)),
        [first, ..] => {
            let named: Vec<String> =
                facts.iter().take(NAMED).map(|fact| format!("{}{}", fact.what, on(fact, &finding, host))).collect();
            let more = facts.len().saturating_sub(NAMED);
            let more = if more > 0 { format!("; {more} more") } else { String::new() };
            (format!("one of: {}{more}", named.join("; ")), row.cause_of(first))
        }
    };
    // What the row says for want of a fact is no evidence when a fact says otherwise.
    if !facts.is_empty() && cause == row.cause {
        evidence.push(row.because.to_owned());
    }
    evidence.extend(survey.into_iter().flat_map(|survey| settings(&finding, &row, survey, host)));
    if facts.is_empty()
        && let Some(survey) = survey
    {
        evidence.extend(writer_on_the_way(&finding, survey, host));
        evidence.extend(survey.unseen.iter().map(|unseen| format!("not looked at: {unseen}")));
    }
    for undo in facts.iter().take(NAMED).filter_map(|fact| fact.undo.as_ref()) {
        if !advice.contains(undo) {
            advice.push(undo.clone());
        }
    }
    if advice.is_empty() {
        let device = finding.device.map_or_else(|| "DEVICE".to_owned(), |device| printable(&device.name));
        advice.push(row.advice.replace("DEVICE", &device));
    }
    Explained { finding, cause, because, evidence, advice }
}

/// What is broken may break a header: who writes into packets on the way is told of where packets are refused.
fn writer_on_the_way(finding: &Finding, survey: &Survey, host: &dyn Host) -> Option<String> {
    let passed = |fact: &&Fact| fact.device().is_some_and(|key| finding.way.iter().any(|device| device.key == key));
    let writes = |fact: &&Fact| fact.effects.garble && fact.cause != Cause::Sender;
    let writer = survey.facts.iter().filter(writes).find(passed)?;
    let writer = format!("{}{}", writer.what, on(writer, finding, host));
    (finding.class == Class::Dropped)
        .then(|| format!("on the way something writes into packets, headers perhaps too: {writer}"))
}

/// Who has lent the kernel the pages that such packets lie in: a packet socket with a ring, where one sent them.
fn lenders<'a>(finding: &Finding, survey: &'a Survey) -> Vec<&'a Fact> {
    let (Detail::Garbled { raw: true, .. }, Some(first)) = (&finding.detail, finding.way.first()) else {
        return Vec::new();
    };
    // One that is bound to no device says of each packet which is meant.
    let lends = |fact: &&Fact| match fact.device() {
        Some(device) => device == first.key,
        None => fact.netns == first.key.netns,
    };
    survey.facts.iter().filter(|fact| fact.cause == Cause::Sender && fact.effects.garble).filter(lends).collect()
}

/// Settings of the devices that the packets came by which do nothing to them, and have to do with what was seen.
fn settings<'a>(
    finding: &'a Finding,
    row: &'a Row,
    survey: &'a Survey,
    host: &'a dyn Host,
) -> impl Iterator<Item = String> + 'a {
    let passed = |fact: &&Fact| {
        let mut devices = finding.way.iter().chain(&finding.device).chain(&finding.toward);
        fact.device().is_some_and(|key| devices.any(|device| device.key == key))
    };
    let about = |fact: &&Fact| row.settings.iter().any(|name| fact.what.starts_with(name));
    let harmless = |fact: &&Fact| fact.cause == Cause::Device && fact.effects == Effects::default();
    let facts = survey.facts.iter().filter(harmless).filter(about).filter(passed).take(NAMED);
    facts.map(|fact| format!("{}{}", fact.what, on(fact, finding, host)))
}

/// The words for when nothing that is known of the host fits.
fn unfounded(finding: &Finding, row: &Row, survey: Option<&Survey>) -> String {
    if row.speaks_for_itself {
        return row.because.to_owned();
    }
    let looked = match (survey, finding.class) {
        (None, _) => "the host was not looked at",
        (_, Class::Garbled) => "nothing that writes there was found",
        (_, Class::Dropped) => "nothing that drops there was found",
        (_, Class::Delayed) => "nothing that holds packets there was found",
        (_, Class::Duplicated) => "nothing that doubles packets there was found",
        (_, Class::Reordered) => "nothing that reorders packets there was found",
    };
    format!("{} ({looked})", row.because)
}

/// Where a fact is, to be read after what it is.
fn on(fact: &Fact, finding: &Finding, host: &dyn Host) -> String {
    let place = match (fact.device(), finding.device) {
        (Some(key), _) => {
            let known = finding.way.iter().chain(&finding.device).chain(&finding.toward);
            match known.into_iter().find(|device| device.key == key) {
                // It may have said so itself.
                Some(device) if fact.what.contains(&printable(&device.name)) => return String::new(),
                Some(device) => label(device, host),
                None => label_of(&host.netns(key.netns), &format!("if{}", key.ifindex)),
            }
        }
        (None, Some(device)) if device.key.netns == fact.netns && host.netns(fact.netns) == "init" => {
            return String::new();
        }
        (None, _) => return format!(", in {}", host.netns(fact.netns)),
    };
    format!(", on {place}")
}

/// A device, with its namespace where that is not the first.
#[must_use]
pub fn label(device: &Device, host: &dyn Host) -> String {
    label_of(&host.netns(device.key.netns), &printable(&device.name))
}

fn label_of(netns: &str, device: &str) -> String {
    if netns == "init" { device.to_owned() } else { format!("{netns}/{device}") }
}

/// The facts that stand in the finding's place and can do what was seen, the most specific ones first.
fn fitting<'a>(finding: &Finding, row: &Row, survey: &'a Survey) -> Vec<&'a Fact> {
    let netns = finding.device.map(|device| device.key.netns);
    let devices = finding.way.iter().chain(&finding.device).chain(&finding.toward);
    let way: Vec<_> = devices.map(|device| device.key).collect();
    let is_here = |fact: &Fact| match row.reach {
        Reach::Device => match (fact.device(), finding.device) {
            (Some(there), Some(here)) => there == here.key,
            (None, _) => Some(fact.netns) == netns,
            (Some(_), None) => false,
        },
        Reach::Netns => Some(fact.netns) == netns || finding.device.is_none(),
        Reach::Way => match fact.device() {
            Some(there) => way.contains(&there),
            None => way.iter().any(|device| device.netns == fact.netns),
        },
        Reach::Anywhere => true,
    };
    let mut facts: Vec<(bool, usize, &Fact)> = survey
        .facts
        .iter()
        .filter(|fact| row.causes.is_empty() || row.causes.contains(&fact.cause))
        .filter(|fact| row.words.is_empty() || row.words.iter().any(|word| fact.what.contains(word)))
        .filter(|fact| can(&fact.effects, finding.class, row.writes) && is_here(fact))
        // What a program may write to is its own packets: see `lenders`.
        .filter(|fact| fact.cause != Cause::Sender)
        .filter_map(|fact| {
            let spot = row.spots.iter().position(|spot| *spot == fact.spot);
            let spot = if row.spots.is_empty() { Some(0) } else { spot }?;
            // A fact of this very device says more than one of the whole namespace, and that of the first spot most.
            let elsewhere = fact.device().is_none_or(|there| finding.device.is_none_or(|here| here.key != there));
            Some((elsewhere, spot, fact))
        })
        .collect();
    facts.sort_by_key(|(elsewhere, spot, _)| (*elsewhere, *spot));
    facts.into_iter().map(|(.., fact)| fact).collect()
}

fn can(effects: &Effects, class: Class, writes: bool) -> bool {
    match class {
        _ if writes => effects.garble || effects.rewrite,
        Class::Garbled => effects.garble,
        Class::Dropped => effects.drop,
        Class::Delayed => effects.delay,
        Class::Duplicated => effects.duplicate,
        Class::Reordered => effects.reorder,
    }
}

/// The spots that stand in a finding's place.
fn spots(finding: &Finding) -> Vec<Spot> {
    match finding.span {
        Span::Between(from, to) => {
            between(Point { hop: from, hook: finding.hook }, Point { hop: to, hook: finding.next_hook })
        }
        Span::At(hop) if enters_queue(hop) && finding.class == Class::Delayed => vec![Spot::Queue],
        Span::At(_) | Span::Unseen => finding.hook.and_then(of_hook).into_iter().collect(),
    }
}

/// What was seen, in words.
fn seen(finding: &Finding, host: &dyn Host) -> Vec<String> {
    let mut evidence = Vec::new();
    match (&finding.detail, finding.span) {
        (Detail::Garbled { place, paged, .. }, Span::Between(from, to)) => {
            let place = match place {
                Some(Place::Byte { offset, difference }) => {
                    format!(": 1 byte differs, offset {offset} ({difference:+})")
                }
                Some(Place::Range { from, to }) => {
                    format!(": it differs from somewhere in bytes {from} to {} on", to.saturating_sub(1))
                }
                None => String::new(),
            };
            evidence.push(format!(
                "in #{} the payload was whole at {} and changed at {}{place}",
                finding.numbers.first().copied().unwrap_or(finding.last),
                from.name(),
                to.name()
            ));
            if *paged {
                evidence.push("the payload lies in pages, which somebody else may hold too".to_owned());
            }
        }
        (Detail::Dropped { reason, location, sign, silent, held_ns }, span) => {
            evidence.push(match (reason, location) {
                (Some(reason), Some(location)) => format!("the kernel's reason is {reason}, given in {location}"),
                (Some(reason), None) => format!("the kernel's reason is {reason}"),
                (None, _) if *silent => {
                    "the packet ended there as if it had been used up, and nothing came of it".to_owned()
                }
                (None, Some(location)) => format!("the kernel gives no reason; it was freed in {location}"),
                (None, None) => "the kernel gives no reason".to_owned(),
            });
            evidence.extend(sign.map(|sign| shown(sign, span)));
            evidence.extend(held_ns.map(|ns| format!("what the queue took it held for up to {}", host.duration(ns))));
            let toward = finding.toward.filter(|to| finding.device.map(|it| it.key) != Some(to.key));
            evidence.extend(toward.map(|to| format!("it was on its way to {}", label(&to, host))));
        }
        (Detail::Delayed { longest_ns, shortest_ns, passed, .. }, _) => evidence.push(format!(
            "{} of {passed} that came by were held there, from {} to {}",
            finding.count,
            host.duration(*shortest_ns),
            host.duration(*longest_ns)
        )),
        (Detail::Duplicated, _) => evidence.push("a clone of the packet left by the same device".to_owned()),
        (Detail::Reordered { held_ns }, _) => evidence.push(format!(
            "others of their flow had come before them, and left up to {} later than they came",
            host.duration(*held_ns)
        )),
        (Detail::Garbled { .. }, _) => {}
    }
    if let Some(hook) = finding.hook {
        let shown = finding.bridged && matches!(hook.family, 2 | 10);
        let by = if shown { ", which br_netfilter shows to bridged packets" } else { "" };
        evidence.push(format!("it was in netfilter's hook {hook}{by}"));
    }
    evidence
}

/// What a packet showed, in words.
fn shown(sign: Sign, span: Span) -> String {
    match sign {
        Sign::OtherHost => {
            format!("{span} its pkt_type was OTHERHOST: the MAC address is not that of the device which received it")
        }
        Sign::HeaderChecksum => format!("{span} the checksum of its IP header was wrong"),
        Sign::TransportChecksum => {
            format!("{span} its checksum was wrong, and ip_summed left it to the receiver to look")
        }
        Sign::Polled => {
            "the veth's other end took it from its ring by NAPI, and frees there only what its XDP program does not pass on"
                .to_owned()
        }
    }
}

#[cfg(test)]
mod tests;
