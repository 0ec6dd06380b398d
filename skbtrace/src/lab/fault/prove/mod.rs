//! Whether the tracer finds a fault: it is put in place, its traffic and clean traffic beside it are traced, and what the
//! tracer says is compared with what the row of the gallery expects.
//!
//! The tracer is this very program, run as any user runs it. What it says is judged by what the sockets of the clean
//! traffic received, never by what it says of itself.
//!
//! - `beside`: the clean traffic
//! - `judge`: compares; pure
//! - `enclose`: where a fault must show by a backend that has not the hops of its row; pure
//! - `tracer`: the program, traced with

mod beside;
mod enclose;
mod judge;
mod tracer;

use std::{path::Path, sync::atomic::AtomicBool};

use serde::Serialize;

use super::{Error, Fault, command, inject, show, step};
use crate::{
    hops::Backend,
    lab::{self, Scenario, traffic::Protocol},
};

use enclose::Way;
pub use judge::{Found, Judgement};

/// What came of one proof.
#[derive(Debug, Serialize)]
pub struct Proof {
    /// The faults that were in place, by name.
    pub faults: Vec<&'static str>,
    /// What they were traced by.
    pub backend: Backend,
    /// Of those that this backend cannot find, why; they must then not be found.
    pub beyond: Vec<&'static str>,
    /// What their own traffic noticed, in words.
    pub traffic: Vec<String>,
    /// Whether the traffic showed it, of several faults that of one at least: a fault that does not act proves nothing.
    pub shown: bool,
    /// Datagrams of the clean traffic that arrived intact, of how many.
    pub clean: (usize, usize),
    /// What the tracer found.
    pub judgement: Judgement,
}

impl Proof {
    /// Whether every fault acted and was found, if it can be, and nothing else was.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.shown && self.judgement.wrong.is_empty()
    }

    /// Whether there were faults, and none of them can be found by this backend.
    #[must_use]
    pub fn is_beyond(&self) -> bool {
        !self.faults.is_empty() && self.beyond.len() == self.faults.len()
    }
}

/// What traces.
#[derive(Clone, Copy, Debug)]
pub struct By<'a> {
    /// The program.
    pub program: &'a Path,
    /// What it traces by.
    pub backend: Backend,
}

/// Puts faults into the lab, all at once, traces their traffic, and takes them back. Builds the scenario that they need where it
/// is not up.
///
/// # Errors
/// When a fault cannot be put in place or taken back, its traffic cannot be sent, or the tracer does not work. What was put in
/// place is taken back also then.
pub fn prove(faults: &[&'static Fault], by: By<'_>, stop: &AtomicBool) -> Result<Proof, Error> {
    let Some(first) = faults.first() else { return Err(Error::WhichOne(0)) };
    ready(first.scenario, stop)?;
    let proof = in_place(faults, by, stop);
    let cleared = super::clear();
    let proof = proof?;
    cleared?;
    Ok(proof)
}

/// Without any fault: what the tracer says of clean traffic alone.
///
/// # Errors
/// As [`prove`].
pub fn prove_clean(scenario: Scenario, by: By<'_>, stop: &AtomicBool) -> Result<Proof, Error> {
    ready(scenario, stop)?;
    trace(&[], scenario, by, stop)
}

fn ready(scenario: Scenario, stop: &AtomicBool) -> Result<(), Error> {
    lab::up(scenario, stop)?;
    super::clear()?;
    // Whoever does not know its neighbour gets no further than to ask for it, and a fault before this one may have seen to that.
    show::clean(Protocol::Udp, stop)?;
    acquaint(scenario)
}

/// Lets the talkers know each other for ever. Who has to ask again while a fault lets nothing pass is told that there is nobody,
/// and what it sends from then on does not come as far as the fault.
fn acquaint(scenario: Scenario) -> Result<(), Error> {
    let [server, client] = scenario.layout().talkers;
    if server.place == client.place {
        return Ok(());
    }
    for (end, other) in [(server, client), (client, server)] {
        let Some(address) = other.address else { continue };
        let command = format!("ip neigh change {address} dev {} nud permanent", end.device);
        step::inside(end.place, || command::run_line(&command))??;
    }
    Ok(())
}

fn in_place(faults: &[&'static Fault], by: By<'_>, stop: &AtomicBool) -> Result<Proof, Error> {
    for (index, fault) in faults.iter().enumerate() {
        inject(fault, index > 0, stop)?;
    }
    trace(faults, faults[0].scenario, by, stop)
}

fn trace(faults: &[&'static Fault], scenario: Scenario, by: By<'_>, stop: &AtomicBool) -> Result<Proof, Error> {
    let layout = scenario.layout();
    let [_, client] = layout.talkers;
    let tracer = tracer::Tracer::start(by, client.device)?;
    let clean = beside::Clean::start(layout)?;
    let (mut traffic, mut shown) = (Vec::new(), true);
    if faults.is_empty() {
        for protocol in [Protocol::Udp, Protocol::Tcp] {
            let report = show::clean(protocol, stop)?;
            shown &= report.is_clean();
            traffic.extend(report.lines());
        }
    }
    let mut effects = Vec::new();
    for fault in faults {
        let seen = show::run(fault, stop)?;
        traffic.extend(seen.lines);
        effects.push(seen.effect);
    }
    // Of several faults one may swallow the other's traffic.
    shown &= if effects.len() > 1 { effects.contains(&true) } else { !effects.contains(&false) };
    let clean = clean.finish();
    let output = tracer.finish()?;
    let verdicts: Vec<_> = faults.iter().map(|fault| (fault.name, fault.verdict)).collect();
    Ok(Proof {
        faults: faults.iter().map(|fault| fault.name).collect(),
        backend: by.backend,
        beyond: faults.iter().filter_map(|fault| fault.verdict.beyond(by.backend)).collect(),
        traffic,
        shown,
        clean: (clean.intact.len(), clean.sent),
        judgement: judge::judge(&verdicts, &Way::new(layout, by.backend), &clean, &output)?,
    })
}
