//! How each kernel drops packets: reasons and functions move from release to release, and are what they are.

use std::collections::BTreeMap;

use super::{CLEAN, COUNT, Endings};
use crate::support::machine::kernel;

/// It names no reasons.
const OLD: &str = "5.10";

/// What has changed since 6.1: the port, from which kernel on, and how its packets end there.
const LATER: &[(u16, &str, &str)] = &[
    (7105, "7.3", "NO_SOCKET in udp_rcv after ip_local_deliver ns-calm1/calmveth1"),
    (7106, "7.3", "UDP_CSUM in udp_rcv after ip_local_deliver ns-calm1/calmveth1"),
    (7109, "6.18", "UDP_CSUM in udp_recvmsg after __udp_enqueue_schedule_skb ns-calm1/calmveth1, socket_queue"),
    // Up to 6.1 br_netfilter comes before the rules at this hook.
    (7207, "6.12", "NETFILTER_DROP in nft_do_chain after nf_hook_slow init/calmveth1_peer, bridge FORWARD"),
    (7212, "7.3", "NO_SOCKET in udp_rcv after nf_hook_slow ns-calm1/calmveth1"),
    (7301, "6.18", "BRIDGE_INGRESS_STP_STATE in br_handle_frame after br_handle_frame init/calmveth1_peer"),
];

/// How a packet ends there that ends like this on 6.1: netfilter's caller frees it, not nftables.
fn of_old(port: u16, ending: &str) -> String {
    let (_, place) = ending.split_once(" in ").unwrap();
    let place = match port {
        // The bridge calls the first of its hooks by itself, and frees what they refuse.
        7206 => "br_handle_frame after br_handle_frame init/calmveth1_peer".to_owned(),
        _ => place.replace("nft_do_chain", "nf_hook_slow").replace("__dev_forward_skb2", "__dev_forward_skb"),
    };
    format!("? in {place}")
}

/// How the packets end on this kernel, each as it was seen there; in the table as on 6.1.
pub(super) fn endings(cleaned: usize, read: usize, refused: usize) -> Endings {
    let kernel = kernel();
    let table = [
        (7101, "IP_INHDR in ip_forward after ip_forward ns-calm1/calmveth1"),
        (7102, "IP_INNOROUTES in ip_error after ip_rcv ns-calm1/calmveth1"),
        (7103, "PKT_TOO_BIG in ip_forward after ip_forward ns-calm1/calmveth1"),
        (7104, "IP_RPFILTER in ip_rcv_finish_core after ip_rcv ns-calm1/calmveth1"),
        (7105, "NO_SOCKET in __udp4_lib_rcv after ip_local_deliver ns-calm1/calmveth1"),
        (7106, "UDP_CSUM in __udp4_lib_rcv after ip_local_deliver ns-calm1/calmveth1"),
        (7107, "TCP_CSUM in tcp_v4_rcv after tcp_v4_rcv ns-calm1/calmveth1"),
        (7109, "NOT_SPECIFIED in udp_recvmsg after __udp_enqueue_schedule_skb ns-calm1/calmveth1, socket_queue"),
        (7201, "NETFILTER_DROP in nft_do_chain after nf_hook_slow ns-calm1/calmveth1, IPv4 PREROUTING"),
        (7202, "NETFILTER_DROP in nft_do_chain after nf_hook_slow ns-calm1/calmveth1, IPv4 INPUT"),
        (7203, "NETFILTER_DROP in nft_do_chain after nf_hook_slow ns-calm1/calmveth1, IPv4 FORWARD"),
        (7204, "NETFILTER_DROP in nft_do_chain after nf_hook_slow ns-calm1/calmveth1, IPv4 OUTPUT"),
        (7205, "NETFILTER_DROP in nft_do_chain after nf_hook_slow ns-calm1/calmveth1, IPv4 POSTROUTING"),
        (7206, "NETFILTER_DROP in nft_do_chain after br_handle_frame init/calmveth1_peer, bridge PREROUTING"),
        (7207, "NETFILTER_DROP in nft_do_chain after br_nf_forward_ip init/calmveth2_peer, bridge FORWARD"),
        (7208, "NETFILTER_DROP in nft_do_chain after nf_hook_slow init/calmveth2_peer, bridge POSTROUTING"),
        (7209, "NETFILTER_DROP in nft_do_chain after nf_hook_slow init/calmveth1_peer, netdev INGRESS"),
        (7210, "NETFILTER_DROP in nft_do_chain after nf_hook_slow init/calmbr, IPv4 FORWARD"),
        (7211, "NETFILTER_DROP in nft_do_chain after nf_hook_slow ns-calm1/calmveth1, IPv4 FORWARD"),
        (7212, "NO_SOCKET in __udp4_lib_rcv after nf_hook_slow ns-calm1/calmveth1"),
        (7301, "NOT_SPECIFIED in br_handle_frame after br_handle_frame init/calmveth1_peer"),
        // Called at the end of br_forward, so that the caller's address is that of the function before.
        (7302, "NOT_SPECIFIED in br_handle_frame_finish after br_forward init/calmveth1_peer → init/calmveth2_peer"),
        (7303, "NOT_SPECIFIED in __dev_forward_skb2 after __dev_forward_skb ns-calm1/calmveth1 → init/calmveth1_peer"),
        (7304, "NOT_SPECIFIED in br_dev_queue_push_xmit after br_dev_queue_push_xmit init/calmveth2_peer"),
        (7305, "NOT_SPECIFIED in br_handle_frame_finish after br_forward init/calmveth1_peer → init/calmveth2_peer"),
    ];
    let known = ["6.1", "6.12", "6.18", "7.3"];
    let age = |name: &str| known.iter().position(|known| *known == name);
    let now = if kernel == OLD { Some(0) } else { age(&kernel) };
    let now = now.unwrap_or_else(|| panic!("nobody has looked at what {kernel} does"));
    let on_this = |port: u16| LATER.iter().find(|(changed, since, _)| *changed == port && age(since).unwrap() <= now);
    let told = |port: u16, ending: &str| if kernel == OLD { of_old(port, ending) } else { ending.to_owned() };
    let mut endings: Endings = table
        .into_iter()
        .map(|(port, ending)| {
            let ending = on_this(port).map_or(ending, |(.., later)| later);
            (port.to_string(), BTreeMap::from([(told(port, ending), COUNT)]))
        })
        .collect();
    let full = "SOCKET_RCVBUFF in udp_queue_rcv_one_skb after __udp_enqueue_schedule_skb ns-calm1/calmveth1";
    endings.insert("7108".to_owned(), [("delivered".to_owned(), read), (told(7108, full), refused)].into());
    endings.insert(CLEAN.to_string(), [("delivered".to_owned(), cleaned)].into());
    endings
}
