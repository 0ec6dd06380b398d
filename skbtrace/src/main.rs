//! The command: parses, runs, and says what went wrong.

use std::process::ExitCode;

use clap::Parser as _;
use skbtrace::cli::{Cli, told};

fn main() -> ExitCode {
    match Cli::parse().run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("skbtrace: {}", told(&error));
            ExitCode::FAILURE
        }
    }
}
