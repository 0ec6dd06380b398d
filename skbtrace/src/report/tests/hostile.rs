//! Names that people chose, in whatever a report is made of: they stay names.

use proptest::prelude::*;
use serde_json::Value;
use skbtrace_common::DeviceKey;

use super::{page, stitched};
use crate::name::printable;
use crate::render::Names;
use crate::report::{Mermaid, Perfetto};
use crate::trace::Packet;
use crate::trace::testkit::Lab;
use crate::verdict::payload;

/// Names as somebody else has them: not even made printable, as they would be.
struct Chosen(String);

impl Names for Chosen {
    fn netns(&self, _: u32) -> String {
        self.0.clone()
    }

    fn bridge_of(&self, _: DeviceKey) -> Option<String> {
        Some(self.0.clone())
    }

    fn reason(&self, _: u32) -> Option<String> {
        Some(self.0.clone())
    }

    fn symbol(&self, _: u64) -> Option<String> {
        Some(self.0.clone())
    }
}

/// Packets with these names in their events.
fn packets(device: [u8; 16], comm: [u8; 16]) -> Vec<Packet> {
    let mut lab = Lab::new();
    let mut events = [lab.tcp_data(1, 1, 7), lab.udp_dropped(2, 2)].concat();
    for event in &mut events {
        event.comm = comm;
        for name in [&mut event.dev, &mut event.dev2] {
            if name[0] != 0 {
                *name = device;
            }
        }
    }
    stitched(&events).0
}

/// Bytes of a name: any, or such as have a meaning somewhere.
fn name() -> impl Strategy<Value = [u8; 16]> {
    let known = prop::sample::select(vec![
        "</script><b>",
        "<!--<script>",
        "]]>",
        "\u{2028}\u{2029}",
        "\"},{\"",
        "';alert(1)//",
        "&lt;&#60;",
        "end",
        "%%{init: {}}",
        "a;b:c#d",
        "\n\tend\n",
        "red",
        "-->>x",
        "`${1}`",
        "\\u003c",
    ]);
    let known = known.prop_map(|text| {
        let mut name = [0; 16];
        let bytes = &text.as_bytes()[..text.len().min(15)];
        name[..bytes.len()].copy_from_slice(bytes);
        name
    });
    prop_oneof![known, any::<[u8; 16]>()].prop_filter("a device has a name", |name| name[0] != 0)
}

/// A page, less its data; and its data.
fn parts(html: &str) -> (String, &str) {
    let (before, rest) = html.split_once("<script type=\"application/json\" id=\"data\">").unwrap();
    let (data, after) = rest.split_once("</script>").unwrap();
    (format!("{before}|{after}"), data)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_name_breaks_out_of_the_page(device in name(), comm in name(), other in any::<String>(), odd in name()) {
        let chosen = Chosen(format!("{other}{}", String::from_utf8_lossy(&odd)));
        let tame = page(&[], None, &Chosen(String::new()), 9).finish(None).unwrap();
        let html = page(&packets(device, comm), None, &chosen, 9).finish(Some(&chosen.0)).unwrap();
        let (frame, data) = parts(&html);
        prop_assert_eq!(frame, parts(&tame).0);
        prop_assert!(!data.contains(['<', '>', '&', '\u{2028}', '\u{2029}']), "{}", data);
        let data: Value = serde_json::from_str(data).unwrap();
        prop_assert_eq!(&data["devices"][0]["name"], &printable(&device));
        prop_assert_eq!(&data["netns"][0], &chosen.0);
        prop_assert_eq!(&data["damage"], &chosen.0);
    }

    #[test]
    fn no_name_breaks_out_of_the_trace(device in name(), comm in name(), other in any::<String>()) {
        let chosen = Chosen(other);
        let mut trace = Perfetto::default();
        for packet in &packets(device, comm) {
            trace.packet(packet, &payload(packet), &chosen);
        }
        let trace: Value = serde_json::from_str(&trace.finish().unwrap()).unwrap();
        let events = trace["traceEvents"].as_array().unwrap();
        let names = |what: &str| -> Vec<&Value> { events.iter().filter(|event| event["name"] == what).map(|event| &event["args"]["name"]).collect() };
        prop_assert!(names("process_name").iter().all(|name| **name == chosen.0));
        let shown = printable(&device);
        prop_assert!(names("thread_name").iter().all(|name| name.as_str().unwrap().starts_with(&shown)));
    }

    #[test]
    fn no_name_is_read_as_part_of_the_diagram(device in name(), comm in name(), other in any::<String>(), odd in name()) {
        let diagram = |device, comm, chosen: &Chosen| -> Vec<String> {
            let mut diagram = Mermaid::new(Some(2));
            for packet in &packets(device, comm) {
                diagram.packet(packet, &payload(packet), chosen);
            }
            diagram.finish().unwrap().1.lines().map(str::to_owned).collect()
        };
        let hostile = diagram(device, comm, &Chosen(format!("{other}{}", String::from_utf8_lossy(&odd))));
        let tame = diagram(*b"tame\0\0\0\0\0\0\0\0\0\0\0\0", *b"tame\0\0\0\0\0\0\0\0\0\0\0\0", &Chosen("tame".to_owned()));
        // The same lines say the same kinds of things, and only what is text differs.
        prop_assert_eq!(hostile.len(), tame.len());
        let kind = |line: &str| line.split_once([':', '/']).map_or(line, |(kind, _)| kind).split(" as ").next().unwrap_or("").to_owned();
        for (line, other) in hostile.iter().zip(&tame) {
            let is_name = line.trim_start().starts_with("box ") || line.trim_start().starts_with("participant ");
            let text = if is_name { line.as_str() } else { line.split_once(": ").map_or("", |(_, text)| text) };
            prop_assert!(text.split(' ').all(|word| is_name && word == text || word != "end"), "{}", line);
            prop_assert!(!text.contains(['%', '{', '}', '"', '`', '\t', '\u{2028}']), "{}", line);
            if !is_name {
                prop_assert_eq!(kind(line), kind(other));
            }
        }
    }
}
