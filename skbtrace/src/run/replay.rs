//! Shows a recording: its events go through the session of a live run, so they print what they printed then.

use std::io::{self, Read};

use super::{output::Output, session::Session};
use crate::{
    store::{End, Item, ReadError, Reader, Record, RecordedNames, Start},
    survey::Survey,
    trace::{Losses, StitchOptions, Summary},
};

/// What became of a showing.
#[derive(Debug, Default)]
pub struct Replayed {
    /// The books; `None` when the recording breaks off, or is none.
    pub summary: Option<Summary>,
    /// What is wrong with the recording, and in which input.
    pub complaint: Option<String>,
    /// Nobody reads the output any more.
    pub closed: bool,
}

/// A showing: the parts of one recording are handed to it one after another.
pub struct Replay {
    output: Option<Output>,
    state: Option<State>,
    result: Replayed,
}

/// A recording that has begun.
struct State {
    session: Session,
    names: RecordedNames,
    start: Start,
    /// The newest time that is known.
    now_ns: u64,
    /// The file says that the next part is this.
    next: Option<u32>,
    end: Option<End>,
    survey: Option<Survey>,
}

/// Why no more is shown.
enum Stop {
    Complaint(String),
    Write(io::Error),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Stop {
        Stop::Write(error)
    }
}

impl Replay {
    /// To this output.
    #[must_use]
    pub fn new(output: Output) -> Replay {
        Replay { output: Some(output), state: None, result: Replayed::default() }
    }

    /// Shows a file, and says whether to go on with the next one.
    ///
    /// # Errors
    /// When the output cannot be written, for any cause but a reader that has gone.
    pub fn part(&mut self, name: &str, input: impl Read) -> io::Result<bool> {
        let mut reader = Reader::new(input);
        loop {
            let stop = match reader.next_item() {
                Ok(Some(item)) => match self.item(item) {
                    Ok(()) => continue,
                    Err(stop) => stop,
                },
                Ok(None) => return Ok(true),
                Err(error) => Stop::Complaint(error.to_string() + &self.shown(&error)),
            };
            return match stop {
                Stop::Complaint(complaint) => {
                    self.result.complaint = Some(format!("{name}: {complaint}"));
                    Ok(false)
                }
                Stop::Write(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                    self.result.closed = true;
                    Ok(false)
                }
                Stop::Write(error) => Err(error),
            };
        }
    }

    /// There is no more: prints what is still to be printed.
    ///
    /// # Errors
    /// As [`Replay::part`].
    pub fn finish(mut self) -> io::Result<Replayed> {
        if self.result.closed {
            return Ok(self.result);
        }
        match self.close() {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => self.result.closed = true,
            Err(error) => return Err(error),
            Ok(()) => {}
        }
        Ok(self.result)
    }

    fn close(&mut self) -> io::Result<()> {
        let Some(state) = &mut self.state else { return Ok(()) };
        let under_way = state.session.stitcher().open_packets();
        let broken = self.result.complaint.is_some();
        match (&state.end, state.next) {
            (Some(end), _) if !broken => {
                state.session.set_losses(bounded(end.losses));
                state.session.set_hops(end.hops.clone());
                if end.finished {
                    state.session.finish(end.now_ns, &state.names)?;
                }
                state.session.findings(state.survey.as_ref(), &state.names)?;
                state.session.books(&state.names)?;
                if end.failed {
                    state.session.output().notice(&format!("the run failed: {}", end.why));
                }
                self.result.summary = Some(state.session.summary().clone());
                let events = state.session.summary().events;
                if state.start.part == 1 && events != end.events {
                    let complaint = format!("it has {events} events, and had {} when it was written", end.events);
                    self.result.complaint = Some(complaint);
                }
            }
            (None, Some(part)) if !broken => {
                state.session.finish(state.now_ns, &state.names)?;
                state.session.findings(state.survey.as_ref(), &state.names)?;
                state.session.books(&state.names)?;
                state.session.output().notice(&format!(
                    "the recording goes on in part {part}, with {under_way} of its packets still under way: show the parts together"
                ));
                self.result.summary = Some(state.session.summary().clone());
            }
            // What was under way is shown as such. There are no books: they would be those of the damage.
            _ => {
                state.session.finish(state.now_ns, &state.names)?;
                state.session.findings(state.survey.as_ref(), &state.names)?;
                if !broken {
                    self.result.complaint = Some(format!(
                        "it ends without an end: the run was killed, or is still going on; {}",
                        tally(&state.session, under_way)
                    ));
                }
            }
        }
        Ok(())
    }

