//! Reads the whole host: finds the namespaces, enters each on a thread made for that, dumps its links and addresses, and
//! then asks for the namespace ids that tell the peers apart.
//!
//! Namespaces are opened when needed and closed again, not kept open: 500 of them with a socket each would run into the
//! usual limit of 1,024 open files.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::fs::MetadataExt as _;
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::netlink::RouteSocket;
use super::netns::{self, Found};
use super::peers::{self, Nsid, Nsids, RawLink};
use super::{Netns, Topology, TopologyError, Unreadable};

/// Reads all of it, on a thread of its own.
pub(super) fn read() -> Result<Topology, TopologyError> {
    on_own_thread(read_here)?
}

/// Runs `work` on a new thread, which may change namespace and is then thrown away.
pub(crate) fn on_own_thread<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, TopologyError> {
    thread::scope(|scope| {
        let worker = thread::Builder::new().name("topology".into()).spawn_scoped(scope, work);
        worker.map_err(TopologyError::Thread)?.join().map_err(|_| TopologyError::ThreadDied)
    })
}

fn read_here() -> Result<Topology, TopologyError> {
    let Found { mut netns, processes, mut unreadable } = netns::discover()?;
    let mut inside = Inside::new(&netns);
    let mut raw = Vec::new();
    let mut gone = Vec::new();
    // Our own first: it is where we are, and needs no leave to enter.
    let mut order: Vec<&Netns> = netns.values().collect();
    order.sort_by_key(|netns| !netns.own);
    for one in order {
        match inside.enter(one).and_then(|()| read_links(one.inum)) {
            Ok(links) => raw.extend(links),
            Err(error) if error.kind() == io::ErrorKind::NotFound => gone.push(one.inum),
            Err(error) => unreadable.push(Unreadable {
                inum: Some(one.inum),
                what: format!("network namespace {}", netns::describe(&one.name)),
                reason: reason(&error),
            }),
        }
    }
    let links = peers::resolve(raw, &mut Asked { netns: &netns, inside, socket: None, answers: HashMap::new() });
    netns.retain(|inum, _| !gone.contains(inum));
    Ok(Topology { netns, links, processes, unreadable })
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied => format!("{error}; entering it needs CAP_SYS_ADMIN, run as root"),
        _ => error.to_string(),
    }
}

fn read_links(inum: u32) -> io::Result<Vec<RawLink>> {
    let mut socket = RouteSocket::open()?;
    let mut links = socket.links(inum)?;
    let mut addresses: HashMap<u32, Vec<_>> = HashMap::new();
    for (ifindex, address) in socket.addresses()? {
        addresses.entry(ifindex).or_default().push(address);
    }
    for raw in &mut links {
        raw.link.addrs = addresses.remove(&raw.link.key.ifindex).unwrap_or_default();
    }
    Ok(links)
}

/// Opens a namespace by any of its files that still stands for it. `NotFound` when none does: it is gone, or as good as.
pub(crate) fn open(netns: &Netns) -> io::Result<File> {
    let mut last = io::ErrorKind::NotFound.into();
    for path in &netns.paths {
        match File::open(path) {
            Ok(file) => {
                let metadata = file.metadata()?;
                if metadata.dev() == netns.dev && metadata.ino() == u64::from(netns.inum) {
                    return Ok(file);
                }
            }
            // A process's file gives ESRCH as it ends.
            Err(error) if error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(ESRCH) => {}
            Err(error) => last = error,
        }
    }
    Err(last)
}

const ESRCH: i32 = 3;

/// Moves the calling thread into a namespace.
pub(crate) fn enter(fd: BorrowedFd<'_>) -> io::Result<()> {
    Ok(move_into_link_name_space(fd, Some(LinkNameSpaceType::Network))?)
}

/// Which namespace the calling thread is in.
struct Inside(Option<u32>);

impl Inside {
    fn new(netns: &BTreeMap<u32, Netns>) -> Self {
        Self(netns.values().find(|netns| netns.own).map(|netns| netns.inum))
    }

    fn enter(&mut self, netns: &Netns) -> io::Result<()> {
        if self.0 != Some(netns.inum) {
            enter(open(netns)?.as_fd())?;
            self.0 = Some(netns.inum);
        }
        Ok(())
    }
}

/// Asks the kernel for namespace ids. Questions come sorted by namespace, so one socket is kept at a time.
struct Asked<'a> {
    netns: &'a BTreeMap<u32, Netns>,
    inside: Inside,
    socket: Option<(u32, RouteSocket)>,
    answers: HashMap<(u32, u32), Nsid>,
}

impl Asked<'_> {
    fn ask(&mut self, seen_from: u32, of: u32) -> io::Result<Nsid> {
        let of = open(self.netns.get(&of).ok_or(io::ErrorKind::NotFound)?)?;
        let mut socket = match self.socket.take() {
            Some((inum, socket)) if inum == seen_from => socket,
            _ => {
                self.inside.enter(self.netns.get(&seen_from).ok_or(io::ErrorKind::NotFound)?)?;
                RouteSocket::open()?
            }
        };
        let nsid = socket.nsid_of(of.as_fd())?;
        self.socket = Some((seen_from, socket));
        Ok(nsid.map_or(Nsid::Unassigned, Nsid::Is))
    }
}

impl Nsids for Asked<'_> {
    fn nsid(&mut self, seen_from: u32, of: u32) -> Nsid {
        if let Some(answer) = self.answers.get(&(seen_from, of)) {
            return *answer;
        }
        let answer = self.ask(seen_from, of).unwrap_or(Nsid::Unknown);
        self.answers.insert((seen_from, of), answer);
        answer
    }
}
