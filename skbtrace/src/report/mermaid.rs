//! One packet as a sequence diagram in Mermaid's language, for a ticket: a participant per device, boxed by namespace, the hops
//! of each stay as a note, and an arrow from stay to stay.
//!
//! Names that people chose, and all other text, are written so that nothing in them is Mermaid's: whatever is no letter, no
//! digit and of no plain kind becomes the number of its character.

use std::fmt::Write as _;

use super::visits::{Visit, visits};
use super::{Interest, interest};
use crate::hops::Role;
use crate::render::headline::{headline, last_words, status};
use crate::render::payload::{garbled, mark};
use crate::render::row::{device_name, wait, within};
use crate::render::{Names, duration};
use crate::trace::{Outcome, Packet, Step};
use crate::verdict::{Changes, Device, Payload};

/// Finds the packet that is to be drawn, and draws it.
#[derive(Debug, Default)]
pub struct Mermaid {
    wanted: Option<u64>,
    drawn: Option<(Interest, u64, String)>,
}

impl Mermaid {
    /// Of the packet with this number; without one, of the first that was garbled, or dropped, or incomplete, or of the first.
    #[must_use]
    pub fn new(wanted: Option<u64>) -> Mermaid {
        Mermaid { wanted, drawn: None }
    }

    /// A packet; one without a number is not for display, and passed over.
    pub fn packet(&mut self, packet: &Packet, payload: &Payload, names: &dyn Names) {
        let Some(number) = packet.number else { return };
        let interest = interest(packet, payload);
        let is_it = match self.wanted {
            Some(wanted) => wanted == number,
            None => self.drawn.as_ref().is_none_or(|(drawn, ..)| *drawn < interest),
        };
        if is_it {
            self.drawn = Some((interest, number, draw(number, packet, payload, names)));
        }
    }

    /// The number of the packet, and the diagram; `None` when there was no such packet.
    #[must_use]
    pub fn finish(self) -> Option<(u64, String)> {
        self.drawn.map(|(_, number, text)| (number, text))
    }
}

/// The diagram as it is written.
struct Drawing<'a> {
    text: String,
    lanes: Vec<Option<Device>>,
    changes: Option<&'a Changes>,
    names: &'a dyn Names,
}

fn draw(number: u64, packet: &Packet, payload: &Payload, names: &dyn Names) -> String {
    let changes = if let Payload::Garbled(changes) = payload { Some(changes) } else { None };
    let mut drawing = Drawing { text: String::from("sequenceDiagram\n"), lanes: Vec::new(), changes, names };
    for packet in packet.tree() {
        for visit in visits(packet) {
            if !drawing.lanes.contains(&visit.device) {
                drawing.lanes.push(visit.device);
            }
        }
    }
    drawing.participants();
    let mut title = format!("#{number} {}", headline(packet));
    if let Some(changes) = changes {
        let _ = write!(title, ": {}", garbled(changes));
    }
    if let Some(last) = drawing.lanes.len().checked_sub(1) {
        let over = if last == 0 { "d0".to_owned() } else { format!("d0,d{last}") };
        let _ = writeln!(drawing.text, "    Note over {over}: {}<br/>{}", plain(&title), plain(&status(packet, names)));
    }
    drawing.life(packet);
    drawing.text
}

