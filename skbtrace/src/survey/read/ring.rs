//! Rings that packet sockets send from (PACKET_TX_RING): memory that a program shares with the kernel, and can still write to
//! while packets made of it are on their way.
//!
//! /proc/net/packet says nothing of them. The kernel's own list of sockets does (sock_diag), but asking it would load a module;
//! where that is not there, what is left is that a program has the socket in its memory, which a receiver's ring is too.

use std::{collections::HashMap, fs, io};

use netlink_sys::protocols::NETLINK_SOCK_DIAG;

use super::{module::is_loaded, place::Place, socket::Owner};
use crate::topology::netlink::{RouteSocket, attributes, int};

// linux/sock_diag.h, linux/packet_diag.h
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const AF_PACKET: u8 = 17;
const PACKET_SHOW_RING_CFG: u32 = 4;
const PACKET_DIAG_TX_RING: u16 = 3;
const REQUEST_LEN: usize = 20;
const MESSAGE_LEN: usize = 16;

/// What is known of the rings of a namespace.
pub(super) enum Rings {
    /// The sockets that send from a ring, by inode, with its size in bytes.
    Known(HashMap<u64, u64>),
    /// The kernel was not asked.
    Unknown,
}

/// What a packet socket has of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ring {
    /// It does not send from one.
    None,
    /// It does.
    Sends {
        /// How large it is, where that is known.
        bytes: Option<u64>,
    },
    /// It has one, to receive into or to send from.
    Either,
}

impl Rings {
    /// Those of the namespace that the thread is in.
    pub(super) fn read(place: &Place<'_>, unseen: &mut Vec<String>) -> Self {
        if !is_loaded("af_packet_diag") {
            return Self::Unknown;
        }
        match ask() {
            Ok(rings) => Self::Known(rings.into_iter().collect()),
            Err(error) => {
                unseen.push(format!("the rings of packet sockets in {}: {error}", place.label()));
                Self::Unknown
            }
        }
    }

    /// That of a socket; `hears` says that it receives packets.
    pub(super) fn of(&self, inode: u64, hears: bool, owner: Option<&Owner>) -> Ring {
        match self {
            Self::Known(rings) => match rings.get(&inode) {
                Some(bytes) => Ring::Sends { bytes: Some(*bytes) },
                None => Ring::None,
            },
            Self::Unknown if !owner.is_some_and(|owner| is_mapped(owner.pid, inode)) => Ring::None,
            Self::Unknown if hears => Ring::Either,
            Self::Unknown => Ring::Sends { bytes: None },
        }
    }
}

fn ask() -> io::Result<Vec<(u64, u64)>> {
    // struct packet_diag_req: family, protocol, pad, inode, what to show, cookie
    let mut body = vec![0; REQUEST_LEN];
    body[0] = AF_PACKET;
    body[8..12].copy_from_slice(&PACKET_SHOW_RING_CFG.to_ne_bytes());
    let mut socket = RouteSocket::open_protocol(NETLINK_SOCK_DIAG)?;
    socket.dump(SOCK_DIAG_BY_FAMILY, SOCK_DIAG_BY_FAMILY, &body, parse)
}

/// The inode of a socket that sends from a ring, and its size.
fn parse(payload: &[u8]) -> Option<(u64, u64)> {
    // struct packet_diag_msg: family, type, number, inode, cookie
    let inode = payload.get(4..8).and_then(int)?;
    let (_, ring) = attributes(payload, MESSAGE_LEN).find(|(kind, _)| *kind == PACKET_DIAG_TX_RING)?;
    // struct packet_diag_ring: size of a block, blocks, …
    let number = |at: usize| ring.get(at..at + 4).and_then(int).map(u64::from);
    let bytes = number(0)? * number(4)?;
    (bytes > 0).then_some((inode.into(), bytes))
}

/// Whether a process has a socket in its memory.
fn is_mapped(pid: u32, inode: u64) -> bool {
    let socket = format!(" socket:[{inode}]");
    fs::read(format!("/proc/{pid}/maps"))
        .is_ok_and(|maps| String::from_utf8_lossy(&maps).lines().any(|line| line.ends_with(&socket)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::survey::read::testkit::attribute;

    fn message(kind: u16, blocks: u32) -> Vec<u8> {
        let mut payload = vec![AF_PACKET, 3, 0, 0];
        payload.extend(777u32.to_ne_bytes());
        payload.extend([0; 8]);
        payload.extend(attribute(kind, &[4096u32, blocks, 2048, 4, 0, 0, 0].map(u32::to_ne_bytes).concat()));
        payload
    }

    #[test]
    fn a_ring_to_send_from_is_told_from_one_to_receive_into() {
        assert_eq!(parse(&message(PACKET_DIAG_TX_RING, 2)), Some((777, 8192)));
        assert_eq!(parse(&message(PACKET_DIAG_TX_RING, 0)), None);
        assert_eq!(parse(&message(2, 2)), None);
        let known = Rings::Known(HashMap::from([(777, 8192)]));
        assert_eq!(known.of(777, true, None), Ring::Sends { bytes: Some(8192) });
        assert_eq!(known.of(778, true, None), Ring::None);
    }

    #[test]
    fn a_socket_that_nobody_has_in_memory_has_no_ring() {
        let owner = Owner { pid: std::process::id(), comm: "me".to_owned() };
        assert_eq!(Rings::Unknown.of(1, false, Some(&owner)), Ring::None);
        assert_eq!(Rings::Unknown.of(1, false, None), Ring::None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(payload in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&payload);
        }
    }
}
