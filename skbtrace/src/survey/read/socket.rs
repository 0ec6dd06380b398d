//! Sockets that copy packets of a device, or send from memory that a program can still write to, and UDP sockets that have
//! dropped some because their buffers were full.

use std::{
    collections::HashMap,
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::unix::ffi::OsStrExt as _,
};

use super::{
    DROP, Found, GARBLE, NOTHING,
    place::Place,
    ring::{Ring, Rings},
};
use crate::{
    name::printable,
    survey::{Fact, Spot},
    verdict::Cause,
};

/// A socket of AF_PACKET.
#[derive(Debug, PartialEq, Eq)]
struct Packet {
    /// `None`: all devices of the namespace.
    device: Option<u32>,
    /// Whether it receives anything: it has a protocol.
    hears: bool,
    inode: u64,
}

/// A UDP socket that has dropped something.
#[derive(Debug, PartialEq, Eq)]
struct Udp {
    address: IpAddr,
    port: u16,
    inode: u64,
    drops: u64,
}

/// A process: its number and its name, safe to print.
#[derive(Clone, Debug)]
pub(super) struct Owner {
    pub(super) pid: u32,
    pub(super) comm: String,
}

/// Which process has a socket open, by inode. All processes are looked through once, when the first socket turns up that
/// matters.
#[derive(Default)]
pub(super) struct Owners(Option<HashMap<u64, Owner>>);

pub(super) fn facts(place: &Place<'_>, owners: &mut Owners, found: &mut Found) {
    let mut table = |name: &str| {
        let text = fs::read_to_string(format!("/proc/thread-self/net/{name}"));
        found.take(place, "the sockets", text)
    };
    let packets: Vec<Packet> = table("packet").lines().filter_map(parse_packet).collect();
    let udp: Vec<Udp> =
        ["udp", "udp6"].iter().flat_map(|name| table(name).lines().filter_map(parse_udp).collect::<Vec<_>>()).collect();
    let packets: Vec<_> =
        packets.into_iter().filter(|one| one.device.is_none_or(|device| place.matters(device))).collect();
    if packets.is_empty() && udp.is_empty() {
        return;
    }
    let owners = owners.0.get_or_insert_with(read_owners);
    let of = |inode: u64| owners.get(&inode).map_or_else(String::new, |it| format!(" of {}[{}]", it.comm, it.pid));
    if !packets.is_empty() {
        let rings = Rings::read(place, &mut found.unseen);
        for one in packets {
            let ring = rings.of(one.inode, one.hears, owners.get(&one.inode));
            found.facts.push(packet(place, &one, &of(one.inode), ring));
        }
    }
    for one in udp {
        let (address, port, drops) = (one.address, one.port, one.drops);
        let address = if address.is_ipv6() { format!("[{address}]") } else { address.to_string() };
        let datagrams = if drops == 1 { "datagram" } else { "datagrams" };
        let of = of(one.inode);
        let what = format!("UDP socket {address}:{port}{of} has dropped {drops} {datagrams}: its buffer was full");
        found.facts.push(place.fact(Cause::Socket, None, Spot::Socket, DROP, what));
    }
}

fn packet(place: &Place<'_>, one: &Packet, of: &str, ring: Ring) -> Fact {
    let which = one.device.map_or_else(|| "all devices".to_owned(), |device| place.name(device));
    let spot = if one.device.is_some() { Spot::Device } else { Spot::Socket };
    let (cause, effects, does) = match ring {
        Ring::None if one.hears => (Cause::Socket, NOTHING, "copies packets, changes none".to_owned()),
        Ring::None => (Cause::Socket, NOTHING, "only sends".to_owned()),
        Ring::Sends { bytes } => {
            let ring = bytes.map_or_else(|| "a ring".to_owned(), |bytes| format!("a ring of {bytes} bytes"));
            (
                Cause::Sender,
                GARBLE,
                format!("sends packets from {ring}, to which its program can write while they are on their way"),
            )
        }
        Ring::Either => {
            (Cause::Socket, NOTHING, "copies packets; whether it also sends from its ring is not known".to_owned())
        }
    };
    place.fact(cause, one.device, spot, effects, format!("packet socket{of} on {which}: {does}"))
}

