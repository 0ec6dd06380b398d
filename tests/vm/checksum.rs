//! What checksums are worth, hop by hop: left to a device on a clean path, found to be wrong where somebody made them so, and
//! right again where whoever wrote into the packet put them right.

use serde_json::Value;

use crate::support::{
    lab::{CLIENT, Lab, SERVER},
    machine::{assert_nothing_attached, sh},
    tracer::{PROGRAM, Tracer},
    traffic::{PORT, datagrams, lab_exchange, ping, ping_ipv6, tcp_exchange},
};

/// The packets of this protocol that are seen from the sender's end while `traffic` runs.
fn packets(proto: &str, traffic: impl FnOnce()) -> Vec<Value> {
    let tracer = Tracer::start(&["--iface", "calmveth2", "--json", "--proto", proto]);
    traffic();
    let done = tracer.interrupt();
    assert_nothing_attached();
    assert_eq!(done.code(), Some(0), "{done:#?}");
    let lines = done.stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let packets: Vec<Value> = lines.filter(|line| line["type"] == "packet").collect();
    assert!(!packets.is_empty(), "{done:#?}");
    packets
}

/// What is said of `of` along the way, where it changes: each word with the hop and the device where it is said first.
fn words(packet: &Value, of: impl Fn(&Value) -> &Value) -> Vec<(String, String)> {
    let mut words: Vec<(String, String)> = Vec::new();
    for hop in packet["hops"].as_array().unwrap().iter().filter(|hop| hop.get("checksum").is_some()) {
        let Some(word) = of(hop).as_str() else { continue };
        if words.last().is_none_or(|(last, _)| last != word) {
            let place = [&hop["hop"], &hop["device"]["name"]].map(|part| part.as_str().unwrap_or("-")).join(" ");
            words.push((word.to_owned(), place));
        }
    }
    words
}

fn transport(packet: &Value) -> Vec<(String, String)> {
    words(packet, |hop| &hop["checksum"]["transport"])
}

/// The words alone.
fn plain(words: &[(String, String)]) -> Vec<&str> {
    words.iter().map(|(word, _)| word.as_str()).collect()
}

fn header(packet: &Value) -> Vec<(String, String)> {
    words(packet, |hop| &hop["checksum"]["header"])
}

/// Packets of a fault's own traffic.
fn faulty(name: &str, proto: &str) -> Vec<Value> {
    sh(&format!("{PROGRAM} lab fault inject {name}"));
    let packets = packets(proto, || drop(sh(&format!("{PROGRAM} lab fault show"))));
    sh(&format!("{PROGRAM} lab fault clear"));
    packets
}

#[test]
#[ignore = "needs a kernel with kprobes, as root: run by cargo xtask test"]
fn on_a_clean_path_nothing_is_wrong() {
    let _lab = Lab::up_with_ipv6("bridge");
    let six = "[fd00::10]:7100".parse().unwrap();
    let (server6, client6) = ((SERVER.0, "fd00::10"), (CLIENT.0, "fd00::11"));
    let exchange6 = || tcp_exchange(CLIENT.0, SERVER.0, six, &[b'q'; 101], &[b'r'; 303]);
    // (protocol, traffic, what is said of it)
    let rounds: [(&str, &dyn Fn(), &str); 4] = [
        ("udp", &|| (datagrams(CLIENT, SERVER, PORT, 3), datagrams(client6, server6, PORT, 3)).1, "deferred"),
        ("tcp", &|| (lab_exchange(), exchange6()).1, "deferred"),
        ("icmp", &|| ping(CLIENT, SERVER), "ok"),
        ("icmpv6", &|| ping_ipv6(client6, server6), "ok"),
    ];
    for (proto, traffic, word) in rounds {
        for packet in packets(proto, traffic) {
            assert_eq!(plain(&transport(&packet)), [word], "{proto}: {packet:#}");
            let is_ipv4 = packet["ethertype"] == 0x0800;
            let expected: &[&str] = if is_ipv4 { &["ok"] } else { &[] };
            assert_eq!(plain(&header(&packet)), expected, "{proto}: {packet:#}");
        }
    }
}

#[test]
#[ignore = "needs a kernel with kprobes, as root: run by cargo xtask test"]
fn a_wrong_checksum_is_wrong_from_where_it_became_so() {
    let _lab = Lab::up("bridge");
    for packet in faulty("ip-checksum", "udp") {
        let to_server = packet["flow"]["dst"] == SERVER.1;
        let wrong = ("bad_dropped".to_owned(), "net_dev_start_xmit calmveth1_peer".to_owned());
        assert_eq!(header(&packet).get(1), to_server.then_some(&wrong), "{packet:#}");
        // The pseudo-header is as it was.
        assert_eq!(plain(&transport(&packet)), ["deferred"], "{packet:#}");
    }
    for (name, proto) in [("udp-checksum", "udp"), ("tcp-checksum", "tcp")] {
        for packet in faulty(name, proto) {
            assert_eq!(plain(&transport(&packet)), ["bad_dropped"], "{packet:#}");
            assert_eq!(plain(&header(&packet)), ["ok"], "{packet:#}");
        }
    }
    let mut rewritten = 0;
    for packet in faulty("pedit-with-checksum", "udp") {
        if packet["payload"]["verdict"] != "garbled" {
            continue;
        }
        rewritten += 1;
        let place = "net_dev_start_xmit calmveth1_peer";
        let change = |from: &str, to: &str| vec![from.to_owned(), format!("{to} {place}")];
        let told = |words: Vec<(String, String)>| match &words[..] {
            [(from, _), (to, at)] => vec![from.clone(), format!("{to} {at}")],
            other => panic!("{other:?} in {packet:#}"),
        };
        assert_eq!(told(transport(&packet)), change("deferred", "ok"));
        assert_eq!(told(words(&packet, |hop| &hop["ip_summed"])), change("partial", "none"));
    }
    assert!(rewritten > 0);
}

#[test]
#[ignore = "needs a kernel with kprobes, as root: run by cargo xtask test"]
fn a_flipped_bit_is_found_by_the_checksum_that_was_made_before() {
    let _lab = Lab::up("bridge");
    let mut flipped = 0;
    for packet in faulty("netem-corrupt", "udp") {
        let transport = transport(&packet);
        let said = plain(&transport);
        // Where the bit is in a header, it may be in one that no checksum covers, or that nothing can be read behind.
        assert!(!said.contains(&"bad_trusted"), "{packet:#}");
        if packet["payload"]["verdict"] == "garbled" {
            flipped += 1;
            assert!(said.starts_with(&["deferred", "bad_dropped"]), "{packet:#}");
            assert_eq!(transport[1].1, "net_dev_start_xmit calmveth1_peer");
        }
    }
    assert!(flipped > 0);
}
