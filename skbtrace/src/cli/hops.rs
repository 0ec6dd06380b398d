//! `skbtrace hops`: the catalogue, and what this kernel has of it.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use anyhow::Result;

use super::told;
use crate::{
    hops::{Backend, CATALOGUE, Fate, Plan},
    host::Host,
};

const BACKENDS: [Backend; 2] = [Backend::Kprobe, Backend::Tracepoint];

/// Of what.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// List the hops of this backend [default: all of both]
    #[arg(long, value_name = "BACKEND")]
    backend: Option<Backend>,
}

/// Lists them.
pub fn run(args: &Args) -> Result<ExitCode> {
    // The catalogue is worth reading also where nothing can be traced.
    let (plans, error) = match Host::look() {
        Ok(host) => (BACKENDS.map(|backend| Plan::for_host(&host, backend)).to_vec(), None),
        Err(error) => (Vec::new(), Some(error)),
    };
    let mut text = list(&plans, args.backend);
    if let Some(error) = error {
        text.push_str(&format!("\nWhich of them this kernel has is not known: {}\n", told(&error.into())));
    }
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// The hops of a backend, or all: what each is, whose it is, and why this kernel has it not, where that is so.
fn list(plans: &[Plan], backend: Option<Backend>) -> String {
    let mut text = String::new();
    for hop in CATALOGUE.iter().filter(|hop| backend.is_none_or(|backend| hop.is_of(backend))) {
        text.push_str(hop.name());
        match hop.only {
            None => text.push_str("  (both backends)"),
            Some(Backend::Tracepoint) => text.push_str("  (tracepoint backend)"),
            Some(Backend::Kprobe) => {}
        }
        if let Some(Fate::LeftOut(reason)) = plans.iter().find_map(|plan| plan.fate(hop)) {
            text.push_str("  (not here: ");
            text.push_str(reason);
            text.push(')');
        }
        text.push_str("\n    ");
        text.push_str(hop.teaches);
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{Backend, CATALOGUE, list};

    #[test]
    fn the_hops_of_the_tracepoint_backend() {
        insta::assert_snapshot!(list(&[], Some(Backend::Tracepoint)), @r"
    net_dev_queue  (tracepoint backend)
        The packet has passed tc egress and a queue of the device was chosen: the queueing discipline, if any, comes next.
    qdisc_enqueue  (tracepoint backend)
        The device has a queueing discipline: the packet waits in it until it may leave.
    net_dev_start_xmit  (both backends)
        The queueing discipline, if any, has let the packet go: dev_hard_start_xmit hands it to the device's driver.
    netif_rx  (tracepoint backend)
        The peer has received the packet: it is put into a CPU's input queue, and from here on nobody waits for it.
    napi_gro_receive_entry  (tracepoint backend)
        GRO looks whether the packet continues one that it holds: then the two go up the stack as one.
    netif_receive_skb  (both backends)
        The packet enters the stack (__netif_receive_skb_core): taps see it, tc ingress and the rx_handler come next.
    tcp_probe  (tracepoint backend)
        TCP has the segment, and its connection is established: it is queued for the reader, or used up if it is an ACK.
    skb_copy_datagram_iovec  (tracepoint backend)
        The process reads: the payload is copied from the packet into the buffer of the application.
    kfree_skb  (both backends)
        The packet is dropped: the kernel frees it before its time, from 5.17 on with a reason.
    consume_skb  (both backends)
        The packet has served its purpose and is freed.
    ");
    }

    #[test]
    fn the_list_of_both_backends_has_every_hop_once() {
        let names = |backend| {
            let list = list(&[], backend);
            let names = list.lines().filter(|line| !line.starts_with(' '));
            names.map(|line| line.split("  ").next().unwrap_or_default().to_owned()).collect::<Vec<_>>()
        };
        let all = names(None);
        assert_eq!(all, CATALOGUE.iter().map(|hop| hop.name()).collect::<Vec<_>>());
        let [kprobe, tracepoint] = [Backend::Kprobe, Backend::Tracepoint].map(|backend| names(Some(backend)));
        assert!(all.iter().all(|hop| kprobe.contains(hop) || tracepoint.contains(hop)));
        assert!(kprobe.contains(&"veth_xmit".to_owned()) && !tracepoint.contains(&"veth_xmit".to_owned()));
    }
}
