//! The calls of bpf(2) that aya has not: it loads no program as one that is attached to many functions at once
//! (`BPF_TRACE_KPROBE_MULTI`), and makes no such link. The structures are the beginnings of `union bpf_attr` and
//! `struct bpf_link_info` (include/uapi/linux/bpf.h), as far as these calls need them: what is behind them counts as 0.

use std::{
    ffi::{CStr, c_int, c_long},
    io,
    os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
};

use aya_obj::generated::{bpf_attach_type, bpf_cmd, bpf_prog_type};
use nix::libc::{SYS_bpf, syscall};

/// Bytes of the verifier's log that are asked for when it refuses a program.
const LOG: usize = 1 << 20;

/// A program as the kernel takes it.
pub(super) struct Code<'a> {
    /// Its name; the kernel keeps fifteen bytes of it.
    pub name: &'a str,
    /// Its instructions, of eight bytes each.
    pub instructions: &'a [u8],
    /// Its licence.
    pub license: &'a CStr,
    /// What its types are, if it has any.
    pub types: Option<Types<'a>>,
}

/// What a program's types are: without them it can call no function of its own by address.
pub(super) struct Types<'a> {
    /// All of the object's, loaded.
    pub btf: BorrowedFd<'a>,
    /// Those of its functions: records, and the size of each.
    pub functions: (&'a [u8], usize),
    /// Its lines, likewise.
    pub lines: (&'a [u8], usize),
}

#[repr(C)]
#[derive(Default)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
    prog_btf_fd: u32,
    func_info_rec_size: u32,
    func_info: u64,
    func_info_cnt: u32,
    line_info_rec_size: u32,
    line_info: u64,
    line_info_cnt: u32,
    attach_btf_id: u32,
}

#[repr(C)]
#[derive(Default)]
struct BtfLoad {
    btf: u64,
    btf_log_buf: u64,
    btf_size: u32,
    btf_log_size: u32,
    btf_log_level: u32,
    btf_log_true_size: u32,
}

