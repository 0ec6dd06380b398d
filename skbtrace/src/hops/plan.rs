//! The plan: catalogue × host → which hops are attached, and for each one that is not, why.

use skbtrace_common::{HOP_COUNT, HopArgs, NO_ARG, Source, hop_flags};

use super::catalogue::CATALOGUE;
use super::row::{Backend, DeviceAt, Hop, Probe, Role};
use crate::host::{Host, Param};

/// What becomes of a hop on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is attached, with its arguments at these positions.
    Attach(HopArgs),
    /// It is left out, for this reason.
    LeftOut(String),
}

/// A hop and what becomes of it.
#[derive(Clone, Debug)]
pub struct Row {
    /// The hop.
    pub hop: &'static Hop,
    /// What becomes of it.
    pub fate: Fate,
    /// Its arguments, where it is left out only for want of its module: it may come to be attached while the run goes on. By the
    /// catalogue alone, for what is not loaded has no types.
    pub later: Option<HopArgs>,
}

/// What is attached on this host.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What the run traces by.
    pub backend: Backend,
    /// A row per hop of this backend, in the catalogue's order.
    pub rows: Vec<Row>,
}

impl Plan {
    /// Looks up every hop that this backend has on this host.
    #[must_use]
    pub fn for_host(host: &Host, backend: Backend) -> Plan {
        let hops = CATALOGUE.iter().filter(|hop| hop.is_of(backend));
        let later = |hop: &Hop, fate: &Fate| {
            let absent = matches!(fate, Fate::LeftOut(_)) && unloaded(hop, host).is_some();
            absent.then(|| args(hop, None))
        };
        let row = |hop| {
            let fate = fate(hop, host);
            Row { hop, later: later(hop, &fate), fate }
        };
        Plan { backend, rows: hops.map(row).collect() }
    }

    /// What becomes of a hop; `None` when it is not of this backend.
    #[must_use]
    pub fn fate(&self, hop: &Hop) -> Option<&Fate> {
        self.rows.iter().find(|row| row.hop.id == hop.id).map(|row| &row.fate)
    }

    /// The hops to attach.
    pub fn attached(&self) -> impl Iterator<Item = &'static Hop> + '_ {
        self.rows.iter().filter(|row| matches!(row.fate, Fate::Attach(_))).map(|row| row.hop)
    }

    /// The hops that wait for their module.
    pub fn awaited(&self) -> impl Iterator<Item = &'static Hop> + '_ {
        self.rows.iter().filter(|row| row.later.is_some()).map(|row| row.hop)
    }

    /// Leaves a hop out after all.
    pub fn leave_out(&mut self, hop: &Hop, reason: String) {
        for row in self.rows.iter_mut().filter(|row| row.hop.id == hop.id) {
            row.fate = Fate::LeftOut(reason.clone());
        }
    }

    /// What the kernel side is told: of the hops that are attached, and of those that may be later.
    #[must_use]
    pub fn args(&self) -> [HopArgs; HOP_COUNT] {
        let mut all = [HopArgs::UNUSED; HOP_COUNT];
        for row in &self.rows {
            let now = if let Fate::Attach(args) = row.fate { Some(args) } else { None };
            if let Some(args) = now.or(row.later) {
                all[row.hop.id as usize] = args;
            }
        }
        all
    }

    /// One line: how many hops are traced, by what, on which kernel, and why the others are not.
    #[must_use]
    pub fn line(&self, release: &str) -> String {
        let attached = self.attached().count();
        let by = match self.backend {
            Backend::Kprobe => "kprobe",
            Backend::Tracepoint => "raw tracepoint",
        };
        let mut line = format!("{attached} of {} hops traced by {by} on {release}", self.rows.len());
        let mut left_out = self.rows.iter().filter_map(|row| match &row.fate {
            Fate::LeftOut(reason) => Some(format!("{}: {reason}", row.hop.name())),
            Fate::Attach(_) => None,
        });
        if let Some(first) = left_out.next() {
            line.push_str(" (");
            line.push_str(&first);
            for next in left_out {
                line.push_str("; ");
                line.push_str(&next);
            }
            line.push(')');
        }
        line
    }
}

