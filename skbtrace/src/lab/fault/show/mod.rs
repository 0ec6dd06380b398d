//! The traffic that shows a fault, and whether its effect was seen. What is seen is what the traffic itself notices,
//! or a counter of the kernel's: never what the fault was told to do.

mod count;
mod deaf;
mod forged;
mod rewrite;
mod timed;

use std::{
    fmt,
    fs::File,
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    sync::atomic::AtomicBool,
};

use serde::Serialize;

use super::{Error, Fault, step};
use crate::lab::{
    netns,
    traffic::{self, Options, Protocol, Report},
};

pub use count::Counter;
pub use forged::Forged;
pub use rewrite::Rewrite;

/// The namespaces and addresses of the two that talk, in every scenario whose faults need them by name.
const SERVER: (&str, Ipv4Addr) = ("ns-calm1", Ipv4Addr::new(78, 78, 0, 10));
const CLIENT: (&str, Ipv4Addr) = ("ns-calm2", Ipv4Addr::new(78, 78, 0, 11));
/// The port that faults look for.
const PORT: u16 = 8000;

/// How a fault is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Show {
    /// The traffic.
    pub by: By,
    /// What it must bring to light.
    pub effect: Effect,
}

/// Traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// `skbtrace lab traffic`.
    Traffic(Traffic),
    /// Datagrams to an address, whoever may have it, without a receiver.
    Burst {
        /// The address and port.
        to: SocketAddrV4,
        /// How many.
        count: u64,
    },
    /// Packets that no kernel would send.
    Forged(Forged),
    /// A sender that writes to pages that it has given to the kernel to send.
    Rewrite(Rewrite),
    /// A receiver with a small buffer that does not read.
    Deaf,
    /// Datagrams, each timed from its sending to its reception.
    Timed,
}

/// Arguments of `skbtrace lab traffic`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Traffic {
    /// The transport.
    pub protocol: Protocol,
    /// Records.
    pub count: u64,
    /// Bytes of each.
    pub size: usize,
    /// Records a second; 0: as fast as they are received.
    pub rate: u64,
    /// The sender's address, where it is not the scenario's.
    pub bind: Option<Ipv4Addr>,
    /// The receiver's address, where it is not the scenario's.
    pub server: Option<Ipv4Addr>,
}

impl Traffic {
    /// A hundred records, half a second.
    #[must_use]
    pub const fn of(protocol: Protocol) -> Self {
        Self { protocol, count: 100, size: 512, rate: 200, bind: None, server: None }
    }

    fn options(self) -> Options {
        Options {
            count: self.count,
            size: self.size,
            rate: self.rate,
            connections: 1,
            port: PORT,
            from: None,
            to: None,
            bind: self.bind,
            server: self.server,
        }
    }
}

impl fmt::Display for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { protocol, count, size, rate, bind, server } = self;
        write!(f, "--proto {} --count {count} --size {size} --rate {rate}", protocol.name())?;
        bind.iter().try_for_each(|bind| write!(f, " --bind {bind}"))?;
        server.iter().try_for_each(|server| write!(f, " --server {server}"))
    }
}

/// What the traffic must bring to light.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Bytes that are not as sent reach the receiver, and nothing calls them wrong.
    Corrupt,
    /// Not all of it arrives, and what arrives is intact.
    Lost,
    /// Some of it arrives twice.
    Duplicate,
    /// Some of it arrives after what was sent later.
    Reordered,
    /// Even the fastest datagram takes at least this many milliseconds.
    Late(u64),
    /// A counter of the kernel's moves.
    Counted(Counter),
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Seen {
    /// Whether the effect was seen.
    pub effect: bool,
    /// The traffic in words.
    pub lines: Vec<String>,
}

/// What traffic noticed of itself.
#[derive(Debug, Default)]
struct Notice {
    corrupt: u64,
    duplicate: u64,
    reordered: u64,
    lost: bool,
    fastest_milliseconds: Option<u64>,
    lines: Vec<String>,
}

