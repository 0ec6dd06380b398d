//! Every row of the gallery of faults is explained as the gallery says, where the host has what the fault leaves there.

use skbtrace_common::{DeviceKey, HopId};

use super::{Explained, Host, explain};
use crate::lab::fault::{self, Fault};
use crate::survey::{Effects, Fact, Spot, Survey};
use crate::verdict::{Cause, Class, Detail, Device, Finding, Hook, Sign, Span};

struct Here;

impl Host for Here {
    fn netns(&self, inum: u32) -> String {
        if inum == 1 { "init".to_owned() } else { format!("ns-calm{}", inum - 1) }
    }

    fn duration(&self, ns: u64) -> String {
        format!("{ns} ns")
    }
}

fn device(place: Option<&str>, name: &str) -> Device {
    let netns = match place {
        None => 1,
        Some("ns-calm1") => 2,
        Some(_) => 3,
    };
    let mut bytes = [0; 16];
    bytes[..name.len()].copy_from_slice(name.as_bytes());
    let ifindex = name.bytes().map(u32::from).sum();
    Device { key: DeviceKey { netns, ifindex }, name: bytes }
}

/// What a tracer finds of a fault, on a kernel that gives this reason.
fn finding(fault: &Fault, reason: Option<&str>) -> Finding {
    let verdict = fault.verdict;
    let detail = match verdict.class {
        Class::Garbled => Detail::Garbled { place: None, paged: verdict.cause == Cause::Sender, raw: false },
        Class::Dropped => {
            let reason = reason.filter(|reason| *reason != "NOT_SPECIFIED");
            Detail::Dropped {
                reason: reason.map(str::to_owned),
                location: None,
                sign: None,
                silent: verdict.reasons.is_empty(),
                held_ns: None,
            }
        }
        Class::Delayed => Detail::Delayed { longest_ns: 2, shortest_ns: 1, passed: 3, queue: None },
        Class::Duplicated => Detail::Duplicated,
        Class::Reordered => Detail::Reordered { held_ns: 1 },
    };
    let mut finding = Finding::new(verdict.class, verdict.span, Some(device(verdict.place, verdict.device)), detail);
    finding.count = 3;
    finding.numbers = vec![1, 2, 3];
    finding.way = vec![
        device(Some("ns-calm2"), "calmveth2"),
        device(None, "calmveth2_peer"),
        device(None, "calmveth1_peer"),
        device(Some("ns-calm1"), "calmveth1"),
    ];
    if reason == Some("NETFILTER_DROP") {
        finding.hook = Some(match verdict.span {
            Span::At(HopId::BrForward) if fault.name == "iptables-forward-policy" => Hook { family: 2, number: 2 },
            Span::At(HopId::BrForward) => Hook { family: 7, number: 2 },
            Span::At(HopId::EnqueueToBacklog) => Hook { family: 5, number: 0 },
            Span::At(HopId::IpRcv) => Hook { family: 2, number: 1 },
            Span::At(_) => Hook { family: 2, number: 4 },
            _ => Hook { family: 2, number: 3 },
        });
        finding.bridged = verdict.span == Span::At(HopId::BrForward);
    }
    if fault.name == "xdp-drop" {
        finding.span = Span::At(HopId::VethXdpRcvSkb);
    }
    finding
}

