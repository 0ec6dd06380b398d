//! Actions of tc: what each can do to a packet.

use super::{DROP, DUPLICATE, GARBLE, NOTHING, REWRITE, bpf::Programs};
use crate::{
    name::printable,
    survey::Effects,
    topology::netlink::{attributes, int, text},
};

// linux/pkt_cls.h, linux/tc_act/*.h
const TCA_ACT_KIND: u16 = 1;
const TCA_ACT_OPTIONS: u16 = 2;
const TCA_GACT_PARMS: u16 = 2;
const TCA_MIRRED_PARMS: u16 = 2;
const TCA_ACT_BPF_NAME: u16 = 6;
const TCA_ACT_BPF_ID: u16 = 10;
const TC_ACT_SHOT: u32 = 2;
const TC_ACT_STOLEN: u32 = 4;
const TC_ACT_TRAP: u32 = 8;
/// Where `struct tc_gen` has the verdict, and `struct tc_mirred` its own action behind that.
const VERDICT: usize = 8;
const MIRRED_ACTION: usize = 20;

/// An action: what it is called, and what it can do.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Action {
    pub(super) name: String,
    pub(super) effects: Effects,
}

/// The actions of a filter, in their order.
pub(super) fn actions(list: &[u8], programs: &mut Programs) -> Vec<Action> {
    attributes(list, 0).filter_map(|(_, action)| parse(action, programs)).collect()
}

fn parse(action: &[u8], programs: &mut Programs) -> Option<Action> {
    let find = |wanted| attributes(action, 0).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    let kind = text(find(TCA_ACT_KIND)?);
    let options = find(TCA_ACT_OPTIONS).unwrap_or_default();
    let option = |wanted| attributes(options, 0).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    let number = |wanted, at: usize| option(wanted)?.get(at..at + 4).and_then(int);
    let plain = |effects| Some((printable(&kind), effects));
    let (name, effects) = match kind.as_slice() {
        b"gact" => match number(TCA_GACT_PARMS, VERDICT) {
            Some(TC_ACT_SHOT) => Some(("drop".into(), DROP)),
            Some(TC_ACT_STOLEN) => Some(("stolen".into(), DROP)),
            Some(TC_ACT_TRAP) => Some(("trap".into(), DROP)),
            _ => Some(("pass".into(), NOTHING)),
        },
        b"mirred" => Some(match number(TCA_MIRRED_PARMS, MIRRED_ACTION) {
            // What is sent elsewhere is gone from here.
            Some(1) => ("mirred egress redirect".into(), DROP),
            Some(2) => ("mirred egress mirror".into(), DUPLICATE),
            Some(3) => ("mirred ingress redirect".into(), DROP),
            Some(4) => ("mirred ingress mirror".into(), DUPLICATE),
            _ => ("mirred".into(), DROP | DUPLICATE),
        }),
        b"bpf" => {
            let name = option(TCA_ACT_BPF_NAME).map(printable);
            let id = option(TCA_ACT_BPF_ID).and_then(int).map(|id| programs.describe(id));
            Some((format!("bpf {}", id.or(name).unwrap_or_default()).trim_end().to_owned(), program()))
        }
        b"pedit" => plain(GARBLE | REWRITE),
        b"police" | b"gate" => plain(DROP),
        b"ct" => plain(DROP | REWRITE),
        b"csum" | b"nat" | b"vlan" | b"mpls" | b"skbmod" | b"skbedit" | b"tunnel_key" | b"ife" | b"ctinfo"
        | b"connmark" => plain(REWRITE),
        // These only look.
        b"sample" | b"simple" => plain(NOTHING),
        // One that this list has never heard of may do anything to a packet's bytes.
        _ => plain(GARBLE | DROP | REWRITE),
    }?;
    Some(Action { name, effects })
}

/// What a BPF program of tc can do.
pub(super) fn program() -> Effects {
    GARBLE | DROP | DUPLICATE | REWRITE
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::survey::read::testkit::attribute;

    fn action(kind: &[u8], options: &[u8]) -> Vec<u8> {
        attribute(1, &[attribute(TCA_ACT_KIND, kind), attribute(TCA_ACT_OPTIONS | 0x8000, options)].concat())
    }

    fn parms(verdict: u32, own: u32) -> Vec<u8> {
        attribute(2, &[1u32, 0, verdict, 1, 1, own].map(u32::to_ne_bytes).concat())
    }

    #[test]
    fn what_an_action_does_is_read_from_its_kind_and_its_verdict() {
        let seen = |bytes: Vec<u8>| {
            let found = actions(&bytes, &mut Programs::default());
            found.into_iter().map(|action| (action.name, action.effects)).collect::<Vec<_>>()
        };
        assert_eq!(seen(action(b"gact\0", &parms(TC_ACT_SHOT, 0))), [("drop".to_owned(), DROP)]);
        assert_eq!(seen(action(b"gact\0", &parms(0, 0))), [("pass".to_owned(), NOTHING)]);
        assert_eq!(seen(action(b"mirred\0", &parms(3, 2))), [("mirred egress mirror".to_owned(), DUPLICATE)]);
        assert_eq!(seen(action(b"mirred\0", &parms(4, 1))), [("mirred egress redirect".to_owned(), DROP)]);
        let two = [action(b"pedit\0", &[]), action(b"csum\0", &[])].concat();
        assert_eq!(seen(two), [("pedit".to_owned(), GARBLE | REWRITE), ("csum".to_owned(), REWRITE)]);
    }
}
