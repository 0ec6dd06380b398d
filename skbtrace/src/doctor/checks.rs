//! The table of checks: from what was observed to rows. A check is one function; its place in the table is its place in
//! the output: what decides over a run first, then what a run sees, then what stands in the way of packets.

mod hops;
mod network;

use super::{Facts, Row, State};
use crate::host::{ARCHITECTURES, KernelVersion};

/// Every check.
pub(super) const CHECKS: [fn(&Facts) -> Vec<Row>; 18] = [
    kernel,
    privileges,
    types,
    module_types,
    lockdown,
    kprobes,
    programs,
    addresses,
    structures,
    configuration,
    jit,
    tracefs,
    hops::hops,
    tracers,
    network::network,
    network::pairs,
    network::bridge_netfilter,
    network::things,
];

/// What a kernel without kprobes is worth: raw tracepoints trace in their place.
const NO_KPROBES: State = State::Note;

fn ok(name: &'static str, found: impl Into<String>) -> Vec<Row> {
    vec![Row { name, state: State::Ok, found: found.into(), fix: None }]
}

fn row(name: &'static str, state: State, found: impl Into<String>, fix: impl Into<String>) -> Row {
    Row { name, state, found: found.into(), fix: Some(fix.into()) }
}

fn kernel(facts: &Facts) -> Vec<Row> {
    let found = format!("Linux {} on {}", facts.release, facts.machine);
    match KernelVersion::parse(&facts.release) {
        Some(version) if version < KernelVersion::OLDEST => {
            vec![row("kernel", State::Broken, found, "use Linux 5.10 or later")]
        }
        _ if !ARCHITECTURES.contains(&facts.machine.as_str()) => {
            let fix = "use an x86-64 or arm64 machine: where functions have their arguments is known for those only";
            vec![row("kernel", State::Broken, found, fix)]
        }
        _ => ok("kernel", found),
    }
}

fn privileges(facts: &Facts) -> Vec<Row> {
    let name = "privileges";
    let missing: Vec<_> = facts.privileges.missing().collect();
    let who = if facts.root { "root" } else { "not root" };
    if missing.is_empty() {
        let found = if facts.root { "root; these would do: " } else { "not root, and with what it takes: " };
        return ok(name, format!("{found}{}", facts.privileges.enough().join(", ")));
    }
    let one = |need: &&crate::host::Need| match need.limit {
        None => {
            let found = format!("{who}, and without {}: it takes that to {}", need.name, need.purpose);
            row(name, State::Broken, found, "run it as root (sudo skbtrace …), or give it the capability")
        }
        Some(limit) => {
            let fix = format!("run it as root, or with {}, to {}", need.name, need.purpose);
            row(name, State::Warning, format!("{who}, and without {}: {limit}", need.name), fix)
        }
    };
    missing.iter().map(one).collect()
}

fn types(facts: &Facts) -> Vec<Row> {
    match &facts.btf {
        Ok(()) => ok("BTF", "the kernel has its types in /sys/kernel/btf/vmlinux"),
        Err(error) => {
            let fix = "use a kernel built with CONFIG_DEBUG_INFO_BTF=y, as most distributions' are since 2021";
            vec![row("BTF", State::Broken, error, fix)]
        }
    }
}

fn module_types(facts: &Facts) -> Vec<Row> {
    let name = "BTF of modules";
    let names = |types: bool| -> Vec<&str> {
        facts.modules.iter().filter(|it| it.present && it.types == types).map(|it| it.name).collect()
    };
    if facts.btf.is_err() {
        return Vec::new();
    }
    match (names(true), names(false)) {
        (known, unknown) if unknown.is_empty() => match known.is_empty() {
            true => ok(name, "none of the modules that hops live in is loaded"),
            false => ok(name, known.join(", ")),
        },
        (_, unknown) => {
            let fix = "use a kernel from 5.11 on with CONFIG_DEBUG_INFO_BTF_MODULES=y, and modules built for it; \
                       until then the catalogue is believed about arguments";
            vec![row(name, State::Note, format!("no types of {}", unknown.join(", ")), fix)]
        }
    }
}

