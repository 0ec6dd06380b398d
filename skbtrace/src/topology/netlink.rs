//! The few rtnetlink requests that a topology needs: all links, all addresses, and the id by which one namespace knows
//! another.
//!
//! Messages are taken apart here, attribute by attribute, not by a typed library: those turn a name into a `String` and
//! refuse the whole link when it is not UTF-8, and refuse what a newer kernel writes longer. Here only the attributes
//! that matter are looked at, and one that is odd is left out by itself.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer, NlasIterator,
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use skbtrace_common::DeviceKey;

use super::peers::RawLink;
use super::{Kind, Link, OperState};

// linux/rtnetlink.h, linux/if_link.h, linux/if_addr.h, linux/net_namespace.h. None has changed since it was added.
const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const RTM_NEWNSID: u16 = 88;
const RTM_GETNSID: u16 = 90;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_OPERSTATE: u16 = 16;
const IFLA_LINKINFO: u16 = 18;
const IFLA_EXT_MASK: u16 = 29;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_PROP_LIST: u16 = 52;
const IFLA_ALT_IFNAME: u16 = 53;
const IFLA_INFO_KIND: u16 = 1;
const RTEXT_FILTER_SKIP_STATS: u32 = 1 << 3;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const NETNSA_NSID: u16 = 1;
const NETNSA_FD: u16 = 3;
const IFF_UP: u32 = 1;
const ARPHRD_LOOPBACK: u16 = 772;

const HEADER_LEN: usize = 16;
/// The kernel puts at most 32 KiB into one datagram of a dump, and fills no more than the reader's buffer.
const BUFFER_LEN: usize = 64 << 10;
/// How often a dump is begun again because something changed during it.
const DUMP_ATTEMPTS: u32 = 5;

/// A routing socket. It belongs for ever to the namespace that its thread was in when it was opened.
pub(crate) struct RouteSocket {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl RouteSocket {
    pub(crate) fn open() -> io::Result<Self> {
        Self::open_protocol(NETLINK_ROUTE)
    }

    /// The same for another protocol of netlink, whose dumps have the same shape.
    pub(crate) fn open_protocol(protocol: isize) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket, sequence: 0, buffer: Vec::with_capacity(BUFFER_LEN) })
    }

    /// All links of the socket's namespace, which has the inode number `netns`, without their addresses.
    pub(super) fn links(&mut self, netns: u32) -> io::Result<Vec<RawLink>> {
        let mut body = vec![0; 16]; // struct ifinfomsg
        push_attribute(&mut body, IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
        self.dump(RTM_GETLINK, RTM_NEWLINK, &body, |payload| parse_link(netns, payload))
    }

    /// All addresses of the socket's namespace, with the ifindex of their device.
    pub(super) fn addresses(&mut self) -> io::Result<Vec<(u32, IpAddr)>> {
        self.dump(RTM_GETADDR, RTM_NEWADDR, &[0; 8], parse_address) // struct ifaddrmsg
    }

    /// The id by which the socket's namespace knows the one behind `fd`; `None` when it has given it none.
    pub(super) fn nsid_of(&mut self, fd: BorrowedFd<'_>) -> io::Result<Option<i32>> {
        let mut body = vec![0; 4]; // struct rtgenmsg, padded
        push_attribute(&mut body, NETNSA_FD, fd.as_raw_fd().cast_unsigned());
        self.send(RTM_GETNSID, NLM_F_REQUEST, &body)?;
        let mut nsid = None;
        self.receive(|kind, _, payload| {
            if kind == RTM_NEWNSID {
                nsid = attributes(payload, 4).find(|(kind, _)| *kind == NETNSA_NSID).and_then(|(_, value)| int(value));
            }
            Ok(kind == RTM_NEWNSID)
        })?;
        Ok(nsid.map(u32::cast_signed).filter(|id| *id >= 0))
    }

    /// All that the kernel lists for a request, as far as `parse` makes something of it.
    pub(crate) fn dump<T>(
        &mut self,
        get: u16,
        new: u16,
        body: &[u8],
        parse: impl Fn(&[u8]) -> Option<T>,
    ) -> io::Result<Vec<T>> {
        let mut attempt = 1;
        loop {
            self.send(get, NLM_F_REQUEST | NLM_F_DUMP, body)?;
            let mut found = Vec::new();
            let mut interrupted = false;
            self.receive(|kind, flags, payload| {
                interrupted |= flags & NLM_F_DUMP_INTR != 0;
                if kind == new {
                    found.extend(parse(payload));
                }
                Ok(kind == NLMSG_DONE)
            })?;
            if !interrupted || attempt == DUMP_ATTEMPTS {
                return Ok(found);
            }
            attempt += 1;
        }
    }

    fn send(&mut self, kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut message = Vec::with_capacity(HEADER_LEN + body.len());
        message.extend(u32::try_from(HEADER_LEN + body.len()).map_err(io::Error::other)?.to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend(flags.to_ne_bytes());
        message.extend(self.sequence.to_ne_bytes());
        message.extend([0; 4]); // the kernel fills in our port
        message.extend(body);
        self.socket.send(&message, 0).map(drop)
    }

    /// Reads messages that answer the last request, until `each` says that its message was the last.
    fn receive(&mut self, mut each: impl FnMut(u16, u16, &[u8]) -> io::Result<bool>) -> io::Result<()> {
        loop {
            self.buffer.clear();
            match self.socket.recv(&mut self.buffer, 0) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => result?,
            };
            let mut rest = self.buffer.as_slice();
            while let Ok(message) = NetlinkBuffer::new_checked(rest) {
                let length = message.length() as usize;
                rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
                if message.sequence_number() != self.sequence {
                    continue;
                }
                if let Some(error) = error_in(message.message_type(), message.payload()) {
                    return Err(error);
                }
                if each(message.message_type(), message.flags(), message.payload())? {
                    return Ok(());
                }
            }
        }
    }
}

