//! Version, privileges, and whether this kernel has kprobes.

use std::{fmt, fs, io, path::Path};

use aya::{
    programs::ProgramType,
    sys::{BpfHelper, is_helper_supported},
};
use thiserror::Error;

use super::{BtfError, Privileges, symbols::SymbolError};

/// Why this machine cannot be traced on.
#[derive(Debug, Error)]
pub enum HostError {
    /// The kernel lacks what the kernel side rests on (ring buffer, bpf_probe_read_kernel).
    #[error("kernel {0} is too old: skbtrace needs Linux 5.10 or later")]
    TooOld(String),
    /// Not root, or the capabilities were dropped.
    #[error("not allowed to trace: it takes {missing}; run it as root (sudo skbtrace …), or give it what is missing")]
    NotAllowed {
        /// The names of the capabilities that would be needed, and what for.
        missing: String,
    },
    /// Nothing of the kernel's memory may be read.
    #[error(
        "this kernel is locked down (confidentiality): no program reads its memory, so that no packet can be followed; \
         boot without lockdown=confidentiality"
    )]
    LockedDown,
    /// A file of /proc or /sys could not be read.
    #[error("cannot read {path}: {source}")]
    Unreadable {
        /// The file.
        path: &'static str,
        /// Why.
        source: io::Error,
    },
    /// No types.
    #[error(transparent)]
    Btf(#[from] BtfError),
    /// No symbols.
    #[error(transparent)]
    Symbols(#[from] SymbolError),
}

/// Major and minor version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KernelVersion {
    /// The 6 of 6.1.
    pub major: u32,
    /// The 1 of 6.1.
    pub minor: u32,
}

impl KernelVersion {
    /// The oldest kernel that the kernel side runs on.
    pub const OLDEST: KernelVersion = KernelVersion { major: 5, minor: 10 };

    /// From a release such as `6.1.0-56-amd64`.
    #[must_use]
    pub fn parse(release: &str) -> Option<KernelVersion> {
        let mut numbers = release.split(|c: char| !c.is_ascii_digit());
        let major = numbers.next()?.parse().ok()?;
        let minor = numbers.next()?.parse().ok()?;
        Some(KernelVersion { major, minor })
    }
}

/// The release of the running kernel.
#[derive(Clone, Debug)]
pub struct Release(pub String);

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Checks what can be checked before anything is loaded. Returns what it looked at: the kernel, and what this process may do.
///
/// # Errors
/// When the kernel is too old or locked down, or privileges are missing.
pub fn require() -> Result<(Release, Privileges), HostError> {
    const RELEASE: &str = "/proc/sys/kernel/osrelease";
    let release = fs::read_to_string(RELEASE).map_err(|source| HostError::Unreadable { path: RELEASE, source })?;
    let release = release.trim().to_owned();
    // A release that does not begin with two numbers is nobody's: let the load decide.
    if KernelVersion::parse(&release).is_some_and(|version| version < KernelVersion::OLDEST) {
        return Err(HostError::TooOld(release));
    }
    let privileges = Privileges::read(KernelVersion::parse(&release));
    let missing: Vec<String> = privileges
        .missing()
        .filter(|need| need.limit.is_none())
        .map(|need| format!("{} to {}", need.name, need.purpose))
        .collect();
    if !missing.is_empty() {
        return Err(HostError::NotAllowed { missing: missing.join(", ") });
    }
    let locked = match fs::read_to_string("/sys/kernel/security/lockdown") {
        Ok(lockdown) => lockdown.contains("[confidentiality]"),
        // In a container nothing may say so; then the kernel's own refusal does.
        Err(_) => {
            let read = is_helper_supported(ProgramType::RawTracePoint, BpfHelper::BPF_FUNC_probe_read_kernel);
            matches!(read, Ok(false))
        }
    };
    if locked {
        return Err(HostError::LockedDown);
    }
    Ok((Release(release), privileges))
}

/// Whether this kernel offers kprobes to eBPF programs of who has these privileges.
///
/// # Errors
/// The cause, in a few words, when it does not.
pub fn kprobes_offered(privileges: &Privileges) -> Result<(), &'static str> {
    if !privileges.may_probe() {
        return Err("perf events are closed to this user");
    }
    if Path::new("/sys/bus/event_source/devices/kprobe/type").exists() {
        Ok(())
    } else if Path::new("/sys/bus/event_source").exists() {
        Err("no kprobe under /sys/bus/event_source/devices")
    } else {
        Err("/sys is not mounted, or the kernel has no perf events")
    }
}

#[cfg(test)]
mod tests {
    use super::KernelVersion;

    #[test]
    fn releases_compare_by_number() {
        let version = |release| KernelVersion::parse(release).unwrap();
        assert_eq!(version("6.1.0-56-amd64"), KernelVersion { major: 6, minor: 1 });
        assert!(version("5.9.16") < KernelVersion::OLDEST);
        assert!(version("4.18.0-348.el8") < KernelVersion::OLDEST);
        assert!(version("5.10.0-32-amd64") >= KernelVersion::OLDEST);
        assert!(version("7.3.4+deb13-amd64") > version("6.18.1"));
        assert_eq!(KernelVersion::parse("unknown"), None);
    }
}
