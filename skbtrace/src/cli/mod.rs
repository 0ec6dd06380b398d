//! The command line: a file per subcommand. Each says what is to be done; the library does it.

mod hops;
mod lab;
mod look;
mod run;
mod show;
mod survey;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Follows packets through veth pairs and bridges in the Linux kernel, hop by hop, and says where each one ended.
#[derive(Debug, Parser)]
#[command(name = "skbtrace", version, max_term_width = 100)]
#[command(after_help = "\
Examples:
  skbtrace run --iface calmveth1                     trace all that crosses calmveth1, in whatever netns it is
  skbtrace run --iface eth0 --netns web --proto tcp --port 80 --count 10
  skbtrace run --iface calmveth1 -- curl -s http://78.78.0.10:8000/
  skbtrace run --iface calmveth1 --json | jq .outcome
  skbtrace run --iface calmveth1 -w trace.pcapng     record; Wireshark opens it, and so does
  skbtrace show trace.pcapng --proto tcp --port 80
  skbtrace lab up && skbtrace lab traffic            a lab to try it on

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
    /// List what on this host can change, drop or delay packets, without tracing any
    Survey(survey::Args),
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
            Command::Survey(args) => survey::run(args),
            Command::Lab(args) => lab::run(args),
            Command::Hops(args) => hops::run(&args),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::Cli;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