/// The error that a message of the kinds `NLMSG_ERROR` and `NLMSG_DONE` carries: a negative errno, or 0 for none.
fn error_in(kind: u16, payload: &[u8]) -> Option<io::Error> {
    if kind != NLMSG_ERROR && kind != NLMSG_DONE {
        return None;
    }
    let code = payload.get(..4).and_then(int)?.cast_signed();
    (code < 0).then(|| io::Error::from_raw_os_error(code.saturating_neg()))
}

pub(crate) fn push_attribute(body: &mut Vec<u8>, kind: u16, value: u32) {
    body.extend(8u16.to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value.to_ne_bytes());
}

/// The attributes after a fixed header of `skip` bytes, up to the first that is torn.
pub(crate) fn attributes(payload: &[u8], skip: usize) -> impl Iterator<Item = (u16, &[u8])> {
    NlasIterator::new(payload.get(skip..).unwrap_or_default()).map_while(Result::ok).map(|attribute| {
        let (kind, end) = (attribute.kind(), usize::from(attribute.length()));
        (kind, attribute.into_inner().get(4..end).unwrap_or_default())
    })
}

pub(crate) fn int(value: &[u8]) -> Option<u32> {
    value.try_into().ok().map(u32::from_ne_bytes)
}

/// A name, without the NUL that ends it.
pub(crate) fn text(value: &[u8]) -> Vec<u8> {
    value.split(|byte| *byte == 0).next().unwrap_or_default().to_vec()
}

fn parse_link(netns: u32, payload: &[u8]) -> Option<RawLink> {
    // struct ifinfomsg: family u8, pad u8, type u16, index i32, flags u32, change u32
    let device_type = u16::from_ne_bytes(payload.get(2..4)?.try_into().ok()?);
    let ifindex = payload.get(4..8).and_then(int)?;
    let flags = payload.get(8..12).and_then(int)?;
    let kind = if device_type == ARPHRD_LOOPBACK { Kind::Loopback } else { Kind::Physical };
    let mut raw = RawLink {
        link: Link {
            key: DeviceKey { netns, ifindex },
            name: Vec::new(),
            alt_names: Vec::new(),
            kind,
            peer: None,
            master: None,
            lower: None,
            addrs: Vec::new(),
            mac: Vec::new(),
            mtu: 0,
            up: flags & IFF_UP != 0,
            oper_state: OperState::Unknown,
        },
        iflink: None,
        link_nsid: None,
    };
    let link = &mut raw.link;
    for (kind, value) in attributes(payload, 16) {
        match kind {
            IFLA_IFNAME => link.name = text(value),
            IFLA_ADDRESS => link.mac = value.to_vec(),
            IFLA_MTU => link.mtu = int(value).unwrap_or_default(),
            IFLA_LINK => raw.iflink = int(value),
            IFLA_LINK_NETNSID => raw.link_nsid = int(value).map(u32::cast_signed),
            IFLA_MASTER => link.master = int(value).map(|ifindex| DeviceKey { netns, ifindex }),
            IFLA_OPERSTATE => link.oper_state = oper_state(value.first().copied()),
            IFLA_LINKINFO => {
                if let Some((_, name)) = attributes(value, 0).find(|(kind, _)| *kind == IFLA_INFO_KIND) {
                    link.kind = link_kind(&text(name));
                }
            }
            IFLA_PROP_LIST => {
                let names = attributes(value, 0).filter(|(kind, _)| *kind == IFLA_ALT_IFNAME);
                link.alt_names = names.map(|(_, name)| text(name)).collect();
            }
            _ => {}
        }
    }
    Some(raw)
}

