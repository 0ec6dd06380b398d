//! What happens between the events and the output, the same for a live run and for a recorded one: so that a recording
//! shows what the run showed, byte for byte.

use std::io;

use skbtrace_common::Event;

use super::output::Output;
use crate::{
    render::{Names, finding},
    trace::{HopBooks, Losses, StitchOptions, Stitcher, Summary},
};

/// The stitcher and the output that its packets go to.
pub struct Session {
    stitcher: Stitcher,
    output: Output,
}

impl Session {
    /// Begins.
    #[must_use]
    pub fn new(options: StitchOptions, output: Output) -> Session {
        Session { stitcher: Stitcher::new(options), output }
    }

    /// Takes an event, prints the packets that it completes, and returns how many of them have a number. What became of
    /// them is told to `findings`, if anybody wants to know.
    pub fn event(
        &mut self,
        event: &Event,
        names: &dyn Names,
        mut findings: Option<&mut Vec<String>>,
    ) -> io::Result<u64> {
        let Session { stitcher, output } = self;
        let (mut outcome, mut count) = (Ok(()), 0);
        stitcher.push(event, &mut |packet| {
            count += u64::from(packet.number.is_some());
            if let Some(findings) = &mut findings {
                findings.push(finding(&packet, names));
            }
            if outcome.is_ok() {
                outcome = output.packet(&packet, names);
            }
        });
        outcome.map(|()| count)
    }

    /// Takes note of the time and of what has been lost.
    pub fn tick(&mut self, now_ns: u64, losses: Losses, names: &dyn Names) -> io::Result<()> {
        self.output.losses(&losses);
        self.stitcher.set_losses(losses);
        let Session { stitcher, output } = self;
        let mut outcome = Ok(());
        stitcher.tick(now_ns, &mut |packet| {
            if outcome.is_ok() {
                outcome = output.packet(&packet, names);
            }
        });
        outcome.and_then(|()| output.flush())
    }

    /// What has been lost, said to nobody.
    pub fn set_losses(&mut self, losses: Losses) {
        self.stitcher.set_losses(losses);
    }

    /// The books of the hops.
    pub fn set_hops(&mut self, hops: Vec<HopBooks>) {
        self.stitcher.set_hops(hops);
    }

    /// Prints the packets that are under way.
    pub fn finish(&mut self, now_ns: u64, names: &dyn Names) -> io::Result<()> {
        let Session { stitcher, output } = self;
        let mut outcome = Ok(());
        stitcher.finish(now_ns, &mut |packet| {
            if outcome.is_ok() {
                outcome = output.packet(&packet, names);
            }
        });
        outcome.and_then(|()| output.flush())
    }

    /// Prints the books.
    pub fn books(&mut self, names: &dyn Names) -> io::Result<()> {
        self.output.summary(self.stitcher.summary(), names)
    }

    /// The books.
    #[must_use]
    pub fn summary(&self) -> &Summary {
        self.stitcher.summary()
    }

    /// The stitcher.
    #[must_use]
    pub fn stitcher(&self) -> &Stitcher {
        &self.stitcher
    }

    /// The output.
    pub fn output(&mut self) -> &mut Output {
        &mut self.output
    }
}
