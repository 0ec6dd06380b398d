//! Puts faults in place and takes them back. The mark is written first and taken away last, so there is no moment at
//! which something is changed and not known.

use std::{
    fs,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
};

use super::{
    Error, Fault, Requires, find,
    mark::{self, InPlace, LIMIT},
    step,
};
use crate::lab::{
    Layout, Observed, Scenario,
    build::{lock, need_privilege, settle},
    link::Session,
    missing, observe, scenario,
};

/// What [`inject`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Injected {
    /// It is in place now.
    Now,
    /// It was in place before.
    Before,
}

/// A fault that was taken back.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Cleared {
    /// Its name.
    pub name: String,
    /// The commands that took it back, in their order, each after the place where it ran. Without those that found
    /// nothing to take back.
    pub commands: Vec<String>,
}

/// Puts a fault in place; `also` when there may be another one. `cancel` is looked at between steps: once it is set,
/// what was done is taken back.
///
/// # Errors
/// See [`Error`]; after an error nothing of this fault is left, unless the error says so.
pub fn inject(fault: &'static Fault, also: bool, cancel: &AtomicBool) -> Result<Injected, Error> {
    need_privilege()?;
    let _lock = lock(cancel)?;
    let observed = observe()?;
    let mut faults = mark::in_place(&observed);
    if faults.iter().any(|one| one.name == fault.name) {
        return Ok(Injected::Before);
    }
    let layout = ready(fault, &observed, &faults, also)?;
    require(fault)?;

    let mut new = InPlace { name: fault.name.to_owned(), saved: Vec::new() };
    for (index, step) in fault.steps.iter().enumerate() {
        let found = step.look().map_err(|cause| Error::Inject { name: fault.name, cause })?;
        new.saved.extend(found.map(|value| (index, value)));
    }
    faults.push(new.clone());
    write_mark(layout, &faults)?;
    for (index, step) in fault.steps.iter().enumerate() {
        let taken = if cancel.load(Ordering::Relaxed) {
            Err(Error::Lab(crate::lab::Error::Interrupted))
        } else {
            step.take(fault.name).map_err(|cause| Error::Inject { name: fault.name, cause })
        };
        if let Err(cause) = taken {
            // The step that failed has changed nothing, and what it would have changed may be another's.
            let (_, failures) = undo(fault, &new, index);
            if !failures.is_empty() {
                return Err(Error::Half { cause: cause.into(), failures });
            }
            faults.pop();
            write_mark(layout, &faults)?;
            return Err(cause);
        }
    }
    Ok(Injected::Now)
}

/// Whether the lab is one that the fault can be put into.
fn ready(
    fault: &'static Fault,
    observed: &Observed,
    in_place: &[InPlace],
    also: bool,
) -> Result<&'static Layout, Error> {
    let needed = fault.scenario;
    match scenario(observed) {
        None => return Err(Error::NotUp { name: fault.name, needed }),
        Some(up) if up != needed => return Err(Error::Elsewhere { name: fault.name, needed, up }),
        Some(_) => {}
    }
    let names = || in_place.iter().map(|one| one.name.clone()).collect::<Vec<_>>();
    if !in_place.is_empty() && !also {
        return Err(Error::Occupied { names: names() });
    }
    for other in in_place {
        let other = find(&other.name)?;
        if fault.steps.iter().any(|step| other.steps.iter().any(|theirs| step.clashes(theirs))) {
            return Err(Error::Clash { name: fault.name, other: other.name });
        }
    }
    let layout = needed.layout();
    // With a fault in place, an incomplete lab is nothing to wonder at.
    let missing = missing(layout, observed);
    if in_place.is_empty() && !missing.is_empty() {
        return Err(Error::Incomplete { missing });
    }
    Ok(layout)
}

