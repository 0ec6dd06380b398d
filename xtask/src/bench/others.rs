//! Other people's tracers: where they are, and how they come here. One that cannot be had is left out, and the report says why: a
//! bench without pwru is still one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use super::plan::{Programs, Tool};
use crate::{cargo, setup, tools, vm};

/// Debian has pwru from here on, the oldest first: the older, the older the libraries that it needs.
const SUITES: [&str; 3] = ["trixie", "forky", "sid"];

/// Finds or fetches what these tools need; the tools that cannot be measured, each with the reason.
pub fn find(wanted: &[Tool], programs: &mut Programs) -> BTreeMap<Tool, String> {
    let mut missing = BTreeMap::new();
    for tool in wanted {
        let found = match tool {
            Tool::Bpftrace | Tool::BpftraceStack => bpftrace().map(|path| programs.bpftrace = Some(path)),
            Tool::Pwru => pwru().map(|path| programs.pwru = Some(path)),
            Tool::Retis => retis().map(|path| programs.retis = Some(path)),
            _ => Ok(()),
        };
        if let Err(why) = found {
            missing.insert(*tool, format!("{why:#}"));
        }
    }
    missing
}

/// What the programs say of their versions, by the names of the tools, and which state of the repository they were built from.
pub fn versions(programs: &Programs) -> impl Iterator<Item = (String, String)> {
    let all = [
        ("skbtrace", Some(&programs.skbtrace)),
        ("bpftrace", programs.bpftrace.as_ref()),
        ("pwru", programs.pwru.as_ref()),
        ("retis", programs.retis.as_ref()),
    ];
    let told = all.into_iter().filter_map(|(name, program)| Some((name.to_owned(), version(program?).ok()?)));
    told.chain(revision().map(|revision| ("revision".to_owned(), revision)))
}

/// None in what is no repository.
fn revision() -> Option<String> {
    let git = Command::new("git").current_dir(cargo::workspace()).args(["describe", "--always", "--dirty"]).output();
    git.ok().filter(|done| done.status.success()).map(|done| tools::said(&done))
}

fn version(program: &Path) -> Result<String> {
    let done = Command::new(program).arg("--version").output()?;
    ensure!(done.status.success(), "{} does not run here: {}", program.display(), tools::said(&done));
    let told = tools::said(&done);
    // So says Debian's pwru.
    if told.ends_with(" unknown") { Ok(package_of(program).unwrap_or(told)) } else { Ok(told) }
}

/// The package and its version, by the change log that is unpacked beside `usr/bin`: `pwru (1.0.5-1) …`.
fn package_of(program: &Path) -> Option<String> {
    let documents = program.parent()?.parent()?.join("share/doc").join(program.file_name()?);
    let log = documents
        .read_dir()
        .ok()?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("changelog.Debian")))?;
    let done = tools::command("gzip").ok()?.arg("-dc").arg(log).output().ok()?;
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    Some(format!("{})", text.split_once(')')?.0))
}

/// Debian's package needs LLVM and more: it is installed, as all that set-up installs.
fn bpftrace() -> Result<PathBuf> {
    if tools::find("bpftrace").is_none() {
        setup::packages::install(&["bpftrace".to_owned()])?;
    }
    tools::find("bpftrace").context("the package bpftrace has no bpftrace")
}

/// A newer suite's package, unpacked where nobody else looks.
fn pwru() -> Result<PathBuf> {
    let place = cargo::target_dir()?.join("tools/pwru");
    let program = place.join("usr/bin/pwru");
    if !program.is_file() {
        fetch("pwru", &place)?;
    }
    version(&program)?;
    Ok(program)
}

fn fetch(package: &str, place: &Path) -> Result<()> {
    for name in SUITES {
        let suite = vm::Suite::update(name, &cargo::target_dir()?.join("tools/apt").join(name))?;
        if suite.names(package)?.iter().any(|found| found == package) {
            eprintln!("fetching {package} ({name})…");
            std::fs::create_dir_all(place)?;
            return suite.unpack(package, place);
        }
    }
    bail!("none of the suites {} has a package {package}", SUITES.join(", "))
}

fn retis() -> Result<PathBuf> {
    tools::find("retis").context("it is not on the PATH, and Debian has no package of it")
}
