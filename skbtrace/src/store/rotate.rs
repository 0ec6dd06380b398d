//! A recording in the making: one file, or a row of them of limited size, each of which can be read by itself.
//!
//! A packet that is under way when a file is full has its steps in two of them. Both files say that there are such
//! packets, and a reader that is given all parts in their order sees no seam.

use std::collections::HashSet;
use std::io::{self, Write};

use skbtrace_common::{Digest, Event};

use super::meta::{End, NameTable, Record, Start};
use super::writer::Writer;
use crate::render::Names;
use crate::survey::Survey;
use crate::trace::{Losses, Stitcher};

/// Where the files of a recording come from.
pub trait Parts {
    /// What a file is written to.
    type Out: Write;

    /// Makes the file of this part; the first is 1.
    ///
    /// # Errors
    /// When it cannot be made.
    fn open(&mut self, part: u32) -> io::Result<Self::Out>;

    /// Cuts a file that could not be written on at this length, so that it ends in a whole block.
    ///
    /// # Errors
    /// When it cannot be cut.
    fn cut(&mut self, out: &mut Self::Out, length: u64) -> io::Result<()>;
}

/// Records a run.
#[derive(Debug)]
pub struct Recorder<P: Parts> {
    parts: P,
    writer: Writer<P::Out>,
    /// How the next file will begin.
    start: Start,
    limit: Option<u64>,
    /// Events in earlier parts.
    events_before: u64,
    known_places: HashSet<u64>,
}

impl<P: Parts> Recorder<P> {
    /// Begins a recording; its files have no more than `limit` bytes, as far as a single event allows.
    ///
    /// # Errors
    /// When the first file cannot be made or written.
    pub fn new(mut parts: P, start: Start, limit: Option<u64>) -> io::Result<Recorder<P>> {
        let writer = Writer::new(parts.open(start.part)?, &start)?;
        Ok(Recorder { parts, writer, start, limit, events_before: 0, known_places: HashSet::new() })
    }

    /// Records an event that the stitcher has taken, the packet's bytes, and what it completed.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn event(
        &mut self,
        event: &Event,
        digest: &Digest,
        bytes: &[u8],
        findings: &[String],
        stitcher: &Stitcher,
        names: &dyn Names,
    ) -> io::Result<()> {
        if event.location != 0
            && self.known_places.insert(event.location)
            && let Some(name) = names.symbol(event.location)
        {
            self.start.symbols.insert(event.location, name.clone());
            self.writer.record(&Record::Symbol { address: event.location, name })?;
        }
        self.writer.event(event, digest, bytes, findings)?;
        // After the event, so that what is said of the packets under way is true of the files.
        match self.limit {
            Some(limit) if self.writer.length() >= limit => self.rotate(stitcher),
            _ => Ok(()),
        }
    }

    /// Records that the stitcher was told the time and the losses, and whether there were events that had not been read.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn tick(&mut self, now_ns: u64, losses: Losses, is_behind: bool) -> io::Result<()> {
        self.start.losses = losses;
        self.writer.record(&Record::Tick { now_ns, losses, is_behind })
    }

    /// Records that names have changed.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn names(&mut self, names: NameTable) -> io::Result<()> {
        if names == self.start.names {
            return Ok(());
        }
        self.start.names = names.clone();
        self.writer.record(&Record::Names(names))
    }

    /// Records what was said to the person.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn notice(&mut self, text: &str) -> io::Result<()> {
        self.writer.record(&Record::Notice { text: text.to_owned() })
    }

    /// Records what there is on the host.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn survey(&mut self, survey: Survey) -> io::Result<()> {
        self.writer.record(&Record::Survey(Box::new(survey)))
    }

    /// Ends the recording.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn end(&mut self, end: End) -> io::Result<()> {
        let events = self.events_before + self.writer.events();
        self.writer.record(&Record::End(Box::new(End { events, ..end })))?;
        self.writer.flush()
    }

    /// Hands on what has been written.
    ///
    /// # Errors
    /// When it cannot be.
    pub fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }

    /// After a failure to write: cuts the file where it is whole, and tries to end it there. `true` when it could be.
    pub fn give_up(&mut self, end: End) -> bool {
        let whole = self.writer.whole();
        if self.parts.cut(self.writer.out_mut(), whole).is_err() {
            return false;
        }
        self.writer.forget();
        self.end(end).is_ok()
    }

    /// Where the files come from.
    #[must_use]
    pub fn parts(&self) -> &P {
        &self.parts
    }

    /// The losses that were recorded last.
    #[must_use]
    pub fn losses(&self) -> Losses {
        self.start.losses
    }

    fn rotate(&mut self, stitcher: &Stitcher) -> io::Result<()> {
        self.start.part += 1;
        self.start.packets = stitcher.summary().packets;
        self.start.under_way = stitcher.open_packets();
        self.writer.record(&Record::Next { part: self.start.part })?;
        self.writer.flush()?;
        self.events_before += self.writer.events();
        self.writer = Writer::new(self.parts.open(self.start.part)?, &self.start)?;
        Ok(())
    }
}
