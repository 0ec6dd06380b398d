//! The way of a hit: look up, filter, number, reserve, write.

use aya_ebpf::{
    EbpfContext,
    bindings::{BPF_ANY, BPF_NOEXIST},
    helpers::{bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_smp_processor_id, bpf_ktime_get_ns},
    programs::{ProbeContext, RawTracePointContext},
};
use skbtrace_common::{
    AddrKey, Context, Counters, DeviceKey, Event, EventFlags, Filter, HopArgs, HopId, NO_ARG, SEGMENT_BY_ADDRESS,
    SEGMENT_MEMBER, hop_flags,
};

use crate::{
    device_of,
    maps::{
        ADDRS, COUNTERS, DEVICES, EVENTS, Level, SCRATCH, SEQUENCE, TRACKED, Track, filter, hop_args, offset,
    },
    packet::{Headers, Skb, gso},
    read::value,
};

/// The arguments of the traced function or tracepoint.
pub trait Args: EbpfContext {
    /// An argument by position; 0 when there is none at it.
    fn get(&self, position: u8) -> u64;
    /// Which scratch value a program of this kind may use.
    fn level(hop: HopId) -> Level;
}

impl Args for ProbeContext {
    #[inline(always)]
    fn get(&self, position: u8) -> u64 {
        match position {
            0 => self.arg(0),
            1 => self.arg(1),
            2 => self.arg(2),
            3 => self.arg(3),
            4 => self.arg(4),
            _ => None,
        }
        .unwrap_or(0)
    }

    #[inline(always)]
    fn level(_hop: HopId) -> Level {
        Level::Kprobe
    }
}

impl Args for RawTracePointContext {
    #[inline(always)]
    fn get(&self, position: u8) -> u64 {
        match position {
            0 => self.arg(0),
            1 => self.arg(1),
            2 => self.arg(2),
            _ => 0,
        }
    }

    #[inline(always)]
    fn level(hop: HopId) -> Level {
        if hop as u16 == HopId::KfreeSkb as u16 { Level::Drop } else { Level::Consume }
    }
}

/// A packet was seen at a hop.
#[inline(always)]
pub fn hit<A: Args>(args: &A, hop: HopId) {
    let Some(counters) = COUNTERS.get_ptr_mut(hop as u32) else { return };
    // SAFETY: a per-CPU value; a program on this CPU that interrupts this one counts another hop.
    let counters = unsafe { &mut *counters };
    let plan = hop_args(hop);
    let mut address = args.get(plan.skb);
    if plan.flags & hop_flags::INDIRECT != 0 {
        address = value(address).unwrap_or(0);
    }
    let tracked = TRACKED.get_ptr_mut(address);
    if plan.flags & (hop_flags::END | hop_flags::TRACKED_ONLY) != 0 && tracked.is_none() {
        counters.filtered = counters.filtered.wrapping_add(1);
        return;
    }
    let Some(scratch) = SCRATCH.get_ptr_mut(A::level(hop) as u32) else { return };
    // SAFETY: a per-CPU value that only programs of this level use, which do not interrupt one another.
    let Some(mut skb) = Skb::read(address, unsafe { &mut *scratch }) else {
        counters.unreadable = counters.unreadable.wrapping_add(1);
        return;
    };
    let device = device_of::address(args, &skb, plan.dev_from, plan.dev, 0);
    let mut flags = 0;
    // SAFETY: the pointer is to a value of the map, which stays readable for the length of this program even when
    // another CPU removes it; only the CPU that has the packet in hand writes to it.
    let known = tracked.map(|track| unsafe { &mut *track });
    let known = match known {
        Some(_) if plan.flags & hop_flags::ORIGIN != 0 && skb.u64(offset!(skb_dev)) == 0 => {
            // A new packet is born under an address whose packet never ended: the end was not seen.
            flags |= EventFlags::REUSED;
            None
        }
        known => known,
    };
    let key = device_of::key(device);
    let headers;
    let (id, step) = if let Some(track) = known {
        let step = track.step;
        track.step = step.wrapping_add(1);
        headers = skb.headers();
        (track.id, step)
    } else {
        let Some(key) = key else {
            counters.filtered = counters.filtered.wrapping_add(1);
            return;
        };
        let Some(member) = segment(key) else {
            counters.filtered = counters.filtered.wrapping_add(1);
            return;
        };
        headers = skb.headers();
        if !wanted(&headers, member, key) {
            counters.filtered = counters.filtered.wrapping_add(1);
            return;
        }
        let Some(id) = next_id() else { return };
        let track = Track { id, step: 1, reserved: 0 };
        let policy = if flags & EventFlags::REUSED != 0 { BPF_ANY } else { BPF_NOEXIST };
        if TRACKED.insert(address, track, u64::from(policy)).is_err() {
            counters.map_full = counters.map_full.wrapping_add(1);
            return;
        }
        flags |= EventFlags::FIRST;
        (id, 0)
    };
    if plan.flags & hop_flags::END != 0 {
        flags |= EventFlags::END;
        // A packet that is no longer there was ended by another CPU: nothing is left to do.
        let _ = TRACKED.remove(address);
    }
    let Some(mut entry) = EVENTS.reserve::<Event>(0) else {
        counters.ring_full = counters.ring_full.wrapping_add(1);
        return;
    };
    let event = entry.as_mut_ptr();
    // SAFETY: the reserved bytes are of the size of an Event, and zero is a value of each of its members.
    let event = unsafe {
        core::ptr::write_bytes(event, 0, 1);
        &mut *event
    };
    event.packet = id;
    event.step = step;
    event.skb = address;
    event.hop = hop as u16;
    event.flags = flags;
    write(event, args, &plan, &skb, device, key, &headers);
    if event.flags & EventFlags::READ_FAILED != 0 {
        counters.read_failed = counters.read_failed.wrapping_add(1);
    }
    counters.sent = counters.sent.wrapping_add(1);
    entry.submit(0);
}

