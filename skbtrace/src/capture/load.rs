//! The life of the kernel side: loaded with what this kernel and this run need, attached hop by hop, then let loose
//! by filling in the segment, and detached when dropped.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::fd::{AsFd as _, AsRawFd as _},
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{HashMap, MapData, PerCpuArray, RingBuf},
    programs::{Program, ProgramError},
};
use skbtrace_common::{AddrKey, Counters, DeviceKey, Filter, SEGMENT_BY_ADDRESS, SEGMENT_MEMBER};
use thiserror::Error;

use super::{
    attach::{Links, Refused, attach_all},
    counters::{HopCounters, add},
    filter, misses, tails,
};
use crate::{
    filter::{Expression, TranslateError},
    hops::{Backend, Hop, Plan},
    host::{Host, LayoutError, offsets},
};

/// The object of the kernel side, built for the BPF target and embedded.
static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("SKBTRACE_EBPF_OBJECT"));

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

/// What this run wants.
#[derive(Clone, Copy, Debug)]
pub struct Settings<'a> {
    /// Packets to keep.
    pub filter: Filter,
    /// Of those, the ones that the user's expression wants.
    pub expression: Option<&'a Expression>,
    /// Size of the ring, bytes: a power of two, at least a page.
    pub ring_size: u32,
}

/// What is watched: devices, the loopback devices beside them, and the addresses that decide there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Watched {
    /// Every packet on these.
    pub members: BTreeSet<DeviceKey>,
    /// On these only packets between two of the addresses.
    pub loopbacks: BTreeSet<DeviceKey>,
    /// The addresses of the members.
    pub addrs: BTreeSet<AddrKey>,
}

/// A loaded and attached kernel side. Dropping it detaches every hop.
pub struct Capture {
    // Before `ebpf`: links go before the programs that they lead to.
    links: Option<Links>,
    ebpf: Ebpf,
    /// The programs of the user's expression.
    _expression: Vec<Ebpf>,
    attached: Vec<&'static Hop>,
    /// What was missed, by the time that the hops were detached.
    missed: Option<Vec<u64>>,
    /// The kernel counts how often it runs programs.
    run_counts: bool,
    watched: Watched,
}

impl Capture {
    /// Loads and attaches what the plan wants, telling `progress` how many are done. A hop that this kernel refuses to attach is left out of the plan with the kernel's reason.
    ///
    /// # Errors
    /// When the object or a program is refused, or no hop can be attached.
    pub fn start(
        host: &Host,
        plan: &mut Plan,
        settings: Settings<'_>,
        mut progress: impl FnMut(usize, usize),
    ) -> Result<Capture, CaptureError> {
        let mut offsets = offsets(host)?;
        if plan.backend == Backend::Tracepoint {
            // Whatever keeps the kernel from calling the programs of kprobes is no loss to those of tracepoints.
            (offsets.current_kprobe, offsets.prog_active) = (0, 0);
        }
        let args = plan.args();
        let reach = settings.expression.map_or(0, Expression::reach);
        let keep = Filter { reach, ..settings.filter };
        let mut ebpf = EbpfLoader::new()
            .override_global("OFFSETS", &offsets, true)
            .override_global("HOPS", &args, true)
            .override_global("FILTER", &keep, true)
            .map_max_entries("EVENTS", settings.ring_size)
            .load(OBJECT)?;
        tails::load_followers(&mut ebpf, plan.backend)?;
        let expression = match settings.expression {
            Some(expression) => filter::load(&mut ebpf, plan.backend, expression)?,
            None => Vec::new(),
        };
        let wanted: Vec<&'static Hop> = plan.attached().collect();
        let (links, refused) = attach_all(programs_of(&mut ebpf, &wanted)?, &mut progress)?;
        if refused.len() == wanted.len() {
            let first = refused.first().map(|(hop, reason)| format!("{}: {reason}", hop.name()));
            return Err(CaptureError::NothingAttached(first.unwrap_or_default()));
        }
        for (hop, reason) in &refused {
            plan.leave_out(hop, reason.clone());
        }
        let attached = plan.attached().collect();
        if plan.backend == Backend::Kprobe {
            misses::load(&mut ebpf);
        }
        if settings.filter.verify != 0 {
            tails::load_digesters(&mut ebpf, plan.backend)?;
        }
        if settings.filter.snaplen != 0 {
            tails::load_copiers(&mut ebpf, plan.backend)?;
        }
        let stats = fs::read_to_string("/proc/sys/kernel/bpf_stats_enabled");
        let run_counts = stats.is_ok_and(|value| value.trim() != "0");
        Ok(Capture {
            links: Some(links),
            ebpf,
            _expression: expression,
            attached,
            missed: None,
            run_counts,
            watched: Watched::default(),
        })
    }

