//! Whether this machine itself can be traced on, without a virtual one.

use std::path::Path;

/// Why not, in a few words; `None` where root can. What is not there can be seen without being root. Kprobes are not asked for:
/// without them skbtrace traces by raw tracepoints.
pub fn obstacle() -> Option<&'static str> {
    let lockdown = std::fs::read_to_string("/sys/kernel/security/lockdown").unwrap_or_default();
    if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        Some("its kernel has no BTF")
    } else if lockdown.contains("[confidentiality]") {
        Some("its kernel is locked down: confidentiality")
    } else {
        None
    }
}
