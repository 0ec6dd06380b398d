//! Writes one file of a recording: blocks are put together in memory, and only whole ones are handed on.

use std::collections::HashMap;
use std::io::{self, Write};

use skbtrace_common::{DeviceKey, Digest, Event, EventFlags, HopId};

use super::frame::{ETHERNET_HEADER, header, original_length};
use super::meta::{NameTable, Record, Start};
use super::pcapng::{BYTE_ORDER, Block, ETHERNET, INTERFACE, LOCAL, PACKET, PEN, SECTION, option};
use super::{EVENT_TAG, RECORD_TAG};
use crate::hops::{Role, hop};
use crate::name::printable;
use crate::trace::{encode, encode_digest};

/// So much is gathered before it is written.
const BUFFER: usize = 1 << 16;

/// Which interface of the file a packet was at: a device by its place and its name at that time, or none.
type InterfaceKey = Option<(DeviceKey, [u8; 16])>;

/// How much of the file is certain.
#[derive(Clone, Copy, Debug, Default)]
struct Mark {
    length: u64,
    ordinal: u32,
    events: u64,
}

/// A file of a recording that is being written.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    buffer: Vec<u8>,
    /// With what is in the buffer.
    now: Mark,
    /// Without.
    written: Mark,
    interfaces: HashMap<InterfaceKey, u32>,
    names: NameTable,
    clock_offset_ns: i64,
    snaplen: u16,
}

