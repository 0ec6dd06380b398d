//! Sockets that copy packets of a device, and UDP sockets that have dropped some because their buffers were full.

use std::{
    collections::HashMap,
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::unix::ffi::OsStrExt as _,
};

use super::{DROP, Found, NOTHING, place::Place};
use crate::{name::printable, survey::Spot, verdict::Cause};

/// A socket of AF_PACKET.
#[derive(Debug, PartialEq, Eq)]
struct Packet {
    /// `None`: all devices of the namespace.
    device: Option<u32>,
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

/// Which process has a socket open, by inode: `python3[301]`, safe to print. All processes are looked through once, when the
/// first socket turns up that matters.
#[derive(Default)]
pub(super) struct Owners(Option<HashMap<u64, String>>);

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
    let of = |inode: u64| owners.get(&inode).map_or_else(String::new, |owner| format!(" of {owner}"));
    for one in packets {
        let which = one.device.map_or_else(|| "all devices".to_owned(), |device| place.name(device));
        let what = format!("packet socket{} on {which}: copies packets, changes none", of(one.inode));
        let spot = if one.device.is_some() { Spot::Device } else { Spot::Socket };
        found.facts.push(place.fact(Cause::Socket, one.device, spot, NOTHING, what));
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

/// `sk RefCnt Type Proto Iface R Rmem User Inode`.
fn parse_packet(line: &str) -> Option<Packet> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let device: u32 = fields.get(4)?.parse().ok()?;
    Some(Packet { device: Some(device).filter(|device| *device != 0), inode: fields.get(8)?.parse().ok()? })
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

fn read_owners() -> HashMap<u64, String> {
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
            owners.entry(inode).or_insert_with(|| format!("{comm}[{pid}]"));
        }
    }
    owners
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_proc_are_read_and_their_headings_are_not() {
        assert_eq!(parse_packet("sk               RefCnt Type Proto  Iface R Rmem   User   Inode"), None);
        let line = "ffff8881 3      3    0003   7     1 0      0      51234";
        assert_eq!(parse_packet(line), Some(Packet { device: Some(7), inode: 51234 }));
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
