//! How long packets took from hop to hop, and in all: what the table at the end of a run is made of.
//!
//! A histogram per pair of neighbouring hops, so that memory is bounded by the number of pairs, whatever the number of
//! packets: a percentile is that of a bucket, and good to 1 %. Waits are kept apart from work.

use hdrhistogram::Histogram;
use skbtrace_common::HopId;

use super::packet::{Packet, Queue, Step};

/// Digits that a percentile is good for. One more takes eight times the memory, and rows show three.
const DIGITS: u8 = 2;

/// Times of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Latency {
    pairs: Vec<Pair>,
    total: Times,
}

/// Two hops of which packets came from one straight to the other.
#[derive(Clone, Debug, PartialEq)]
pub struct Pair {
    /// The earlier hop.
    pub from: HopId,
    /// The later one.
    pub to: HopId,
    /// The queue in which the time was mostly spent.
    pub waited: Option<Queue>,
    /// How long it took.
    pub times: Times,
}

/// What one packet took from one hop to the next.
struct Way {
    from: HopId,
    to: HopId,
    waited: Option<Queue>,
    ns: u64,
}

impl Way {
    /// Between two steps; `None` beside a gap.
    fn between(steps: &[Step]) -> Option<Way> {
        let [before, step] = steps else { return None };
        let way = Way { from: before.hop, to: step.hop, waited: step.waited, ns: step.delta_ns };
        (step.missing == 0).then_some(way)
    }
}

/// How often something happened, and how long it took.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Times {
    /// `None` until it has happened.
    histogram: Option<Histogram<u64>>,
    sum_ns: u64,
    max_ns: u64,
}

impl Latency {
    /// Takes note of a packet and of its branches. What lies beside a gap is no time between neighbours; nor is the time
    /// from a packet to its clone. `delivered` says that the time of the packet as a whole counts too.
    pub(super) fn note(&mut self, packet: &Packet, delivered: bool) {
        self.note_ways(packet, None);
        if delivered {
            self.total.note(packet.total_ns());
        }
    }

    /// The ways of a packet that has come as far as to this pair already: that of the packet that it is a clone of.
    fn note_ways(&mut self, packet: &Packet, mut furthest: Option<usize>) {
        let mut branches = packet.branches.iter().peekable();
        for index in 0..packet.steps.len() {
            let mut ways = packet.steps[index.saturating_sub(1)..].windows(2).map(Way::between);
            if let Some(way) = ways.next().flatten().filter(|_| index > 0) {
                let place = self.find(furthest, &way).unwrap_or_else(|| self.insert(furthest, &way, ways.flatten()));
                self.pairs[place].times.note(way.ns);
                furthest = furthest.max(Some(place));
            }
            while let Some(branch) = branches.next_if(|branch| branch.after <= index) {
                self.note_ways(&branch.packet, furthest);
            }
        }
    }

    /// Where the pair of this way is.
    fn find(&self, furthest: Option<usize>, way: &Way) -> Option<usize> {
        let is_it = |pair: &Pair| (pair.from, pair.to, pair.waited) == (way.from, way.to, way.waited);
        // Mostly it is the very next.
        let start = furthest.map_or(0, |furthest| furthest + 1);
        let (earlier, later) = self.pairs.split_at(start);
        later.iter().position(is_it).map(|place| start + place).or_else(|| earlier.iter().position(is_it))
    }

    /// Makes room for the pair of this way, and says where: behind all that its packet has come through before, or before
    /// what it comes through next. So pairs are in the order of the path, also where a later packet begins before the
    /// first or goes on behind it.
    fn insert(&mut self, furthest: Option<usize>, way: &Way, mut rest: impl Iterator<Item = Way>) -> usize {
        let place = match furthest {
            Some(furthest) => furthest + 1,
            None => rest.find_map(|next| self.find(None, &next)).unwrap_or(self.pairs.len()),
        };
        self.pairs.insert(place, Pair { from: way.from, to: way.to, waited: way.waited, times: Times::default() });
        place
    }

    /// Pairs of neighbouring hops, in the order of the path.
    #[must_use]
    pub fn pairs(&self) -> &[Pair] {
        &self.pairs
    }

    /// From the first hop to the delivery, of the packets that were delivered.
    #[must_use]
    pub fn total(&self) -> &Times {
        &self.total
    }
}

impl Times {
    fn note(&mut self, ns: u64) {
        if self.histogram.is_none() {
            // It grows with what it holds. Two digits are in its range, so this cannot fail.
            self.histogram = Histogram::new(DIGITS).ok();
        }
        // Nor can this, but where the buckets do not fit into memory.
        if self.histogram.as_mut().is_some_and(|histogram| histogram.record(ns).is_ok()) {
            self.sum_ns = self.sum_ns.saturating_add(ns);
            self.max_ns = self.max_ns.max(ns);
        }
    }

    /// How often it happened.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.histogram.as_ref().map_or(0, Histogram::len)
    }

    /// The time that so many percent did not exceed, nanoseconds, good to 1 %; 0 when it never happened.
    #[must_use]
    pub fn percentile_ns(&self, percent: f64) -> u64 {
        // Buckets have a width, and what never took longer is not to seem so.
        self.histogram.as_ref().map_or(0, |histogram| histogram.value_at_percentile(percent).min(self.max_ns))
    }

    /// The longest time, exact, nanoseconds.
    #[must_use]
    pub fn max_ns(&self) -> u64 {
        self.max_ns
    }

    /// All of it together, nanoseconds.
    #[must_use]
    pub fn sum_ns(&self) -> u64 {
        self.sum_ns
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Times;

    fn times(all: &[u64]) -> Times {
        let mut times = Times::default();
        all.iter().for_each(|ns| times.note(*ns));
        times
    }

    #[test]
    fn nothing_has_no_times() {
        let none = Times::default();
        assert_eq!((none.count(), none.percentile_ns(99.0), none.max_ns(), none.sum_ns()), (0, 0, 0, 0));
    }

    #[test]
    fn memory_grows_with_the_range_and_not_with_the_count() {
        let bins = |times: &Times| times.histogram.as_ref().unwrap().distinct_values();
        let few = times(&[1, 1_000_000_000]);
        let many = times(&(0..=1_000_000_000).step_by(10_000).collect::<Vec<_>>());
        assert_eq!(many.count(), 100_001);
        assert_eq!(bins(&many), bins(&few));
        assert!(bins(&times(&[0, u64::MAX])) < 8_000);
    }

    /// Times as they occur, from none to the end of the clock.
    fn any_ns() -> impl Strategy<Value = u64> {
        prop_oneof![0u64..300, 0u64..1_000_000_000, any::<u64>(), (0u32..64).prop_map(|bit| u64::MAX >> bit)]
    }

    proptest! {
        #[test]
        fn percentiles_are_those_of_all_the_times(mut all in prop::collection::vec(any_ns(), 1..400)) {
            let times = times(&all);
            all.sort_unstable();
            prop_assert_eq!(times.count(), all.len() as u64);
            prop_assert_eq!(times.max_ns(), all[all.len() - 1]);
            prop_assert_eq!(times.sum_ns(), all.iter().fold(0u64, |sum, ns| sum.saturating_add(*ns)));
            for percent in [50, 90, 99, 100] {
                // The smallest that so many percent do not exceed.
                let exact = all[(all.len() * percent).div_ceil(100) - 1];
                let told = times.percentile_ns(percent as f64);
                prop_assert!(told.abs_diff(exact) <= exact / 100, "p{percent}: {told} for {exact}");
                prop_assert!(told <= times.max_ns());
            }
        }
    }
}
