//! Attaching and detaching, several hops at a time: each waits for the kernel's grace periods, and those can be shared. What is
//! attached together (see `together`) is one link among these.

use std::{
    os::fd::{AsFd as _, OwnedFd},
    sync::{Mutex, PoisonError, mpsc},
    thread,
};

use aya::programs::{
    KProbe, Program, ProgramError, RawTracePoint, kprobe::KProbeLink, raw_trace_point::RawTracePointLink,
};

use super::{CaptureError, bpf};
use crate::hops::{Hop, Probe};

/// So many hops are attached or detached at a time.
const AT_A_TIME: usize = 8;

/// An attached hop, or many. Dropping it detaches.
enum Link {
    #[expect(dead_code, reason = "kept for being dropped")]
    Probe(KProbeLink),
    #[expect(dead_code, reason = "kept for being dropped")]
    Tracepoint(RawTracePointLink),
    Together(OwnedFd),
}

/// Every attached hop. Dropping it detaches them all.
#[derive(Default)]
pub struct Links(Vec<Link>);

impl Links {
    /// Takes in others.
    pub fn append(&mut self, mut others: Links) {
        self.0.append(&mut others.0);
    }

    /// Takes in hops that are attached together.
    pub fn push(&mut self, together: OwnedFd) {
        self.0.push(Link::Together(together));
    }

    /// Hits of those that are attached together that never came as far as to their program.
    pub fn missed_together(&self) -> u64 {
        let missed = |link: &Link| match link {
            // What the kernel does not tell is not known.
            Link::Together(link) => bpf::missed(link.as_fd()).unwrap_or(0),
            _ => 0,
        };
        self.0.iter().map(missed).sum()
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        let links = Mutex::new(self.0.drain(..));
        thread::scope(|scope| {
            for _ in 0..AT_A_TIME {
                // What no thread can be had for is detached when `links` is dropped.
                let _ = thread::Builder::new().spawn_scoped(scope, || {
                    loop {
                        let link = links.lock().unwrap_or_else(PoisonError::into_inner).next();
                        if link.is_none() {
                            break;
                        }
                    }
                });
            }
        });
    }
}

/// Hops that the kernel refused to attach, and why.
pub type Refused = Vec<(&'static Hop, String)>;

/// Loads and attaches these hops.
///
/// # Errors
/// When the kernel refuses a program. That it refuses to attach one is no error.
pub fn attach_all(
    work: Vec<(&'static Hop, &mut Program)>,
    progress: &mut impl FnMut(usize, usize),
) -> Result<(Links, Refused), CaptureError> {
    let all = work.len();
    let work = Mutex::new(work.into_iter());
    let (sender, receiver) = mpsc::channel();
    let mut links = Links(Vec::with_capacity(all));
    let mut refused = Vec::new();
    thread::scope(|scope| -> Result<(), CaptureError> {
        for _ in 0..AT_A_TIME {
            let (work, sender) = (&work, sender.clone());
            scope.spawn(move || {
                loop {
                    let Some((hop, program)) = work.lock().unwrap_or_else(PoisonError::into_inner).next() else {
                        break;
                    };
                    if sender.send((hop, attach(program, hop))).is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        for (done, (hop, attached)) in receiver.iter().enumerate() {
            progress(done + 1, all);
            match attached? {
                Ok(link) => links.0.push(link),
                Err(reason) => refused.push((hop, reason)),
            }
        }
        Ok(())
    })?;
    Ok((links, refused))
}

/// Loads and attaches one hop: an inner error is the kernel's refusal to attach, in a few words.
fn attach(program: &mut Program, hop: &'static Hop) -> Result<Result<Link, String>, CaptureError> {
    let refused = |source| CaptureError::Program { hop: hop.name(), source };
    let attached = match hop.probe {
        Probe::Function => {
            let program: &mut KProbe = program.try_into().map_err(refused)?;
            program.load().map_err(refused)?;
            program.attach(hop.name(), 0).and_then(|id| program.take_link(id)).map(Link::Probe)
        }
        Probe::Tracepoint => {
            let program: &mut RawTracePoint = program.try_into().map_err(refused)?;
            program.load().map_err(refused)?;
            program.attach(hop.name()).and_then(|id| program.take_link(id)).map(Link::Tracepoint)
        }
    };
    Ok(attached.map_err(|error: ProgramError| reason(&error)))
}

/// The innermost cause: what the kernel said.
fn reason(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    format!("the kernel refused to attach: {innermost}")
}
