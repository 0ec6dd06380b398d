//! From the name that a user typed to one link of one namespace; and when there is none, or more than one, what to type
//! instead.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::{Link, Netns, NetnsName, Topology, Unreadable};
use crate::name::printable;

/// How alike two names must be (Jaro-Winkler, 0 to 1) for one to be offered for the other.
const ALIKE: f64 = 0.85;
/// How many names are offered.
const OFFERED: usize = 3;
/// How many names a list in a message shows.
const LISTED: usize = 8;

/// Why a name leads to no link. All texts in it are safe to print.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FindError {
    /// No link has this name.
    #[error("{}", not_found(name, searched, near, unreadable))]
    NotFound {
        /// What was asked for.
        name: String,
        /// The namespaces that were searched.
        searched: Vec<String>,
        /// Links with a similar name, or with this name elsewhere, as `netns/device`.
        near: Vec<String>,
        /// What could not be searched.
        unreadable: Vec<Unreadable>,
    },
    /// Several namespaces have a link of this name.
    #[error(
        "interface {name} exists in {} network namespaces ({}): add --netns NAME to say which",
        netns.len(), listed(netns)
    )]
    Ambiguous {
        /// What was asked for.
        name: String,
        /// Where it was found.
        netns: Vec<String>,
    },
    /// There is no such namespace.
    #[error("{}", no_such_netns(name, known, near))]
    NoSuchNetns {
        /// What was asked for.
        name: String,
        /// The namespaces that there are.
        known: Vec<String>,
        /// Those of them with a similar name.
        near: Vec<String>,
    },
    /// The name holds one namespace, `--netns` says another.
    #[error("interface {name} is in one network namespace and --netns {netns} is another: leave one of the two out")]
    TwoNetns {
        /// What was asked for.
        name: String,
        /// The other namespace.
        netns: String,
    },
}

fn not_found(name: &str, searched: &[String], near: &[String], unreadable: &[Unreadable]) -> String {
    let mut text = match searched {
        [] => format!("cannot tell whether there is an interface {name}"),
        [only] => format!("no interface {name} in network namespace {only}"),
        all => format!("no interface {name} in any of {} network namespaces ({})", all.len(), listed(all)),
    };
    if let Some(what) = by_reason(unreadable) {
        text += &format!("; not searched: {what}");
    }
    text + &did_you_mean(near)
}

/// What could not be searched, and in brackets why; mostly there is one reason for all of it.
fn by_reason(unreadable: &[Unreadable]) -> Option<String> {
    let mut reasons: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for one in unreadable {
        reasons.entry(&one.reason).or_default().push(one.what.clone());
    }
    let reasons: Vec<String> =
        reasons.into_iter().map(|(reason, what)| format!("{} ({reason})", listed(&what))).collect();
    (!reasons.is_empty()).then(|| reasons.join(", "))
}

fn no_such_netns(name: &str, known: &[String], near: &[String]) -> String {
    let known = format!("there are {} ({})", known.len(), listed(known));
    format!("no network namespace {name}: {known}{}", did_you_mean(near))
}

fn did_you_mean(near: &[String]) -> String {
    match near {
        [] => String::new(),
        [rest @ .., last] if !rest.is_empty() => format!("; did you mean {} or {last}?", rest.join(", ")),
        [last, ..] => format!("; did you mean {last}?"),
    }
}

/// The names of namespaces, the initial one first and the others sorted: their inodes, by which they are kept, come in any order.
fn by_name(names: impl Iterator<Item = String>) -> Vec<String> {
    let mut names: Vec<String> = names.collect::<BTreeSet<_>>().into_iter().collect();
    names.sort_by_key(|name| *name != NetnsName::Init.to_string());
    names
}

/// The first few of a list and how many more there are.
fn listed(names: &[String]) -> String {
    match names.get(..LISTED) {
        Some(first) if names.len() > LISTED => format!("{} and {} more", first.join(", "), names.len() - LISTED),
        _ => names.join(", "),
    }
}

