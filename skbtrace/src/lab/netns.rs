//! Named network namespaces, as `ip netns` keeps them: a bind mount of the namespace on `/run/netns/NAME`.
//!
//! A namespace belongs to a thread, not to a process, so everything that must happen inside one happens on a thread of
//! its own that ends afterwards: no thread ever needs to find its way back.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::fd::{AsFd, BorrowedFd},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    thread,
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, setns, unshare},
    sys::statfs::{NSFS_MAGIC, fstatfs},
};

use super::Error;

/// Where `ip netns` keeps names.
pub const DIRECTORY: &str = "/run/netns";

/// This thread's own namespace. Not `/proc/self`: that is the main thread's.
const OWN: &str = "/proc/thread-self/ns/net";

/// Where the namespace `name` is, if there is one.
#[must_use]
pub fn path(name: &str) -> PathBuf {
    Path::new(DIRECTORY).join(name)
}

/// What is found under a name.
#[derive(Debug)]
pub enum Found {
    /// Nothing.
    Absent,
    /// An empty file that no namespace is mounted on: what a run that was killed half way leaves behind.
    Leftover,
    /// Something else, which nobody should meddle with.
    Other,
    /// A namespace.
    Namespace(File),
}

/// Looks up a name.
///
/// # Errors
/// When the file is there and cannot be opened.
pub fn find(name: &str) -> Result<Found, Error> {
    let path = path(name);
    let failed = |error: io::Error| Error::failed(format!("open {}", path.display()), error);
    let file = match File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Absent),
        other => other.map_err(failed)?,
    };
    if fstatfs(&file).map_err(|errno| failed(errno.into()))?.filesystem_type() == NSFS_MAGIC {
        return Ok(Found::Namespace(file));
    }
    let metadata = file.metadata().map_err(failed)?;
    Ok(if metadata.is_file() && metadata.len() == 0 { Found::Leftover } else { Found::Other })
}

/// Runs `work` on a thread of its own inside a namespace and returns what it returned.
///
/// # Errors
/// When the thread cannot be started or may not enter the namespace (needs `CAP_SYS_ADMIN`).
pub fn inside<T: Send>(namespace: BorrowedFd<'_>, work: impl FnOnce() -> T + Send) -> Result<T, Error> {
    on_thread(|| {
        setns(namespace, CloneFlags::CLONE_NEWNET).map_err(|errno| Error::failed("enter the namespace", errno))?;
        Ok(work())
    })
}

/// The same for an optional namespace: `None` stays where the caller is.
///
/// # Errors
/// As [`inside`].
pub fn inside_or_here<T: Send>(namespace: Option<&File>, work: impl FnOnce() -> T + Send) -> Result<T, Error> {
    match namespace {
        Some(namespace) => inside(namespace.as_fd(), work),
        None => Ok(work()),
    }
}

fn on_thread<T: Send>(work: impl FnOnce() -> Result<T, Error> + Send) -> Result<T, Error> {
    thread::scope(|scope| {
        let thread = thread::Builder::new()
            .name("lab-netns".into())
            .spawn_scoped(scope, work)
            .map_err(|error| Error::failed("start a thread", error))?;
        match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Makes a namespace, runs `prepare` inside it, and only then gives it its name: nobody sees it half prepared, and
/// when `prepare` fails it is gone. A leftover file of that name is used.
///
/// # Errors
/// When one of the steps is refused, or those of `prepare`.
pub fn create(name: &str, prepare: impl FnOnce() -> Result<(), Error> + Send) -> Result<(), Error> {
    make_directory()?;
    let path = path(name);
    let doing = |what: &str| format!("{what} the namespace {name}");
    match OpenOptions::new().write(true).create_new(true).mode(0o000).open(&path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(Error::failed(format!("create {}", path.display()), error));
        }
        _ => {}
    }
    let made = on_thread(|| {
        unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| Error::failed(doing("make"), errno))?;
        prepare()?;
        mount(Some(OWN), &path, None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .map_err(|errno| Error::failed(doing("name"), errno))
    });
    if made.is_err() {
        // The file is ours and empty; the first error is the one to tell.
        let _ = fs::remove_file(&path);
    }
    made
}

/// Takes the name away. The namespace itself goes with its last process.
///
/// # Errors
/// When the mount or the file cannot be removed.
pub fn remove(name: &str) -> Result<(), Error> {
    let path = path(name);
    // EINVAL: nothing is mounted here, only a leftover file. ENOENT: gone already.
    loop {
        match umount2(&path, MntFlags::MNT_DETACH) {
            Ok(()) => {}
            Err(nix::Error::EINVAL | nix::Error::ENOENT) => break,
            Err(errno) => return Err(Error::failed(format!("unmount {}", path.display()), errno)),
        }
    }
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::failed(format!("remove {}", path.display()), error))
        }
        _ => Ok(()),
    }
}

/// Makes the directory a shared mount, as `ip netns add` does. Without it a later `ip netns add` would bind it over
/// itself, the name would be mounted twice, and removing it once would leave it busy.
fn make_directory() -> Result<(), Error> {
    let failed = |doing: &str| {
        let doing = format!("{doing} {DIRECTORY}");
        move |error: io::Error| Error::failed(doing, error)
    };
    fs::DirBuilder::new().recursive(true).mode(0o755).create(DIRECTORY).map_err(failed("create"))?;
    let share = || mount(None::<&str>, DIRECTORY, None::<&str>, MsFlags::MS_SHARED | MsFlags::MS_REC, None::<&str>);
    match share() {
        Ok(()) => Ok(()),
        Err(nix::Error::EINVAL) => {
            mount(Some(DIRECTORY), DIRECTORY, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
                .map_err(|errno| failed("bind")(errno.into()))?;
            share().map_err(|errno| failed("share")(errno.into()))
        }
        Err(errno) => Err(failed("share")(errno.into())),
    }
}

/// Opens the directory for locking; makes it when it is not there.
///
/// # Errors
/// When it cannot be made or opened.
pub(super) fn open_directory() -> Result<File, Error> {
    make_directory()?;
    File::open(DIRECTORY).map_err(|error| Error::failed(format!("open {DIRECTORY}"), error))
}
