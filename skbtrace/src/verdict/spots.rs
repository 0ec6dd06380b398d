//! What stands between two hops: the places where filters, programs, queues and rules have a packet in their hands.
//!
//! Hops stand in the order in which one pass through the stack meets them, and each spot between two of them. A packet that
//! goes round, out of a bridge and into a device, begins again.

use skbtrace_common::HopId;

use super::finding::Hook;
use crate::survey::Spot;

/// A hop, or where in the order a hook of netfilter is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Point {
    /// The hop.
    pub(super) hop: HopId,
    /// At netfilter: which hook.
    pub(super) hook: Option<Hook>,
}

/// Where in the order of a pass. The numbers mean nothing but their order.
type Stage = u8;

const BRIDGE: std::ops::RangeInclusive<Stage> = 12..=16;

/// What a packet passes between being received and being sent on, as far as tracepoints tell: bridged or routed.
const SENT_ON: [Spot; 10] = [
    Spot::Ingress,
    Spot::BridgePrerouting,
    Spot::BridgeForward,
    Spot::BridgePostrouting,
    Spot::Prerouting,
    Spot::Route,
    Spot::Forward,
    Spot::Postrouting,
    Spot::Egress,
    Spot::BridgeInput,
];

/// A spot, the last stage before it, and the first behind it.
const ORDER: [(Spot, Stage, Stage); 15] = [
    (Spot::Output, 0, 1),
    (Spot::Postrouting, 1, 2),
    (Spot::Egress, 2, 3),
    (Spot::Queue, 3, 4),
    (Spot::Device, 5, 7),
    (Spot::Xdp, 8, 9),
    (Spot::Ingress, 10, 11),
    (Spot::BridgePrerouting, 12, 13),
    (Spot::BridgeForward, 15, 16),
    (Spot::BridgePostrouting, 15, 16),
    (Spot::Prerouting, 17, 18),
    (Spot::Route, 17, 18),
    (Spot::Forward, 18, 19),
    (Spot::Input, 19, 20),
    (Spot::Socket, 21, 22),
];

/// The spots between two points, those of a hook that the first is at before the others.
pub(super) fn between(from: Point, to: Point) -> Vec<Spot> {
    if (from.hop, to.hop) == (HopId::NetifReceiveSkb, HopId::NetDevQueue) {
        return SENT_ON.to_vec();
    }
    let mut spots: Vec<Spot> = from.hook.and_then(of_hook).into_iter().collect();
    let (Some(start), Some(end)) = (stage(from), stage(to)) else { return spots };
    let bridged = BRIDGE.contains(&start) || BRIDGE.contains(&end);
    let passed = ORDER.iter().filter(|(_, after, before)| start <= *after && end >= *before);
    spots.extend(passed.map(|row| row.0).filter(|spot| bridged || !is_bridge(*spot)));
    match (from.hop, end < start) {
        (HopId::IpForward | HopId::Ip6Forward, true) => spots.push(Spot::Forward),
        (HopId::BrPassFrameUp, true) => spots.push(Spot::BridgeInput),
        (HopId::BrDevXmit, _) => spots.push(Spot::BridgeOutput),
        _ => {}
    }
    if bridged {
        // br_netfilter shows the hooks of IP what passes those of the bridge.
        let shown = [(Spot::BridgePrerouting, Spot::Prerouting), (Spot::BridgeForward, Spot::Forward)];
        spots.extend(shown.iter().filter(|(own, _)| spots.contains(own)).map(|(_, ip)| *ip).collect::<Vec<_>>());
    }
    let mut seen = Vec::new();
    spots.retain(|spot| !seen.contains(spot) && (seen.push(*spot), true).1);
    spots
}

fn is_bridge(spot: Spot) -> bool {
    matches!(spot, Spot::BridgePrerouting | Spot::BridgeForward | Spot::BridgePostrouting)
}

/// The spot of a hook of netfilter.
pub(super) fn of_hook(hook: Hook) -> Option<Spot> {
    Some(match (hook.family, hook.number) {
        (5, 0) => Spot::Ingress,
        (5, 1) => Spot::Egress,
        (7, 0) => Spot::BridgePrerouting,
        (7, 1) => Spot::BridgeInput,
        (7, 2) => Spot::BridgeForward,
        (7, 3) => Spot::BridgeOutput,
        (7, 4) => Spot::BridgePostrouting,
        (1 | 2 | 10, 0) => Spot::Prerouting,
        (1 | 2 | 10, 1) => Spot::Input,
        (1 | 2 | 10, 2) => Spot::Forward,
        (1 | 2 | 10, 3) => Spot::Output,
        (1 | 2 | 10, 4) => Spot::Postrouting,
        _ => return None,
    })
}

