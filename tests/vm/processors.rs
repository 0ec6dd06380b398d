//! More processors than a test machine has as a rule: `cargo xtask test` boots one of its own for this.

use std::{ops::Range, thread::available_parallelism};

use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};

use crate::support::{
    lab::{CLIENT, Lab, SERVER},
    machine::ours,
    tracer::traced,
    traffic::{PORT, datagrams, lab_exchange},
};

/// As many as the machine for this has.
const MANY: usize = 24;

#[test]
#[ignore = "needs 24 processors and a kernel with kprobes, as root: run by cargo xtask test"]
fn what_each_of_them_sends_is_seen() {
    ours();
    assert_eq!(available_parallelism().unwrap().get(), MANY, "boot with --cpus {MANY}: cargo xtask test processors");
    let _lab = Lab::up("bridge");
    // What this thread sends, and starts, is on one of these.
    let stay_on = |cpus: Range<usize>| {
        let mut set = CpuSet::new();
        cpus.for_each(|cpu| set.set(cpu).unwrap());
        sched_setaffinity(Pid::from_raw(0), &set).unwrap();
    };
    for backend in ["kprobe", "tracepoint"] {
        let trace = traced(&["--backend", backend], || {
            for cpu in 0..MANY {
                stay_on(cpu..cpu + 1);
                datagrams(CLIENT, SERVER, PORT, 1);
            }
            stay_on(0..MANY);
            lab_exchange();
        });
        let sent: Vec<u32> = trace.of(17).iter().map(|packet| packet.hops[0].cpu).collect();
        assert_eq!(sent, (0..24).collect::<Vec<u32>>(), "{backend}: {trace:#?}");
        assert_eq!(trace.of(6).len(), 11, "{backend}: {trace:#?}");
        assert!(trace.packets.iter().all(|packet| packet.verdict == "delivered"), "{backend}: {trace:#?}");
    }
}
