//! Whether perf events, by which programs are attached to functions, are closed to all but CAP_SYS_ADMIN.
//!
//! Debian's and Ubuntu's kernels have levels of kernel.perf_event_paranoid that other kernels do not know, and a number
//! alone does not say which kernel this is. So it is tried: any kernel gives whoever has CAP_PERFMON an event that counts nothing
//! on a CPU, unless it is closed. On a CPU and not of the process: for an event of a process the kernel rewrites its own scheduler.

use std::os::fd::{FromRawFd as _, OwnedFd};

use nix::libc;

/// Whether the kernel refuses even an event that concerns nobody. For who has CAP_PERFMON: others are refused in any case.
pub(super) fn is_closed() -> bool {
    // struct perf_event_attr as it was first (PERF_ATTR_SIZE_VER0), in words: type and size, config, three that do not
    // matter, flags. Of type PERF_TYPE_SOFTWARE, PERF_COUNT_SW_DUMMY; disabled, without kernel and hypervisor.
    const SIZE: u32 = 64;
    const FLAGS: u64 = 1 | 1 << 5 | 1 << 6;
    let words = [u64::from(1_u32) | u64::from(SIZE) << 32, 9, 0, 0, 0, FLAGS, 0, 0];
    let (any_process, first_cpu, no_group, close_on_exec) = (-1, 0, -1, 8_u64);
    // SAFETY: the attributes are as long as they say, and live until the call returns.
    let fd = unsafe {
        libc::syscall(libc::SYS_perf_event_open, words.as_ptr(), any_process, first_cpu, no_group, close_on_exec)
    };
    match i32::try_from(fd) {
        Ok(fd) if fd >= 0 => {
            // SAFETY: the kernel has just handed it out, and nobody else knows of it.
            drop(unsafe { OwnedFd::from_raw_fd(fd) });
            false
        }
        _ => std::io::Error::last_os_error().raw_os_error() == Some(libc::EACCES),
    }
}
