//! Reads what is there under the lab's names. Devices are asked for by name, one by one: whatever else the machine
//! has, thousands of devices or names that are no UTF-8, is none of the lab's business and cannot disturb it.

use std::net::IpAddr;

use rtnetlink::packet_route::{
    address::AddressAttribute,
    link::{InfoBridgePort, InfoPortData, LinkAttribute, LinkFlags, LinkInfo, LinkMessage},
    route::{RouteAttribute, RouteHeader, RouteType},
};

use super::{
    DEVICES, Device, Error, NAMESPACES, Namespace, Observed,
    link::{Session, attribute},
    netns::{self, Found},
};

/// Looks at everything that has one of the lab's names.
///
/// # Errors
/// [`Error::Privilege`] without the right to enter a namespace, [`Error::Failed`] when the kernel refuses an answer.
pub fn observe() -> Result<Observed, Error> {
    super::build::need_privilege()?;
    let here = devices(&Session::here()?, &DEVICES)?;
    let namespaces = NAMESPACES.into_iter().map(|name| Ok((name, namespace(name)?))).collect::<Result<_, Error>>()?;
    Ok(Observed { here, namespaces })
}

fn namespace(name: &str) -> Result<Namespace, Error> {
    let file = match netns::find(name)? {
        Found::Absent => return Ok(Namespace::Absent),
        Found::Leftover => return Ok(Namespace::Leftover),
        Found::Other => return Ok(Namespace::Foreign),
        Found::Namespace(file) => file,
    };
    let session = Session::open(Some(&file))?;
    let names: Vec<_> = std::iter::once("lo").chain(DEVICES).collect();
    let devices = devices(&session, &names)?;
    let marked = devices.iter().any(|device| device.name == "lo" && device.is_marked());
    Ok(if marked { Namespace::Ours(devices) } else { Namespace::Foreign })
}

fn devices(session: &Session, names: &[&str]) -> Result<Vec<Device>, Error> {
    let mut devices = Vec::new();
    for name in names {
        devices.extend(session.get(name)?.map(|link| device(name, &link)));
    }
    if devices.is_empty() {
        return Ok(devices);
    }
    for message in session.addresses()? {
        let local = message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Local(IpAddr::V4(address)) => Some(*address),
            _ => None,
        });
        let device = devices.iter_mut().find(|device| device.index == message.header.index);
        if let (Some(address), Some(device)) = (local, device) {
            device.addresses.push((address, message.header.prefix_len));
        }
    }
    for message in session.routes()? {
        let header = &message.header;
        let table = message.attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::Table(table) => Some(*table),
            _ => None,
        });
        let is_default = header.destination_prefix_length == 0
            && header.kind == RouteType::Unicast
            && table.unwrap_or(header.table.into()) == u32::from(RouteHeader::RT_TABLE_MAIN);
        let through = message.attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::Oif(index) => Some(*index),
            _ => None,
        });
        if is_default && let Some(device) = devices.iter_mut().find(|device| Some(device.index) == through) {
            device.default_route = true;
        }
    }
    Ok(devices)
}

fn device(name: &str, link: &LinkMessage) -> Device {
    let info = |pick: &dyn Fn(&LinkInfo) -> Option<String>| {
        attribute(link, |attribute| match attribute {
            LinkAttribute::LinkInfo(infos) => infos.iter().find_map(pick),
            _ => None,
        })
    };
    Device {
        name: name.to_owned(),
        index: link.header.index,
        mac: attribute(link, |attribute| match attribute {
            LinkAttribute::Address(mac) => Some(mac.clone()),
            _ => None,
        })
        .unwrap_or_default(),
        alias: attribute(link, |attribute| match attribute {
            LinkAttribute::IfAlias(alias) => Some(alias.clone()),
            _ => None,
        }),
        kind: info(&|info| match info {
            LinkInfo::Kind(kind) => Some(kind.to_string()),
            _ => None,
        }),
        up: link.header.flags.contains(LinkFlags::Up),
        operstate: attribute(link, |attribute| match attribute {
            LinkAttribute::OperState(state) => Some(format!("{state:?}").to_lowercase()),
            _ => None,
        })
        .unwrap_or_default(),
        master: attribute(link, |attribute| match attribute {
            LinkAttribute::Controller(index) => Some(*index),
            _ => None,
        }),
        peer: attribute(link, |attribute| match attribute {
            LinkAttribute::Link(index) => Some(*index),
            _ => None,
        }),
        port_state: info(&|info| match info {
            LinkInfo::PortData(InfoPortData::BridgePort(port)) => port.iter().find_map(|item| match item {
                InfoBridgePort::State(state) => Some(format!("{state:?}").to_lowercase()),
                _ => None,
            }),
            _ => None,
        }),
        addresses: Vec::new(),
        default_route: false,
    }
}
