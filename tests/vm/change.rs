//! Devices that go while they are traced: no crash, a word about it, and a clean end.

use crate::support::{
    lab::{CLIENT, Lab, SERVER},
    machine::{assert_nothing_attached, sh, wait_until},
    tracer::{PROGRAM, Tracer},
    traffic::{PORT, datagrams},
};

#[test]
#[ignore = "needs a kernel with kprobes, as root: run by cargo xtask test"]
fn devices_may_go_while_they_are_traced() {
    let _lab = Lab::up("bridge");
    let [first, second] =
        ["calmveth1", "calmveth2"].map(|device| Tracer::spawn(&["--iface", device, "--json"])).map(Tracer::ready);
    datagrams(CLIENT, SERVER, PORT, 2);
    sh("ip -n ns-calm1 link delete calmveth1");
    wait_until("the first says that its device is gone", || first.messages().contains("calmveth1 is gone"));
    wait_until("the second says what is left of its segment", || {
        second.messages().contains("the segment is now [calmbr]─ calmveth2_peer ═ ns-calm2/calmveth2")
    });
    sh(&format!("{PROGRAM} lab down"));
    wait_until("the second says that its device is gone", || second.messages().contains("calmveth2 is gone"));
    let [first, second] = [first, second].map(Tracer::interrupt);
    for done in [&first, &second] {
        let trace = done.trace();
        assert_eq!(trace.of(17).len(), 2, "{done:#?}");
        assert!(trace.of(17).iter().all(|packet| packet.verdict == "delivered"), "{done:#?}");
        assert!(!done.stderr.contains("cannot"), "{}", done.stderr);
    }
    assert_nothing_attached();
}