impl Topology {
    /// What could not be searched, and why, in a line; safe to print.
    #[must_use]
    pub fn not_searched(&self) -> Option<String> {
        by_reason(&self.unreadable)
    }

    /// The link called `name`, in every namespace or in the one that `netns` gives.
    ///
    /// `name` may hold the namespace: `ns-calm1/calmveth1`. It may be one of the link's alternative names. A name with
    /// bytes that cannot be typed is found by what [`Link::display`] makes of it. A namespace is given as its name,
    /// `init`, `pid:1234`, the path of its file, or its inode number.
    ///
    /// # Errors
    ///
    /// A [`FindError`] whose text says where it looked and what to type instead.
    pub fn find(&self, name: &str, netns: Option<&str>) -> Result<&Link, FindError> {
        let within = netns.map(|spec| self.find_netns(spec)).transpose()?;
        let (within, device) = match name.rsplit_once('/') {
            // An alternative name may hold a slash.
            _ if !self.named(name, within).is_empty() => (within, name),
            Some((prefix, device)) => {
                let prefix = self.find_netns(prefix)?;
                if let Some(within) = within.filter(|within| within.inum != prefix.inum) {
                    let netns = within.name.to_string();
                    return Err(FindError::TwoNetns { name: printable(name.as_bytes()), netns });
                }
                (Some(prefix), device)
            }
            None => (within, name),
        };
        match self.named(device, within).as_slice() {
            [link] => Ok(link),
            [] => Err(self.not_found(device, within)),
            several => {
                let netns = by_name(several.iter().map(|link| self.netns_label(link.key.netns)));
                Err(FindError::Ambiguous { name: printable(device.as_bytes()), netns })
            }
        }
    }

    /// The namespace that `spec` means: its name, `init`, `pid:1234`, the path of its file, or its inode number.
    ///
    /// # Errors
    ///
    /// [`FindError::NoSuchNetns`].
    pub fn find_netns(&self, spec: &str) -> Result<&Netns, FindError> {
        let named = |netns: &&Netns| match &netns.name {
            NetnsName::Named(name) => name == spec.as_bytes() || printable(name) == spec,
            _ => false,
        };
        let also = |netns: &&Netns| {
            // A namespace with several names, or whose path was given.
            netns.paths.iter().any(|path| {
                path == Path::new(spec)
                    || path.parent() == Some(Path::new(super::netns::NAMED_DIR))
                        && path.file_name().is_some_and(|name| name.as_bytes() == spec.as_bytes())
            })
        };
        let by_pid = || spec.strip_prefix("pid:")?.parse().ok().and_then(|pid| self.processes.get(&pid));
        let by_path = || fs::metadata(spec).ok().filter(|_| spec.starts_with('/')).map(|file| (file.dev(), file.ino()));
        self.netns
            .values()
            .find(|netns| netns.name.to_string() == spec)
            .or_else(|| by_pid().and_then(|inum| self.netns.get(inum)))
            .or_else(|| self.netns.values().find(named))
            .or_else(|| self.netns.values().find(also))
            .or_else(|| spec.parse().ok().and_then(|inum| self.netns.get(&inum)))
            .or_else(|| {
                let file = by_path()?;
                self.netns.values().find(|netns| (netns.dev, u64::from(netns.inum)) == file)
            })
            .ok_or_else(|| {
                let known = by_name(self.netns.values().map(|netns| netns.name.to_string()));
                let near = nearest(spec, known.iter().map(|name| (name.clone(), name.clone())));
                FindError::NoSuchNetns { name: printable(spec.as_bytes()), known, near }
            })
    }

