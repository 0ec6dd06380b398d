//! The tracepoint backend on a real kernel: what it sees of a packet, hop by hop, and how it knows the end of what it does not see
//! end. It needs no kprobes, so that these also run on the machine itself, in a network of their own.

mod branches;
mod ends;
mod filter;
mod gallery;
mod path;
mod recording;
mod strangers;
mod volume;

use crate::support::{
    lab::SERVER,
    machine::assert_nothing_attached,
    model::{Packet, Trace},
    path::{at, port, veth},
    tracer::Tracer,
};

/// What every run here is told. Another lab may be on the machine, out of sight but not out of reach.
const RUN: [&str; 7] = ["--backend", "tracepoint", "--netns", SERVER.0, "--iface", "calmveth1", "--json"];

/// A tracer by tracepoints, once it traces.
fn start(arguments: &[&str]) -> Tracer {
    Tracer::start(&[&RUN, arguments].concat())
}

/// What it sees of this traffic.
fn traced(arguments: &[&str], traffic: impl FnOnce()) -> Trace {
    let tracer = start(arguments);
    traffic();
    let trace = tracer.interrupt().trace();
    assert_nothing_attached();
    trace.assert_complete();
    trace
}

/// Handed to a device, and by it to its driver.
fn sent(device: &str) -> Vec<String> {
    at(device, &["net_dev_queue", "net_dev_start_xmit"])
}

/// Through the queue of a CPU and into the stack there.
fn received(device: &str) -> Vec<String> {
    at(device, &["netif_rx", "netif_receive_skb"])
}

/// From one end of a pair to the other.
fn crossed(from: u8, to: u8) -> Vec<String> {
    [sent(&veth(from)), received(&veth(to))].concat()
}

/// From one end of the lab to the other.
fn bridged(from: u8, to: u8) -> Vec<String> {
    [sent(&veth(from)), received(&port(from)), sent(&port(to)), received(&veth(to))].concat()
}

/// Its payload was looked at where it was seen, and was the same there.
fn assert_same_payload(packet: &Packet) {
    let payload = packet.payload.as_ref().unwrap_or_else(|| panic!("{packet:#?}"));
    assert_eq!(payload.verdict, "same", "{packet:#?}");
}