/// What would hit more than the lab is refused.
fn require(fault: &'static Fault) -> Result<(), Error> {
    match fault.requires {
        None => Ok(()),
        Some(Requires::NothingElseForwards) => {
            let is_on = |name: &str| fs::read_to_string(name).is_ok_and(|value| value.trim() != "0");
            let refuse = |why| Err(Error::TooWide { name: fault.name, why });
            if is_on("/proc/sys/net/ipv4/ip_forward") {
                return refuse("this machine routes (net.ipv4.ip_forward is 1), and a policy stops all of that");
            }
            if is_on("/proc/sys/net/bridge/bridge-nf-call-iptables") {
                return refuse("every bridge of this machine asks iptables (net.bridge.bridge-nf-call-iptables is 1)");
            }
            // Where iptables is missing, the step will say so.
            match Command::new("iptables").args(["-S", "FORWARD"]).output() {
                Ok(output) if output.status.success() && !output.stdout.starts_with(b"-P FORWARD ACCEPT") => {
                    refuse("the policy of iptables FORWARD is not ACCEPT as it is")
                }
                _ => Ok(()),
            }
        }
    }
}

/// Takes back every fault that is in place, the last first, and waits until links and ports are back.
///
/// # Errors
/// See [`Error`]; what could be taken back has been, also then.
pub fn clear() -> Result<Vec<Cleared>, Error> {
    need_privilege()?;
    let _lock = lock(&AtomicBool::new(false))?;
    let observed = observe()?;
    let cleared = clear_observed(&observed, Lab::Stays)?;
    if let Some(scenario) = scenario(&observed).filter(|_| !cleared.is_empty()) {
        settle(scenario.layout())?;
    }
    Ok(cleared)
}

/// Whether the lab with its mark is still there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::lab) enum Lab {
    /// It is.
    Stays,
    /// It has just been removed.
    IsGone,
}

/// The same for who holds the lock.
///
/// # Errors
/// As [`clear`].
pub(in crate::lab) fn clear_observed(observed: &Observed, lab: Lab) -> Result<Vec<Cleared>, Error> {
    let mut left = mark::in_place(observed);
    let (mut cleared, mut failures, mut stays) = (Vec::new(), Vec::new(), Vec::new());
    while let Some(one) = left.pop() {
        let failed = match find(&one.name) {
            Ok(fault) => {
                let (commands, failed) = undo(fault, &one, fault.steps.len());
                if failed.is_empty() {
                    cleared.push(Cleared { name: one.name.clone(), commands });
                }
                failed
            }
            Err(unknown) => vec![unknown.to_string()],
        };
        if !failed.is_empty() {
            failures.extend(failed);
            stays.insert(0, one);
        }
        if let Some(scenario) = scenario(observed).filter(|_| lab == Lab::Stays) {
            write_mark(scenario.layout(), &[left.as_slice(), &stays].concat())?;
        }
    }
    if failures.is_empty() { Ok(cleared) } else { Err(Error::NotCleared { failures }) }
}

/// Takes back the first `steps` steps, the last first: the commands that did something, and what failed.
fn undo(fault: &Fault, found: &InPlace, steps: usize) -> (Vec<String>, Vec<String>) {
    let (mut commands, mut failures) = (Vec::new(), Vec::new());
    for (index, step) in fault.steps.iter().enumerate().take(steps).rev() {
        let saved = found.saved(index);
        match step.undo(fault.name, saved) {
            Ok(true) => commands.push(placed(step, &step.undoes(fault.name, saved))),
            Ok(false) => {}
            Err(error) => failures.push(format!("{}: {error}", fault.name)),
        }
    }
    (commands, failures)
}

/// A command with the place where it runs.
#[must_use]
pub fn placed(step: &step::Step, command: &str) -> String {
    match step.place() {
        Some(name) => format!("{name}: {command}"),
        None => format!("here: {command}"),
    }
}

fn write_mark(layout: &Layout, faults: &[InPlace]) -> Result<(), Error> {
    let alias = mark::format(layout.scenario, faults);
    if alias.len() > LIMIT {
        return Err(Error::TooMany);
    }
    let (place, device) = mark::bearer(layout);
    let file = step::namespace(place)?;
    Ok(Session::open(file.as_ref())?.set_alias(device, &alias)?)
}

/// The faults that are in place, and the scenario that is up.
///
/// # Errors
/// As [`observe`].
pub fn in_place() -> Result<(Option<Scenario>, Vec<InPlace>), Error> {
    let observed = observe()?;
    Ok((scenario(&observed), mark::in_place(&observed)))
}
