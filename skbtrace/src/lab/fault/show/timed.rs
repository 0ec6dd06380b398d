//! Datagrams one after the other, each timed. The fastest counts: whatever else a machine is busy with makes some of
//! them slow, and never all of them fast.

use std::{
    net::UdpSocket,
    time::{Duration, Instant},
};

use super::{CLIENT, Error, Notice, PORT, SERVER, failed, within};

const COUNT: usize = 5;
/// Longer than any fault delays.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) fn run() -> Result<Notice, Error> {
    let receiver = within(SERVER.0, || UdpSocket::bind((SERVER.1, PORT)))?.map_err(failed("listen on udp"))?;
    receiver.set_read_timeout(Some(PATIENCE)).map_err(failed("set a timeout"))?;
    let sender = within(CLIENT.0, || UdpSocket::bind((CLIENT.1, 0)))?.map_err(failed("make a UDP socket"))?;
    let mut times = Vec::new();
    for _ in 0..COUNT {
        let start = Instant::now();
        sender.send_to(&[0x55; 64], (SERVER.1, PORT)).map_err(failed("send a datagram"))?;
        if receiver.recv(&mut [0; 128]).is_ok() {
            times.push(start.elapsed().as_millis() as u64);
        }
    }
    let fastest = times.iter().min().copied();
    let said = fastest.map_or_else(|| "none received".to_owned(), |fastest| format!("the fastest in {fastest} ms"));
    let lines = vec![format!("udp {COUNT} sent, {} received, {said}", times.len())];
    Ok(Notice { lost: times.len() < COUNT, fastest_milliseconds: fastest, lines, ..Notice::default() })
}