/// What a reader of the host finds of it; none where the fault leaves nothing on the host.
fn fact(fault: &Fault, finding: &Finding) -> Option<Fact> {
    let Finding { class, span, .. } = *finding;
    let mut at = finding.device?;
    let mut effects = Effects {
        garble: class == Class::Garbled,
        drop: class == Class::Dropped,
        delay: class == Class::Delayed,
        duplicate: class == Class::Duplicated,
        reorder: class == Class::Reordered,
        rewrite: false,
    };
    let ingress = matches!(span, Span::At(HopId::EnqueueToBacklog))
        || matches!(span, Span::Between(HopId::EnqueueToBacklog | HopId::DevForwardSkb, _));
    let spot = match fault.verdict.cause {
        Cause::TcFilter if fault.name == "ip-checksum" => {
            at = device(None, "calmveth1_peer");
            effects = Effects { garble: true, ..Effects::default() };
            Spot::Egress
        }
        Cause::TcFilter if ingress => Spot::Ingress,
        Cause::TcFilter => Spot::Egress,
        Cause::Xdp if fault.name == "xdp-generic-port" => Spot::Ingress,
        Cause::Xdp => Spot::Xdp,
        Cause::Qdisc => Spot::Queue,
        Cause::Nftables | Cause::Iptables | Cause::Ebtables => match (finding.hook, span) {
            (Some(hook), _) => crate::verdict::spots::of_hook(hook)?,
            (None, Span::Between(HopId::IpRcv, _)) => Spot::Input,
            _ => Spot::BridgeForward,
        },
        Cause::Bridge => Spot::Bridge,
        Cause::Device => Spot::Device,
        Cause::Neighbour => Spot::Neighbour,
        Cause::Route => Spot::Route,
        Cause::Sender => {
            // What makes the fault show does not write.
            effects = Effects { delay: true, ..Effects::default() };
            Spot::Queue
        }
        Cause::Socket => return None,
    };
    let cause = if fault.verdict.cause == Cause::Sender { Cause::Qdisc } else { fault.verdict.cause };
    let on_device = matches!(spot, Spot::Ingress | Spot::Egress | Spot::Queue | Spot::Xdp | Spot::Device);
    Some(Fact {
        cause,
        netns: at.key.netns,
        ifindex: on_device.then_some(at.key.ifindex),
        spot,
        effects,
        what: format!(
            "what {} leaves: rp_filter, hoplimit, forwarding, no default route, MTU, lladdr, address ",
            fault.name
        ),
        undo: Some(format!("undo {}", fault.name)),
    })
}

#[test]
fn every_fault_of_the_gallery_has_its_cause() {
    let mut seen = 0;
    for fault in fault::all() {
        let reasons: Vec<Option<&str>> = match fault.verdict.reasons {
            [] => vec![None],
            some => some.iter().map(|reason| Some(*reason)).collect(),
        };
        for reason in reasons {
            let finding = finding(fault, reason);
            // Beside it there are things that do other things, or are elsewhere.
            let beside = |spot, netns, effects| Fact {
                cause: Cause::Ebtables,
                netns,
                ifindex: None,
                spot,
                effects,
                what: "beside".to_owned(),
                undo: None,
            };
            let rewrite = Effects { delay: fault.verdict.class != Class::Delayed, ..Effects::default() };
            let all = Effects { garble: true, drop: true, delay: true, duplicate: true, reorder: true, rewrite: true };
            let mut facts = vec![beside(Spot::BridgeForward, 1, rewrite), beside(Spot::Input, 77, all)];
            facts.extend(fact(fault, &finding));
            let survey = Survey { facts, unseen: Vec::new() };
            let Explained { cause, because, advice, evidence, .. } = explain(finding, Some(&survey), &Here);
            assert_eq!(cause, fault.verdict.cause, "{} with {reason:?}: {because}", fault.name);
            assert!(!evidence.is_empty() && !advice.is_empty() && advice.iter().all(|line| !line.is_empty()));
            if !matches!(fault.verdict.cause, Cause::Sender | Cause::Socket) {
                assert!(because.starts_with(&format!("what {} leaves", fault.name)), "{}: {because}", fault.name);
                assert_eq!(advice, [format!("undo {}", fault.name)]);
            }
            seen += 1;
        }
    }
    assert!(seen > 50);
}

#[test]
fn what_the_host_does_not_show_is_said_to_be_unknown() {
    let pedit = fault::find("pedit-port-egress").unwrap();
    let found = finding(pedit, None);
    let blind = explain(found.clone(), None, &Here);
    assert!(blind.because.ends_with("(the host was not looked at)"), "{}", blind.because);
    let survey = Survey { facts: Vec::new(), unseen: vec!["nftables: no permission".to_owned()] };
    let empty = explain(found.clone(), Some(&survey), &Here);
    assert!(empty.because.ends_with("(nothing that writes there was found)"), "{}", empty.because);
    assert!(empty.evidence.iter().any(|line| line == "not looked at: nftables: no permission"));
    assert_eq!(empty.advice, ["tc filter show dev calmveth1_peer egress"]);
    // Of several none is picked.
    let mut facts: Vec<Fact> = (0..6).filter_map(|_| fact(pedit, &found)).collect();
    for (n, fact) in facts.iter_mut().enumerate() {
        fact.what = format!("filter {n}");
    }
    let many = explain(found, Some(&Survey { facts, unseen: Vec::new() }), &Here);
    assert!(many.because.starts_with("one of: filter 0, on calmveth1_peer; filter 1"), "{}", many.because);
    assert!(many.because.ends_with("; 2 more"), "{}", many.because);
}

