//! What the kernel side did with every hit: read from its per-CPU counters, summed up.

use skbtrace_common::Counters;

use crate::{hops::Hop, trace::HopBooks};

/// The row of the books that has what is known only of all hops together that one link of kprobe.multi attaches: how often their
/// program ran, and what was missed.
const TOGETHER: &str = "kprobe.multi";

/// The counters of one hop, summed over the CPUs.
#[derive(Clone, Copy, Debug)]
pub struct HopCounters {
    /// The hop; `None`: all those that are attached together, whose misses and runs the kernel does not tell apart.
    pub hop: Option<&'static Hop>,
    /// Its counters.
    pub counters: Counters,
    /// Hits that the kernel did not let the program see, because another one was running on that CPU.
    pub missed: u64,
    /// How often the kernel ran the program; only where it counts (sysctl kernel.bpf_stats_enabled).
    pub run_count: Option<u64>,
}

impl HopCounters {
    /// For the summary.
    #[must_use]
    pub fn books(&self) -> HopBooks {
        let Counters { filtered, sent, ring_full, map_full, unreadable, .. } = self.counters;
        let hop = self.hop.map_or(TOGETHER, Hop::name).to_owned();
        HopBooks {
            hop,
            run_count: self.run_count,
            filtered,
            sent,
            ring_full,
            map_full,
            unreadable,
            missed: self.missed,
        }
    }
}

/// Everything that was lost, over all hops.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// The sums.
    pub counters: Counters,
    /// Hits that no program saw.
    pub missed: u64,
}

impl Totals {
    /// Sums up.
    #[must_use]
    pub fn of(hops: &[HopCounters]) -> Totals {
        let mut totals = Totals::default();
        for hop in hops {
            add(&mut totals.counters, &hop.counters);
            totals.missed += hop.missed;
        }
        totals
    }
}

/// Adds `b` to `a`.
pub(super) fn add(a: &mut Counters, b: &Counters) {
    let Counters { filtered, sent, ring_full, map_full, unreadable, read_failed, probe } = b;
    a.filtered += filtered;
    a.sent += sent;
    a.ring_full += ring_full;
    a.map_full += map_full;
    a.unreadable += unreadable;
    a.read_failed += read_failed;
    a.probe = a.probe.max(*probe);
}

#[cfg(test)]
mod tests {
    use super::{HopCounters, Totals};
    use crate::hops::hop;
    use skbtrace_common::{Counters, HopId};

    #[test]
    fn what_hops_missed_together_is_booked_once() {
        let counters = Counters { sent: 3, ..Counters::default() };
        let alone = HopCounters { hop: Some(hop(HopId::IpRcv)), counters, missed: 1, run_count: None };
        let together = HopCounters { hop: None, counters: Counters::default(), missed: 5, run_count: Some(9) };
        assert_eq!(
            Totals::of(&[alone, alone, together]),
            Totals { counters: Counters { sent: 6, ..Counters::default() }, missed: 7 }
        );
        assert_eq!((together.books().hop.as_str(), together.books().missed), ("kprobe.multi", 5));
        assert_eq!(alone.books().hop, "ip_rcv");
    }
}
