//! Probes that the kernel skips: while somebody else's system call has a map in hand on a CPU, no program of a kprobe is called
//! there. What a packet that an interrupt brings has gone through meanwhile nobody saw, and no verdict may rest on it.

use std::{
    io::Error,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    ptr::from_mut,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use nix::{
    libc::{RLIM_INFINITY, SYS_bpf, syscall},
    sched::{CpuSet, sched_setaffinity},
    sys::resource::{Resource, setrlimit},
    unistd::Pid,
};

use crate::support::{
    lab::{CLIENT, Lab, SERVER},
    machine::{assert_nothing_attached, sh},
    model::Packet,
    tracer::Tracer,
    traffic::{PORT, datagrams},
};

/// So many torn packets there must be.
const ENOUGH: usize = 10;
/// How many rounds may bring them: where softirqs are left to ksoftirqd, as on a busy host, one packet in a thousand is torn.
const ROUNDS: usize = 50;
/// So many bytes are copied with the map in hand.
const VALUE_BYTES: usize = 1 << 20;
const MAP_CREATE: i32 = 0;
const MAP_UPDATE_ELEM: i32 = 2;

/// The first members of `union bpf_attr` for the two commands.
#[repr(C)]
struct Create([u32; 4]);
#[repr(C)]
struct Update {
    map: u64,
    key: u64,
    value: u64,
    flags: u64,
}

fn bpf<T>(command: i32, attributes: &mut T) -> i32 {
    // SAFETY: the kernel reads so many bytes of what it is given, and the buffers that are named in it live longer.
    let done = unsafe { syscall(SYS_bpf, command, from_mut(attributes), size_of::<T>()) };
    assert!(done >= 0, "bpf(2): {}", Error::last_os_error());
    i32::try_from(done).unwrap()
}

/// Writes to a map of its own on this CPU, over and over.
fn keep_busy(cpu: usize, stop: &AtomicBool) {
    let mut cpus = CpuSet::new();
    cpus.set(cpu).unwrap();
    sched_setaffinity(Pid::from_raw(0), &cpus).unwrap();
    // An array of one value.
    let map = bpf(MAP_CREATE, &mut Create([2, 4, VALUE_BYTES as u32, 1]));
    // SAFETY: the kernel has just opened it for us.
    let map = unsafe { OwnedFd::from_raw_fd(map) };
    let (key, value) = (0u32, vec![0u8; VALUE_BYTES]);
    let (key, value) = (&raw const key as u64, value.as_ptr() as u64);
    while !stop.load(Ordering::Relaxed) {
        for _ in 0..4 {
            bpf(MAP_UPDATE_ELEM, &mut Update { map: map.as_raw_fd() as u64, key, value, flags: 0 });
        }
        thread::sleep(Duration::from_micros(500));
    }
}

#[test]
#[ignore = "needs a kernel with kprobes, as root: run by cargo xtask test"]
fn no_verdict_rests_on_what_a_system_call_on_a_map_keeps_away() {
    // Before 5.11 maps count as locked memory.
    setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY).unwrap();
    let _lab = Lab::up("bridge");
    datagrams(CLIENT, SERVER, PORT, 1);
    // From here on a timer takes the packets on, which interrupts whatever runs.
    sh("tc qdisc add dev calmveth1_peer root netem delay 3ms");
    let mut torn = 0;
    for _ in 0..ROUNDS {
        let tracer = Tracer::start(&["--iface", "calmveth1", "--json", "--proto", "udp"]);
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let stop = &stop;
            for cpu in 0..thread::available_parallelism().unwrap().get() {
                scope.spawn(move || keep_busy(cpu, stop));
            }
            (0..100).for_each(|_| datagrams(CLIENT, SERVER, PORT, 5));
            stop.store(true, Ordering::Relaxed);
        });
        let done = tracer.interrupt();
        let trace = done.trace();
        assert_nothing_attached();
        let (whole, rest): (Vec<&Packet>, Vec<&Packet>) =
            trace.packets.iter().partition(|packet| packet.verdict == "delivered");
        // Each that is whole has been seen at every hop, and all others are said not to be.
        for packet in &whole {
            assert_eq!(packet.told(), whole[0].told());
        }
        assert!(rest.iter().all(|packet| packet.verdict == "incomplete"), "{rest:#?}");
        assert!(!whole.is_empty(), "{rest:#?}");
        assert!(done.stdout.contains("\"findings\":[]"), "{}", done.stdout);
        torn += rest.len();
        if torn >= ENOUGH {
            break;
        }
    }
    assert!(torn >= ENOUGH, "{torn} packets came while a map was in hand");
}
