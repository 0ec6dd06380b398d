//! One run: topology, plan and capture are set up, events flow through the stitcher to the output until something ends
//! the run, and then the books are closed.
//!
//! Everything here is one task on one thread: between the ring and the output there is nothing to hand over.

mod clock;
mod names;
mod output;
mod progress;
mod recording;
mod replay;
mod session;
mod stop;
#[cfg(test)]
mod tests;
mod watched;

use std::{net::IpAddr, num::NonZeroU64, process::ExitStatus, time::Duration};

use anyhow::{Context as _, Result};
use skbtrace_common::Filter;

use tokio::time::{Instant, timeout};

use crate::{
    capture::{Capture, HopCounters, Ring, Settings, Totals, Watched},
    hops::{Backend, Plan},
    host::{Host, Privileges, drop_capabilities, kprobes_offered},
    name::printable,
    store::{End, Start},
    survey::Survey,
    topology::{self, Segment, Topology, Watch},
    trace::{HopBooks, Losses, Reasons, StitchOptions, Summary, decode},
    verdict::Class,
};

use clock::{clock_offset_ns, now_ns, wall_ns};
use names::RunNames;
pub use output::{Format, Look, Output, Selection, wants_colour};
use progress::Progress;
pub use recording::RecordOptions;
use recording::{Files, Recording, end, name_table};
pub use replay::{Replay, Replayed};
use session::Session;
use stop::Stops;
pub use stop::{Ended, Why};
use watched::watched;

/// Events that are taken from the ring before anything else is looked at.
const BATCH: usize = 4096;
/// How often losses are read and idle packets looked for.
const TICK: Duration = Duration::from_millis(500);
/// A run that is over waits for so long without an event for packets that are still on their way.
const QUIET: Duration = Duration::from_millis(300);
/// But no longer than this.
const GRACE: Duration = Duration::from_secs(3);

/// What a run is to do: the command line, understood.
#[derive(Debug)]
pub struct Options {
    /// Name of the interface.
    pub iface: String,
    /// The netns to look for it in; every one when absent.
    pub netns: Option<String>,
    /// End after so many packets.
    pub count: Option<NonZeroU64>,
    /// End after so long.
    pub timeout: Option<Duration>,
    /// What to trace by; without it, the best that this kernel offers.
    pub backend: Option<Backend>,
    /// Packets to keep.
    pub filter: Filter,
    /// Waits that are too long; without it, those that hardly anything but a fault explains.
    pub slow: Option<Duration>,
    /// Size of the ring, bytes.
    pub ring_size: u32,
    /// What the output looks like.
    pub look: Look,
    /// Bytes of each packet that a recording has at each hop, at most 2,048.
    pub snaplen: u16,
    /// What to record, and where.
    pub record: Option<RecordOptions>,
    /// A command to run while tracing; the run ends when it does.
    pub command: Vec<String>,
}

/// How a run ended.
#[derive(Debug)]
pub struct Report {
    /// What ended it.
    pub ended: Ended,
    /// Its books.
    pub summary: Summary,
    /// The classes of what was found.
    pub found: Vec<Class>,
}

impl Report {
    /// The command's exit status, if there was one and it failed.
    #[must_use]
    pub fn failed_command(&self) -> Option<ExitStatus> {
        match self.ended.why {
            Why::CommandEnded(status) if !status.success() => Some(status),
            _ => None,
        }
    }
}

