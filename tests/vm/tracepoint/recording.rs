//! A run that is recorded, and one that counts.

use std::collections::BTreeSet;

use super::{RUN, start};
use crate::{
    recording::{assert_same, show, traffic},
    support::{
        lab::{CLIENT, Lab, SERVER},
        machine::assert_nothing_attached,
        tracer::Tracer,
        traffic::{PORT, datagrams},
    },
};

#[test]
#[ignore = "needs a real kernel, as root: run by cargo xtask test"]
fn shown_is_what_the_live_run_printed() {
    let _lab = Lab::up("bridge");
    let folder = tempfile::tempdir().unwrap();
    for (name, look) in [("text", &[][..]), ("json", &["--json", "--events"])] {
        let file = folder.path().join(format!("{name}.pcapng")).display().to_string();
        let tracer = Tracer::start(&[&RUN[..6], &["-w", &file], look].concat());
        traffic();
        let live = tracer.interrupt();
        assert_nothing_attached();
        assert_same(&live, &show(&[file], look));
    }
}

#[test]
#[ignore = "needs a real kernel, as root: run by cargo xtask test"]
fn it_ends_after_as_many_packets_as_it_is_told() {
    let _lab = Lab::up("bridge");
    let tracer = start(&["--count", "5"]);
    datagrams(CLIENT, SERVER, PORT, 20);
    let trace = tracer.wait().trace();
    assert_nothing_attached();
    // Five of them, in the order in which they are known to have ended.
    let lengths: BTreeSet<u64> = trace.packets.iter().map(|packet| packet.payload_len).collect();
    assert_eq!((trace.packets.len(), lengths.len()), (5, 5));
    assert!(lengths.iter().all(|length| (1..=20).contains(length)), "{lengths:?}");
    assert!(trace.packets.iter().all(|packet| packet.verdict == "delivered"), "{trace:#?}");
}
