//! Clean traffic beside a fault: datagrams from the server to the client, against the way of the faults. Each comes from a
//! port of its own, so that the tracer's word on each can be compared with what the receiver got.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::lab::{
    Layout, Place,
    fault::{Error, show::failed, step},
};

/// The port that no fault looks for.
pub(super) const PORT: u16 = 8999;
const FIRST_SOURCE: u16 = 20_000;
const PAUSE: Duration = Duration::from_millis(10);
/// After the last datagram is sent: as long as a fault may hold one up, and then some.
const LAST: Duration = Duration::from_millis(600);

/// Clean traffic that flows.
pub(super) struct Clean {
    over: Arc<AtomicBool>,
    sender: JoinHandle<Vec<u16>>,
    receiver: JoinHandle<BTreeMap<u16, u32>>,
}

/// Clean traffic that has flowed.
#[derive(Debug, Default)]
pub(super) struct Flowed {
    /// Datagrams sent.
    pub sent: usize,
    /// The source ports of those that arrived intact and once.
    pub intact: Vec<u16>,
}

impl Clean {
    /// Begins.
    pub fn start(layout: &'static Layout) -> Result<Clean, Error> {
        let [server, client] = layout.talkers;
        let to = client.address.unwrap_or(Ipv4Addr::LOCALHOST);
        let from = server.address.unwrap_or(Ipv4Addr::LOCALHOST);
        let socket = bind(client.place, to, PORT)?;
        socket.set_read_timeout(Some(Duration::from_millis(100))).map_err(failed("set a timeout"))?;
        let over = Arc::new(AtomicBool::new(false));
        let receiver = thread::spawn({
            let over = Arc::clone(&over);
            move || receive(&socket, &over)
        });
        let sender = thread::spawn({
            let over = Arc::clone(&over);
            move || send(server.place, from, to, &over)
        });
        Ok(Clean { over, sender, receiver })
    }

    /// Ends, once what is under way has had time to arrive.
    pub fn finish(self) -> Flowed {
        self.over.store(true, Ordering::Relaxed);
        let sent = self.sender.join().unwrap_or_default();
        let received = self.receiver.join().unwrap_or_default();
        Flowed { sent: sent.len(), intact: sent.into_iter().filter(|port| received.get(port) == Some(&1)).collect() }
    }
}

fn send(place: Place, from: Ipv4Addr, to: Ipv4Addr, over: &AtomicBool) -> Vec<u16> {
    let mut sent = Vec::new();
    for port in FIRST_SOURCE..FIRST_SOURCE + 8_000 {
        if over.load(Ordering::Relaxed) {
            break;
        }
        // A fault may forbid it: then it was not sent.
        let done = bind(place, from, port).is_ok_and(|socket| socket.send_to(&payload(port), (to, PORT)).is_ok());
        sent.extend(done.then_some(port));
        thread::sleep(PAUSE);
    }
    sent
}

/// How often each came intact, by its port.
fn receive(socket: &UdpSocket, over: &AtomicBool) -> BTreeMap<u16, u32> {
    let mut received = BTreeMap::new();
    let mut buffer = [0; 2048];
    let mut quiet = Duration::ZERO;
    while !over.load(Ordering::Relaxed) || quiet < LAST {
        match socket.recv_from(&mut buffer) {
            Ok((length, from)) => {
                quiet = Duration::ZERO;
                let intact = buffer.get(..length) == Some(payload(from.port()).as_slice());
                // What is not intact is as good as doubled.
                *received.entry(from.port()).or_default() += if intact { 1 } else { 2 };
            }
            Err(_) => quiet += Duration::from_millis(100),
        }
    }
    received
}

fn payload(port: u16) -> Vec<u8> {
    (0..256_u16).map(|byte| (byte ^ port ^ (port >> 8)) as u8).collect()
}

fn bind(place: Place, address: Ipv4Addr, port: u16) -> Result<UdpSocket, Error> {
    step::inside(place, || UdpSocket::bind((address, port)))?.map_err(failed("make a UDP socket"))
}