/// Sends the traffic that shows a fault, whether the fault is in place or not.
///
/// # Errors
/// When the traffic cannot be sent: a namespace or an address is missing.
pub fn run(fault: &Fault, stop: &AtomicBool) -> Result<Seen, Error> {
    let Show { by, effect } = fault.show;
    let read = |counter: Counter| counter.read(fault);
    let before = match effect {
        Effect::Counted(counter) => read(counter)?,
        _ => 0,
    };
    let mut notice = match by {
        By::Traffic(traffic) => from_traffic(traffic, stop)?,
        By::Burst { to, count } => burst(to, count)?,
        By::Forged(forged) => forged::send(forged)?,
        By::Rewrite(way) => rewrite::run(way)?,
        By::Deaf => deaf::run()?,
        By::Timed => timed::run()?,
    };
    let effect = match effect {
        Effect::Corrupt => notice.corrupt > 0,
        Effect::Lost => notice.lost && notice.corrupt == 0,
        Effect::Duplicate => notice.duplicate > 0,
        Effect::Reordered => notice.reordered > 0,
        Effect::Late(least) => notice.fastest_milliseconds.is_some_and(|fastest| fastest >= least),
        Effect::Counted(counter) => {
            let moved = read(counter)?.saturating_sub(before);
            notice.lines.push(format!("{counter} moved by {moved}"));
            moved > 0
        }
    };
    Ok(Seen { effect, lines: notice.lines })
}

/// Traffic in which nothing is wrong, unless a fault is in place.
///
/// # Errors
/// As [`run`].
pub fn clean(protocol: Protocol, stop: &AtomicBool) -> Result<Report, Error> {
    let options = Traffic::of(protocol).options();
    Ok(traffic::run(protocol, &traffic::path(&options)?, &options, stop)?)
}

fn from_traffic(args: Traffic, stop: &AtomicBool) -> Result<Notice, Error> {
    let options = args.options();
    let done = traffic::path(&options).and_then(|path| traffic::run(args.protocol, &path, &options, stop));
    let report = match done {
        // For a fault that is as good as a report: nothing came through.
        Err(error @ crate::lab::Error::NoConnection { .. }) => {
            return Ok(Notice { lost: true, lines: vec![error.to_string()], ..Notice::default() });
        }
        other => other?,
    };
    Ok(Notice {
        corrupt: report.corrupt,
        duplicate: report.duplicate,
        reordered: report.reordered,
        lost: report.received < args.count,
        fastest_milliseconds: None,
        lines: report.lines(),
    })
}

fn burst(to: SocketAddrV4, count: u64) -> Result<Notice, Error> {
    let socket = within(CLIENT.0, || UdpSocket::bind((CLIENT.1, 0)))?.map_err(failed("make a UDP socket"))?;
    // A refused datagram is what many a fault is about.
    let sent = (0..count).filter(|_| socket.send_to(&[0x55; 64], to).is_ok()).count();
    let lines = vec![format!("udp {sent} of {count} sent to {to}, without a receiver")];
    Ok(Notice { lines, ..Notice::default() })
}

fn namespace(name: &'static str) -> Result<File, Error> {
    let file = step::namespace(Some(name))?;
    file.ok_or_else(|| crate::lab::Error::NotUp.into())
}

/// Runs `work` in a namespace of the lab.
fn within<T: Send>(name: &'static str, work: impl FnOnce() -> T + Send) -> Result<T, Error> {
    use std::os::fd::AsFd as _;
    Ok(netns::inside(namespace(name)?.as_fd(), work)?)
}

/// Wraps the kernel's answer. `doing` reads on after "could not".
pub(super) fn failed<E: Into<std::io::Error>>(doing: &'static str) -> impl Fn(E) -> Error {
    move |answer| Error::Show { doing: doing.to_owned(), answer: answer.into() }
}
