//! Routing: routes and rules that throw packets away, reverse path filters, and namespaces that others take for a router.
//!
//! Whether a namespace is taken for a router is in the routes of the others, so those of all are read before it is judged.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    net::IpAddr,
    os::unix::ffi::OsStrExt as _,
    path::Path,
};

use skbtrace_common::DeviceKey;

use super::{DROP, Found, place::Place};
use crate::{
    survey::{Fact, Spot},
    topology::{
        Kind, Link,
        netlink::{RouteSocket, attributes, int, ip},
    },
    verdict::Cause,
};

// linux/rtnetlink.h, linux/fib_rules.h
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
const RTM_NEWRULE: u16 = 32;
const RTM_GETRULE: u16 = 34;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_METRICS: u16 = 8;
const RTA_TABLE: u16 = 15;
const RTAX_HOPLIMIT: u16 = 10;
const FRA_PRIORITY: u16 = 6;
const RTN_UNICAST: u8 = 1;
const RTPROT_KERNEL: u8 = 2;
const RTM_F_CLONED: u32 = 0x200;
const MAIN: u32 = 254;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
/// A limit of hops below this was set to stop packets somewhere.
const FEW_HOPS: u32 = 32;

/// A route.
#[derive(Debug, PartialEq, Eq)]
struct Route {
    family: u8,
    kind: u8,
    length: u8,
    table: u32,
    to: Option<IpAddr>,
    gateway: Option<IpAddr>,
    device: Option<u32>,
    hoplimit: Option<u32>,
}

/// What the namespaces' routes say of each other.
#[derive(Default)]
pub(super) struct Routes {
    /// Gateways, with the namespace whose route names them.
    gateways: BTreeSet<(u32, IpAddr)>,
    /// Namespaces with a default route, by family.
    default: BTreeSet<(u32, u8)>,
    /// Whether IPv4 is forwarded that comes in by a device.
    forwarding: BTreeMap<DeviceKey, bool>,
    /// The same of IPv6, for a whole namespace.
    forwarding6: BTreeMap<u32, bool>,
}

impl Routes {
    /// Reads the namespace that the thread is in.
    pub(super) fn read(&mut self, place: &Place<'_>, socket: &mut RouteSocket, found: &mut Found) {
        for family in [AF_INET, AF_INET6] {
            let routes = found.take(place, "the routes", read(socket, family));
            for route in &routes {
                found.facts.extend(fact(place, route));
                self.gateways.extend(route.gateway.map(|gateway| (place.inum, gateway)));
                if route.kind == RTN_UNICAST && route.length == 0 {
                    self.default.insert((place.inum, route.family));
                }
            }
        }
        let rules = socket.dump(RTM_GETRULE, RTM_NEWRULE, &[0; 12], |payload| Some(payload.to_vec()));
        for rule in found.take(place, "the rules of routing", rules) {
            found.facts.extend(rule_fact(place, &rule));
        }
        for link in place.links() {
            if let Some(value) = setting(link, "forwarding") {
                self.forwarding.insert(link.key, value != 0);
            }
            found.facts.extend(reverse_path(place, link));
        }
        if let Some(value) = number("/proc/sys/net/ipv6/conf/all/forwarding") {
            self.forwarding6.insert(place.inum, value != 0);
        }
    }

    /// What is wrong with a namespace that others send through.
    pub(super) fn facts(&self, place: &Place<'_>, found: &mut Found) {
        for link in place.links() {
            // Who names an address of this device as the way to somewhere else.
            let named = |address: &&IpAddr| {
                self.gateways.iter().any(|(netns, gateway)| *netns != place.inum && gateway == *address)
            };
            let Some(address) = link.addrs.iter().find(named) else { continue };
            let name = link.display();
            let family = if address.is_ipv4() { AF_INET } else { AF_INET6 };
            let (on, undo) = match family {
                AF_INET => {
                    let undo = sysctl_of(link, "forwarding").map(|name| format!("sysctl -w {name}=1"));
                    (self.forwarding.get(&link.key), undo)
                }
                _ => (self.forwarding6.get(&place.inum), Some("sysctl -w net.ipv6.conf.all.forwarding=1".to_owned())),
            };
            if on == Some(&false) {
                let what = format!("forwarding is off on {name}, and routes of others lead through its {address}");
                let fact = place.fact(Cause::Route, Some(link.key.ifindex), Spot::Route, DROP, what);
                found.facts.push(Fact { undo: place.undo(undo), ..fact });
            }
            if !self.default.contains(&(place.inum, family)) {
                let what = format!("no default route, and routes of others lead through {address} on {name}");
                found.facts.push(place.fact(Cause::Route, None, Spot::Route, DROP, what));
            }
        }
    }
}

