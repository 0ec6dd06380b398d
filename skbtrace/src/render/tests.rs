//! What readers get to see, on made-up traffic. Here: what holds for every format.

mod diff;
mod finding;
mod hex;
mod json;
mod latency;
mod timeline;

use skbtrace_common::{DeviceKey, Event};

use super::{Json, Names, Style, Text};
use crate::trace::testkit::{BRIDGE, INIT, Lab, REASON_NETFILTER, VETH1};
use crate::trace::{Losses, Packet, Reasons, StitchOptions, Stitcher, Summary};
use crate::verdict::payload;

/// Names of the made-up host.
struct LabNames;

impl Names for LabNames {
    fn netns(&self, inum: u32) -> String {
        match inum {
            INIT => "init".to_owned(),
            _ if inum == VETH1.netns => "ns-calm1".to_owned(),
            _ => "ns-calm2".to_owned(),
        }
    }

    fn bridge_of(&self, device: DeviceKey) -> Option<String> {
        (device.netns == INIT).then(|| BRIDGE.name.to_owned())
    }

    fn reason(&self, reason: u32) -> Option<String> {
        (reason == REASON_NETFILTER).then(|| "NETFILTER_DROP".to_owned())
    }

    fn symbol(&self, address: u64) -> Option<String> {
        (address == 0xffff_ffff_8188_0044).then(|| "nf_hook_slow+0x44".to_owned())
    }
}

fn stitch(events: &[Event], losses: Losses) -> (Vec<Packet>, Summary) {
    let reasons = Reasons::new([(2, "NOT_SPECIFIED".to_owned())]);
    let mut stitcher = Stitcher::new(StitchOptions { reasons, ..Default::default() });
    let mut packets = Vec::new();
    let mut sink = |packet| packets.push(packet);
    for event in events {
        stitcher.push(event, &mut sink);
    }
    stitcher.set_losses(losses);
    stitcher.finish(4_000_000_000, &mut sink);
    (packets, stitcher.summary().clone())
}

fn text_with(style: Style, events: &[Event], losses: Losses) -> String {
    let (packets, summary) = stitch(events, losses);
    let mut out = Vec::new();
    let mut text = Text::new(style);
    for packet in &packets {
        text.packet(&mut out, packet, &payload(packet), &LabNames).unwrap();
    }
    text.summary(&mut out, &summary, &LabNames).unwrap();
    String::from_utf8(out).unwrap()
}

fn text(events: &[Event]) -> String {
    text_with(Style::default(), events, Losses::default())
}

#[test]
fn colour_adds_escape_codes_and_nothing_else() {
    let mut lab = Lab::new();
    let mut cut = lab.tcp_data(3, 9, 9);
    cut.remove(4);
    let events = [lab.tcp_data(1, 1, 1), lab.udp_dropped(2, 1), cut].concat();
    let style = Style { colour: true, explain: true, ..Style::default() };
    let coloured = text_with(style, &events, Losses::default());
    let plain = text_with(Style { colour: false, ..style }, &events, Losses::default());
    let mut stripped = String::new();
    let mut rest = coloured.as_str();
    while let Some((before, after)) = rest.split_once("\x1b[") {
        stripped.push_str(before);
        rest = after.split_once('m').unwrap().1;
    }
    stripped.push_str(rest);
    assert_eq!(stripped, plain);
    for painted in ["\x1b[32mdelivered to", "\x1b[31mDROPPED", "\x1b[33mINCOMPLETE", "\x1b[31m1 dropped"] {
        assert!(coloured.contains(painted), "{painted:?} in {coloured}");
    }
}

#[test]
fn hostile_names_of_events_are_escaped_and_other_names_are_not_escaped_again() {
    /// Names that are safe to print, as they must be.
    struct Escaped;
    impl Names for Escaped {
        fn netns(&self, _: u32) -> String {
            r"ns\x1b[2J".to_owned()
        }
        fn bridge_of(&self, _: DeviceKey) -> Option<String> {
            Some(r"br\\".to_owned())
        }
        fn reason(&self, _: u32) -> Option<String> {
            Some(r"R\x07".to_owned())
        }
        fn symbol(&self, _: u64) -> Option<String> {
            Some(r"f\xff".to_owned())
        }
    }
    let mut events = Lab::new().udp_dropped(1, 1);
    for event in &mut events {
        event.dev[..4].copy_from_slice(b"d\x1b]0");
        event.dev2[..4].copy_from_slice(b"\xff\x1bc\x9b");
        event.comm[..4].copy_from_slice(b"\r\ne\x08");
    }
    let (packets, summary) = stitch(&events, Losses::default());
    let (mut out, mut json) = (Vec::new(), Vec::new());
    let mut text = Text::new(Style::default());
    text.packet(&mut out, &packets[0], &payload(&packets[0]), &Escaped).unwrap();
    text.summary(&mut out, &summary, &Escaped).unwrap();
    Json::default().packet(&mut json, &packets[0], &payload(&packets[0]), &Escaped).unwrap();
    Json::default().summary(&mut json, &summary, &[], &Escaped).unwrap();
    let (out, json) = (String::from_utf8(out).unwrap(), String::from_utf8(json).unwrap());
    let harm = |text: &str| text.chars().any(|c| c.is_control() && c != '\n');
    assert!(!harm(&out) && !harm(&json), "{out}{json}");
    let words = [r"ns\x1b[2J", r"(br\\)", r"R\x07", r"f\xff", r"d\x1b]0", r"\xff\x1bc\x9b", r"\x0d\x0ae\x08"];
    for word in words {
        let fits = |text: &str| text.contains(word) && !text.contains(&format!("\\{word}"));
        assert!(fits(&out), "{word} in {out}");
        // In JSON a backslash is written as two, and read as one.
        let word = word.trim_matches(['(', ')']).replace('\\', r"\\");
        assert!(json.contains(&word) && !json.contains(&format!(r"\\{word}")), "{word} in {json}");
    }
}

/// A pipe whose reader has gone.
struct Closed;

impl std::io::Write for Closed {
    fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
        Err(std::io::ErrorKind::BrokenPipe.into())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_closed_pipe_is_an_error_of_its_own_kind() {
    let (packets, summary) = stitch(&Lab::new().udp(1, 1), Losses::default());
    let mut text = Text::new(Style::default());
    let results = [
        text.packet(&mut Closed, &packets[0], &payload(&packets[0]), &LabNames),
        text.summary(&mut Closed, &summary, &LabNames),
        Json::default().packet(&mut Closed, &packets[0], &payload(&packets[0]), &LabNames),
        Json::default().summary(&mut Closed, &summary, &[], &LabNames),
    ];
    for result in results {
        assert_eq!(result.unwrap_err().kind(), std::io::ErrorKind::BrokenPipe);
    }
}

#[test]
fn a_packet_without_a_number_is_passed_over() {
    let (mut packets, _) = stitch(&Lab::new().udp(1, 1), Losses::default());
    packets[0].number = None;
    let mut out = Vec::new();
    Text::new(Style::default()).packet(&mut out, &packets[0], &payload(&packets[0]), &LabNames).unwrap();
    Json::default().packet(&mut out, &packets[0], &payload(&packets[0]), &LabNames).unwrap();
    assert_eq!(out, b"");
}
