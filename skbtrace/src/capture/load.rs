//! The life of the kernel side: loaded with what this kernel and this run need, attached hop by hop, then let loose
//! by filling in the segment, and detached when dropped.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, mem,
    os::fd::{AsFd as _, AsRawFd as _},
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{HashMap, MapData, PerCpuArray, RingBuf},
    programs::Program,
};
use skbtrace_common::{AddrKey, Counters, DeviceKey, Filter, SEGMENT_BY_ADDRESS, SEGMENT_MEMBER};

use super::{
    CaptureError,
    attach::{Links, Refused, attach_all},
    counters::{HopCounters, add},
    filter,
    home::{Callers, Home},
    misses, tails,
    together::{self, Together},
};
use crate::{
    filter::Expression,
    hops::{Backend, Hop, Plan, Probe},
    host::{Host, Symbols, offsets},
};

/// The object of the kernel side, built for the BPF target and embedded.
pub(super) static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("SKBTRACE_EBPF_OBJECT"));

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
    // Before the programs that they lead to.
    links: Option<Links>,
    /// The program that is called for many functions, where this kernel has that.
    together: Option<Together>,
    ebpf: Ebpf,
    attached: Vec<&'static Hop>,
    /// Some of them are attached together, and some functions one by one.
    is_together: bool,
    is_apart: bool,
    /// Packets that are wanted, for programs that are loaded later.
    keep: Filter,
    expression: Option<Expression>,
    /// What the reader is to know of how hops were attached.
    told: Vec<String>,
    /// What was missed, by the time that the hops were detached.
    missed: Option<Vec<u64>>,
    /// The kernel counts how often it runs programs.
    run_counts: bool,
    watched: Watched,
}

