//! A receiver whose socket buffer holds a few datagrams and who does not read: the kernel drops the rest, in the last
//! step of a path that is in perfect order.

use std::{net::UdpSocket, os::fd::AsFd, time::Duration};

use nix::sys::socket::{setsockopt, sockopt::RcvBuf};

use super::{CLIENT, Error, Notice, PORT, SERVER, failed, within};

const COUNT: usize = 50;
/// The kernel's least is 2304 bytes, after doubling; a datagram of 512 bytes costs more than its bytes.
const BUFFER: usize = 2048;

pub(super) fn run() -> Result<Notice, Error> {
    let receiver = within(SERVER.0, || UdpSocket::bind((SERVER.1, PORT)))?.map_err(failed("listen on udp"))?;
    setsockopt(&receiver.as_fd(), RcvBuf, &BUFFER).map_err(failed("make a socket buffer small"))?;
    let sender = within(CLIENT.0, || UdpSocket::bind((CLIENT.1, 0)))?.map_err(failed("make a UDP socket"))?;
    for _ in 0..COUNT {
        sender.send_to(&[0x55; 512], (SERVER.1, PORT)).map_err(failed("send a datagram"))?;
    }
    // The kernel delivers on its own time; what has not come by then is lost.
    receiver.set_read_timeout(Some(Duration::from_secs(1))).map_err(failed("set a timeout"))?;
    std::thread::sleep(Duration::from_millis(500));
    let mut received = 0;
    while received < COUNT && receiver.recv(&mut [0; 1024]).is_ok() {
        received += 1;
    }
    let lines = vec![format!("udp {COUNT} sent, {received} received by a socket with room for a few")];
    Ok(Notice { lost: received < COUNT, lines, ..Notice::default() })
}