/// How the segment wants packets on this device.
#[inline(always)]
fn segment(key: DeviceKey) -> Option<u32> {
    // SAFETY: the value is one aligned word that only user space writes.
    unsafe { DEVICES.get(key) }.copied()
}

/// Whether a packet that is not followed yet is to be.
#[inline(always)]
fn wanted(headers: &Headers, member: u32, key: DeviceKey) -> bool {
    if member & SEGMENT_MEMBER == 0 {
        let local = member & SEGMENT_BY_ADDRESS != 0
            && headers.l3
            && is_local(headers.saddr, key.netns)
            && is_local(headers.daddr, key.netns);
        if !local {
            return false;
        }
    }
    let Filter { host, port, l4_proto, has_host, ethertype, .. } = filter();
    if ethertype != 0 && headers.ethertype != ethertype {
        return false;
    }
    if l4_proto != 0 && headers.l4_proto != l4_proto {
        return false;
    }
    if port != 0 && (!headers.l4 || (headers.sport != port && headers.dport != port)) {
        return false;
    }
    if has_host != 0 {
        let host = words(host);
        if !headers.l3 || (!same(headers.saddr, host) && !same(headers.daddr, host)) {
            return false;
        }
    }
    true
}

#[inline(always)]
fn is_local(addr: [u32; 4], netns: u32) -> bool {
    // SAFETY: the value is a byte that only user space writes.
    unsafe { ADDRS.get(AddrKey { addr: bytes(addr), netns }) }.is_some()
}

#[inline(always)]
fn same(a: [u32; 4], b: [u32; 4]) -> bool {
    (a[0] ^ b[0]) | (a[1] ^ b[1]) | (a[2] ^ b[2]) | (a[3] ^ b[3]) == 0
}

#[inline(always)]
fn words(bytes: [u8; 16]) -> [u32; 4] {
    // SAFETY: the same size, and any bytes are integers.
    unsafe { core::mem::transmute(bytes) }
}

#[inline(always)]
fn bytes(words: [u32; 4]) -> [u8; 16] {
    // SAFETY: as above.
    unsafe { core::mem::transmute(words) }
}

/// An id that no other packet of this run has: the CPU, from 1, and a count.
#[inline(always)]
fn next_id() -> Option<u64> {
    let count = SEQUENCE.get_ptr_mut(0)?;
    // SAFETY: a per-CPU value; only kprobe programs use it, which do not interrupt one another on a CPU.
    let count = unsafe {
        *count = (*count).wrapping_add(1);
        *count
    };
    Some((u64::from(cpu()).wrapping_add(1) << 48) | (count & 0xffff_ffff_ffff))
}

