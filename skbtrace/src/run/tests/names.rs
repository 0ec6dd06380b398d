//! Names that people chose to do harm, from the host to the reader: escaped once, and the same in every output, live and
//! from a recording, also from one that was made to do harm.

use std::collections::BTreeMap;

use serde_json::Value;
use skbtrace_common::{DeviceKey, Event};

use super::{JSON, Live, TEXT, show};
use crate::render::Names;
use crate::run::{Look, names::RunNames, recording::name_table};
use crate::store::testkit::{Memory, start};
use crate::store::{NameTable, RecordedNames, Start};
use crate::topology::{Kind, Link, Netns, NetnsName, OperState, Topology};
use crate::trace::testkit::{BRIDGE, Dev, INIT, Lab, PEER2, REASON_NETFILTER, VETH1, VETH2};
use crate::trace::{Losses, Reasons};

const NETNS: &str = "n\x1b[2J\u{202e}";
const BACKSLASH: &str = r"n\x1b";
const BRIDGE_NAME: &str = "b\x1b]0;\\";
const REASON: &str = "R\x07";
const SYMBOL: &str = "f\x1b+0x44";
/// How they are to be read, in this order.
const SHOWN: [&str; 5] = [r"n\x1b[2J\xe2\x80\xae", r"n\\x1b", r"b\x1b]0;\\", r"R\x07", r"f\x1b+0x44"];

fn link(dev: Dev, name: &str, kind: Kind, master: Option<DeviceKey>) -> Link {
    Link {
        key: DeviceKey { netns: dev.netns, ifindex: dev.ifindex },
        name: name.into(),
        alt_names: Vec::new(),
        kind,
        peer: None,
        master,
        lower: None,
        addrs: Vec::new(),
        mac: Vec::new(),
        mtu: 1500,
        up: true,
        oper_state: OperState::Up,
    }
}

fn host() -> RunNames {
    let netns = |inum, name: NetnsName| Netns { inum, dev: 4, name, paths: Vec::new(), own: false };
    let bridge = link(BRIDGE, BRIDGE_NAME, Kind::Bridge, None);
    let port = link(PEER2, PEER2.name, Kind::Veth, Some(bridge.key));
    let all = [
        netns(INIT, NetnsName::Init),
        netns(VETH2.netns, NetnsName::Named(NETNS.into())),
        netns(VETH1.netns, NetnsName::Named(BACKSLASH.into())),
    ];
    RunNames {
        topology: Topology::from_parts(all, [bridge, port], BTreeMap::new(), Vec::new()),
        symbols: Box::new(|_| Some(SYMBOL.to_owned())),
        reasons: Reasons::new([(REASON_NETFILTER, REASON.to_owned())]),
    }
}

/// What crosses the bridge, and what the bridge drops.
fn events() -> Vec<Event> {
    let mut lab = Lab::new();
    [lab.tcp_data(1, 1, 9), lab.udp_dropped(2, 2), lab.udp(3, 3)].concat()
}

/// What a run prints, and its recording.
fn run(names: impl Names, look: Look, start: Start) -> (String, Vec<u8>) {
    let memory = Memory::new();
    let mut live = Live::with(names, look, &memory, start, None);
    live.events(&events().into_iter().map(|event| (event, Vec::new())).collect::<Vec<_>>());
    let text = live.end(9_000_000_000, Losses::default(), true);
    (text, memory.file(0))
}

fn honest() -> Start {
    let names = host();
    let reason = Names::reason(&names, REASON_NETFILTER).unwrap();
    Start { names: name_table(&names.topology), reasons: [(REASON_NETFILTER, reason)].into(), ..start() }
}

/// Texts of the JSON under a key, wherever it is.
fn texts<'a>(value: &'a Value, key: &str, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(map) => map.iter().for_each(|(name, value)| match value.as_str() {
            Some(text) if name == key => found.push(text),
            _ => texts(value, key, found),
        }),
        Value::Array(all) => all.iter().for_each(|value| texts(value, key, found)),
        _ => {}
    }
}

/// That a text and the JSON of the same run have the names as they are to be read.
fn assert_shown(text: &str, json: &str) {
    let [netns, backslash, bridge, reason, symbol] = SHOWN;
    let harm = |text: &str| text.chars().any(|c| (c.is_control() && c != '\n') || c == '\u{202e}');
    assert!(!harm(text) && !harm(json), "{text}{json}");
    let row = |netns, device| format!("\n    {netns}  {device} ");
    for sign in [
        row(format!("{netns:<20}"), VETH2.name),
        row(format!("{backslash:<20}"), VETH1.name),
        format!(" br_handle_frame ({bridge}) "),
        format!(": {reason}\n"),
        format!("\n    DROPPED in {symbol}: {reason}\n"),
        format!("\ndropped: 1 {reason}\n"),
    ] {
        assert!(text.contains(&sign), "{sign:?} in {text}");
    }
    let lines: Value = json.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect();
    for (key, expected) in [
        ("netns_name", &["init", netns, backslash][..]),
        ("bridge", &[bridge]),
        ("reason", &[reason]),
        ("location", &[symbol]),
    ] {
        let mut found = Vec::new();
        texts(&lines, key, &mut found);
        found.sort_unstable();
        found.dedup();
        let mut expected = expected.to_vec();
        expected.sort_unstable();
        assert_eq!(found, expected, "{key}");
    }
}

#[test]
fn a_hostile_name_is_escaped_once_in_text_and_json() {
    let (text, recorded) = run(host(), TEXT, honest());
    let (json, _) = run(host(), JSON, honest());
    assert_shown(&text, &json);
    assert_eq!(show(TEXT, std::slice::from_ref(&recorded)).0, text);
    assert_eq!(show(JSON, &[recorded]).0, json);
}

#[test]
fn a_recording_whose_names_nobody_escaped_is_shown_escaped() {
    // A backslash in a recording stands for one that has been escaped.
    let netns = [(INIT, "init"), (VETH2.netns, NETNS), (VETH1.netns, SHOWN[1])];
    let bridges = [(INIT, [(PEER2.ifindex, BRIDGE_NAME.replace('\\', r"\\"))].into())].into();
    let hostile = Start {
        names: NameTable { netns: netns.map(|(inum, name)| (inum, name.to_owned())).into(), bridges },
        reasons: [(REASON_NETFILTER, REASON.to_owned())].into(),
        preface: vec!["\x1b[2Jpreface".to_owned()],
        ..start()
    };
    let symbols = [(0xffff_ffff_8188_0044, SYMBOL.to_owned())].into();
    let careless = RecordedNames { symbols, ..hostile.recorded_names() };
    let (harmful, recorded) = run(careless, TEXT, hostile);
    assert!(harmful.contains('\x1b'));
    let (text, replayed) = show(TEXT, std::slice::from_ref(&recorded));
    assert_eq!(replayed.complaint, None);
    assert!(text.starts_with("\\x1b[2Jpreface\n"), "{text}");
    assert_shown(&text, &show(JSON, &[recorded]).0);
}