    fn item(&mut self, item: Item<'_>) -> Result<(), Stop> {
        if let Item::Record(Record::Start(start)) = item {
            return self.start(*start);
        }
        let Some(state) = &mut self.state else {
            return Err(Stop::Complaint("it does not begin with its start".to_owned()));
        };
        if state.end.is_some() || state.next.is_some() {
            return Err(Stop::Complaint("it goes on after its end".to_owned()));
        }
        match item {
            Item::Event(event, digest, frame) => {
                state.now_ns = state.now_ns.max(event.time_ns);
                state.session.event(&event, (&digest, frame), &state.names, None)?;
            }
            Item::Record(Record::Names(table)) => state.names.table = table,
            Item::Record(Record::Symbol { address, name }) => drop(state.names.symbols.insert(address, name)),
            Item::Record(Record::Tick { now_ns, losses, is_behind }) => {
                state.now_ns = state.now_ns.max(now_ns);
                state.session.tick(now_ns, bounded(losses), is_behind, &state.names)?;
            }
            Item::Record(Record::Notice { text }) => {
                state.session.output().notice(&text);
            }
            Item::Record(Record::Survey(survey)) => state.survey = Some(*survey),
            Item::Record(Record::Next { part }) => state.next = Some(part),
            Item::Record(Record::End(end)) => state.end = Some(*end),
            Item::Record(Record::Start(_)) => {}
        }
        Ok(())
    }

    fn start(&mut self, start: Start) -> Result<(), Stop> {
        if let Some(state) = &mut self.state {
            // The next part of the same recording: what is open stays open.
            if start.recording != state.start.recording {
                return Err(Stop::Complaint("another recording begins here: show one at a time".to_owned()));
            }
            if state.next.is_none() {
                return Err(Stop::Complaint("it goes on after its end".to_owned()));
            }
            return match state.next.take() {
                Some(next) if next == start.part => {
                    state.names = start.recorded_names();
                    Ok(())
                }
                next => {
                    state.next = next;
                    let next = next.unwrap_or(0);
                    Err(Stop::Complaint(format!(
                        "this is part {} of the recording, and part {next} is next",
                        start.part
                    )))
                }
            };
        }
        let Some(mut output) = self.output.take() else { return Ok(()) };
        output.begin(&start);
        for line in &start.preface {
            output.preface(line)?;
        }
        if start.part > 1 {
            output.notice(&format!(
                "this is part {} of a recording: its packets are numbered from 1 here, {} came before and {} were \
                 under way, which are shown incomplete; show the parts together",
                start.part, start.packets, start.under_way
            ));
        }
        let stitch = StitchOptions { payload: output.payload(), ..start.stitch_options() };
        let mut session = Session::new(stitch, start.slow_ns, output);
        session.set_losses(bounded(start.losses));
        let names = start.recorded_names();
        self.state = Some(State { session, names, start, now_ns: 0, next: None, end: None, survey: None });
        Ok(())
    }

    /// How much was shown before this fault.
    fn shown(&self, error: &ReadError) -> String {
        match (&self.state, error) {
            (Some(state), ReadError::Damaged { .. } | ReadError::Io(_)) => {
                let under_way = state.session.stitcher().open_packets();
                format!("; {}", tally(&state.session, under_way))
            }
            _ => String::new(),
        }
    }
}

/// Counts that can be added up, whoever wrote them.
fn bounded(losses: Losses) -> Losses {
    const MOST: u64 = u64::MAX >> 8;
    Losses {
        ring_full: losses.ring_full.min(MOST),
        unread: losses.unread.min(MOST),
        map_full: losses.map_full.min(MOST),
        unreadable: losses.unreadable.min(MOST),
        missed_probes: losses.missed_probes.min(MOST),
        read_failed: losses.read_failed.min(MOST),
    }
}

fn tally(session: &Session, under_way: usize) -> String {
    let summary = session.summary();
    format!(
        "shown is what comes before: events {}, packets to their end {}, under way {under_way}",
        summary.events, summary.packets
    )
}
