//! Tells when links or addresses change in some namespaces, so that the caller reads the topology again.
//!
//! What changed is not told: the order of messages from several namespaces means nothing, and messages are lost when the
//! socket is full. Reading again is always right, and fast.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::Duration;

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use tokio::io::{Interest, unix::AsyncFd};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::{Topology, TopologyError, read};

// linux/rtnetlink.h
const RTNLGRP_LINK: u32 = 1;
const RTNLGRP_IPV4_IFADDR: u32 = 5;
const RTNLGRP_IPV6_IFADDR: u32 = 9;
/// The socket was full and messages were lost.
const ENOBUFS: i32 = 105;
/// After a change a namespace is left alone for so long, so that a burst of changes is told once or twice.
const QUIET: Duration = Duration::from_millis(50);

/// Watches namespaces for as long as it is kept.
#[derive(Debug)]
pub struct Watch {
    changed: Arc<Notify>,
    watched: BTreeSet<u32>,
    // Dropping it ends the tasks.
    _tasks: JoinSet<()>,
}

impl Watch {
    /// Waits until something has changed since the last call returned. Cancelling loses nothing.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// The namespaces that are watched, by inode number. When the segment grows beyond them, watch anew.
    #[must_use]
    pub fn watched(&self) -> &BTreeSet<u32> {
        &self.watched
    }
}

/// Watches the namespaces with these inode numbers; [`Segment::netns`](super::Segment::netns) gives them. To miss
/// nothing, watch first and then read once more. A namespace that is gone is left out and counts as a change.
///
/// Call it within a tokio runtime that has I/O and time enabled. It keeps one socket open per namespace.
///
/// # Errors
///
/// When a namespace may not be entered or no socket is to be had.
pub fn watch(topology: &Topology, netns: &BTreeSet<u32>) -> Result<Watch, TopologyError> {
    let changed = Arc::new(Notify::new());
    let mut tasks = JoinSet::new();
    let mut watched = BTreeSet::new();
    for (inum, opened) in read::on_own_thread(|| open_all(topology, netns))? {
        let failed = |source| TopologyError::Watch { netns: topology.netns_label(inum), source };
        match opened {
            Ok(socket) => {
                // SAFETY: a Socket has one open descriptor from its making until it is dropped, and the AsyncFd owns it.
                let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) };
                let socket = socket.map_err(|error| failed(error.into()))?;
                watched.insert(inum);
                tasks.spawn(listen(socket, Arc::clone(&changed)));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => changed.notify_one(),
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(Watch { changed, watched, _tasks: tasks })
}

fn open_all(topology: &Topology, netns: &BTreeSet<u32>) -> Vec<(u32, io::Result<Socket>)> {
    // The thread begins in our own namespace and cannot be sure to come back: our own goes first.
    let mut order: Vec<u32> = netns.iter().copied().collect();
    let own = |inum: &u32| topology.netns(*inum).is_some_and(|netns| netns.own);
    order.sort_by_key(|inum| !own(inum));
    order.into_iter().map(|inum| (inum, open_in(topology, inum, own(&inum)))).collect()
}

fn open_in(topology: &Topology, inum: u32, here: bool) -> io::Result<Socket> {
    if !here {
        read::enter(read::open(topology.netns(inum).ok_or(io::ErrorKind::NotFound)?)?.as_fd())?;
    }
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.set_non_blocking(true)?;
    socket.bind(&SocketAddr::new(0, 0))?;
    for group in [RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR] {
        socket.add_membership(group)?;
    }
    Ok(socket)
}

async fn listen(socket: AsyncFd<Socket>, changed: Arc<Notify>) {
    let mut buffer = Vec::with_capacity(32 << 10);
    while let Ok(mut ready) = socket.readable().await {
        // Take all there is, or the next message would not wake us. Lost messages are a change as well.
        loop {
            buffer.clear();
            match ready.get_inner().recv(&mut buffer, 0) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.raw_os_error() == Some(ENOBUFS) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Nothing that a netlink socket is known to say. One last change, so that the caller looks for itself.
                Err(_) => return changed.notify_one(),
            }
        }
        ready.clear_ready();
        changed.notify_one();
        tokio::time::sleep(QUIET).await;
    }
}
