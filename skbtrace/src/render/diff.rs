//! What changed from hop to hop, in words and in JSON: old value and new.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use serde::Serialize;
use skbtrace_common::{Event, EventFlags};

use super::Names;
use super::checksum::ip_summed;
use super::row::device_name;
use crate::verdict::{Changed, Field};

/// A value of a field.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Value {
    /// There is none.
    None,
    Number(u32),
    Flag(bool),
    Text(String),
}

/// A field that changed, in JSON.
#[derive(Debug, Serialize)]
pub(super) struct Change {
    field: Field,
    from: Value,
    to: Value,
}

/// For the row of the hop: `ttl 64→63`, `snat 10.0.0.1:5000 → 10.9.0.1:5000`.
pub(super) fn words(changed: &Changed, names: &dyn Names) -> String {
    let Change { field, from, to } = change(changed, names);
    let (from, to) = (said(field, &from), said(field, &to));
    match field {
        Field::Device => format!("device {from} → {to}"),
        Field::Source => format!("snat {from} → {to}"),
        Field::Destination => format!("dnat {from} → {to}"),
        Field::Len => format!("len {from}→{to}"),
        Field::Mark => format!("mark {from}→{to}"),
        Field::Vlan => format!("vlan {from}→{to}"),
        Field::Cloned => format!("cloned {from}→{to}"),
        Field::Users => format!("users {from}→{to}"),
        Field::Gso => format!("gso {from}→{to}"),
        Field::IpSummed => format!("csum {from}→{to}"),
        Field::Ttl => format!("ttl {from}→{to}"),
    }
}

/// The same for programs.
pub(super) fn change(changed: &Changed, names: &dyn Names) -> Change {
    let Changed { field, from, to } = changed;
    let value = |event: &Event| value(*field, event, from, names);
    Change { field: *field, from: value(from), to: value(to) }
}

fn value(field: Field, event: &Event, first: &Event, names: &dyn Names) -> Value {
    // Of fragments there are only addresses to compare.
    let has_ports = (event.flags & first.flags & EventFlags::L4) != 0 && !matches!(event.l4_proto, 1 | 58);
    let end = |address: [u8; 16], port: u16| {
        let address: IpAddr = Ipv6Addr::from(address).to_canonical();
        Value::Text(if has_ports { SocketAddr::new(address, port).to_string() } else { address.to_string() })
    };
    match field {
        Field::Device => {
            Value::Text(format!("{}/{}", names.netns(event.netns), device_name(&event.dev, event.ifindex)))
        }
        Field::Len => Value::Number(event.len),
        Field::Mark => Value::Number(event.mark),
        Field::Vlan if event.vlan_tci == 0 => Value::None,
        Field::Vlan => Value::Number(u32::from(event.vlan_tci & 0xfff)),
        Field::Cloned => Value::Flag(event.cloned != 0),
        Field::Users => Value::Number(event.users),
        Field::Gso => match (event.gso_segs, event.gso_size) {
            (_, 0) => Value::None,
            (0, size) => Value::Text(size.to_string()),
            (segs, size) => Value::Text(format!("{segs}×{size}")),
        },
        Field::IpSummed => Value::Text(ip_summed(event.ip_summed).to_owned()),
        Field::Ttl => Value::Number(u32::from(event.ttl)),
        Field::Source => end(event.saddr, event.sport),
        Field::Destination => end(event.daddr, event.dport),
    }
}

fn said(field: Field, value: &Value) -> String {
    match value {
        Value::None => "none".to_owned(),
        Value::Number(mark) if field == Field::Mark => format!("{mark:#x}"),
        Value::Number(number) => number.to_string(),
        Value::Flag(true) => "yes".to_owned(),
        Value::Flag(false) => "no".to_owned(),
        Value::Text(text) => text.clone(),
    }
}