/// What a reader of the host says of an offload, or of a packet socket.
fn aside(cause: Cause, at: Device, spot: Spot, garble: bool, what: &str) -> Fact {
    let effects = Effects { garble, ..Effects::default() };
    Fact { cause, netns: at.key.netns, ifindex: Some(at.key.ifindex), spot, effects, what: what.to_owned(), undo: None }
}

#[test]
fn offloads_on_the_way_are_evidence_where_they_have_to_do_with_it() {
    let sender = device(Some("ns-calm2"), "calmveth2");
    let facts = vec![
        aside(Cause::Device, sender, Spot::Device, false, "tx-checksumming of ns-calm2/calmveth2 is off: …"),
        aside(Cause::Device, sender, Spot::Device, false, "generic-receive-offload of ns-calm2/calmveth2 is on: …"),
        aside(Cause::Device, device(None, "other"), Spot::Device, false, "tx-checksumming of other is off: …"),
    ];
    let survey = Survey { facts, unseen: Vec::new() };
    let cited = |name: &str, reason: Option<&str>| {
        let told = explain(finding(fault::find(name).unwrap(), reason), Some(&survey), &Here);
        assert!(!told.because.contains("-offload"), "no cause: {}", told.because);
        let offloads = |line: &String| line.contains("-checksumming") || line.contains("-offload");
        told.evidence.into_iter().filter(offloads).collect::<Vec<_>>()
    };
    let tx = ["tx-checksumming of ns-calm2/calmveth2 is off: …"];
    assert_eq!(cited("pedit-port-egress", None), tx);
    assert_eq!(cited("ip-checksum", Some("IP_CSUM")), tx);
    assert_eq!(cited("mtu-peer", None), ["generic-receive-offload of ns-calm2/calmveth2 is on: …"]);
    assert_eq!(cited("tc-ingress-drop", Some("TC_INGRESS")), [""; 0]);
}

#[test]
fn a_packet_socket_that_sends_from_a_ring_is_the_sender_of_its_own_packets_only() {
    let pages =
        fault::all().find(|fault| fault.verdict.cause == Cause::Sender && fault.verdict.class == Class::Garbled);
    let seen = |raw: bool, at: Device| {
        let mut found = finding(pages.unwrap(), None);
        found.detail = Detail::Garbled { place: None, paged: true, raw };
        let ring = aside(Cause::Sender, at, Spot::Device, true, "packet socket of a[1] sends from a ring");
        explain(found, Some(&Survey { facts: vec![ring], unseen: Vec::new() }), &Here)
    };
    let sender = device(Some("ns-calm2"), "calmveth2");
    let told = seen(true, sender);
    assert_eq!(
        (told.cause, told.because.as_str()),
        (Cause::Sender, "packet socket of a[1] sends from a ring, on ns-calm2/calmveth2")
    );
    assert!(told.advice[0].contains("TP_STATUS_AVAILABLE"), "{:?}", told.advice);
    for other in [seen(false, sender), seen(true, device(None, "calmveth2_peer"))] {
        assert_eq!(other.cause, Cause::Sender);
        assert!(other.because.starts_with("the sender writes to pages"), "{}", other.because);
    }
}

/// A packet whose last hop by tracepoints was this one, at calmveth2_peer, and that this function freed.
fn seen_last(hop: HopId, reason: Option<&str>, location: &str) -> Finding {
    let (reason, location) = (reason.map(str::to_owned), Some(location.to_owned()));
    let detail = Detail::Dropped { reason, location, sign: None, silent: false, held_ns: None };
    Finding::new(Class::Dropped, Span::At(hop), Some(device(None, "calmveth2_peer")), detail)
}

#[test]
fn a_hop_that_only_tracepoints_have_is_as_good_as_the_ones_about_it() {
    let because = |hop, location| {
        let told = explain(seen_last(hop, None, location), None, &Here);
        (told.cause, told.because)
    };
    for hop in [HopId::NetDevQueue, HopId::QdiscEnqueue] {
        let queue = because(hop, "__dev_queue_xmit+0x1");
        assert!(queue.0 == Cause::Qdisc && queue.1.contains("a filter, the queue, or a device"), "{queue:?}");
    }
    let crossing = because(HopId::NetDevStartXmit, "__dev_forward_skb+0x1");
    assert!(crossing.0 == Cause::Device && crossing.1.contains("the veth's other end"), "{crossing:?}");
    // What a veth's poll frees has been taken by the other end.
    let polled = because(HopId::NetDevStartXmit, "veth_xdp_rcv_skb+0x1");
    assert!(!polled.1.contains("the veth's other end does not take it"), "{polled:?}");
    let ingress = because(HopId::NetifRx, "netif_rx_internal+0x1");
    assert!(ingress.0 == Cause::TcFilter && ingress.1.contains("before any protocol"), "{ingress:?}");
}

