//! Reads what can do something to packets of a segment off this host, a file per kind of thing.
//!
//! Netlink is asked wherever it knows; only the rules of netfilter are left to their own commands, because no library that
//! is kept up reads them. Nothing is changed by looking, and no module is loaded: what is not loaded does nothing to packets.
//! A namespace that is gone meanwhile is left out; whatever else cannot be read becomes a sentence in `unseen`.
//!
//! Facts of devices are read for the segment's own devices and their loopbacks, those of whole namespaces for every
//! namespace that they are in.

mod action;
mod address;
mod bpf;
mod bridge;
mod chains;
mod command;
mod device;
mod fdb;
mod few;
mod iptables;
mod link;
mod module;
mod neighbour;
mod nftables;
mod offload;
mod place;
mod qdisc;
mod ring;
mod route;
mod shell;
mod socket;
mod tc;

use std::{collections::BTreeSet, io, os::fd::AsFd as _};

use self::{bpf::Programs, place::Place, route::Routes, socket::Owners};
use super::{Effects, Fact, Survey};
use crate::topology::{
    Segment, Topology,
    netlink::RouteSocket,
    read::{enter, on_own_thread, open},
};

const NOTHING: Effects =
    Effects { garble: false, drop: false, delay: false, duplicate: false, reorder: false, rewrite: false };
const GARBLE: Effects = Effects { garble: true, ..NOTHING };
const DROP: Effects = Effects { drop: true, ..NOTHING };
const DELAY: Effects = Effects { delay: true, ..NOTHING };
const DUPLICATE: Effects = Effects { duplicate: true, ..NOTHING };
const REORDER: Effects = Effects { reorder: true, ..NOTHING };
const REWRITE: Effects = Effects { rewrite: true, ..NOTHING };

impl Survey {
    /// Reads what on this host can do something to packets of the segment, in a few milliseconds per namespace; as root,
    /// else most of it is in [`unseen`](Survey::unseen). Starts a thread of its own, which enters the namespaces.
    ///
    /// Facts come in the order of namespaces and, within one, of the ways that a packet takes: devices first, sockets last.
    #[must_use]
    pub fn read(topology: &Topology, segment: &Segment) -> Self {
        on_own_thread(|| read_here(topology, segment))
            .unwrap_or_else(|error| Survey { facts: Vec::new(), unseen: vec![error.to_string()] })
    }

    /// The same for every segment of the host, one after the other: what is strange within one may be right across two.
    #[must_use]
    pub fn read_all(topology: &Topology) -> Self {
        let (mut seen, mut all) = (BTreeSet::new(), Self::default());
        for link in topology.links() {
            if seen.contains(&link.key) {
                continue;
            }
            let segment = topology.segment(link.key);
            seen.extend(segment.members.iter().copied());
            let survey = Self::read(topology, &segment);
            // Namespaces are those of many segments.
            all.facts.extend(survey.facts.into_iter().filter(|fact| !all.facts.contains(fact)).collect::<Vec<_>>());
            all.unseen.extend(survey.unseen.into_iter().filter(|one| !all.unseen.contains(one)).collect::<Vec<_>>());
        }
        all
    }
}

/// What has been found so far.
#[derive(Default)]
struct Found {
    facts: Vec<Fact>,
    unseen: Vec<String>,
}

impl Found {
    /// Takes what could be read; for what could not, a sentence. What is gone meanwhile is nothing to speak of.
    fn take<T: Default>(&mut self, place: &Place<'_>, what: &str, answer: io::Result<T>) -> T {
        answer.unwrap_or_else(|error| {
            if !is_gone(&error) {
                self.unseen.push(format!("{what} of {}: {error}", place.label()));
            }
            T::default()
        })
    }
}

// A device that was removed between two questions.
const ENODEV: i32 = 19;
const ENXIO: i32 = 6;

fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || matches!(error.raw_os_error(), Some(ENODEV | ENXIO))
}

fn read_here(topology: &Topology, segment: &Segment) -> Survey {
    let mut found = Found::default();
    let mut programs = Programs::default();
    let mut routes = Routes::default();
    let mut owners = Owners::default();
    let mut places = Vec::new();
    let netns: BTreeSet<u32> =
        segment.netns().into_iter().chain(segment.loopbacks.iter().map(|key| key.netns)).collect();
    // Our own first: it is where we are, and needs no leave to enter.
    let mut order: Vec<_> = netns.iter().filter_map(|inum| topology.netns(*inum)).collect();
    order.sort_by_key(|netns| !netns.own);
    for netns in order {
        let place = Place::new(topology, segment, netns);
        let entered = if netns.own { Ok(()) } else { open(netns).and_then(|file| enter(file.as_fd())) };
        match entered.and_then(|()| RouteSocket::open()) {
            Ok(mut socket) => read_netns(&place, &mut socket, (&mut programs, &mut routes, &mut owners), &mut found),
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => found.unseen.push(format!("{}: {error}; run as root to look into it", place.label())),
        }
        places.push(place);
    }
    for place in &places {
        routes.facts(place, &mut found);
        address::facts(place, &mut found);
    }
    found.unseen.extend(programs.unseen());
    found.facts.sort_by_key(|fact| (fact.netns, fact.ifindex.is_none(), fact.ifindex));
    Survey { facts: found.facts, unseen: found.unseen }
}

/// Everything of the namespace that the thread is in.
fn read_netns(
    place: &Place<'_>,
    socket: &mut RouteSocket,
    (programs, routes, owners): (&mut Programs, &mut Routes, &mut Owners),
    found: &mut Found,
) {
    let links = link::read(socket, place);
    let links = found.take(place, "the devices", links);
    device::facts(place, &links, programs, found);
    offload::facts(place, found);
    bridge::facts(place, socket, &links, found);
    fdb::facts(place, socket, &links, found);
    let qdiscs = qdisc::read(socket, place);
    let qdiscs = found.take(place, "the queueing disciplines", qdiscs);
    qdisc::facts(place, &qdiscs, found);
    tc::facts(place, socket, &qdiscs, programs, found);
    tc::tcx(place, found);
    let before = found.facts.len();
    nftables::facts(place, found);
    iptables::facts(place, found);
    let rules = found.facts.get(before..).unwrap_or_default().to_vec();
    bridge::netfilter(place, &links, &rules, found);
    routes.read(place, socket, found);
    neighbour::facts(place, socket, found);
    socket::facts(place, owners, found);
}

impl std::ops::BitOr for Effects {
    type Output = Self;

    /// What either can do.
    fn bitor(self, other: Self) -> Self {
        Self {
            garble: self.garble | other.garble,
            drop: self.drop | other.drop,
            delay: self.delay | other.delay,
            duplicate: self.duplicate | other.duplicate,
            reorder: self.reorder | other.reorder,
            rewrite: self.rewrite | other.rewrite,
        }
    }
}

#[cfg(test)]
mod testkit;
