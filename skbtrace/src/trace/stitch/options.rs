//! What the stitcher is told of a run before its first event. A recording keeps all of it, so that `show` stitches alike.

use skbtrace_common::DeviceKey;

use crate::trace::outcome::Reasons;

/// What the stitcher needs to know of a run.
#[derive(Clone, Debug)]
pub struct StitchOptions {
    /// The device of interest: packets that touch it are numbered and counted. `None`: all are.
    pub target: Option<DeviceKey>,
    /// Names of drop reasons: some mean that nothing was dropped.
    pub reasons: Reasons,
    /// Packets kept open at most; each takes some 5 KiB.
    pub max_open: usize,
    /// How long a packet is idle before [`tick`](super::Stitcher::tick) may report it early, nanoseconds.
    pub idle_ns: u64,
    /// Bytes of payload to keep of each packet; 0: none.
    pub payload: usize,
    /// The run traces by tracepoints alone, which do not see TCP free what it has taken.
    pub tcp_ends_unseen: bool,
    /// Where the kernel's TCP is, as ranges of addresses in their order: of use where that is so.
    pub tcp_code: Vec<(u64, u64)>,
}

impl Default for StitchOptions {
    fn default() -> Self {
        StitchOptions {
            target: None,
            reasons: Reasons::default(),
            max_open: 65_536,
            idle_ns: 1_000_000_000,
            payload: 0,
            tcp_ends_unseen: false,
            tcp_code: Vec::new(),
        }
    }
}
