//! Recordings for tests: made-up traffic with bytes that look like packets, recorded into memory.

use std::cell::RefCell;
use std::io::{self, Write};
use std::rc::Rc;

use skbtrace_common::{DeviceKey, Digest, Event, EventFlags, Frame};

use super::frame::ETHERNET_HEADER;
use super::meta::{End, NameTable, RecordedNames, Start};
use super::rotate::{Parts, Recorder};
use crate::trace::testkit::{BRIDGE, INIT, Lab, PEER1, PEER2, VETH1, VETH2, in_order};
use crate::trace::{StitchOptions, Stitcher};

/// Files in memory, and how many bytes fit into all of them.
#[derive(Clone, Debug)]
pub(crate) struct Memory {
    pub(crate) files: Rc<RefCell<Vec<Vec<u8>>>>,
    pub(crate) room: usize,
}

/// One of them.
#[derive(Debug)]
pub(crate) struct MemoryFile(Memory, usize);

impl Memory {
    pub(crate) fn new() -> Memory {
        Memory { files: Rc::default(), room: usize::MAX }
    }

    pub(crate) fn file(&self, index: usize) -> Vec<u8> {
        self.files.borrow()[index].clone()
    }

    fn used(&self) -> usize {
        self.files.borrow().iter().map(Vec::len).sum()
    }
}

impl Parts for Memory {
    type Out = MemoryFile;

    fn open(&mut self, part: u32) -> io::Result<MemoryFile> {
        let mut files = self.files.borrow_mut();
        files.push(Vec::new());
        assert_eq!(files.len(), part as usize);
        Ok(MemoryFile(self.clone(), part as usize - 1))
    }

    fn cut(&mut self, out: &mut MemoryFile, length: u64) -> io::Result<()> {
        self.files.borrow_mut()[out.1].truncate(length as usize);
        Ok(())
    }
}

impl Write for MemoryFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(self.0.room - self.0.used());
        if count == 0 && !bytes.is_empty() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.0.files.borrow_mut()[self.1].extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An event and the bytes that the kernel side would send with it.
pub(crate) type Seen = (Event, Vec<u8>);

/// Gives an event of an IPv4 packet the bytes that its fields promise, from the network header on or from the Ethernet
/// header on. What is no IPv4 has none.
pub(crate) fn with_bytes(event: Event, snaplen: u16, ethernet: bool) -> Seen {
    let l4: &[u8] = match event.l4_proto {
        _ if event.flags & EventFlags::L4 == 0 => return (event, Vec::new()),
        6 => &[5 << 4, event.tcp_flags, 255, 255, 0, 0, 0, 0],
        17 => &[],
        _ => return (event, Vec::new()),
    };
    let mut transport = [event.sport.to_be_bytes(), event.dport.to_be_bytes()].concat();
    match event.l4_proto {
        6 => transport.extend([&event.seq.to_be_bytes()[..], &event.ack.to_be_bytes(), l4].concat()),
        _ => transport.extend([&(event.payload_len as u16 + 8).to_be_bytes()[..], &[0, 0]].concat()),
    }
    let total = 20 + transport.len() as u32 + event.payload_len;
    let mut ip = vec![0x45, 0];
    ip.extend((total as u16).to_be_bytes());
    ip.extend(event.ip_id.to_be_bytes());
    ip.extend([0x40, 0, event.ttl, event.l4_proto, 0, 0]);
    ip.extend([&event.saddr[12..], &event.daddr[12..]].concat());
    let sum: u32 = ip.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    let mac = if ethernet { [&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1][..], &[8, 0]].concat() } else { Vec::new() };
    assert!(mac.len() == ETHERNET_HEADER || !ethernet);
    let mut bytes = [mac, ip, transport, vec![b'x'; event.payload_len as usize]].concat();
    bytes.truncate(usize::from(snaplen));
    let frame = if ethernet { Frame::ETHERNET } else { Frame::NETWORK };
    let flags = event.flags | if event.step.is_multiple_of(2) { EventFlags::DIGEST } else { 0 };
    (Event { caplen: bytes.len() as u16, frame, flags, ..event }, bytes)
}