    /// The links of this name; of those that only look like it when escaped, where none has it.
    fn named(&self, name: &str, within: Option<&Netns>) -> Vec<&Link> {
        let inside = |link: &&Link| within.is_none_or(|netns| netns.inum == link.key.netns);
        let links: Vec<&Link> = self.links.values().filter(inside).collect();
        let called = |is: &dyn Fn(&[u8]) -> bool| {
            let any = |link: &&Link| is(&link.name) || link.alt_names.iter().any(|name| is(name));
            links.iter().copied().filter(any).collect::<Vec<&Link>>()
        };
        let found = called(&|own| own == name.as_bytes());
        if found.is_empty() { called(&|own| printable(own) == name) } else { found }
    }

    fn not_found(&self, device: &str, within: Option<&Netns>) -> FindError {
        let unreadable = self.unreadable.iter();
        let unreadable: Vec<Unreadable> = match within {
            Some(within) => unreadable.filter(|one| one.inum == Some(within.inum)).cloned().collect(),
            None => unreadable.cloned().collect(),
        };
        let searched = by_name(
            self.netns
                .values()
                .filter(|netns| within.is_none_or(|within| within.inum == netns.inum))
                .filter(|netns| !unreadable.iter().any(|one| one.inum == Some(netns.inum)))
                .map(|netns| netns.name.to_string()),
        );
        // In another namespace than the one that was asked for, only the very same name is worth offering.
        let alike = self.links.values().filter(|link| {
            within.is_none_or(|within| within.inum == link.key.netns) || link.display() == printable(device.as_bytes())
        });
        let near = nearest(device, alike.map(|link| (link.display(), self.label(link.key))));
        FindError::NotFound { name: printable(device.as_bytes()), searched, near, unreadable }
    }
}