fn stage(point: Point) -> Option<Stage> {
    if let Some(spot) = point.hook.and_then(of_hook) {
        return ORDER.iter().find(|(known, ..)| *known == spot).map(|(_, after, _)| *after);
    }
    Some(match point.hop {
        HopId::TcpTransmitSkb | HopId::IpQueueXmit | HopId::Ip6Xmit => 0,
        HopId::IpOutput | HopId::IpMcOutput | HopId::Ip6Output => 1,
        HopId::DevQueueXmit => 2,
        HopId::NetDevQueue | HopId::QdiscEnqueue => 3,
        HopId::SkbSegment | HopId::NetDevStartXmit | HopId::VlanDevHardStartXmit => 4,
        HopId::VethXmit | HopId::LoopbackXmit => 5,
        HopId::DevForwardSkb => 6,
        HopId::NetifRxInternal | HopId::EnqueueToBacklog | HopId::NetifRx => 7,
        HopId::VethXdpRcvSkb => 8,
        HopId::NapiGroReceive | HopId::GroReceiveSkb | HopId::NapiGroReceiveEntry | HopId::SkbGroReceive => 9,
        HopId::NetifReceiveSkb => 10,
        HopId::VlanDoReceive => 11,
        HopId::BrHandleFrame => 12,
        HopId::BrHandleFrameFinish => 13,
        HopId::BrFlood | HopId::BrForwardDecision | HopId::BrPassFrameUp => 14,
        HopId::BrForward => 15,
        HopId::BrDevQueuePushXmit => 16,
        HopId::ArpRcv | HopId::IpRcv | HopId::Ipv6Rcv => 17,
        HopId::IpForward | HopId::Ip6Forward => 18,
        HopId::IpLocalDeliver | HopId::Ip6Input => 19,
        HopId::IcmpRcv
        | HopId::Icmpv6Rcv
        | HopId::PingRcv
        | HopId::TcpV4Rcv
        | HopId::TcpV6Rcv
        | HopId::TcpProbe
        | HopId::TcpAddBacklog
        | HopId::UdpQueueRcvOneSkb
        | HopId::Udpv6QueueRcvOneSkb => 20,
        HopId::TcpQueueRcv | HopId::UdpEnqueueScheduleSkb | HopId::RawRcv | HopId::Rawv6Rcv => 21,
        HopId::TcpTryCoalesce | HopId::SkbCopyDatagramIter | HopId::SkbCopyDatagramIovec => 22,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::{Point, between};
    use crate::survey::Spot;
    use crate::verdict::Hook;
    use skbtrace_common::HopId;

    fn spots(from: HopId, to: HopId) -> Vec<Spot> {
        between(Point { hop: from, hook: None }, Point { hop: to, hook: None })
    }

    #[test]
    fn between_two_hops_stand_the_spots_that_the_packet_passes() {
        use HopId::*;
        assert_eq!(spots(DevQueueXmit, NetDevStartXmit), [Spot::Egress, Spot::Queue]);
        assert_eq!(spots(DevQueueXmit, VethXmit), [Spot::Egress, Spot::Queue]);
        assert_eq!(spots(EnqueueToBacklog, BrHandleFrame), [Spot::Xdp, Spot::Ingress]);
        assert_eq!(spots(NetifReceiveSkb, IpRcv), [Spot::Ingress]);
        assert_eq!(spots(DevForwardSkb, IpRcv), [Spot::Xdp, Spot::Ingress]);
        assert_eq!(spots(IpRcv, TcpV4Rcv), [Spot::Prerouting, Spot::Route, Spot::Forward, Spot::Input]);
        assert_eq!(spots(BrDevQueuePushXmit, DevQueueXmit), []);
        assert_eq!(spots(BrForward, BrDevQueuePushXmit), [Spot::BridgeForward, Spot::BridgePostrouting, Spot::Forward]);
        assert_eq!(spots(IpForward, IpOutput), [Spot::Forward]);
        assert_eq!(spots(VethXmit, DevForwardSkb), []);
        // The tracepoint is behind tc egress.
        assert_eq!(spots(NetDevQueue, NetDevStartXmit), [Spot::Queue]);
        assert!(spots(NetifReceiveSkb, NetDevQueue).contains(&Spot::Egress));
    }

    #[test]
    fn behind_a_hook_its_rules_come_first_and_before_it_they_do_not_come() {
        let input = Some(Hook { family: 2, number: 1 });
        let hook = Point { hop: HopId::NfHookSlow, hook: input };
        let plain = |hop| Point { hop, hook: None };
        assert_eq!(between(hook, plain(HopId::TcpV4Rcv)), [Spot::Input]);
        assert_eq!(between(plain(HopId::IpLocalDeliver), hook), []);
        let postrouting = Point { hop: HopId::NfHookSlow, hook: Some(Hook { family: 7, number: 4 }) };
        assert_eq!(between(postrouting, plain(HopId::BrDevQueuePushXmit))[0], Spot::BridgePostrouting);
    }
}
