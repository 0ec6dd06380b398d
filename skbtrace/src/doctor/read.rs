//! Observes this machine. Nothing is changed by looking: the one program that is loaded, to see whether the kernel takes
//! it, is attached to nothing and gone at once.

use std::{fs, io::BufRead as _, path::Path};

use aya::{
    programs::{ProgramType, loaded_programs},
    sys::{BpfHelper, is_helper_supported, is_program_supported},
};
use rustix::{process::geteuid, system::uname};
use skbtrace_common::Offsets;

use super::{Config, Facts, Hops, Module, Network, Structures, Thing, Tracers};
use crate::{
    hops::{Backend, CATALOGUE, Fate, Plan},
    host::{
        BtfError, Host, KernelBtf, KernelVersion, Pages, Privileges, Release, SymbolError, Symbols, kprobes_offered,
        offsets,
    },
    name::printable,
    survey::Survey,
    topology::{Topology, TopologyError},
};

/// Which interface's segment to look at.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// Its name.
    pub iface: &'a str,
    /// The namespace to look for it in.
    pub netns: Option<&'a str>,
}

impl Facts {
    /// Looks at this machine; of its devices, at those of the target's segment, or at all. Some tenths of a second, and
    /// more where there are hundreds of namespaces.
    #[must_use]
    pub fn read(target: Option<Target<'_>>) -> Facts {
        let name = uname();
        let release = name.release().to_string_lossy().into_owned();
        let privileges = Privileges::read(KernelVersion::parse(&release));
        let btf = KernelBtf::open();
        let symbols = Symbols::read();
        let modules = modules(btf.as_ref().ok());
        let btf_state = btf.as_ref().map(drop).map_err(|error| match error {
            BtfError::Missing(error) => format!("/sys/kernel/btf/vmlinux: {error}"),
            damaged => damaged.to_string(),
        });
        let symbol_state = symbols.as_ref().map(drop).map_err(|error| match error {
            SymbolError::Hidden => "the addresses of the kernel's functions are hidden".to_owned(),
            unreadable => unreadable.to_string(),
        });
        let host = match (btf, symbols) {
            (Ok(btf), Ok(symbols)) => Some(Host { release: Release(release.clone()), privileges, btf, symbols }),
            _ => None,
        };
        let kprobes = kprobes_offered(&privileges).map_err(str::to_owned).and_then(|()| switched_on());
        let backend = if kprobes.is_ok() { Backend::Kprobe } else { Backend::Tracepoint };
        Facts {
            config: Config::read(&release),
            machine: name.machine().to_string_lossy().into_owned(),
            privileges,
            root: geteuid().is_root(),
            btf: btf_state,
            modules,
            lockdown: lockdown(),
            kprobes,
            programs: programs(backend),
            jit: number("/proc/sys/net/core/bpf_jit_enable"),
            tracefs: TRACEFS.into_iter().find(|path| Path::new(path).join("trace").exists()),
            symbols: symbol_state,
            kptr_restrict: number("/proc/sys/kernel/kptr_restrict"),
            structures: host.as_ref().map(structures),
            hops: host.as_ref().map(|host| hops(host, backend)),
            bridge_netfilter: bridge_netfilter(),
            tracers: tracers(),
            network: network(target).map_err(|error| error.to_string()),
            release,
        }
    }
}

const TRACEFS: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

fn number(path: &str) -> Option<u32> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// The modules that hops live in, and whether they, or the kernel in their place, have types.
fn modules(btf: Option<&KernelBtf>) -> Vec<Module> {
    let mut names: Vec<&'static str> = CATALOGUE.iter().filter_map(|hop| hop.module).collect();
    names.sort_unstable();
    names.dedup();
    let of = |name: &'static str| {
        let known = |hop: &crate::hops::Hop| {
            hop.module == Some(name) && btf.is_some_and(|btf| btf.function(hop.name(), Some(name)).is_some())
        };
        let types = CATALOGUE.iter().any(known);
        // Something built in has a folder there only where it has parameters, and its types are the kernel's.
        let present = types || Path::new("/sys/module").join(name).exists();
        Module { name, present, types }
    };
    names.into_iter().map(of).collect()
}

/// The word in brackets of `none [integrity] confidentiality`.
fn lockdown() -> Option<String> {
    let text = fs::read_to_string("/sys/kernel/security/lockdown").ok()?;
    let (_, rest) = text.split_once('[')?;
    Some(rest.split_once(']')?.0.to_owned())
}

/// All kprobes can be switched off at once (`echo 0 > /sys/kernel/debug/kprobes/enabled`).
fn switched_on() -> Result<(), String> {
    match number("/sys/kernel/debug/kprobes/enabled") {
        Some(0) => Err("they are switched off in /sys/kernel/debug/kprobes/enabled".to_owned()),
        _ => Ok(()),
    }
}