#[inline(always)]
fn cpu() -> u32 {
    // SAFETY: the helper takes nothing and cannot fail.
    unsafe { bpf_get_smp_processor_id() as u32 }
}

/// Fills in all but the identity.
#[inline(always)]
fn write<A: Args>(
    event: &mut Event,
    args: &A,
    plan: &HopArgs,
    skb: &Skb<'_>,
    device: u64,
    key: Option<DeviceKey>,
    headers: &Headers,
) {
    // SAFETY: the helper takes nothing and cannot fail.
    event.time_ns = unsafe { bpf_ktime_get_ns() };
    event.cpu = cpu();
    let task = bpf_get_current_pid_tgid();
    event.pid = (task >> 32) as u32;
    event.tid = task as u32;
    if let Ok(comm) = bpf_get_current_comm() {
        event.comm = comm;
    }
    if let Some(context) = context(event.cpu) {
        event.context = context;
        event.flags |= EventFlags::CONTEXT;
    }
    if let Some(key) = key {
        event.netns = key.netns;
        event.ifindex = key.ifindex;
        if !device_of::name(device, &raw mut event.dev) {
            event.flags |= EventFlags::READ_FAILED;
        }
    } else if device != 0 {
        event.flags |= EventFlags::READ_FAILED;
    }
    let second = device_of::address(args, skb, plan.dev2_from, plan.dev2, device);
    if let Some(key) = device_of::key(second) {
        event.netns2 = key.netns;
        event.ifindex2 = key.ifindex;
        if !device_of::name(second, &raw mut event.dev2) {
            event.flags |= EventFlags::READ_FAILED;
        }
    }
    if plan.sock != NO_ARG {
        event.sock = args.get(plan.sock);
    }
    if plan.location != NO_ARG {
        event.location = args.get(plan.location);
    }
    if plan.reason != NO_ARG {
        event.reason = args.get(plan.reason) as u32;
        event.flags |= EventFlags::REASON;
    }
    write_skb(event, skb);
    write_headers(event, headers);
}

#[inline(always)]
fn write_skb(event: &mut Event, skb: &Skb<'_>) {
    event.head = skb.u64(offset!(head));
    event.len = skb.u32(offset!(len));
    event.data_len = skb.u32(offset!(data_len));
    event.mark = skb.u32(offset!(mark));
    event.users = skb.u32(offset!(users));
    event.vlan_tci = skb.u16(offset!(vlan_tci));
    event.ip_summed = skb.bits(offset!(ip_summed));
    event.cloned = skb.bits(offset!(cloned));
    event.pkt_type = skb.bits(offset!(pkt_type));
    match gso(skb.shared_info()) {
        Some((size, segs, kind)) => {
            event.gso_size = size;
            event.gso_segs = segs;
            event.gso_type = kind;
        }
        None => event.flags |= EventFlags::READ_FAILED,
    }
}

#[inline(always)]
fn write_headers(event: &mut Event, headers: &Headers) {
    event.saddr = bytes(headers.saddr);
    event.daddr = bytes(headers.daddr);
    event.seq = headers.seq;
    event.ack = headers.ack;
    event.payload_len = headers.payload_len;
    event.ethertype = headers.ethertype;
    event.sport = headers.sport;
    event.dport = headers.dport;
    event.ip_id = headers.ip_id;
    event.l4_proto = headers.l4_proto;
    event.ttl = headers.ttl;
    event.tcp_flags = headers.tcp_flags;
    if headers.l3 {
        event.flags |= EventFlags::L3;
    }
    if headers.l4 {
        event.flags |= EventFlags::L4;
    }
    if headers.fragment {
        event.flags |= EventFlags::FRAGMENT;
    }
}

/// Softirq, hardirq or process, by the preempt count of this CPU; `None` where its address is not known.
#[inline(always)]
fn context(cpu: u32) -> Option<u8> {
    let offsets = offset!(per_cpu_offset);
    if offsets == 0 {
        return None;
    }
    let base: u64 = value(offsets.wrapping_add(u64::from(cpu) << 3))?;
    let count: u32 = value(base.wrapping_add(offset!(preempt_count)))?;
    Some(if count & 0xf_0000 != 0 {
        Context::HARDIRQ
    } else if count & 0x100 != 0 {
        Context::SOFTIRQ
    } else {
        Context::PROCESS
    })
}

const _: () = assert!(SEGMENT_MEMBER != 0 && size_of::<Counters>() == 48);
