//! The BPF programs of the gallery, as bytecode: few enough instructions that a reader can check each one, and no
//! compiler or object file at run time.
//!
//! tc and ip attach a program by the name under which it is pinned. The pin lives in a BPF file system that exists
//! only in the mount namespace of the thread that runs the command: when the thread ends, what was attached is all
//! that is left.

use std::{
    ffi::c_int,
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    path::Path,
    ptr,
};

use nix::{
    libc,
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use serde::Serialize;

/// Where a program is pinned, as its command names it.
pub const PIN: &str = "/sys/fs/bpf/skbtrace-lab";

/// A program. Each takes what goes to port 8000 by UDP or TCP over IPv4 without options, and lets all else pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Program {
    /// XDP: inverts the byte at [`BYTE`].
    XdpInvert,
    /// XDP: drops.
    XdpDrop,
    /// tc: inverts the byte at [`BYTE`].
    TcInvert,
}

/// Where in a frame the programs find the byte that they change: beyond every header and the header of a record.
pub const BYTE: u16 = 114;

const PROG_LOAD: c_int = 5;
const OBJ_PIN: c_int = 6;
const TYPE_SCHED_CLS: u32 = 3;
const TYPE_XDP: u32 = 6;

/// Offset of the ethertype in a frame, and of the destination port behind an IPv4 header without options.
const ETHERTYPE: i16 = 12;
const DPORT: i16 = 36;
/// As a little-endian load of the network's order sees them.
const IPV4: i32 = 0x0008;
const PORT: i32 = 8000_u16.swap_bytes() as i32;

/// An instruction: opcode, destination and source register, offset, immediate.
type Insn = (u8, u8, u8, i16, i32);

const LDX_W: u8 = 0x61;
const LDX_H: u8 = 0x69;
const LDX_B: u8 = 0x71;
const STX_B: u8 = 0x73;
const MOV: u8 = 0xbf;
const MOV_K: u8 = 0xb7;
const ADD_K: u8 = 0x07;
const XOR_K: u8 = 0xa7;
const JGT: u8 = 0x2d;
const JNE_K: u8 = 0x55;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;

/// `bpf_skb_store_bytes` and `bpf_skb_load_bytes`.
const STORE_BYTES: i32 = 9;
const LOAD_BYTES: i32 = 26;

/// r2 is the frame's beginning, r3 its end; whatever is not ours goes to the exit with XDP_PASS in r0.
fn xdp(action: &[Insn]) -> Vec<Insn> {
    let rest = action.len() as i16;
    let mut program = vec![
        (MOV_K, 0, 0, 0, 2),
        (LDX_W, 2, 1, 0, 0),
        (LDX_W, 3, 1, 4, 0),
        (MOV, 4, 2, 0, 0),
        (ADD_K, 4, 0, 0, i32::from(BYTE) + 1),
        (JGT, 4, 3, rest + 4, 0),
        (LDX_H, 5, 2, ETHERTYPE, 0),
        (JNE_K, 5, 0, rest + 2, IPV4),
        (LDX_H, 5, 2, DPORT, 0),
        (JNE_K, 5, 0, rest, PORT),
    ];
    program.extend_from_slice(action);
    program.push((EXIT, 0, 0, 0, 0));
    program
}

/// Reads `length` bytes at `from` of the frame onto the stack, or goes to the instruction `otherwise` further.
fn load_bytes(from: u16, length: i32, otherwise: i16) -> [Insn; 7] {
    [
        (MOV, 1, 6, 0, 0),
        (MOV_K, 2, 0, 0, i32::from(from)),
        (MOV, 3, 10, 0, 0),
        (ADD_K, 3, 0, 0, -8),
        (MOV_K, 4, 0, 0, length),
        (CALL, 0, 0, 0, LOAD_BYTES),
        (JNE_K, 0, 0, otherwise, 0),
    ]
}

/// By helpers alone: the payload of TCP is in page frags, which no program reaches directly. The filter that it serves
/// passes it IPv4 only.
fn tc_invert() -> Vec<Insn> {
    let write = [
        (LDX_B, 5, 10, -8, 0),
        (XOR_K, 5, 0, 0, 0xff),
        (STX_B, 10, 5, -8, 0),
        (MOV, 1, 6, 0, 0),
        (MOV_K, 2, 0, 0, i32::from(BYTE)),
        (MOV, 3, 10, 0, 0),
        (ADD_K, 3, 0, 0, -8),
        (MOV_K, 4, 0, 0, 1),
        (MOV_K, 5, 0, 0, 0),
        (CALL, 0, 0, 0, STORE_BYTES),
    ];
    let byte = load_bytes(BYTE, 1, write.len() as i16);
    let rest = (byte.len() + write.len()) as i16;
    let port = load_bytes(DPORT as u16, 2, rest + 2);
    let is_port = [(LDX_H, 5, 10, -8, 0), (JNE_K, 5, 0, rest, PORT)];
    // TC_ACT_OK.
    let end = [(MOV_K, 0, 0, 0, 0), (EXIT, 0, 0, 0, 0)];
    [&[(MOV, 6, 1, 0, 0)], port.as_slice(), &is_port, &byte, &write, &end].concat()
}

