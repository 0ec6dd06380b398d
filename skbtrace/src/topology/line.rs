//! The segment as one line, drawn as it is wired: `ns-calm2/calmveth2 ═ calmveth2_peer ─[calmbr]─ calmveth1_peer ═
//! ns-calm1/calmveth1`. The target's side comes last. `═` joins the two ends of a veth, `─[br]─` two ports of a bridge,
//! `─` a VLAN device and the one that it lies on, `{a, b}` are further ports of a bridge, `?` is an end that was not found.

use std::collections::BTreeSet;

use skbtrace_common::DeviceKey;

use super::{Kind, Link, Segment, Topology};

/// How many ports of one bridge are drawn on the far side.
const PORTS_DRAWN: usize = 3;

/// A piece of the drawing. Chains read from left to right; [`mirrored`] turns one round.
#[derive(Debug, Clone)]
enum Piece {
    Device(DeviceKey),
    Missing,
    /// Between the ends of a veth.
    Wire,
    /// Between a VLAN device and its lower device.
    On,
    Bridge(DeviceKey),
    /// The first few of a bridge's ports, and how many more there are.
    Ports(Vec<Chain>, usize),
}

type Chain = Vec<Piece>;

impl Segment {
    /// The segment in one line, safe to print, without a line break.
    #[must_use]
    pub fn line(&self, topology: &Topology) -> String {
        let mut draw = Drawing { topology, drawn: BTreeSet::new() };
        text(&draw.whole(self.target), topology)
    }
}

/// Draws each device once: a loop of bridges ends where it would begin again.
struct Drawing<'a> {
    topology: &'a Topology,
    drawn: BTreeSet<DeviceKey>,
}

impl<'a> Drawing<'a> {
    fn whole(&mut self, target: DeviceKey) -> Chain {
        let Some(link) = self.topology.link(target) else { return vec![Piece::Device(target)] };
        if is_switch(self.topology, link) {
            return self.around(link);
        }
        self.drawn.insert(target);
        // Left of the target lies its own bridge, if it is a port; then its peer lies to the right.
        match self.master_of(link) {
            Some(bridge) => {
                let mut right = self.beyond(link);
                right.push(Piece::Device(target));
                let mut chain = self.through(bridge);
                chain.extend(mirrored(right));
                chain
            }
            None => {
                let mut chain = self.beyond(link);
                chain.push(Piece::Device(target));
                chain
            }
        }
    }

    /// A bridge in the middle: its last port to the right where it has just two, else all to the left.
    fn around(&mut self, bridge: &Link) -> Chain {
        self.drawn.insert(bridge.key);
        let ports: Vec<&Link> = self.topology.ports(bridge.key).collect();
        self.drawn.extend(ports.iter().map(|port| port.key));
        if let [left, right] = ports.as_slice() {
            let mut chain = self.arm(left);
            chain.push(Piece::Bridge(bridge.key));
            chain.extend(mirrored(self.arm(right)));
            return chain;
        }
        let mut chain = self.group(&ports);
        chain.push(Piece::Bridge(bridge.key));
        chain
    }

    /// `others ─[bridge]─`, to stand left of a port of it that is drawn already.
    fn through(&mut self, bridge: &Link) -> Chain {
        if !self.drawn.insert(bridge.key) {
            return vec![Piece::Bridge(bridge.key)];
        }
        let ports: Vec<&Link> =
            self.topology.ports(bridge.key).filter(|port| !self.drawn.contains(&port.key)).collect();
        self.drawn.extend(ports.iter().map(|port| port.key));
        let mut chain = self.group(&ports);
        chain.push(Piece::Bridge(bridge.key));
        chain
    }

    fn group(&mut self, ports: &[&Link]) -> Chain {
        match ports {
            [] => Vec::new(),
            [only] => self.arm(only),
            several => {
                let arms = several.iter().take(PORTS_DRAWN).map(|port| self.arm(port)).collect();
                vec![Piece::Ports(arms, several.len().saturating_sub(PORTS_DRAWN))]
            }
        }
    }

    /// A port and, left of it, what lies beyond it.
    fn arm(&mut self, port: &Link) -> Chain {
        self.drawn.insert(port.key);
        let mut chain = self.beyond(port);
        chain.push(Piece::Device(port.key));
        chain
    }

