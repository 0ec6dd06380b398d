//! What a tracer must say about a fault: typed, so that a program can compare it with what the tracer did say.

use serde::Serialize;

use crate::hops::Backend;
use crate::lab::Place;
use crate::verdict::{Cause, Class, Span};

/// What the tracer must find.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// What becomes of the packets.
    pub class: Class,
    /// Where in their timelines.
    pub span: Span,
    /// Where the device is.
    pub place: Place,
    /// The device at which it happens: that of the hop, or the one that the hop hands the packet to.
    pub device: &'static str,
    /// What kind of thing does it.
    pub cause: Cause,
    /// The cause in words, to be read after "cause:".
    pub because: &'static str,
    /// Whether the fault holds packets in a queue besides, without which it would not befall them.
    pub held: bool,
    /// The kernel's drop reasons that may stand at the end of these packets: every name that a kernel from 5.17 on has
    /// for it. None where the packets are delivered, and none where no kernel calls their end a drop.
    pub reasons: &'static [&'static str],
    /// Why a run by raw tracepoints alone cannot find it, where that is so: a sentence for the reader, to be read after a colon.
    /// Such a run must then find nothing.
    pub beyond_tracepoints: Option<&'static str>,
}

impl Verdict {
    /// Why a run by this backend cannot find it, where that is so.
    #[must_use]
    pub fn beyond(&self, backend: Backend) -> Option<&'static str> {
        self.beyond_tracepoints.filter(|_| backend == Backend::Tracepoint)
    }
}
