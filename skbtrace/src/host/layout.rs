//! Where things are in this kernel's structures: what the kernel side is told before it is loaded.

use skbtrace_common::{MAX_SKB_SIZE, Offsets, SOCK_READ};
use thiserror::Error;

use super::{Host, arch, memory::Pages};

/// BTF lacks what nothing works without.
#[derive(Debug, Error)]
pub enum LayoutError {
    /// A member was not found.
    #[error("this kernel's BTF has no {structure}.{member}: skbtrace does not know this kernel, please report it")]
    NoMember {
        /// The structure.
        structure: &'static str,
        /// Its member.
        member: &'static str,
    },
    /// `sk_buff` has outgrown the room for its copy.
    #[error("this kernel's sk_buff has {0} bytes, more than the {MAX_SKB_SIZE} that skbtrace copies: please report it")]
    LargeSkb(u32),
}

/// The layout of the running kernel.
///
/// # Errors
/// When a member that every kernel has had is missing. What some kernels lack is marked absent instead.
pub fn offsets(host: &Host) -> Result<Offsets, LayoutError> {
    let btf = &host.btf;
    let must = |structure: &'static str, member: &'static str| {
        btf.member(structure, member, None).ok_or(LayoutError::NoMember { structure, member })
    };
    let bits = |member: &'static str| {
        btf.bits("sk_buff", member).ok_or(LayoutError::NoMember { structure: "sk_buff", member })
    };
    let skb = |member: &'static str| must("sk_buff", member);
    let skb_size =
        btf.size("sk_buff", None).ok_or(LayoutError::NoMember { structure: "sk_buff", member: "(its size)" })?;
    if skb_size as usize > MAX_SKB_SIZE {
        return Err(LayoutError::LargeSkb(skb_size));
    }
    let sock = |member: &'static str| match must("sock_common", member)? {
        offset if offset + 16 <= SOCK_READ => Ok(offset),
        _ => Err(LayoutError::NoMember { structure: "sock_common", member }),
    };
    let frag = frag(host).ok_or(LayoutError::NoMember { structure: "skb_frag", member: "(its members)" })?;
    let running_probe = host.symbols.data("current_kprobe").zip(host.symbols.data("kprobe_instance"));
    let (per_cpu_offset, preempt_count) = arch::preempt_count(host).unwrap_or((0, 0));
    let pages = Pages::of(host);
    Ok(Offsets {
        skb_size,
        len: skb("len")?,
        data_len: skb("data_len")?,
        head: skb("head")?,
        data: skb("data")?,
        next: skb("next")?,
        tail: skb("tail")?,
        end: skb("end")?,
        network_header: skb("network_header")?,
        mac_header: skb("mac_header")?,
        protocol: skb("protocol")?,
        users: skb("users")?,
        skb_dev: skb("dev")?,
        refdst: skb("_skb_refdst")?,
        mark: skb("mark")?,
        skb_iif: skb("skb_iif")?,
        vlan_tci: skb("vlan_tci")?,
        csum_start: skb("csum_start").unwrap_or(Offsets::ABSENT),
        ip_summed: bits("ip_summed")?,
        cloned: bits("cloned")?,
        pkt_type: bits("pkt_type")?,
        vlan_present: bits("vlan_present").unwrap_or_default(),
        gso_size: must("skb_shared_info", "gso_size")?,
        gso_segs: must("skb_shared_info", "gso_segs")?,
        gso_type: must("skb_shared_info", "gso_type")?,
        nr_frags: must("skb_shared_info", "nr_frags")?,
        frags: must("skb_shared_info", "frags")?,
        frag_list: must("skb_shared_info", "frag_list")?,
        frag_size: frag.size,
        frag_page: frag.page,
        frag_len: frag.len,
        frag_offset: frag.offset,
        page_size: pages.array_bytes,
        dst_dev: must("dst_entry", "dev")?,
        dev_name: must("net_device", "name")?,
        dev_ifindex: must("net_device", "ifindex")?,
        dev_net: must("net_device", "nd_net")?,
        net_inum: must("net", "ns")? + must("ns_common", "inum")?,
        veth_peer: veth_peer(host).unwrap_or(Offsets::ABSENT),
        port_dev: btf.member("net_bridge_port", "dev", Some("bridge")).unwrap_or(Offsets::ABSENT),
        tcp_cb_seq: skb("cb")? + must("tcp_skb_cb", "seq")?,
        tcp_cb_flags: skb("cb")? + must("tcp_skb_cb", "tcp_flags")?,
        sock_dst: must("sock", "sk_dst_cache")?,
        sock_family: sock("skc_family")?,
        sock_saddr: sock("skc_rcv_saddr")?,
        sock_daddr: sock("skc_daddr")?,
        // Without IPv6 nobody asks for them.
        sock_saddr6: sock("skc_v6_rcv_saddr").unwrap_or(0),
        sock_daddr6: sock("skc_v6_daddr").unwrap_or(0),
        sock_num: sock("skc_num")?,
        sock_dport: sock("skc_dport")?,
        nf_hook: btf.member("nf_hook_state", "hook", None).unwrap_or(Offsets::ABSENT),
        nf_family: btf.member("nf_hook_state", "pf", None).unwrap_or(Offsets::ABSENT),
        nf_in: btf.member("nf_hook_state", "in", None).unwrap_or(Offsets::ABSENT),
        nf_out: btf.member("nf_hook_state", "out", None).unwrap_or(Offsets::ABSENT),
        probe_missed: btf.member("kprobe", "nmissed", None).unwrap_or(Offsets::ABSENT),
        vlan_proto: skb("vlan_proto")?,
        per_cpu_offset,
        vmemmap_base: pages.vmemmap.address(),
        page_offset_base: pages.page_offset.address(),
        vmemmap: pages.vmemmap.value(),
        page_offset: pages.page_offset.value(),
        preempt_count,
        // Both or none; and of no use without the per-CPU areas.
        current_kprobe: if per_cpu_offset == 0 { 0 } else { running_probe.map_or(0, |(current, _)| current) },
        kprobe_instance: running_probe.map_or(0, |(_, instance)| instance),
        prog_active: if per_cpu_offset == 0 { 0 } else { host.symbols.data("bpf_prog_active").unwrap_or(0) },
    })
}

/// An element of `skb_shared_info.frags`.
struct Frag {
    size: u32,
    page: u32,
    len: u32,
    offset: u32,
}

/// It is a structure of its own from 6.9 on (include/linux/skbuff.h), and a `bio_vec` before.
fn frag(host: &Host) -> Option<Frag> {
    let [(structure, page, len, offset), older] =
        [("skb_frag", "netmem", "len", "offset"), ("bio_vec", "bv_page", "bv_len", "bv_offset")];
    let of = |(structure, page, len, offset): (&str, &str, &str, &str)| {
        let member = |member: &str| host.btf.member(structure, member, None);
        let size = host.btf.size(structure, None)?;
        Some(Frag { size, page: member(page)?, len: member(len)?, offset: member(offset)? })
    };
    of((structure, page, len, offset)).or_else(|| of(older))
}

/// From a veth's `net_device` to the pointer to its peer. The private area follows the structure, aligned to
/// NETDEV_ALIGN, 32 bytes (include/linux/netdevice.h, netdev_priv); from 6.9 on it is a member.
fn veth_peer(host: &Host) -> Option<u32> {
    let peer = host.btf.member("veth_priv", "peer", Some("veth"))?;
    let private = match host.btf.member("net_device", "priv", None) {
        Some(offset) => offset,
        None => host.btf.size("net_device", None)?.next_multiple_of(32),
    };
    Some(private + peer)
}
