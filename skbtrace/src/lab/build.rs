//! Builds, repairs and removes a lab. The plan is what `state` says is missing; each missing thing is one step.

use std::{
    fs::{self, File, TryLockError},
    os::fd::AsFd,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use super::{
    BRIDGE_MAC, End, Error, Layout, Missing, Namespace, Observed, Place, Scenario, fault, foreign,
    link::Session,
    missing,
    netns::{self, Found},
    observe, scenario,
};

/// How long links may take to come up. The kernel's link watch comes round once a second.
const SETTLE: Duration = Duration::from_secs(10);
/// How long to wait for another process that changes the lab.
const LOCK: Duration = Duration::from_secs(30);
/// Between two looks at something that changes by itself.
const LOOK: Duration = Duration::from_millis(20);

/// What [`up`] did.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The other scenario that was torn down first.
    pub replaced: Option<Scenario>,
    /// Whether part of this scenario was there before.
    pub was_there: bool,
    /// What was missing and is there now.
    pub repaired: Vec<Missing>,
    /// The faults that were in place and were taken back first.
    pub cleared: Vec<String>,
}

/// What [`down`] did.
#[derive(Debug, PartialEq, Eq)]
pub enum Removed {
    /// This; `None`: leftovers of which the scenario could not be told.
    Lab(Option<Scenario>),
    /// Nothing, nothing was there.
    Nothing,
    /// Nothing, since another scenario is up than the one named.
    Another(Scenario),
}

/// Builds a scenario, or repairs it, or replaces the one that is up. Returns when packets can pass.
/// `cancel` is looked at between steps; once it is set, what was made is removed again.
///
/// # Errors
/// See [`Error`]; after an error in a lab that was not there before, nothing of it is left.
pub fn up(wanted: Scenario, cancel: &AtomicBool) -> Result<Outcome, Error> {
    need_privilege()?;
    let _lock = lock(cancel)?;
    let layout = wanted.layout();
    let mut observed = observe()?;
    let in_the_way = foreign(layout, &observed);
    if !in_the_way.is_empty() {
        let (what, how): (Vec<_>, Vec<_>) = in_the_way.into_iter().unzip();
        return Err(Error::Foreign { what, how: how.join("; ") });
    }
    let found = scenario(&observed);
    let cleared = clear_faults(&observed, fault::Lab::Stays)?;
    if !cleared.is_empty() {
        observed = observe()?;
    }
    let mut replaced = None;
    // Marked things without a scenario are what a killed run left in its first instant: not worth repairing.
    if found != Some(wanted) && !observed.is_empty() {
        remove_all(&observed)?;
        replaced = found;
        observed = observe()?;
    }
    let was_there = found == Some(wanted);
    let repaired: Vec<_> = missing(layout, &observed);
    match repair(layout, &observed, &repaired, cancel) {
        Ok(()) => Ok(Outcome { replaced, was_there, repaired, cleared }),
        Err(cause) if was_there => Err(Error::Incomplete { cause: cause.into() }),
        Err(cause) => Err(match observe().and_then(|observed| remove_all(&observed)) {
            Ok(()) => Error::Undone { cause: cause.into() },
            Err(undo) => Error::NotUndone { cause: cause.into(), undo: undo.into() },
        }),
    }
}

/// Removes what the lab made and nothing else: the named scenario, or whichever is up.
///
/// # Errors
/// See [`Error`].
pub fn down(only: Option<Scenario>) -> Result<Removed, Error> {
    need_privilege()?;
    let _lock = lock(&AtomicBool::new(false))?;
    let observed = observe()?;
    let found = scenario(&observed);
    match (only, found) {
        (Some(only), Some(found)) if only != found => Ok(Removed::Another(found)),
        _ if observed.is_empty() => Ok(Removed::Nothing),
        _ => remove_all(&observed).map(|()| Removed::Lab(found)),
    }
}

/// One process at a time. The lock is on the directory of the names, which outlives any lab, so no lock file stays.
pub(super) fn lock(cancel: &AtomicBool) -> Result<File, Error> {
    let directory = netns::open_directory()?;
    let start = Instant::now();
    loop {
        check(cancel)?;
        match directory.try_lock() {
            Ok(()) => return Ok(directory),
            Err(TryLockError::Error(error)) => return Err(Error::failed("lock /run/netns", error)),
            Err(TryLockError::WouldBlock) if start.elapsed() > LOCK => return Err(Error::Busy(LOCK.as_secs())),
            Err(TryLockError::WouldBlock) => {}
        }
        thread::sleep(LOOK);
    }
}

fn check(cancel: &AtomicBool) -> Result<(), Error> {
    if cancel.load(Ordering::Relaxed) { Err(Error::Interrupted) } else { Ok(()) }
}

fn repair(layout: &'static Layout, observed: &Observed, steps: &[Missing], cancel: &AtomicBool) -> Result<(), Error> {
    for step in steps {
        check(cancel)?;
        take(layout, observed, *step)?;
    }
    let start = Instant::now();
    loop {
        let still = missing(layout, &observe()?);
        if still.is_empty() {
            return Ok(());
        }
        // What does not come by itself was taken away behind our back.
        if start.elapsed() > SETTLE || !still.iter().all(Missing::comes_by_itself) {
            return Err(Error::NotReady { seconds: start.elapsed().as_secs(), still });
        }
        check(cancel)?;
        thread::sleep(LOOK);
    }
}