/// `sk RefCnt Type Proto Iface R Rmem User Inode`.
fn parse_packet(line: &str) -> Option<Packet> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let device: u32 = fields.get(4)?.parse().ok()?;
    let protocol = u16::from_str_radix(fields.get(3)?, 16).ok()?;
    let device = Some(device).filter(|device| *device != 0);
    Some(Packet { device, hears: protocol != 0, inode: fields.get(8)?.parse().ok()? })
}

/// `sl local rem st tx:rx tr:tm retrnsmt uid timeout inode ref pointer drops`, of those with drops.
fn parse_udp(line: &str) -> Option<Udp> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let drops: u64 = fields.get(12)?.parse().ok().filter(|drops| *drops > 0)?;
    let (address, port) = fields.get(1)?.split_once(':')?;
    Some(Udp {
        address: parse_address(address)?,
        port: u16::from_str_radix(port, 16).ok()?,
        inode: fields.get(9)?.parse().ok()?,
        drops,
    })
}

/// Words of four bytes, each as a number of the host's order.
fn parse_address(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| u32::from_str_radix(hex.get(at..at + 8)?, 16).ok().map(u32::to_ne_bytes);
    match hex.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let bytes = [word(0)?, word(8)?, word(16)?, word(24)?].concat();
            Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into())
        }
        _ => None,
    }
}

fn read_owners() -> HashMap<u64, Owner> {
    let mut owners = HashMap::new();
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let mut comm = None;
        for file in fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten() {
            let Ok(target) = fs::read_link(file.path()) else { continue };
            let inode =
                target.as_os_str().as_bytes().strip_prefix(b"socket:[").and_then(|rest| rest.strip_suffix(b"]"));
            let Some(inode) = inode.and_then(|inode| std::str::from_utf8(inode).ok()?.parse().ok()) else { continue };
            let comm = comm.get_or_insert_with(|| {
                let comm = fs::read(process.path().join("comm")).unwrap_or_default();
                printable(comm.trim_ascii_end())
            });
            owners.entry(inode).or_insert_with(|| Owner { pid, comm: comm.clone() });
        }
    }
    owners
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_that_sends_from_a_ring_is_one_that_can_write() {
        crate::survey::read::testkit::with_place("veth0", |place| {
            let one = Packet { device: Some(crate::survey::read::testkit::PORT), hears: false, inode: 1 };
            let sends = packet(place, &one, " of a[1]", Ring::Sends { bytes: Some(8192) });
            assert_eq!((sends.cause, sends.spot, sends.effects), (Cause::Sender, Spot::Device, GARBLE));
            assert_eq!(
                sends.what,
                "packet socket of a[1] on veth0: sends packets from a ring of 8192 bytes, to which its program can write \
                 while they are on their way"
            );
            let hears = packet(place, &Packet { device: None, hears: true, ..one }, "", Ring::Either);
            assert_eq!((hears.cause, hears.spot, hears.effects), (Cause::Socket, Spot::Socket, NOTHING));
        });
    }

    #[test]
    fn lines_of_proc_are_read_and_their_headings_are_not() {
        assert_eq!(parse_packet("sk               RefCnt Type Proto  Iface R Rmem   User   Inode"), None);
        let line = "ffff8881 3      3    0003   7     1 0      0      51234";
        let socket = Packet { device: Some(7), hears: true, inode: 51234 };
        assert_eq!(parse_packet(line), Some(socket));
        let socket = Packet { device: None, hears: false, inode: 51234 };
        assert_eq!(parse_packet(&line.replace("0003   7", "0000   0")), Some(socket));
        let line =
            " 1030: 0A004E4E:1F40 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 777 2 00 12";
        let udp = Udp { address: "78.78.0.10".parse().unwrap(), port: 8000, inode: 777, drops: 12 };
        assert_eq!(parse_udp(line), Some(udp));
        assert_eq!(parse_udp(&line.replace(" 12", " 0")), None);
        let v6 = "000000FD000000000000000010000000";
        assert_eq!(parse_address(v6), Some("fd00::10".parse().unwrap()));
        assert_eq!(parse_address("zz"), None);
    }
}
