//! The bytes of a payload before and after a change, as text and as JSON.

use skbtrace_common::{Digest, DigestState, Event, EventFlags, HopId};

use super::LabNames;
use crate::render::{Json, Style, Text};
use crate::store::testkit::with_bytes;
use crate::trace::testkit::Lab;
use crate::trace::{Packet, StitchOptions, Stitcher};
use crate::verdict::payload;

/// A segment of 200 bytes whose byte at `at` is another from veth_xmit on, copied so far at each hop.
fn garbled(at: usize, snaplen: u16, kept: usize) -> Packet {
    garbled_at(&[at], snaplen, kept)
}

/// The same, and the next of these bytes from each hop behind that on.
fn garbled_at(places: &[usize], snaplen: u16, kept: usize) -> Packet {
    let mut stitcher = Stitcher::new(StitchOptions { payload: kept, ..Default::default() });
    let mut packets = Vec::new();
    let mut behind = 0;
    for event in Lab::new().tcp_data(1, 100, 200) {
        if behind > 0 || event.hop == HopId::VethXmit as u16 {
            behind = places.len().min(behind + 1);
        }
        let mut bytes: Vec<u8> = (b'A'..=b'Z').cycle().take(200).collect();
        places[..behind].iter().for_each(|at| bytes[*at] ^= 0x80);
        let (event, frame) = with_bytes(event, 40, false);
        let frame = [&frame[..], &bytes].concat();
        let frame = frame.get(..usize::from(snaplen)).unwrap_or(&frame);
        let digest = match event.flags & EventFlags::END {
            0 => digest(event.seq, behind),
            _ => Digest::default(),
        };
        stitcher.push_copied(&Event { caplen: frame.len() as u16, ..event }, &digest, frame, &mut |p| packets.push(p));
    }
    packets.remove(0)
}

/// As little of a digest as tells that it is another.
fn digest(start: u32, behind: usize) -> Digest {
    let blocks = [(behind as u64) << 62 | 12345, 0, 0, 0, 0, 0, 0, 0];
    Digest { blocks, start, bytes: 200, state: DigestState::WHOLE, l4_header_len: 20, ..Digest::default() }
}

/// What is said below the timeline.
fn below(packet: &Packet, style: Style) -> String {
    let mut out = Vec::new();
    Text::new(style).packet(&mut out, packet, &payload(packet), &LabNames).unwrap();
    let text = String::from_utf8(out).unwrap();
    let lines: Vec<&str> = text.lines().skip_while(|line| !line.contains("bytes of the payload")).collect();
    lines.join("\n")
}

const WANTED: Style = Style { colour: false, explain: false, diff: false, payload: Some(256) };

