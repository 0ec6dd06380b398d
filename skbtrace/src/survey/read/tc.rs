//! Filters of tc: at a device's ingress and egress (clsact, ingress), on its queueing disciplines, and BPF programs that are
//! attached without either (tcx, Linux 6.6 and later).

use aya::programs::tc::{SchedClassifier, TcAttachType};

use super::{
    Found, NOTHING, action,
    action::Action,
    bpf::Programs,
    place::Place,
    qdisc::{Qdisc, handle},
};
use crate::{
    name::printable,
    survey::{Fact, Spot},
    topology::netlink::{RouteSocket, attributes, int, text},
    verdict::Cause,
};

// linux/rtnetlink.h, linux/pkt_cls.h, linux/pkt_sched.h
const RTM_NEWTFILTER: u16 = 44;
const RTM_GETTFILTER: u16 = 46;
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_CHAIN: u16 = 11;
const TC_H_MIN_INGRESS: u32 = 0xffff_fff2;
const TC_H_MIN_EGRESS: u32 = 0xffff_fff3;
const TCA_BPF_NAME: u16 = 7;
const TCA_BPF_FLAGS: u16 = 8;
const TCA_BPF_ID: u16 = 11;
const TCA_BPF_FLAG_ACT_DIRECT: u32 = 1;

/// A filter.
#[derive(Debug, PartialEq, Eq)]
struct Filter {
    kind: Vec<u8>,
    pref: u32,
    protocol: u16,
    handle: u32,
    chain: u32,
    options: Vec<u8>,
}

/// Reads the filters of every device that has a place for them.
pub(super) fn facts(
    place: &Place<'_>,
    socket: &mut RouteSocket,
    qdiscs: &[Qdisc],
    programs: &mut Programs,
    found: &mut Found,
) {
    for qdisc in qdiscs {
        let parents: &[(u32, &str, Spot)] = match qdisc.kind.as_slice() {
            b"clsact" => &[(TC_H_MIN_INGRESS, "ingress", Spot::Ingress), (TC_H_MIN_EGRESS, "egress", Spot::Egress)],
            b"ingress" => &[(TC_H_MIN_INGRESS, "ingress", Spot::Ingress)],
            // One without a handle is the kernel's own choice, and nobody can hang anything on it.
            _ if qdisc.handle != 0 => &[(qdisc.handle, "", Spot::Queue)],
            _ => continue,
        };
        for (parent, side, spot) in parents {
            let filters = read(socket, qdisc.ifindex, *parent);
            let side = if side.is_empty() { format!("parent {}", handle(*parent)) } else { (*side).to_owned() };
            for filter in found.take(place, "the filters of tc", filters) {
                found.facts.extend(fact(place, qdisc.ifindex, &side, *spot, &filter, programs));
            }
        }
    }
}

fn read(socket: &mut RouteSocket, ifindex: u32, parent: u32) -> std::io::Result<Vec<Filter>> {
    let mut body = vec![0; 20]; // struct tcmsg: family, pad, ifindex, handle, parent, info
    body[4..8].copy_from_slice(&ifindex.to_ne_bytes());
    body[12..16].copy_from_slice(&parent.to_ne_bytes());
    socket.dump(RTM_GETTFILTER, RTM_NEWTFILTER, &body, parse)
}

/// `None` for what is no filter by itself: the head of a priority, a hash table of u32.
fn parse(payload: &[u8]) -> Option<Filter> {
    let info = payload.get(16..20).and_then(int)?;
    let [high, low] = [(info >> 16) as u16, info as u16];
    let find = |wanted| attributes(payload, 20).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    let filter = Filter {
        kind: text(find(TCA_KIND)?),
        pref: u32::from(high),
        protocol: u16::from_be(low),
        handle: payload.get(8..12).and_then(int)?,
        chain: find(TCA_CHAIN).and_then(int).unwrap_or_default(),
        options: find(TCA_OPTIONS)?.to_vec(),
    };
    // The low twelve bits of a table's handle are 0.
    (filter.handle != 0 && !(filter.kind == b"u32" && filter.handle & 0xfff == 0)).then_some(filter)
}

/// Where a kind of filter keeps its actions.
fn actions_at(kind: &[u8]) -> Option<u16> {
    Some(match kind {
        b"bpf" | b"cgroup" => 1,
        b"matchall" => 2,
        b"flower" | b"basic" => 3,
        b"fw" => 4,
        b"route" => 6,
        b"u32" => 7,
        b"flow" => 9,
        _ => return None,
    })
}

