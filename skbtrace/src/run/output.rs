//! Where the packets of a run, live or recorded, go: mostly to standard output, in one of the formats. What is said to the person and not part of the
//! trace goes to standard error, so that a pipe gets the trace and nothing else.

use std::io::{self, BufWriter, IsTerminal as _, Write as _};

use crate::{
    host::Privileges,
    render::{Json, MAX_PAYLOAD, Names, Style, Text},
    store::Start,
    topology::Topology,
    trace::{Losses, Packet, Summary},
    verdict::{Explained, Payload},
};

/// The form of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Timelines for people.
    Text,
    /// A JSON object per packet, one per line.
    Json,
    /// A JSON object per hop of each packet.
    JsonEvents,
}

enum Writer {
    Text(Text),
    Json(Json),
    Events(Json),
    Whole(Box<dyn Whole>),
}

/// Takes a recording in as it is read, for an output that is made of all of it at once.
pub trait Whole {
    /// What was recorded, and where.
    fn begin(&mut self, start: &Start);

    /// Something that is said to the person.
    fn notice(&mut self, text: &str);

    /// A packet that has a number.
    fn packet(&mut self, packet: &Packet, payload: &Payload, names: &dyn Names);

    /// What was found.
    fn findings(&mut self, findings: &[Explained], names: &dyn Names);

    /// The books; there are none of a recording that breaks off.
    fn summary(&mut self, summary: &Summary, names: &dyn Names);
}

/// What the output looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// Its form.
    pub format: Format,
    /// Whether it, and the messages, may have colours.
    pub colour: bool,
    /// Whether to print what each hop does.
    pub explain: bool,
    /// Of each hop what changed with it.
    pub diff: bool,
    /// The books alone, without packets.
    pub quiet: bool,
    /// Of a garbled packet the bytes that changed, if they are among so many first ones of its payload.
    pub payload: Option<u16>,
}

/// Which packets are to be printed.
pub type Selection = Box<dyn Fn(&Packet) -> bool>;

/// The output of a run.
pub struct Output {
    writer: Writer,
    out: BufWriter<Box<dyn io::Write>>,
    quiet: bool,
    payload: Option<u16>,
    selection: Option<Selection>,
    /// How many events were said to be lost last.
    told: u64,
}

impl Output {
    /// Output to standard output.
    #[must_use]
    pub fn new(look: Look) -> Output {
        Output::to(Box::new(io::stdout()), look)
    }

    /// Output to wherever.
    #[must_use]
    pub fn to(out: Box<dyn io::Write>, look: Look) -> Output {
        let writer = match look.format {
            Format::Text => {
                let Look { colour, explain, diff, payload, .. } = look;
                Writer::Text(Text::new(Style { colour, explain, diff, payload }))
            }
            Format::Json => Writer::Json(Json { diff: look.diff }),
            Format::JsonEvents => Writer::Events(Json { diff: look.diff }),
        };
        let out = BufWriter::with_capacity(1 << 16, out);
        Output { writer, out, quiet: look.quiet, payload: look.payload, selection: None, told: 0 }
    }

    /// Output to something that takes it as a whole, with all bytes of payloads that are there.
    #[must_use]
    pub fn whole(whole: Box<dyn Whole>) -> Output {
        let out: Box<dyn io::Write> = Box::new(io::sink());
        let payload = u16::try_from(MAX_PAYLOAD).ok();
        Output {
            writer: Writer::Whole(whole),
            out: BufWriter::new(out),
            quiet: false,
            payload,
            selection: None,
            told: 0,
        }
    }

    /// Output of these packets only; the books are still those of the run.
    #[must_use]
    pub fn only(mut self, selection: Selection) -> Output {
        self.selection = Some(selection);
        self
    }

    /// What is known before the first packet.
    pub(super) fn begin(&mut self, start: &Start) {
        if let Writer::Whole(whole) = &mut self.writer {
            whole.begin(start);
        }
    }

    /// A line before the first packet: part of the text, and for the person alone beside JSON.
    ///
    /// # Errors
    /// When standard output cannot be written, for any cause but a reader that has gone.
    pub fn preface(&mut self, line: &str) -> io::Result<()> {
        match self.writer {
            Writer::Text(_) => {
                let written = writeln!(self.out, "{line}").and_then(|()| self.out.flush());
                unless_closed(written)
            }
            Writer::Json(_) | Writer::Events(_) => {
                self.notice(line);
                Ok(())
            }
            // It has the start.
            Writer::Whole(_) => Ok(()),
        }
    }

    /// How many bytes of each payload are wanted.
    pub(super) fn payload(&self) -> usize {
        self.payload.map_or(0, usize::from)
    }

    /// A packet.
    pub(super) fn packet(&mut self, packet: &Packet, payload: &Payload, names: &dyn Names) -> io::Result<()> {
        let wanted = self.selection.as_ref().is_none_or(|selection| selection(packet));
        if packet.number.is_none() || self.quiet || !wanted {
            return Ok(());
        }
        match &mut self.writer {
            Writer::Text(text) => text.packet(&mut self.out, packet, payload, names),
            Writer::Json(json) => json.packet(&mut self.out, packet, payload, names),
            Writer::Events(json) => json.events(&mut self.out, packet, names),
            Writer::Whole(whole) => {
                whole.packet(packet, payload, names);
                Ok(())
            }
        }
    }

    /// What was found, for people: programs find it in the books.
    pub(super) fn findings(&mut self, findings: &[Explained], names: &dyn Names) -> io::Result<()> {
        match &mut self.writer {
            Writer::Text(text) => text.findings(&mut self.out, findings, names),
            Writer::Json(_) | Writer::Events(_) => Ok(()),
            Writer::Whole(whole) => {
                whole.findings(findings, names);
                Ok(())
            }
        }
    }

    /// The books.
    pub(super) fn summary(&mut self, summary: &Summary, findings: &[Explained], names: &dyn Names) -> io::Result<()> {
        match &mut self.writer {
            Writer::Text(text) => text.summary(&mut self.out, summary, names)?,
            Writer::Json(json) | Writer::Events(json) => json.summary(&mut self.out, summary, findings, names)?,
            Writer::Whole(whole) => whole.summary(summary, names),
        }
        self.out.flush()
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// Says so when events are being lost: at the first, and again whenever they have doubled.
    pub(super) fn losses(&mut self, losses: &Losses) {
        let lost = losses.ring_full + losses.map_full;
        if lost > 2 * self.told {
            self.told = lost;
            self.notice(&format!(
                "{lost} events lost so far: they come faster than they are read (a filter or a larger --ring-size helps)"
            ));
        }
    }

    /// Says what this run does not see for want of a privilege.
    pub(super) fn limits(&mut self, privileges: &Privileges, topology: &Topology) {
        for need in privileges.missing() {
            if let Some(limit) = need.limit {
                self.notice(&format!("without {}: {limit}", need.name));
            }
        }
        if let Some(what) = topology.not_searched() {
            self.notice(&format!("not seen: {what}"));
        }
    }

    /// Says something to the person.
    pub(super) fn notice(&mut self, text: &str) {
        if let Writer::Whole(whole) = &mut self.writer {
            return whole.notice(text);
        }
        // What nobody can read need not be written.
        let _ = writeln!(io::stderr(), "skbtrace: {text}");
    }
}

/// Whether standard output wants colours, when nobody said.
#[must_use]
pub fn wants_colour() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// A reader that has gone is no error.
pub(super) fn unless_closed(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}
