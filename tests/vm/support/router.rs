//! The lab's server as a router: a namespace behind it, so that packets are forwarded, or refused on the way.

use super::{
    lab::{CLIENT, SERVER, within},
    machine::{sh, sysctl},
};

/// The namespace behind the router, and its address there.
pub const FAR: (&str, &str) = ("skbtrace-far", "10.9.0.2");
/// The router's device towards it. The other end is `far`.
pub const OUT: &str = "out";
/// An address to which the router has no route, and the client has one through the router.
pub const NOWHERE: &str = "10.99.0.1";
/// A second address of the client, which to the router is one of [`FAR`]'s network.
pub const SPOOFED: &str = "10.9.0.77";

/// A router that is up. It needs the lab's bridge, and goes before it.
pub struct Router;

impl Router {
    /// Makes a router of the lab's server. It answers every packet that it refuses.
    pub fn up() -> Router {
        let router = Router;
        sh(&format!("ip netns add {}", FAR.0));
        within(FAR.0, || sysctl("net/ipv6/conf/all/disable_ipv6", "1"));
        sh(&format!(
            "set -e
            ip -n {server} link add {OUT} address 02:73:6b:62:74:21 type veth peer name far netns {far} \
                address 02:73:6b:62:74:22
            ip -n {server} address add 10.9.0.1/24 dev {OUT}
            ip -n {far} address add {address}/24 dev far
            ip -n {server} link set {OUT} up
            ip -n {far} link set far up
            ip -n {far} route add default via 10.9.0.1
            ip -n {server} neighbour replace {address} lladdr 02:73:6b:62:74:22 dev {OUT} nud permanent
            ip -n {far} neighbour replace 10.9.0.1 lladdr 02:73:6b:62:74:21 dev far nud permanent
            ip -n {server} route delete default
            ip -n {client} route add 10.9.0.0/24 via {via}
            ip -n {client} route add {NOWHERE} via {via}
            ip -n {client} address add {SPOOFED}/32 dev calmveth2",
            server = SERVER.0,
            client = CLIENT.0,
            via = SERVER.1,
            far = FAR.0,
            address = FAR.1,
        ));
        within(SERVER.0, || {
            sysctl("net/ipv4/ip_forward", "1");
            sysctl("net/ipv4/conf/all/rp_filter", "1");
            sysctl("net/ipv4/icmp_ratelimit", "0");
        });
        router
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        // Where it was not even made there is nothing to remove.
        let removed = std::process::Command::new("ip").args(["netns", "delete", FAR.0]).output();
        if !std::thread::panicking() {
            assert!(removed.unwrap().status.success());
        }
    }
}
