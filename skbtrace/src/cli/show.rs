//! `skbtrace show`.

use std::{
    fs::File,
    io::{self, Read},
    net::IpAddr,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result};

use super::look::LookArgs;
use super::run::{Proto, proto};
use crate::{
    run::{Output, Replay, Selection},
    trace::{Flow, Packet},
};

/// Which recording, and what of it.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
What the run printed is printed again, byte for byte; the parts of a rotated recording are one when they are given \
together, in their order. Filters choose packets; the books at the end are those of the whole recording.

A recording that is damaged or cut short is shown up to the damage, without books, and the exit status is 1.")]
pub struct Args {
    /// The recording, or its parts in their order; `-` is standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    look: LookArgs,
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

/// Which packets to show.
#[derive(Clone, Debug)]
struct Wanted {
    numbers: Vec<RangeInclusive<u64>>,
    proto: Option<Proto>,
    host: Option<IpAddr>,
    port: Option<u16>,
}

/// Shows it.
pub fn run(args: Args) -> Result<ExitCode> {
    let mut output = Output::new(args.look.resolve());
    let wanted = Wanted { numbers: args.number, proto: args.proto, host: args.host, port: args.port };
    if let Some(selection) = wanted.selection() {
        output = output.only(selection);
    }
    let mut replay = Replay::new(output);
    let mut missing = None;
    for path in &args.files {
        let input = match open(path) {
            Ok(input) => input,
            Err(error) => {
                // What the parts before it have open is still to be shown.
                missing = Some(error);
                break;
            }
        };
        if !replay.part(&path.display().to_string(), input).context("cannot write the output")? {
            break;
        }
    }
    let shown = replay.finish().context("cannot write the output")?;
    if let Some(error) = missing {
        return Err(error);
    }
    match shown.complaint {
        Some(complaint) => anyhow::bail!(complaint),
        None => Ok(ExitCode::SUCCESS),
    }
}

fn open(path: &Path) -> Result<Box<dyn Read>> {
    if path == Path::new("-") {
        return Ok(Box::new(io::stdin()));
    }
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    Ok(Box::new(file))
}

impl Wanted {
    /// `None` when all are wanted.
    fn selection(self) -> Option<Selection> {
        let all = self.numbers.is_empty() && self.proto.is_none() && self.host.is_none() && self.port.is_none();
        (!all).then(|| Box::new(move |packet: &Packet| self.has(packet)) as Selection)
    }

    fn has(&self, packet: &Packet) -> bool {
        let numbered = |number: u64| self.numbers.iter().any(|range| range.contains(&number));
        if !self.numbers.is_empty() && !packet.number.is_some_and(numbered) {
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
    use super::{Wanted, numbers};
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
        let none = Wanted { numbers: Vec::new(), proto: None, host: None, port: None };
        assert!(none.clone().selection().is_none());
        let chosen = |wanted: Wanted| -> Vec<u64> {
            let selection = wanted.selection().unwrap();
            packets.iter().filter(|packet| selection(packet)).filter_map(|packet| packet.number).collect()
        };
        assert_eq!(chosen(Wanted { numbers: vec![1..=1, 3..=9], ..none.clone() }), [1, 3, 4]);
        assert_eq!(chosen(Wanted { proto: Some(Proto::Ip(17)), ..none.clone() }), [2, 3]);
        assert_eq!(chosen(Wanted { proto: Some(Proto::Ethertype(0x0806)), ..none.clone() }), [4]);
        assert_eq!(chosen(Wanted { port: Some(8000), ..none.clone() }), [1]);
        assert_eq!(chosen(Wanted { port: Some(9000), numbers: vec![3..=3], ..none.clone() }), [3]);
        assert_eq!(chosen(Wanted { host: "78.78.0.10".parse().ok(), port: Some(9000), ..none.clone() }), [2, 3]);
        assert_eq!(chosen(Wanted { host: "10.0.0.1".parse().ok(), ..none }), [0; 0]);
    }
}
