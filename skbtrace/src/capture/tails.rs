//! The programs that the programs of the hops go on in: they follow a packet, copy what is behind its linear area, and digest its
//! payload. They only have to be put where the others look.

use skbtrace_common::{Filter, Level};

use super::{
    CaptureError,
    home::{Callers, Home},
};

/// A program in a program array, in its variants, the better first.
struct Tail {
    /// Those that go on in it.
    callers: Callers,
    map: &'static str,
    /// Its place in the map: that of the scratch value of the programs that go on in it.
    level: Level,
    variants: &'static [&'static str],
}

/// Those that follow a packet.
const FOLLOWERS: [Tail; 6] = [
    Tail { callers: Callers::Probes, map: "FOLLOW_PROBE", level: Level::Kprobe, variants: &["follow_probe"] },
    Tail { callers: Callers::Tracepoints, map: "FOLLOW_TRACEPOINT", level: Level::Drop, variants: &["follow_drop"] },
    Tail {
        callers: Callers::Tracepoints,
        map: "FOLLOW_TRACEPOINT",
        level: Level::Consume,
        variants: &["follow_consume"],
    },
    Tail {
        callers: Callers::Tracepoints,
        map: "FOLLOW_TRACEPOINT",
        level: Level::Softirq,
        variants: &["follow_softirq"],
    },
    Tail {
        callers: Callers::TracepointsAlone,
        map: "FOLLOW_TRACEPOINT",
        level: Level::Read,
        variants: &["follow_read"],
    },
    Tail { callers: Callers::TracepointsAlone, map: "FOLLOW_TRACEPOINT", level: Level::Tcp, variants: &["follow_tcp"] },
];

/// Those that digest: the first variant needs bpf_loop (Linux 5.17).
const DIGESTERS: [Tail; 3] = [
    Tail {
        callers: Callers::Probes,
        map: "VERIFY_PROBE",
        level: Level::Kprobe,
        variants: &["verify_probe", "verify_probe_unrolled"],
    },
    Tail {
        callers: Callers::Tracepoints,
        map: "VERIFY_TRACEPOINT",
        level: Level::Softirq,
        variants: &["verify_tracepoint", "verify_tracepoint_unrolled"],
    },
    Tail {
        callers: Callers::TracepointsAlone,
        map: "VERIFY_TRACEPOINT",
        level: Level::Read,
        variants: &["verify_read", "verify_read_unrolled"],
    },
];

/// Those that copy.
const COPIERS: [Tail; 5] = [
    Tail { callers: Callers::Probes, map: "COPY_PROBE", level: Level::Kprobe, variants: &["copy_probe"] },
    Tail { callers: Callers::Tracepoints, map: "COPY_TRACEPOINT", level: Level::Drop, variants: &["copy_drop"] },
    Tail { callers: Callers::Tracepoints, map: "COPY_TRACEPOINT", level: Level::Consume, variants: &["copy_consume"] },
    Tail { callers: Callers::Tracepoints, map: "COPY_TRACEPOINT", level: Level::Softirq, variants: &["copy_softirq"] },
    Tail { callers: Callers::TracepointsAlone, map: "COPY_TRACEPOINT", level: Level::Read, variants: &["copy_read"] },
];

/// Loads those that these callers go on in, as far as a run with this filter needs them, and puts them where the hops look.
///
/// # Errors
/// When the kernel refuses one: of one with variants, all of them.
pub(super) fn load(home: &mut impl Home, callers: &[Callers], filter: &Filter) -> Result<(), CaptureError> {
    let copiers = if filter.snaplen == 0 { &[][..] } else { &COPIERS[..] };
    let digesters = if filter.verify == 0 { &[][..] } else { &DIGESTERS[..] };
    let wanted = FOLLOWERS.iter().chain(copiers).chain(digesters);
    for tail in wanted.filter(|tail| callers.contains(&tail.callers)) {
        load_one(home, tail)?;
    }
    Ok(())
}

fn load_one(home: &mut impl Home, tail: &Tail) -> Result<(), CaptureError> {
    let mut refusal = CaptureError::Missing(tail.map);
    for &name in tail.variants {
        match home.load(name) {
            Ok(()) => return home.put(tail.map, tail.level as u32, name),
            Err(source) => refusal = CaptureError::Program { hop: name, source },
        }
    }
    Err(refusal)
}
