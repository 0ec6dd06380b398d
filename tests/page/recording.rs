//! Recordings of made-up traffic, and the pages that the program makes of them.

use std::{cell::RefCell, fs, io, process::Command, rc::Rc};

use skbtrace::{
    store::{End, NameTable, Parts, RecordedNames, Recorder, Start},
    trace::{StitchOptions, Stitcher},
};
use skbtrace_common::{DeviceKey, Digest, DigestState, Event, EventFlags, Frame, HopId};

use crate::testkit::{BRIDGE, INIT, Lab, PEER1, PEER2, Trip, VETH1, VETH2};

/// An event, the digest of its payload, and the packet's bytes.
type Seen = (Event, Digest, Vec<u8>);

/// A file in memory.
#[derive(Clone, Default)]
struct Memory(Rc<RefCell<Vec<u8>>>);

impl io::Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Parts for Memory {
    type Out = Memory;

    fn open(&mut self, _part: u32) -> io::Result<Memory> {
        Ok(self.clone())
    }

    fn cut(&mut self, _out: &mut Memory, length: u64) -> io::Result<()> {
        self.0.borrow_mut().truncate(length as usize);
        Ok(())
    }
}

fn start() -> Start {
    let target = Some(DeviceKey { netns: VETH2.netns, ifindex: VETH2.ifindex });
    let bridge = BRIDGE.name.to_owned();
    let netns = [(INIT, "init"), (VETH1.netns, "ns-calm1"), (VETH2.netns, "ns-calm2")];
    Start {
        recording: "1-1".to_owned(),
        kernel: "6.1.0-test".to_owned(),
        machine: "x86_64".to_owned(),
        clock_offset_ns: 1_700_000_000_000_000_000,
        snaplen: 256,
        preface: vec!["calmveth2 ═ calmveth1".to_owned(), "34 of 34 hops traced".to_owned()],
        reasons: [(8, "SKB_DROP_REASON_NETFILTER_DROP".to_owned())].into(),
        names: NameTable {
            netns: netns.map(|(inum, name)| (inum, name.to_owned())).into(),
            bridges: [(INIT, [(PEER1.ifindex, bridge.clone()), (PEER2.ifindex, bridge)].into())].into(),
        },
        ..Start::of(&StitchOptions { target, ..Default::default() })
    }
}

fn recorded(seen: &[Seen]) -> Vec<u8> {
    let start = start();
    let symbols = [(0xffff_ffff_8188_0044, "nf_hook_slow+0x44".to_owned())].into();
    let names = RecordedNames { symbols, ..start.recorded_names() };
    let memory = Memory::default();
    let mut recorder = Recorder::new(memory.clone(), start, None).unwrap();
    let stitcher = Stitcher::new(StitchOptions::default());
    for (event, digest, bytes) in seen {
        recorder.event(event, digest, bytes, &[], &stitcher, &names).unwrap();
    }
    recorder.end(End { finished: true, why: "SIGINT".to_owned(), ..End::default() }).unwrap();
    memory.0.take()
}

fn plain(events: Vec<Event>) -> Vec<Seen> {
    events.into_iter().map(|event| (event, Digest::default(), Vec::new())).collect()
}

/// A segment of 64 bytes whose byte 20 is another from veth_xmit on.
fn garbled(lab: &mut Lab) -> Vec<Seen> {
    let mut behind = false;
    let events = lab.tcp_data(1, 100, 64).into_iter().map(|event| {
        behind |= event.hop == HopId::VethXmit as u16;
        let mut bytes: Vec<u8> = (b'a'..=b'z').cycle().take(64).collect();
        bytes[20] ^= u8::from(behind) << 5;
        // As much of headers as it takes to find the payload behind them.
        let frame = [&[0x45; 1][..], &[0; 39], &bytes].concat();
        let blocks = [u64::from(behind) << 63 | 12345, 0, 0, 0, 0, 0, 0, 0];
        let whole = DigestState::WHOLE;
        let digest =
            Digest { blocks, start: event.seq, bytes: 64, state: whole, l4_header_len: 20, ..Digest::default() };
        if event.flags & EventFlags::END != 0 {
            return (event, Digest::default(), Vec::new());
        }
        let (flags, frame_kind) = (event.flags | EventFlags::DIGEST, Frame::NETWORK);
        (Event { caplen: frame.len() as u16, frame: frame_kind, flags, ..event }, digest, frame)
    });
    events.collect()
}

/// How many hops the packet that is garbled has, its end not among them.
pub fn hops_of_garbled() -> usize {
    garbled(&mut Lab::new()).iter().filter(|(event, ..)| event.flags & EventFlags::END == 0).count()
}

/// A segment that is garbled, one that is not, a datagram that is dropped and an ARP question. The client's peer has this name.
pub fn mixed(peer: &[u8]) -> Vec<u8> {
    let mut lab = Lab::new();
    let mut seen = garbled(&mut lab);
    seen.extend(plain(lab.udp(2, 2)));
    seen.extend(plain(lab.udp_dropped(3, 3)));
    seen.extend(plain(lab.arp(4)));
    for (event, ..) in &mut seen {
        for name in [&mut event.dev, &mut event.dev2] {
            if name.starts_with(b"calmveth2_peer") {
                *name = [0; 16];
                name[..peer.len()].copy_from_slice(peer);
            }
        }
    }
    recorded(&seen)
}

/// So many segments, as tracepoints see them.
pub fn many(count: u64) -> Vec<u8> {
    let mut lab = Lab::new();
    let events = (1..=count).flat_map(|id| lab.seen_data(id, id as u32 * 7, 7).seen_read(4_000, 7).events);
    recorded(&plain(events.collect()))
}

/// A packet that takes so long from hop to hop.
pub fn lasting(spans: &[u64]) -> Vec<u8> {
    let trip = Trip::new(1, 1_000_000).addresses(17, (10, 40_000), (11, 9000)).datagram(1, 64).process(400, "sender");
    let trip = trip.hop(HopId::IpOutput, 0, VETH2, 92);
    let trip = spans.iter().fold(trip, |trip, span| trip.hop(HopId::DevQueueXmit, *span, VETH2, 92));
    recorded(&plain(trip.end(HopId::ConsumeSkb, 5).events))
}

/// A recording that ends in the middle of a block.
pub fn damaged() -> Vec<u8> {
    let mut whole = mixed(b"calmveth2_peer");
    whole.truncate(whole.len() - 900);
    whole
}

/// The page that the program makes of a recording.
pub fn report(recording: &[u8]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let (file, page) = (folder.path().join("trace.pcapng"), folder.path().join("page.html"));
    fs::write(&file, recording).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_skbtrace"));
    let done = command.arg("report").arg(&file).arg("-o").arg(&page).output().unwrap();
    fs::read_to_string(&page).unwrap_or_else(|error| panic!("no page ({error}): {done:?}"))
}
