//! Installs Debian packages, and takes nothing away for them.
//!
//! A machine may have a newer part of a package's family than its release has, a `qemu-utils` from backports for
//! instance: then the release's `qemu-system-x86` would push it out. Such a package is taken from backports as well,
//! which are asked only then, by a list of sources that is this run's own.

use std::fs;
use std::io;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use super::{as_root, can_be_root, is_root};
use crate::{tools, vm};

/// Nothing that is here may go: an installed rustup, for instance.
const INSTALL: [&str; 4] = ["install", "--yes", "--no-install-recommends", "--no-remove"];

/// Installs what is named; nothing to do for none.
///
/// # Errors
/// Where there is no apt or no way to be root, with the command to type; where apt fails.
pub fn install(packages: &[String]) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    if tools::find("apt-get").is_none() {
        bail!(
            "this machine lacks the programs of these Debian packages, and has no apt: {}\n\
             install them with its own package manager, then run this again",
            packages.join(" ")
        );
    }
    if !can_be_root() {
        bail!("as root, run:\n    apt-get update && apt-get install {}\nthen this again", packages.join(" "));
    }
    eprintln!("installing: {}", packages.join(" "));
    update()?;
    if fits(packages) {
        return apt(&[&INSTALL, &words(packages)[..]].concat());
    }
    let (here, other): (Vec<String>, _) = packages.iter().cloned().partition(|p| fits(std::slice::from_ref(p)));
    if !here.is_empty() {
        apt(&[&INSTALL, &words(&here)[..]].concat())?;
    }
    from_backports(&other)
}

/// Reads the lists of packages anew.
///
/// # Errors
/// Where apt fails.
pub fn update() -> Result<()> {
    apt(&["update"])
}

/// Whether apt would install these, and take nothing away.
fn fits(packages: &[String]) -> bool {
    let done = Command::new("apt-get").args(["-q", "--simulate"]).args(INSTALL).args(packages).output();
    done.is_ok_and(|done| done.status.success())
}

fn from_backports(packages: &[String]) -> Result<()> {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let release = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    let suite =
        format!("{}-backports", release.context("/etc/os-release names no release of Debian")?.trim_matches('"'));
    eprintln!("installing from {suite}, as this release's would push out something installed: {}", packages.join(" "));
    let own = fs::read_to_string("/etc/apt/sources.list").unwrap_or_default();
    let dir = tempfile::tempdir()?;
    let list = dir.path().join("sources.list");
    let line = format!("deb [signed-by={}] {} {suite} main", vm::KEYRING, vm::archive_of(&suite)?);
    fs::write(&list, format!("{own}\n{line}\n"))?;
    let source = format!("Dir::Etc::sourcelist={}", list.display());
    apt(&["-o", &source, "update"])?;
    apt(&[&["-o", &source, "--target-release", &suite], &INSTALL[..], &words(packages)].concat())
}

fn words(packages: &[String]) -> Vec<&str> {
    packages.iter().map(String::as_str).collect()
}

fn apt(args: &[&str]) -> Result<()> {
    let mut command = as_root("apt-get");
    command.arg("-q").args(args);
    if is_root() {
        command.env("DEBIAN_FRONTEND", "noninteractive");
    }
    // Its talk is progress, not what this command was asked for.
    let done = command.stdout(io::stderr()).status().context("apt-get does not start")?;
    ensure!(done.success(), "apt-get {} failed", args.join(" "));
    Ok(())
}
