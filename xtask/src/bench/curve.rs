//! How skbtrace's own costs grow: with the hops of a packet, with the packets of a run, and with time.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::count::losses;
use super::network::{Chain, IFACE};
use super::plan::{Plan, Tool};
use super::process;
use super::round::stage;
use super::sample::{Point, Soak};
use super::tracer::Tracer;
use super::traffic::datagrams;

/// The rate of paths of any length: sixty hops of it are as many events as twenty of three times as many datagrams.
const ALONG: u64 = 200;

/// The rate of many packets, and of long runs.
const STEADY: u64 = 2000;

/// How often the memory is looked at in a soak.
const LOOK: Duration = Duration::from_secs(10);

/// A path through so many bridges, one behind the other.
///
/// # Errors
/// Where skbtrace or the traffic fails.
pub fn hops(plan: &Plan, bridges: u32, out: &Path) -> Result<Point> {
    let _chain = Chain::up(bridges)?;
    let complaints = out.join(format!("hops-{bridges}.stderr"));
    let point =
        Point { bridges, ..point(plan, Chain::IFACE, (ALONG, ALONG * plan.seconds), &Chain::path(), &complaints)? };
    Ok(point)
}

/// The lab, and so many packets.
///
/// # Errors
/// Where skbtrace or the traffic fails.
pub fn packets(plan: &Plan, count: u64, out: &Path) -> Result<Point> {
    point(plan, IFACE, (STEADY, count), &[], &out.join(format!("packets-{count}.stderr")))
}

fn point(plan: &Plan, iface: &str, traffic: (u64, u64), path: &[&str], complaints: &Path) -> Result<Point> {
    let (rate, count) = traffic;
    let tracer = start(plan, iface, complaints)?;
    let stage = stage(&rate.to_string(), Some(&tracer), || datagrams(&plan.programs.skbtrace, rate, count, path))?;
    let rss_kib = process::rss_kib(tracer.pid())?;
    let books = tracer.stop()?.last_line;
    Ok(Point { bridges: 1, stage, rss_kib, losses: losses(&books) })
}

/// A long run, whose memory is looked at all the time.
///
/// # Errors
/// Where skbtrace or the traffic fails.
pub fn soak(plan: &Plan, out: &Path) -> Result<Soak> {
    let tracer = start(plan, IFACE, &out.join("soak.stderr"))?;
    let start = Instant::now();
    let mut rss_kib = Vec::new();
    let stage = stage(&STEADY.to_string(), Some(&tracer), || {
        thread::scope(|scope| {
            let sender = scope.spawn(|| datagrams(&plan.programs.skbtrace, STEADY, STEADY * plan.soak, &[]));
            while !sender.is_finished() {
                if start.elapsed() >= LOOK * u32::try_from(rss_kib.len())? {
                    rss_kib.push((start.elapsed().as_secs(), process::rss_kib(tracer.pid())?));
                }
                thread::sleep(Duration::from_millis(100));
            }
            sender.join().map_err(|_| anyhow::anyhow!("the traffic's thread panicked"))?
        })
    })?;
    rss_kib.push((start.elapsed().as_secs(), process::rss_kib(tracer.pid())?));
    let books = tracer.stop()?.last_line;
    Ok(Soak { rss_kib, stage, losses: losses(&books) })
}

fn start(plan: &Plan, iface: &str, complaints: &Path) -> Result<Tracer> {
    Tracer::start(Tool::Skbtrace, &plan.programs, iface, complaints)?.context("skbtrace is somebody")
}
