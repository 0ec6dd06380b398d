//! What this machine is: its kernel's version, privileges, symbols, and the layout that its BTF gives.
//!
//! Everything that depends on the running kernel is found out here, once, before anything is attached, so that what
//! is missing is said in a sentence and not in an error of some system call later.

mod arch;
mod btf;
mod capability;
mod kcore;
mod kernel;
mod layout;
mod memory;
mod perf;
mod symbols;

pub use arch::KNOWN as ARCHITECTURES;
pub use btf::{BtfError, KernelBtf, Param};
pub use capability::{Need, Privileges, drop_capabilities};
pub use kernel::{HostError, KernelVersion, Release, kprobes_offered, require};
pub use layout::{LayoutError, offsets};
pub use memory::{Base, Pages};
pub use symbols::{SymbolError, Symbols};

/// The running kernel, as far as tracing needs to know it.
pub struct Host {
    /// Its release, as `uname -r` has it.
    pub release: Release,
    /// What this process may do, as of when it looked: a run gives up some of it later.
    pub privileges: Privileges,
    /// Types, of the kernel and of its modules.
    pub btf: KernelBtf,
    /// Names and addresses of its functions.
    pub symbols: Symbols,
}

impl Host {
    /// Looks at this machine.
    ///
    /// # Errors
    /// When the kernel is older than 5.10, privileges are missing, or BTF or symbols cannot be read: each says what
    /// to do.
    pub fn look() -> Result<Host, HostError> {
        let (release, privileges) = require()?;
        let btf = KernelBtf::open()?;
        let symbols = Symbols::read()?;
        Ok(Host { release, privileges, btf, symbols })
    }
}
