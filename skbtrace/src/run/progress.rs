//! A line on the terminal that says how far something is, when it takes more than a second.

use std::{
    io::{self, IsTerminal as _, Write as _},
    time::{Duration, Instant},
};

/// Progress of one thing.
pub struct Progress {
    what: &'static str,
    since: Instant,
    shown: bool,
    terminal: bool,
}

impl Progress {
    /// Of this.
    #[must_use]
    pub fn new(what: &'static str) -> Progress {
        Progress { what, since: Instant::now(), shown: false, terminal: io::stderr().is_terminal() }
    }

    /// So many of so many are done.
    pub fn show(&mut self, done: usize, all: usize) {
        if self.terminal && self.since.elapsed() > Duration::from_secs(1) {
            self.shown = true;
            // A line that cannot be shown is not missed.
            let _ = write!(io::stderr(), "\r{} {done} of {all}\x1b[K", self.what);
        }
    }

    /// Takes the line away.
    pub fn clear(&mut self) {
        if self.shown {
            self.shown = false;
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}
