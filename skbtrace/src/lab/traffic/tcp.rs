//! TCP: a stream of records of equal size, a receiver per connection. The size frames the stream, not a length in it,
//! so a corrupt record does not take those after it along.

use std::{
    collections::VecDeque,
    io::{self, ErrorKind, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    os::fd::AsFd,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use socket2::{Domain, Socket, Type};

use super::{Ended, Path, Receiver, STALL, Shared, TICK, Tally, race, record};
use crate::lab::{Error, netns};

/// How long a handshake may take. Three SYNs fit in.
const CONNECT: Duration = Duration::from_secs(5);

pub(super) fn run(path: &Path, shared: &Shared<'_>) -> Result<(Ended, Tally, Duration), Error> {
    let listener = netns::inside(path.to.as_fd(), || TcpListener::bind(path.server))?
        .map_err(|error| Error::failed(format!("listen on tcp {}", path.server), error))?;
    let mut senders = Vec::new();
    let mut receivers = VecDeque::new();
    for _ in 0..shared.options.connections {
        if shared.stop.load(Ordering::Relaxed) {
            return Ok((Ok(()), Tally::default(), Duration::ZERO));
        }
        let socket = netns::inside(path.from.as_fd(), || connect(path))?.map_err(|answer| Error::NoConnection {
            from: *path.source.ip(),
            to: path.server,
            answer,
        })?;
        senders.push(socket);
        receivers.push_back(accept(&listener).map_err(|error| Error::failed("accept a connection", error))?);
    }
    let receivers = receivers.into_iter().map(|socket| {
        let receive = move |last: &mut Instant| receive(socket, shared, last);
        Box::new(receive) as Receiver<'_>
    });
    Ok(race(shared, || send(&senders, shared), receivers.collect()))
}

fn connect(path: &Path) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&path.source.into())?;
    socket.connect_timeout(&path.server.into(), CONNECT)?;
    let stream = TcpStream::from(socket);
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(TICK))?;
    Ok(stream)
}

fn accept(listener: &TcpListener) -> io::Result<TcpStream> {
    let (stream, _) = listener.accept()?;
    stream.set_read_timeout(Some(TICK))?;
    Ok(stream)
}

fn send(streams: &[TcpStream], shared: &Shared<'_>) -> Ended {
    let mut buffer = vec![0; shared.options.size];
    let ended = shared.records().try_for_each(|record| {
        record::encode(record, &mut buffer);
        write(&streams[usize::from(record.connection)], &buffer, shared)?;
        shared.sent.fetch_add(1, Ordering::Release);
        Ok(())
    });
    for stream in streams {
        // The receiver reads what is on its way and then the end. A stream that is broken already has its end.
        let _ = stream.shutdown(Shutdown::Write);
    }
    match ended {
        Err(Stop::Asked) | Ok(()) => Ok(()),
        Err(Stop::Because(why)) => Err(why),
    }
}

enum Stop {
    Asked,
    Because(String),
}

/// Writes the whole record. When asked to stop, it gives up only a record of which nothing was written, or a stream
/// that does not move.
fn write(mut stream: &TcpStream, buffer: &[u8], shared: &Shared<'_>) -> Result<(), Stop> {
    let mut written = 0;
    let mut moved = Instant::now();
    while written < buffer.len() {
        match stream.write(&buffer[written..]) {
            Ok(length) => {
                written += length;
                moved = Instant::now();
            }
            Err(error) if transient(&error) => {
                if shared.stop.load(Ordering::Relaxed) && (written == 0 || moved.elapsed() > TICK * 4) {
                    return Err(Stop::Asked);
                }
                if moved.elapsed() > STALL {
                    return Err(Stop::Because(format!("the stream stood still for {} s", STALL.as_secs())));
                }
            }
            Err(error) => return Err(Stop::Because(error.to_string())),
        }
    }
    Ok(())
}

fn transient(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

fn receive(mut stream: TcpStream, shared: &Shared<'_>, last: &mut Instant) -> Tally {
    let mut buffer = vec![0; shared.options.size];
    let mut scratch = Vec::new();
    let mut tally = Tally::default();
    let mut filled = 0;
    let mut moved = Instant::now();
    loop {
        match stream.read(&mut buffer[filled..]) {
            Ok(0) => return tally,
            Ok(length) => {
                filled += length;
                moved = Instant::now();
                *last = moved;
            }
            Err(error) if transient(&error) => {
                let asked = shared.stop.load(Ordering::Relaxed);
                if shared.has_sender_ended() && moved.elapsed() > if asked { TICK * 10 } else { STALL } {
                    return tally;
                }
                // A slow pace is no stall; the sender watches for that.
                if !shared.has_sender_ended() {
                    moved = Instant::now();
                }
            }
            Err(_) => return tally,
        }
        if filled == buffer.len() {
            tally.count(record::verify(shared.run, &buffer, &mut scratch));
            shared.received.fetch_add(1, Ordering::Release);
            filled = 0;
        }
    }
}
