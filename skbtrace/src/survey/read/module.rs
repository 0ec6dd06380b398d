//! Whether the kernel has a module, so that nothing is asked that would make it load one.

use std::fs;

/// Whether the kernel has a module, loaded or built in. A kernel without modules loads none when it is asked.
pub(super) fn is_loaded(module: &str) -> bool {
    if fs::exists(format!("/sys/module/{module}")).unwrap_or(false) || !fs::exists("/proc/modules").unwrap_or(true) {
        return true;
    }
    let release = rustix::system::uname();
    match fs::read_to_string(format!("/lib/modules/{}/modules.builtin", release.release().to_string_lossy())) {
        Ok(list) => list.lines().any(|line| line.ends_with(&format!("/{module}.ko"))),
        // In a container the list may be missing: then the kernel's symbols tell.
        Err(_) => fs::read_to_string("/proc/kallsyms").is_ok_and(|symbols| symbols.contains(&format!(" {module}_"))),
    }
}
