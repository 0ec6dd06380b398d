//! Traffic with a known number of packets: every packet has left before the next one is caused.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread::sleep,
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};

use super::{
    lab::{CLIENT, SERVER, within},
    machine::sysctl,
};

/// Longer than TCP delays an ACK, so that none rides on the next segment; and than anything takes here.
pub const PAUSE: Duration = Duration::from_millis(400);
/// The server's port.
pub const PORT: u16 = 7000;

/// The segments of [`tcp_exchange`], whether each goes to the server, and its bytes.
pub fn tcp_segments(request: u64, reply: u64) -> [(bool, &'static str, u64); 11] {
    [
        (true, "SYN", 0),
        (false, "SYN ACK", 0),
        (true, "ACK", 0),
        (true, "PSH ACK", request),
        (false, "ACK", 0),
        (false, "PSH ACK", reply),
        (true, "ACK", 0),
        (true, "FIN ACK", 0),
        (false, "ACK", 0),
        (false, "FIN ACK", 0),
        (true, "ACK", 0),
    ]
}

/// A request, a reply and two orderly ends, from one namespace to an address of another.
pub fn tcp_exchange(from: &str, to: &str, server: SocketAddr, request: &[u8], reply: &[u8]) {
    let listener = within(to, || TcpListener::bind(server).unwrap());
    let mut client = within(from, || TcpStream::connect(listener.local_addr().unwrap()).unwrap());
    let (mut peer, _) = listener.accept().unwrap();
    let mut buffer = vec![0; request.len().max(reply.len())];
    sleep(PAUSE);
    client.write_all(request).unwrap();
    peer.read_exact(&mut buffer[..request.len()]).unwrap();
    assert_eq!(&buffer[..request.len()], request);
    sleep(PAUSE);
    peer.write_all(reply).unwrap();
    client.read_exact(&mut buffer[..reply.len()]).unwrap();
    assert_eq!(&buffer[..reply.len()], reply);
    sleep(PAUSE);
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(peer.read(&mut buffer).unwrap(), 0);
    sleep(PAUSE);
    drop(peer);
    assert_eq!(client.read(&mut buffer).unwrap(), 0);
    sleep(PAUSE);
}

/// The exchange through the lab: 100 bytes to the server, 300 bytes back.
pub fn lab_exchange() {
    tcp_exchange(CLIENT.0, SERVER.0, server(PORT), &[b'q'; 100], &[b'r'; 300]);
}

/// The server's socket address.
pub fn server(port: u16) -> SocketAddr {
    SocketAddr::new(SERVER.1.parse().unwrap(), port)
}

/// Sends datagrams through the lab, of 1, 2, 3 … bytes, each of them received before the next is sent.
pub fn datagrams(from: (&str, &str), to: (&str, &str), port: u16, count: usize) {
    let address = |address: &str| address.parse::<IpAddr>().unwrap();
    let receiver = within(to.0, || UdpSocket::bind((address(to.1), port)).unwrap());
    receiver.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let sender = within(from.0, || UdpSocket::bind((address(from.1), 0)).unwrap());
    let mut buffer = vec![0; count + 1];
    for length in 1..=count {
        sender.send_to(&vec![0x55; length], receiver.local_addr().unwrap()).unwrap();
        assert_eq!(receiver.recv(&mut buffer).unwrap(), length);
    }
}

/// Sends one datagram of this many bytes, and receives it.
pub fn datagram(from: (&str, &str), to: (&str, &str), port: u16, length: usize) {
    let address = |address: &str| address.parse::<IpAddr>().unwrap();
    let receiver = within(to.0, || UdpSocket::bind((address(to.1), port)).unwrap());
    receiver.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let sender = within(from.0, || UdpSocket::bind((address(from.1), 0)).unwrap());
    sender.send_to(&vec![0x55; length], receiver.local_addr().unwrap()).unwrap();
    assert_eq!(receiver.recv(&mut vec![0; length + 1]).unwrap(), length);
}

/// Sends a datagram to a port that nobody listens on, and waits for the kernel to say so.
pub fn refused_datagram(from: (&str, &str), to: (&str, &str), port: u16) {
    let address = |address: &str| address.parse::<IpAddr>().unwrap();
    let sender = within(from.0, || {
        let socket = UdpSocket::bind((address(from.1), 0)).unwrap();
        socket.connect((address(to.1), port)).unwrap();
        socket
    });
    sender.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    sender.send(b"anybody?").unwrap();
    let answer = sender.recv(&mut [0; 8]).unwrap_err();
    assert_eq!(answer.kind(), std::io::ErrorKind::ConnectionRefused);
}

/// An ICMP echo request, and its reply. By a ping socket: beside a raw one the kernel calls the reply dropped.
pub fn ping(from: (&str, &str), to: (&str, &str)) {
    // Type 8, code 0; the kernel fills in checksum and identifier; sequence number 1.
    echo(from, to, Domain::IPV4, Protocol::ICMPV4, [8, 0, 0, 0, 0, 0, 0, 1], 0);
}

/// The same over IPv6.
pub fn ping_ipv6(from: (&str, &str), to: (&str, &str)) {
    echo(from, to, Domain::IPV6, Protocol::ICMPV6, [128, 0, 0, 0, 0, 0, 0, 1], 129);
}

fn echo(from: (&str, &str), to: (&str, &str), domain: Domain, protocol: Protocol, request: [u8; 8], reply: u8) {
    let socket = within(from.0, || {
        sysctl("net/ipv4/ping_group_range", "0 0");
        Socket::new(domain, Type::DGRAM, Some(protocol)).unwrap()
    });
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let address = SocketAddr::new(to.1.parse().unwrap(), 0);
    socket.send_to(&request, &address.into()).unwrap();
    let mut answer = [0; 64];
    let length = (&socket).read(&mut answer).unwrap();
    assert_eq!((length, answer[0]), (8, reply), "an echo reply");
}

/// A connection to the server's port, and the server's end of it; all that opens it has arrived.
pub fn connection(server: SocketAddr) -> (TcpStream, TcpStream) {
    let listener = within(SERVER.0, || TcpListener::bind(server).unwrap());
    let client = within(CLIENT.0, || TcpStream::connect(server).unwrap());
    let (peer, _) = listener.accept().unwrap();
    sleep(PAUSE);
    (client, peer)
}

/// Sends bytes over a new connection in one piece, lets them arrive, reads them, and breaks the connection off without a
/// word: what it takes to open it and these bytes are all that is sent, and what acknowledges them.
pub fn one_piece(server: SocketAddr, bytes: usize) {
    let (mut client, mut peer) = connection(server);
    client.write_all(&vec![b'q'; bytes]).unwrap();
    sleep(PAUSE);
    peer.read_exact(&mut vec![0; bytes]).unwrap();
    sleep(PAUSE);
    for end in [client, peer] {
        forget(end);
    }
}

/// Closes one end without telling the other (TCP_REPAIR).
fn forget(end: TcpStream) {
    use std::os::fd::AsRawFd as _;
    let on: nix::libc::c_int = 1;
    // SAFETY: a socket that is open, and a value of the size that is told.
    let done = unsafe {
        nix::libc::setsockopt(
            end.as_raw_fd(),
            nix::libc::IPPROTO_TCP,
            nix::libc::TCP_REPAIR,
            (&raw const on).cast(),
            size_of_val(&on).try_into().unwrap(),
        )
    };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
}
