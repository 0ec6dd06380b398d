//! What happens between the events and the output, the same for a live run and for a recorded one: so that a recording
//! shows what the run showed, byte for byte.

use std::io;

use skbtrace_common::{Digest, Event};

use super::output::Output;
use crate::{
    render::{Names, finding},
    trace::{HopBooks, Losses, Packet, StitchOptions, Stitcher, Summary},
    verdict::{Payload, payload},
};

/// The stitcher and the output that its packets go to.
pub struct Session {
    stitcher: Stitcher,
    output: Output,
    garbled: u64,
}

impl Session {
    /// Begins.
    #[must_use]
    pub fn new(options: StitchOptions, output: Output) -> Session {
        Session { stitcher: Stitcher::new(options), output, garbled: 0 }
    }

    /// Takes an event, prints the packets that it completes, and returns how many of them have a number. What became of
    /// them is told to `findings`, if anybody wants to know.
    pub fn event(
        &mut self,
        event: &Event,
        digest: &Digest,
        names: &dyn Names,
        mut findings: Option<&mut Vec<String>>,
    ) -> io::Result<u64> {
        let Session { stitcher, output, garbled } = self;
        let (mut outcome, mut count) = (Ok(()), 0);
        stitcher.push_verified(event, digest, &mut |packet| {
            count += u64::from(packet.number.is_some());
            *garbled += u64::from(is_garbled(&packet));
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
        let Session { stitcher, output, garbled } = self;
        let mut outcome = Ok(());
        stitcher.tick(now_ns, &mut |packet| {
            *garbled += u64::from(is_garbled(&packet));
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
        let Session { stitcher, output, garbled } = self;
        let mut outcome = Ok(());
        stitcher.finish(now_ns, &mut |packet| {
            *garbled += u64::from(is_garbled(&packet));
            if outcome.is_ok() {
                outcome = output.packet(&packet, names);
            }
        });
        outcome.and_then(|()| output.flush())
    }

    /// Prints the books.
    pub fn books(&mut self, names: &dyn Names) -> io::Result<()> {
        let summary = self.summary();
        self.output.summary(&summary, names)
    }

    /// The books.
    #[must_use]
    pub fn summary(&self) -> Summary {
        Summary { garbled: self.garbled, ..self.stitcher.summary().clone() }
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

/// Whether it is a packet of the output whose payload changed.
fn is_garbled(packet: &Packet) -> bool {
    packet.number.is_some() && matches!(payload(packet), Payload::Garbled(_))
}
