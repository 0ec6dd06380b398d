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

const BRIDGE: std::ops::RangeInclusive<Stage> = 11..=15;

/// A spot, the last stage before it, and the first behind it.
const ORDER: [(Spot, Stage, Stage); 15] = [
    (Spot::Output, 0, 1),
    (Spot::Postrouting, 1, 2),
    (Spot::Egress, 2, 3),
    (Spot::Queue, 2, 3),
    (Spot::Device, 4, 6),
    (Spot::Xdp, 7, 8),
    (Spot::Ingress, 9, 10),
    (Spot::BridgePrerouting, 11, 12),
    (Spot::BridgeForward, 14, 15),
    (Spot::BridgePostrouting, 14, 15),
    (Spot::Prerouting, 16, 17),
    (Spot::Route, 16, 17),
    (Spot::Forward, 17, 18),
    (Spot::Input, 18, 19),
    (Spot::Socket, 20, 21),
];

/// The spots between two points, those of a hook that the first is at before the others.
pub(super) fn between(from: Point, to: Point) -> Vec<Spot> {
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
        HopId::SkbSegment | HopId::NetDevStartXmit | HopId::VlanDevHardStartXmit => 3,
        HopId::VethXmit | HopId::LoopbackXmit => 4,
        HopId::DevForwardSkb => 5,
        HopId::NetifRxInternal | HopId::EnqueueToBacklog => 6,
        HopId::VethXdpRcvSkb => 7,
        HopId::NapiGroReceive | HopId::GroReceiveSkb | HopId::SkbGroReceive => 8,
        HopId::NetifReceiveSkb => 9,
        HopId::VlanDoReceive => 10,
        HopId::BrHandleFrame => 11,
        HopId::BrHandleFrameFinish => 12,
        HopId::BrFlood | HopId::BrForwardDecision | HopId::BrPassFrameUp => 13,
        HopId::BrForward => 14,
        HopId::BrDevQueuePushXmit => 15,
        HopId::ArpRcv | HopId::IpRcv | HopId::Ipv6Rcv => 16,
        HopId::IpForward | HopId::Ip6Forward => 17,
        HopId::IpLocalDeliver | HopId::Ip6Input => 18,
        HopId::IcmpRcv
        | HopId::Icmpv6Rcv
        | HopId::PingRcv
        | HopId::TcpV4Rcv
        | HopId::TcpV6Rcv
        | HopId::TcpAddBacklog
        | HopId::UdpQueueRcvOneSkb
        | HopId::Udpv6QueueRcvOneSkb => 19,
        HopId::TcpQueueRcv | HopId::UdpEnqueueScheduleSkb | HopId::RawRcv | HopId::Rawv6Rcv => 20,
        HopId::TcpTryCoalesce | HopId::SkbCopyDatagramIter => 21,
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
