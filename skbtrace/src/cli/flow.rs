//! Which packets are meant, by protocol, address and port: flags that say the same of a run, where the kernel decides, and
//! of a recording, where what was seen does.

use std::net::IpAddr;

use skbtrace_common::Filter;

use crate::{
    run::wire_address,
    trace::{Flow, Packet},
};

/// Flags of every command that is about packets.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
pub(super) struct FlowArgs {
    /// Only packets of this protocol: tcp, udp, icmp, icmpv6, arp, or the number of an IP protocol
    #[arg(long, value_name = "PROTO", value_parser = proto)]
    pub(super) proto: Option<Proto>,
    /// Only packets from or to this address
    #[arg(long, value_name = "ADDRESS")]
    pub(super) host: Option<IpAddr>,
    /// Only packets from or to this TCP or UDP port
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) port: Option<u16>,
}

/// A protocol to filter by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Proto {
    Ip(u8),
    Ethertype(u16),
}

impl FlowArgs {
    /// The same, for the kernel side.
    pub(super) fn filter(&self) -> Filter {
        let mut filter = Filter { port: self.port.unwrap_or(0), ..Filter::default() };
        match self.proto {
            Some(Proto::Ip(number)) => filter.l4_proto = number,
            Some(Proto::Ethertype(number)) => filter.ethertype = number,
            None => {}
        }
        if let Some(host) = self.host {
            filter.host = wire_address(host);
            filter.has_host = 1;
        }
        filter
    }

    /// Whether a packet that was seen is meant.
    pub(super) fn has(&self, packet: &Packet) -> bool {
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

fn proto(text: &str) -> Result<Proto, String> {
    Ok(match text.to_ascii_lowercase().as_str() {
        "tcp" => Proto::Ip(6),
        "udp" => Proto::Ip(17),
        "icmp" => Proto::Ip(1),
        "icmpv6" | "icmp6" => Proto::Ip(58),
        "arp" => Proto::Ethertype(0x0806),
        number => match number.parse() {
            Ok(number) if number > 0 => Proto::Ip(number),
            _ => return Err("use tcp, udp, icmp, icmpv6, arp, or a number from 1 to 255".to_owned()),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::{Proto, proto};

    #[test]
    fn protocols_have_names_or_numbers() {
        assert_eq!(proto("TCP"), Ok(Proto::Ip(6)));
        assert_eq!(proto("132"), Ok(Proto::Ip(132)));
        assert_eq!(proto("arp"), Ok(Proto::Ethertype(0x0806)));
        for wrong in ["", "0", "256", "tpc"] {
            assert!(proto(wrong).is_err(), "{wrong}");
        }
    }
}
