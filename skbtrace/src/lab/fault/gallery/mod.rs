//! The rows of the gallery, a page per layer, and the words that they have in common.
//!
//! Every filter looks for port 8000 alone, and every change of payload hits a byte beyond all headers and beyond the
//! header of a record, for TCP with timestamps as for UDP. So the receiver reads the record and names the byte.

mod filter;
mod garble;
mod ip;
mod link;
mod queue;

use super::{Cause, Class, Fault, Requires, Show, Span, Step, Verdict, program::Program, show};
use crate::lab::{Place, Scenario, traffic::Protocol};
use show::{By, Counter, Effect, Forged, Rewrite, Traffic};
use skbtrace_common::HopId;

/// Every page.
pub(super) static PAGES: [&[Fault]; 5] = [&garble::PAGE, &queue::PAGE, &filter::PAGE, &link::PAGE, &ip::PAGE];

/// Faults that are tried two at once, for each must be found in spite of the other: what is held up or thrown away or sent twice
/// is garbled too, what is garbled is then dropped for another reason, and one packet is garbled by two.
pub(super) const PAIRS: [[&str; 2]; 5] = [
    ["netem-delay", "pedit-receiver-ingress"],
    ["netem-loss", "pedit-receiver-ingress"],
    ["netem-duplicate", "xdp-receiver"],
    ["nft-bridge-payload", "tc-ingress-drop"],
    ["pedit-port-ingress", "nft-input-payload"],
];

/// The namespace of this process, with the bridge and its ports.
const HERE: Place = None;
const SERVER: Place = Some("ns-calm1");
const CLIENT: Place = Some("ns-calm2");

/// The two ports of the bridge and the devices behind them.
const SERVER_PORT: &str = "calmveth1_peer";
const CLIENT_PORT: &str = "calmveth2_peer";
const SERVER_VETH: &str = "calmveth1";
const CLIENT_VETH: &str = "calmveth2";

const UDP: Traffic = Traffic::of(Protocol::Udp);
const TCP: Traffic = Traffic::of(Protocol::Tcp);

const fn traffic(traffic: Traffic, effect: Effect) -> Show {
    Show { by: By::Traffic(traffic), effect }
}

const fn counted(by: By, place: Place, protocol: &'static str, name: &'static str) -> Show {
    Show { by, effect: Effect::Counted(Counter::Snmp { place, protocol, name }) }
}

/// What no hop of the tracepoint backend comes before.
const UNFOLLOWED: Option<&str> =
    Some("no hop of theirs comes before the packet is handed to a device, and what has come by none is not followed");
/// What happens at the sender's device before the first of its hops.
const ALREADY_CHANGED: Option<&str> = Some(
    "tc egress at the sender comes before net_dev_queue, the first hop of theirs: all that they see is changed already",
);

/// Payload that changes between two hops; the packets are delivered all the same.
const fn garbled(
    (from, to): (HopId, HopId),
    (place, device): (Place, &'static str),
    cause: Cause,
    because: &'static str,
) -> Verdict {
    let span = Span::Between(from, to);
    let class = Class::Garbled;
    Verdict { class, span, place, device, cause, because, held: false, reasons: &[], beyond_tracepoints: None }
}

/// Packets that end after a hop.
const fn dropped(
    hop: HopId,
    (place, device): (Place, &'static str),
    cause: Cause,
    because: &'static str,
    reasons: &'static [&'static str],
) -> Verdict {
    let (class, span) = (Class::Dropped, Span::At(hop));
    Verdict { class, span, place, device, cause, because, held: false, reasons, beyond_tracepoints: None }
}

/// A command, the command that takes it back, and the module that it needs.
macro_rules! run {
    ($place:expr, $run:expr, $undo:expr) => {
        Step::Run { place: $place, run: $run, undo: $undo, module: None }
    };
    ($place:expr, $run:expr, $undo:expr, $module:literal) => {
        Step::Run { place: $place, run: $run, undo: $undo, module: Some($module) }
    };
}

/// The qdisc that does nothing but carry filters.
macro_rules! clsact {
    ($place:expr, $device:literal) => {
        run!(
            $place,
            concat!("tc qdisc add dev ", $device, " clsact"),
            concat!("tc qdisc del dev ", $device, " clsact"),
            "sch_ingress"
        )
    };
}

/// A filter for port 8000, with an action.
macro_rules! on_port {
    ($place:expr, $device:literal, $side:literal, $action:expr, $module:literal) => {
        run!(
            $place,
            concat!(
                "tc filter add dev ",
                $device,
                " ",
                $side,
                " protocol ip prio 1 u32 match ip dport 8000 0xffff action ",
                $action
            ),
            concat!("tc filter del dev ", $device, " ", $side, " prio 1"),
            $module
        )
    };
}

/// The action that inverts a byte of payload, counted from the IP header.
macro_rules! invert {
    () => {
        "pedit munge offset 100 u8 invert"
    };
}

/// A root qdisc.
macro_rules! qdisc {
    ($place:expr, $device:literal, $qdisc:literal, $module:literal) => {
        run!(
            $place,
            concat!("tc qdisc add dev ", $device, " root ", $qdisc),
            concat!("tc qdisc del dev ", $device, " root"),
            $module
        )
    };
}

use {clsact, invert, on_port, qdisc, run};
