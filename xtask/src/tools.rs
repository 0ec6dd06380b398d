//! Other people's programs: found also where a user's PATH does not look, and named together with the cure when missing.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context as _, Result};

/// Where a program is: on the PATH, or where Debian keeps programs for administrators.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(system).map(|dir| dir.join(program)).find(|path| path.is_file())
}

/// A command of a program that set-up installs.
///
/// # Errors
/// Where it is missing.
pub fn command(program: &str) -> Result<Command> {
    let path = find(program).with_context(|| format!("{program} is missing: run `cargo xtask setup`"))?;
    Ok(Command::new(path))
}

/// What a failed program said last, for an error message.
pub fn said(done: &Output) -> String {
    let text = String::from_utf8_lossy(&done.stderr);
    let text = if text.trim().is_empty() { String::from_utf8_lossy(&done.stdout) } else { text };
    text.trim().to_owned()
}

/// The text of a file; where it cannot be read, an error that names it.
///
/// # Errors
/// Those of reading.
pub fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("{}: cannot read", path.display()))
}
