//! A run that is going on: its events are taken from the ring and go through the stitcher to the output and the recording,
//! ticks and changes of the topology come between, and what ends it closes the books.
//!
//! What it is made of is set up elsewhere, once: nothing here knows the command line.

use std::time::Duration;

use anyhow::Result;
use tokio::time::{Instant, timeout};

use super::{
    clock::now_ns,
    late::Late,
    names::RunNames,
    output,
    recording::{Recording, end, name_table},
    session::Session,
    stop::{Stops, Why},
    watched::watched,
};
use crate::{
    capture::{Capture, HopCounters, Ring, Totals, Watched},
    store::End,
    survey::Survey,
    topology::{self, Segment, Topology, Watch},
    trace::{HopBooks, Losses, decode},
};

/// Events that are taken from the ring before anything else is looked at.
const BATCH: usize = 4096;
/// How often losses are read and idle packets looked for.
const TICK: Duration = Duration::from_millis(500);
/// A run that is over waits for so long without an event for packets that are still on their way.
const QUIET: Duration = Duration::from_millis(300);
/// But no longer than this.
const GRACE: Duration = Duration::from_secs(3);

/// A run that is going on.
pub(super) struct Run {
    pub(super) capture: Capture,
    pub(super) ring: Ring,
    pub(super) session: Session,
    pub(super) recording: Recording,
    pub(super) names: RunNames,
    pub(super) segment: Segment,
    pub(super) watch: Watch,
    pub(super) late: Late,
    /// Packets that are still to be printed.
    pub(super) left: Option<u64>,
    /// Events read.
    pub(super) read: u64,
    /// Losses as they were recorded last.
    pub(super) told: Losses,
    /// How many packets the stitcher keeps open.
    pub(super) max_open: usize,
}

impl Run {
    /// Lets events flow until something ends the run.
    pub(super) async fn until(&mut self, stops: &mut Stops) -> Why {
        let mut tick = tokio::time::interval(TICK);
        let mut more = false;
        loop {
            tokio::select! {
                biased;
                why = stops.next() => return why,
                _ = tick.tick() => {
                    if let Err(why) = self.tick() {
                        return why;
                    }
                }
                () = self.watch.changed() => {
                    if let Err(why) = self.follow_topology() {
                        return why;
                    }
                }
                ready = Self::more(&mut self.ring, more) => {
                    if let Err(error) = ready {
                        return Why::Failed(error.to_string());
                    }
                    match self.drain() {
                        Ok(count) => more = count == BATCH,
                        Err(why) => return why,
                    }
                }
            }
        }
    }

    /// Waits for events, unless it is known that there are more.
    async fn more(ring: &mut Ring, more: bool) -> std::io::Result<()> {
        if more {
            tokio::task::yield_now().await;
            return Ok(());
        }
        ring.readable().await
    }

    /// Takes a batch of events from the ring, prints what they complete, and records them.
    fn drain(&mut self) -> Result<usize, Why> {
        let Run { ring, session, recording, names, left, read, .. } = self;
        let mut findings = Vec::new();
        let count = ring.drain(BATCH, |bytes| {
            *read += 1;
            let (event, digest, frame) = decode(bytes).map_err(|error| Why::Failed(error.to_string()))?;
            findings.clear();
            let printed = session.event(&event, (&digest, frame), names, recording.is_on().then_some(&mut findings));
            // Recorded also when nobody reads what is printed.
            recording.write(|recorder| recorder.event(&event, &digest, frame, &findings, session.stitcher(), names))?;
            count_down(left, printed.map_err(Why::from_write)?)
        })?;
        session.output().flush().map_err(Why::from_write)?;
        Ok(count)
    }

    /// Takes note of the time and of what has been lost. Nothing has been silent until now that has an event in the ring: where
    /// there is more in it than a batch, it is not asked what has been.
    fn tick(&mut self) -> Result<(), Why> {
        self.join_late()?;
        let losses = self.losses().map_err(|error| Why::Failed(error.to_string()))?;
        let now_ns = now_ns();
        let is_behind = self.drain()? == BATCH;
        let has_taken = |session: &Session| !is_behind && session.stitcher().has_taken(now_ns);
        let is_crowded = !is_behind && self.session.stitcher().open_packets() > self.max_open / 2;
        // Any other tick changes nothing that is printed.
        let mut tells = losses != self.told || is_crowded || has_taken(&self.session);
        self.told = losses;
        loop {
            if tells {
                self.recording.write(|recorder| recorder.tick(now_ns, losses, is_behind))?;
            }
            self.recording.write(|recorder| recorder.flush())?;
            let count = self.session.tick(now_ns, losses, is_behind, &self.names).map_err(Why::from_write)?;
            count_down(&mut self.left, count)?;
            // Each tick ends one of these.
            tells = has_taken(&self.session);
            if !tells {
                return Ok(());
            }
        }
    }

    /// Says something to the person, and to whoever reads the recording.
    pub(super) fn notice(&mut self, text: &str) -> Result<(), Why> {
        self.session.output().notice(text);
        self.recording.write(|recorder| recorder.notice(text))
    }

