//! `skbtrace hops`: the catalogue, and what this kernel has of it.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use anyhow::Result;

use super::told;
use crate::{
    hops::{Backend, CATALOGUE, Fate, Plan},
    host::Host,
};

const BACKENDS: [Backend; 2] = [Backend::Kprobe, Backend::Tracepoint];

/// Of what.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// List the hops of this backend [default: all of both]
    #[arg(long, value_name = "BACKEND")]
    backend: Option<Backend>,
}

/// Lists them.
pub fn run(args: &Args) -> Result<ExitCode> {
    // The catalogue is worth reading also where nothing can be traced.
    let (plans, error) = match Host::look() {
        Ok(host) => (BACKENDS.map(|backend| Plan::for_host(&host, backend)).to_vec(), None),
        Err(error) => (Vec::new(), Some(error)),
    };
    let mut text = String::new();
    for hop in CATALOGUE.iter().filter(|hop| args.backend.is_none_or(|backend| hop.is_of(backend))) {
        text.push_str(hop.name());
        match hop.only {
            None => text.push_str("  (both backends)"),
            Some(Backend::Tracepoint) => text.push_str("  (tracepoint backend)"),
            Some(Backend::Kprobe) => {}
        }
        if let Some(Fate::LeftOut(reason)) = plans.iter().find_map(|plan| plan.fate(hop)) {
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