fn fate(hop: &'static Hop, host: &Host) -> Fate {
    match hop.probe {
        Probe::Tracepoint => match host.btf.tracepoint(hop.name()) {
            Some(params) => Fate::Attach(args(hop, Some(&params))),
            None => Fate::LeftOut("no such tracepoint in this kernel".to_owned()),
        },
        Probe::Function if host.symbols.has(hop.name()) => {
            Fate::Attach(args(hop, host.btf.function(hop.name(), hop.module).as_deref()))
        }
        Probe::Function => Fate::LeftOut(absence(hop, host)),
    }
}

/// Why a function is not there.
fn absence(hop: &Hop, host: &Host) -> String {
    if let Some(variant) = host.symbols.variant(hop.name()) {
        return format!("compiled as {variant}, whose arguments may have moved");
    }
    match unloaded(hop, host) {
        Some(module) => format!("module {module} is not loaded"),
        None => "not in this kernel".to_owned(),
    }
}

/// The module that this hop waits for: its function is not there, nor anything like it, and the module neither.
fn unloaded(hop: &Hop, host: &Host) -> Option<&'static str> {
    let module = hop.module.filter(|_| !host.symbols.has(hop.name()) && host.symbols.variant(hop.name()).is_none())?;
    (!std::path::Path::new("/sys/module").join(module).exists()).then_some(module)
}

/// Positions of the arguments: by the types of the parameters where BTF has them, else as the catalogue says.
fn args(hop: &Hop, params: Option<&[Param]>) -> HopArgs {
    let nth = |wanted: Param, n: usize| {
        let mut positions = params?.iter().enumerate().filter(|(_, param)| **param == wanted);
        u8::try_from(positions.nth(n)?.0).ok()
    };
    let find = |wanted: Param| nth(wanted, 0);
    let skb = if hop.skb.indirect { Param::SkbIndirect } else { Param::Skb };
    let (dev_from, dev) = source(hop.device, &find);
    let (dev2_from, dev2) = source(hop.second, &find);
    let mut flags = hop.flags;
    if hop.skb.indirect {
        flags |= hop_flags::INDIRECT;
    }
    match hop.role {
        Role::Send => flags |= hop_flags::ORIGIN | hop_flags::SENT,
        Role::End => flags |= hop_flags::END,
        Role::Copy | Role::Work | Role::Split | Role::Merge => flags |= hop_flags::TRACKED_ONLY,
        _ => {}
    }
    if hop.looks_at_payload() {
        flags |= hop_flags::PAYLOAD;
    }
    let tracepoint = hop.probe == Probe::Tracepoint;
    let at = |position: Option<u8>| position.unwrap_or(NO_ARG);
    let args = HopArgs {
        // Of two packets, the first takes the second's bytes.
        skb: nth(skb, usize::from(hop.other.is_some())).unwrap_or(hop.skb.arg),
        dev_from,
        dev,
        dev2_from,
        dev2,
        sock: hop.sock.map_or(NO_ARG, |position| find(Param::Sock).unwrap_or(position)),
        // Only a kernel whose tracepoint has a reason has one to read; likewise the address of the caller.
        reason: if tracepoint { at(find(Param::Reason)) } else { NO_ARG },
        location: if tracepoint { at(find(Param::Address)) } else { NO_ARG },
        other: hop.other.map_or(NO_ARG, |position| find(Param::Skb).unwrap_or(position)),
        state: hop.state.map_or(NO_ARG, |position| find(Param::HookState).unwrap_or(position)),
        copied_from: at(hop.copied.map(|(from, _)| from)),
        copied: at(hop.copied.map(|(_, len)| len)),
        ack: at(hop.ack),
        count: 0,
        flags,
    };
    HopArgs { count: count(&args), ..args }
}

/// How many arguments it takes to have all that these are about.
fn count(args: &HopArgs) -> u8 {
    let HopArgs { skb, dev, dev2, sock, reason, location, other, state, copied_from, copied, ack, .. } = *args;
    let positions = [skb, dev, dev2, sock, reason, location, other, state, copied_from, copied, ack];
    positions.into_iter().filter(|position| *position != NO_ARG).max().map_or(0, |last| last + 1)
}