impl Drawing<'_> {
    /// Lanes that are beside each other and of one namespace are in one box.
    fn participants(&mut self) {
        let netns = |lane: &Option<Device>| lane.map(|device| device.key.netns);
        let mut place = 0;
        for lanes in self.lanes.chunk_by(|one, other| netns(one) == netns(other)) {
            let boxed = lanes[0].map(|device| self.names.netns(device.key.netns));
            if let Some(name) = &boxed {
                let _ = writeln!(self.text, "    box transparent {}", plain(name));
            }
            for lane in lanes {
                let name = lane.map_or_else(|| "?".to_owned(), |it| device_name(&it.name, it.key.ifindex));
                let _ = writeln!(self.text, "    participant d{place} as {}", plain(&name));
                place += 1;
            }
            if boxed.is_some() {
                self.text.push_str("    end\n");
            }
        }
    }

    fn lane(&self, visit: &Visit<'_>) -> usize {
        self.lanes.iter().position(|lane| *lane == visit.device).unwrap_or(0)
    }

    fn life(&mut self, packet: &Packet) {
        let visits = visits(packet);
        let mut before: Option<usize> = None;
        for visit in &visits {
            let lane = self.lane(visit);
            let steps: Vec<(usize, &Step)> = visit.steps.iter().copied().zip(visit.steps()).collect();
            if let (Some(from), Some(first)) = (before, visit.steps.first()) {
                let by = first.checked_sub(1).and_then(|step| packet.steps.get(step));
                let by = by.map_or("", |step| step.hop.name());
                let _ = writeln!(self.text, "    d{from}->>d{lane}: {}", plain(by));
            }
            let lines: Vec<String> = steps.iter().map(|(index, step)| self.hop(*index, step)).collect();
            let marks: Vec<String> = steps.iter().flat_map(|(_, step)| self.garbled_at(packet, step)).collect();
            if !marks.is_empty() {
                self.text.push_str("    rect rgba(213, 94, 0, 0.25)\n");
            }
            let _ = writeln!(self.text, "    Note over d{lane}: {}", lines.join("<br/>"));
            if !marks.is_empty() {
                let _ = writeln!(self.text, "    Note over d{lane}: {}\n    end", marks.join("<br/>"));
            }
            before = Some(lane);
        }
        let lane = before.unwrap_or(0);
        let words = last_words(packet, self.names);
        let words = if words.is_empty() { status(packet, self.names) } else { words };
        let ended = plain(&words);
        let _ = match packet.outcome {
            Outcome::Dropped { .. } => writeln!(self.text, "    d{lane}-xd{lane}: {ended}"),
            _ => writeln!(self.text, "    Note over d{lane}: {ended}"),
        };
        for branch in &packet.branches {
            let after = packet.steps.get(branch.after).map_or("its beginning", |step| step.hop.name());
            let what = format!("branch of #{} after {after}", self.number(packet));
            let _ = writeln!(self.text, "    opt {}", plain(&what));
            self.life(&branch.packet);
            self.text.push_str("    end\n");
        }
    }

    fn number(&self, packet: &Packet) -> String {
        packet.number.map_or_else(|| format!("{:x}", packet.id), |number| number.to_string())
    }

    /// `+1.3 µs ip_output`.
    fn hop(&self, index: usize, step: &Step) -> String {
        let mut line = String::new();
        if index > 0 {
            let _ = write!(line, "+{} ", duration(step.delta_ns));
        }
        line.push_str(step.hop.name());
        if let Some(within) = within(step, self.names) {
            let _ = write!(line, " ({within})");
        }
        if step.role() == Role::Copy && step.event.copied > 0 {
            let _ = write!(line, ", {} bytes to the application", step.event.copied);
        }
        if let Some(wait) = wait(step) {
            let _ = write!(line, ", {wait}");
        }
        if step.missing > 0 {
            let _ = write!(line, " (before it {} events lost)", step.missing);
        }
        plain(&line)
    }

    /// What changed at this step.
    fn garbled_at(&self, packet: &Packet, step: &Step) -> impl Iterator<Item = String> {
        let here = (packet.id, step.event.step);
        let all = self.changes.into_iter().flat_map(Changes::all);
        let here = all.filter(move |change| (change.after.packet, change.after.step) == here);
        let hop = step.hop.name();
        here.map(move |change| plain(&format!("GARBLED at {hop}: {}", mark(change).trim_start_matches("◀ "))))
    }
}

/// A text as Mermaid shows it and does not read it.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for letter in text.chars() {
        let is_plain = letter.is_alphanumeric() || " _-+.,()[]/→µ".contains(letter);
        if is_plain {
            plain.push(letter);
        } else {
            let _ = write!(plain, "#{};", u32::from(letter));
        }
    }
    // A line that says this ends a box or a loop, to some versions wherever it stands.
    let mut safe = String::with_capacity(plain.len());
    for (place, word) in plain.split(' ').enumerate() {
        if place > 0 {
            safe.push(' ');
        }
        if word.eq_ignore_ascii_case("end") {
            let _ = write!(safe, "#{};{}", word.as_bytes()[0], &word[1..]);
        } else {
            safe.push_str(word);
        }
    }
    safe
}
