//! The empty kprobe and the floor as a process: `xtask bench-probe`, inside the machine. It is started, watched and ended as the other
//! tools are.
//!
//! What it has read it says whenever nothing came for a while: a line per event would be a cost that is not the floor's.

use std::os::fd::{AsFd as _, AsRawFd as _};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use aya::Ebpf;
use aya::maps::{Map, MapData, RingBuf};
use aya::programs::KProbe;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};
use skbtrace_common::Event;

use super::object::{self, Wake};
use super::plan::FUNCTIONS;
use crate::vm;

/// As large as skbtrace's is unless told otherwise, bytes.
const RING: u32 = 8 << 20;

/// `BPF_MAP_TYPE_RINGBUF` (include/uapi/linux/bpf.h).
const RINGBUF: u32 = 27;

/// How long nothing comes before the sum is told.
const QUIET: Duration = Duration::from_millis(200);

/// How often the ring is looked into whose events wake nobody.
const LOOK: Duration = Duration::from_millis(10);

/// Which of them.
#[derive(Debug, clap::Args)]
pub struct Args {
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    Empty,
    Floor,
    FloorNoWakeup,
}

/// Attaches, and reads until a signal comes.
///
/// # Errors
/// What the kernel refuses.
pub fn run(args: &Args) -> Result<ExitCode> {
    let stop = vm::interruptions()?;
    // Before 5.11 maps count as locked memory; where this is refused, it is not needed.
    let _ = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY);
    let wake = match args.kind {
        Kind::Empty => None,
        Kind::Floor => Some(Wake::Waiting),
        Kind::FloorNoWakeup => Some(Wake::Never),
    };
    let Some(wake) = wake else {
        let _attached = attach(&object::empty())?;
        while stop.load(Ordering::Relaxed) == 0 {
            std::thread::sleep(Duration::from_millis(50));
        }
        return Ok(ExitCode::SUCCESS);
    };
    let map = MapData::create(aya_obj::Map::new_from_params(RINGBUF, 0, 0, RING, 0), "bench_events", None)?;
    let fd = map.fd().as_fd().as_raw_fd();
    let ring = RingBuf::try_from(Map::RingBuf(map))?;
    let _attached = attach(&object::floor(fd, i32::try_from(size_of::<Event>())?, wake))?;
    read(ring, wake, &stop)?;
    Ok(ExitCode::SUCCESS)
}

/// The program on all the functions; detached when dropped.
fn attach(program: &[(u8, u8, u8, i16, i32)]) -> Result<Ebpf> {
    let mut ebpf = Ebpf::load(&object::object(program)?)?;
    let program: &mut KProbe = ebpf.program_mut(object::NAME).context("the object has no program")?.try_into()?;
    program.load()?;
    for function in &FUNCTIONS {
        program.attach(function.name, 0).with_context(|| format!("a kprobe on {}", function.name))?;
    }
    Ok(ebpf)
}

fn read(mut ring: RingBuf<MapData>, wake: Wake, stop: &Arc<AtomicUsize>) -> Result<()> {
    let (mut events, mut told) = (0_u64, 0);
    let mut last = Instant::now();
    while stop.load(Ordering::Relaxed) == 0 {
        let before = events;
        while ring.next().is_some() {
            events += 1;
        }
        if events != before {
            last = Instant::now();
        } else if events != told && last.elapsed() >= QUIET {
            println!("events {events}");
            told = events;
        }
        match wake {
            Wake::Waiting => {
                let mut fds = [PollFd::new(ring.as_fd(), PollFlags::POLLIN)];
                // A signal ends it too, and is looked at above.
                let _ = poll(&mut fds, PollTimeout::try_from(QUIET)?);
            }
            Wake::Never => std::thread::sleep(LOOK),
        }
    }
    Ok(())
}
