//! Which packets of a recording are wanted: flags that mean the same wherever a recording is read.

use std::ops::RangeInclusive;

use super::flow::FlowArgs;
use crate::{run::Selection, trace::Packet};

/// Flags of every command that reads a recording.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct SelectArgs {
    /// Only packets with these numbers: N, or M-K, or several of both
    #[arg(long, value_name = "N,M-K", value_delimiter = ',', value_parser = numbers)]
    number: Vec<RangeInclusive<u64>>,
    #[command(flatten)]
    flow: FlowArgs,
}

impl SelectArgs {
    /// `None` when all are wanted.
    pub(super) fn selection(self) -> Option<Selection> {
        let all = self.number.is_empty() && self.flow == FlowArgs::default();
        (!all).then(|| Box::new(move |packet: &Packet| self.has(packet)) as Selection)
    }

    fn has(&self, packet: &Packet) -> bool {
        let numbered = |number: u64| self.number.iter().any(|range| range.contains(&number));
        (self.number.is_empty() || packet.number.is_some_and(numbered)) && self.flow.has(packet)
    }
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
        cli::flow::{FlowArgs, Proto},
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
        let of = |flow: FlowArgs| chosen(SelectArgs { flow, ..none.clone() });
        let any = FlowArgs::default();
        assert_eq!(of(FlowArgs { proto: Some(Proto::Ip(17)), ..any.clone() }), [2, 3]);
        assert_eq!(of(FlowArgs { proto: Some(Proto::Ethertype(0x0806)), ..any.clone() }), [4]);
        assert_eq!(of(FlowArgs { port: Some(8000), ..any.clone() }), [1]);
        assert_eq!(of(FlowArgs { host: "78.78.0.10".parse().ok(), port: Some(9000), ..any.clone() }), [2, 3]);
        assert_eq!(of(FlowArgs { host: "10.0.0.1".parse().ok(), ..any.clone() }), [0; 0]);
        let both = SelectArgs { number: vec![3..=3], flow: FlowArgs { port: Some(9000), ..any } };
        assert_eq!(chosen(both), [3]);
    }
}
