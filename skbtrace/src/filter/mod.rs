//! Expressions of pcap-filter(7): which packets a run is about, decided in the kernel.
//!
//! - `libpcap`, `tcpdump`: libpcap, as a library or by way of tcpdump
//! - `compile`: an expression → classic BPF, and where in it the fault is
//! - `cbpf`: classic BPF; `ebpf`: instructions that the kernel runs
//! - `translate`: classic BPF → a program of the kernel's. Pure
//! - `object`: that program in the form in which a loader takes it. Pure
//!
//! Each expression is compiled twice: for packets that begin with their Ethernet header, and for those that have none yet, which
//! a sending host sees at its first hops. What only an Ethernet header can answer is answered no there: such a packet is asked
//! about again where it has one.

mod cbpf;
mod compile;
mod ebpf;
mod libpcap;
mod object;
mod tcpdump;
mod translate;

use compile::Compiler;
pub use compile::{CompileError, Fault};
pub use ebpf::Insn;
pub use object::{Kind, object};
use thiserror::Error;
pub use translate::{Places, TranslateError, translate};

/// What a packet begins with: the values are libpcap's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Link {
    /// An Ethernet header: DLT_EN10MB.
    Ethernet = 1,
    /// An IPv4 or IPv6 header: DLT_RAW, whose number on Linux this is.
    Network = 12,
}

/// Why an expression cannot be used.
#[derive(Debug, Error)]
pub enum FilterError {
    /// It was not compiled.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// It was compiled, and cannot run in the kernel.
    #[error("the filter expression cannot run in the kernel: {0}")]
    Translate(#[from] TranslateError),
}

/// An expression, compiled.
#[derive(Clone, Debug)]
pub struct Expression {
    link: Vec<cbpf::Insn>,
    network: Option<Vec<cbpf::Insn>>,
}

impl Expression {
    /// Compiles an expression. One without a word wants every packet, and is none.
    ///
    /// # Errors
    /// When libpcap refuses it, or is not there, and when the kernel has no program like it.
    pub fn compile(text: &str) -> Result<Option<Expression>, FilterError> {
        if text.trim().is_empty() {
            return Ok(None);
        }
        let compiler = Compiler::find();
        let link = compiler.compile(text, Link::Ethernet)?;
        let network = match compiler.compile(text, Link::Network) {
            Ok(program) => Some(program),
            // It asks for what no packet has before its Ethernet header.
            Err(CompileError::Refused(_)) => None,
            Err(error) => return Err(error.into()),
        };
        let expression = Expression { link, network };
        // Once for nothing, so that what cannot run is said before anything is attached.
        let nowhere = Places { windows: 0, window: 0, programs: 0, answer: 0 };
        for program in expression.programs() {
            translate(program.1, nowhere)?;
        }
        Ok(Some(expression))
    }

    /// The programs, and what packets each is for.
    pub fn programs(&self) -> impl Iterator<Item = (Link, &[cbpf::Insn])> {
        let network = self.network.as_deref().map(|program| (Link::Network, program));
        [(Link::Ethernet, &self.link[..])].into_iter().chain(network)
    }

    /// How many of a packet's first bytes it can look at.
    #[must_use]
    pub fn reach(&self) -> u16 {
        let reach = self.programs().map(|(_, program)| translate::reach(program)).max().unwrap_or(1);
        // No more than a window has.
        u16::try_from(reach).unwrap_or(u16::MAX)
    }
}

#[cfg(test)]
mod tests;
