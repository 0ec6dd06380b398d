//! Counters of the kernel's that tell what became of packets.

use std::{fmt, fs, process::Command};

use serde::Serialize;
use serde_json::Value;

use super::failed;
use crate::lab::{
    Place,
    fault::{
        Error, Fault,
        step::{self, Step},
    },
};

/// A counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Counter {
    /// A counter of /proc/net/snmp or /proc/net/netstat.
    Snmp {
        /// The namespace.
        place: Place,
        /// The group: `Ip`, `Udp`, `TcpExt`.
        protocol: &'static str,
        /// The counter's name.
        name: &'static str,
    },
    /// What IP received in a namespace, without what it delivered or sent on.
    Vanished {
        /// The namespace.
        place: Place,
    },
    /// The counter in the fault's own rule of nftables.
    Rule,
}

impl fmt::Display for Counter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Snmp { place, protocol, name } => write!(f, "{} {protocol} {name}", place.unwrap_or("here")),
            Self::Vanished { place } => {
                write!(f, "{} IP received and neither delivered nor sent on", place.unwrap_or("here"))
            }
            Self::Rule => f.write_str("the rule's counter"),
        }
    }
}

impl Counter {
    /// Its value; 0 where the rule is not there.
    pub(super) fn read(self, fault: &Fault) -> Result<u64, Error> {
        match self {
            Self::Snmp { place, protocol, name } => Ok(snmp(&tables(place)?, protocol, name).unwrap_or(0)),
            Self::Vanished { place } => {
                let tables = tables(place)?;
                let ip = |name| snmp(&tables, "Ip", name).unwrap_or(0);
                Ok(ip("InReceives").saturating_sub(ip("InDelivers") + ip("ForwDatagrams")))
            }
            Self::Rule => {
                let rule = fault.steps.iter().find_map(|step| match step {
                    Step::Rule { place, family, .. } => Some((*place, *family)),
                    _ => None,
                });
                let Some((place, family)) = rule else { return Ok(0) };
                let list =
                    || Command::new("nft").args(["-j", "list", "table", family, &step::table(fault.name)]).output();
                let listed = step::inside(place, list)?;
                Ok(listed.ok().and_then(|output| rules(&output.stdout)).unwrap_or(0))
            }
        }
    }
}

/// The counters of a namespace.
fn tables(place: Place) -> Result<String, Error> {
    let files = ["/proc/thread-self/net/snmp", "/proc/thread-self/net/netstat"];
    let read = || files.iter().map(fs::read_to_string).collect::<Result<String, _>>();
    step::inside(place, read)?.map_err(failed("read the counters of /proc/net"))
}

/// A value of a table in which a line of names is followed by a line of values.
fn snmp(table: &str, protocol: &str, name: &str) -> Option<u64> {
    let mut rows = table.lines().filter_map(|line| line.split_once(": ")).filter(|(head, _)| *head == protocol);
    let ((_, names), (_, values)) = (rows.next()?, rows.next()?);
    names.split(' ').zip(values.split(' ')).find(|(known, _)| *known == name)?.1.parse().ok()
}

/// The packets of every counter in the output of `nft -j list table`.
fn rules(json: &[u8]) -> Option<u64> {
    let listed: Value = serde_json::from_slice(json).ok()?;
    let rules = listed["nftables"].as_array()?.iter().filter_map(|item| item["rule"]["expr"].as_array());
    Some(rules.flatten().filter_map(|expression| expression["counter"]["packets"].as_u64()).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_found_by_its_name() {
        let table =
            "Ip: Forwarding InHdrErrors\nIp: 1 7\nUdp: InDatagrams NoPorts InErrors\nUdp: 5 3 2\nUdpLite: NoPorts\n";
        assert_eq!(snmp(table, "Ip", "InHdrErrors"), Some(7));
        assert_eq!(snmp(table, "Udp", "NoPorts"), Some(3));
        assert_eq!(snmp(table, "Udp", "Nothing"), None);
        assert_eq!(snmp(table, "UdpLite", "NoPorts"), None);
    }

    #[test]
    fn the_counters_of_all_rules_are_added_up() {
        let json =
            br#"{"nftables": [{"metainfo": {}}, {"rule": {"expr": [{"match": {}}, {"counter": {"packets": 3}}]}},
            {"rule": {"expr": [{"counter": {"packets": 4}}, {"drop": null}]}}]}"#;
        assert_eq!(rules(json), Some(7));
        assert_eq!(rules(b"no json"), None);
    }
}
