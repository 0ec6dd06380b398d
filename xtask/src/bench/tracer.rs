//! A tool that runs: started, waited for until it traces, watched, and ended as Ctrl-C does.
//!
//! It traces when all of the functions are taken, as the kernel's own list of them says, by whatever way it takes them; of skbtrace,
//! which attaches first and lets itself loose then, it is also asked that it says so. Its output is read as it comes and counted: a
//! pipe that nobody reads would be a brake, and a file of it would fill the machine.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::command::command;
use super::count::{Told, count, losses, told_lost};
use super::plan::{FUNCTIONS, Programs, Tool};
use super::sample::Program;
use super::{hits, process, programs};

/// How long a tool may take to get ready, and to end.
const PATIENCE: Duration = Duration::from_secs(300);

/// How often it is looked whether something is so.
const LOOK: Duration = Duration::from_millis(20);

/// How long nothing more comes when all has come, and how long that is waited for.
const QUIET: Duration = Duration::from_millis(700);
const SETTLE: Duration = Duration::from_secs(60);

/// So much of what it prints is kept, bytes: enough to see whether its events are counted as they are.
const KEPT: usize = 64 << 10;

/// What skbtrace says when it traces.
const READY: &str = " hops traced by ";

/// What has been heard of it.
#[derive(Default)]
struct Heard {
    events: AtomicU64,
    compared: AtomicU64,
    lost: AtomicU64,
    ready: AtomicBool,
}

/// Sums up to a moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sums {
    /// Runs of its programs, and the hits at the compared functions that it should have told.
    pub hits: u64,
    /// See `hits`.
    pub compared_hits: u64,
    /// How long they took, nanoseconds.
    pub run_time_ns: u64,
    /// Seconds of processor time of its process.
    pub cpu_s: f64,
    /// Events that came out of it, and of those the ones at the compared functions.
    pub delivered: u64,
    /// See `delivered`.
    pub compared_delivered: u64,
}

/// A tool that runs.
pub struct Tracer {
    tool: Tool,
    child: Reaped,
    heard: Arc<Heard>,
    last_line: JoinHandle<String>,
    complaints: JoinHandle<()>,
    /// Programs that are not its own.
    others: BTreeSet<u32>,
    /// Seconds that it took to trace.
    pub ready_s: f64,
}

/// What is left of a tool that has ended.
pub struct Ended {
    /// Seconds from the signal until it and its probes were gone.
    pub detach_s: f64,
    /// The last line that it printed.
    pub last_line: String,
    /// How many events it lost, by its own account; none where it gives none.
    pub lost: Option<u64>,
}

/// A process that does not outlive us.
struct Reaped(Child);

impl Drop for Reaped {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Tracer {
    /// Starts it on the traffic of an interface and waits until it traces; none where nobody traces. What it complains about goes
    /// to the file, and the beginning of what it prints to one beside it.
    ///
    /// # Errors
    /// Where it ends, or does not get ready.
    pub fn start(tool: Tool, all: &Programs, iface: &str, complaints: &Path) -> Result<Option<Self>> {
        let Some(mut command) = command(tool, all, iface)? else { return Ok(None) };
        // Else the probes of one that was killed would be taken for its own.
        free(Instant::now())?;
        let others = programs::ids()?;
        let start = Instant::now();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = Reaped(command.spawn().with_context(|| format!("{tool} does not start"))?);
        let heard = Arc::new(Heard::default());
        let stdout = child.0.stdout.take().context("no output")?;
        let stderr = child.0.stderr.take().context("no output")?;
        let shared = Arc::clone(&heard);
        let beginning = File::create(complaints.with_extension("stdout"))?;
        let last_line = thread::spawn(move || listen(tool, stdout, &shared, beginning));
        let shared = Arc::clone(&heard);
        let mut file = File::create(complaints)?;
        let complaints = thread::spawn(move || {
            each_line(stderr, |line| {
                // Whatever cannot be kept of them: nothing rests on it.
                let _ = writeln!(file, "{line}");
                shared.ready.fetch_or(line.contains(READY), Ordering::Relaxed);
                shared.lost.fetch_add(told_lost(line), Ordering::Relaxed);
            });
        });
        let mut tracer = Self { tool, child, heard, last_line, complaints, others, ready_s: 0.0 };
        loop {
            if let Some(status) = tracer.child.0.try_wait()? {
                bail!("{tool} ended before it traced: {status}");
            }
            if (!tool.is_skbtrace() || tracer.heard.ready.load(Ordering::Relaxed)) && taken()? == FUNCTIONS.len() {
                break;
            }
            ensure!(start.elapsed() < PATIENCE, "{tool} has {} of the functions after {PATIENCE:?}", taken()?);
            thread::sleep(LOOK);
        }
        tracer.ready_s = start.elapsed().as_secs_f64();
        Ok(Some(tracer))
    }

    /// Its sums up to now.
    ///
    /// # Errors
    /// Where it has ended.
    pub fn sums(&self) -> Result<Sums> {
        let mut sums = Sums { cpu_s: process::cpu_s(self.pid())?, ..Sums::default() };
        for program in self.programs()? {
            sums.hits += program.run_count;
            sums.run_time_ns += program.run_time_ns;
        }
        // Of the others every program is at one of the functions, whatever it is called.
        sums.compared_hits = if self.tool.is_skbtrace() { hits::compared()? } else { sums.hits };
        sums.delivered = self.heard.events.load(Ordering::Relaxed);
        sums.compared_delivered = self.heard.compared.load(Ordering::Relaxed);
        Ok(sums)
    }

