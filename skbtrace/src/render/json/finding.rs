//! What was found, as JSON.

use serde::Serialize;

use super::super::Names;
use super::line::Device;
use crate::render::row::device_name;
use crate::verdict::{self, Cause, Class, Detail, Explained, Span};

#[derive(Debug, Serialize)]
pub(crate) struct Finding {
    class: Class,
    /// The last hop that saw the packets as they were, or at all; `null` when none did.
    from: Option<&'static str>,
    /// The first hop that saw the effect; `null` when none did.
    to: Option<&'static str>,
    /// Name of the device.
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ifindex: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    netns: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    netns_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    toward: Option<Device>,
    #[serde(skip_serializing_if = "Option::is_none")]
    netfilter: Option<String>,
    count: u64,
    packets: Vec<u64>,
    last: u64,
    first_ns: u64,
    last_ns: u64,
    reasons: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    location: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    longest_ns: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    passed: Option<u64>,
    cause: Cause,
    because: String,
    evidence: Vec<String>,
    advice: Vec<String>,
}

pub(crate) fn finding_of(explained: &Explained, names: &dyn Names) -> Finding {
    let finding = &explained.finding;
    let (from, to) = match finding.span {
        Span::Between(from, to) => (Some(from.name()), Some(to.name())),
        Span::At(hop) => (Some(hop.name()), None),
        Span::Unseen => (None, None),
    };
    let device = |device: verdict::Device| Device {
        name: device_name(&device.name, device.key.ifindex),
        ifindex: device.key.ifindex,
        netns: device.key.netns,
        netns_name: names.netns(device.key.netns),
    };
    let (mut reasons, mut location, mut longest, mut passed) = (Vec::new(), None, None, None);
    match &finding.detail {
        Detail::Dropped { reason, location: place, .. } => {
            reasons.extend(reason.clone());
            location.clone_from(place);
        }
        Detail::Delayed { longest_ns, passed: all, .. } => (longest, passed) = (Some(*longest_ns), Some(*all)),
        Detail::Reordered { held_ns } => longest = Some(*held_ns),
        Detail::Garbled { .. } | Detail::Duplicated => {}
    }
    Finding {
        class: finding.class,
        from,
        to,
        device: finding.device.map(|it| device_name(&it.name, it.key.ifindex)),
        ifindex: finding.device.map(|it| it.key.ifindex),
        netns: finding.device.map(|it| it.key.netns),
        netns_name: finding.device.map(|it| names.netns(it.key.netns)),
        toward: finding.toward.map(device),
        netfilter: finding.hook.map(|hook| hook.to_string()),
        count: finding.count,
        packets: finding.numbers.clone(),
        last: finding.last,
        first_ns: finding.first_ns,
        last_ns: finding.last_ns,
        reasons,
        location,
        longest_ns: longest,
        passed,
        cause: explained.cause,
        because: explained.because.clone(),
        evidence: explained.evidence.clone(),
        advice: explained.advice.clone(),
    }
}
