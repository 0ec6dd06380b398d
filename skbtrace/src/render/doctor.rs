//! What the doctor says: a table for people, an object for programs; its schema is `schema/doctor.schema.json`.

use std::fmt::Write as _;
use std::io;

use serde::Serialize;

use super::headline::Tone;
use super::text::Brush;
use crate::doctor::{Report, Row, State};

/// Version of the object: it rises when a field changes its meaning or goes, not when one is added.
pub const DOCTOR_VERSION: u32 = 1;

#[derive(Serialize)]
struct Json<'a> {
    r#type: &'static str,
    version: u32,
    release: &'a str,
    works: bool,
    checks: &'a [Row],
}

/// Writes a report as one JSON object, on a line.
///
/// # Errors
/// Those of the writer.
pub fn json(out: &mut dyn io::Write, report: &Report) -> io::Result<()> {
    let Report { release, rows } = report;
    let all = Json { r#type: "doctor", version: DOCTOR_VERSION, release, works: report.works(), checks: rows };
    let mut line = serde_json::to_string(&all)?;
    line.push('\n');
    out.write_all(line.as_bytes())
}

/// Writes a report as a table: state, name, what was found, and below that what to do about it.
///
/// # Errors
/// Those of the writer.
pub fn text(out: &mut dyn io::Write, report: &Report, colour: bool) -> io::Result<()> {
    let brush = Brush { colour };
    let name_width = report.rows.iter().map(|row| row.name.len()).max().unwrap_or(0);
    let state_width = State::Warning.name().len();
    let mut text = String::new();
    let mut before = "";
    for row in &report.rows {
        let tone = match row.state {
            State::Ok => Tone::Good,
            State::Note => Tone::Plain,
            State::Warning => Tone::Doubtful,
            State::Broken => Tone::Bad,
        };
        let state = brush.paint(tone, &format!("{:<state_width$}", row.state.name()));
        let name = if row.name == before { "" } else { row.name };
        before = row.name;
        let _ = writeln!(text, "{state}  {name:<name_width$}  {}", row.found);
        if let Some(fix) = &row.fix {
            let _ = writeln!(text, "{:state_width$}  {:name_width$}  {}", "", "", brush.dim(&format!("→ {fix}")));
        }
    }
    let (verdict, tone) = if report.works() {
        ("`skbtrace run` works here", Tone::Good)
    } else {
        ("`skbtrace run` cannot work here", Tone::Bad)
    };
    let counts: Vec<String> =
        [(State::Broken, "broken", ""), (State::Warning, "warning", "s"), (State::Note, "note", "s")]
            .into_iter()
            .map(|(state, noun, plural)| (report.count(state), noun, plural))
            .filter(|(count, ..)| *count > 0)
            .map(|(count, noun, plural)| format!("{count} {noun}{}", if count == 1 { "" } else { plural }))
            .collect();
    let counts = if counts.is_empty() { String::new() } else { format!(": {}", counts.join(", ")) };
    let _ = writeln!(text, "\n{}{counts}", brush.paint(tone, verdict));
    out.write_all(text.as_bytes())
}
