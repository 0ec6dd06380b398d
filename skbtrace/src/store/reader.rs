//! Reads recordings, from anybody: the bytes may be damaged, cut off, of another tool, or made to do harm. All that
//! comes before the first fault is handed out, nothing after it. Every text of a record comes out safe to print.

use std::cell::Cell;
use std::io::{self, BufReader, Read};

use serde::Deserialize;
use skbtrace_common::{Digest, Event, HopId};

use super::meta::{FORMAT, Record, Start};
use super::pcapng::{
    BYTE_ORDER, Fault, INTERFACE, LOCAL, MAX_BLOCK, MIN_BLOCK, PACKET, PEN, SECTION, is_sealed, open, opened, option,
    options, u32_at,
};
use super::{EVENT_TAG, RECORD_TAG};
use crate::hops;
use crate::name::{printable, still_printable};
use crate::trace::{DIGEST_SIZE, EVENT_SIZE, decode};

/// An event and the digest of its payload.
const WITH_DIGEST: usize = EVENT_SIZE + DIGEST_SIZE;

/// Why a recording cannot be read, or not further.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The input failed.
    #[error("cannot read: {0}")]
    Io(#[from] io::Error),
    /// There is nothing.
    #[error("it is empty: nothing was recorded")]
    Empty,
    /// It is something else.
    #[error("it is {0}")]
    NotRecording(String),
    /// It comes from a machine of the other byte order.
    #[error("it was recorded on a machine of the other byte order: show it on one of that kind")]
    ByteOrder,
    /// The format is not ours.
    #[error(
        "it was recorded by skbtrace {tool} in format {version}, and this is skbtrace {} with format {FORMAT}: use that version to show it",
        env!("CARGO_PKG_VERSION")
    )]
    Version {
        /// The version that wrote it.
        tool: String,
        /// Its format.
        version: u64,
    },
    /// It is damaged.
    #[error("damaged at byte {offset} (block {block}): {fault}")]
    Damaged {
        /// Where the block begins that cannot be read.
        offset: u64,
        /// Its number in its section, from 0.
        block: u32,
        /// What is wrong with it.
        fault: Fault,
    },
}

/// What comes next in a recording.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all are events, and a box for each would cost more than its size"
)]
pub enum Item<'a> {
    /// An event, the digest of its payload, and the packet's bytes.
    Event(Event, Digest, &'a [u8]),
    /// Anything else.
    Record(Record),
}

/// Reads a file of a recording, or several one after another.
#[derive(Debug)]
pub struct Reader<R> {
    input: BufReader<R>,
    block: Vec<u8>,
    /// Where the block begins.
    offset: u64,
    ordinal: u32,
    interfaces: u32,
    /// Hops by the numbers in the file.
    hops: Vec<HopId>,
    /// A section has begun, and its start is still to come.
    starting: bool,
    /// Set while what is read is still borrowed.
    done: Cell<bool>,
}

/// Where a packet's bytes and its options are in a block.
struct PacketParts<'a> {
    frame: &'a [u8],
    options: &'a [u8],
}

impl<R: Read> Reader<R> {
    /// Of this input.
    pub fn new(input: R) -> Reader<R> {
        Reader {
            input: BufReader::with_capacity(1 << 16, input),
            block: Vec::new(),
            offset: 0,
            ordinal: 0,
            interfaces: 0,
            hops: Vec::new(),
            starting: false,
            done: Cell::new(false),
        }
    }

