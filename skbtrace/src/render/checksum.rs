//! What is said of a packet's checksums at a hop: nothing, unless it is another thing than at the hop before.

use skbtrace_common::{Event, EventFlags, IpSummed};

use crate::trace::Step;
use crate::verdict::{Checksum, Checksums, Why, checksums, is_trust_unearned};

/// The remarks of a step. `told` is what has been said of the packet before, and is kept up to date.
pub(super) fn remarks(before: Option<&Event>, step: &Step, told: &mut Option<Checksums>) -> Vec<String> {
    let event = &step.event;
    let changed = before.filter(|old| old.ip_summed != event.ip_summed);
    let now = checksums(event, &step.digest);
    let mut remarks = Vec::new();
    let header = now.and_then(|now| now.header);
    if header.is_some_and(Checksum::is_bad) && told.and_then(|told| told.header) != header {
        remarks.push("IP csum BAD: whoever receives it drops it".to_owned());
    }
    let transport = now.and_then(|now| now.transport).filter(is_said);
    let was = told.and_then(|told| told.transport);
    // That all is well need not be said where nobody thought otherwise.
    let news = match transport {
        Some(Checksum::Ok) => was.filter(|was| *was != Checksum::Ok).and(transport),
        now => now.filter(|now| was != Some(*now)),
    };
    if let Some(old) = changed {
        let change = format!("csum {}→{}", ip_summed(old.ip_summed), ip_summed(event.ip_summed));
        remarks.push(if is_trust_unearned(old, event) {
            format!("{change} across veth: a bad one is accepted from here on (Linux 4.4 has this fixed)")
        } else {
            change
        });
    } else if event.flags & EventFlags::DIGEST == 0 && before.is_none() && event.ip_summed != IpSummed::NONE {
        // Nobody looks at the field itself.
        remarks.push(format!("csum {}", ip_summed(event.ip_summed)));
    }
    remarks.extend(news.map(|news| format!("csum {}", words(news))));
    if let Some(now) = now {
        let keep = |new: Option<Checksum>, old: Option<Checksum>| new.filter(is_said).or(old);
        let old = |of: fn(Checksums) -> Option<Checksum>| (*told).and_then(of);
        *told = Some(Checksums {
            header: keep(now.header, old(|told| told.header)),
            transport: keep(now.transport, old(|told| told.transport)),
        });
    }
    remarks
}

/// What cannot be told is passed over, but for a tunnel's: what was said before is of the packet inside it.
fn is_said(checksum: &Checksum) -> bool {
    !matches!(checksum, Checksum::NotComputable(why) if *why != Why::Inner)
}

fn words(checksum: Checksum) -> &'static str {
    match checksum {
        Checksum::Deferred => "deferred",
        Checksum::Ok => "ok",
        Checksum::BadDropped => "BAD: whoever receives it drops it",
        Checksum::BadTrusted => "BAD, trusted: nobody will look",
        Checksum::None => "none: UDP without one",
        Checksum::NotComputable(Why::Inner) => "not known: that of the packet inside comes first",
        Checksum::NotComputable(_) => "not known",
    }
}

/// The word of a verdict in JSON, and why there is no better one.
pub(super) fn code(checksum: Checksum) -> (&'static str, Option<&'static str>) {
    match checksum {
        Checksum::Deferred => ("deferred", None),
        Checksum::Ok => ("ok", None),
        Checksum::BadDropped => ("bad_dropped", None),
        Checksum::BadTrusted => ("bad_trusted", None),
        Checksum::None => ("none", None),
        Checksum::NotComputable(why) => {
            let why = match why {
                Why::Unread => "unread",
                Why::Fragment => "fragment",
                Why::Gso => "gso",
                Why::Appended => "appended",
                Why::Inner => "inner",
            };
            ("not_computable", Some(why))
        }
    }
}

/// Name of a value of `skb->ip_summed`.
pub(super) fn ip_summed(value: u8) -> &'static str {
    match value {
        IpSummed::NONE => "none",
        IpSummed::UNNECESSARY => "unnecessary",
        IpSummed::COMPLETE => "complete",
        IpSummed::PARTIAL => "partial",
        _ => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use skbtrace_common::{Digest, DigestState, HopId};

    use super::*;
    use crate::trace::Lab;

    #[test]
    fn what_waits_for_the_packet_inside_is_said_once() {
        let mut event = Lab::new().datagram(1, 1).events[0];
        event.flags |= EventFlags::DIGEST;
        let whole = Digest { state: DigestState::WHOLE, l3_header: 0xffff, l4_header_len: 8, ..Digest::default() };
        let (none, made) = (whole, Digest { checksum: 7, ..whole });
        let mut told = None;
        // (flags, digest) of each step.
        let steps = [
            (0, none),
            (EventFlags::INNER_SUM, made),
            (EventFlags::INNER_SUM, made),
            // Passed over.
            (EventFlags::INNER_SUM | EventFlags::FRAGMENT, made),
            (EventFlags::INNER_SUM, made),
            (0, none),
        ];
        let said = steps.map(|(flags, digest)| {
            let event = Event { flags: event.flags | flags, ..event };
            let step = Step { hop: HopId::IpRcv, delta_ns: 0, waited: None, missing: 0, layer: 0, event, digest };
            remarks(Some(&event), &step, &mut told).join(", ")
        });
        let (none, inner) = ("csum none: UDP without one", "csum not known: that of the packet inside comes first");
        assert_eq!(said, [none, inner, "", "", "", none]);
    }
}
