//! `skbtrace show`.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result};

use super::look::LookArgs;
use super::select::SelectArgs;
use crate::run::{Output, Replay, Replayed};

/// Which recording, and what of it.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
What the run printed is printed again, byte for byte; the parts of a rotated recording are one when they are given \
together, in their order. Filters choose packets; the books at the end are those of the whole recording.

A recording that is damaged or cut short is shown up to the damage, without books, and the exit status is 1.")]
pub struct Args {
    /// The recording, or its parts in their order; `-` is standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    look: LookArgs,
    #[command(flatten)]
    select: SelectArgs,
}

/// Shows it.
pub fn run(args: Args) -> Result<ExitCode> {
    let mut output = Output::new(args.look.resolve());
    if let Some(selection) = args.select.selection() {
        output = output.only(selection);
    }
    let (shown, missing) = replay(output, &args.files)?;
    if let Some(error) = missing {
        return Err(error);
    }
    match shown.complaint {
        Some(complaint) => anyhow::bail!(complaint),
        None => Ok(ExitCode::SUCCESS),
    }
}

/// Replays a recording, all its parts, to an output; with it comes why one of the parts could not be opened.
pub(super) fn replay(output: Output, files: &[PathBuf]) -> Result<(Replayed, Option<anyhow::Error>)> {
    let mut replay = Replay::new(output);
    let mut missing = None;
    for path in files {
        let input = match open(path) {
            Ok(input) => input,
            Err(error) => {
                // What the parts before it have open is still to be shown.
                missing = Some(error);
                break;
            }
        };
        if !replay.part(&path.display().to_string(), input).context("cannot write the output")? {
            break;
        }
    }
    let shown = replay.finish().context("cannot write the output")?;
    Ok((shown, missing))
}

fn open(path: &Path) -> Result<Box<dyn Read>> {
    if path == Path::new("-") {
        return Ok(Box::new(io::stdin()));
    }
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    Ok(Box::new(file))
}
