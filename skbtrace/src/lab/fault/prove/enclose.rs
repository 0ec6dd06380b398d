//! Whether a finding's place encloses the one that a row names, where the run's backend lacks the row's hops.
//!
//! What the traffic of a lab comes by is known beforehand: leg after leg, from a device that sends to the one that receives, and
//! on each leg the hops in the order of the catalogue. So every hop at a device has its point on that way, also one that nobody
//! traces. Of the points that a packet was seen at, the last before what the row names and the first behind it enclose it: a
//! finding must lie between these, and at the row's device as far as the two leave a choice. Pure.

use serde_json::Value;
use skbtrace_common::HopId;

use super::judge::Found;
use crate::{
    hops::{Backend, Role, hop, named},
    lab::{
        End, Layout,
        fault::{Class, Span, Verdict},
    },
};

/// The way of a lab's traffic, and what it is traced by.
#[derive(Debug)]
pub(super) struct Way {
    backend: Backend,
    /// The devices: that of a leg that sends, that which receives, those of the next leg.
    devices: Vec<&'static str>,
    bridge: Option<&'static str>,
}

/// Where on the way: on which leg, and at which hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Point {
    leg: usize,
    hop: HopId,
}

/// A hop that a packet was seen at.
#[derive(Debug, PartialEq, Eq)]
struct Stop {
    point: Point,
    /// The device; where the hop knows none, that of the hop before.
    device: String,
}

impl Stop {
    fn is(&self, hop: Option<&str>) -> bool {
        Some(self.point.hop.name()) == hop
    }
}

impl Way {
    /// From the client to the server.
    pub fn new(layout: &Layout, backend: Backend) -> Way {
        Way { backend, devices: devices(layout), bridge: layout.bridge }
    }

    /// The backend that traces.
    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// Whether a run by this backend has every hop that the row names, so that nothing needs to stand in for one.
    pub fn has(&self, span: Span) -> bool {
        let is_here = |id: HopId| hop(id).is_of(self.backend);
        match span {
            Span::Unseen => true,
            Span::At(at) => is_here(at),
            Span::Between(from, to) => is_here(from) && is_here(to),
        }
    }

    /// Whether the finding's place encloses the expected one; `hops` are those of a packet that it befell, in their order.
    pub fn encloses(&self, found: &Found, expected: &Verdict, hops: &[&Value]) -> bool {
        let stops = self.stops(hops);
        let point = |hop| self.point(hop, expected.device);
        match expected.span {
            // It names no hop that another could stand in for.
            Span::Unseen => false,
            Span::At(hop) => point(hop).is_some_and(|end| ends(found, end, expected, &stops)),
            Span::Between(from, to) => {
                point(from).zip(point(to)).is_some_and(|span| lies_about(found, span, expected, &stops))
            }
        }
    }

    /// Where a hop at this device is.
    fn point(&self, id: HopId, device: &str) -> Option<Point> {
        let leg = |side| self.devices.iter().skip(side).step_by(2).position(|other| *other == device);
        let (sends, receives) = (leg(0), leg(1));
        let leg = if Some(device) == self.bridge {
            // What the bridge takes for itself goes no further.
            Some(0)
        } else if matches!(hop(id).role, Role::Output | Role::Send | Role::Transmit | Role::Cross) {
            sends.or(receives)
        } else {
            // A hop of the bridge may name the device that it hands the packet to.
            receives.or_else(|| sends?.checked_sub(1))
        };
        leg.map(|leg| Point { leg, hop: id })
    }

    /// Where a packet was seen, but for devices that are not on the way.
    fn stops(&self, hops: &[&Value]) -> Vec<Stop> {
        let mut device = "";
        let mut stops = Vec::new();
        for hop in hops {
            device = hop["device"]["name"].as_str().unwrap_or(device);
            let id = hop["hop"].as_str().and_then(named);
            let point = id.and_then(|id| self.point(id, device));
            stops.extend(point.map(|point| Stop { point, device: device.to_owned() }));
        }
        stops
    }
}

/// The devices on the way, two for each leg.
fn devices(layout: &Layout) -> Vec<&'static str> {
    let [server, client] = layout.talkers;
    if server.place == client.place {
        return vec!["lo"; 2];
    }
    let peer = |end: &End| {
        let pair = layout.pairs.iter().find(|pair| pair.contains(end));
        pair.and_then(|pair| pair.iter().find(|other| *other != end)).map(|other| other.device)
    };
    let mut way = vec![client.device];
    way.extend(peer(client));
    if layout.bridge.is_some() {
        way.extend(peer(server));
        way.push(server.device);
    }
    way
}

/// Whether packets that end at this point are found to end there: where they were seen last before it, or behind that and at the
/// row's device, for this backend may have a hop that the row does not know.
fn ends(found: &Found, end: Point, expected: &Verdict, stops: &[Stop]) -> bool {
    // Where it is freed is no place of its own.
    let stops = || stops.iter().filter(|stop| hop(stop.point.hop).role != Role::End);
    let Some(before) = stops().filter(|stop| stop.point <= end).max_by_key(|stop| stop.point) else { return false };
    let here = |stop: &&Stop| stop.is(found.from.as_deref()) && stop.device == found.device;
    let is_right = |stop: &Stop| stop == before || stop.point > before.point && stop.device == expected.device;
    found.to.is_none() && stops().filter(here).any(is_right)
}

/// Whether the two hops of a finding lie between those that enclose this stretch of the way, and one of them at the row's device.
fn lies_about(found: &Found, (first, last): (Point, Point), expected: &Verdict, stops: &[Stop]) -> bool {
    // A payload that changed has changed between two hops that look at it.
    let looks = |stop: &&Stop| expected.class != Class::Garbled || hop(stop.point.hop).looks_at_payload();
    let points = || stops.iter().filter(looks).map(|stop| stop.point);
    // At the sender's device the row may begin before the first hop that there is.
    let before = points().filter(|point| *point <= first).max().or_else(|| points().min());
    let behind = points().filter(|point| *point >= last).min();
    let Some((before, behind)) = before.zip(behind) else { return false };
    let within = || stops.iter().filter(looks).filter(|stop| (before..=behind).contains(&stop.point));
    let fits = |from: &Stop, to: &Stop| {
        let at = |device: &str| from.device == device || to.device == device;
        from.point < to.point && at(&found.device) && at(expected.device)
    };
    let mut starts = within().filter(|stop| stop.is(found.from.as_deref()));
    starts.any(|from| within().filter(|stop| stop.is(found.to.as_deref())).any(|to| fits(from, to)))
}

#[cfg(test)]
mod tests;
