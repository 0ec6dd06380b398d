//! What happens between the events and the output, the same for a live run and for a recorded one: so that a recording
//! shows what the run showed, byte for byte.

use std::io;

use skbtrace_common::{Digest, Event};

use super::output::Output;
use crate::{
    render::{HostOf, Names, finding},
    survey::Survey,
    trace::{HopBooks, Losses, Packet, StitchOptions, Stitcher, Summary},
    verdict::{Explained, Findings, Payload, explain, payload},
};

/// The stitcher, what is found in its packets, and the output that they go to.
pub struct Session {
    stitcher: Stitcher,
    judge: Judge,
    explained: Vec<Explained>,
}

/// What happens to each packet that is finished.
struct Judge {
    output: Output,
    findings: Findings,
    garbled: u64,
}

impl Judge {
    /// Says all there is to say of a packet, once.
    fn packet(&mut self, packet: &Packet, names: &dyn Names, remarks: Option<&mut Vec<String>>) -> io::Result<()> {
        if packet.number.is_none() && remarks.is_none() {
            // Nobody is told of it: its payload need not be compared.
            return Ok(());
        }
        let payload = payload(packet);
        self.garbled += u64::from(packet.number.is_some() && matches!(payload, Payload::Garbled(_)));
        self.findings.observe(packet, &payload, &|address| names.symbol(address));
        if let Some(remarks) = remarks {
            remarks.push(finding(packet, &payload, names));
        }
        self.output.packet(packet, &payload, names)
    }
}

/// Keeps the first error of several results.
fn keep_first(outcome: &mut io::Result<()>, next: io::Result<()>) {
    if outcome.is_ok() {
        *outcome = next;
    }
}

impl Session {
    /// Begins. Waits of `slow_ns` nanoseconds are findings; see [`Findings::new`].
    #[must_use]
    pub fn new(options: StitchOptions, slow_ns: Option<u64>, output: Output) -> Session {
        let findings = Findings::new(options.reasons.clone(), slow_ns);
        let judge = Judge { output, findings, garbled: 0 };
        Session { stitcher: Stitcher::new(options), judge, explained: Vec::new() }
    }

    /// Takes an event with its digest and the packet's first bytes, prints the packets that it completes, and returns how many of them have a number. What became of
    /// them is told to `remarks`, if anybody wants to know.
    pub fn event(
        &mut self,
        event: &Event,
        (digest, frame): (&Digest, &[u8]),
        names: &dyn Names,
        mut remarks: Option<&mut Vec<String>>,
    ) -> io::Result<u64> {
        let Session { stitcher, judge, .. } = self;
        let (mut outcome, mut count) = (Ok(()), 0);
        stitcher.push_copied(event, digest, frame, &mut |packet| {
            count += u64::from(packet.number.is_some());
            // What cannot be printed is counted all the same.
            keep_first(&mut outcome, judge.packet(&packet, names, remarks.as_deref_mut()));
        });
        outcome.map(|()| count)
    }

    /// Takes note of the time and of what has been lost. Returns how many packets with a number that finished: none while there are
    /// events that have not been read, for then nothing has been silent.
    pub fn tick(&mut self, now_ns: u64, losses: Losses, is_behind: bool, names: &dyn Names) -> io::Result<u64> {
        self.judge.output.losses(&losses);
        self.stitcher.set_losses(losses);
        let Session { stitcher, judge, .. } = self;
        let (mut outcome, mut count) = (Ok(()), 0);
        if is_behind {
            stitcher.note_losses(now_ns);
            return Ok(0);
        }
        stitcher.tick(now_ns, &mut |packet| {
            count += u64::from(packet.number.is_some());
            keep_first(&mut outcome, judge.packet(&packet, names, None));
        });
        outcome.and_then(|()| judge.output.flush()).map(|()| count)
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
        let Session { stitcher, judge, .. } = self;
        let mut outcome = Ok(());
        stitcher.finish(now_ns, &mut |packet| {
            keep_first(&mut outcome, judge.packet(&packet, names, None));
        });
        outcome.and_then(|()| judge.output.flush())
    }

    /// Whether there is anything to explain.
    #[must_use]
    pub fn has_findings(&self) -> bool {
        !self.judge.findings.all().is_empty()
    }

    /// Prints what was found, explained by what there is on the host, where that is known.
    pub fn findings(&mut self, survey: Option<&Survey>, names: &dyn Names) -> io::Result<()> {
        let found = self.judge.findings.all();
        self.explained = found.into_iter().map(|finding| explain(finding, survey, &HostOf(names))).collect();
        self.judge.output.findings(&self.explained, names)
    }

    /// Prints the books, and in formats for programs what was found with them.
    pub fn books(&mut self, names: &dyn Names) -> io::Result<()> {
        let summary = self.summary();
        self.judge.output.summary(&summary, &self.explained, names)
    }

    /// What was found, since [`Session::findings`].
    #[must_use]
    pub fn explained(&self) -> &[Explained] {
        &self.explained
    }

    /// The books.
    #[must_use]
    pub fn summary(&self) -> Summary {
        Summary { garbled: self.judge.garbled, ..self.stitcher.summary().clone() }
    }

    /// The stitcher.
    #[must_use]
    pub fn stitcher(&self) -> &Stitcher {
        &self.stitcher
    }

    /// The output.
    pub fn output(&mut self) -> &mut Output {
        &mut self.judge.output
    }
}