#[repr(C)]
struct MapUpdate {
    map_fd: u64,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
#[derive(Default)]
struct LinkCreate {
    prog_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
    multi_flags: u32,
    cnt: u32,
    syms: u64,
    addrs: u64,
    cookies: u64,
}

#[repr(C)]
struct GetInfo {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

#[repr(C)]
#[derive(Default)]
struct MultiInfo {
    link_type: u32,
    id: u32,
    prog_id: u32,
    padding: u32,
    addrs: u64,
    count: u32,
    flags: u32,
    missed: u64,
}

/// Loads a program that is called by kprobe.multi (Linux 5.18 and later), or that such a one goes on in.
///
/// # Errors
/// The kernel's, with the end of the verifier's log.
pub(super) fn load_program(code: &Code<'_>) -> Result<OwnedFd, (io::Error, String)> {
    let mut attributes = ProgLoad {
        prog_type: bpf_prog_type::BPF_PROG_TYPE_KPROBE as u32,
        expected_attach_type: bpf_attach_type::BPF_TRACE_KPROBE_MULTI as u32,
        insn_cnt: (code.instructions.len() / 8) as u32,
        insns: address(code.instructions),
        license: code.license.as_ptr() as u64,
        ..ProgLoad::default()
    };
    for (to, byte) in attributes.prog_name.iter_mut().take(15).zip(code.name.bytes()) {
        *to = byte;
    }
    if let Some(types) = &code.types {
        let counted =
            |(records, size): (&[u8], usize)| (records.len().checked_div(size).unwrap_or(0) as u32, size as u32);
        attributes.prog_btf_fd = types.btf.as_raw_fd() as u32;
        attributes.func_info = address(types.functions.0);
        (attributes.func_info_cnt, attributes.func_info_rec_size) = counted(types.functions);
        attributes.line_info = address(types.lines.0);
        (attributes.line_info_cnt, attributes.line_info_rec_size) = counted(types.lines);
    }
    let refusal = match open(bpf_cmd::BPF_PROG_LOAD, &mut attributes) {
        Ok(program) => return Ok(program),
        Err(refusal) => refusal,
    };
    let log = vec![0u8; LOG];
    (attributes.log_level, attributes.log_size, attributes.log_buf) = (1, LOG as u32, address(&log));
    // It may be that the kernel takes it now.
    open(bpf_cmd::BPF_PROG_LOAD, &mut attributes).map_err(|_| (refusal, last_lines(&log)))
}

/// The last lines of a log that ends with a zero byte.
fn last_lines(log: &[u8]) -> String {
    let text = CStr::from_bytes_until_nul(log).map(CStr::to_string_lossy).unwrap_or_default();
    let mut lines: Vec<&str> = text.lines().rev().take(3).collect();
    lines.reverse();
    lines.join("; ")
}

/// Loads the types of an object.
///
/// # Errors
/// The kernel's.
pub(super) fn load_types(types: &[u8]) -> io::Result<OwnedFd> {
    let mut attributes = BtfLoad { btf: address(types), btf_size: types.len() as u32, ..BtfLoad::default() };
    open(bpf_cmd::BPF_BTF_LOAD, &mut attributes)
}

/// Puts a program into a program array.
///
/// # Errors
/// The kernel's: EINVAL for one that is called otherwise than those that are there.
pub(super) fn put_program(array: BorrowedFd<'_>, place: u32, program: BorrowedFd<'_>) -> io::Result<()> {
    let program = program.as_raw_fd();
    let mut attributes = MapUpdate {
        map_fd: array.as_raw_fd() as u64,
        key: &raw const place as u64,
        value: &raw const program as u64,
        flags: 0,
    };
    bpf(bpf_cmd::BPF_MAP_UPDATE_ELEM, &mut attributes).map(drop)
}

/// Has a program called on entry to the functions that begin at these addresses, with the cookie of each. Closing the link
/// ends it. It keeps the modules of the functions from being unloaded.
///
/// # Errors
/// The kernel's, when it refuses one of them.
pub(super) fn attach_to_many(program: BorrowedFd<'_>, addresses: &[u64], cookies: &[u64]) -> io::Result<OwnedFd> {
    if addresses.len() != cookies.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut attributes = LinkCreate {
        prog_fd: program.as_raw_fd() as u32,
        attach_type: bpf_attach_type::BPF_TRACE_KPROBE_MULTI as u32,
        cnt: addresses.len() as u32,
        addrs: addresses.as_ptr() as u64,
        cookies: cookies.as_ptr() as u64,
        ..LinkCreate::default()
    };
    open(bpf_cmd::BPF_LINK_CREATE, &mut attributes)
}

/// Hits that never came as far as to such a link's program (`bpf_link_info.kprobe_multi.missed`, Linux 6.7 and later).
///
/// # Errors
/// The kernel's.
pub(super) fn missed(link: BorrowedFd<'_>) -> io::Result<u64> {
    let mut info = MultiInfo::default();
    let mut attributes = GetInfo {
        bpf_fd: link.as_raw_fd() as u32,
        info_len: size_of::<MultiInfo>() as u32,
        info: &raw mut info as u64,
    };
    bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attributes)?;
    Ok(info.missed)
}

fn address(bytes: &[u8]) -> u64 {
    bytes.as_ptr() as u64
}

/// A call that opens something.
fn open<T>(command: bpf_cmd, attributes: &mut T) -> io::Result<OwnedFd> {
    let fd = RawFd::try_from(bpf(command, attributes)?).map_err(io::Error::other)?;
    // SAFETY: the kernel has just opened it, and nobody else has its number.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn bpf<T>(command: bpf_cmd, attributes: &mut T) -> io::Result<c_long> {
    // SAFETY: the kernel reads, and of what it answers writes, so many bytes of the structure; the addresses in it are of buffers
    // that the callers keep, with their lengths.
    let done = unsafe { syscall(SYS_bpf, command as c_int, &raw mut *attributes, size_of::<T>()) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(done) }
}

#[cfg(test)]
mod tests {
    use super::{GetInfo, LinkCreate, MultiInfo, ProgLoad, last_lines};
    use aya_obj::generated::{bpf_attr, bpf_link_info};
    use std::mem::offset_of;

    #[test]
    fn the_structures_are_the_beginnings_of_the_kernels() {
        // The places by include/uapi/linux/bpf.h.
        assert_eq!(offset_of!(ProgLoad, prog_name), 48);
        assert_eq!(offset_of!(ProgLoad, expected_attach_type), 68);
        assert_eq!(offset_of!(ProgLoad, func_info), 80);
        assert_eq!(offset_of!(ProgLoad, line_info), 96);
        assert_eq!(offset_of!(LinkCreate, multi_flags), 16);
        assert_eq!(offset_of!(LinkCreate, cookies), 40);
        assert_eq!(offset_of!(MultiInfo, missed), 32);
        assert_eq!(size_of::<GetInfo>(), 16);
        assert!(size_of::<ProgLoad>() <= size_of::<bpf_attr>());
        assert!(size_of::<MultiInfo>() <= size_of::<bpf_link_info>());
    }

    #[test]
    fn of_the_verifiers_log_the_end_is_kept() {
        assert_eq!(last_lines(b"1\n2\n3\nR0 !read_ok\nprocessed 7 insns\n\0\0"), "3; R0 !read_ok; processed 7 insns");
        assert_eq!(last_lines(b"\0"), "");
    }
}
