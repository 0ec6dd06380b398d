//! What is kept and how it is shown: filters keep exactly the packets that they name, and the text says of a packet what
//! happened to it.

use crate::support::{
    lab::{CLIENT, Lab, SERVER},
    machine::{assert_nothing_attached, sh},
    model::Trace,
    tracer::Tracer,
    traffic::{PORT, datagrams, lab_exchange, ping, tcp_segments},
};

/// Protocol, addresses and ports of each packet.
fn flows(trace: &Trace) -> Vec<(u8, &str, &str, Option<u16>)> {
    trace
        .packets
        .iter()
        .map(|packet| packet.flow.as_ref().unwrap())
        .map(|flow| (flow.protocol, flow.src.as_str(), flow.dst.as_str(), flow.dport))
        .collect()
}

#[test]
#[ignore = "needs a kernel with kprobes, as root: run by cargo xtask test"]
fn filters_keep_exactly_what_they_name() {
    let _lab = Lab::up("bridge");
    sh("ip -n ns-calm2 address add 78.78.0.12/24 dev calmveth2");
    // At once, over the same traffic.
    let [tcp, host, port, icmp] = [
        &["--iface", "ns-calm1/calmveth1", "--json", "--proto", "tcp"][..],
        &["--iface", "calmveth1", "--netns", "ns-calm1", "--json", "--host", "78.78.0.12"],
        &["--iface", "calmveth1", "--json", "--port", "7001"],
        &["--iface", "calmveth1", "--json", "--proto", "icmp"],
    ]
    .map(Tracer::spawn)
    .map(Tracer::ready);
    lab_exchange();
    datagrams(CLIENT, SERVER, PORT, 3);
    datagrams(CLIENT, SERVER, PORT + 1, 2);
    datagrams((CLIENT.0, "78.78.0.12"), SERVER, PORT, 4);
    datagrams(SERVER, CLIENT, PORT, 1);
    ping(CLIENT, SERVER);
    let [tcp, host, port, icmp] = [tcp, host, port, icmp].map(|tracer| tracer.interrupt().trace());
    assert_nothing_attached();
    for trace in [&tcp, &host, &port, &icmp] {
        trace.assert_complete();
        assert_eq!(trace.summary.delivered, trace.summary.packets);
    }
    let segments: Vec<_> = tcp.packets.iter().map(|p| (p.goes_to(SERVER.1), p.flags(), p.payload_len)).collect();
    assert_eq!(segments, tcp_segments(100, 300));
    assert_eq!(flows(&host), [(17, "78.78.0.12", SERVER.1, Some(PORT)); 4]);
    assert_eq!(flows(&port), [(17, CLIENT.1, SERVER.1, Some(PORT + 1)); 2]);
    assert_eq!(flows(&icmp), [(1, CLIENT.1, SERVER.1, None), (1, SERVER.1, CLIENT.1, None)]);
}

/// The text with what differs from run to run replaced: times, processes, ports that the kernel chose, column widths. Which
/// hops a kernel has is not the point here, nor whether a security module has hooks in netfilter.
fn normalised(text: &str) -> String {
    let is_number = |word: &str| word.trim_start_matches('+').parse::<f64>().is_ok();
    let is_unit = |word: &str| matches!(word.trim_end_matches(','), "ns" | "µs" | "ms" | "s");
    let mut lines = Vec::new();
    for line in text.lines().filter(|line| !line.contains(" nf_hook_slow ")) {
        let line = if line.contains(" hops traced by ") { "HOPS" } else { line };
        let mut words: Vec<String> = Vec::new();
        for word in line.split_whitespace() {
            match words.last_mut() {
                Some(last) if is_unit(word) && is_number(last) => *last = "TIME".to_owned(),
                _ if word.trim_end_matches(',').ends_with(']') && word.contains('[') && !word.starts_with('[') => {
                    words.push("PROCESS".to_owned());
                }
                _ => words.push(word.to_owned()),
            }
            if let Some(last) = words.last_mut()
                && let Some(port) = last.strip_prefix("78.78.0.11:")
                && port.parse::<u16>().is_ok()
            {
                *last = "78.78.0.11:PORT".to_owned();
            }
        }
        // One more where the machine has rules.
        if let Some(at) = words.iter().position(|word| word == "same") {
            words.splice(at + 2..at + 3, ["N".to_owned()]);
        }
        lines.push(words.join(" "));
    }
    lines.join("\n")
}

#[test]
#[ignore = "needs a kernel with kprobes, as root: run by cargo xtask test"]
fn the_text_says_what_happened() {
    let _lab = Lab::up("bridge");
    let tracer = Tracer::start(&["--iface", "calmveth1", "--count", "1"]);
    datagrams(CLIENT, SERVER, PORT, 1);
    let done = tracer.wait();
    assert_nothing_attached();
    assert_eq!((done.code(), done.stderr.as_str()), (Some(0), ""), "{done:#?}");
    let text = normalised(&done.stdout);
    assert_eq!(
        text,
        "\
ns-calm2/calmveth2 ═ calmveth2_peer ─[calmbr]─ calmveth1_peer ═ ns-calm1/calmveth1
HOPS
#1 UDP 78.78.0.11:PORT → 78.78.0.10:7000 1 byte delivered to PROCESS in TIME payload same at N hops
ns-calm2 calmveth2 ip_output 0 29 PROCESS csum deferred
__dev_queue_xmit TIME 43
net_dev_start_xmit TIME 43
veth_xmit → calmveth2_peer TIME 43
__dev_forward_skb → calmveth2_peer TIME 43
init calmveth2_peer netif_rx_internal TIME 29
enqueue_to_backlog TIME 29
netif_receive_skb TIME 29 softirq, waited TIME in the CPU's queue
br_handle_frame (calmbr) TIME 29
br_handle_frame_finish TIME 29
br_forward → calmveth1_peer TIME 29
__br_forward → calmveth1_peer TIME 29
calmveth1_peer br_dev_queue_push_xmit TIME 29
__dev_queue_xmit TIME 43
net_dev_start_xmit TIME 43
veth_xmit → calmveth1 TIME 43
__dev_forward_skb → calmveth1 TIME 43
ns-calm1 calmveth1 netif_rx_internal TIME 29
enqueue_to_backlog TIME 29
netif_receive_skb TIME 29 waited TIME in the CPU's queue
ip_rcv TIME 29
ip_local_deliver TIME 29
udp_queue_rcv_one_skb TIME 9
__udp_enqueue_schedule_skb TIME 1 csum partial→none

1 packet: 1 delivered, 0 dropped, 0 incomplete, 0 in flight · 0 events lost · every packet complete"
    );
}
