//! What was found in a run, for people: what befell how many packets and where, what that rests on, what did it, and what to
//! do about it.

use super::headline::counted;
use super::{Names, duration};
use crate::verdict::{Class, Explained, Finding, Host, Span, label};

/// A host, by the names that are known of it.
pub struct HostOf<'a>(pub &'a dyn Names);

impl Host for HostOf<'_> {
    fn netns(&self, inum: u32) -> String {
        self.0.netns(inum)
    }

    fn duration(&self, ns: u64) -> String {
        duration(ns)
    }
}

/// The line of a finding, and those below it: what they are, and what they say.
pub(crate) fn lines(explained: &Explained, names: &dyn Names) -> (String, Vec<(&'static str, String)>) {
    let evidence = explained.evidence.iter().map(|line| ("evidence", line.clone()));
    let cause = [("cause", explained.because.clone())];
    let advice = explained.advice.iter().map(|line| ("advice", line.clone()));
    (headline(&explained.finding, names), evidence.chain(cause).chain(advice).collect())
}

/// `63 packets of 123 GARBLED between __dev_queue_xmit and net_dev_start_xmit, on calmveth1_peer: #7, #9, … #120`.
fn headline(finding: &Finding, names: &dyn Names) -> String {
    let what = match finding.class {
        Class::Garbled => "GARBLED",
        Class::Dropped => "DROPPED",
        Class::Delayed => "DELAYED",
        Class::Duplicated => "DUPLICATED",
        Class::Reordered => "REORDERED",
    };
    let span = match finding.span {
        Span::Between(from, to) if from == to => format!("between two passes through {}", from.name()),
        span => span.to_string(),
    };
    let device = finding.device.map_or_else(String::new, |device| format!(", on {}", label(&device, &HostOf(names))));
    let count = counted(finding.count, "packet");
    format!("{what} {span}{device}: {count} of {} ({})", finding.packets, numbers(finding))
}

/// `#7`, `#7 and #9`, `#7 to #120`.
fn numbers(finding: &Finding) -> String {
    let first = finding.first();
    match (&finding.numbers[..], finding.count) {
        ([one], _) => format!("#{one}"),
        ([one, other], 2) => format!("#{} and #{}", one.min(other), one.max(other)),
        _ => format!("the first #{first}, the last #{}", finding.last),
    }
}
