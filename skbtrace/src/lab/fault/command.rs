//! Runs the system's commands, and makes of what they say an answer that names the next step.

use std::{
    io,
    process::{Command, Stdio},
};

use crate::name::printable;

/// Why a step could not be taken, or not be taken back.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command is not on this machine.
    #[error("there is no {program} on this machine: the Debian package {package} has it")]
    NoProgram {
        /// The command.
        program: String,
        /// The package.
        package: &'static str,
    },
    /// The kernel lacks what the step needs.
    #[error(
        "this kernel lacks the module {module} (`{command}` said: {answer}; `modprobe {module}` said: {why}): install the \
         modules of the running kernel (Debian: the whole linux-image package, not the cloud one), or boot one that has it"
    )]
    NoModule {
        /// The module.
        module: &'static str,
        /// The command that needed it.
        command: String,
        /// What the command said.
        answer: String,
        /// What modprobe said.
        why: String,
    },
    /// A command failed.
    #[error("`{command}` said: {answer}")]
    Refused {
        /// The command.
        command: String,
        /// What it said.
        answer: String,
    },
    /// Something else was refused.
    #[error("could not {doing}: {answer}")]
    Failed {
        /// What, to be read after "could not".
        doing: String,
        /// The kernel's answer.
        answer: io::Error,
    },
    /// The namespace is not there, or may not be entered.
    #[error(transparent)]
    Lab(#[from] Box<crate::lab::Error>),
}

/// What the commands say when there is nothing to take back.
const GONE: [&str; 10] = [
    "Cannot delete qdisc with handle of zero",
    "Invalid handle",
    "Cannot find specified",
    "Cannot find device",
    "Cannot find bridge device",
    "No such file or directory",
    "No such process",
    "Address not found",
    "does a matching rule exist in that chain",
    // What a kernel cannot do it has not done.
    "Operation not supported",
];

/// Takes what a command answered to being asked to take something back: whether there was anything.
pub(super) fn undone(answer: Result<(), Error>) -> Result<bool, Error> {
    match answer {
        Ok(()) => Ok(true),
        Err(Error::Refused { answer, .. }) if GONE.iter().any(|gone| answer.contains(gone)) => Ok(false),
        Err(Error::Failed { answer, .. }) if answer.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Runs a command, words between spaces.
pub(super) fn run_line(line: &str) -> Result<(), Error> {
    run_words(&line.split(' ').collect::<Vec<_>>())
}

/// Runs a command and waits for it.
pub(super) fn run_words(words: &[&str]) -> Result<(), Error> {
    let command = || printable(words.join(" ").as_bytes());
    let [program, arguments @ ..] = words else { return Ok(()) };
    // What they say is compared with GONE: it must be in English.
    match Command::new(program).args(arguments).env("LC_ALL", "C").stdin(Stdio::null()).output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let said = [output.stderr.trim_ascii(), output.stdout.trim_ascii()].concat();
            let lines = said.split(|byte| *byte == b'\n').map(printable).collect::<Vec<_>>();
            let answer = if said.is_empty() { output.status.to_string() } else { lines.join("; ") };
            Err(Error::Refused { command: command(), answer })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(Error::NoProgram { program: (*program).to_owned(), package: package(program) })
        }
        Err(answer) => Err(Error::Failed { doing: format!("run `{}`", command()), answer }),
    }
}

fn package(program: &str) -> &'static str {
    match program {
        "tc" | "ip" | "bridge" => "iproute2",
        "nft" => "nftables",
        "iptables" => "iptables",
        "ebtables" => "ebtables",
        "modprobe" | "rmmod" => "kmod",
        _ => "with its name",
    }
}

/// Loads a module; the answer where that fails.
pub(super) fn modprobe(module: &str) -> Result<(), String> {
    match run_words(&["modprobe", "--", module]) {
        Ok(()) => Ok(()),
        Err(Error::Refused { answer, .. }) => Err(answer),
        Err(error) => Err(error.to_string()),
    }
}

/// Takes a step that needs a module. The kernel loads it by itself where it can run modprobe.
pub(super) fn with_module(
    module: Option<&'static str>,
    mut take: impl FnMut() -> Result<(), Error>,
) -> Result<(), Error> {
    match (take(), module) {
        (Err(Error::Refused { command, answer }), Some(module)) => match modprobe(module) {
            Ok(()) => take(),
            Err(why) => Err(Error::NoModule { module, command, answer, why }),
        },
        (done, _) => done,
    }
}
