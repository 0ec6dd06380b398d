//! The gallery of faults by tracepoints: of each class a row that must be found, where the hops that there are enclose it; and rows
//! that no hop of theirs comes by, which must say so and find nothing. All of it: `cargo xtask gallery --backend tracepoint`.

use std::process::Command;

use serde_json::Value;

use crate::support::{
    machine::{assert_nothing_attached, native, ours},
    tracer::PROGRAM,
};

/// Proves a row, and returns what came of it. `None`: a machine whose kernel nobody chose lacks a module of the fault's own.
fn prove(fault: &str) -> Option<Value> {
    ours();
    let done =
        Command::new(PROGRAM).args(["lab", "fault", "prove", fault, "--backend", "tracepoint", "--json"]).output();
    let done = done.unwrap();
    assert_nothing_attached();
    let said = String::from_utf8(done.stdout.clone()).unwrap();
    if native() && said.contains("this kernel lacks the module") {
        println!("not here: {}", said.trim());
        return None;
    }
    assert!(done.status.success(), "{fault}: {done:#?}");
    let proof: Value = serde_json::from_str(said.trim()).unwrap_or_else(|error| panic!("{fault}: {error}: {said}"));
    assert_eq!((&proof["backend"], &proof["shown"]), (&"tracepoint".into(), &true.into()), "{proof:#}");
    assert_eq!(proof["judgement"]["wrong"], Value::Array(Vec::new()), "{proof:#}");
    Some(proof)
}

/// A row is found, as one thing: of this class, from one of these hops to this one, at the device and with the cause.
fn assert_found(fault: &str, (class, from, to): (&str, &[&str], Option<&str>), device: &str, cause: &str) {
    let Some(proof) = prove(fault) else { return };
    let found = proof["judgement"]["found"].as_array().unwrap();
    let is_it = |finding: &Value| {
        let hops = from.iter().any(|from| finding["from"] == *from) && finding["to"].as_str() == to;
        hops && finding["class"] == class && finding["device"] == device && finding["cause"] == cause
    };
    assert!(found.iter().any(is_it), "{fault}: {found:#?}");
}

/// A row says why it cannot be found, and nothing is.
fn assert_beyond(fault: &str, why: &str) {
    let Some(proof) = prove(fault) else { return };
    let beyond = proof["beyond"].as_array().unwrap();
    assert!(matches!(&beyond[..], [reason] if reason.as_str().unwrap().contains(why)), "{fault}: {beyond:#?}");
    assert_eq!(proof["judgement"]["found"], Value::Array(Vec::new()), "{proof:#}");
}

/// Where a packet enters the queue of its device, as this kernel shows it: Linux 5.13 has a hop behind the first.
const QUEUE: &[&str] = &["net_dev_queue", "qdisc_enqueue"];

#[test]
#[ignore = "needs a real kernel, as root: run by cargo xtask test"]
fn what_writes_into_packets_is_found_between_the_hops_that_there_are() {
    // The filter of the port that sends, and the program of the port that receives: both between the two.
    let over_the_bridge = ("garbled", &["netif_receive_skb"][..], Some("net_dev_queue"));
    assert_found("tc-bpf-port-egress", over_the_bridge, "calmveth1_peer", "tc_filter");
    assert_found("xdp-generic-port", over_the_bridge, "calmveth1_peer", "xdp");
    assert_found("nft-bridge-payload", over_the_bridge, "calmveth1_peer", "nftables");
    let to_the_reader = ("garbled", &["netif_receive_skb"][..], Some("skb_copy_datagram_iovec"));
    assert_found("nft-input-payload", to_the_reader, "calmveth1", "nftables");
    let to_gro = ("garbled", &["net_dev_start_xmit"][..], Some("napi_gro_receive_entry"));
    assert_found("xdp-receiver", to_gro, "calmveth1", "xdp");
}

#[test]
#[ignore = "needs a real kernel, as root: run by cargo xtask test"]
fn what_drops_packets_is_found_where_they_were_seen_last() {
    let received = ("dropped", &["netif_receive_skb"][..], None);
    assert_found("nft-bridge-drop", received, "calmveth2_peer", "nftables");
    assert_found("port-isolated", received, "calmveth2_peer", "bridge");
    assert_found("tc-egress-drop", received, "calmveth2_peer", "tc_filter");
    assert_found("wrong-lladdr", received, "calmveth1", "neighbour");
    assert_found("mtu-peer", ("dropped", &["net_dev_start_xmit"], None), "calmveth1_peer", "device");
    assert_found("tbf-full", ("dropped", QUEUE, None), "calmveth1_peer", "qdisc");
}

#[test]
#[ignore = "needs a real kernel, as root: run by cargo xtask test"]
fn a_queue_that_delays_doubles_or_reorders_is_found() {
    for (fault, class) in
        [("netem-delay", "delayed"), ("netem-duplicate", "duplicated"), ("netem-reorder", "reordered")]
    {
        assert_found(fault, (class, QUEUE, Some("net_dev_start_xmit")), "calmveth1_peer", "qdisc");
    }
}

#[test]
#[ignore = "needs a real kernel, as root: run by cargo xtask test"]
fn what_no_hop_comes_by_says_so_and_is_not_found() {
    assert_beyond("nft-output-drop", "no hop of theirs comes before");
    assert_beyond("tc-bpf-pair", "comes by no hop of theirs");
}
