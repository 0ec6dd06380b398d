//! What can go wrong when the kernel side is loaded and attached.

use std::io;

use aya::programs::ProgramError;
use thiserror::Error;

use crate::{filter::TranslateError, host::LayoutError};

/// Why capturing failed.
#[derive(Debug, Error)]
pub enum CaptureError {
    /// This kernel's structures are unknown.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The object was refused.
    #[error("the kernel refused skbtrace's maps: {0}")]
    Load(#[from] aya::EbpfError),
    /// A program was refused.
    #[error("the kernel refused the program of hop {hop}: {source}")]
    Program {
        /// The hop.
        hop: &'static str,
        /// Why.
        source: ProgramError,
    },
    /// No hop could be attached.
    #[error("none of the hops could be attached; the first refusal was {0}")]
    NothingAttached(String),
    /// A map could not be used.
    #[error("map {name}: {source}")]
    Map {
        /// The map.
        name: &'static str,
        /// Why.
        source: aya::maps::MapError,
    },
    /// The kernel refused a system call.
    #[error("{call}: {source}")]
    Call {
        /// The call.
        call: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The user's expression has no program like it.
    #[error("the filter expression cannot run in the kernel: {0}")]
    Translate(#[from] TranslateError),
    /// It has no object file.
    #[error("the filter expression cannot be put into a file: {0}")]
    Object(#[from] object::write::Error),
    /// The object and this code are of different versions.
    #[error("the embedded object has no {0}: it was built from other sources")]
    Missing(&'static str),
}
