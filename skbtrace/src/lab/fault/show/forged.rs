//! Packets that no kernel would send by itself, made by hand and sent through a raw or a packet socket. Neither asks
//! the device for a checksum, so the one in the packet is what the receiver gets, and checks.

use std::{io, net::SocketAddrV4, thread, time::Duration};

use nix::libc;
use serde::Serialize;
use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, Socket, Type};

use super::{CLIENT, Error, Notice, PORT, SERVER, failed, namespace, within};
use crate::lab::{MAC_PREFIX, link::Session};

/// A kind of forged packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Forged {
    /// UDP with a wrong checksum, by a raw socket (IP_HDRINCL): the path begins in IP.
    UdpChecksum,
    /// TCP with a wrong checksum, by a packet socket: the path begins at the device.
    TcpChecksum,
    /// The second segment of a handshake that nobody began, by a packet socket.
    SynAck,
}

const COUNT: u64 = 20;
const UDP: u8 = 17;
const TCP: u8 = 6;
const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const SYN_ACK: u8 = 0x12;
const ACK: u8 = 0x10;
const PAYLOAD: &[u8] = b"made by hand";
/// The last byte of the MAC address of ns-calm1/calmveth1 and of ns-calm2/calmveth2.
const MACS: (u8, u8) = (1, 2);
const DEVICE: &str = "calmveth2";

pub(super) fn send(what: Forged) -> Result<Notice, Error> {
    let (segment, by) = match what {
        Forged::UdpChecksum => (udp(), "a raw socket"),
        Forged::TcpChecksum => (tcp(ACK, true), "a packet socket"),
        Forged::SynAck => (tcp(SYN_ACK, false), "a packet socket"),
    };
    let packet = ipv4(if what == Forged::UdpChecksum { UDP } else { TCP }, &segment);
    let (socket, frame, to) = match what {
        Forged::UdpChecksum => {
            let protocol = Protocol::from(libc::IPPROTO_RAW);
            let socket = within(CLIENT.0, || Socket::new(Domain::IPV4, Type::RAW, Some(protocol)))?;
            (socket, packet, SocketAddrV4::new(SERVER.1, 0).into())
        }
        Forged::TcpChecksum | Forged::SynAck => {
            let frame = [&mac(MACS.0)[..], &mac(MACS.1), &ETHERTYPE_IPV4, &packet].concat();
            let link = Session::open(Some(&namespace(CLIENT.0)?))?.get(DEVICE)?;
            let index = link.ok_or(crate::lab::Error::NotUp)?.header.index;
            // Protocol 0: it sends and never receives.
            let socket = within(CLIENT.0, || Socket::new(Domain::PACKET, Type::RAW, None))?;
            (socket, frame, link_layer(index).map_err(failed("make an address"))?)
        }
    };
    let socket = socket.map_err(failed("make a raw socket"))?;
    for _ in 0..COUNT {
        socket.send_to(&frame, &to).map_err(failed("send a packet made by hand"))?;
        thread::sleep(Duration::from_millis(5));
    }
    // The last one has to get there before anything is counted.
    thread::sleep(Duration::from_millis(300));
    Ok(Notice { lines: vec![format!("{COUNT} packets sent by {by}")], ..Notice::default() })
}

fn mac(last: u8) -> [u8; 6] {
    let [a, b, c, d, e] = MAC_PREFIX;
    [a, b, c, d, e, last]
}

/// The address of a device for a packet socket.
fn link_layer(index: u32) -> io::Result<SockAddr> {
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: u16::from_ne_bytes(ETHERTYPE_IPV4),
        sll_ifindex: index.try_into().map_err(io::Error::other)?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 6,
        sll_addr: [0; 8],
    };
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: any sockaddr fits a sockaddr_storage, which is aligned for all of them and is plain bytes.
    unsafe { *storage.view_as::<libc::sockaddr_ll>() = address };
    // SAFETY: the storage holds a sockaddr_ll, whose length this is.
    Ok(unsafe { SockAddr::new(storage, size_of::<libc::sockaddr_ll>() as libc::socklen_t) })
}

/// The Internet checksum.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// A header without options and what follows it.
fn ipv4(protocol: u8, segment: &[u8]) -> Vec<u8> {
    let length = (20 + segment.len()) as u16;
    let mut header = vec![0x45, 0];
    header.extend(length.to_be_bytes());
    header.extend([0, 1, 0x40, 0, 64, protocol, 0, 0]);
    header.extend(CLIENT.1.octets());
    header.extend(SERVER.1.octets());
    let sum = checksum(&header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    header.extend(segment);
    header
}

/// Fills in the checksum at `at`; a wrong one when `wrong`.
fn seal(protocol: u8, segment: &mut [u8], at: usize, wrong: bool) {
    let length = (segment.len() as u16).to_be_bytes();
    let pseudo = [&CLIENT.1.octets()[..], &SERVER.1.octets(), &[0, protocol], &length, segment].concat();
    let sum = checksum(&pseudo) ^ u16::from(wrong);
    segment[at..at + 2].copy_from_slice(&sum.to_be_bytes());
}

fn udp() -> Vec<u8> {
    let length = (8 + PAYLOAD.len()) as u16;
    let mut segment = Vec::new();
    [4000, PORT, length, 0].iter().for_each(|field| segment.extend(field.to_be_bytes()));
    segment.extend(PAYLOAD);
    seal(UDP, &mut segment, 6, true);
    segment
}

fn tcp(flags: u8, wrong: bool) -> Vec<u8> {
    let mut segment = Vec::new();
    segment.extend(4000_u16.to_be_bytes());
    segment.extend(PORT.to_be_bytes());
    segment.extend(1_u32.to_be_bytes());
    segment.extend(1_u32.to_be_bytes());
    // Five words of header, a window, no checksum yet, no urgent data.
    segment.extend([0x50, flags, 0x20, 0, 0, 0, 0, 0]);
    if flags & SYN_ACK == ACK {
        segment.extend(PAYLOAD);
    }
    seal(TCP, &mut segment, 16, wrong);
    segment
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_over_what_it_is_in_is_zero_unless_it_is_wrong() {
        let packet = ipv4(TCP, &tcp(SYN_ACK, false));
        assert_eq!(checksum(&packet[..20]), 0);
        let whole = |protocol: u8, segment: &[u8]| {
            let length = (segment.len() as u16).to_be_bytes();
            checksum(&[&CLIENT.1.octets()[..], &SERVER.1.octets(), &[0, protocol], &length, segment].concat())
        };
        assert_eq!(whole(TCP, &tcp(SYN_ACK, false)), 0);
        assert_ne!(whole(TCP, &tcp(ACK, true)), 0);
        assert_ne!(whole(UDP, &udp()), 0);
        assert_eq!(tcp(SYN_ACK, false).len(), 20);
        assert_eq!(tcp(ACK, true).len(), 20 + PAYLOAD.len());
    }
}