    /// Links changed: what is watched follows. A device that is gone or a map that is full ends nothing: it is said.
    fn follow_topology(&mut self) -> Result<(), Why> {
        // The first bridge of a machine comes with its module.
        self.join_late()?;
        let newer = match Topology::read() {
            Ok(newer) => newer,
            Err(error) => return self.notice(&format!("cannot follow a change of the topology: {error}")),
        };
        let target = self.segment.target;
        if newer.link(target).is_none() && self.names.topology.link(target).is_some() {
            self.notice(&format!("{} is gone", self.names.topology.label(target)))?;
        }
        let segment = newer.segment(target);
        if !self.segment.diff(&segment).is_empty() {
            if let Err(error) = self.capture.watch(watched(&segment)) {
                self.notice(&format!("cannot follow a change of the topology: {error}"))?;
            }
            if newer.link(target).is_some() {
                self.notice(&format!("the segment is now {}", segment.line(&newer)))?;
            }
        }
        if !segment.netns().is_subset(self.watch.watched()) {
            match topology::watch(&newer, &segment.netns()) {
                Ok(watch) => self.watch = watch,
                Err(error) => self.notice(&format!("cannot follow later changes: {error}"))?,
            }
        }
        self.segment = segment;
        // Devices that have gone keep their names: packets in flight may still speak of them.
        self.names.topology = newer;
        let names = name_table(&self.names.topology);
        self.recording.write(|recorder| recorder.names(names))
    }

    fn losses(&mut self) -> Result<Losses> {
        let totals = Totals::of(&self.capture.counters()?);
        Ok(Losses { missed_probes: totals.missed, ..Losses::from(totals.counters) })
    }

    /// Lets the packets that are under way arrive, follows no new ones, and closes the books.
    pub(super) async fn close(&mut self, why: &Why) -> Result<()> {
        // A command's last packets come after its end; after any other end nothing new is wanted.
        if matches!(why, Why::CommandEnded(_)) {
            self.settle(false).await?;
        }
        self.capture.watch(Watched::default())?;
        let unfinished = !matches!(why, Why::Counted | Why::OutputClosed);
        if unfinished {
            self.settle(true).await?;
        }
        let now_ns = now_ns();
        // Before the books, so that they are the last word.
        self.capture.detach()?;
        let mut losses = self.losses()?;
        if unfinished {
            losses.unread = self.unread()?;
        }
        let hops: Vec<HopBooks> = self.capture.counters()?.iter().map(HopCounters::books).collect();
        let Run { session, recording, names, segment, .. } = self;
        session.set_losses(losses);
        session.set_hops(hops.clone());
        let end = end(why, now_ns, losses);
        if end.finished {
            output::unless_closed(session.finish(now_ns, names))?;
        }
        // Only now, and only where there is something to explain: looking at a host takes its time.
        let survey = session.has_findings().then(|| Survey::read(&names.topology, segment));
        output::unless_closed(session.findings(survey.as_ref(), names))?;
        output::unless_closed(session.books(names))?;
        if let Some(survey) = survey
            && let Err(Why::Failed(error)) = recording.write(|recorder| recorder.survey(survey))
        {
            anyhow::bail!(error);
        }
        let end = End { packets: session.summary().packets, hops, ..end };
        match recording.write(|recorder| recorder.end(end)) {
            Err(Why::Failed(error)) => anyhow::bail!(error),
            _ => Ok(()),
        }
    }

    /// Reads until nothing has come for a while, or, where no packet begins any more, all have ended; not for ever.
    async fn settle(&mut self, no_more_begin: bool) -> Result<()> {
        let until = Instant::now() + GRACE;
        loop {
            loop {
                match self.drain() {
                    Ok(0) => break,
                    Ok(_) => {}
                    Err(Why::Failed(error)) => anyhow::bail!(error),
                    // Nobody reads, or there is enough to read: what is left is for nobody.
                    Err(_) => return Ok(()),
                }
                if Instant::now() > until {
                    return Ok(());
                }
            }
            let arrived = no_more_begin && self.session.stitcher().open_packets() == 0;
            if arrived || Instant::now() > until || timeout(QUIET, self.ring.readable()).await.is_err() {
                return Ok(());
            }
        }
    }

    /// Events that were sent and not read, now that nothing is sent any more.
    fn unread(&mut self) -> Result<u64> {
        let sent = Totals::of(&self.capture.counters()?).counters.sent;
        while self.read < sent {
            match self.drain() {
                Ok(1..) => {}
                Ok(0) | Err(_) => break,
            }
        }
        Ok(sent.saturating_sub(self.read))
    }
}

/// So many packets more were printed: of those that were wanted so many fewer are left.
fn count_down(left: &mut Option<u64>, count: u64) -> Result<(), Why> {
    *left = left.map(|left| left.saturating_sub(count));
    if *left == Some(0) { Err(Why::Counted) } else { Ok(()) }
}
