//! Timelines for people: a line that says what the packet is and how it ended, then a row per hop, in columns that
//! stay where they are from packet to packet.
//!
//! A packet is written in one piece. Without colour the text is the same, byte for byte, less the escape codes.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::io;

use anstyle::{AnsiColor, Style as Paint};
use skbtrace_common::HopId;

use super::diff;
use super::finding::lines;
use super::headline::{Tone, counted, headline, last_words, status, tone};
use super::hex;
use super::latency::table;
use super::payload::{garbled, mark, same};
use super::row::{Place, Row, row};
use super::{Names, reason_name};
use crate::hops::{Role, hop};
use crate::trace::{Losses, Packet, Step, Summary, through_loopback};
use crate::verdict::{Changes, Explained, Known, Payload};

/// How the text is to look.
#[derive(Clone, Copy, Debug, Default)]
pub struct Style {
    /// Escape codes for colours.
    pub colour: bool,
    /// Under the first row of each hop, what the kernel does there.
    pub explain: bool,
    /// Of each hop only what changed with it.
    pub diff: bool,
    /// Of a garbled packet its bytes before and after, if so many first ones of its payload were wanted.
    pub payload: Option<u16>,
}

/// Writes packets as text. Keeps the widths of the columns, and what has been explained.
#[derive(Debug)]
pub struct Text {
    style: Style,
    netns: usize,
    device: usize,
    hop: usize,
    explained: HashSet<HopId>,
    loopback_told: bool,
}

const LOOPBACK: &str = "    This traffic goes from a network namespace to itself: through lo (loopback_xmit), so it never touches the veth.";

impl Text {
    /// A writer of text.
    #[must_use]
    pub fn new(style: Style) -> Text {
        Text { style, netns: 8, device: 15, hop: 34, explained: HashSet::new(), loopback_told: false }
    }