fn take(layout: &'static Layout, observed: &Observed, step: Missing) -> Result<(), Error> {
    let alias = layout.scenario.alias();
    match step {
        Missing::Namespace(name) => netns::create(name, || Session::here()?.set_alias("lo", &alias)),
        Missing::Bridge(name) => Session::here()?.add_bridge(name, BRIDGE_MAC, &alias),
        Missing::Pair(pair) => add_pair(pair, observed),
        Missing::Mark(place, device) => session(place)?.set_alias(device, &alias),
        Missing::Up(place, device) => session(place)?.set_up(device),
        Missing::Port(device, bridge) => session(None)?.set_bridge(device, bridge),
        Missing::Address(place, device, address) => session(place)?.add_address(device, address),
        Missing::DefaultRoute(place, device) => session(Some(place))?.add_default_route(device),
        Missing::Carrier(..) | Missing::Forwarding(_) => Ok(()),
    }
}

fn namespace(name: &str) -> Result<File, Error> {
    match netns::find(name)? {
        Found::Namespace(file) => Ok(file),
        Found::Absent | Found::Leftover | Found::Other => {
            Err(Error::failed(format!("open {name}"), nix::Error::ENOENT))
        }
    }
}

fn session(place: Place) -> Result<Session, Error> {
    Session::open(place.map(namespace).transpose()?.as_ref())
}

/// Replaces whatever is there of a pair: one end alone, or both with other peers, or one in the wrong place.
fn add_pair(pair: &[End; 2], observed: &Observed) -> Result<(), Error> {
    for (place, device) in observed.ours().filter(|(_, device)| pair.iter().any(|end| end.device == device.name)) {
        session(place)?.delete(device.index, &device.name)?;
    }
    let second = match pair[1].place {
        Some(name) => namespace(name)?,
        None => File::open("/proc/thread-self/ns/net").map_err(|error| Error::failed("open this namespace", error))?,
    };
    session(pair[0].place)?.add_pair(pair, second.as_fd())
}

/// What a fault has changed outside the lab does not go with it.
fn clear_faults(observed: &Observed, lab: fault::Lab) -> Result<Vec<String>, Error> {
    match fault::clear_observed(observed, lab) {
        Ok(cleared) => Ok(cleared.into_iter().map(|one| one.name).collect()),
        Err(fault::Error::Lab(error)) => Err(error),
        Err(error) => Err(Error::FaultStays { why: error.to_string() }),
    }
}

/// Waits until what comes by itself has come.
pub(super) fn settle(layout: &'static Layout) -> Result<(), Error> {
    let start = Instant::now();
    while missing(layout, &observe()?).iter().any(Missing::comes_by_itself) && start.elapsed() < SETTLE {
        thread::sleep(LOOK);
    }
    Ok(())
}

/// Faults first; what cannot be taken back is tried again at the end, for most of it goes with the lab. Then devices: a
/// namespace lives on without its name while a process is in it, and so would its devices.
fn remove_all(observed: &Observed) -> Result<(), Error> {
    let cleared = clear_faults(observed, fault::Lab::Stays);
    for (place, device) in observed.ours() {
        session(place)?.delete(device.index, &device.name)?;
    }
    for (name, found) in &observed.namespaces {
        if matches!(found, Namespace::Ours(_) | Namespace::Leftover) {
            netns::remove(name)?;
        }
    }
    if cleared.is_err() {
        clear_faults(observed, fault::Lab::IsGone)?;
    }
    Ok(())
}

/// The capabilities that the lab needs, by bit.
const NEEDED: [(u32, &str); 2] = [(12, "CAP_NET_ADMIN"), (21, "CAP_SYS_ADMIN")];

/// # Errors
/// [`Error::Privilege`] when a capability is missing. Root in a container often lacks them, so root is not asked for.
pub(super) fn need_privilege() -> Result<(), Error> {
    let status = fs::read_to_string("/proc/thread-self/status")
        .map_err(|error| Error::failed("read /proc/thread-self/status", error))?;
    let missing = lacking(&status);
    if missing.is_empty() { Ok(()) } else { Err(Error::Privilege { missing: missing.join(" and ") }) }
}

/// The needed capabilities that a `/proc/PID/status` does not list as effective.
fn lacking(status: &str) -> Vec<&'static str> {
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0);
    NEEDED.iter().filter(|(bit, _)| effective >> bit & 1 == 0).map(|(_, name)| *name).collect()
}

#[cfg(test)]
mod tests {
    use super::lacking;

    #[test]
    fn capabilities_are_read_from_the_effective_set() {
        let status = |mask: &str| format!("CapPrm:\t000001ffffffffff\nCapEff:\t{mask}\nCapBnd:\t000001ffffffffff\n");
        assert_eq!(lacking(&status("000001ffffffffff")), [""; 0]);
        assert_eq!(lacking(&status("0000000000201000")), [""; 0]);
        assert_eq!(lacking(&status("0000000000001000")), ["CAP_SYS_ADMIN"]);
        assert_eq!(lacking(&status("0000000000000000")), ["CAP_NET_ADMIN", "CAP_SYS_ADMIN"]);
        assert_eq!(lacking("no such line"), ["CAP_NET_ADMIN", "CAP_SYS_ADMIN"]);
    }
}
