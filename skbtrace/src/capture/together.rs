//! All functions at once, by one link of kprobe.multi: a run is ready, and gone, in a fraction of the time that a perf event
//! for each takes. One program is called for all of them and knows the hop by the cookie of the function.
//!
//! It is for kernels that lose no hit of such a link without counting it. A hit is lost while another program of a kprobe runs on
//! its CPU (`bpf_prog_active`, kernel/trace/bpf_trace.c, `kprobe_multi_link_prog_run`): since Linux 6.7 the program's
//! `recursion_misses` has it. What ftrace itself refuses on its way there `bpf_link_info.kprobe_multi.missed` has, of the same
//! age, while fprobe is called by ftrace in its own right (kernel/trace/fprobe.c, `fprobe_handler`, up to 6.13). Later kernels do not
//! count that any more. Where they still call fprobe by ftrace (`fprobe_ftrace_entry`), nothing is lost by it: ftrace refuses who
//! comes a second time in one context (`ftrace_test_recursion_trylock`), and nothing that a program here calls is a hop. But in
//! between, fprobe came by the function graph (`fprobe_entry`, 6.14 and later, until it had the other way again), which also passes
//! over tasks for which it has no shadow stack (`ftrace_push_return_trace`), and tells nobody. There functions are attached one by one.
//!
//! Both counts are of the program and of the link, not of a hop: what was missed is told for all of them together.

use std::{
    collections::{BTreeSet, HashMap},
    fs,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
    slice,
};

use aya::{Ebpf, EbpfError, maps::MapData, programs::ProgramError};
use aya_obj::{Function, Object, VerifierLog, btf::BtfFeatures, generated::bpf_insn};

use super::{
    CaptureError, bpf,
    home::{EXPRESSION, Home, map_descriptor},
    load::OBJECT,
};
use crate::{
    filter::{Insn, Kind},
    hops::Hop,
    host::{Host, KernelVersion, Symbols},
};

/// The program that is called for all functions.
const ENTRY: &str = "together";
/// The programs that it goes on in.
const TAILS: [&str; 6] =
    ["follow_probe", "copy_probe", "verify_probe", "verify_probe_unrolled", "ask_probe", "answer_probe"];
/// The maps that they are put into: of its own, since the kernel keeps them apart from those of single kprobes (Linux 6.18 and later,
/// kernel/bpf/core.c, `__bpf_prog_map_compatible`).
const ARRAYS: [&str; 4] = ["FOLLOW_PROBE", "COPY_PROBE", "VERIFY_PROBE", "FILTER_PROBE"];
/// The first kernel that counts what such a program and such a link miss.
const COUNTED: KernelVersion = KernelVersion { major: 6, minor: 7 };
/// Where ftrace lists what it can trace: tracefs by itself, and within debugfs.
const TRACEABLE: [&str; 2] =
    ["/sys/kernel/tracing/available_filter_functions", "/sys/kernel/debug/tracing/available_filter_functions"];

/// Whether this kernel attaches a program to many functions, and says how often it did not call it.
pub(super) fn is_offered(host: &Host) -> bool {
    KernelVersion::parse(&host.release.0).is_some_and(|version| version >= COUNTED)
        && (host.symbols.has("fprobe_handler") || host.symbols.has("fprobe_ftrace_entry"))
}

/// The program for all functions, and what it goes on in, loaded.
pub(super) struct Together {
    object: Object,
    types: Option<OwnedFd>,
    arrays: HashMap<&'static str, MapData>,
    programs: HashMap<&'static str, OwnedFd>,
}

/// What became of hops that were to be attached together.
pub(super) struct Attached {
    /// To those that are. They are detached when it is closed.
    pub link: Option<OwnedFd>,
    /// Those that are to be attached by themselves.
    pub apart: Vec<&'static Hop>,
    /// Why they are, for the reader.
    pub told: Vec<String>,
}

