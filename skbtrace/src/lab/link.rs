//! One namespace's rtnetlink: a connection that stays in the namespace in which it was opened, and the few requests
//! that the lab makes of it. Each request waits for its answer, so that the steps of a build read in order.

use std::{
    fs::File,
    io,
    net::{IpAddr, Ipv4Addr},
    os::fd::{AsRawFd, BorrowedFd},
    process::Command,
};

use futures_util::TryStreamExt;
use rtnetlink::{
    Handle, LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder,
    packet_route::{
        address::AddressMessage,
        link::{InfoData, InfoVeth, LinkAttribute, LinkMessage},
        route::RouteMessage,
    },
};
use tokio::runtime::{Builder, Runtime};

use super::{End, Error, MAC_PREFIX, PREFIX_LEN, netns};
use crate::name::printable;

/// A connection to one namespace's rtnetlink.
pub(super) struct Session {
    runtime: Runtime,
    handle: Handle,
}

/// A lab MAC address.
pub(super) fn mac(last: u8) -> Vec<u8> {
    MAC_PREFIX.iter().copied().chain([last]).collect()
}

/// The kernel's answer to a request.
fn errno(error: rtnetlink::Error) -> io::Error {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other),
    }
}

impl Session {
    /// Opens a connection in the namespace of the calling thread.
    pub(super) fn here() -> Result<Self, Error> {
        let failed = |error| Error::failed("open a netlink socket", error);
        let runtime = Builder::new_current_thread().enable_io().build().map_err(failed)?;
        let (connection, handle, _) = {
            let _in_runtime = runtime.enter();
            rtnetlink::new_connection().map_err(failed)?
        };
        runtime.spawn(connection);
        Ok(Self { runtime, handle })
    }

    /// Opens a connection in a namespace.
    pub(super) fn open(namespace: Option<&File>) -> Result<Self, Error> {
        netns::inside_or_here(namespace, Self::here)?
    }

    /// The device of that name.
    pub(super) fn get(&self, name: &str) -> Result<Option<LinkMessage>, Error> {
        self.runtime.block_on(async {
            match self.handle.link().get().match_name(name).execute().try_next().await.map_err(errno) {
                Err(error) if error.raw_os_error() == Some(nix::Error::ENODEV as i32) => Ok(None),
                other => other.map_err(|error| Error::failed(format!("look up {name}"), error)),
            }
        })
    }

    /// Every IPv4 address.
    pub(super) fn addresses(&self) -> Result<Vec<AddressMessage>, Error> {
        let addresses = self.handle.address().get().execute().try_collect();
        self.runtime.block_on(addresses).map_err(|error| Error::failed("list addresses", errno(error)))
    }

    /// Every IPv4 route.
    pub(super) fn routes(&self) -> Result<Vec<RouteMessage>, Error> {
        let all = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let routes = self.handle.route().get(all).execute().try_collect();
        self.runtime.block_on(routes).map_err(|error| Error::failed("list routes", errno(error)))
    }

    fn set(&self, change: LinkMessageBuilder<LinkUnspec>, doing: impl Fn() -> String) -> Result<(), Error> {
        let change = self.handle.link().set(change.build()).execute();
        self.runtime.block_on(change).map_err(|error| Error::failed(doing(), errno(error)))
    }

    pub(super) fn set_alias(&self, name: &str, alias: &str) -> Result<(), Error> {
        self.set(LinkUnspec::new_with_name(name).alias(alias), || format!("set the alias of {name}"))
    }

    pub(super) fn set_up(&self, name: &str) -> Result<(), Error> {
        self.set(LinkUnspec::new_with_name(name).up(), || format!("set {name} up"))
    }

    pub(super) fn set_bridge(&self, name: &str, bridge: &str) -> Result<(), Error> {
        let doing = || format!("make {name} a port of {bridge}");
        let index = self.index(bridge)?;
        self.set(LinkUnspec::new_with_name(name).controller(index), doing)
    }

    fn index(&self, name: &str) -> Result<u32, Error> {
        match self.get(name)? {
            Some(link) => Ok(link.header.index),
            None => Err(Error::failed(format!("look up {name}"), nix::Error::ENODEV)),
        }
    }

