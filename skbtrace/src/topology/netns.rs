//! Finds the network namespaces of the host and gives each the name that its user knows it by.
//!
//! The kernel has no list of namespaces. One exists as long as something holds it: a process, a bind mount of its
//! nsfs file (`ip netns add` puts one into `/run/netns`, container engines elsewhere), or an open file. The first two
//! are looked through here. One that only an open file holds is not found.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::{Netns, NetnsName, TopologyError, Unreadable};
use crate::name::printable;

/// Where `ip netns` keeps the namespaces that it named.
pub(super) const NAMED_DIR: &str = "/run/netns";
/// The namespace of the calling thread. Not `/proc/self`: that is the main thread's.
pub(super) const OWN: &str = "/proc/thread-self/ns/net";
/// Inode number of the initial namespace from Linux 6.18 on (`NET_NS_INIT_INO`). Before, it differs between boots.
const FIXED_INIT_INUM: u32 = 0xeffffff9;
/// Processes remembered per namespace as a way into it: some may end before we open it.
const PIDS_KEPT: usize = 4;

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) netns: BTreeMap<u32, Netns>,
    pub(super) processes: BTreeMap<u32, u32>,
    pub(super) unreadable: Vec<Unreadable>,
}

/// All files that stand for one namespace, before it has a name.
#[derive(Debug, Default)]
struct Files {
    named: Vec<PathBuf>,
    pids: Vec<u32>,
    mounted: Vec<PathBuf>,
}

/// Looks for namespaces in `/run/netns`, in the mount table and through all processes.
pub(super) fn discover() -> Result<Found, TopologyError> {
    let own = fs::metadata(OWN).map_err(|source| TopologyError::Own { path: OWN, source })?;
    let (dev, own_inum) = (own.dev(), inum(own.ino()));
    let mut files: BTreeMap<u32, Files> = BTreeMap::new();
    files.entry(own_inum).or_default();

    for path in named_files() {
        if let Some(inum) = netns_of(&path, dev) {
            files.entry(inum).or_default().named.push(path);
        }
    }
    for path in mounted_files() {
        if let Some(inum) = netns_of(&path, dev) {
            files.entry(inum).or_default().mounted.push(path);
        }
    }
    let (processes, denied) = processes();
    for (pid, inum) in &processes {
        let pids = &mut files.entry(*inum).or_default().pids;
        if pids.len() < PIDS_KEPT {
            pids.push(*pid);
        }
    }

    let init = match processes.get(&1) {
        Some(inum) => Some(*inum),
        // Without leave to look at process 1: the number that new kernels give it, else our own, unless it has a name.
        None if files.contains_key(&FIXED_INIT_INUM) => Some(FIXED_INIT_INUM),
        None => files.get(&own_inum).filter(|files| files.named.is_empty()).map(|_| own_inum),
    };
    let netns = files
        .into_iter()
        .map(|(inum, files)| {
            let own = inum == own_inum;
            (inum, Netns { inum, dev, name: name_of(&files, init == Some(inum)), paths: files.paths(own), own })
        })
        .collect();
    Ok(Found { netns, processes, unreadable: denied.into_iter().collect() })
}

impl Files {
    fn paths(&self, own: bool) -> Vec<PathBuf> {
        let own = own.then(|| PathBuf::from("/proc/self/ns/net"));
        let pids = self.pids.iter().map(|pid| PathBuf::from(format!("/proc/{pid}/ns/net")));
        self.named.iter().cloned().chain(self.mounted.iter().cloned()).chain(own).chain(pids).collect()
    }
}

fn name_of(files: &Files, init: bool) -> NetnsName {
    if init {
        return NetnsName::Init;
    }
    if let Some(name) = files.named.first().and_then(|path| path.file_name()) {
        return NetnsName::Named(name.as_bytes().to_vec());
    }
    match (files.pids.first(), files.mounted.first()) {
        (Some(pid), _) => NetnsName::Process { pid: *pid, comm: comm(*pid) },
        (None, Some(path)) => NetnsName::Path(path.as_os_str().as_bytes().to_vec()),
        (None, None) => NetnsName::Process { pid: std::process::id(), comm: comm(std::process::id()) },
    }
}

fn comm(pid: u32) -> Vec<u8> {
    let mut comm = fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
    if comm.last() == Some(&b'\n') {
        comm.pop();
    }
    comm
}

