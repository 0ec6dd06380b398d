//! What a finding is, and what that means: where a cause may stand, and what it is when nothing is found there.

use skbtrace_common::HopId;

use super::ends::{ENDS, End, OTHER};
use super::places::PLACES;
use super::{Cause, Class, Detail, Fact, Finding, Span, Spot, owner, spots};
use crate::trace::Queue;

/// Settings of devices, by how what is said of them begins: whether a checksum is right behind a device, and who looks.
pub(super) const CHECKSUMMING: &[&str] = &["tx-checksumming", "rx-checksumming"];
/// Whether a veth receives by a NAPI of its own, with a ring before it.
pub(super) const GRO: &[&str] = &["generic-receive-offload"];
/// What makes packets larger or smaller than they were sent.
pub(super) const SEGMENTS: &[&str] = &[
    "tcp-segmentation-offload",
    "generic-segmentation-offload",
    "generic-receive-offload",
    "rx-gro-list",
    "rx-udp-gro-forwarding",
];

/// How far from the finding's place a fact may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// At its device, or in its namespace and at no device.
    Device,
    /// In its namespace.
    Netns,
    /// At a device that the packets had come by, or in such a device's namespace.
    Way,
    /// Wherever.
    Anywhere,
}

/// What kind of finding it is, and what that means.
#[derive(Clone, Debug)]
pub(super) struct Row {
    /// Where a cause may stand, the likeliest first. Empty: wherever.
    pub(super) spots: Vec<Spot>,
    /// What it may be. Empty: whatever.
    pub(super) causes: &'static [Cause],
    /// What a fact must speak of, in one of these words. Empty: of anything.
    pub(super) words: &'static [&'static str],
    /// Settings of devices on the way that are told of too: how what is said of them begins.
    pub(super) settings: &'static [&'static str],
    /// How far away.
    pub(super) reach: Reach,
    /// It has written to the packet, and that was found out only here.
    pub(super) writes: bool,
    /// What it is when nothing is found there.
    pub(super) cause: Cause,
    /// It is that also when something is found.
    fixed: bool,
    /// In words.
    pub(super) because: &'static str,
    /// The words need no fact of the host.
    pub(super) speaks_for_itself: bool,
    /// What to do when no fact says.
    pub(super) advice: &'static str,
}

impl Row {
    /// What kind of thing this fact makes it.
    pub(super) fn cause_of(&self, fact: &Fact) -> Cause {
        if self.fixed { self.cause } else { fact.cause }
    }
}

/// The row of a finding; `looked` says that it is known what there is on the host.
pub(super) fn row(finding: &Finding, looked: bool) -> Row {
    match (finding.class, &finding.detail) {
        (Class::Dropped, _) if finding.hook.is_some() => by_netfilter(finding, spots(finding)),
        (Class::Dropped, Detail::Dropped { reason, location, .. })
            if is_of_a_hook(reason.as_deref(), location.as_deref()) =>
        {
            by_netfilter(finding, ANY_HOOK.to_vec())
        }
        (Class::Dropped, Detail::Dropped { reason, location, sign, .. }) => {
            let function = location.as_deref().unwrap_or_default();
            let span = by_code(finding.span, function);
            let fits = |end: &&End| {
                let reason_fits = match reason {
                    Some(reason) => end.reasons.contains(&&**reason),
                    None if end.signs.is_empty() => end.reasons.is_empty(),
                    None => sign.is_some_and(|sign| end.signs.contains(&sign)),
                };
                let at = |hop: &HopId| span == Span::At(*hop);
                reason_fits
                    && (end.hops.is_empty() || end.hops.iter().any(at))
                    && (end.functions.is_empty() || end.functions.iter().any(|name| function.starts_with(name)))
            };
            let row = of_end(ENDS.iter().chain(PLACES).find(fits).unwrap_or(&OTHER));
            // Tracepoints show it last at the device that it was received by, and not at the one that it was sent on to.
            let sent_on = finding.span == Span::At(HopId::NetifReceiveSkb) && row.spots.contains(&Spot::Egress);
            Row { reach: if sent_on { Reach::Netns } else { row.reach }, ..row }
        }
        _ => in_between(finding, looked),
    }
}

fn of_end(end: &End) -> Row {
    Row {
        spots: end.spots.to_vec(),
        causes: end.causes,
        words: end.words,
        settings: end.settings,
        reach: end.reach,
        writes: end.writes,
        cause: end.cause,
        fixed: end.fixed,
        because: end.because,
        speaks_for_itself: end.sure,
        advice: end.advice,
    }
}

/// The hooks that a packet may have come to once it was received, where no hop tells.
const ANY_HOOK: [Spot; 6] =
    [Spot::Ingress, Spot::BridgePrerouting, Spot::BridgeForward, Spot::Prerouting, Spot::Forward, Spot::Input];

/// Where a packet ended, by the hops that the table knows, where tracepoints have others or fewer. Of one which had only been
/// received the function that freed it tells whose it was by then.
fn by_code(span: Span, function: &str) -> Span {
    let Span::At(hop) = span else { return span };
    // A veth's poll frees too, but what it has was taken by the other end.
    let crosses =
        || ["veth_xmit", "__dev_forward_skb", "dev_forward_skb"].iter().any(|name| function.starts_with(name));
    Span::At(match hop {
        HopId::NetifReceiveSkb => owner(function).unwrap_or(hop),
        HopId::NetDevQueue | HopId::QdiscEnqueue => HopId::DevQueueXmit,
        HopId::NetDevStartXmit if crosses() => HopId::DevForwardSkb,
        HopId::NetifRx | HopId::NapiGroReceiveEntry => HopId::EnqueueToBacklog,
        _ => hop,
    })
}

