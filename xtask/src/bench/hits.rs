//! How often skbtrace was at the functions that all tools trace, by its own counters.
//!
//! The kernel's counts of runs do not tell: where one link of kprobe.multi attaches all functions, they are those of one program for
//! all of them. The counters lie in a map that is read here while skbtrace runs, so that each stage has its own: the summary, which
//! has them too, comes when all is over.

use anyhow::{Context as _, Result, ensure};
use aya::maps::{Map, MapData, PerCpuArray, loaded_maps};
use skbtrace_common::{Counters, HopId};

use super::programs::is_compared;

/// The map's name in skbtrace's kernel side.
const COUNTERS: &str = "COUNTERS";

/// Hits at the functions that all tools trace, up to now.
///
/// # Errors
/// Where the kernel does not tell, or no skbtrace runs.
pub fn compared() -> Result<u64> {
    let (mut hits, mut maps) = (0, 0);
    for info in loaded_maps() {
        let info = info?;
        if info.name_as_str() != Some(COUNTERS) || info.value_size() as usize != size_of::<Counters>() {
            continue;
        }
        let map: PerCpuArray<_, Counters> = Map::PerCpuArray(MapData::from_id(info.id())?).try_into()?;
        for hop in HopId::ALL.iter().filter(|hop| is_compared(hop.name())) {
            let of_cpus = map.get(&(*hop as u32), 0).with_context(|| format!("the counters of {}", hop.name()))?;
            hits += of_cpus.iter().map(hits_of).sum::<u64>();
        }
        maps += 1;
    }
    ensure!(maps > 0, "skbtrace has no map {COUNTERS}");
    Ok(hits)
}

/// Those that should have become an event: what is none of the segment's is not missed by anybody.
fn hits_of(counters: &Counters) -> u64 {
    let Counters { sent, ring_full, map_full, unreadable, .. } = counters;
    sent + ring_full + map_full + unreadable
}

#[cfg(test)]
mod tests {
    use skbtrace_common::{Counters, HopId};

    use super::{hits_of, is_compared};
    use crate::bench::plan::FUNCTIONS;

    #[test]
    fn each_function_that_all_trace_is_a_hop_of_skbtraces() {
        let hops: Vec<&str> = HopId::ALL.iter().map(|hop| hop.name()).filter(|name| is_compared(name)).collect();
        assert_eq!(hops.len(), FUNCTIONS.len(), "{hops:?}");
    }

    #[test]
    fn a_hit_whose_event_was_lost_is_one_and_a_strangers_packet_none() {
        let counters =
            Counters { filtered: 1000, sent: 7, ring_full: 20, map_full: 300, unreadable: 4, ..Counters::default() };
        assert_eq!(hits_of(&counters), 331);
    }
}