    /// The next item; `None` at the end, also after an error.
    ///
    /// # Errors
    /// When the input fails or is no recording, or at the first damage.
    pub fn next_item(&mut self) -> Result<Option<Item<'_>>, ReadError> {
        if self.done.get() {
            return Ok(None);
        }
        match self.advance() {
            Ok(true) => {}
            Ok(false) => {
                self.done.set(true);
                return Ok(None);
            }
            Err(error) => {
                self.done.set(true);
                return Err(error);
            }
        }
        let item = self.item();
        if item.is_err() {
            self.done.set(true);
        }
        item.map(Some)
    }

    /// Reads on to the next block that holds an item. `false` at the end.
    fn advance(&mut self) -> Result<bool, ReadError> {
        loop {
            if !self.read_block()? {
                if self.starting {
                    return Err(self.damaged(Fault::Torn));
                }
                return if self.offset == 0 { Err(ReadError::Empty) } else { Ok(false) };
            }
            if u32_at(&self.block, 0) == Some(SECTION) {
                self.begin_section()?;
                continue;
            }
            let opened = open(&self.block, self.ordinal).map_err(|fault| self.damaged(fault))?;
            let (kind, body) = (opened.kind, opened.body);
            if self.starting && kind != INTERFACE {
                let start = self.start_of(kind, body)?;
                self.hops = self.hops_of(&start)?;
                self.starting = false;
                return Ok(true);
            }
            match kind {
                INTERFACE => self.interfaces += 1,
                PACKET | LOCAL => return Ok(true),
                other => return Err(self.content(format!("a recording has no blocks of type {other:#x}"))),
            }
        }
    }

    /// Reads the next block, with its lengths. `false` at the end.
    fn read_block(&mut self) -> Result<bool, ReadError> {
        self.offset += self.block.len() as u64;
        if !self.block.is_empty() {
            self.ordinal = self.ordinal.wrapping_add(1);
        }
        self.block.clear();
        self.read_to(8)?;
        if self.block.is_empty() {
            return Ok(false);
        }
        if self.offset == 0
            && let Some(what) = other_format(&self.block)
        {
            return Err(ReadError::NotRecording(what));
        }
        if self.block.len() < 8 {
            return Err(self.damaged(Fault::Torn));
        }
        if self.block == [0; 8] {
            return Err(self.damaged(Fault::Zeroes));
        }
        if u32_at(&self.block, 0) == Some(SECTION) {
            self.read_to(12)?;
            match u32_at(&self.block, 8) {
                Some(BYTE_ORDER) => {}
                Some(other) if other.swap_bytes() == BYTE_ORDER => return Err(ReadError::ByteOrder),
                Some(_) => return Err(self.content("the section has no byte order".to_owned())),
                None => return Err(self.damaged(Fault::Torn)),
            }
        }
        let length = u32_at(&self.block, 4).unwrap_or(0);
        if !length.is_multiple_of(4) || !(12..=MAX_BLOCK).contains(&length) {
            return Err(self.damaged(Fault::Length(length)));
        }
        self.read_to(length as usize)?;
        if self.block.len() < length as usize {
            return Err(self.damaged(Fault::Torn));
        }
        Ok(true)
    }

    /// Reads until the block has this length, or the input ends. Room is made as bytes come, not as they are promised.
    fn read_to(&mut self, length: usize) -> io::Result<()> {
        let rest = length.saturating_sub(self.block.len()) as u64;
        self.input.by_ref().take(rest).read_to_end(&mut self.block).map(drop)
    }

    fn begin_section(&mut self) -> Result<(), ReadError> {
        if !is_sealed(&self.block) {
            return Err(self.foreign());
        }
        let expected = self.ordinal;
        self.ordinal = 0;
        if let Err(fault) = open(&self.block, 0) {
            self.ordinal = expected;
            return Err(self.damaged(fault));
        }
        if self.starting {
            return Err(self.content("a section without a start".to_owned()));
        }
        self.starting = true;
        self.interfaces = 0;
        Ok(())
    }

    /// A section of another tool, by its own words.
    fn foreign(&self) -> ReadError {
        let end = self.block.len().saturating_sub(4);
        let found = options(self.block.get(24..end).unwrap_or_default());
        let mut applications = found.filter(|(code, _)| *code == option::SECTION_APPLICATION);
        let by = applications.next().map(|(_, name)| printable(&name[..name.len().min(80)]));
        ReadError::NotRecording(match by {
            Some(by) if by.starts_with("skbtrace ") => {
                format!("a recording of {by} that another tool has rewritten, or that is damaged at its beginning")
            }
            Some(by) => format!("a pcapng file of {by}, not a recording of skbtrace: it has packets, but no hops"),
            None => {
                "a pcapng file of another tool, not a recording of skbtrace: it has packets, but no hops".to_owned()
            }
        })
    }

    /// The record that begins a section, if this version can read it.
    fn start_of(&self, kind: u32, body: &[u8]) -> Result<Start, ReadError> {
        #[derive(Deserialize)]
        struct Probe {
            start: Versions,
        }
        #[derive(Deserialize)]
        struct Versions {
            version: u64,
            tool: String,
        }
        let json = if kind == LOCAL { json_of(body) } else { None };
        let Some(json) = json else {
            return Err(self.content("the section does not begin with a record of skbtrace".to_owned()));
        };
        let probe: Probe = serde_json::from_slice(json).map_err(|error| self.content(error.to_string()))?;
        if probe.start.version != u64::from(FORMAT) {
            let tool = still_printable(&probe.start.tool);
            return Err(ReadError::Version { tool, version: probe.start.version });
        }
        match serde_json::from_slice(json).map(Record::made_safe) {
            Ok(Record::Start(start)) => Ok(*start),
            Ok(_) => Err(self.content("the section does not begin with its start".to_owned())),
            Err(error) => Err(self.content(error.to_string())),
        }
    }

    fn hops_of(&self, start: &Start) -> Result<Vec<HopId>, ReadError> {
        let known: Option<Vec<HopId>> = start.hops.iter().map(|name| hops::named(name)).collect();
        known.ok_or_else(|| ReadError::Version { tool: start.tool.clone(), version: u64::from(start.version) })
    }

    /// What the block holds. Its seal has been looked at.
    fn item(&self) -> Result<Item<'_>, ReadError> {
        let opened = opened(&self.block);
        if opened.kind == LOCAL {
            let json = json_of(opened.body).ok_or_else(|| self.content("no record of skbtrace".to_owned()))?;
            let record: Record = serde_json::from_slice(json).map_err(|error| self.content(error.to_string()))?;
            return Ok(Item::Record(record.made_safe()));
        }
        let parts =
            packet_parts(opened.body).ok_or_else(|| self.content("the packet's block is too short".to_owned()))?;
        if u32_at(opened.body, 0).is_none_or(|interface| interface >= self.interfaces) {
            return Err(self.content("the packet is at an interface that was not described".to_owned()));
        }
        let mark = [&PEN.to_ne_bytes()[..], EVENT_TAG].concat();
        let mut found = options(parts.options).filter(|(code, _)| *code == option::CUSTOM);
        let Some(event) = found.find_map(|(_, value)| value.strip_prefix(&mark[..])) else {
            return Err(self.content("the packet has no event".to_owned()));
        };
        let (event, digest, bytes) = self.event(event, parts.frame)?;
        Ok(Item::Event(event, digest, bytes))
    }

    fn event<'a>(&self, event: &[u8], frame: &'a [u8]) -> Result<(Event, Digest, &'a [u8]), ReadError> {
        let mut record = event.to_vec();
        // A number of this file stands for a hop that may have another number here.
        let at = std::mem::offset_of!(Event, hop);
        if let Some(field) = record.get_mut(at..at + 2) {
            let number = u16::from_ne_bytes([field[0], field[1]]);
            let Some(hop) = self.hops.get(usize::from(number)) else {
                return Err(self.content(format!("hop number {number} has no name")));
            };
            field.copy_from_slice(&(*hop as u16).to_ne_bytes());
        }
        // The last bytes of the frame are the packet's own; a header may have been put before them.
        let at = std::mem::offset_of!(Event, caplen);
        let caplen = record.get(at..at + 2).map_or(0, |field| usize::from(u16::from_ne_bytes([field[0], field[1]])));
        let bytes = frame.len().checked_sub(caplen).and_then(|front| frame.get(front..));
        let Some(bytes) = bytes.filter(|_| matches!(record.len(), EVENT_SIZE | WITH_DIGEST)) else {
            return Err(self.content("the event and the packet's bytes do not match".to_owned()));
        };
        record.extend_from_slice(bytes);
        let (event, digest, rest) = decode(&record).map_err(|error| self.content(error.to_string()))?;
        if rest.len() != bytes.len() {
            return Err(self.content("the event and its digest do not match".to_owned()));
        }
        Ok((event, digest, bytes))
    }

    fn content(&self, what: String) -> ReadError {
        self.damaged(Fault::Content(printable(what.as_bytes())))
    }

    fn damaged(&self, fault: Fault) -> ReadError {
        ReadError::Damaged { offset: self.offset, block: self.ordinal, fault }
    }
}