impl Capture {
    /// Loads and attaches what the plan wants: functions together, where this kernel can. `progress` is told how many of those that
    /// are attached one by one are done. A hop that this kernel refuses to attach is left out of the plan with the kernel's reason.
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
        let ebpf = EbpfLoader::new()
            .override_global("OFFSETS", &offsets, true)
            .override_global("HOPS", &args, true)
            .override_global("FILTER", &keep, true)
            .map_max_entries("EVENTS", settings.ring_size)
            .load(OBJECT)?;
        let stats = fs::read_to_string("/proc/sys/kernel/bpf_stats_enabled");
        let mut capture = Capture {
            links: Some(Links::default()),
            together: None,
            ebpf,
            attached: Vec::new(),
            is_together: false,
            is_apart: false,
            keep,
            expression: settings.expression.cloned(),
            told: Vec::new(),
            missed: None,
            run_counts: stats.is_ok_and(|value| value.trim() != "0"),
            watched: Watched::default(),
        };
        let tracepoints: &[Callers] = match plan.backend {
            Backend::Kprobe => &[Callers::Tracepoints],
            Backend::Tracepoint => &[Callers::Tracepoints, Callers::TracepointsAlone],
        };
        load_tails(&mut capture.ebpf, tracepoints, &capture.keep, capture.expression.as_ref())?;
        if plan.backend == Backend::Kprobe && together::is_offered(host) {
            capture.load_together();
        }
        let wanted: Vec<&'static Hop> = plan.attached().collect();
        let refused = capture.attach(&wanted, Some(&host.symbols), &mut progress)?;
        if refused.len() == wanted.len() {
            let first = refused.first().map(|(hop, reason)| format!("{}: {reason}", hop.name()));
            return Err(CaptureError::NothingAttached(first.unwrap_or_default()));
        }
        for (hop, reason) in &refused {
            plan.leave_out(hop, reason.clone());
        }
        Ok(capture)
    }

    /// Attaches hops that were not there when it began, and returns those that the kernel refuses, with its reason. Without symbols
    /// they are attached one by one.
    ///
    /// # Errors
    /// When the kernel refuses a program.
    pub fn attach_more(&mut self, hops: &[&'static Hop], symbols: Option<&Symbols>) -> Result<Refused, CaptureError> {
        self.attach(hops, symbols, &mut |_, _| {})
    }

    /// What there is to say of how hops were attached since this was last asked.
    pub fn told(&mut self) -> Vec<String> {
        mem::take(&mut self.told)
    }

    /// Loads what attaches functions together. Where that cannot be had, they are attached one by one, and the reader is told.
    fn load_together(&mut self) {
        let loaded = Together::load(&self.ebpf).and_then(|mut together| {
            load_tails(&mut together, &[Callers::Probes], &self.keep, self.expression.as_ref())?;
            Ok(together)
        });
        match loaded {
            Ok(together) => self.together = Some(together),
            Err(refusal) => self.told.push(together::all_by_themselves(&refusal)),
        }
    }

    fn attach(
        &mut self,
        hops: &[&'static Hop],
        symbols: Option<&Symbols>,
        progress: &mut impl FnMut(usize, usize),
    ) -> Result<Refused, CaptureError> {
        let mut links = Links::default();
        let (mut probes, mut others): (Vec<&'static Hop>, Vec<&'static Hop>) =
            hops.iter().partition(|hop| hop.probe == Probe::Function);
        if let Some((together, symbols)) = self.together.as_ref().zip(symbols)
            && !probes.is_empty()
        {
            let attached = together.attach(&probes, symbols);
            probes = attached.apart;
            self.told.extend(attached.told);
            if let Some(link) = attached.link {
                links.push(link);
                self.is_together = true;
            }
        }
        if !probes.is_empty() && !self.is_apart {
            load_tails(&mut self.ebpf, &[Callers::Probes], &self.keep, self.expression.as_ref())?;
            misses::load(&mut self.ebpf);
            self.is_apart = true;
        }
        others.extend(probes);
        let (alone, refused) = attach_all(programs_of(&mut self.ebpf, &others)?, progress)?;
        links.append(alone);
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

    /// The counters of every attached hop, and in a row of its own what is known only of all those that are attached together.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn counters(&mut self) -> Result<Vec<HopCounters>, CaptureError> {
        let name = "COUNTERS";
        let map = self.ebpf.map(name).ok_or(CaptureError::Missing(name))?;
        let map: PerCpuArray<_, Counters> =
            PerCpuArray::try_from(map).map_err(|source| CaptureError::Map { name, source })?;
        let mut all = Vec::with_capacity(self.attached.len() + 1);
        for hop in &self.attached {
            let per_cpu = map.get(&(hop.id as u32), 0).map_err(|source| CaptureError::Map { name, source })?;
            let mut counters = Counters::default();
            for cpu in per_cpu.iter() {
                add(&mut counters, cpu);
            }
            all.push(HopCounters { hop: Some(hop), counters, missed: 0, run_count: self.run_count(hop) });
        }
        if self.is_together {
            let info = self.together.as_ref().and_then(Together::info).unwrap_or_default();
            all.push(HopCounters {
                hop: None,
                counters: Counters::default(),
                missed: number(&info, RECURSION_MISSES).unwrap_or(0)
                    + self.links.as_ref().map_or(0, Links::missed_together),
                run_count: if self.run_counts { number(&info, RUN_COUNT) } else { None },
            });
        }
        if let Some(missed) = &self.missed {
            for (hop, missed) in all.iter_mut().zip(missed) {
                hop.missed = *missed;
            }
            return Ok(all);
        }
        for row in &mut all {
            row.missed += row.hop.map_or(0, |hop| self.recursions(hop));
        }
        if self.is_apart {
            // What the kernel does not tell is not known.
            let _ = misses::read(&mut self.ebpf, &mut all);
        }
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
            number(&fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).ok()?, RECURSION_MISSES)
        };
        count().unwrap_or(0)
    }
}

/// Loads what these callers go on in.
fn load_tails(
    home: &mut impl Home,
    callers: &[Callers],
    keep: &Filter,
    expression: Option<&Expression>,
) -> Result<(), CaptureError> {
    tails::load(home, callers, keep)?;
    expression.map_or(Ok(()), |expression| filter::load(home, callers, expression))
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

/// What is shown with a program's descriptor: hits that the kernel kept from it (Linux 5.12 and later; 6.7 and later count those of
/// kprobes in it), and how often it ran.
const RECURSION_MISSES: &str = "recursion_misses:";
const RUN_COUNT: &str = "run_cnt:";

/// A number that is shown with a descriptor.
fn number(fdinfo: &str, name: &str) -> Option<u64> {
    fdinfo.lines().find_map(|line| line.strip_prefix(name))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{RECURSION_MISSES, RUN_COUNT, number};

    #[test]
    fn misses_are_read_where_the_kernel_shows_them() {
        let shown = "prog_type:\t2\nrun_cnt:\t8\nrecursion_misses:\t17\nverified_insns:\t9\n";
        assert_eq!([RECURSION_MISSES, RUN_COUNT].map(|name| number(shown, name)), [Some(17), Some(8)]);
        assert_eq!(number("prog_type:\t2\n", RECURSION_MISSES), None);
    }
}
