//! `--diff`: of each hop only what changed with it, and nothing else.

use crate::support::{
    lab::{CLIENT, Lab, SERVER},
    machine::assert_nothing_attached,
    tracer::Tracer,
    traffic::datagrams,
};

#[test]
#[ignore = "needs a kernel with kprobes, as root: run by cargo xtask test"]
fn the_text_has_the_same_and_no_more() {
    const PORT: u16 = 7302;
    let _lab = Lab::up("bridge");
    let port = PORT.to_string();
    let tracer = Tracer::start(&["--iface", "calmveth1", "--diff", "--color", "never", "--port", &port]);
    datagrams(CLIENT, SERVER, PORT, 1);
    let done = tracer.interrupt();
    assert_nothing_attached();
    assert_eq!(done.code(), Some(0), "{done:#?}");
    let row = |hop: &str| {
        let line = done.stdout.lines().find(|line| line.contains(&format!(" {hop} "))).unwrap_or_default();
        // Behind the time since the hop before, which ends in its unit.
        line.rsplit_once('s').map_or_else(String::new, |(_, rest)| rest.trim().to_owned())
    };
    // The Ethernet header, which the veth gets.
    assert!(done.stdout.contains("len 29→43"), "{}", done.stdout);
    assert!(done.stdout.contains("device ns-calm2/calmveth2 → init/calmveth2_peer"), "{}", done.stdout);
    assert_eq!(row("br_handle_frame_finish"), "", "{}", done.stdout);
}
