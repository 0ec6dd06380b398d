//! `cargo xtask setup`: finds out what this machine lacks for building and testing, and installs just that.
//!
//! It looks for the programs themselves, not for packages, so it is right on every distribution and quick when nothing
//! is missing. Only the package manager ever runs as root.

pub mod packages;

use std::fs;
use std::io::{self, IsTerminal as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use regex_lite::Regex;

use crate::cargo;
use crate::toolchain::{self, Compiler};
use crate::{tools, vm};

/// The linker that fits aya 0.14, and the releases of LLVM that it can be built with.
const LINKER_VERSION: &str = "0.13.0";
const LINKER_LLVM: std::ops::RangeInclusive<u32> = 21..=23;

/// Debian's rustc that has `core` for BPF.
const PREBUILT: [&str; 2] = ["rustc-web", "libstd-rust-web-dev-bpf"];

/// Programs that machines, tests and the demo call, and the Debian package of each.
const PROGRAMS: [(&str, &str); 19] = [
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("depmod", "kmod"),
    ("setpriv", "util-linux"),
    ("dpkg-deb", "dpkg"),
    ("gpgv", "gpgv"),
    ("xz", "xz-utils"),
    ("zstd", "zstd"),
    ("ip", "iproute2"),
    // It brings libpcap, which compiles filter expressions: nothing is linked with it.
    ("tcpdump", "tcpdump"),
    ("tshark", "tshark"),
    ("curl", "curl"),
    ("python3", "python3"),
    ("iperf3", "iperf3"),
    ("nft", "nftables"),
    ("iptables", "iptables"),
    ("ebtables-legacy", "ebtables"),
    ("ethtool", "ethtool"),
    ("c++", "g++"),
    ("ps", "procps"),
];

/// Installs what is missing. Says a line for each part when `verbose`, and otherwise only what it installs.
///
/// # Errors
/// Where something cannot be installed from here; the error holds the commands that would.
pub fn run(verbose: bool) -> Result<()> {
    let mut packages = missing_programs();
    if toolchain::find_compiler().is_none() && prebuilt_is_available() {
        packages.extend(PREBUILT.map(str::to_owned));
        // Known before it is there, so that whoever has to type the command types it once.
        packages.extend(llvm_packages(llvm_of_archive()));
    }
    packages::install(&packages)?;

    if toolchain::find_compiler().is_none() {
        nightly()?;
    }
    let compiler =
        toolchain::find_compiler().context("the compiler for BPF is still missing after its installation")?;
    if toolchain::find_linker(&cargo::tools_dirs()?).is_none() {
        linker(&compiler)?;
    }
    let linker =
        toolchain::find_linker(&cargo::tools_dirs()?).context("bpf-linker is missing after its installation")?;
    if verbose {
        println!("kernel side: {compiler}; linked by {}", linker.display());
        println!("virtual machines: QEMU and all programs are here");
    }
    Ok(())
}

fn missing_programs() -> Vec<String> {
    let missing = PROGRAMS.into_iter().filter(|(program, _)| tools::find(program).is_none());
    let mut packages: Vec<String> = missing.map(|(_, package)| package.to_owned()).collect();
    if vm::find_busybox().is_none() {
        packages.push("busybox-static".to_owned());
    }
    if !Path::new(vm::KEYRING).is_file() {
        packages.push("debian-archive-keyring".to_owned());
    }
    packages
}

/// Whether Debian's compiler for BPF can be installed here, and would not push out a rustup that is a package.
fn prebuilt_is_available() -> bool {
    let installed = |package: &str| {
        let query = Command::new("dpkg-query").args(["-W", "-f", "${db:Status-Status}", package]).output();
        query.is_ok_and(|done| done.stdout == b"installed")
    };
    if installed("rustup") {
        return false;
    }
    let new_enough = |package: &&str| {
        let policy = Command::new("apt-cache").args(["policy", package]).output();
        policy.is_ok_and(|done| candidate_is_new_enough(&String::from_utf8_lossy(&done.stdout)))
    };
    // A machine that never updated its lists knows of no package: it may have this one.
    let blank = Command::new("apt-cache").args(["pkgnames", "qemu-system-x86"]).output();
    let blank = blank.is_ok_and(|done| done.status.success() && done.stdout.is_empty());
    if blank && packages::update().is_err() {
        return false;
    }
    PREBUILT.iter().all(new_enough)
}

/// Whether `apt-cache policy` offers a release of rustc that builds this workspace.
fn candidate_is_new_enough(policy: &str) -> bool {
    let candidate = policy.lines().find_map(|line| line.trim().strip_prefix("Candidate: 1."));
    let minor = candidate.and_then(|rest| rest.split('.').next()?.parse::<u32>().ok());
    minor.is_some_and(|minor| minor >= toolchain::OLDEST_MINOR)
}

/// The release of LLVM that the archive's compiler for BPF uses.
fn llvm_of_archive() -> Option<u32> {
    let depends = ["depends", "--recurse", "--important", PREBUILT[0]];
    let done = Command::new("apt-cache").args(depends).output().ok()?;
    let pattern = Regex::new(r"(?m)^libllvm(\d+)").ok()?;
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    pattern.captures_iter(&text).filter_map(|found| found.get(1)?.as_str().parse().ok()).max()
}

/// What it takes to build the linker with that LLVM.
fn llvm_packages(release: Option<u32>) -> Vec<String> {
    let Some(release) = release else { return Vec::new() };
    let own = [format!("llvm-{release}-dev"), format!("libpolly-{release}-dev")];
    own.into_iter().chain(["zlib1g-dev", "libzstd-dev"].map(str::to_owned)).collect()
}

fn nightly() -> Result<()> {
    let args = ["toolchain", "install", "nightly", "--profile", "minimal", "--component", "rust-src"];
    eprintln!("installing: rustup {}", args.join(" "));
    let done = Command::new("rustup").args(args).status();
    let worked = done.is_ok_and(|status| status.success()) && toolchain::find_compiler().is_some();
    ensure!(
        worked,
        "no compiler for BPF can be installed: either Debian's {} or `rustup {}`",
        PREBUILT.join(" and "),
        args.join(" ")
    );
    Ok(())
}

/// Installs the linker among the build's own tools.
fn linker(compiler: &Compiler) -> Result<()> {
    let root = cargo::target_dir()?.join("tools");
    let llvm = llvm_of(compiler)?;
    let prefix = PathBuf::from(format!("/usr/lib/llvm-{llvm}"));
    if let Compiler::Prebuilt { .. } = compiler {
        packages::install(&not_installed(llvm_packages(Some(llvm))))?;
    } else if !prefix.join("bin/llvm-config").is_file() {
        // Nightly runs ahead of every distribution's LLVM. The linker's authors offer programs with LLVM inside.
        let version = format!("{}@{LINKER_VERSION}", toolchain::LINKER);
        let done = cargo::command().args(["binstall", "--no-confirm", "--root"]).arg(&root).arg(version).status();
        ensure!(
            done.is_ok_and(|status| status.success()),
            "bpf-linker needs LLVM {llvm}, like nightly: install its development files under {}, or cargo-binstall, \
             and run this again",
            prefix.display()
        );
        return Ok(());
    }
    ensure!(
        LINKER_LLVM.contains(&llvm),
        "{compiler} uses LLVM {llvm}, and bpf-linker {LINKER_VERSION} knows {} to {}",
        LINKER_LLVM.start(),
        LINKER_LLVM.end()
    );
    eprintln!("building bpf-linker {LINKER_VERSION} with LLVM {llvm}: some minutes, once");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths([prefix.join("bin")].into_iter().chain(std::env::split_paths(&path)))?;
    let done = cargo::command()
        .args(["install", toolchain::LINKER, "--version", LINKER_VERSION, "--locked", "--no-default-features"])
        .args(["--features", &format!("llvm-{llvm}"), "--root"])
        .arg(&root)
        // Its own folder for the build: the one of this workspace is locked, and not for strangers.
        .env_remove("CARGO_TARGET_DIR")
        .env("LLVM_PREFIX", &prefix)
        .env("PATH", path)
        .status()?;
    ensure!(done.success(), "bpf-linker does not build");
    Ok(())
}

fn llvm_of(compiler: &Compiler) -> Result<u32> {
    let mut command = match compiler {
        Compiler::Prebuilt { rustc } => Command::new(rustc),
        Compiler::Nightly => {
            let mut command = Command::new("rustup");
            command.args(["run", "nightly", "rustc"]);
            command
        }
    };
    let done = command.arg("-vV").output()?;
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    let line = text.lines().find_map(|line| line.strip_prefix("LLVM version: "));
    line.and_then(|version| version.split('.').next()?.parse().ok()).context("the compiler does not tell its LLVM")
}

fn not_installed(packages: Vec<String>) -> Vec<String> {
    let query = Command::new("dpkg-query")
        .args(["-W", "-f", "${Package} ${db:Status-Status}\n"])
        .args(&packages)
        .output()
        .map(|done| String::from_utf8_lossy(&done.stdout).into_owned())
        .unwrap_or_default();
    packages.into_iter().filter(|package| !query.lines().any(|l| l == format!("{package} installed"))).collect()
}

/// Whether this process is root.
pub fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

/// Whether a single step could be run as root: by sudo without a question, or with one that somebody can answer.
pub fn can_be_root() -> bool {
    is_root()
        || (tools::find("sudo").is_some()
            && (io::stdin().is_terminal()
                || Command::new("sudo").args(["-n", "true"]).output().is_ok_and(|done| done.status.success())))
}

/// A command that runs as root. Never cargo: it would leave files that the user cannot change.
pub fn as_root(program: &str) -> Command {
    if is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    command.arg("--").arg(program);
    command
}

#[cfg(test)]
mod tests {
    use super::candidate_is_new_enough;

    #[test]
    fn only_a_compiler_that_builds_the_workspace_is_taken_from_the_archive() {
        let policy = |candidate: &str| format!("rustc-web:\n  Installed: (none)\n  Candidate: {candidate}\n");
        assert!(candidate_is_new_enough(&policy("1.96.0+dfsg1-1~deb12u2")));
        assert!(!candidate_is_new_enough(&policy("1.85.0+dfsg3-1~deb12u3")));
        assert!(!candidate_is_new_enough(&policy("(none)")));
        assert!(!candidate_is_new_enough(""));
    }
}
