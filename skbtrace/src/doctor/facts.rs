//! What was observed of a machine. Texts in it are safe to print.

use super::Config;
use crate::host::Privileges;
use crate::verdict::Cause;

/// All that was observed. What could not be is `None`, or an error in words.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The kernel's release, as `uname -r` has it.
    pub release: String,
    /// The processor's architecture, as `uname -m` has it.
    pub machine: String,
    /// What this process may do.
    pub privileges: Privileges,
    /// Whether it is root's.
    pub root: bool,
    /// How the kernel was built.
    pub config: Option<Config>,
    /// The kernel's types.
    pub btf: Result<(), String>,
    /// The modules that hops live in.
    pub modules: Vec<Module>,
    /// How far the kernel is locked down: `none`, `integrity`, `confidentiality`.
    pub lockdown: Option<String>,
    /// Kprobes for BPF programs.
    pub kprobes: Result<(), String>,
    /// Whether the kernel takes a program for a kprobe; an error is its refusal.
    pub programs: Result<(), String>,
    /// `net.core.bpf_jit_enable`.
    pub jit: Option<u32>,
    /// Where tracefs is mounted.
    pub tracefs: Option<&'static str>,
    /// The kernel's symbols, with their addresses.
    pub symbols: Result<(), String>,
    /// `kernel.kptr_restrict`.
    pub kptr_restrict: Option<u32>,
    /// The kernel's structures; `None` where types or symbols are missing.
    pub structures: Option<Result<Structures, String>>,
    /// What becomes of the hops of the catalogue; `None` likewise.
    pub hops: Option<Hops>,
    /// `net.bridge.bridge-nf-call-*`, by the last word; `None` where br_netfilter is not loaded.
    pub bridge_netfilter: Option<Vec<(&'static str, bool)>>,
    /// Who else traces.
    pub tracers: Tracers,
    /// Network namespaces and devices.
    pub network: Result<Network, String>,
}

/// A module that hops live in.
#[derive(Clone, Debug)]
pub struct Module {
    /// Its name.
    pub name: &'static str,
    /// Loaded, or built in.
    pub present: bool,
    /// Its types are there.
    pub types: bool,
}

/// What is known of the kernel's structures.
#[derive(Clone, Copy, Debug)]
pub struct Structures {
    /// Where it is known from where pages are; `None`: it is not.
    pub pages: Option<&'static str>,
    /// Where a veth keeps its peer.
    pub veth_peer: bool,
    /// Where a port of a bridge keeps its device.
    pub bridge_port: bool,
    /// On which path the kernel runs: process, softirq, interrupt.
    pub context: bool,
}

/// What becomes of the hops.
#[derive(Clone, Debug, Default)]
pub struct Hops {
    /// How many there are.
    pub all: usize,
    /// Those that are left out, and why.
    pub left_out: Vec<(&'static str, String)>,
}

/// Who else traces.
#[derive(Clone, Debug, Default)]
pub struct Tracers {
    /// How many kprobes there are; `None` when that cannot be read.
    pub kprobes: Option<usize>,
    /// BPF programs on kprobes, tracepoints and functions; `None` likewise.
    pub programs: Option<usize>,
    /// The tracer of ftrace, if one is on.
    pub ftrace: Option<String>,
}

/// Network namespaces and devices.
#[derive(Clone, Debug, Default)]
pub struct Network {
    /// How many namespaces were found.
    pub netns: usize,
    /// How many devices.
    pub devices: usize,
    /// The segment that was asked for, in a line, or why there is none.
    pub segment: Option<Result<String, String>>,
    /// What could not be looked into.
    pub unseen: Vec<String>,
    /// The MTUs at the ends of each veth pair, both ends of which are seen.
    pub pairs: Vec<(u32, u32)>,
    /// What stands in the way of packets.
    pub things: Vec<Thing>,
}

/// Something that stands in the way of packets.
#[derive(Clone, Debug)]
pub struct Thing {
    /// What kind of thing it is.
    pub cause: Cause,
    /// Its device, or its namespace.
    pub place: String,
    /// What it is.
    pub what: String,
    /// Whether it can drop packets.
    pub drops: bool,
    /// It is a device that is down.
    pub down: bool,
    /// The command that takes it away.
    pub undo: Option<String>,
}
