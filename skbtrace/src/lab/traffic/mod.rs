//! Traffic that verifies itself, from one namespace of the lab to the other. Sender and receiver are threads of this
//! process whose sockets were made inside the namespaces, so they share counters and end together; no child process
//! can be left behind.

pub mod pace;
pub mod record;
mod tcp;
mod udp;

use std::{
    fs::File,
    net::{Ipv4Addr, SocketAddrV4},
    process,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread::{self, ScopedJoinHandle},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use serde::Serialize;

use super::{
    End, Error, Layout,
    netns::{self, Found},
    observe, scenario,
};
use pace::Pace;
use record::{Record, Tally};

/// The largest record that fits a UDP datagram over IPv4.
pub const MAX_DATAGRAM: usize = 65_507;
/// How long a receiver waits for the next record once the sender has ended, and a sender or receiver for any progress
/// before it calls a stream stalled.
const QUIET: Duration = Duration::from_secs(2);
/// How long a stream may stand still before it is given up. TCP's first retransmissions fit in.
const STALL: Duration = Duration::from_secs(10);
/// How long a blocking socket call may last before the thread looks whether it should stop.
const TICK: Duration = Duration::from_millis(50);

/// A transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// One record per segment, unless the sender is faster than the stream.
    Tcp,
    /// One record per datagram.
    Udp,
}

impl Protocol {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// How to send.
#[derive(Debug, Clone)]
pub struct Options {
    /// Records in all; 0: until stopped.
    pub count: u64,
    /// Bytes of a record, [`record::HEADER`] to [`MAX_DATAGRAM`].
    pub size: usize,
    /// Records a second in all; 0: as fast as they are received.
    pub rate: u64,
    /// How many connections share the records in turn.
    pub connections: u16,
    /// The server's port.
    pub port: u16,
    /// The client's namespace; `None`: the scenario's.
    pub from: Option<String>,
    /// The server's namespace; `None`: the scenario's.
    pub to: Option<String>,
    /// The client's address; `None`: that of its namespace in the scenario.
    pub bind: Option<Ipv4Addr>,
    /// The server's address; `None`: that of its namespace in the scenario.
    pub server: Option<Ipv4Addr>,
}

/// Where traffic goes from and to.
#[derive(Debug)]
pub struct Path {
    from: File,
    to: File,
    /// The client's address.
    pub source: SocketAddrV4,
    /// The server's address.
    pub server: SocketAddrV4,
}

/// What came of one run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The transport.
    pub protocol: Protocol,
    /// Records sent.
    pub sent: u64,
    /// Records that came, whatever their state.
    pub received: u64,
    /// Records that never came.
    pub lost: u64,
    /// Records that came again.
    pub duplicate: u64,
    /// Records that came after a later one.
    pub reordered: u64,
    /// Records whose bytes were not as sent.
    pub corrupt: u64,
    /// Records of an earlier run.
    pub stray: u64,
    /// From the first record to the end of the receiver, without the wait for stragglers.
    pub seconds: f64,
    /// The first corrupt record and what was wrong with it.
    pub first_fault: Option<String>,
    /// Why not everything was sent.
    pub stopped: Option<String>,
}

impl Report {
    /// Whether everything sent came once, in order and intact, and nothing stopped it but the user.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.lost + self.duplicate + self.reordered + self.corrupt == 0 && self.stopped.is_none()
    }

    /// The summary: one line, and one more for each thing that needs words.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let Self { sent, received, lost, duplicate, reordered, corrupt, stray, seconds, .. } = self;
        let name = self.protocol.name();
        let mut lines = vec![format!(
            "{name} {sent} sent, {received} received, {lost} lost, {duplicate} duplicate, {reordered} reordered, \
             {corrupt} corrupt in {seconds:.1} s"
        )];
        lines.extend(self.first_fault.iter().map(|fault| format!("{name} first corrupt: {fault}")));
        lines.extend(self.stopped.iter().map(|why| format!("{name} stopped: {why}")));
        lines.extend((*stray > 0).then(|| format!("{name} {stray} records of an earlier run, not counted")));
        lines
    }
}

/// What sender and receiver share.
struct Shared<'a> {
    options: &'a Options,
    run: u32,
    stop: &'a AtomicBool,
    sent: AtomicU64,
    received: AtomicU64,
    sender_ended: AtomicBool,
}

impl Shared<'_> {
    /// The records to send, paced, until all are sent or `stop` is set.
    fn records(&self) -> impl Iterator<Item = Record> + '_ {
        let pace = Pace::start(self.options.rate);
        let connections = u64::from(self.options.connections);
        let end = if self.options.count == 0 { u64::MAX } else { self.options.count };
        (0..end).take_while(move |index| pace.wait(*index, self.stop)).map(move |index| Record {
            run: self.run,
            connection: (index % connections) as u16,
            sequence: index / connections,
        })
    }

    fn has_sender_ended(&self) -> bool {
        self.sender_ended.load(Ordering::Acquire)
    }
}