/// The namespace behind a file, `None` when it is gone or when the file is no nsfs file: a name whose bind mount was
/// undone stays behind in `/run/netns` as an empty file.
fn netns_of(path: &Path, dev: u64) -> Option<u32> {
    fs::metadata(path).ok().filter(|file| file.dev() == dev).map(|file| inum(file.ino()))
}

fn named_files() -> Vec<PathBuf> {
    let mut paths: Vec<_> = fs::read_dir(NAMED_DIR).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

/// Network namespaces bound to files outside `/run/netns`.
fn mounted_files() -> Vec<PathBuf> {
    mounts_in(&fs::read("/proc/self/mountinfo").unwrap_or_default())
}

/// Picks the mount points of network namespaces from a `mountinfo`: `… net:[4026532177] /mount/point … - nsfs nsfs rw`.
fn mounts_in(mountinfo: &[u8]) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    for line in mountinfo.split(|byte| *byte == b'\n') {
        let mut fields = line.split(|byte| *byte == b' ').skip(3);
        let (Some(root), Some(point)) = (fields.next(), fields.next()) else { continue };
        let path = PathBuf::from(std::ffi::OsString::from_vec(unescape(point)));
        let named = path.parent().is_some_and(|dir| dir == Path::new(NAMED_DIR) || dir == Path::new("/var/run/netns"));
        if root.starts_with(b"net:[") && !named {
            paths.push(path);
        }
    }
    paths.sort();
    paths.dedup();
    paths
}

/// Undoes the kernel's `\040` for space, tab, newline and backslash.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        match (first, tail) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) => {
                out.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = after;
            }
            _ => out.push(*first),
        }
    }
    out
}

/// Every process's namespace, and what could not be looked at.
fn processes() -> (BTreeMap<u32, u32>, Option<Unreadable>) {
    let mut found = BTreeMap::new();
    let mut denied = Vec::new();
    let mut reason = None;
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = pid_of(&entry.file_name()) else { continue };
        match fs::metadata(format!("/proc/{pid}/ns/net")) {
            Ok(file) => drop(found.insert(pid, inum(file.ino()))),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                denied.push(pid);
                reason = Some(error);
            }
            // The process has ended meanwhile.
            Err(_) => {}
        }
    }
    denied.sort_unstable();
    let denied = reason.map(|reason| Unreadable {
        inum: None,
        what: match denied.as_slice() {
            [pid] => format!("the network namespace of process {pid}"),
            [first, ..] => format!("the network namespaces of {} processes (pid {first} and others)", denied.len()),
            [] => String::new(),
        },
        reason: reason.to_string(),
    });
    (found, denied)
}

fn pid_of(name: &OsStr) -> Option<u32> {
    name.to_str()?.parse().ok()
}

/// nsfs hands out 32-bit inode numbers (`proc_alloc_inum`), so nothing is cut off here.
fn inum(ino: u64) -> u32 {
    u32::try_from(ino).unwrap_or(u32::MAX)
}

/// What a namespace is called when it could not be read: its name, and the process's comm.
pub(super) fn describe(name: &NetnsName) -> String {
    match name {
        NetnsName::Process { pid, comm } => format!("pid:{pid} ({})", printable(comm)),
        name => name.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo_gives_the_network_namespaces_outside_run_netns() {
        let mountinfo = b"24 1 0:4 net:[4026532177] /run/netns/a rw shared:1 - nsfs nsfs rw\n\
            25 1 0:4 net:[4026532178] /run/docker/netns/9f\\0401 rw - nsfs nsfs rw\n\
            26 1 0:4 mnt:[4026532179] /run/snapd/ns/x.mnt rw - nsfs nsfs rw\n\
            25 1 0:4 net:[4026532178] /run/docker/netns/9f\\0401 rw - nsfs nsfs rw\n\
            27 1 8:1 / / rw - ext4 /dev/sda1 rw\n\nshort line\n";
        assert_eq!(mounts_in(mountinfo), [PathBuf::from("/run/docker/netns/9f 1")]);
    }

    #[test]
    fn escapes_are_undone_and_anything_else_is_kept() {
        assert_eq!(unescape(b"a\\040b\\134c\\9\\04"), b"a b\\c\\9\\04");
    }

    #[test]
    fn names_cannot_pretend_to_be_another() {
        assert_eq!(NetnsName::Named(b"init".to_vec()).to_string(), "/run/netns/init");
        assert_eq!(NetnsName::Named(b"pid:1".to_vec()).to_string(), "/run/netns/pid:1");
        assert_eq!(NetnsName::Named(b"\x1b[2J".to_vec()).to_string(), "\\x1b[2J");
    }
}