/// The labels of the names most like `wanted`, best first. A name is given with the label to offer for it.
fn nearest(wanted: &str, names: impl Iterator<Item = (String, String)>) -> Vec<String> {
    let wanted = wanted.to_lowercase();
    let mut alike: Vec<(f64, String)> = names
        .map(|(name, label)| (strsim::jaro_winkler(&wanted, &name.to_lowercase()), label))
        .filter(|(score, _)| *score >= ALIKE)
        .collect();
    alike.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    alike.truncate(OFFERED);
    alike.into_iter().map(|(_, label)| label).collect()
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use crate::topology::Unreadable;
    use crate::topology::tests::{Made, seed_bridge};

    fn error(made: &Made, name: &str, netns: Option<&str>) -> String {
        made.topology().find(name, netns).unwrap_err().to_string()
    }

    #[test]
    fn a_name_is_found_in_any_namespace_and_in_the_one_that_is_given() {
        let made = seed_bridge();
        let topology = made.topology();
        let here = [
            ("calmveth1", None),
            ("ns-calm1/calmveth1", None),
            ("ns-calm1/calmveth1", Some("ns-calm1")),
            ("calmveth1", Some("ns-calm1")),
            ("calmveth1", Some("pid:101")),
            ("calmveth1", Some("/run/netns/ns-calm1")),
            ("pid:101/calmveth1", None),
            ("/run/netns/ns-calm1/calmveth1", None),
            ("calmveth1", Some("1")),
        ];
        for (name, netns) in here {
            let link = topology.find(name, netns).unwrap();
            assert_eq!(topology.label(link.key), "ns-calm1/calmveth1", "{name} {netns:?}");
        }
        assert_eq!(topology.label(topology.find("calmbr", Some("init")).unwrap().key), "calmbr");
        assert_eq!(topology.label(topology.find("lo", Some("init")).unwrap().key), "lo");
    }

    #[test]
    fn an_alternative_name_and_one_that_cannot_be_typed_are_found() {
        let mut made = Made::new();
        let nic = made.nic("eth0");
        made.edit(nic, |link| link.alt_names.push(b"enp0/s3".to_vec()));
        let hostile = made.nic("x");
        made.edit(hostile, |link| link.name = b"\xff\x1b".to_vec());
        assert_eq!(made.topology().find("enp0/s3", None).unwrap().key, nic);
        assert_eq!(made.topology().find("\\xff\\x1b", None).unwrap().key, hostile);
    }

    #[test]
    fn no_such_interface_says_where_it_looked_and_what_is_like_it() {
        let made = seed_bridge();
        assert_snapshot!(error(&made, "calmveth3", None), @"no interface calmveth3 in any of 3 network namespaces (init, ns-calm1, ns-calm2); did you mean ns-calm1/calmveth1, ns-calm2/calmveth2 or calmveth1_peer?");
        assert_snapshot!(error(&made, "eth0", None), @"no interface eth0 in any of 3 network namespaces (init, ns-calm1, ns-calm2)");
        assert_snapshot!(error(&made, "calmveth1", Some("ns-calm2")), @"no interface calmveth1 in network namespace ns-calm2; did you mean ns-calm1/calmveth1 or ns-calm2/calmveth2?");
        assert_snapshot!(error(&made, "\x1b[2J", None), @r"no interface \x1b[2J in any of 3 network namespaces (init, ns-calm1, ns-calm2)");
    }

    #[test]
    fn of_other_namespaces_than_the_one_asked_for_only_the_same_name_is_offered() {
        let mut made = Made::new();
        for n in 1..5 {
            let netns = made.netns(&format!("c{n}"));
            made.veth((netns, "eth0"), (0, &format!("veth{n}")));
        }
        assert_snapshot!(error(&made, "eth1", Some("c3")), @"no interface eth1 in network namespace c3; did you mean c3/eth0?");
    }

    #[test]
    fn what_could_not_be_searched_is_said() {
        let mut made = seed_bridge();
        for n in 0..9 {
            made.netns(&format!("extra{n}"));
        }
        made.unreadable(Unreadable {
            inum: Some(2),
            what: "network namespace ns-calm2".into(),
            reason: "Operation not permitted".into(),
        });
        made.unreadable(Unreadable {
            inum: None,
            what: "the network namespaces of 12 processes".into(),
            reason: "Operation not permitted".into(),
        });
        assert_snapshot!(error(&made, "eth0", None), @"no interface eth0 in any of 11 network namespaces (init, extra0, extra1, extra2, extra3, extra4, extra5, extra6 and 3 more); not searched: network namespace ns-calm2, the network namespaces of 12 processes (Operation not permitted)");
        assert_snapshot!(error(&made, "eth0", Some("ns-calm2")), @"cannot tell whether there is an interface eth0; not searched: network namespace ns-calm2 (Operation not permitted)");
    }

    #[test]
    fn a_name_in_several_namespaces_has_to_be_told_apart() {
        let made = seed_bridge();
        assert_snapshot!(error(&made, "lo", None), @"interface lo exists in 3 network namespaces (init, ns-calm1, ns-calm2): add --netns NAME to say which");
    }

    #[test]
    fn no_such_namespace_lists_those_that_there_are() {
        let made = seed_bridge();
        assert_snapshot!(error(&made, "calmveth1", Some("ns-calm")), @"no network namespace ns-calm: there are 3 (init, ns-calm1, ns-calm2); did you mean ns-calm1 or ns-calm2?");
        assert_snapshot!(error(&made, "nowhere/calmveth1", None), @"no network namespace nowhere: there are 3 (init, ns-calm1, ns-calm2)");
        assert_snapshot!(error(&made, "calmveth1", Some("pid:7")), @"no network namespace pid:7: there are 3 (init, ns-calm1, ns-calm2)");
    }

    #[test]
    fn two_namespaces_for_one_interface_are_refused() {
        let made = seed_bridge();
        assert_snapshot!(error(&made, "ns-calm1/calmveth1", Some("ns-calm2")), @"interface ns-calm1/calmveth1 is in one network namespace and --netns ns-calm2 is another: leave one of the two out");
    }
}
