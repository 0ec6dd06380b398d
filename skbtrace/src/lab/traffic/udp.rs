//! UDP: a record per datagram, one receiving socket for all connections.

use std::{
    io::{self, ErrorKind},
    net::{SocketAddrV4, UdpSocket},
    os::fd::AsFd,
    sync::atomic::Ordering,
    thread,
    time::{Duration, Instant},
};

use nix::sys::socket::{setsockopt, sockopt::RcvBufForce};

use super::{Ended, Path, QUIET, Shared, TICK, Tally, race, record};
use crate::lab::{Error, netns};

/// The receiving socket's buffer. The kernel doubles it and charges about 2.3 KiB for a small datagram that took one
/// page, so the window below always fits.
const BUFFER: usize = 8 << 20;
/// How much may be on its way. A loss that a full socket buffer makes says nothing about the path, so the sender
/// waits for the receiver, and stops waiting when nothing moves: then it was the path that lost them.
const WINDOW_BYTES: u64 = 2 << 20;
const PATIENCE: Duration = Duration::from_millis(50);

/// Datagrams that may be on their way. Each costs the receiver up to a page beyond its bytes.
fn window(size: usize) -> u64 {
    (WINDOW_BYTES / (size as u64 + 4096)).max(1)
}

pub(super) fn run(path: &Path, shared: &Shared<'_>) -> Result<(Ended, Tally, Duration), Error> {
    let receiver = netns::inside(path.to.as_fd(), || receiver(path.server))?
        .map_err(|error| Error::failed(format!("listen on udp {}", path.server), error))?;
    let senders = netns::inside(path.from.as_fd(), || {
        (0..shared.options.connections).map(|_| sender(path)).collect::<io::Result<Vec<_>>>()
    })?
    .map_err(|error| Error::failed(format!("send udp from {} to {}", path.source.ip(), path.server), error))?;
    let receive = |last: &mut Instant| receive(&receiver, shared, last);
    Ok(race(shared, || send(&senders, shared), vec![Box::new(receive)]))
}

fn receiver(address: SocketAddrV4) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(address)?;
    // Needs CAP_NET_ADMIN in the init user namespace. Without it the buffer stays as it is, and so may lose.
    let _ = setsockopt(&socket, RcvBufForce, &BUFFER);
    socket.set_read_timeout(Some(TICK))?;
    Ok(socket)
}

fn sender(path: &Path) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(path.source)?;
    socket.connect(path.server)?;
    socket.set_write_timeout(Some(TICK))?;
    Ok(socket)
}

fn send(sockets: &[UdpSocket], shared: &Shared<'_>) -> Ended {
    let mut buffer = vec![0; shared.options.size];
    let window = window(buffer.len());
    let mut given_up = 0;
    for record in shared.records() {
        record::encode(record, &mut buffer);
        let patience = Instant::now();
        let sent = shared.sent.load(Ordering::Relaxed);
        while sent.saturating_sub(given_up + shared.received.load(Ordering::Acquire)) >= window {
            if patience.elapsed() > PATIENCE {
                given_up = sent - shared.received.load(Ordering::Acquire);
                break;
            }
            thread::sleep(Duration::from_micros(50));
        }
        loop {
            match sockets[usize::from(record.connection)].send(&buffer) {
                Ok(_) => break,
                // An ICMP error about an earlier datagram: the receiver will miss that one.
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
                Err(error) if transient(&error) && !shared.stop.load(Ordering::Relaxed) => thread::yield_now(),
                Err(error) if transient(&error) => return Ok(()),
                Err(error) => return Err(error.to_string()),
            }
        }
        shared.sent.fetch_add(1, Ordering::Release);
    }
    Ok(())
}

fn transient(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
        || error.raw_os_error() == Some(nix::Error::ENOBUFS as i32)
}

fn receive(socket: &UdpSocket, shared: &Shared<'_>, last: &mut Instant) -> Tally {
    let mut buffer = vec![0; 1 << 16];
    let mut scratch = Vec::new();
    let mut tally = Tally::default();
    let mut quiet = Instant::now();
    loop {
        match socket.recv(&mut buffer) {
            Ok(length) => {
                tally.count(record::verify(shared.run, &buffer[..length], &mut scratch));
                shared.received.store(tally.received, Ordering::Release);
                quiet = Instant::now();
                *last = quiet;
                if !shared.has_sender_ended() {
                    continue;
                }
            }
            // Nothing yet, or an error that belongs to a datagram and not to the socket.
            Err(_) if !shared.has_sender_ended() => {
                quiet = Instant::now();
                continue;
            }
            Err(_) => {}
        }
        // Asked after the sender has ended, so `sent` is final.
        if tally.lost(shared.sent.load(Ordering::Acquire)) == 0 && quiet.elapsed() >= TICK || quiet.elapsed() >= QUIET {
            return tally;
        }
    }
}
