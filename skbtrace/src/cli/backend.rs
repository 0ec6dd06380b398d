//! `--backend`, of whatever traces: one that is named, or the best that works here.

use clap::ValueEnum;

use crate::hops::Backend;

/// What to trace by.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(super) struct BackendArgs {
    /// What to trace by [default: kprobes, or raw tracepoints where there are none]
    #[arg(long, value_name = "BACKEND", default_value = "auto", hide_default_value = true)]
    backend: Choice,
}

/// A backend, or the best that works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Choice {
    /// The best that works here, said in a line
    Auto,
    /// kprobes, and raw tracepoints where they say as much
    Kprobe,
    /// Raw tracepoints alone: fewer hops, and any kernel will do, locked down or without kprobes
    Tracepoint,
}

impl BackendArgs {
    /// The one that was named.
    pub(super) fn named(self) -> Option<Backend> {
        match self.backend {
            Choice::Auto => None,
            Choice::Kprobe => Some(Backend::Kprobe),
            Choice::Tracepoint => Some(Backend::Tracepoint),
        }
    }
}
