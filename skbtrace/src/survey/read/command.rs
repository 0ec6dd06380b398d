//! The commands that read the rules of netfilter, run in the namespace of the calling thread.

use std::{
    io,
    process::{Command, Stdio},
};

use crate::name::printable;

/// What a command printed.
pub(super) enum Answer {
    /// Its standard output.
    Said(Vec<u8>),
    /// It is not installed.
    Missing,
    /// It failed; what it said, safe to print.
    Failed(String),
}

/// Runs a command to its end.
pub(super) fn run(program: &str, arguments: &[&str]) -> Answer {
    // What they print is read by us: it must be in English.
    match Command::new(program).args(arguments).env("LC_ALL", "C").stdin(Stdio::null()).output() {
        Ok(output) if output.status.success() => Answer::Said(output.stdout),
        Ok(output) => {
            let said = output.stderr.trim_ascii().split(|byte| *byte == b'\n').next().unwrap_or_default();
            Answer::Failed(if said.is_empty() { output.status.to_string() } else { printable(said) })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Answer::Missing,
        Err(error) => Answer::Failed(error.to_string()),
    }
}
