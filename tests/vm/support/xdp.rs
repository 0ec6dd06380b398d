//! An XDP program of two instructions, for a device whose driver is to run one.

use std::{
    fs,
    os::fd::{FromRawFd as _, OwnedFd},
};

use nix::libc;

use super::machine::sh;

/// What the program says of every frame (include/uapi/linux/bpf.h, enum xdp_action).
#[derive(Clone, Copy)]
pub enum Verdict {
    Drop = 1,
    Pass = 2,
}

/// Lets the driver of a device in a namespace run a program with this verdict.
pub fn attach(netns: &str, device: &str, verdict: Verdict) {
    // Not in /sys, which `ip` mounts anew for itself.
    let folder = "/run/skbtrace-vm-bpf";
    sh(&format!("mkdir -p {folder} && {{ mountpoint -q {folder} || mount -t bpf none {folder}; }}"));
    let path = format!("{folder}/xdp");
    let program = load(verdict);
    pin(&program, &path);
    sh(&format!("ip -n {netns} link set dev {device} xdpdrv pinned {path}"));
    fs::remove_file(path).unwrap();
}

/// `union bpf_attr` for BPF_PROG_LOAD, as far as it is needed.
#[repr(C)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    licence: u64,
    log_and_flags: [u64; 3],
    name: [u8; 16],
    rest: [u64; 7],
}

/// The same for BPF_OBJ_PIN.
#[repr(C)]
struct Pin {
    path: u64,
    fd: u32,
    flags: u32,
}

fn load(verdict: Verdict) -> OwnedFd {
    load_as(6, verdict as u32, "")
}

/// Loads a program of this type and name that says the same of everything.
pub(super) fn load_as(kind: u32, verdict: u32, name: &str) -> OwnedFd {
    // r0 = verdict; exit
    let instructions: [u64; 2] = [0xb7 | u64::from(verdict) << 32, 0x95];
    let mut bytes = [0; 16];
    bytes[..name.len()].copy_from_slice(name.as_bytes());
    let load = Load {
        kind,
        count: 2,
        instructions: instructions.as_ptr() as u64,
        licence: c"GPL".as_ptr() as u64,
        log_and_flags: [0; 3],
        name: bytes,
        rest: [0; 7],
    };
    create(5, &load).unwrap()
}

fn pin(program: &OwnedFd, path: &str) {
    use std::os::fd::AsRawFd as _;
    let path = std::ffi::CString::new(path).unwrap();
    bpf(6, &Pin { path: path.as_ptr() as u64, fd: program.as_raw_fd().try_into().unwrap(), flags: 0 }).unwrap();
}

/// A command that makes something.
pub(super) fn create<T>(command: libc::c_long, attributes: &T) -> std::io::Result<OwnedFd> {
    let fd = bpf(command, attributes)?;
    // SAFETY: the kernel has just given it to us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn bpf<T>(command: libc::c_long, attributes: &T) -> std::io::Result<i32> {
    // SAFETY: the kernel reads as many bytes as it is told, and what they point to outlives the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attributes, size_of::<T>()) };
    if result < 0 {
        return Err(std::io::Error::last_os_error());
    }
    result.try_into().map_err(std::io::Error::other)
}