/// Whether a rule dropped it, at whatever hook: before Linux 5.18 the function says so, and no reason.
fn is_of_a_hook(reason: Option<&str>, location: Option<&str>) -> bool {
    match reason {
        Some(reason) => reason == "NETFILTER_DROP",
        None => location.is_some_and(|function| function.starts_with("nf_hook_slow")),
    }
}

fn by_netfilter(finding: &Finding, spots: Vec<Spot>) -> Row {
    let bridge = finding.hook.is_some_and(|hook| hook.family == 7);
    // Where bridged packets come by the hooks of IP, it is for the sake of iptables.
    let shown = finding.bridged && !bridge;
    Row {
        spots,
        causes: &[Cause::Nftables, Cause::Iptables, Cause::Ebtables],
        words: &[],
        settings: &[],
        reach: if finding.hook.is_some_and(|hook| hook.family == 5) { Reach::Device } else { Reach::Netns },
        writes: false,
        cause: if shown { Cause::Iptables } else { Cause::Nftables },
        fixed: false,
        because: "a rule or a policy of netfilter drops at this hook",
        speaks_for_itself: false,
        advice: if bridge { "nft list ruleset; ebtables -L" } else { "nft list ruleset; iptables -L -v -n" },
    }
}

/// Garbled, delayed, duplicated and reordered: whatever stands between the hops and can do it.
fn in_between(finding: &Finding, looked: bool) -> Row {
    let spots = spots(finding);
    let at_device = |spot: &Spot| matches!(spot, Spot::Ingress | Spot::Egress | Spot::Queue | Spot::Xdp | Spot::Device);
    let reach = if spots.iter().all(at_device) { Reach::Device } else { Reach::Netns };
    // Pages that others hold are a cause only where nothing else is.
    let paged = looked && matches!(finding.detail, Detail::Garbled { paged: true, .. });
    let (cause, because, advice) = match (finding.class, spots.first()) {
        (Class::Garbled, _) if paged => (
            Cause::Sender,
            "the sender writes to pages that it has lent to packets on their way (sendfile, splice, zero copy)",
            "the sending program must leave pages alone until they are sent, or send copies: write() in place of sendfile()",
        ),
        (Class::Garbled, Some(Spot::Egress)) => (
            Cause::TcFilter,
            "something at the egress of the device writes into packets",
            "tc filter show dev DEVICE egress",
        ),
        (Class::Garbled, Some(Spot::Xdp)) => (
            Cause::Xdp,
            "a program at the device writes into packets",
            "ip link show dev DEVICE; tc filter show dev DEVICE ingress",
        ),
        (Class::Garbled, Some(Spot::Ingress)) => (
            Cause::TcFilter,
            "something at the ingress of the device writes into packets",
            "tc filter show dev DEVICE ingress",
        ),
        (Class::Garbled, _) => (Cause::Nftables, "a rule of netfilter writes into packets", "nft list ruleset"),
        (Class::Delayed, None) => by_neighbour(finding),
        (Class::Delayed, Some(Spot::Egress | Spot::Queue)) => {
            (Cause::Qdisc, "the queueing discipline of the device holds packets", "tc -s qdisc show dev DEVICE")
        }
        (Class::Delayed, Some(Spot::Postrouting | Spot::Neighbour)) => by_neighbour(finding),
        (Class::Delayed, Some(Spot::Xdp | Spot::Ingress | Spot::Device)) => (
            Cause::Device,
            "the CPU whose input queue has the packets is busy with something else",
            "mpstat -P ALL 1; top: what keeps that CPU?",
        ),
        (Class::Delayed, _) => (
            Cause::Nftables,
            "a rule of netfilter hands packets to a program, and waits for it (NFQUEUE)",
            "nft list ruleset; cat /proc/net/netfilter/nfnetlink_queue",
        ),
        (Class::Reordered, _) => (
            Cause::Qdisc,
            "the queueing discipline of the device lets packets of one flow overtake each other",
            "tc -s qdisc show dev DEVICE",
        ),
        _ => (
            Cause::Qdisc,
            "something at the egress of the device sends packets twice",
            "tc -s qdisc show dev DEVICE; tc filter show dev DEVICE egress",
        ),
    };
    Row {
        spots,
        causes: &[],
        words: &[],
        settings: match finding.detail {
            Detail::Garbled { .. } => CHECKSUMMING,
            Detail::Delayed { queue: Some(Queue::VethRing), .. } => GRO,
            _ => &[],
        },
        reach,
        writes: false,
        cause,
        fixed: false,
        because,
        speaks_for_itself: false,
        advice,
    }
}

fn by_neighbour(finding: &Finding) -> (Cause, &'static str, &'static str) {
    if matches!(finding.detail, Detail::Delayed { queue: Some(_), .. }) {
        return (
            Cause::Device,
            "the CPU whose input queue has the packets is busy with something else",
            "mpstat -P ALL 1; top: what keeps that CPU?",
        );
    }
    (
        Cause::Neighbour,
        "packets wait for the next hop's address: it is answered late, or at the second time of asking",
        "ip neigh show, in the sender's namespace",
    )
}
