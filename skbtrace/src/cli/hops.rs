//! `skbtrace hops`: the catalogue, and what this kernel has of it.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use anyhow::Result;

use super::told;
use crate::{
    hops::{CATALOGUE, Fate, Plan},
    host::Host,
};

/// Nothing to choose yet.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Lists them.
pub fn run(_args: &Args) -> Result<ExitCode> {
    // The catalogue is worth reading also where nothing can be traced.
    let (plan, error) = match Host::look() {
        Ok(host) => (Some(Plan::for_host(&host)), None),
        Err(error) => (None, Some(error)),
    };
    let mut text = String::new();
    for (index, hop) in CATALOGUE.iter().enumerate() {
        text.push_str(hop.name());
        if let Some(Fate::LeftOut(reason)) = plan.as_ref().map(|plan| &plan.rows[index].fate) {
            text.push_str("  (not here: ");
            text.push_str(reason);
            text.push(')');
        }
        text.push_str("\n    ");
        text.push_str(hop.teaches);
        text.push('\n');
    }
    if let Some(error) = error {
        text.push_str(&format!("\nWhich of them this kernel has is not known: {}\n", told(&error.into())));
    }
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(ExitCode::SUCCESS),
    }
}