/// A hop, and where its function begins.
type Target = (&'static Hop, u64);

impl Together {
    /// Loads the program. It looks at the maps of the programs that are attached one by one.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn load(ebpf: &Ebpf) -> Result<Together, CaptureError> {
        let mut object = Object::parse(OBJECT).map_err(EbpfError::from)?;
        object.programs.retain(|name, _| name == ENTRY || TAILS.contains(&&**name));
        let types = load_types(&mut object)?;
        let arrays = relocate(&mut object, ebpf)?;
        let mut together = Together { object, types, arrays, programs: HashMap::new() };
        together.load(ENTRY).map_err(|source| CaptureError::Program { hop: ENTRY, source })?;
        Ok(together)
    }

    /// Attaches all of these that can be attached together.
    pub fn attach(&self, hops: &[&'static Hop], symbols: &Symbols) -> Attached {
        let (targets, mut apart) = targets(hops, |name| symbols.only(name));
        let mut told: Vec<String> =
            apart.iter().map(|hop| by_itself(hop, "there is more than one function of this name")).collect();
        let refusal = match self.link(&targets) {
            Ok(link) => return Attached { link, apart, told },
            Err(refusal) => refusal,
        };
        let (traceable, not) = traceable(&targets, &listing());
        if !not.is_empty()
            && let Ok(link) = self.link(&traceable)
        {
            told.extend(not.iter().map(|hop| by_itself(hop, "ftrace does not trace it")));
            apart.extend(not);
            return Attached { link, apart, told };
        }
        Attached { link: None, apart: hops.to_vec(), told: vec![all_by_themselves(&refusal)] }
    }

    fn link(&self, targets: &[Target]) -> Result<Option<OwnedFd>, CaptureError> {
        if targets.is_empty() {
            return Ok(None);
        }
        let (addresses, cookies): (Vec<u64>, Vec<u64>) =
            targets.iter().map(|(hop, address)| (*address, hop.id.cookie())).unzip();
        let refused = |source| CaptureError::Call { call: "BPF_LINK_CREATE", source };
        bpf::attach_to_many(self.program(ENTRY)?, &addresses, &cookies).map(Some).map_err(refused)
    }

    /// What the kernel says of the program, as `/proc/self/fdinfo` shows it.
    pub fn info(&self) -> Option<String> {
        let fd = self.programs.get(ENTRY)?.as_raw_fd();
        fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).ok()
    }

    fn program(&self, name: &'static str) -> Result<BorrowedFd<'_>, CaptureError> {
        self.programs.get(name).map(|fd| fd.as_fd()).ok_or(CaptureError::Missing(name))
    }

    fn set(&self, array: &'static str, place: u32, program: BorrowedFd<'_>) -> Result<(), CaptureError> {
        let refused = |source| CaptureError::Call { call: "BPF_MAP_UPDATE_ELEM", source };
        bpf::put_program(self.map(array)?, place, program).map_err(refused)
    }
}

impl Home for Together {
    fn load(&mut self, program: &'static str) -> Result<(), ProgramError> {
        let missing = || ProgramError::UnexpectedProgramType;
        let function = self.object.programs.get(program).ok_or_else(missing)?.function_key();
        let function = self.object.functions.get(&function).ok_or_else(missing)?;
        let Function { instructions, func_info, line_info, func_info_rec_size, line_info_rec_size, .. } = function;
        let (functions, lines) = (func_info.func_info_bytes(), line_info.line_info_bytes());
        let types = self.types.as_ref().map(|btf| bpf::Types {
            btf: btf.as_fd(),
            functions: (&functions, *func_info_rec_size),
            lines: (&lines, *line_info_rec_size),
        });
        let code = bpf::Code { name: program, instructions: bytes(instructions), license: &self.object.license, types };
        let fd = bpf::load_program(&code).map_err(refused)?;
        self.programs.insert(program, fd);
        Ok(())
    }

    fn put(&mut self, map: &'static str, place: u32, program: &'static str) -> Result<(), CaptureError> {
        self.set(map, place, self.program(program)?)
    }

    fn map(&self, name: &'static str) -> Result<BorrowedFd<'_>, CaptureError> {
        self.arrays.get(name).map(|array| array.fd().as_fd()).ok_or(CaptureError::Missing(name))
    }

    fn put_expression(
        &mut self,
        map: &'static str,
        place: u32,
        _kind: Kind,
        instructions: &[Insn],
    ) -> Result<(), CaptureError> {
        let instructions: Vec<u8> = instructions.iter().flat_map(|insn| insn.bytes()).collect();
        let license = &self.object.license;
        let code = bpf::Code { name: EXPRESSION, instructions: &instructions, license, types: None };
        let program = bpf::load_program(&code)
            .map_err(|refusal| CaptureError::Program { hop: EXPRESSION, source: refused(refusal) })?;
        self.set(map, place, program.as_fd())
    }
}

/// Loads the object's types, as they are: kernels that count misses know all of them.
fn load_types(object: &mut Object) -> Result<Option<OwnedFd>, CaptureError> {
    let all = BtfFeatures::new(true, true, true, true, true, true, true, true);
    let types = object.fixup_and_sanitize_btf(&all).map_err(EbpfError::from)?;
    let refused = |source| CaptureError::Call { call: "BPF_BTF_LOAD", source };
    types.map(|types| bpf::load_types(&types.to_bytes()).map_err(refused)).transpose()
}

/// Leads the programs to the maps that are there, but to arrays of programs of their own, which are returned.
fn relocate(object: &mut Object, ebpf: &Ebpf) -> Result<HashMap<&'static str, MapData>, CaptureError> {
    let maps = std::mem::take(&mut object.maps);
    let mut arrays = HashMap::new();
    for name in ARRAYS {
        let map = maps.get(name).cloned().ok_or(CaptureError::Missing(name))?;
        arrays.insert(name, MapData::create(map, name, None).map_err(|source| CaptureError::Map { name, source })?);
    }
    let descriptor = |name: &str| match arrays.get(name) {
        Some(array) => Some(array.fd().as_fd()),
        None => ebpf.map(name).and_then(map_descriptor),
    };
    let known = maps.iter().filter_map(|(name, map)| Some((&**name, descriptor(name)?.as_raw_fd(), map)));
    let sections = object.functions.keys().map(|(section, _)| *section).collect();
    object.relocate_maps(known, &sections).map_err(EbpfError::from)?;
    object.relocate_calls(&sections).map_err(EbpfError::from)?;
    Ok(arrays)
}

/// Instructions as the kernel reads them.
fn bytes(instructions: &[bpf_insn]) -> &[u8] {
    // SAFETY: an instruction is eight bytes without padding, and any bytes will do.
    unsafe { slice::from_raw_parts(instructions.as_ptr().cast(), size_of_val(instructions)) }
}

fn refused((io_error, log): (std::io::Error, String)) -> ProgramError {
    ProgramError::LoadError { io_error, verifier_log: VerifierLog::new(log) }
}

/// Those of the hops whose function is the only one of its name, with its address; and the others.
fn targets(hops: &[&'static Hop], address: impl Fn(&'static str) -> Option<u64>) -> (Vec<Target>, Vec<&'static Hop>) {
    let (mut targets, mut others) = (Vec::new(), Vec::new());
    for hop in hops {
        match address(hop.name()) {
            Some(address) => targets.push((*hop, address)),
            None => others.push(*hop),
        }
    }
    (targets, others)
}

/// Those of the targets that the list of what ftrace can trace has, and the others.
fn traceable(targets: &[Target], listing: &str) -> (Vec<Target>, Vec<&'static Hop>) {
    let names: BTreeSet<&str> = listing.lines().filter_map(|line| line.split_whitespace().next()).collect();
    let (listed, others): (Vec<Target>, Vec<Target>) = targets.iter().partition(|(hop, _)| names.contains(hop.name()));
    (listed, others.into_iter().map(|(hop, _)| hop).collect())
}

/// A line for each function that ftrace can trace; nothing, where that is not shown.
fn listing() -> String {
    TRACEABLE.iter().find_map(|path| fs::read_to_string(path).ok()).unwrap_or_default()
}

fn by_itself(hop: &Hop, why: &str) -> String {
    format!("{} is attached by itself: {why}", hop.name())
}

/// What is told where no function is attached together with others.
pub(super) fn all_by_themselves(why: &CaptureError) -> String {
    let why = why.to_string();
    let why: Vec<&str> = why.split_whitespace().collect();
    format!(
        "every function is attached by itself, which takes its time: together with the others is refused: {}",
        why.join(" ")
    )
}

#[cfg(test)]
mod tests {
    use super::{all_by_themselves, by_itself, targets, traceable};
    use crate::{
        capture::CaptureError,
        hops::{Hop, hop},
    };
    use skbtrace_common::HopId;
    use std::io;

    fn names(hops: &[&'static Hop]) -> Vec<&'static str> {
        hops.iter().map(|hop| hop.name()).collect()
    }

    #[test]
    fn functions_without_an_address_of_their_own_and_untraceable_ones_stay_apart() {
        let hops = [HopId::IpRcv, HopId::BrFlood, HopId::VethXmit].map(hop);
        let address = |name: &str| (name != "br_flood").then_some(name.len() as u64);
        let (targets, apart) = targets(&hops, address);
        assert_eq!(
            targets.iter().map(|(hop, address)| (hop.name(), *address)).collect::<Vec<_>>(),
            [("ip_rcv", 6), ("veth_xmit", 9)]
        );
        assert_eq!(names(&apart), ["br_flood"]);
        let (listed, not) = traceable(&targets, "ip_rcv_core\nveth_xmit [veth]\n");
        assert_eq!(listed.iter().map(|(hop, _)| hop.name()).collect::<Vec<_>>(), ["veth_xmit"]);
        assert_eq!(names(&not), ["ip_rcv"]);
        assert_eq!(traceable(&targets, "").0.len(), 0);
        assert_eq!(by_itself(not[0], "why"), "ip_rcv is attached by itself: why");
    }

    #[test]
    fn a_refusal_is_told_in_one_line() {
        let refusal = CaptureError::Call { call: "BPF_LINK_CREATE", source: io::Error::other("no\nsuch thing") };
        assert_eq!(
            all_by_themselves(&refusal),
            "every function is attached by itself, which takes its time: together with the others is refused: \
             BPF_LINK_CREATE: no such thing"
        );
    }
}