fn read(socket: &mut RouteSocket, family: u8) -> io::Result<Vec<Route>> {
    let mut body = [0; 12]; // struct rtmsg
    body[0] = family;
    socket.dump(RTM_GETROUTE, RTM_NEWROUTE, &body, parse)
}

/// `None` for what the kernel has made by itself and what passes packets like any other route.
fn parse(payload: &[u8]) -> Option<Route> {
    // struct rtmsg: family, dst_len, src_len, tos, table, protocol, scope, type, flags u32
    let [family, length, _, _, table, protocol, _, kind] = *payload.get(..8)?.as_array()?;
    let flags = payload.get(8..12).and_then(int)?;
    let find = |wanted| attributes(payload, 12).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    let number = |wanted| find(wanted).and_then(int);
    if flags & RTM_F_CLONED != 0 || protocol == RTPROT_KERNEL {
        return None;
    }
    let metric = |metrics| attributes(metrics, 0).find(|(kind, _)| *kind == RTAX_HOPLIMIT).and_then(|(_, v)| int(v));
    Some(Route {
        family,
        kind,
        length,
        table: number(RTA_TABLE).unwrap_or(u32::from(table)),
        to: find(RTA_DST).and_then(ip),
        gateway: find(RTA_GATEWAY).and_then(ip),
        device: number(RTA_OIF),
        hoplimit: find(RTA_METRICS).and_then(metric),
    })
}

/// What a kind of route is called that throws packets away.
fn dead_end(kind: u8) -> Option<&'static str> {
    Some(match kind {
        6 => "blackhole",
        7 => "unreachable",
        8 => "prohibit",
        _ => return None,
    })
}

fn fact(place: &Place<'_>, route: &Route) -> Option<Fact> {
    let to = match (route.to, route.length) {
        (Some(to), length) => format!("{to}/{length}"),
        (None, _) => "default".to_owned(),
    };
    let table = if route.table == MAIN { String::new() } else { format!(" table {}", route.table) };
    let ip = if route.family == AF_INET6 { "ip -6" } else { "ip" };
    let (ifindex, what, undo) = match (dead_end(route.kind), route.hoplimit) {
        (Some(kind), _) => {
            let undo = Some(format!("{ip} route del {kind} {to}{table}"));
            (None, format!("route {kind} {to}{table}"), undo)
        }
        (None, Some(hops)) if hops > 0 && hops < FEW_HOPS => {
            let via = route.gateway.map_or_else(String::new, |gateway| format!(" via {gateway}"));
            let (name, device) = match route.device {
                Some(device) => (format!(" dev {}", place.name(device)), place.word(device)),
                None => return None,
            };
            let what = format!("route {to}{via}{name}{table} hoplimit {hops}: packets end after so many routers");
            (route.device, what, device.map(|device| format!("{ip} route change {to}{via} dev {device}{table}")))
        }
        _ => return None,
    };
    Some(Fact { undo: place.undo(undo), ..place.fact(Cause::Route, ifindex, Spot::Route, DROP, what) })
}

fn rule_fact(place: &Place<'_>, payload: &[u8]) -> Option<Fact> {
    // struct fib_rule_hdr: as rtmsg, with the action where that has its type
    let (family, kind) = (*payload.first()?, dead_end(*payload.get(7)?)?);
    let find = attributes(payload, 12).find(|(kind, _)| *kind == FRA_PRIORITY).and_then(|(_, value)| int(value));
    let priority = find.unwrap_or_default();
    let ip = if family == AF_INET6 { "ip -6" } else { "ip" };
    let what = format!("{ip} rule {priority}: {kind}");
    let undo = Some(format!("{ip} rule del priority {priority}"));
    Some(Fact { undo: place.undo(undo), ..place.fact(Cause::Route, None, Spot::Route, DROP, what) })
}