#[test]
fn the_lines_around_the_first_difference_are_shown() {
    insta::assert_snapshot!(below(&garbled(101, 512, 256), WANTED), @r"
    bytes of the payload at __dev_queue_xmit (-) and at veth_xmit (+):
         32  47 48 49 4a 4b 4c 4d 4e 4f 50 51 52 53 54 55 56  GHIJKLMNOPQRSTUV
         48  57 58 59 5a 41 42 43 44 45 46 47 48 49 4a 4b 4c  WXYZABCDEFGHIJKL
         64  4d 4e 4f 50 51 52 53 54 55 56 57 58 59 5a 41 42  MNOPQRSTUVWXYZAB
         80  43 44 45 46 47 48 49 4a 4b 4c 4d 4e 4f 50 51 52  CDEFGHIJKLMNOPQR
    -    96  53 54 55 56 57 58 59 5a 41 42 43 44 45 46 47 48  STUVWXYZABCDEFGH
    +    96  53 54 55 56 57 d8 59 5a 41 42 43 44 45 46 47 48  STUVW.YZABCDEFGH
                            ^^
        112  49 4a 4b 4c 4d 4e 4f 50 51 52 53 54 55 56 57 58  IJKLMNOPQRSTUVWX
        128  59 5a 41 42 43 44 45 46 47 48 49 4a 4b 4c 4d 4e  YZABCDEFGHIJKLMN
        144  4f 50 51 52 53 54 55 56 57 58 59 5a 41 42 43 44  OPQRSTUVWXYZABCD
        160  45 46 47 48 49 4a 4b 4c 4d 4e 4f 50 51 52 53 54  EFGHIJKLMNOPQRST
    ");
    // At the ends there is less around it.
    insta::assert_snapshot!(below(&garbled(0, 512, 256), WANTED), @r"
    bytes of the payload at __dev_queue_xmit (-) and at veth_xmit (+):
    -     0  41 42 43 44 45 46 47 48 49 4a 4b 4c 4d 4e 4f 50  ABCDEFGHIJKLMNOP
    +     0  c1 42 43 44 45 46 47 48 49 4a 4b 4c 4d 4e 4f 50  .BCDEFGHIJKLMNOP
             ^^
         16  51 52 53 54 55 56 57 58 59 5a 41 42 43 44 45 46  QRSTUVWXYZABCDEF
         32  47 48 49 4a 4b 4c 4d 4e 4f 50 51 52 53 54 55 56  GHIJKLMNOPQRSTUV
         48  57 58 59 5a 41 42 43 44 45 46 47 48 49 4a 4b 4c  WXYZABCDEFGHIJKL
         64  4d 4e 4f 50 51 52 53 54 55 56 57 58 59 5a 41 42  MNOPQRSTUVWXYZAB
    ");
    insta::assert_snapshot!(below(&garbled(199, 512, 256), WANTED), @r"
    bytes of the payload at __dev_queue_xmit (-) and at veth_xmit (+):
        128  59 5a 41 42 43 44 45 46 47 48 49 4a 4b 4c 4d 4e  YZABCDEFGHIJKLMN
        144  4f 50 51 52 53 54 55 56 57 58 59 5a 41 42 43 44  OPQRSTUVWXYZABCD
        160  45 46 47 48 49 4a 4b 4c 4d 4e 4f 50 51 52 53 54  EFGHIJKLMNOPQRST
        176  55 56 57 58 59 5a 41 42 43 44 45 46 47 48 49 4a  UVWXYZABCDEFGHIJ
    -   192  4b 4c 4d 4e 4f 50 51 52                          KLMNOPQR
    +   192  4b 4c 4d 4e 4f 50 51 d2                          KLMNOPQ.
                                  ^^
    ");
    assert_eq!(below(&garbled(101, 512, 256), Style { payload: None, ..WANTED }), "");
}

#[test]
fn a_payload_that_changes_again_is_shown_again() {
    let packet = garbled_at(&[3, 5], 512, 256);
    let mut out = Vec::new();
    Text::new(Style { payload: Some(8), ..WANTED }).packet(&mut out, &packet, &payload(&packet), &LabNames).unwrap();
    let text = String::from_utf8(out).unwrap();
    let told =
        "GARBLED between __dev_queue_xmit and veth_xmit, again between veth_xmit and __dev_forward_skb; delivered";
    assert!(text.lines().next().unwrap().contains(told), "{text}");
    let rows = text.lines().filter(|line| line.contains("◀ payload changed"));
    let marked = rows.map(|row| ["veth_xmit", "__dev_forward_skb"].map(|hop| row.contains(hop)));
    assert_eq!(marked.collect::<Vec<_>>(), [[true, false], [false, true]], "{text}");
    assert_eq!(text.matches("bytes of the payload at").count(), 2);
    let mut out = Vec::new();
    Json::default().packet(&mut out, &packet, &payload(&packet), &LabNames).unwrap();
    let line: serde_json::Value = serde_json::from_slice(&out).unwrap();
    assert!(validator().is_valid(&line), "{line:#}");
    let again = &line["payload"]["again"];
    assert_eq!((again.as_array().unwrap().len(), &again[0]["after"]["hop"]), (1, &"__dev_forward_skb".into()));
}

#[test]
fn on_a_terminal_the_bytes_that_differ_are_painted() {
    let text = below(&garbled(101, 512, 256), Style { colour: true, ..WANTED });
    assert!(text.contains("\x1b[31m58\x1b[0m") && text.contains("\x1b[31md8\x1b[0m"), "{text:?}");
    assert_eq!(text.matches("\x1b[31m").count(), 2);
}

#[test]
fn where_there_are_no_bytes_it_is_said_how_to_get_them() {
    insta::assert_snapshot!(below(&garbled(101, 512, 64), Style { payload: Some(64), ..WANTED }), @r"
        bytes of the payload: the first 64 are the same at both hops, and the change is behind them; `--payload=200` goes further
    ");
    insta::assert_snapshot!(below(&garbled(101, 96, 256), WANTED), @r"
        bytes of the payload: the first 56 are the same at both hops, and the change is behind them; `run --payload=200` goes further
    ");
    insta::assert_snapshot!(below(&garbled(101, 20, 256), WANTED), @r"
        bytes of the payload: none were copied at __dev_queue_xmit; `run --payload` does, recorded or not
    ");
}

fn validator() -> jsonschema::Validator {
    let schema = serde_json::from_str(include_str!("../../../schema/packet.schema.json")).unwrap();
    jsonschema::draft202012::new(&schema).unwrap()
}

#[test]
fn programs_get_the_same_bytes() {
    let validator = validator();
    let json = |packet: &Packet| {
        let mut out = Vec::new();
        Json::default().packet(&mut out, packet, &payload(packet), &LabNames).unwrap();
        let line: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert!(validator.is_valid(&line), "{line:#}");
        line["payload"].clone()
    };
    let bytes = &json(&garbled(101, 512, 256))["bytes"];
    let of = |side: &str| bytes[side].as_str().unwrap().to_owned();
    assert_eq!((bytes["offset"].as_u64(), of("before").len()), (Some(32), 9 * 32));
    let at = (101 - 32) * 2;
    assert_eq!((&of("before")[at..at + 2], &of("after")[at..at + 2]), ("58", "d8"));
    assert_eq!(of("before")[..at], of("after")[..at]);
    assert_eq!(json(&garbled(101, 512, 256)).get("again"), None);
    assert_eq!(json(&garbled(101, 512, 0)).get("bytes"), None);
    assert_eq!(json(&garbled(101, 96, 256)).get("bytes"), None);
}