fn link_kind(name: &[u8]) -> Kind {
    match name {
        b"veth" => Kind::Veth,
        b"bridge" => Kind::Bridge,
        b"vlan" => Kind::Vlan,
        other => Kind::Other(String::from_utf8_lossy(other).into_owned()),
    }
}

fn oper_state(value: Option<u8>) -> OperState {
    match value {
        Some(1) => OperState::NotPresent,
        Some(2) => OperState::Down,
        Some(3) => OperState::LowerLayerDown,
        Some(4) => OperState::Testing,
        Some(5) => OperState::Dormant,
        Some(6) => OperState::Up,
        _ => OperState::Unknown,
    }
}

fn parse_address(payload: &[u8]) -> Option<(u32, IpAddr)> {
    // struct ifaddrmsg: family u8, prefixlen u8, flags u8, scope u8, index u32
    let ifindex = payload.get(4..8).and_then(int)?;
    let mut address = None;
    for (kind, value) in attributes(payload, 8) {
        // On a point-to-point link IFA_ADDRESS is the other end's.
        if kind == IFA_LOCAL || kind == IFA_ADDRESS && address.is_none() {
            address = ip(value).or(address);
        }
    }
    Some((ifindex, address?))
}

pub(crate) fn ip(value: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(value).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(value).map(IpAddr::from)).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut out = u16::try_from(4 + value.len()).unwrap().to_ne_bytes().to_vec();
        out.extend(kind.to_ne_bytes());
        out.extend(value);
        out.resize(out.len().next_multiple_of(4), 0);
        out
    }

    #[test]
    fn a_link_with_a_name_that_is_no_text_is_read_whole() {
        let mut payload = vec![0; 16];
        payload[4..8].copy_from_slice(&7u32.to_ne_bytes());
        payload[8..12].copy_from_slice(&1u32.to_ne_bytes());
        payload.extend(attribute(IFLA_IFNAME, b"\xff\x1b[2J\0"));
        payload.extend(attribute(IFLA_MTU, &1500u32.to_ne_bytes()));
        payload.extend(attribute(IFLA_LINK, &9u32.to_ne_bytes()));
        payload.extend(attribute(IFLA_LINK_NETNSID, &3u32.to_ne_bytes()));
        payload.extend(attribute(IFLA_LINKINFO | 0x8000, &attribute(IFLA_INFO_KIND, b"veth\0")));
        payload.extend(attribute(IFLA_PROP_LIST | 0x8000, &attribute(IFLA_ALT_IFNAME, b"other\0")));
        payload.extend(attribute(IFLA_OPERSTATE, &[6]));
        let raw = parse_link(5, &payload).unwrap();
        assert_eq!((raw.iflink, raw.link_nsid), (Some(9), Some(3)));
        let link = raw.link;
        assert_eq!(link.key, DeviceKey { netns: 5, ifindex: 7 });
        assert_eq!(link.name, b"\xff\x1b[2J");
        assert_eq!(link.display(), "\\xff\\x1b[2J");
        assert_eq!(link.alt_names, [b"other".to_vec()]);
        assert_eq!((link.kind, link.mtu, link.up, link.oper_state), (Kind::Veth, 1500, true, OperState::Up));
    }

    #[test]
    fn of_a_point_to_point_address_the_local_end_counts() {
        let mut payload = vec![2, 32, 0, 0];
        payload.extend(4u32.to_ne_bytes());
        payload.extend(attribute(IFA_ADDRESS, &[10, 0, 0, 2]));
        payload.extend(attribute(IFA_LOCAL, &[10, 0, 0, 1]));
        assert_eq!(parse_address(&payload), Some((4, "10.0.0.1".parse().unwrap())));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parsers_panic(payload in proptest::collection::vec(any::<u8>(), 0..200)) {
            let link = parse_link(1, &payload);
            prop_assert_eq!(link.is_some(), payload.len() >= 12);
            let _ = parse_address(&payload);
        }
    }
}
