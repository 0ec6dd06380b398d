//! The commands that read the rules of netfilter, run in the namespace of the calling thread.

use std::{
    io::{self, Read},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
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

/// More than this is no list that anyone has written.
const MAX_OUTPUT: u64 = 32 << 20;
/// So much of a complaint is read.
const MAX_COMPLAINT: u64 = 4 << 10;

/// Runs a command to its end, or until it has printed more than is read.
pub(super) fn run(program: &str, arguments: &[&str]) -> Answer {
    run_up_to(program, arguments, MAX_OUTPUT)
}

fn run_up_to(program: &str, arguments: &[&str], most: u64) -> Answer {
    // What they print is read by us: it must be in English.
    let mut command = Command::new(program);
    command.args(arguments).env("LC_ALL", "C").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let ended = command.spawn().and_then(|mut child| read(&mut child, most));
    match ended {
        Ok((status, said, _)) if status.success() => Answer::Said(said),
        Ok((_, said, _)) if said.len() as u64 > most => {
            Answer::Failed(format!("it lists more than {} MiB, which are not gone through", most >> 20))
        }
        Ok((status, _, complaint)) => {
            let said = complaint.trim_ascii().split(|byte| *byte == b'\n').next().unwrap_or_default();
            Answer::Failed(if said.is_empty() { status.to_string() } else { printable(said) })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Answer::Missing,
        Err(error) => Answer::Failed(error.to_string()),
    }
}

/// Both streams at once, or the command would wait for us and we for it. One that prints more than `most` bytes is killed.
fn read(child: &mut Child, most: u64) -> io::Result<(ExitStatus, Vec<u8>, Vec<u8>)> {
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (mut said, mut complaint) = (Vec::new(), Vec::new());
    let read = thread::scope(|scope| {
        scope.spawn(|| {
            let Some(mut stderr) = stderr else { return };
            // What is missing of a complaint is no reason to have none of the answer.
            let _ = stderr.by_ref().take(MAX_COMPLAINT).read_to_end(&mut complaint);
            let _ = io::copy(&mut stderr, &mut io::sink());
        });
        let read = stdout.map_or(Ok(0), |stdout| stdout.take(most + 1).read_to_end(&mut said));
        if read.is_err() || said.len() as u64 > most {
            child.kill()?;
        }
        read
    });
    let status = child.wait()?;
    read.map(|_| (status, said, complaint))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_told_from_what_fails_and_from_what_is_not_there() {
        assert!(matches!(run("sh", &["-c", "echo yes; echo no >&2"]), Answer::Said(said) if said == b"yes\n"));
        assert!(matches!(run("sh", &["-c", "echo no >&2; exit 3"]), Answer::Failed(said) if said == "no"));
        assert!(matches!(run("skbtrace-has-no-such-program", &[]), Answer::Missing));
    }

    #[test]
    fn what_does_not_end_is_ended() {
        let endless = run_up_to("sh", &["-c", "while :; do echo more; echo more >&2; done"], 1 << 20);
        assert!(matches!(endless, Answer::Failed(said) if said.starts_with("it lists more than 1 MiB")));
    }
}
