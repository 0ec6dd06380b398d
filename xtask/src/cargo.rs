//! Cargo as a program, and the folders that it works in.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use crate::toolchain;

/// The cargo that started us, in the workspace.
pub fn command() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
    command.current_dir(workspace());
    // What cargo told us about ourselves is not meant for the next cargo.
    for (name, _) in std::env::vars_os() {
        let about_us = name.to_str().is_some_and(|n| n.starts_with("CARGO_PKG_") || n.starts_with("CARGO_MANIFEST_"));
        if about_us {
            command.env_remove(name);
        }
    }
    command
}

/// The root of the repository.
pub fn workspace() -> PathBuf {
    // At run time where cargo says so: a repository can be moved.
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    Path::new(&manifest).parent().map(Path::to_path_buf).unwrap_or_default()
}

/// The folder that cargo builds into, wherever a setting has put it.
///
/// # Errors
/// Where this program lies outside of it.
pub fn target_dir() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    toolchain::target_dir_above(&own).context("start this with `cargo xtask`")
}

/// Where the build looks for its own tools: the same places as in skbtrace's build script.
///
/// # Errors
/// As [`target_dir`].
pub fn tools_dirs() -> Result<Vec<PathBuf>> {
    Ok(vec![target_dir()?.join("tools"), workspace().join("target/tools")])
}

/// Builds with the arguments and the environment given and returns the path of the program that came of the target called `name`.
///
/// # Errors
/// Where it does not build, or nothing of that name is built.
pub fn executable(args: &[&str], env: &[(&str, &OsStr)], name: &str) -> Result<PathBuf> {
    let done = command()
        .args(args)
        .envs(env.iter().copied())
        .arg("--message-format=json-render-diagnostics")
        .stderr(Stdio::inherit())
        .output()
        .context("cargo does not start")?;
    ensure!(done.status.success(), "cargo {} failed", args.join(" "));
    let messages = String::from_utf8_lossy(&done.stdout).into_owned();
    let path = messages.lines().find_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let found = message.get("target")?.get("name")? == name;
        found.then(|| message.get("executable")?.as_str().map(PathBuf::from)).flatten()
    });
    path.with_context(|| format!("cargo {} builds no program {name}", args.join(" ")))
}