/// Finds the namespaces and addresses.
///
/// # Errors
/// When no lab is up and the options do not say it all, or a namespace is not there.
pub fn path(options: &Options) -> Result<Path, Error> {
    let layout = scenario(&observe()?).map(super::Scenario::layout);
    let client = endpoint(layout, 1, options.from.as_deref(), options.bind)?;
    let server = endpoint(layout, 0, options.to.as_deref(), options.server)?;
    Ok(Path {
        from: namespace(&client.0)?,
        to: namespace(&server.0)?,
        source: SocketAddrV4::new(client.1, 0),
        server: SocketAddrV4::new(server.1, options.port),
    })
}

/// The namespace and address of one end: what the options say, else what the scenario has.
fn endpoint(
    layout: Option<&Layout>,
    talker: usize,
    namespace: Option<&str>,
    address: Option<Ipv4Addr>,
) -> Result<(String, Ipv4Addr), Error> {
    let usual: Option<&End> = layout.map(|layout| layout.talkers[talker]);
    let namespace = namespace.or(usual.and_then(|end| end.place));
    let mut candidates = usual.into_iter().chain(layout.into_iter().flat_map(|layout| layout.talkers));
    let there = candidates.find(|end| end.place == namespace).and_then(|end| end.address);
    match (namespace, address.or(there)) {
        (Some(namespace), Some(address)) => Ok((namespace.to_owned(), address)),
        (Some(namespace), None) if layout.is_some() => {
            let option = if talker == 0 { "--server" } else { "--bind" };
            Err(Error::NoAddress { namespace: namespace.to_owned(), option })
        }
        _ => Err(Error::NotUp),
    }
}

fn namespace(name: &str) -> Result<File, Error> {
    match netns::find(name)? {
        Found::Namespace(file) => Ok(file),
        Found::Absent | Found::Leftover | Found::Other => Err(Error::NoNamespace { name: name.to_owned() }),
    }
}

/// Sends and verifies. Returns when everything came, or nothing more comes, or soon after `stop` was set.
///
/// # Errors
/// When sockets cannot be made, bound or connected. What goes wrong after that is in the report.
pub fn run(protocol: Protocol, path: &Path, options: &Options, stop: &AtomicBool) -> Result<Report, Error> {
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let shared = Shared {
        options,
        // Different from that of the run before; nothing secret.
        run: clock.subsec_nanos() ^ clock.as_secs() as u32 ^ process::id().rotate_left(16),
        stop,
        sent: AtomicU64::new(0),
        received: AtomicU64::new(0),
        sender_ended: AtomicBool::new(false),
    };
    let (ended, tally, last) = match protocol {
        Protocol::Udp => udp::run(path, &shared)?,
        Protocol::Tcp => tcp::run(path, &shared)?,
    };
    let sent = shared.sent.load(Ordering::Acquire);
    Ok(Report {
        protocol,
        sent,
        received: tally.received,
        lost: tally.lost(sent),
        duplicate: tally.duplicate,
        reordered: tally.reordered,
        corrupt: tally.corrupt,
        stray: tally.stray,
        seconds: last.as_secs_f64(),
        first_fault: tally.first_fault.map(|fault| fault.to_string()),
        stopped: ended.err(),
    })
}

/// How a sender ended: all sent or asked to stop, or what stopped it.
type Ended = Result<(), String>;

/// Receives to the end and notes when something last came.
type Receiver<'a> = Box<dyn FnOnce(&mut Instant) -> Tally + Send + 'a>;

/// Runs sender and receivers to their ends; the duration is up to the last thing that came or was sent.
fn race<'a>(
    shared: &Shared<'_>,
    send: impl FnOnce() -> Ended + Send,
    receivers: Vec<Receiver<'a>>,
) -> (Ended, Tally, Duration) {
    let start = Instant::now();
    thread::scope(|scope| {
        let receivers: Vec<_> = receivers
            .into_iter()
            .map(|receive| {
                scope.spawn(move || {
                    let mut last = start;
                    let tally = receive(&mut last);
                    (tally, last)
                })
            })
            .collect();
        let sender = scope.spawn(|| {
            let ended = send();
            shared.sender_ended.store(true, Ordering::Release);
            (ended, Instant::now())
        });
        let (ended, mut last) = join(sender);
        let mut tally = Tally::default();
        for receiver in receivers {
            let (counted, came) = join(receiver);
            tally.merge(counted);
            last = last.max(came);
        }
        (ended, tally, last - start)
    })
}

fn join<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

#[cfg(test)]
mod tests;