/// Strict reverse path filtering. The greater of the device's setting and that of all devices counts; 2 is loose.
fn reverse_path(place: &Place<'_>, link: &Link) -> Option<Fact> {
    // What a bridge's port receives is never routed there.
    if link.master.is_some() || link.kind == Kind::Loopback {
        return None;
    }
    let all = number("/proc/sys/net/ipv4/conf/all/rp_filter").unwrap_or_default();
    if all.max(setting(link, "rp_filter")?) != 1 {
        return None;
    }
    let what =
        format!("strict rp_filter on {}: drops packets whose answer would leave by another device", link.display());
    let undo = sysctl_of(link, "rp_filter").map(|name| format!("sysctl -w {name}=2"));
    let fact = place.fact(Cause::Route, Some(link.key.ifindex), Spot::Route, DROP, what);
    Some(Fact { undo: place.undo(undo), ..fact })
}

/// A setting of IPv4 for a device, in the namespace that the thread is in.
pub(super) fn setting(link: &Link, name: &str) -> Option<u32> {
    let device = Path::new("/proc/sys/net/ipv4/conf").join(std::ffi::OsStr::from_bytes(&link.name));
    number(device.join(name))
}

/// The setting for all devices.
pub(super) fn setting_of_all(name: &str) -> Option<u32> {
    number(format!("/proc/sys/net/ipv4/conf/all/{name}"))
}

fn number(path: impl AsRef<Path>) -> Option<u32> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// A setting's name as sysctl takes it. A device may have dots in its name; then slashes stand between.
pub(super) fn sysctl_of(link: &Link, name: &str) -> Option<String> {
    let device = super::shell::word(&link.name).filter(|word| !word.starts_with('\''))?;
    let separator = if device.contains('.') { "/" } else { "." };
    Some(["net", "ipv4", "conf", &device, name].join(separator))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::survey::read::testkit::{PORT, attribute, link, with_place};

    fn message(kind: u8, length: u8, protocol: u8, attributes: &[Vec<u8>]) -> Vec<u8> {
        let mut payload = vec![AF_INET, length, 0, 0, 254, protocol, 0, kind, 0, 0, 0, 0];
        payload.extend(attributes.concat());
        payload
    }

    #[test]
    fn a_dead_end_and_a_short_way_are_facts_and_a_usual_route_is_none() {
        let to = attribute(RTA_DST, &[10, 99, 0, 0]);
        let via = attribute(RTA_GATEWAY, &[78, 78, 0, 10]);
        let oif = attribute(RTA_OIF, &PORT.to_ne_bytes());
        let hops = |n: u32| attribute(RTA_METRICS | 0x8000, &attribute(RTAX_HOPLIMIT, &n.to_ne_bytes()));
        with_place("veth0", |place| {
            let told = |payload: Vec<u8>| {
                let fact = fact(place, &parse(&payload).unwrap())?;
                Some((fact.what, fact.undo.unwrap()))
            };
            let (what, undo) = told(message(6, 24, 3, std::slice::from_ref(&to))).unwrap();
            assert_eq!(what, "route blackhole 10.99.0.0/24");
            assert_eq!(undo, "ip netns exec blue ip route del blackhole 10.99.0.0/24");
            let short = message(RTN_UNICAST, 24, 3, &[to.clone(), via.clone(), oif.clone(), hops(1)]);
            let (what, undo) = told(short).unwrap();
            let route = "10.99.0.0/24 via 78.78.0.10 dev veth0";
            assert_eq!(what, format!("route {route} hoplimit 1: packets end after so many routers"));
            assert_eq!(undo, format!("ip netns exec blue ip route change {route}"));
            assert_eq!(told(message(RTN_UNICAST, 24, 3, &[to.clone(), via, oif, hops(64)])), None);
            assert_eq!(told(message(7, 0, 3, &[])).unwrap().0, "route unreachable default");
        });
        assert_eq!(parse(&message(7, 24, RTPROT_KERNEL, &[to])), None);
    }

    #[test]
    fn a_device_with_dots_in_its_name_has_a_setting_all_the_same() {
        assert_eq!(sysctl_of(&link("a.b", 1), "rp_filter").as_deref(), Some("net/ipv4/conf/a.b/rp_filter"));
        assert_eq!(sysctl_of(&link("a", 1), "rp_filter").as_deref(), Some("net.ipv4.conf.a.rp_filter"));
        assert_eq!(sysctl_of(&link("a;b", 1), "rp_filter"), None);
    }
}