impl Program {
    fn kind(self) -> u32 {
        match self {
            Self::XdpInvert | Self::XdpDrop => TYPE_XDP,
            Self::TcInvert => TYPE_SCHED_CLS,
        }
    }

    fn instructions(self) -> Vec<u64> {
        let byte = BYTE as i16;
        let instructions = match self {
            Self::XdpInvert => xdp(&[(LDX_B, 5, 2, byte, 0), (XOR_K, 5, 0, 0, 0xff), (STX_B, 2, 5, byte, 0)]),
            // XDP_DROP.
            Self::XdpDrop => xdp(&[(MOV_K, 0, 0, 0, 1)]),
            Self::TcInvert => tc_invert(),
        };
        instructions.into_iter().map(encode).collect()
    }
}

fn encode((opcode, destination, source, offset, immediate): Insn) -> u64 {
    let registers = destination | source << 4;
    let [o0, o1] = offset.to_le_bytes();
    let [i0, i1, i2, i3] = immediate.to_le_bytes();
    u64::from_le_bytes([opcode, registers, o0, o1, i0, i1, i2, i3])
}

/// The beginning of `union bpf_attr` for BPF_PROG_LOAD, which kernels take at any length.
#[repr(C)]
struct ProgLoad {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
}

/// The same for BPF_OBJ_PIN.
#[repr(C)]
struct ObjPin {
    path: u64,
    fd: u32,
    flags: u32,
}

/// A pointer as the kernel takes it: memory that is read through a number.
fn address<T>(of: *const T) -> u64 {
    of.expose_provenance() as u64
}

fn bpf<T>(command: c_int, attributes: &T) -> io::Result<c_int> {
    // SAFETY: the attributes are laid out as the command's part of `union bpf_attr`, their size is passed, and what
    // they point to outlives the call at both call sites. These commands write nothing back without a log.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, command, ptr::from_ref(attributes), size_of::<T>()) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer as c_int) }
}

fn load(program: Program) -> io::Result<OwnedFd> {
    let instructions = program.instructions();
    let attributes = ProgLoad {
        kind: program.kind(),
        count: instructions.len() as u32,
        instructions: address(instructions.as_ptr()),
        license: address(c"Dual MIT/GPL".as_ptr()),
        log_level: 0,
        log_size: 0,
        log: 0,
    };
    let fd = bpf(PROG_LOAD, &attributes)?;
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Loads a program and pins it where only this thread and the commands that it starts see it. The thread must be one
/// that ends soon: it loses sight of the BPF file system that everybody else has.
///
/// # Errors
/// Where the kernel refuses, with what was tried.
pub(super) fn pin(program: Program) -> Result<(), (&'static str, io::Error)> {
    let step = |what| move |error: nix::Error| (what, io::Error::from(error));
    let private = MsFlags::MS_PRIVATE | MsFlags::MS_REC;
    unshare(CloneFlags::CLONE_NEWNS).map_err(step("make a mount namespace"))?;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).map_err(step("make mounts private"))?;
    let directory = Path::new(PIN).parent().unwrap_or(Path::new("/"));
    mount(Some("bpf"), directory, Some("bpf"), MsFlags::empty(), None::<&str>)
        .map_err(step("mount a BPF file system"))?;
    let fd = load(program).map_err(|error| ("load a BPF program", error))?;
    let path = std::ffi::CString::new(PIN).unwrap_or_default();
    let attributes = ObjPin { path: address(path.as_ptr()), fd: fd.as_raw_fd() as u32, flags: 0 };
    bpf(OBJ_PIN, &attributes).map(drop).map_err(|error| ("pin a BPF program", error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_jump_of_every_program_lands_inside_it_and_the_last_instruction_is_an_exit() {
        for program in [Program::XdpInvert, Program::XdpDrop, Program::TcInvert] {
            let instructions = program.instructions();
            assert_eq!(instructions.last().map(|last| *last as u8), Some(EXIT), "{program:?}");
            for (index, instruction) in instructions.iter().enumerate() {
                if matches!(*instruction as u8, JGT | JNE_K) {
                    let target = index + 1 + usize::from((instruction >> 16) as u16);
                    assert!(target < instructions.len(), "{program:?}: {index} jumps to {target}");
                }
            }
        }
    }

    #[test]
    fn an_instruction_is_laid_out_as_the_kernel_has_it() {
        assert_eq!(encode((JNE_K, 5, 0, 4, PORT)), 0x0000_401f_0004_0555);
        assert_eq!(encode((STX_B, 10, 5, -8, 0)), 0x0000_0000_fff8_5a73);
    }
}