fn lockdown(facts: &Facts) -> Vec<Row> {
    let name = "lockdown";
    match facts.lockdown.as_deref() {
        Some("confidentiality") => {
            let fix = "boot without lockdown=confidentiality: so locked down, no BPF program reads kernel memory";
            vec![row(name, State::Broken, "confidentiality", fix)]
        }
        Some(level) => ok(name, level),
        None => ok(name, "none, or not to be seen in /sys/kernel/security"),
    }
}

fn kprobes(facts: &Facts) -> Vec<Row> {
    match &facts.kprobes {
        Ok(()) => ok("kprobes", "offered to BPF programs"),
        Err(cause) => {
            let found = format!("{cause}: a run traces by raw tracepoints, which see fewer hops");
            let fix = "for all hops: root, on a kernel built with CONFIG_KPROBES and CONFIG_KPROBE_EVENTS";
            vec![row("kprobes", NO_KPROBES, found, fix)]
        }
    }
}

fn programs(facts: &Facts) -> Vec<Row> {
    let name = "BPF programs";
    match &facts.programs {
        Ok(()) => ok(name, "the kernel takes them"),
        // Said above, and by the kernel in words that help nobody.
        Err(_) if facts.privileges.missing().any(|need| need.limit.is_none()) => Vec::new(),
        Err(error) => {
            let fix = "see that the kernel has CONFIG_BPF_SYSCALL and CONFIG_BPF_EVENTS, and that no security module or \
                       container forbids bpf()";
            vec![row(name, State::Broken, error, fix)]
        }
    }
}

fn addresses(facts: &Facts) -> Vec<Row> {
    let name = "kallsyms";
    match (&facts.symbols, facts.kptr_restrict) {
        (Ok(()), level) => {
            let level = level.map_or_else(String::new, |level| format!(" (kernel.kptr_restrict = {level})"));
            ok(name, format!("the kernel shows the addresses of its functions{level}"))
        }
        (Err(_), Some(2)) => {
            let fix = "sysctl -w kernel.kptr_restrict=1";
            vec![row(name, State::Broken, "addresses are hidden from everybody (kernel.kptr_restrict = 2)", fix)]
        }
        (Err(error), _) => {
            let fix = "run it as root, or with CAP_SYSLOG, on a kernel with CONFIG_KALLSYMS";
            vec![row(name, State::Broken, error, fix)]
        }
    }
}

fn structures(facts: &Facts) -> Vec<Row> {
    let name = "structures";
    let known = match &facts.structures {
        None => return Vec::new(),
        Some(Err(error)) => {
            let fix = "report it, with the kernel's release: skbtrace does not know this kernel";
            return vec![row(name, State::Broken, error, fix)];
        }
        Some(Ok(known)) => known,
    };
    let module = |name: &str| facts.modules.iter().any(|module| module.name == name && module.present);
    let mut rows = Vec::new();
    if known.pages.is_none() {
        let found = "where pages are is not known: payload in page frags, as TCP's is, is not compared";
        let fix = "use a kernel with CONFIG_KALLSYMS_ALL or CONFIG_PROC_KCORE, or boot with nokaslr";
        rows.push(row(name, State::Warning, found, fix));
    }
    if !known.veth_peer && module("veth") {
        let fix = "use a kernel with CONFIG_DEBUG_INFO_BTF_MODULES";
        rows.push(row(name, State::Note, "where a veth keeps its peer is not known: it is not named", fix));
    }
    if !known.bridge_port && module("bridge") {
        let fix = "use a kernel with CONFIG_DEBUG_INFO_BTF_MODULES";
        rows.push(row(name, State::Note, "where a bridge's port keeps its device is not known: it is not named", fix));
    }
    if !known.context {
        let fix = "use an x86-64 kernel with CONFIG_KALLSYMS_ALL";
        rows.push(row(name, State::Note, "whether a hop ran in a softirq is not known", fix));
    }
    if rows.is_empty() {
        let pages = known.pages.unwrap_or_default();
        return ok(name, format!("all that is read in them is known; pages by {pages}"));
    }
    rows
}

