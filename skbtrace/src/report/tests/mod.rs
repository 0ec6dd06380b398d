//! A recording as a page, as a trace and as a diagram, on made-up traffic. Here: what all of them start from.

mod hostile;
mod mermaid;
mod page;
mod perfetto;

use serde_json::Value;
use skbtrace_common::{Digest, DigestState, Event, EventFlags, HopId};

use super::{About, Page};
use crate::render::{HostOf, Names};
use crate::store::testkit::{names, with_bytes};
use crate::trace::testkit::{Lab, VETH2};
use crate::trace::{Packet, StitchOptions, Stitcher, Summary};
use crate::verdict::{Findings, explain, payload};

/// The packets of these events, and the books.
fn stitched(events: &[Event]) -> (Vec<Packet>, Summary) {
    let reasons = names().reasons;
    let mut stitcher = Stitcher::new(StitchOptions { reasons, ..Default::default() });
    let mut packets = Vec::new();
    for event in events {
        stitcher.push(event, &mut |packet| packets.push(packet));
    }
    stitcher.finish(9_000_000_000, &mut |packet| packets.push(packet));
    (packets, stitcher.summary().clone())
}

/// A segment of 64 bytes, one of which is another from veth_xmit on, with its bytes.
fn garbled(lab: &mut Lab, id: u64) -> Packet {
    garbled_at(lab, id, &[20])
}

/// The same, and the next of these bytes from each hop behind that on.
fn garbled_at(lab: &mut Lab, id: u64, places: &[usize]) -> Packet {
    let mut stitcher = Stitcher::new(StitchOptions { payload: 64, ..Default::default() });
    let mut packets = Vec::new();
    let mut behind = 0;
    for event in lab.tcp_data(id, 100, 64) {
        if behind > 0 || event.hop == HopId::VethXmit as u16 {
            behind = places.len().min(behind + 1);
        }
        let (event, headers) = with_bytes(event, 40, false);
        let mut bytes: Vec<u8> = (b'a'..=b'z').cycle().take(64).collect();
        places[..behind].iter().for_each(|at| bytes[*at] ^= 0x20);
        let frame = [&headers[..], &bytes].concat();
        let blocks = [(behind as u64) << 62 | 12345, 0, 0, 0, 0, 0, 0, 0];
        let whole = DigestState::WHOLE;
        let digest =
            Digest { blocks, start: event.seq, bytes: 64, state: whole, l4_header_len: 20, ..Digest::default() };
        let digest = if event.flags & EventFlags::END == 0 { digest } else { Digest::default() };
        let event = Event { caplen: frame.len() as u16, ..event };
        stitcher.push_copied(&event, &digest, &frame, &mut |it| packets.push(it));
    }
    packets.remove(0)
}

/// A page of these packets, with what is found in them.
fn page(packets: &[Packet], summary: Option<&Summary>, names: &dyn Names, most: usize) -> Page {
    let mut page = Page::new(most);
    page.begin(About {
        file: "trace.pcapng".to_owned(),
        tool: "0.0.0".to_owned(),
        kernel: "6.1.0-test".to_owned(),
        machine: "x86_64".to_owned(),
        preface: vec!["calmveth2 ═ calmveth1".to_owned()],
        clock_offset_ns: 1_700_000_000_000_000_000,
        target: Some((VETH2.netns, VETH2.ifindex)),
        ..About::default()
    });
    let mut findings = Findings::default();
    for packet in packets {
        let payload = payload(packet);
        findings.observe(packet, &payload, &|address| names.symbol(address));
        page.packet(packet, &payload, names);
    }
    let found = findings.all().into_iter().map(|finding| explain(finding, None, &HostOf(names)));
    page.findings(&found.collect::<Vec<_>>(), names);
    if let Some(summary) = summary {
        page.summary(summary, names);
    }
    page
}

/// The data in a page, as its script reads it.
fn data_of(page: Page) -> Value {
    let html = page.finish(None).unwrap();
    let (_, rest) = html.split_once("<script type=\"application/json\" id=\"data\">").unwrap();
    let (data, _) = rest.split_once("</script>").unwrap();
    serde_json::from_str(data).unwrap()
}