/// Whether a program of the kind that hops are can be loaded, and read the kernel's memory.
fn programs(backend: Backend) -> Result<(), String> {
    let (kind, name) = match backend {
        Backend::Kprobe => (ProgramType::KProbe, "kprobes"),
        Backend::Tracepoint => (ProgramType::RawTracePoint, "raw tracepoints"),
    };
    let refusal = |error: &dyn std::error::Error| {
        let mut innermost = error;
        while let Some(source) = innermost.source() {
            innermost = source;
        }
        format!("the kernel refuses a BPF program: {innermost}")
    };
    match is_program_supported(kind) {
        Ok(true) => {}
        Ok(false) => return Err(format!("the kernel takes no BPF programs for {name}")),
        Err(error) => return Err(refusal(&error)),
    }
    match is_helper_supported(kind, BpfHelper::BPF_FUNC_probe_read_kernel) {
        Ok(true) => Ok(()),
        Ok(false) => Err("the kernel lets no BPF program read its memory: it is locked down".to_owned()),
        Err(error) => Err(refusal(&error)),
    }
}

fn structures(host: &Host) -> Result<Structures, String> {
    let offsets = offsets(host).map_err(|error| error.to_string())?;
    Ok(Structures {
        pages: Pages::of(host).source,
        veth_peer: offsets.veth_peer != Offsets::ABSENT,
        bridge_port: offsets.port_dev != Offsets::ABSENT,
        context: offsets.per_cpu_offset != 0,
    })
}

fn hops(host: &Host, backend: Backend) -> Hops {
    let plan = Plan::for_host(host, backend);
    let left_out = plan.rows.iter().filter_map(|row| match &row.fate {
        Fate::LeftOut(reason) => Some((row.hop.name(), reason.clone())),
        Fate::Attach(_) => None,
    });
    Hops { all: plan.rows.len(), left_out: left_out.collect() }
}

fn bridge_netfilter() -> Option<Vec<(&'static str, bool)>> {
    let of = |name: &'static str| Some((name, number(&format!("/proc/sys/net/bridge/bridge-nf-call-{name}"))? != 0));
    let found: Vec<_> = ["iptables", "ip6tables", "arptables"].into_iter().filter_map(of).collect();
    (!found.is_empty()).then_some(found)
}

fn tracers() -> Tracers {
    let kprobes = fs::File::open("/sys/kernel/debug/kprobes/list").ok();
    // aya names the kinds by the numbers of enum bpf_prog_type: kprobe, tracepoint, raw tracepoint, tracing.
    const KINDS: [u32; 5] = [2, 5, 17, 24, 26];
    let programs: Result<Vec<_>, _> = loaded_programs().collect();
    let ftrace = TRACEFS.into_iter().find_map(|path| fs::read_to_string(format!("{path}/current_tracer")).ok());
    Tracers {
        kprobes: kprobes.map(|file| std::io::BufReader::new(file).lines().count()),
        programs: programs
            .ok()
            .map(|all| all.iter().filter(|one| KINDS.contains(&(one.program_type() as u32))).count()),
        ftrace: ftrace.map(|name| printable(name.trim().as_bytes())).filter(|name| name != "nop"),
    }
}

fn network(target: Option<Target<'_>>) -> Result<Network, TopologyError> {
    let topology = Topology::read()?;
    let found = target.map(|Target { iface, netns }| topology.find(iface, netns));
    let segment = match &found {
        Some(Ok(link)) => Some(topology.segment(link.key)),
        _ => None,
    };
    let survey = match (&found, &segment) {
        (_, Some(segment)) => Survey::read(&topology, segment),
        (None, None) => Survey::read_all(&topology),
        (Some(_), None) => Survey::default(),
    };
    let inside = |key| segment.as_ref().is_none_or(|segment| segment.members.contains(&key));
    let pairs = topology.links().filter(|link| inside(link.key)).filter_map(|link| {
        let peer = topology.link(link.peer?)?;
        // Each pair once.
        (link.key < peer.key).then_some((link.mtu, peer.mtu))
    });
    let things = survey.facts.iter().map(|fact| Thing {
        cause: fact.cause,
        place: match fact.device() {
            Some(key) => topology.label(key),
            None => format!("network namespace {}", topology.netns_label(fact.netns)),
        },
        what: fact.what.clone(),
        drops: fact.effects.drop,
        down: fact.device().and_then(|key| topology.link(key)).is_some_and(|link| !link.up),
        undo: fact.undo.clone(),
    });
    let mut unseen: Vec<String> = topology.unreadable().iter().map(ToString::to_string).collect();
    unseen.extend(survey.unseen.iter().cloned());
    Ok(Network {
        netns: topology.all_netns().count(),
        devices: topology.links().count(),
        pairs: pairs.collect(),
        things: things.collect(),
        unseen,
        segment: match (found, &segment) {
            (Some(Err(error)), _) => Some(Err(error.to_string())),
            (_, Some(segment)) => Some(Ok(segment.line(&topology))),
            _ => None,
        },
    })
}
