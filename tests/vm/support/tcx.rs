//! A program of tcx of two instructions, at a device (Linux 6.6 and later).

use std::os::fd::{AsRawFd as _, OwnedFd};

use super::{
    lab::{ifindex, within},
    xdp::{create, load_as},
};

// include/uapi/linux/bpf.h
const BPF_PROG_TYPE_SCHED_CLS: u32 = 3;
const BPF_LINK_CREATE: i64 = 28;
const BPF_TCX_INGRESS: u32 = 46;
const BPF_TCX_EGRESS: u32 = 47;

/// Which packets it gets.
#[derive(Clone, Copy, Debug)]
pub enum Side {
    Ingress = BPF_TCX_INGRESS as isize,
    Egress = BPF_TCX_EGRESS as isize,
}

/// What the program says of every packet (enum tcx_action_base).
#[derive(Clone, Copy, Debug)]
pub enum Verdict {
    Pass = 0,
    Drop = 2,
}

/// `union bpf_attr` for BPF_LINK_CREATE, as far as it is needed.
#[repr(C)]
struct Link {
    program: u32,
    device: u32,
    side: u32,
    flags: u32,
    rest: [u64; 4],
}

/// Attaches a program of this name for as long as what is returned lives.
pub fn attach(netns: &str, device: &str, side: Side, verdict: Verdict, name: &str) -> std::io::Result<OwnedFd> {
    let program = load_as(BPF_PROG_TYPE_SCHED_CLS, verdict as u32, name);
    within(netns, || {
        let device = ifindex(device);
        let program = program.as_raw_fd().try_into().map_err(std::io::Error::other)?;
        create(BPF_LINK_CREATE, &Link { program, device, side: side as u32, flags: 0, rest: [0; 4] })
    })
}