    /// What lies beyond a device on the side away from its own bridge: its peer, and that one's bridge; or what it lies on.
    fn beyond(&mut self, link: &Link) -> Chain {
        let (next, joint) = match (link.peer, link.lower) {
            (Some(peer), _) => (peer, Piece::Wire),
            (None, Some(lower)) if link.kind.lies_on_lower() => (lower, Piece::On),
            _ if link.kind == Kind::Veth => return vec![Piece::Missing, Piece::Wire],
            _ => return Vec::new(),
        };
        let Some(next) = self.topology.link(next) else { return vec![Piece::Missing, joint] };
        if !self.drawn.insert(next.key) {
            return Vec::new();
        }
        let mut chain = match self.master_of(next) {
            Some(bridge) => self.through(bridge),
            // A VLAN device may lie on a bridge, or on a veth, which goes on in turn.
            None if is_switch(self.topology, next) => {
                let ports: Vec<&Link> = self.topology.ports(next.key).collect();
                self.drawn.extend(ports.iter().map(|port| port.key));
                let mut chain = self.group(&ports);
                chain.push(Piece::Bridge(next.key));
                return chain;
            }
            None if matches!(joint, Piece::On) => self.beyond(next),
            None => Vec::new(),
        };
        chain.extend([Piece::Device(next.key), joint]);
        chain
    }

    fn master_of(&self, link: &Link) -> Option<&'a Link> {
        self.topology.link(link.master?).filter(|master| master.kind.joins_ports())
    }
}

fn is_switch(topology: &Topology, link: &Link) -> bool {
    link.kind == Kind::Bridge || link.kind.joins_ports() && topology.ports(link.key).next().is_some()
}

fn mirrored(chain: Chain) -> Chain {
    let turn = |piece| match piece {
        Piece::Ports(arms, more) => Piece::Ports(arms.into_iter().map(mirrored).collect(), more),
        other => other,
    };
    chain.into_iter().rev().map(turn).collect()
}