    /// Waits until no more events come out of it.
    pub fn settle(&self) {
        let start = Instant::now();
        let (mut last, mut since) = (None, Instant::now());
        while since.elapsed() < QUIET && start.elapsed() < SETTLE {
            let now = self.heard.events.load(Ordering::Relaxed);
            if last.replace(now) != Some(now) {
                since = Instant::now();
            }
            thread::sleep(LOOK);
        }
    }

    /// Its BPF programs.
    ///
    /// # Errors
    /// Where the kernel does not tell.
    pub fn programs(&self) -> Result<Vec<Program>> {
        programs::besides(&self.others)
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.0.id()
    }

    /// Ends it: the seconds until it and its probes are gone, and its last line.
    ///
    /// # Errors
    /// Where it does not end, or its probes stay.
    pub fn stop(mut self) -> Result<Ended> {
        let start = Instant::now();
        kill(Pid::from_raw(i32::try_from(self.pid())?), Signal::SIGINT)?;
        while self.child.0.try_wait()?.is_none() {
            ensure!(start.elapsed() < PATIENCE, "{} does not end", self.tool);
            thread::sleep(LOOK / 4);
        }
        free(start).with_context(|| format!("{} has left probes behind", self.tool))?;
        let detach_s = start.elapsed().as_secs_f64();
        let last_line = self.last_line.join().unwrap_or_default();
        // One that panicked has heard of no loss.
        let _ = self.complaints.join();
        let lost = match self.tool {
            Tool::Skbtrace | Tool::SkbtraceNoVerify => Some(losses(&last_line).values().sum()),
            Tool::Bpftrace | Tool::BpftraceStack => Some(self.heard.lost.load(Ordering::Relaxed)),
            _ => None,
        };
        Ok(Ended { detach_s, last_line, lost })
    }
}

/// Counts what it prints, keeps the beginning, and returns the last line.
fn listen(tool: Tool, stdout: impl Read, heard: &Heard, mut beginning: impl Write) -> String {
    let (mut last, mut kept) = (String::new(), 0);
    each_line(stdout, |line| {
        if kept < KEPT {
            // As above.
            let _ = writeln!(beginning, "{line}");
            kept += line.len();
        }
        match count(tool, line) {
            Told::More(events, compared) => {
                heard.events.fetch_add(events, Ordering::Relaxed);
                heard.compared.fetch_add(compared, Ordering::Relaxed);
            }
            Told::Sum(events) => {
                heard.events.store(events, Ordering::Relaxed);
                heard.compared.store(events, Ordering::Relaxed);
            }
        }
        heard.ready.fetch_or(line.contains(READY), Ordering::Relaxed);
        heard.lost.fetch_add(told_lost(line), Ordering::Relaxed);
        line.clone_into(&mut last);
    });
    last
}

fn each_line(stream: impl Read, mut each: impl FnMut(&str)) {
    let mut stream = BufReader::with_capacity(1 << 16, stream);
    let mut line = Vec::new();
    // What cannot be read any more has ended.
    while stream.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
        each(String::from_utf8_lossy(&line).trim_end());
        line.clear();
    }
}

/// How many of the functions are traced by anybody: kprobes and fprobes at a function's entry both go through ftrace.
fn taken() -> Result<usize> {
    let path = Path::new("/sys/kernel/tracing/enabled_functions");
    let list = crate::tools::read(path)?;
    Ok(FUNCTIONS.iter().filter(|function| is_in(&list, function.name)).count())
}

/// Waits until nobody traces any of them.
fn free(since: Instant) -> Result<()> {
    while taken()? > 0 {
        ensure!(since.elapsed() < PATIENCE, "some of the functions are still traced after {PATIENCE:?}");
        thread::sleep(LOOK / 4);
    }
    Ok(())
}

/// A line begins with the name; the module and who it is follow.
fn is_in(list: &str, name: &str) -> bool {
    list.lines().filter_map(|line| line.split_whitespace().next()).any(|first| first == name)
}

#[cfg(test)]
mod tests {
    use super::{Heard, KEPT, is_in, listen};
    use crate::bench::plan::Tool;
    use std::sync::atomic::Ordering;

    #[test]
    fn a_function_is_taken_when_it_is_listed_by_its_whole_name() {
        let list = "__br_forward [bridge] (1) R   \ttramp: 0xffffffffc0a00000\nip_rcv (1) R\n";
        assert!(is_in(list, "__br_forward") && is_in(list, "ip_rcv"));
        assert!(!is_in(list, "br_forward") && !is_in(list, "ip_rcv_finish"));
    }

    #[test]
    fn output_is_counted_and_its_last_line_kept() {
        let heard = Heard::default();
        let output = "Attaching 6 probes...\nip_rcv skb=1 len=84 dev=a\nveth_xmit skb=2 len=84 dev=b";
        let mut kept = Vec::new();
        assert_eq!(listen(Tool::Bpftrace, output.as_bytes(), &heard, &mut kept), output.lines().last().unwrap());
        assert_eq!(String::from_utf8(kept).unwrap().trim_end(), output);
        assert_eq!(heard.events.load(Ordering::Relaxed), 2);
        assert_eq!(heard.lost.load(Ordering::Relaxed), 0);
        listen(Tool::Bpftrace, b"Lost 1918 events\nLost 2 events\n".as_slice(), &heard, std::io::sink());
        assert_eq!((heard.events.load(Ordering::Relaxed), heard.lost.load(Ordering::Relaxed)), (2, 1920));
        let output = "events 5\nevents 9\n";
        let mut kept = Vec::new();
        let long = "events 5\n".repeat(KEPT) + output;
        assert_eq!(listen(Tool::Floor, long.as_bytes(), &heard, &mut kept), "events 9");
        assert!(kept.len() > KEPT && kept.len() < 2 * KEPT, "{}", kept.len());
        assert_eq!(heard.events.load(Ordering::Relaxed), 9);
    }
}