fn fact(
    place: &Place<'_>,
    ifindex: u32,
    side: &str,
    spot: Spot,
    filter: &Filter,
    programs: &mut Programs,
) -> Option<Fact> {
    let find = |wanted| attributes(&filter.options, 0).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    let actions = actions_at(&filter.kind).and_then(find).map(|list| action::actions(list, programs));
    let actions: Vec<Action> = actions.unwrap_or_default();
    let mut effects = actions.iter().fold(NOTHING, |all, action| all | action.effects);
    let mut does: Vec<String> = actions.into_iter().map(|action| action.name).collect();
    if filter.kind == b"bpf" {
        let name = find(TCA_BPF_NAME).map(printable);
        let id = find(TCA_BPF_ID).and_then(int).map(|id| programs.describe(id));
        let mut program = id.or(name).unwrap_or_default();
        if find(TCA_BPF_FLAGS).and_then(int).is_some_and(|flags| flags & TCA_BPF_FLAG_ACT_DIRECT != 0) {
            program += " direct-action";
            effects = effects | action::program();
        }
        does.insert(0, program);
    }
    if effects == NOTHING {
        return None;
    }
    let kind = printable(&filter.kind);
    let pref = filter.pref;
    let chain = if filter.chain == 0 { String::new() } else { format!(" chain {}", filter.chain) };
    let what = format!("tc filter {side}{chain} pref {pref} {kind}: {}", does.join(", "));
    let undo = place.word(ifindex).map(|device| {
        let (protocol, handle) = (protocol(filter.protocol), filter_handle(filter));
        format!("tc filter del dev {device} {side}{chain} protocol {protocol} pref {pref} handle {handle} {kind}")
    });
    Some(Fact { undo: place.undo(undo), ..place.fact(Cause::TcFilter, Some(ifindex), spot, effects, what) })
}

/// A filter's handle as tc writes it: u32 has table, bucket and node in it.
fn filter_handle(filter: &Filter) -> String {
    let handle = filter.handle;
    if filter.kind != b"u32" {
        return format!("{handle:#x}");
    }
    let bucket = match handle >> 12 & 0xff {
        0 => String::new(),
        bucket => format!("{bucket:x}"),
    };
    format!("{:x}:{bucket}:{:x}", handle >> 20, handle & 0xfff)
}

fn protocol(number: u16) -> String {
    match number {
        0x0003 => "all".into(),
        0x0800 => "ip".into(),
        0x0806 => "arp".into(),
        0x86dd => "ipv6".into(),
        0x8100 => "802.1Q".into(),
        other => format!("{other:#06x}"),
    }
}

/// Programs of tcx. A kernel that has none says so, and that is no news.
pub(super) fn tcx(place: &Place<'_>, found: &mut Found) {
    for link in place.links() {
        let Ok(name) = std::str::from_utf8(&link.name) else { continue };
        let sides = [(TcAttachType::Ingress, "ingress", Spot::Ingress), (TcAttachType::Egress, "egress", Spot::Egress)];
        for (side, called, spot) in sides {
            let Ok((_, programs)) = SchedClassifier::query_tcx(name, side) else { continue };
            for program in programs {
                let what = format!("tcx {called}: bpf {} (id {})", printable(program.name()), program.id());
                let ifindex = Some(link.key.ifindex);
                found.facts.push(place.fact(Cause::TcFilter, ifindex, spot, action::program(), what));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::survey::read::{GARBLE, REWRITE, testkit};
    use testkit::attribute;

    fn message(handle: u32, options: Option<Vec<u8>>) -> Vec<u8> {
        let mut payload = vec![0; 20];
        payload[4..8].copy_from_slice(&testkit::PORT.to_ne_bytes());
        payload[8..12].copy_from_slice(&handle.to_ne_bytes());
        let info = 49152 << 16 | u32::from(0x0800u16.to_be());
        payload[16..20].copy_from_slice(&info.to_ne_bytes());
        payload.extend(attribute(TCA_KIND, b"u32\0"));
        payload.extend(options.into_iter().flat_map(|options| attribute(TCA_OPTIONS | 0x8000, &options)));
        payload
    }

    #[test]
    fn a_filter_is_named_as_tc_does_and_can_be_taken_away_by_its_handle() {
        let pedit = attribute(1, &attribute(1, b"pedit\0"));
        let filter = parse(&message(0x8000_0800, Some(attribute(7 | 0x8000, &pedit)))).unwrap();
        testkit::with_place("veth0", |place| {
            let fact = fact(place, testkit::PORT, "egress", Spot::Egress, &filter, &mut Programs::default()).unwrap();
            assert_eq!(fact.what, "tc filter egress pref 49152 u32: pedit");
            assert_eq!(fact.effects, GARBLE | REWRITE);
            assert_eq!(
                fact.undo.as_deref(),
                Some("ip netns exec blue tc filter del dev veth0 egress protocol ip pref 49152 handle 800::800 u32")
            );
        });
    }

    #[test]
    fn heads_tables_and_filters_that_do_nothing_are_no_facts() {
        assert_eq!(parse(&message(0, Some(Vec::new()))), None);
        assert_eq!(parse(&message(0x8000_0000, Some(Vec::new()))), None);
        assert_eq!(parse(&message(0x8000_0800, None)), None);
        let classifies = parse(&message(0x8000_0800, Some(Vec::new()))).unwrap();
        testkit::with_place("veth0", |place| {
            let fact = fact(place, testkit::PORT, "egress", Spot::Egress, &classifies, &mut Programs::default());
            assert_eq!(fact, None);
        });
    }

    #[test]
    fn a_hostile_device_gets_no_command() {
        let pedit = attribute(1, &attribute(1, b"pedit\0"));
        let filter = parse(&message(0x8000_0800, Some(attribute(7 | 0x8000, &pedit)))).unwrap();
        testkit::with_place("a\x1b[2J'", |place| {
            let fact = fact(place, testkit::PORT, "egress", Spot::Egress, &filter, &mut Programs::default()).unwrap();
            assert_eq!(fact.undo, None);
        });
    }
}
