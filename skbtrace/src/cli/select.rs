//! Which packets of a recording are wanted: flags that mean the same wherever a recording is read.

use std::{net::IpAddr, ops::RangeInclusive};

use super::run::{Proto, proto};
use crate::{
    run::Selection,
    trace::{Flow, Packet},
};

/// Flags of every command that reads a recording.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct SelectArgs {
    /// Only packets with these numbers: N, or M-K, or several of both
    #[arg(long, value_name = "N,M-K", value_delimiter = ',', value_parser = numbers)]
    number: Vec<RangeInclusive<u64>>,
    /// Only packets of this protocol: tcp, udp, icmp, icmpv6, arp, or the number of an IP protocol
    #[arg(long, value_name = "PROTO", value_parser = proto)]
    proto: Option<Proto>,
    /// Only packets from or to this address
    #[arg(long, value_name = "ADDRESS")]
    host: Option<IpAddr>,
    /// Only packets from or to this TCP or UDP port
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
}

impl SelectArgs {
    /// `None` when all are wanted.
    pub(super) fn selection(self) -> Option<Selection> {
        let all = self.number.is_empty() && self.proto.is_none() && self.host.is_none() && self.port.is_none();
        (!all).then(|| Box::new(move |packet: &Packet| self.has(packet)) as Selection)
    }

    fn has(&self, packet: &Packet) -> bool {
        let numbered = |number: u64| self.number.iter().any(|range| range.contains(&number));
        if !self.number.is_empty() && !packet.number.is_some_and(numbered) {
            return false;
        }
        let proto = self.proto.is_none_or(|proto| match proto {
            Proto::Ip(number) => packet.flow.is_some_and(|flow| flow.proto == number),
            Proto::Ethertype(ethertype) => packet.ethertype == ethertype,
        });
        // Addresses and ports may change on the way: any hop will do.
        proto && ((self.host.is_none() && self.port.is_none()) || flows(packet).any(|flow| self.has_flow(&flow)))
    }

    fn has_flow(&self, flow: &Flow) -> bool {
        let ports = flow.ports.map(|(from, to)| [from, to]);
        self.host.is_none_or(|host| [flow.src, flow.dst].contains(&host))
            && self.port.is_none_or(|port| ports.is_some_and(|ports| ports.contains(&port)))
    }
}

fn flows(packet: &Packet) -> impl Iterator<Item = Flow> {
    packet.tree().flat_map(|packet| &packet.steps).filter_map(|step| Flow::of(&step.event))
}

fn numbers(text: &str) -> Result<RangeInclusive<u64>, String> {
    let number = |text: &str| match text.parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err("packets have numbers from 1: try 3 or 10-20".to_owned()),
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (number(first)?, number(last)?);
    if first > last { Err(format!("{last} comes before {first}")) } else { Ok(first..=last) }
}

#[cfg(test)]
mod tests {
    use super::{SelectArgs, numbers};
    use crate::{
        cli::run::Proto,
        trace::{Lab, Packet, StitchOptions, Stitcher},
    };

    #[test]
    fn numbers_are_single_or_ranges() {
        assert_eq!(numbers("7"), Ok(7..=7));
        assert_eq!(numbers("7-9"), Ok(7..=9));
        for wrong in ["", "0", "-", "3-", "-3", "9-7", "a"] {
            assert!(numbers(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn packets_are_chosen_by_all_that_was_asked_for() {
        let mut lab = Lab::new();
        let mut packets: Vec<Packet> = Vec::new();
        let mut stitcher = Stitcher::new(StitchOptions::default());
        for event in [lab.tcp_data(1, 100, 7), lab.udp(2, 1), lab.udp_dropped(3, 2), lab.arp(4)].concat() {
            stitcher.push(&event, &mut |packet| packets.push(packet));
        }
        let none = SelectArgs::default();
        assert!(none.clone().selection().is_none());
        let chosen = |wanted: SelectArgs| -> Vec<u64> {
            let selection = wanted.selection().unwrap();
            packets.iter().filter(|packet| selection(packet)).filter_map(|packet| packet.number).collect()
        };
        assert_eq!(chosen(SelectArgs { number: vec![1..=1, 3..=9], ..none.clone() }), [1, 3, 4]);
        assert_eq!(chosen(SelectArgs { proto: Some(Proto::Ip(17)), ..none.clone() }), [2, 3]);
        assert_eq!(chosen(SelectArgs { proto: Some(Proto::Ethertype(0x0806)), ..none.clone() }), [4]);
        assert_eq!(chosen(SelectArgs { port: Some(8000), ..none.clone() }), [1]);
        assert_eq!(chosen(SelectArgs { port: Some(9000), number: vec![3..=3], ..none.clone() }), [3]);
        assert_eq!(chosen(SelectArgs { host: "78.78.0.10".parse().ok(), port: Some(9000), ..none.clone() }), [2, 3]);
        assert_eq!(chosen(SelectArgs { host: "10.0.0.1".parse().ok(), ..none }), [0; 0]);
    }
}