impl<W: Write> Writer<W> {
    /// Begins a file.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn new(out: W, start: &Start) -> io::Result<Writer<W>> {
        let mut writer = Writer {
            out,
            buffer: Vec::with_capacity(BUFFER * 2),
            now: Mark::default(),
            written: Mark::default(),
            interfaces: HashMap::new(),
            names: start.names.clone(),
            clock_offset_ns: start.clock_offset_ns,
            snaplen: start.snaplen,
        };
        writer.block(SECTION, |block| {
            block
                .u32(BYTE_ORDER)
                .u16(1)
                .u16(0)
                // The length of the section is not known: -1.
                .u32(u32::MAX)
                .u32(u32::MAX)
                .text(option::SECTION_HARDWARE, &start.machine)
                .text(option::SECTION_OS, &format!("Linux {}", start.kernel))
                .text(option::SECTION_APPLICATION, &format!("skbtrace {}", start.tool));
        });
        // At once, since Wireshark takes the link type of the file from the blocks before the first of another kind, and
        // does not save a file that has none there.
        writer.interface(None);
        writer.record(&Record::Start(Box::new(start.clone())))?;
        writer.flush()?;
        Ok(writer)
    }

    /// Writes an event, the packet's bytes that came with it, and remarks for a reader of the packet.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn event(&mut self, event: &Event, digest: &Digest, bytes: &[u8], remarks: &[String]) -> io::Result<()> {
        let device = DeviceKey { netns: event.netns, ifindex: event.ifindex };
        let interface = self.interface((event.ifindex != 0).then_some((device, event.dev)));
        let header = header(event, bytes);
        let front = header.as_ref().map_or(&[][..], |header| &header[..]);
        let frame = [front, bytes].concat();
        let time = event.time_ns.wrapping_add_signed(self.clock_offset_ns);
        self.now.events += 1;
        self.block(PACKET, |block| {
            block
                .u32(interface)
                .u32((time >> 32) as u32)
                .u32(time as u32)
                .u32(frame.len() as u32)
                .u32(original_length(event, &frame))
                .bytes(&frame)
                .pad()
                .text(option::COMMENT, &comment(event));
            for remark in remarks {
                block.text(option::COMMENT, remark);
            }
            let flags = packet_flags(event);
            if flags != 0 {
                block.option(option::PACKET_FLAGS, &flags.to_ne_bytes());
            }
            let mut exact = [&PEN.to_ne_bytes()[..], EVENT_TAG, &encode(event)].concat();
            if event.flags & EventFlags::DIGEST != 0 {
                exact.extend_from_slice(&encode_digest(digest));
            }
            block.option(option::CUSTOM, &exact);
        });
        self.flush_when_full()
    }

    /// Writes something else.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn record(&mut self, record: &Record) -> io::Result<()> {
        if let Record::Names(names) = record {
            self.names = names.clone();
        }
        let json = serde_json::to_vec(record)?;
        self.block(LOCAL, |block| {
            block.bytes(RECORD_TAG).u32(json.len() as u32).bytes(&json).pad();
        });
        self.flush_when_full()
    }

    /// Hands on all that has been written.
    ///
    /// # Errors
    /// Those of the writer. [`Writer::whole`] then says how much of the file is whole.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.write_all(&self.buffer)?;
        self.out.flush()?;
        self.buffer.clear();
        self.written = self.now;
        Ok(())
    }

    /// Length of the file, bytes, with what has not been handed on yet.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.now.length
    }

    /// Events in the file, likewise.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.now.events
    }

    /// Length of the file up to the end of the last block that was certainly written.
    #[must_use]
    pub fn whole(&self) -> u64 {
        self.written.length
    }

    /// Forgets what could not be written: the file has been cut at [`Writer::whole`], and goes on there.
    pub fn forget(&mut self) {
        self.buffer.clear();
        self.now = self.written;
    }

    /// What is written to.
    pub fn out_mut(&mut self) -> &mut W {
        &mut self.out
    }

    fn block(&mut self, kind: u32, fill: impl FnOnce(&mut Block<'_>)) {
        let before = self.buffer.len();
        let mut block = Block::new(&mut self.buffer, kind);
        fill(&mut block);
        block.seal(self.now.ordinal);
        self.now.ordinal = self.now.ordinal.wrapping_add(1);
        self.now.length += (self.buffer.len() - before) as u64;
    }

    fn flush_when_full(&mut self) -> io::Result<()> {
        if self.buffer.len() >= BUFFER { self.flush() } else { Ok(()) }
    }

    /// The interface of a device, described where it is met first.
    fn interface(&mut self, key: InterfaceKey) -> u32 {
        if let Some(index) = self.interfaces.get(&key) {
            return *index;
        }
        let index = self.interfaces.len() as u32;
        self.interfaces.insert(key, index);
        let (name, description) = match key {
            Some((device, name)) => {
                let name = printable(&name);
                let netns = self.names.netns(device.netns);
                let label = if netns == "init" { name } else { format!("{netns}/{name}") };
                (label, format!("ifindex {} in network namespace {}", device.ifindex, device.netns))
            }
            None => ("(none)".to_owned(), "hops that are at no device".to_owned()),
        };
        let longest = match self.snaplen {
            // 0 would mean that there is no limit.
            0 => 1,
            snaplen => u32::from(snaplen) + ETHERNET_HEADER as u32,
        };
        self.block(INTERFACE, |block| {
            block
                .u16(ETHERNET)
                .u16(0)
                .u32(longest)
                .text(option::INTERFACE_NAME, &name)
                .text(option::INTERFACE_DESCRIPTION, &description)
                // Nanoseconds: 10 to the power of -9.
                .option(option::INTERFACE_TIME_RESOLUTION, &[9]);
        });
        index
    }
}

/// Which hop of which packet this is.
fn comment(event: &Event) -> String {
    let hop = HopId::from_number(event.hop).map_or("unknown hop", HopId::name);
    let to = match (event.ifindex2, event.dev2[0]) {
        (0, _) => String::new(),
        (index, 0) => format!(" → if{index}"),
        _ => format!(" → {}", printable(&event.dev2)),
    };
    format!("{hop}{to} (packet {:#x}, step {})", event.packet, event.step)
}

/// Direction and cast, as far as the hop tells them (bits 0 to 1, and 2 to 4).
fn packet_flags(event: &Event) -> u32 {
    let direction = match HopId::from_number(event.hop).map(|id| hop(id).role) {
        Some(Role::Send | Role::Transmit | Role::Cross) => 2,
        Some(Role::Enqueue | Role::Receive) => 1,
        _ => 0,
    };
    // `skb->pkt_type`: HOST, BROADCAST, MULTICAST, OTHERHOST; OUTGOING says nothing of it.
    let cast = [1, 3, 2, 4].get(usize::from(event.pkt_type)).copied().unwrap_or(0);
    direction | cast << 2
}
