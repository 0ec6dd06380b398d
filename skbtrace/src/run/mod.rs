//! One run: topology, plan and capture are set up, events flow through the stitcher to the output until something ends
//! the run, and then the books are closed.
//!
//! Everything here is one task on one thread: between the ring and the output there is nothing to hand over.

mod names;
mod output;
mod progress;
mod stop;
mod watched;

use std::{net::IpAddr, num::NonZeroU64, process::ExitStatus, time::Duration};

use anyhow::{Context as _, Result};
use skbtrace_common::Filter;

use tokio::time::{Instant, timeout};

use crate::{
    capture::{Capture, Ring, Settings, Totals, Watched},
    hops::Plan,
    host::Host,
    topology::{self, Segment, Topology, Watch},
    trace::{Losses, Reasons, StitchOptions, Stitcher, Summary, decode},
};

use names::RunNames;
pub use output::{Format, Output, wants_colour};
use progress::Progress;
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
    /// Packets to keep.
    pub filter: Filter,
    /// Size of the ring, bytes.
    pub ring_size: u32,
    /// The form of the output.
    pub format: Format,
    /// Whether the output and the messages may have colours.
    pub colour: bool,
    /// Whether to print what each hop does.
    pub explain: bool,
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
    let topology = Topology::read()?;
    let target = topology.find(&options.iface, options.netns.as_deref())?.key;
    let segment = topology.segment(target);
    let mut plan = Plan::for_host(&host);
    let mut progress = Progress::new("attaching hops");
    let settings = Settings { filter: options.filter, ring_size: options.ring_size };
    let mut capture = Capture::start(&host, &mut plan, settings, |done, all| progress.show(done, all))?;
    progress.clear();
    let ring = Ring::new(capture.ring()?).context("cannot wait for events")?;
    let reasons = Reasons::new(host.btf.enumeration("skb_drop_reason").unwrap_or_default());
    let stitcher =
        Stitcher::new(StitchOptions { target: Some(target), reasons: reasons.clone(), ..Default::default() });
    let mut output = Output::new(options.format, options.colour, options.explain);
    let watch = topology::watch(&topology, &segment.netns()).context("cannot follow changes of the topology")?;
    capture.watch(watched(&segment))?;
    // Only now: who reads that hops are traced may send the packet that is to be seen.
    output.preface(&segment.line(&topology))?;
    output.preface(&plan.line(&host.release.0))?;
    stops.spawn(&options.command)?;
    let names = RunNames { topology, symbols: host.symbols, reasons };
    let mut run = Run {
        capture,
        ring,
        stitcher,
        output,
        names,
        segment,
        watch,
        left: options.count.map(NonZeroU64::get),
        read: 0,
    };
    let why = run.until(&mut stops).await;
    let ended = stops.wind_up(why).await;
    run.close(&ended.why).await?;
    Ok(Report { ended, summary: run.stitcher.summary().clone() })
}

/// A run that is going on.
struct Run {
    capture: Capture,
    ring: Ring,
    stitcher: Stitcher,
    output: Output,
    names: RunNames,
    segment: Segment,
    watch: Watch,
    /// Packets that are still to be printed.
    left: Option<u64>,
    /// Events read.
    read: u64,
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
                () = self.watch.changed() => self.follow_topology(),
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

    /// Takes a batch of events from the ring and prints what they complete.
    fn drain(&mut self) -> Result<usize, Why> {
        let Run { ring, stitcher, output, names, left, read, .. } = self;
        let count = ring.drain(BATCH, |bytes| {
            *read += 1;
            let (event, _frame) = decode(bytes).map_err(|error| Why::Failed(error.to_string()))?;
            let mut outcome = Ok(());
            stitcher.push(&event, &mut |packet| {
                if outcome.is_ok() {
                    outcome = output.packet(&packet, names);
                    if let Some(left) = left
                        && packet.number.is_some()
                    {
                        *left = left.saturating_sub(1);
                    }
                }
            });
            outcome.map_err(Why::from_write)?;
            if *left == Some(0) { Err(Why::Counted) } else { Ok(()) }
        })?;
        output.flush().map_err(Why::from_write)?;
        Ok(count)
    }

    fn tick(&mut self) -> Result<(), Why> {
        let losses = self.losses().map_err(|error| Why::Failed(error.to_string()))?;
        self.output.losses(&losses);
        self.stitcher.set_losses(losses);
        let Run { stitcher, output, names, .. } = self;
        let mut outcome = Ok(());
        stitcher.tick(now_ns(), &mut |packet| {
            if outcome.is_ok() {
                outcome = output.packet(&packet, names);
            }
        });
        outcome.and_then(|()| output.flush()).map_err(Why::from_write)
    }

    /// Links changed: what is watched follows. A device that is gone or a map that is full ends nothing: it is said.
    fn follow_topology(&mut self) {
        let newer = match Topology::read() {
            Ok(newer) => newer,
            Err(error) => return self.output.notice(&format!("cannot follow a change of the topology: {error}")),
        };
        let target = self.segment.target;
        if newer.link(target).is_none() && self.names.topology.link(target).is_some() {
            self.output.notice(&format!("{} is gone", self.names.topology.label(target)));
        }
        let segment = newer.segment(target);
        if !self.segment.diff(&segment).is_empty() {
            if let Err(error) = self.capture.watch(watched(&segment)) {
                self.output.notice(&format!("cannot follow a change of the topology: {error}"));
            }
            if newer.link(target).is_some() {
                self.output.notice(&format!("the segment is now {}", segment.line(&newer)));
            }
        }
        if !segment.netns().is_subset(self.watch.watched()) {
            match topology::watch(&newer, &segment.netns()) {
                Ok(watch) => self.watch = watch,
                Err(error) => self.output.notice(&format!("cannot follow later changes: {error}")),
            }
        }
        self.segment = segment;
        // Devices that have gone keep their names: packets in flight may still speak of them.
        self.names.topology = newer;
    }

    fn losses(&self) -> Result<Losses> {
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
        let mut losses = self.losses()?;
        if unfinished {
            losses.unread = self.unread()?;
        }
        self.stitcher.set_losses(losses);
        let Run { stitcher, output, names, .. } = self;
        if !matches!(why, Why::Counted) {
            let mut outcome = Ok(());
            stitcher.finish(now_ns(), &mut |packet| {
                if outcome.is_ok() {
                    outcome = output.packet(&packet, names);
                }
            });
            output::unless_closed(outcome)?;
        }
        output::unless_closed(output.summary(stitcher.summary(), names))?;
        Ok(())
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
            let arrived = no_more_begin && self.stitcher.open_packets() == 0;
            if arrived || Instant::now() > until || timeout(QUIET, self.ring.readable()).await.is_err() {
                return Ok(());
            }
        }
    }

    /// Events that were sent and not read. The ring was empty a moment ago: a hit that was under way then is none.
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

/// CLOCK_MONOTONIC, the clock of the events.
fn now_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    // The clock counts from boot: it is never negative.
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}
