//! Whether all of it compiles for arm64: as far as this machine can go for an architecture that it is not.
//!
//! The user side is checked and linted, and its build script builds the kernel side as it is for kernels of arm64. Nothing is
//! linked, so that the target's standard library is all that it takes.

use std::process::Command;

use crate::cargo;

/// Cargo's name for it.
pub const TARGET: &str = "aarch64-unknown-linux-gnu";

/// Why it cannot be compiled for here; `None` where it can. Installs the target where rustup is there to do so.
pub fn obstacle() -> Option<String> {
    if is_there() {
        return None;
    }
    let added = Command::new("rustup").args(["target", "add", TARGET]).current_dir(cargo::workspace()).output();
    match added {
        _ if is_there() => None,
        Err(error) => Some(format!("rustc has no {TARGET}, and rustup cannot add it ({error})")),
        Ok(done) => {
            let said = String::from_utf8_lossy(&done.stderr);
            let last = said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it did not say why");
            Some(format!("rustc has no {TARGET}, and rustup did not add it ({})", last.trim()))
        }
    }
}

/// Whether the compiler that cargo uses has the target's standard library.
fn is_there() -> bool {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let asked = Command::new(rustc)
        .args(["--print", "target-libdir", "--target", TARGET])
        .current_dir(cargo::workspace())
        .output();
    let Ok(done) = asked else { return false };
    let dir = String::from_utf8_lossy(&done.stdout).trim().to_owned();
    let Ok(mut files) = std::fs::read_dir(dir) else { return false };
    files.any(|file| file.is_ok_and(|file| file.file_name().to_string_lossy().starts_with("libstd-")))
}