#[test]
fn what_ends_at_the_egress_of_a_port_is_seen_last_at_the_one_before_it() {
    let port = device(None, "calmveth1_peer");
    let effects = Effects { drop: true, ..Effects::default() };
    let filter = Fact { effects, ..aside(Cause::TcFilter, port, Spot::Egress, false, "tc filter on calmveth1_peer") };
    let survey = Survey { facts: vec![filter], unseen: Vec::new() };
    let told = |hop| explain(seen_last(hop, Some("TC_EGRESS"), "__dev_queue_xmit+0x1"), Some(&survey), &Here);
    let because = told(HopId::NetifReceiveSkb).because;
    assert!(because.starts_with("tc filter on calmveth1_peer"), "{because}");
    // Where its own device's hop has seen it, no other device's filter is to blame.
    assert_eq!(told(HopId::DevQueueXmit).because, "a tc filter at the egress of the device drops");
}

#[test]
fn where_tracepoints_show_no_more_than_receiving_the_function_tells_whose_the_packet_was() {
    let because = |reason: Option<&str>, location: &str| {
        let told = explain(seen_last(HopId::NetifReceiveSkb, reason, location), None, &Here);
        (told.cause, told.because)
    };
    let listener = because(None, "tcp_v4_rcv+0x62");
    assert!(listener.0 == Cause::Socket && listener.1.contains("nobody listens"), "{listener:?}");
    let buffer = because(None, "__udp_enqueue_schedule_skb+0x1");
    assert!(buffer.0 == Cause::Socket && buffer.1.contains("buffer is full"), "{buffer:?}");
    // Before Linux 5.18 the function alone says it.
    for reason in [Some("NETFILTER_DROP"), None] {
        let hook = because(reason, "nf_hook_slow+0xa7");
        assert!(hook.0 == Cause::Nftables && hook.1.contains("netfilter"), "{hook:?}");
    }
    // Code of no protocol: it was still at the device.
    let ingress = because(None, "__netif_receive_skb_core.constprop.0+0x1");
    assert!(ingress.0 == Cause::TcFilter && ingress.1.contains("before any protocol"), "{ingress:?}");
}

#[test]
fn a_kernel_that_names_no_reason_is_believed_by_what_the_packet_shows() {
    // What is told of it, what that rests on, and what the place alone would say.
    let rows = [
        (
            "wrong-lladdr",
            Sign::OtherHost,
            "MAC address that is not the receiver's",
            "at ip_rcv its pkt_type was OTHERHOST",
            Cause::Route,
        ),
        (
            "ip-checksum",
            Sign::HeaderChecksum,
            "checksum is wrong",
            "at ip_rcv the checksum of its IP header was wrong",
            Cause::Route,
        ),
        (
            "udp-checksum",
            Sign::TransportChecksum,
            "checksum is wrong",
            "at ip_rcv its checksum was wrong",
            Cause::Route,
        ),
        (
            "tcp-checksum",
            Sign::TransportChecksum,
            "checksum is wrong",
            "at tcp_v4_rcv its checksum was wrong",
            Cause::Socket,
        ),
        (
            "xdp-drop",
            Sign::Polled,
            "XDP program on the device did not pass it on",
            "took it from its ring by NAPI",
            Cause::Device,
        ),
    ];
    for (name, shown, because, evidence, by_place) in rows {
        let fault = fault::find(name).unwrap();
        let with = |seen: Option<Sign>| {
            let mut found = finding(fault, None);
            found.span = fault.verdict.span;
            let Detail::Dropped { sign, silent, .. } = &mut found.detail else { panic!("{name}") };
            (*sign, *silent) = (seen, false);
            found
        };
        assert_eq!(explain(with(None), None, &Here).cause, by_place, "{name}");
        let blind = explain(with(Some(shown)), None, &Here);
        assert!(blind.because.contains(because), "{name}: {}", blind.because);
        assert!(blind.evidence[0].starts_with("the kernel gives no reason"), "{name}: {:?}", blind.evidence);
        assert!(blind.evidence[1].contains(evidence), "{name}: {:?}", blind.evidence);
        // With what the fault leaves on the host it has its cause.
        let facts = fact(fault, &with(Some(shown))).into_iter().collect();
        let told = explain(with(Some(shown)), Some(&Survey { facts, unseen: Vec::new() }), &Here);
        assert_eq!(told.cause, fault.verdict.cause, "{name}: {}", told.because);
    }
}