    /// Writes a packet with its branches, and an empty line. A packet without a number is not for display: it is
    /// passed over.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn packet(
        &mut self,
        out: &mut dyn io::Write,
        packet: &Packet,
        payload: &Payload,
        names: &dyn Names,
    ) -> io::Result<()> {
        let Some(number) = packet.number else { return Ok(()) };
        let verdict = self.paint(tone(packet.verdict()), &status(packet, names));
        let mut text = format!("{:<3} {}    ", format!("#{number}"), headline(packet));
        let changes = if let Payload::Garbled(changes) = payload { Some(changes) } else { None };
        if let Some(changes) = changes {
            let _ = write!(text, "{}; ", self.paint(Tone::Bad, &garbled(changes)));
        }
        text.push_str(&verdict);
        if let Some(same) = same(payload) {
            let _ = write!(text, "    {same}");
        }
        text.push('\n');
        self.rows(&mut text, packet, None, 4, changes, names);
        if let (Some(changes), Some(wanted)) = (changes, self.style.payload) {
            for change in changes.all() {
                hex::write(&mut text, packet, change, wanted, &|text| self.paint(Tone::Bad, text));
            }
        }
        if through_loopback(packet) && !self.loopback_told {
            self.loopback_told = true;
            text.push_str(LOOPBACK);
            text.push('\n');
        }
        text.push('\n');
        out.write_all(text.as_bytes())
    }

    /// Writes the books of the run, with a table of latencies where there is more than one packet's to tell. Their last
    /// line accounts for every packet and for every loss.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn summary(&self, out: &mut dyn io::Write, summary: &Summary, names: &dyn Names) -> io::Result<()> {
        let mut text = String::new();
        if summary.delivered > 1 {
            for (row, line) in table(&summary.latency).into_iter().enumerate() {
                let _ = writeln!(text, "{}", if row == 0 { self.dim(&line) } else { line });
            }
            text.push('\n');
        }
        if !summary.drop_reasons.is_empty() {
            let mut reasons: Vec<_> = summary.drop_reasons.iter().collect();
            reasons.sort_by_key(|(reason, count)| (std::cmp::Reverse(**count), **reason));
            let tally: Vec<String> = reasons
                .into_iter()
                .map(|(reason, count)| match reason {
                    Some(reason) => format!("{count} {}", reason_name(names, *reason)),
                    None => format!("{count} without a reason"),
                })
                .collect();
            let _ = writeln!(text, "dropped: {}", self.paint(Tone::Bad, &tally.join(", ")));
        }
        let also: Vec<String> = [
            (summary.retransmissions, "retransmission"),
            (summary.branches, "clone"),
            (summary.elsewhere, "packet elsewhere on the segment"),
        ]
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, noun)| match noun.split_once(' ') {
            Some((noun, rest)) => format!("{} {rest}", counted(count, noun)),
            None => counted(count, noun),
        })
        .collect();
        if !also.is_empty() {
            let _ = writeln!(text, "also: {}", also.join(", "));
        }
        let _ = writeln!(text, "{}", self.books(summary));
        out.write_all(text.as_bytes())
    }

    /// Writes what was found, and what to do about it; nothing where nothing was.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn findings(&self, out: &mut dyn io::Write, findings: &[Explained], names: &dyn Names) -> io::Result<()> {
        let mut text = String::new();
        for explained in findings {
            let (headline, below) = lines(explained, names);
            let _ = writeln!(text, "{}", self.paint(Tone::Bad, &headline));
            let mut before = "";
            for (what, line) in below {
                let shown = if what == before { "" } else { what };
                let _ = writeln!(text, "    {}  {line}", self.dim(&format!("{shown:<8}")));
                before = what;
            }
            text.push('\n');
        }
        out.write_all(text.as_bytes())
    }

    /// The last line.
    fn books(&self, summary: &Summary) -> String {
        let mut columns = vec![
            (summary.delivered, "delivered", Tone::Good),
            (summary.dropped, "dropped", Tone::Bad),
            (summary.incomplete, "incomplete", Tone::Doubtful),
            (summary.waiting, "in flight", Tone::Plain),
        ];
        let others = [
            (summary.left, "left"),
            (summary.merged, "merged"),
            (summary.consumed, "freed on the way"),
            (summary.tapped, "tapped"),
        ];
        columns
            .extend(others.into_iter().filter(|(count, _)| *count > 0).map(|(count, name)| (count, name, Tone::Plain)));
        let columns: Vec<String> = columns
            .into_iter()
            .map(|(count, name, tone)| {
                self.paint(if count > 0 { tone } else { Tone::Plain }, &format!("{count} {name}"))
            })
            .collect();
        let mut parts = vec![format!("{}: {}", counted(summary.packets, "packet"), columns.join(", "))];
        if summary.garbled > 0 {
            parts.insert(0, self.paint(Tone::Bad, &format!("{} garbled", counted(summary.garbled, "packet"))));
        }
        parts.extend(losses(&summary.losses));
        if summary.late_events > 0 {
            parts.push(format!("{} came after their packet was given up", counted(summary.late_events, "event")));
        }
        parts.push(if summary.every_packet_complete() {
            "every packet complete".to_owned()
        } else {
            self.paint(Tone::Doubtful, "not everything was seen")
        });
        parts.join(" · ")
    }

    /// The rows of a packet and of its branches. `source` is the step that it was cloned at.
    fn rows(
        &mut self,
        text: &mut String,
        packet: &Packet,
        source: Option<&Step>,
        indent: usize,
        changes: Option<&Changes>,
        names: &dyn Names,
    ) {
        let mut at = Place::after(source);
        let mut known = Known::default();
        if let Some(source) = source {
            known.next_step(source);
        }
        let mut before = None;
        for (index, step) in packet.steps.iter().enumerate() {
            if step.missing > 0 {
                let lost = format!("… {} lost", counted(u64::from(step.missing), "event"));
                let row = Row { hop: lost, ..Row::default() };
                self.write_row(text, &row, indent, Tone::Doubtful);
            }
            if step.role() != Role::End {
                let since_source = |source: &Step| step.event.time_ns.saturating_sub(source.event.time_ns);
                let since_ns = before.map_or_else(|| source.map(since_source), |_| Some(step.delta_ns));
                let mut row = row(before.or(source), step, since_ns, &mut at, names);
                let changed = known.next_step(step);
                if self.style.diff {
                    row.remarks = changed.iter().map(|changed| diff::words(changed, names)).collect();
                    if before.is_some() {
                        row.len.clear();
                    }
                } else if let Some(accepted) = packet.netfilter_accepted(index) {
                    row.remarks.push(if accepted { "accepted" } else { "dropped" }.to_owned());
                }
                let here = (packet.id, step.event.step);
                let all = changes.into_iter().flat_map(Changes::all);
                let change = all.filter(|change| (change.after.packet, change.after.step) == here).last();
                row.remarks.extend(change.map(|change| self.paint(Tone::Bad, &mark(change))));
                self.write_row(text, &row, indent, change.map_or(Tone::Plain, |_| Tone::Bad));
                self.explain(text, step.hop, indent);
            }
            before = Some(step);
        }
        let words = last_words(packet, names);
        // The first line has said it, if these are the same words.
        if !words.is_empty() && words != status(packet, names) {
            let words = self.paint(tone(&packet.outcome), &words);
            let _ = writeln!(text, "{:indent$}{words}", "");
        }
        for branch in &packet.branches {
            let source = packet.steps.get(branch.after).or(packet.steps.last());
            let name = source.map_or("its beginning", |step| step.hop.name());
            let verdict = self.paint(tone(branch.packet.verdict()), &status(&branch.packet, names));
            let _ = writeln!(text, "{:indent$}└ branch after {name}: {verdict}", "");
            self.rows(text, &branch.packet, source, indent + 2, changes, names);
        }
    }

    fn write_row(&mut self, text: &mut String, row: &Row, indent: usize, tone: Tone) {
        // The columns only grow, and not without bounds: hostile names are long.
        for (width, cell) in [(&mut self.netns, &row.netns), (&mut self.device, &row.device), (&mut self.hop, &row.hop)]
        {
            *width = cell.chars().count().min(60).max(*width);
        }
        let (netns, device, hop) = (self.netns, self.device, self.hop);
        if row.delta.is_empty() {
            // A gap: nothing is known but that there is one.
            let left = indent + netns + device + 4;
            let _ = writeln!(text, "{:left$}{}", "", self.paint(tone, &row.hop));
            return;
        }
        let delta = self.dim(&format!("{:>9}", row.delta));
        let name = self.paint(tone, &format!("{:<hop$}", row.hop));
        let _ = write!(text, "{:indent$}{:<netns$}  {:<device$}  {name}  {delta}", "", row.netns, row.device);
        if !row.len.is_empty() {
            let _ = write!(text, "  {:>6}", row.len);
        }
        if !row.remarks.is_empty() {
            let _ = write!(text, "  {}", row.remarks.join(", "));
        }
        text.push('\n');
    }

    fn explain(&mut self, text: &mut String, id: HopId, indent: usize) {
        if self.style.explain && self.explained.insert(id) {
            let left = indent + self.netns + self.device + 6;
            let _ = writeln!(text, "{:left$}{}", "", self.dim(hop(id).teaches));
        }
    }

    fn paint(&self, tone: Tone, text: &str) -> String {
        self.brush().paint(tone, text)
    }

    fn dim(&self, text: &str) -> String {
        self.brush().dim(text)
    }

    fn brush(&self) -> Brush {
        Brush { colour: self.style.colour }
    }
}