    /// Attaches hops that were not there when it began, and returns those that the kernel refuses, with its reason.
    ///
    /// # Errors
    /// When the kernel refuses a program.
    pub fn attach_more(&mut self, hops: &[&'static Hop]) -> Result<Refused, CaptureError> {
        let (links, refused) = attach_all(programs_of(&mut self.ebpf, hops)?, &mut |_, _| {})?;
        if let Some(own) = &mut self.links {
            own.append(links);
        }
        let is_refused = |hop: &&Hop| refused.iter().any(|(other, _)| other.id == hop.id);
        self.attached.extend(hops.iter().copied().filter(|hop| !is_refused(hop)));
        Ok(refused)
    }

    /// The ring of events; it can be taken once.
    ///
    /// # Errors
    /// When it was taken before.
    pub fn ring(&mut self) -> Result<RingBuf<MapData>, CaptureError> {
        let map = self.ebpf.take_map("EVENTS").ok_or(CaptureError::Missing("EVENTS"))?;
        RingBuf::try_from(map).map_err(|source| CaptureError::Map { name: "EVENTS", source })
    }

    /// Watches this from now on, and nothing else. Packets that are being followed are followed to their end; with
    /// nothing to watch no new ones begin.
    ///
    /// # Errors
    /// When a map refuses an entry: it is full.
    pub fn watch(&mut self, watched: Watched) -> Result<(), CaptureError> {
        // Addresses first: they must be there when the first packet on a loopback device comes.
        let name = "ADDRS";
        let map = self.ebpf.map_mut(name).ok_or(CaptureError::Missing(name))?;
        let mut addrs: HashMap<_, AddrKey, u8> =
            HashMap::try_from(map).map_err(|source| CaptureError::Map { name, source })?;
        for addr in watched.addrs.difference(&self.watched.addrs) {
            addrs.insert(addr, 1, 0).map_err(|source| CaptureError::Map { name, source })?;
        }
        for addr in self.watched.addrs.difference(&watched.addrs) {
            addrs.remove(addr).map_err(|source| CaptureError::Map { name, source })?;
        }
        let name = "DEVICES";
        let map = self.ebpf.map_mut(name).ok_or(CaptureError::Missing(name))?;
        let mut devices: HashMap<_, DeviceKey, u32> =
            HashMap::try_from(map).map_err(|source| CaptureError::Map { name, source })?;
        let gone = |key: &&DeviceKey| !watched.members.contains(key) && !watched.loopbacks.contains(key);
        for key in self.watched.members.union(&self.watched.loopbacks).filter(gone) {
            devices.remove(key).map_err(|source| CaptureError::Map { name, source })?;
        }
        for (keys, value) in [(&watched.loopbacks, SEGMENT_BY_ADDRESS), (&watched.members, SEGMENT_MEMBER)] {
            for key in keys {
                devices.insert(key, value, 0).map_err(|source| CaptureError::Map { name, source })?;
            }
        }
        self.watched = watched;
        Ok(())
    }

    /// Detaches every hop. The counters stay, and change no more.
    ///
    /// # Errors
    /// When the counters cannot be read.
    pub fn detach(&mut self) -> Result<(), CaptureError> {
        // The kernel's own records go with the probes.
        self.missed = Some(self.counters()?.iter().map(|hop| hop.missed).collect());
        self.links = None;
        Ok(())
    }

    /// The counters of every attached hop.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn counters(&mut self) -> Result<Vec<HopCounters>, CaptureError> {
        let name = "COUNTERS";
        let map = self.ebpf.map(name).ok_or(CaptureError::Missing(name))?;
        let map: PerCpuArray<_, Counters> =
            PerCpuArray::try_from(map).map_err(|source| CaptureError::Map { name, source })?;
        let mut all = Vec::with_capacity(self.attached.len());
        for hop in &self.attached {
            let per_cpu = map.get(&(hop.id as u32), 0).map_err(|source| CaptureError::Map { name, source })?;
            let mut counters = Counters::default();
            for cpu in per_cpu.iter() {
                add(&mut counters, cpu);
            }
            all.push(HopCounters { hop, counters, missed: 0, run_count: self.run_count(hop) });
        }
        if let Some(missed) = &self.missed {
            for (hop, missed) in all.iter_mut().zip(missed) {
                hop.missed = *missed;
            }
            return Ok(all);
        }
        for hop in &mut all {
            hop.missed = self.recursions(hop.hop);
        }
        // What the kernel does not tell is not known.
        let _ = misses::read(&mut self.ebpf, &mut all);
        Ok(all)
    }

    fn run_count(&self, hop: &Hop) -> Option<u64> {
        self.run_counts.then(|| Some(self.ebpf.program(hop.name())?.info().ok()?.run_count())).flatten()
    }

    /// Hits that the kernel kept from the program itself, because the same one was running: shown with its descriptor.
    fn recursions(&self, hop: &Hop) -> u64 {
        let count = || {
            let program = self.ebpf.program(hop.name())?;
            let fd = program.fd().ok()?.as_fd().as_raw_fd();
            recursion_misses(&fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).ok()?)
        };
        count().unwrap_or(0)
    }
}

/// The programs of these hops.
fn programs_of<'a>(
    ebpf: &'a mut Ebpf,
    hops: &[&'static Hop],
) -> Result<Vec<(&'static Hop, &'a mut Program)>, CaptureError> {
    let mut programs: BTreeMap<&str, _> = ebpf.programs_mut().collect();
    let of = |hop: &&'static Hop| Some((*hop, programs.remove(hop.name())?));
    let found: Vec<_> = hops.iter().filter_map(of).collect();
    match hops.iter().find(|hop| !found.iter().any(|(other, _)| other.id == hop.id)) {
        Some(missing) => Err(CaptureError::Missing(missing.name())),
        None => Ok(found),
    }
}

/// The line that Linux 5.12 and later have for this; 6.7 and later count kprobes in it.
fn recursion_misses(fdinfo: &str) -> Option<u64> {
    fdinfo.lines().find_map(|line| line.strip_prefix("recursion_misses:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::recursion_misses;

    #[test]
    fn misses_are_read_where_the_kernel_shows_them() {
        assert_eq!(recursion_misses("prog_type:\t2\nrecursion_misses:\t17\nverified_insns:\t9\n"), Some(17));
        assert_eq!(recursion_misses("prog_type:\t2\n"), None);
    }
}
