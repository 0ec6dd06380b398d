//! The command line: a file per subcommand. Each says what is to be done; the library does it.

mod backend;
mod doctor;
mod flow;
mod hops;
mod lab;
mod look;
mod report;
mod run;
mod segment;
mod select;
mod show;
mod survey;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::{capture::CaptureError, host::HostError};

/// Follows packets through veth pairs and bridges in the Linux kernel, hop by hop, and says where each one ended.
#[derive(Debug, Parser)]
#[command(name = "skbtrace", version, max_term_width = 100)]
#[command(after_help = "\
Examples:
  skbtrace run --iface calmveth1                     trace all that crosses calmveth1, in whatever netns it is
  skbtrace run --iface eth0 --netns web --proto tcp --port 80 --count 10
  skbtrace run --iface eth0 'tcp port 80 and not host 10.0.0.7'
  skbtrace run --iface calmveth1 -- curl -s http://78.78.0.10:8000/
  skbtrace run --iface calmveth1 --json | jq .outcome
  skbtrace run --iface calmveth1 -w trace.pcapng     record; Wireshark opens it, and so does
  skbtrace show trace.pcapng --proto tcp --port 80
  skbtrace report trace.pcapng -o trace.html         one page: findings, topology, every packet as a drawing
  skbtrace lab up && skbtrace lab traffic            a lab to try it on
  skbtrace doctor                                    does it work here, and what would be missing?

Exit status: 0 done, 1 failed, 2 wrong usage, 3 a packet of the kind that --fail-on names was found.")]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Trace the packets that cross an interface
    Run(run::Args),
    /// Print a recording of `run -w` again
    Show(show::Args),
    /// Make one page of a recording of `run -w`, to look at and to hand on; or a trace for Perfetto, or a diagram
    Report(report::Args),
    /// List what on this host can change, drop or delay packets, without tracing any
    Survey(survey::Args),
    /// Say whether a run can work on this machine, what it would lack, and what to do about it
    Doctor(doctor::Args),
    /// Build a lab of network namespaces to trace in, and send traffic through it
    Lab(lab::LabArgs),
    /// List the hops, what each does, and which of them this kernel has
    Hops(hops::Args),
}

impl Cli {
    /// Does what was asked for.
    ///
    /// # Errors
    /// Whatever went wrong, with its cause and the next step.
    pub fn run(self) -> Result<ExitCode> {
        match self.command {
            Command::Run(args) => run::run(args),
            Command::Show(args) => show::run(args),
            Command::Report(args) => report::run(&args),
            Command::Survey(args) => survey::run(args),
            Command::Doctor(args) => doctor::run(&args),
            Command::Lab(args) => lab::run(args),
            Command::Hops(args) => hops::run(&args),
        }
    }
}

/// An error as it is told: one that lies in what this machine offers leads on to the doctor.
#[must_use]
pub fn told(error: &anyhow::Error) -> String {
    let of_machine = |cause: &(dyn std::error::Error + 'static)| cause.is::<HostError>() || cause.is::<CaptureError>();
    let doctor = if error.chain().any(of_machine) { "; `skbtrace doctor` says what this machine offers" } else { "" };
    format!("{error:#}{doctor}")
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;
    use clap::CommandFactory as _;

    use super::{Cli, told};
    use crate::host::HostError;

    #[test]
    fn what_lies_in_the_machine_leads_to_the_doctor() {
        let old = || Err::<(), _>(HostError::TooOld("5.4.0".into()));
        let error = told(&old().context("cannot begin").unwrap_err());
        let words = "cannot begin: kernel 5.4.0 is too old: skbtrace needs Linux 5.10 or later; `skbtrace doctor` says";
        assert!(error.starts_with(words), "{error}");
        assert_eq!(told(&old().unwrap_err().into()).matches("doctor").count(), 1);
        assert_eq!(told(&anyhow::anyhow!("no interface x")), "no interface x");
    }

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