fn json_of(body: &[u8]) -> Option<&[u8]> {
    let rest = body.strip_prefix(RECORD_TAG)?;
    rest.get(4..)?.get(..u32_at(rest, 0)? as usize)
}

fn packet_parts(body: &[u8]) -> Option<PacketParts<'_>> {
    let captured = u32_at(body, 12)? as usize;
    let rest = body.get(20..)?;
    Some(PacketParts { frame: rest.get(..captured)?, options: rest.get(captured.checked_next_multiple_of(4)?..)? })
}

/// What begins with these bytes, if it is certainly no pcapng.
fn other_format(beginning: &[u8]) -> Option<String> {
    let first = u32::from_be_bytes(beginning.get(..4)?.try_into().ok()?);
    Some(match first {
        SECTION => return None,
        0xa1b2_c3d4 | 0xd4c3_b2a1 | 0xa1b2_3c4d | 0x4d3c_b2a1 => {
            "a pcap file of another tool, not a recording of skbtrace: it has packets, but no hops".to_owned()
        }
        0x28b5_2ffd => "compressed: try `zstd -dc FILE | skbtrace show -`".to_owned(),
        other if other >> 16 == 0x1f8b => "compressed: try `gzip -dc FILE | skbtrace show -`".to_owned(),
        0xfd37_7a58 => "compressed: try `xz -dc FILE | skbtrace show -`".to_owned(),
        0 => "no recording: it begins with zeroes".to_owned(),
        _ => "no recording of skbtrace".to_owned(),
    })
}

const _: () = assert!(MIN_BLOCK > 12);
