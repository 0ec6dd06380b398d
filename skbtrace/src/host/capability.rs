//! The capabilities of this process: which of them a run needs, what for, and what is lost without the others.
//!
//! Root has them all, and need not be root: each is asked for by itself, so that a program with a few of them
//! (`setcap`, `AmbientCapabilities=`) traces as well. Linux 5.8 took CAP_BPF and CAP_PERFMON out of CAP_SYS_ADMIN,
//! which still stands for both.

use std::fs;

use rustix::process::{Resource, getrlimit};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set, remove_capability_from_bounding_set,
    set_capabilities,
};

use super::{KernelVersion, perf};

/// Something that a run does, and the capability that lets it.
#[derive(Debug)]
pub struct Need {
    /// The capability's name.
    pub name: &'static str,
    /// What it is for, after "to".
    pub purpose: &'static str,
    /// What a run lacks without it; `None`: there is no run without it.
    pub limit: Option<&'static str>,
    met: fn(&Privileges) -> bool,
}

/// Every capability that a run has a use for.
static NEEDS: [Need; 8] = [
    Need {
        name: "CAP_BPF",
        purpose: "load BPF programs",
        limit: None,
        met: |it| it.has(CapabilitySet::BPF | CapabilitySet::SYS_ADMIN),
    },
    Need {
        name: "CAP_PERFMON",
        purpose: "attach programs to the kernel's functions",
        limit: None,
        met: |it| it.has(CapabilitySet::PERFMON | CapabilitySet::SYS_ADMIN),
    },
    Need {
        name: "CAP_SYS_ADMIN",
        purpose: "probe functions on this kernel (else: sysctl kernel.perf_event_paranoid=2)",
        limit: Some("functions cannot be probed: raw tracepoints alone are used, which see fewer hops"),
        met: Privileges::may_probe,
    },
    Need {
        name: "CAP_SYSLOG",
        purpose: "see the addresses of the kernel's functions",
        limit: None,
        met: |it| it.addresses_for_all || it.has(CapabilitySet::SYSLOG),
    },
    Need {
        name: "CAP_SYS_RESOURCE",
        purpose: "have more locked memory, as which BPF maps count before 5.11 (else: ulimit -l unlimited)",
        limit: None,
        met: |it| !it.memory_short || it.has(CapabilitySet::SYS_RESOURCE),
    },
    Need {
        name: "CAP_SYS_ADMIN",
        purpose: "enter other network namespaces",
        limit: Some("other network namespaces are not entered: devices there are not known, and not named"),
        met: |it| it.has(CapabilitySet::SYS_ADMIN),
    },
    Need {
        name: "CAP_SYS_PTRACE",
        purpose: "find the network namespaces of processes",
        limit: Some("network namespaces that have no name are not found, nor who owns a socket"),
        met: |it| it.has(CapabilitySet::SYS_PTRACE),
    },
    Need {
        name: "CAP_NET_ADMIN",
        purpose: "list the rules of netfilter",
        limit: Some("rules of netfilter are not among the causes of a finding"),
        met: |it| it.has(CapabilitySet::NET_ADMIN),
    },
];

/// What this process may do, as far as a run cares, and what this machine asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Privileges {
    /// The effective capabilities, a bit each.
    pub effective: u64,
    /// The kernel shows the addresses of its functions to everybody.
    pub addresses_for_all: bool,
    /// The kernel keeps perf events from everybody but CAP_SYS_ADMIN, as Debian's and Ubuntu's do unless told otherwise.
    pub perf_closed: bool,
    /// BPF maps count as locked memory, and of that this process may have less than a run needs.
    pub memory_short: bool,
}

impl Privileges {
    /// Those of the calling thread on the running kernel.
    #[must_use]
    pub fn read(version: Option<KernelVersion>) -> Privileges {
        /// The ring, the tables beside it, and something over.
        const ENOUGH: u64 = 32 << 20;
        // A kernel that does not say is one that would refuse the rest as well.
        let effective = capabilities(None).map_or(0, |sets| sets.effective.bits());
        let number = |path: &str| fs::read_to_string(path).ok()?.trim().parse::<i32>().ok();
        // kallsyms_show_value in the kernel's kernel/kallsyms.c.
        let addresses_for_all = number("/proc/sys/kernel/kptr_restrict") == Some(0)
            && number("/proc/sys/kernel/perf_event_paranoid").is_some_and(|level| level <= 1);
        let counted = version.is_some_and(|version| version < KernelVersion { major: 5, minor: 11 });
        let memory_short = counted && getrlimit(Resource::Memlock).maximum.is_some_and(|limit| limit < ENOUGH);
        let open = Privileges { effective, addresses_for_all, perf_closed: false, memory_short };
        // To root nothing is closed, and without CAP_PERFMON it is that which is missing.
        let perf_closed = !open.has(CapabilitySet::SYS_ADMIN) && open.has(CapabilitySet::PERFMON) && perf::is_closed();
        Privileges { perf_closed, ..open }
    }

    /// What of the needs is not met: first what stops a run, then what limits it; each capability once.
    pub fn missing(&self) -> impl Iterator<Item = &'static Need> + '_ {
        let stops = |need: &&Need| need.limit.is_none() && !(need.met)(self);
        let limits = move |need: &&Need| {
            need.limit.is_some() && !(need.met)(self) && !NEEDS.iter().filter(stops).any(|stop| stop.name == need.name)
        };
        NEEDS.iter().filter(stops).chain(NEEDS.iter().filter(limits))
    }

    /// Whether it may attach programs to functions, if the kernel has kprobes at all.
    #[must_use]
    pub fn may_probe(&self) -> bool {
        !self.perf_closed || self.has(CapabilitySet::SYS_ADMIN)
    }