/// Colours text, or leaves it as it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Brush {
    pub(super) colour: bool,
}

impl Brush {
    pub(super) fn paint(self, tone: Tone, text: &str) -> String {
        let colour = match tone {
            Tone::Good => AnsiColor::Green,
            Tone::Bad => AnsiColor::Red,
            Tone::Doubtful => AnsiColor::Yellow,
            Tone::Plain => return text.to_owned(),
        };
        self.escape(colour.on_default(), text)
    }

    pub(super) fn dim(self, text: &str) -> String {
        self.escape(Paint::new().dimmed(), text)
    }

    fn escape(self, paint: Paint, text: &str) -> String {
        if self.colour && !text.trim().is_empty() { format!("{paint}{text}{paint:#}") } else { text.to_owned() }
    }
}

/// What was not seen, in words. That no event was lost is said too.
fn losses(losses: &Losses) -> Vec<String> {
    let mut parts = vec![format!("{} lost", counted(losses.ring_full, "event"))];
    let others = [
        (losses.unread, "event", "sent and never read"),
        (losses.map_full, "packet", "not followed (too many at once)"),
        (losses.unreadable, "packet", "unreadable"),
        (losses.missed_probes, "hit", "missed by the kernel"),
        (losses.read_failed, "event", "partly unreadable"),
    ];
    let others = others.into_iter().filter(|(count, ..)| *count > 0);
    parts.extend(others.map(|(count, noun, what)| format!("{} {what}", counted(count, noun))));
    parts
}
