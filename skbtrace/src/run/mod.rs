//! One run: topology, plan and capture are set up, events flow through the stitcher to the output until something ends
//! the run, and then the books are closed.
//!
//! Everything here is one task on one thread: between the ring and the output there is nothing to hand over.

mod clock;
mod late;
mod live;
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

use crate::{
    capture::{Capture, Ring, Settings},
    filter::Expression,
    hops::{Backend, Plan},
    host::{Host, drop_capabilities, kprobes_offered},
    name::printable,
    store::Start,
    topology::{self, Topology},
    trace::{Losses, Reasons, StitchOptions, Summary},
    verdict::Class,
};

use clock::{clock_offset_ns, wall_ns};
use late::Late;
use live::Run;
use names::RunNames;
pub use output::{Format, Look, Output, Selection, Whole, wants_colour};
use progress::Progress;
pub use recording::RecordOptions;
pub(crate) use recording::make;
use recording::{Files, Recording, name_table};
pub use replay::{Replay, Replayed};
use session::Session;
use stop::Stops;
pub use stop::{Ended, Why};
use watched::watched;

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
    /// Of those, the ones that this expression wants.
    pub expression: Option<Expression>,
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
    let (backend, why) = backend(options.backend, &host)?;
    let mut plan = Plan::for_host(&host, backend);
    let mut progress = Progress::new("attaching hops");
    let expression = options.expression.as_ref();
    let settings = Settings { filter: options.filter, expression, ring_size: options.ring_size };
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
    preface.extend(capture.told());
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
    output.limits(&host.privileges, &topology);
    stops.spawn(&options.command)?;
    let late = Late::of(&plan);
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
        late,
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
///
/// # Errors
/// When kprobes are wanted and cannot be had.
pub fn backend(wanted: Option<Backend>, host: &Host) -> Result<(Backend, Option<String>)> {
    match (wanted, kprobes_offered(&host.privileges)) {
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