/// An address as the filter and the maps want it: IPv6, or IPv4 mapped into it.
#[must_use]
pub fn wire_address(addr: IpAddr) -> [u8; 16] {
    match addr {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// Traces until something ends it.
///
/// # Errors
/// When the host cannot be traced on, the interface is not found, or the capture cannot be set up; all of it before the
/// first packet. An output that nobody reads any more is no error: it ends the run.
pub async fn run(options: &Options) -> Result<Report> {
    // Signals first: whatever happens from here on, Ctrl-C takes the same way out.
    let mut stops = Stops::new(options.timeout)?;
    let host = Host::look()?;
    // Before the seconds that attaching takes: a file that cannot be made is said at once.
    let files = options.record.as_ref().map(Files::create).transpose()?;
    let topology = Topology::read()?;
    let target = topology.find(&options.iface, options.netns.as_deref())?.key;
    let segment = topology.segment(target);
    let (backend, why) = backend(options.backend, kprobes_offered(&Privileges::read(None)))?;
    let mut plan = Plan::for_host(&host, backend);
    let mut progress = Progress::new("attaching hops");
    let settings = Settings { filter: options.filter, ring_size: options.ring_size };
    let mut capture = Capture::start(&host, &mut plan, settings, |done, all| progress.show(done, all))?;
    progress.clear();
    let ring = Ring::new(capture.ring()?).context("cannot wait for events")?;
    let reasons = host.btf.enumeration("skb_drop_reason").unwrap_or_default();
    let stitch = StitchOptions {
        target: Some(target),
        reasons: Reasons::new(reasons.iter().cloned()),
        payload: options.look.payload.map_or(0, usize::from),
        tcp_ends_unseen: backend == Backend::Tracepoint,
        tcp_code: if backend == Backend::Tracepoint {
            host.symbols.ranges(&["tcp_", "__tcp_", "sk_stream_kill_queues"])
        } else {
            Vec::new()
        },
        ..Default::default()
    };
    // A recording on standard output leaves no room for anything else there.
    let mut output = match &options.record {
        Some(record) if record.to_stdout() => {
            Output::to(Box::new(std::io::stderr()), Look { quiet: true, ..options.look })
        }
        _ => Output::new(options.look),
    };
    let mut preface = vec![segment.line(&topology), plan.line(&host.release.0)];
    preface.extend(why);
    let recording = Recording::begin(
        files,
        Start {
            recording: format!("{:x}-{:x}", wall_ns(), std::process::id()),
            kernel: host.release.0.clone(),
            machine: rustix::system::uname().machine().to_string_lossy().into_owned(),
            clock_offset_ns: clock_offset_ns(),
            snaplen: options.snaplen,
            slow_ns: slow_ns(options),
            preface: preface.clone(),
            reasons: reasons.into_iter().map(|(number, name)| (number, printable(name.as_bytes()))).collect(),
            names: name_table(&topology),
            ..Start::of(&stitch)
        },
    )?;
    let watch = topology::watch(&topology, &segment.netns()).context("cannot follow changes of the topology")?;
    capture.watch(watched(&segment))?;
    // Only now: who reads that hops are traced may send the packet that is to be seen.
    for line in &preface {
        output.preface(line)?;
    }
    output.limits(&topology);
    stops.spawn(&options.command)?;
    drop_capabilities(!options.command.is_empty(), options.record.as_ref().is_some_and(|it| it.rotate.is_some()));
    let symbols = Box::new(move |address| host.symbols.describe(address));
    let names = RunNames { topology, symbols, reasons: stitch.reasons.clone() };
    let mut run = Run {
        capture,
        ring,
        max_open: stitch.max_open,
        session: Session::new(stitch, slow_ns(options), output),
        recording,
        names,
        segment,
        watch,
        left: options.count.map(NonZeroU64::get),
        read: 0,
        told: Losses::default(),
    };
    let why = run.until(&mut stops).await;
    let ended = stops.wind_up(why).await;
    run.close(&ended.why).await?;
    let found = run.session.explained().iter().map(|explained| explained.finding.class).collect();
    Ok(Report { ended, summary: run.session.summary(), found })
}

/// The backend to use and, where it is not the better one, why.
fn backend(wanted: Option<Backend>, kprobes: Result<(), &str>) -> Result<(Backend, Option<String>)> {
    match (wanted, kprobes) {
        (Some(Backend::Tracepoint), _) => Ok((Backend::Tracepoint, None)),
        (None | Some(Backend::Kprobe), Ok(())) => Ok((Backend::Kprobe, None)),
        (None, Err(cause)) => Ok((
            Backend::Tracepoint,
            Some(format!("there are no kprobes here ({cause}): tracing by raw tracepoints, which see fewer hops")),
        )),
        (Some(Backend::Kprobe), Err(cause)) => anyhow::bail!(
            "there are no kprobes here ({cause}); leave out --backend, or say --backend tracepoint: it sees fewer hops"
        ),
    }
}

fn slow_ns(options: &Options) -> Option<u64> {
    options.slow.map(|slow| u64::try_from(slow.as_nanos()).unwrap_or(u64::MAX))
}

/// A run that is going on.
struct Run {
    capture: Capture,
    ring: Ring,
    session: Session,
    recording: Recording,
    names: RunNames,
    segment: Segment,
    watch: Watch,
    /// Packets that are still to be printed.
    left: Option<u64>,
    /// Events read.
    read: u64,
    /// Losses as they were recorded last.
    told: Losses,
    /// How many packets the stitcher keeps open.
    max_open: usize,
}

impl Run {
    /// Lets events flow until something ends the run.
    async fn until(&mut self, stops: &mut Stops) -> Why {
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
            let count = printed.map_err(Why::from_write)?;
            if let Some(left) = left {
                *left = left.saturating_sub(count);
            }
            if *left == Some(0) { Err(Why::Counted) } else { Ok(()) }
        })?;
        session.output().flush().map_err(Why::from_write)?;
        Ok(count)
    }

    fn tick(&mut self) -> Result<(), Why> {
        let losses = self.losses().map_err(|error| Why::Failed(error.to_string()))?;
        let now_ns = now_ns();
        // Any other tick changes nothing that is printed.
        let stitcher = self.session.stitcher();
        if losses != self.told || stitcher.open_packets() > self.max_open / 2 || stitcher.has_taken(now_ns) {
            self.told = losses;
            self.recording.write(|recorder| recorder.tick(now_ns, losses))?;
        }
        self.recording.write(|recorder| recorder.flush())?;
        let count = self.session.tick(now_ns, losses, &self.names).map_err(Why::from_write)?;
        self.count_down(count)?;
        // Each tick ends one of these.
        while self.session.stitcher().has_taken(now_ns) {
            self.recording.write(|recorder| recorder.tick(now_ns, losses))?;
            let count = self.session.tick(now_ns, losses, &self.names).map_err(Why::from_write)?;
            self.count_down(count)?;
        }
        Ok(())
    }

    /// So many packets more were printed.
    fn count_down(&mut self, count: u64) -> Result<(), Why> {
        self.left = self.left.map(|left| left.saturating_sub(count));
        if self.left == Some(0) { Err(Why::Counted) } else { Ok(()) }
    }

    /// Says something to the person, and to whoever reads the recording.
    fn notice(&mut self, text: &str) -> Result<(), Why> {
        self.session.output().notice(text);
        self.recording.write(|recorder| recorder.notice(text))
    }

    /// Links changed: what is watched follows. A device that is gone or a map that is full ends nothing: it is said.
    fn follow_topology(&mut self) -> Result<(), Why> {
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
    async fn close(&mut self, why: &Why) -> Result<()> {
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