    /// The names of the capabilities that would do on this machine.
    #[must_use]
    pub fn enough(&self) -> Vec<&'static str> {
        let nobody = Privileges { effective: 0, ..*self };
        let mut names: Vec<&str> = nobody.missing().map(|need| need.name).collect();
        let mut seen = Vec::new();
        names.retain(|name| !seen.contains(name) && (seen.push(*name), true).1);
        names
    }

    fn has(&self, any_of: CapabilitySet) -> bool {
        CapabilitySet::from_bits_retain(self.effective).intersects(any_of)
    }
}

/// What a run goes on using once it is attached: maps, namespaces that come and go, the survey at its end with the commands
/// that it asks; with a command that is traced, to end it; with files that are still to come, to make them.
fn kept(command: bool, files: bool) -> CapabilitySet {
    let always = CapabilitySet::BPF
        | CapabilitySet::SYS_ADMIN
        | CapabilitySet::SYS_PTRACE
        | CapabilitySet::DAC_READ_SEARCH
        | CapabilitySet::NET_ADMIN
        | CapabilitySet::NET_RAW;
    let if_command = if command { CapabilitySet::KILL } else { CapabilitySet::empty() };
    let files_too = CapabilitySet::DAC_OVERRIDE | CapabilitySet::FOWNER | CapabilitySet::CHOWN;
    always | if_command | if files { files_too } else { CapabilitySet::empty() }
}

/// Gives up the capabilities that a run has no use for once its hops are attached. They are a thread's: those of the caller
/// go, and threads that it makes later never have them. What was started before keeps its own.
///
/// Without CAP_SYS_PTRACE nothing is given up: who has fewer capabilities than another process needs it to look at its
/// namespaces.
pub fn drop_capabilities(command: bool, files: bool) {
    let Ok(sets) = capabilities(None) else { return };
    if !sets.effective.contains(CapabilitySet::SYS_PTRACE) {
        return;
    }
    let kept = kept(command, files);
    // Else a command that root runs, and the survey runs some, would have them all again.
    for capability in CapabilitySet::all().difference(kept).iter() {
        if sets.effective.contains(CapabilitySet::SETPCAP) && capability_is_in_bounding_set(capability).unwrap_or(false)
        {
            // A drop that is refused leaves the run as it was before.
            let _ = remove_capability_from_bounding_set(capability);
        }
    }
    let less = CapabilitySets {
        effective: sets.effective & kept,
        permitted: sets.permitted & kept,
        inheritable: sets.inheritable & kept,
    };
    // Likewise.
    let _ = set_capabilities(None, less);
}

#[cfg(test)]
mod tests {
    use super::{CapabilitySet, Privileges, kept};

    fn missing(privileges: Privileges) -> Vec<String> {
        let of = |need: &super::Need| format!("{}{}", need.name, if need.limit.is_some() { " (limit)" } else { "" });
        privileges.missing().map(of).collect()
    }

    fn holding(effective: CapabilitySet) -> Privileges {
        Privileges { effective: effective.bits(), ..Privileges::default() }
    }

    const LEAST: CapabilitySet = CapabilitySet::BPF.union(CapabilitySet::PERFMON).union(CapabilitySet::SYSLOG);

    #[test]
    fn what_is_missing_is_named_and_what_stops_a_run_comes_first() {
        let limits = ["CAP_SYS_ADMIN (limit)", "CAP_SYS_PTRACE (limit)", "CAP_NET_ADMIN (limit)"];
        let all = [&["CAP_BPF", "CAP_PERFMON", "CAP_SYSLOG"][..], &limits].concat();
        assert_eq!(missing(holding(CapabilitySet::empty())), all);
        assert_eq!(missing(holding(CapabilitySet::all())), [""; 0]);
        assert_eq!(missing(holding(LEAST)), limits);
        // It stands for two of them.
        assert_eq!(missing(holding(CapabilitySet::SYS_ADMIN)), ["CAP_SYSLOG", limits[1], limits[2]]);
    }

    #[test]
    fn what_is_needed_depends_on_the_machine() {
        let open = Privileges { addresses_for_all: true, ..holding(CapabilitySet::SYS_ADMIN) };
        assert!(!missing(open).contains(&"CAP_SYSLOG".to_owned()));
        let closed = Privileges { perf_closed: true, ..holding(LEAST) };
        // It is of use for two things, and each is a limit of its own.
        let limits =
            ["CAP_SYS_ADMIN (limit)", "CAP_SYS_ADMIN (limit)", "CAP_SYS_PTRACE (limit)", "CAP_NET_ADMIN (limit)"];
        assert_eq!(missing(closed), limits);
        assert_eq!(closed.enough().iter().filter(|name| **name == "CAP_SYS_ADMIN").count(), 1);
        let short = |more| Privileges { memory_short: true, ..holding(LEAST | more) };
        assert_eq!(missing(short(CapabilitySet::empty()))[0], "CAP_SYS_RESOURCE");
        assert_eq!(missing(short(CapabilitySet::SYS_RESOURCE)).len(), 3);
    }

    #[test]
    fn what_is_kept_is_what_is_still_used() {
        let plain = kept(false, false);
        assert!(plain.contains(CapabilitySet::SYS_ADMIN | CapabilitySet::SYS_PTRACE | CapabilitySet::BPF));
        let gone =
            CapabilitySet::SYS_MODULE | CapabilitySet::SYSLOG | CapabilitySet::DAC_OVERRIDE | CapabilitySet::KILL;
        assert!(!plain.intersects(gone));
        assert!(kept(true, false).contains(CapabilitySet::KILL));
        assert!(kept(false, true).contains(CapabilitySet::DAC_OVERRIDE | CapabilitySet::CHOWN));
    }
}