/// An option, what it is for, and how much is lost without it.
const OPTIONS: [(&str, &str, State); 13] = [
    ("BPF", "BPF programs", State::Warning),
    ("BPF_SYSCALL", "loading them", State::Warning),
    ("BPF_EVENTS", "attaching them", State::Warning),
    ("PERF_EVENTS", "attaching them", State::Warning),
    ("KPROBES", "attaching them to functions", State::Warning),
    ("KPROBE_EVENTS", "attaching them to functions", State::Warning),
    ("KALLSYMS", "finding functions", State::Warning),
    ("DEBUG_INFO_BTF", "the kernel's types", State::Warning),
    ("DEBUG_INFO_BTF_MODULES", "the types of modules", State::Note),
    ("KALLSYMS_ALL", "finding payload in pages", State::Note),
    ("BPF_JIT", "running programs fast", State::Note),
    ("VETH", "veth pairs", State::Note),
    ("BRIDGE", "bridges", State::Note),
];

fn configuration(facts: &Facts) -> Vec<Row> {
    let name = "configuration";
    let Some(config) = &facts.config else {
        let found = format!("neither /proc/config.gz nor /boot/config-{} is there to be read", facts.release);
        let fix = "nothing need be done: what is looked at decides, the configuration would only explain";
        return vec![row(name, State::Note, found, fix)];
    };
    let off: Vec<_> = OPTIONS.iter().filter(|(option, ..)| !config.on.contains(*option)).collect();
    let Some(worst) = off.iter().map(|(.., state)| *state).max() else {
        // br_netfilter is no lack where it is not wanted.
        let filter = if config.on.contains("BRIDGE_NETFILTER") { "" } else { ", without BRIDGE_NETFILTER" };
        return ok(name, format!("{}: all options that a run has a use for{filter}", config.path));
    };
    let texts: Vec<String> = off.iter().map(|(option, what, _)| format!("CONFIG_{option} ({what})")).collect();
    let found = format!("{}: without {}", config.path, texts.join(", "));
    vec![row(name, worst, found, "use a kernel that is built with them: most distributions' are")]
}

fn jit(facts: &Facts) -> Vec<Row> {
    match facts.jit {
        Some(0) => {
            let found = "off: programs are interpreted, and each hop costs several times more";
            vec![row("BPF JIT", State::Warning, found, "sysctl -w net.core.bpf_jit_enable=1")]
        }
        Some(_) => ok("BPF JIT", "on"),
        None => ok("BPF JIT", "net.core.bpf_jit_enable is not to be read"),
    }
}

fn tracefs(facts: &Facts) -> Vec<Row> {
    match facts.tracefs {
        Some(path) => ok("tracefs", path),
        None => ok("tracefs", "not mounted, or closed to this user; a run does not need it"),
    }
}

fn tracers(facts: &Facts) -> Vec<Row> {
    let tracers = &facts.tracers;
    let mut others = Vec::new();
    if let Some(count) = tracers.kprobes.filter(|count| *count > 0) {
        others.push(if count == 1 { "1 kprobe".to_owned() } else { format!("{count} kprobes") });
    }
    if let Some(count) = tracers.programs.filter(|count| *count > 0) {
        others.push(if count == 1 { "1 BPF program".to_owned() } else { format!("{count} BPF programs") });
    }
    others.extend(tracers.ftrace.iter().map(|name| format!("ftrace's {name}")));
    if others.is_empty() {
        return ok("other tracers", "none");
    }
    let found = format!(
        "{} at work: what they cost is in the times of hops, and a probe that runs hides others",
        others.join(", ")
    );
    vec![row("other tracers", State::Note, found, "end other tracers (bpftrace, perf, trace-cmd) while times matter")]
}