    /// Makes a bridge with the lab's mark.
    pub(super) fn add_bridge(&self, name: &str, mac_byte: u8, alias: &str) -> Result<(), Error> {
        let bridge = LinkMessageBuilder::<LinkBridge>::new(name).address(mac(mac_byte)).build();
        self.add("bridge", &bridge, || format!("make the bridge {name}"))?;
        self.set_alias(name, alias)
    }

    /// Makes a pair with the lab's mark: the first end here, the second in `second_place`, where both stay. So no
    /// device is ever found half way between two namespaces.
    pub(super) fn add_pair(&self, pair: &[End; 2], second_place: BorrowedFd<'_>) -> Result<(), Error> {
        let [first, second] = pair;
        let peer = LinkMessageBuilder::<LinkUnspec>::new()
            .name(second.device)
            .address(mac(second.mac))
            .setns_by_fd(second_place.as_raw_fd())
            .build();
        let pair = LinkMessageBuilder::<LinkVeth>::new(first.device, second.device)
            .address(mac(first.mac))
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
            .build();
        self.add("veth", &pair, || format!("make the veth pair {}, {}", first.device, second.device))
    }

    /// Makes a device. The kernel loads the module for its kind by itself where it can run modprobe; where it cannot,
    /// the answer is EOPNOTSUPP, and modprobe is run from here.
    fn add(&self, kind: &'static str, device: &LinkMessage, doing: impl Fn() -> String) -> Result<(), Error> {
        let attempt = || self.runtime.block_on(self.handle.link().add(device.clone()).execute()).map_err(errno);
        let unsupported = |error: &io::Error| error.raw_os_error() == Some(nix::Error::EOPNOTSUPP as i32);
        match attempt() {
            Err(error) if unsupported(&error) => {
                let probed = modprobe(kind);
                attempt().map_err(|error| match (unsupported(&error), probed) {
                    (true, Err(why)) => Error::NoKind { kind, why, advice: advice(kind) },
                    _ => Error::failed(doing(), error),
                })
            }
            other => other.map_err(|error| Error::failed(doing(), error)),
        }
    }

    /// Removes a device; that it is gone already is no error, since the other end of a pair takes it along.
    pub(super) fn delete(&self, index: u32, name: &str) -> Result<(), Error> {
        match self.runtime.block_on(self.handle.link().del(index).execute()).map_err(errno) {
            Err(error) if error.raw_os_error() != Some(nix::Error::ENODEV as i32) => {
                Err(Error::failed(format!("remove {name}"), error))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn add_address(&self, name: &str, address: Ipv4Addr) -> Result<(), Error> {
        let index = self.index(name)?;
        let add = self.handle.address().add(index, IpAddr::V4(address), PREFIX_LEN).execute();
        self.runtime
            .block_on(add)
            .map_err(|error| Error::failed(format!("give {name} the address {address}/{PREFIX_LEN}"), errno(error)))
    }

    pub(super) fn add_default_route(&self, name: &str) -> Result<(), Error> {
        let index = self.index(name)?;
        let route = RouteMessageBuilder::<Ipv4Addr>::new()
            .output_interface(index)
            .scope(rtnetlink::packet_route::route::RouteScope::Link)
            .build();
        self.runtime
            .block_on(self.handle.route().add(route).execute())
            .map_err(|error| Error::failed(format!("make {name} the default route"), errno(error)))
    }
}

fn modprobe(module: &str) -> Result<(), String> {
    match Command::new("modprobe").arg("--").arg(module).output() {
        Err(error) => Err(format!("it could not be run: {error}; the Debian package kmod has it")),
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) if output.stderr.trim_ascii().is_empty() => Err(format!("it ended with {}", output.status)),
        Ok(output) => Err(printable(output.stderr.trim_ascii())),
    }
}

fn advice(kind: &str) -> String {
    let release = nix::sys::utsname::uname().map(|u| u.release().to_string_lossy().into_owned()).unwrap_or_default();
    format!(
        "install the modules of the running kernel ({release}), or boot one with CONFIG_{}",
        kind.to_ascii_uppercase()
    )
}

/// The attribute of a device that `pick` picks.
pub(super) fn attribute<T>(link: &LinkMessage, pick: impl Fn(&LinkAttribute) -> Option<T>) -> Option<T> {
    link.attributes.iter().find_map(pick)
}