/// The digest that comes with this event: made up, and different for each; none where the event has none.
pub(crate) fn digest_of(event: &Event) -> Digest {
    if event.flags & EventFlags::DIGEST == 0 {
        return Digest::default();
    }
    let blocks = std::array::from_fn(|n| event.time_ns.wrapping_mul(n as u64 + 1));
    Digest { blocks, plain: event.packet, start: event.seq, bytes: event.payload_len, state: 3, ..Digest::default() }
}

/// All kinds of traffic of the lab, so many rounds of it.
pub(crate) fn traffic(rounds: u32) -> Vec<Seen> {
    let mut lab = Lab::new();
    let mut packets = Vec::new();
    for round in 0..rounds {
        let id = u64::from(round) * 10 + 1;
        packets.push(lab.tcp_control(id, 0x10, 1000 + round));
        packets.push(lab.tcp_data(id + 1, 1001 + round * 77, 77));
        packets.push(lab.udp(id + 2, round as u16));
        packets.push(lab.udp_dropped(id + 3, round as u16));
        packets.push(lab.arp(id + 4));
        let tapped = lab.udp(id + 5, round as u16 + 7);
        let clone = lab.clone_of(id + 6, &tapped[7]);
        packets.push(tapped);
        packets.push(clone.hop(skbtrace_common::HopId::PacketRcv, 100, VETH2, 92).events);
        // Left open.
        packets.push(lab.datagram(id + 7, round as u16).events);
    }
    let events = in_order(packets);
    events.into_iter().enumerate().map(|(n, event)| with_bytes(event, 128, n % 3 == 0)).collect()
}

/// Names of the made-up host.
pub(crate) fn names() -> RecordedNames {
    let start = start();
    let symbols = [(0xffff_ffff_8188_0044, "nf_hook_slow+0x44".to_owned())].into();
    RecordedNames { symbols, ..start.recorded_names() }
}

/// The start of a recording of it.
pub(crate) fn start() -> Start {
    let target = Some(DeviceKey { netns: VETH2.netns, ifindex: VETH2.ifindex });
    let bridge = BRIDGE.name.to_owned();
    Start {
        recording: "1-1".to_owned(),
        tool: "0.0.0".to_owned(),
        kernel: "6.1.0-test".to_owned(),
        machine: "x86_64".to_owned(),
        clock_offset_ns: 1_700_000_000_000_000_000,
        snaplen: 128,
        preface: vec!["calmveth2 ═ calmveth1".to_owned(), "34 of 34 hops traced".to_owned()],
        reasons: [(2, "SKB_DROP_REASON_NOT_SPECIFIED".to_owned()), (8, "SKB_DROP_REASON_NETFILTER_DROP".to_owned())]
            .into(),
        names: NameTable {
            netns: [(INIT, "init"), (VETH1.netns, "ns-calm1"), (VETH2.netns, "ns-calm2")]
                .map(|(inum, name)| (inum, name.to_owned()))
                .into(),
            bridges: [(INIT, [(PEER1.ifindex, bridge.clone()), (PEER2.ifindex, bridge)].into())].into(),
        },
        ..Start::of(&StitchOptions { target, ..Default::default() })
    }
}

/// A recording of these events, with its end.
pub(crate) fn recorded(seen: &[Seen]) -> Vec<u8> {
    let memory = Memory::new();
    let mut recorder = Recorder::new(memory.clone(), start(), None).unwrap();
    let stitcher = Stitcher::new(StitchOptions::default());
    for (event, bytes) in seen {
        recorder.event(event, &digest_of(event), bytes, &[], &stitcher, &names()).unwrap();
    }
    recorder.end(End { finished: true, why: "SIGINT".to_owned(), ..End::default() }).unwrap();
    memory.file(0)
}