fn text(chain: &[Piece], topology: &Topology) -> String {
    let mut out = String::new();
    for (at, piece) in chain.iter().enumerate() {
        match piece {
            Piece::Device(key) => out += &topology.label(*key),
            Piece::Missing => out.push('?'),
            Piece::Wire => out += " ═ ",
            Piece::On => out += " ─ ",
            Piece::Bridge(key) => {
                // At an end of the line nothing is joined to it on that side.
                let left = if at == 0 { "" } else { " ─" };
                let right = if at + 1 == chain.len() { "" } else { "─ " };
                out += &format!("{left}[{}]{right}", topology.label(*key));
            }
            Piece::Ports(arms, more) => {
                let mut arms: Vec<String> = arms.iter().map(|arm| text(arm, topology)).collect();
                if *more > 0 {
                    arms.push(format!("… {more} more"));
                }
                out += &format!("{{{}}}", arms.join(", "));
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;
    use proptest::prelude::*;

    use crate::topology::tests::{Made, any_topology, seed_bridge, seed_pair};

    #[test]
    fn the_seeds_bridge_from_every_device_of_it() {
        let made = seed_bridge();
        let lines: Vec<String> =
            ["calmveth1", "calmveth2", "calmveth1_peer", "calmveth2_peer", "calmbr"].map(|name| made.line(name)).into();
        assert_snapshot!(lines.join("\n"), @r"
        ns-calm2/calmveth2 ═ calmveth2_peer ─[calmbr]─ calmveth1_peer ═ ns-calm1/calmveth1
        ns-calm1/calmveth1 ═ calmveth1_peer ─[calmbr]─ calmveth2_peer ═ ns-calm2/calmveth2
        ns-calm2/calmveth2 ═ calmveth2_peer ─[calmbr]─ calmveth1_peer ═ ns-calm1/calmveth1
        ns-calm1/calmveth1 ═ calmveth1_peer ─[calmbr]─ calmveth2_peer ═ ns-calm2/calmveth2
        ns-calm1/calmveth1 ═ calmveth1_peer ─[calmbr]─ calmveth2_peer ═ ns-calm2/calmveth2
        ");
    }

    #[test]
    fn the_seeds_pair_from_both_ends() {
        let made = seed_pair();
        assert_snapshot!(made.line("calmveth1"), @"ns-calm2/calmveth2 ═ ns-calm1/calmveth1");
        assert_snapshot!(made.line("calmveth2"), @"ns-calm1/calmveth1 ═ ns-calm2/calmveth2");
    }

    #[test]
    fn many_ports_are_a_short_list_on_the_far_side() {
        let mut made = Made::new();
        let bridge = made.bridge("docker0");
        let mut port = |n: usize| {
            let netns = made.netns(&format!("c{n}"));
            let (_, port) = made.veth((netns, "eth0"), (0, &format!("veth{n}")));
            made.set_master(port, bridge);
        };
        (0..3).for_each(&mut port);
        let three = made.line("c0/eth0");
        (3..8).for_each(|n| {
            let netns = made.netns(&format!("c{n}"));
            let (_, port) = made.veth((netns, "eth0"), (0, &format!("veth{n}")));
            made.set_master(port, bridge);
        });
        assert_snapshot!(three, @"{c1/eth0 ═ veth1, c2/eth0 ═ veth2} ─[docker0]─ veth0 ═ c0/eth0");
        assert_snapshot!(made.line("c0/eth0"), @"{c1/eth0 ═ veth1, c2/eth0 ═ veth2, c3/eth0 ═ veth3, … 4 more} ─[docker0]─ veth0 ═ c0/eth0");
        assert_snapshot!(made.line("docker0"), @"{c0/eth0 ═ veth0, c1/eth0 ═ veth1, c2/eth0 ═ veth2, … 5 more} ─[docker0]");
        assert_snapshot!(made.line("veth7"), @"{c0/eth0 ═ veth0, c1/eth0 ═ veth1, c2/eth0 ═ veth2, … 4 more} ─[docker0]─ veth7 ═ c7/eth0");
    }

    #[test]
    fn plain_devices_bridges_in_a_row_and_vlans() {
        let mut made = Made::new();
        made.nic("eth9");
        let (left, right) = (made.bridge("left"), made.bridge("right"));
        let (a, b) = made.veth((0, "a"), (0, "b"));
        made.set_master(a, left);
        made.set_master(b, right);
        let eth0 = made.nic("eth0");
        made.set_master(eth0, left);
        let inner = made.netns("inner");
        let (_, port) = made.veth((inner, "x"), (0, "xp"));
        made.set_master(port, right);
        made.vlan("x.10", "inner/x");
        made.vlan("right.7", "right");
        let empty = made.bridge("empty");
        let _ = empty;
        let names = ["eth9", "eth0", "a", "b", "inner/x", "inner/x.10", "right.7", "left", "right", "empty"];
        let lines: Vec<String> = names.map(|name| format!("{name:11} {}", made.line(name))).into();
        assert_snapshot!(lines.join("\n"), @r"
        eth9        eth9
        eth0        inner/x ═ xp ─[right]─ b ═ a ─[left]─ eth0
        a           eth0 ─[left]─ a ═ b ─[right]─ xp ═ inner/x
        b           inner/x ═ xp ─[right]─ b ═ a ─[left]─ eth0
        inner/x     eth0 ─[left]─ a ═ b ─[right]─ xp ═ inner/x
        inner/x.10  eth0 ─[left]─ a ═ b ─[right]─ xp ═ inner/x ─ inner/x.10
        right.7     {eth0 ─[left]─ a ═ b, inner/x ═ xp} ─[right]─ right.7
        left        inner/x ═ xp ─[right]─ b ═ a ─[left]─ eth0
        right       eth0 ─[left]─ a ═ b ─[right]─ xp ═ inner/x
        empty       [empty]
        ");
    }

    #[test]
    fn an_end_that_was_not_found_is_a_question_mark() {
        let mut made = Made::new();
        made.lone_veth("v0");
        assert_snapshot!(made.line("v0"), @"? ═ v0");
    }

    #[test]
    fn a_bridge_that_a_veth_joins_to_itself_is_drawn_once_and_ends() {
        let mut made = Made::new();
        let bridge = made.bridge("br0");
        let (a, b) = made.veth((0, "a"), (0, "b"));
        made.set_master(a, bridge);
        made.set_master(b, bridge);
        assert_snapshot!(made.line("a"), @"[br0]─ a ═ b ─[br0]");
        assert_snapshot!(made.line("br0"), @"a ─[br0]─ b");
    }

    #[test]
    fn hostile_names_are_escaped() {
        let mut made = Made::new();
        let netns = made.netns("\x1b[2J");
        made.veth((netns, "a\nb"), (0, "<b>"));
        assert_snapshot!(made.line("<b>"), @r"\x1b[2J/a\x0ab ═ <b>");
    }

    proptest! {
        #[test]
        fn every_line_ends_is_one_line_and_shows_its_target(made in any_topology()) {
            for link in made.topology().links() {
                let line = made.topology().segment(link.key).line(&made.topology());
                prop_assert!(!line.contains('\n'));
                prop_assert!(line.contains(&made.topology().label(link.key)), "{line}");
                prop_assert_eq!(line.trim(), &line);
            }
        }
    }
}