fn source(device: DeviceAt, find: &impl Fn(Param) -> Option<u8>) -> (u8, u8) {
    match device {
        DeviceAt::None => (Source::NONE, NO_ARG),
        DeviceAt::Skb => (Source::SKB, NO_ARG),
        DeviceAt::Arg(position) => (Source::ARG, find(Param::Device).unwrap_or(position)),
        DeviceAt::Route => (Source::DST, NO_ARG),
        DeviceAt::Port(position) => (Source::PORT, find(Param::BridgePort).unwrap_or(position)),
        DeviceAt::Peer => (Source::PEER, NO_ARG),
        DeviceAt::Socket(position) => (Source::SOCK, find(Param::Sock).unwrap_or(position)),
        DeviceAt::Hook(position) => (Source::HOOK, find(Param::HookState).unwrap_or(position)),
    }
}

#[cfg(test)]
mod tests {
    use super::{Fate, Plan, Row, args};
    use crate::{
        hops::{Backend, Hop, hop},
        host::Param,
    };
    use skbtrace_common::{HopArgs, HopId, NO_ARG, Source, hop_flags};

    fn row(id: HopId) -> &'static Hop {
        hop(id)
    }

    #[test]
    fn a_hop_that_waits_for_its_module_is_not_attached_and_its_arguments_are_told() {
        let of = |id, fate, later| Row { hop: row(id), fate, later };
        let absent = || Fate::LeftOut("module bridge is not loaded".to_owned());
        let (known, later) = (args(row(HopId::IpRcv), None), args(row(HopId::BrForward), None));
        let plan = Plan {
            backend: Backend::Kprobe,
            rows: vec![
                of(HopId::IpRcv, Fate::Attach(known), None),
                of(HopId::BrForward, absent(), Some(later)),
                of(HopId::BrFlood, absent(), None),
            ],
        };
        let ids = |hops: &mut dyn Iterator<Item = &'static Hop>| hops.map(|hop| hop.id).collect::<Vec<_>>();
        assert_eq!(ids(&mut plan.attached()), [HopId::IpRcv]);
        assert_eq!(ids(&mut plan.awaited()), [HopId::BrForward]);
        let told = plan.args();
        let of = |id: HopId| told[id as usize];
        assert_eq!([of(HopId::IpRcv), of(HopId::BrForward)], [known, later]);
        assert_eq!(of(HopId::BrFlood), HopArgs::UNUSED);
    }

    #[test]
    fn positions_come_from_the_types_of_the_parameters() {
        // Had somebody put a parameter in front, the catalogue's own positions would be wrong.
        let params = [Param::Other, Param::BridgePort, Param::Skb];
        let moved = args(row(HopId::BrForward), Some(&params));
        assert_eq!((moved.skb, moved.dev_from, moved.dev2_from, moved.dev2), (2, Source::SKB, Source::PORT, 1));
    }

    #[test]
    fn of_two_packets_the_second_is_the_one_that_ends() {
        let params = [Param::Sock, Param::Skb, Param::Skb];
        let coalesce = args(row(HopId::TcpTryCoalesce), Some(&params));
        assert_eq!((coalesce.other, coalesce.skb, coalesce.sock), (1, 2, 0));
        let without = args(row(HopId::TcpTryCoalesce), None);
        assert_eq!((without.other, without.skb, without.sock), (1, 2, 0));
    }

    #[test]
    fn without_types_the_catalogue_is_believed() {
        let veth = args(row(HopId::VethXmit), None);
        assert_eq!((veth.skb, veth.dev_from, veth.dev, veth.dev2_from), (0, Source::ARG, 1, Source::PEER));
        assert_eq!(args(row(HopId::BrHandleFrame), None).flags, hop_flags::INDIRECT | hop_flags::PAYLOAD);
    }

    #[test]
    fn reason_and_location_are_read_only_where_the_tracepoint_has_them() {
        let old = args(row(HopId::KfreeSkb), Some(&[Param::Skb, Param::Address]));
        assert_eq!((old.reason, old.location, old.flags), (NO_ARG, 1, hop_flags::END));
        let new = args(row(HopId::KfreeSkb), Some(&[Param::Skb, Param::Address, Param::Reason, Param::Sock]));
        assert_eq!((new.reason, new.location), (2, 1));
        let release = args(row(HopId::SkbReleaseHeadState), Some(&[Param::Skb]));
        assert_eq!(release, HopArgs { skb: 0, count: 1, flags: hop_flags::END, ..HopArgs::UNUSED });
    }
}
