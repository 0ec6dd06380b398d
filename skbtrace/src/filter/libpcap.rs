//! libpcap itself, looked for when an expression is given and not before.
//!
//! It is opened at run time: to build skbtrace takes no libpcap, and to run it takes one only for expressions. Programs that are
//! linked statically cannot open libraries at all: there `tcpdump` is asked, which is linked with libpcap (see `compile`).

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};

use libloading::Library;

use super::{Link, cbpf};

/// Its names: upstream's, and Debian's.
const NAMES: [&str; 2] = ["libpcap.so.1", "libpcap.so.0.8"];

/// What libpcap calls no netmask.
const NETMASK_UNKNOWN: c_uint = 0xffff_ffff;
/// Bytes that a program would accept: the length of the longest packet. Only whether it is 0 counts here.
const SNAPLEN: c_int = 262_144;

/// A handle of libpcap's, of which nothing is known here.
#[repr(C)]
struct Handle(c_void);

/// `struct bpf_program`.
#[repr(C)]
struct Program {
    len: c_uint,
    insns: *mut cbpf::Insn,
}

type OpenDead = unsafe extern "C" fn(c_int, c_int) -> *mut Handle;
type Compile = unsafe extern "C" fn(*mut Handle, *mut Program, *const c_char, c_int, c_uint) -> c_int;
type FreeCode = unsafe extern "C" fn(*mut Program);
type GetError = unsafe extern "C" fn(*mut Handle) -> *mut c_char;
type Close = unsafe extern "C" fn(*mut Handle);

/// libpcap, as far as it is needed here.
pub(super) struct Libpcap {
    open_dead: OpenDead,
    compile: Compile,
    free_code: FreeCode,
    get_error: GetError,
    close: Close,
    /// The functions above are in it.
    #[cfg_attr(not(test), expect(dead_code, reason = "keeps the library open"))]
    library: Library,
}

impl Libpcap {
    /// Opens it; `None` when it is not installed.
    pub(super) fn open() -> Option<Libpcap> {
        // SAFETY: libpcap does nothing that matters when it is opened or closed.
        let library = NAMES.iter().find_map(|name| unsafe { Library::new(*name) }.ok())?;
        // SAFETY: these are the types of these functions in every release of libpcap (pcap/pcap.h).
        unsafe {
            Some(Libpcap {
                open_dead: *library.get::<OpenDead>(b"pcap_open_dead\0").ok()?,
                compile: *library.get::<Compile>(b"pcap_compile\0").ok()?,
                free_code: *library.get::<FreeCode>(b"pcap_freecode\0").ok()?,
                get_error: *library.get::<GetError>(b"pcap_geterr\0").ok()?,
                close: *library.get::<Close>(b"pcap_close\0").ok()?,
                library,
            })
        }
    }

    /// Compiles an expression.
    ///
    /// # Errors
    /// What libpcap says of it.
    pub(super) fn compile(&self, expression: &CStr, link: Link) -> Result<Vec<cbpf::Insn>, String> {
        // SAFETY: any two numbers will do.
        let handle = unsafe { (self.open_dead)(link as c_int, SNAPLEN) };
        if handle.is_null() {
            return Err("libpcap has no memory".to_owned());
        }
        let mut program = Program { len: 0, insns: std::ptr::null_mut() };
        // SAFETY: the handle is libpcap's own, the expression ends in a NUL, and the program is written on success.
        let outcome = unsafe { (self.compile)(handle, &raw mut program, expression.as_ptr(), 1, NETMASK_UNKNOWN) };
        let compiled = if outcome == 0 {
            // SAFETY: libpcap has put so many instructions there, and they stay until the program is freed.
            let insns = unsafe { std::slice::from_raw_parts(program.insns, program.len as usize) }.to_vec();
            // SAFETY: the program is the one that was compiled, and nothing points into it any more.
            unsafe { (self.free_code)(&raw mut program) };
            Ok(insns)
        } else {
            // SAFETY: the message ends in a NUL, and stays until the handle is used again.
            let message = unsafe { CStr::from_ptr((self.get_error)(handle)) };
            Err(message.to_string_lossy().into_owned())
        };
        // SAFETY: nothing of the handle is used any more.
        unsafe { (self.close)(handle) };
        compiled
    }

    /// libpcap's own answer: what its interpreter says of a packet of `len` bytes of which these are there.
    #[cfg(test)]
    pub(super) fn wants(&self, program: &[cbpf::Insn], packet: &[u8], len: u32) -> bool {
        type Filter = unsafe extern "C" fn(*const cbpf::Insn, *const u8, c_uint, c_uint) -> c_uint;
        // SAFETY: as in `open`; every program that libpcap compiles is one that its interpreter runs, and it reads no byte
        // behind those that are there.
        unsafe {
            let filter = self.library.get::<Filter>(b"bpf_filter\0").expect("libpcap has bpf_filter");
            filter(program.as_ptr(), packet.as_ptr(), len, packet.len() as c_uint) != 0
        }
    }
}
