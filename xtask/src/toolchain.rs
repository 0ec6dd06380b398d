//! What turns `skbtrace-ebpf` into an object for the kernel: finds a compiler that has `core` for the BPF target and
//! a linker, and runs them.
//!
//! It uses the standard library alone, because two programs share it by path: `skbtrace/build.rs`, so that a plain
//! `cargo build` embeds a fresh object, and `xtask`, so that set-up looks for exactly what the build will look for.
//!
//! There are two routes, and no preference of people decides between them: what is installed does.
//! A rustc with a prebuilt `core` for BPF (Debian packages one) needs no nightly and builds faster, so it comes first.

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The target that the kernel side is compiled for.
const TARGET: &str = "bpfel-unknown-none";

/// The oldest minor version of rustc 1.x that compiles this workspace.
pub const OLDEST_MINOR: u32 = 95;

/// The linker's program.
pub const LINKER: &str = "bpf-linker";

/// A compiler for the BPF target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compiler {
    /// A rustc that brings `core` for BPF along.
    Prebuilt {
        /// The program.
        rustc: PathBuf,
    },
    /// rustup's nightly with the component rust-src: builds `core` itself.
    Nightly,
}

impl fmt::Display for Compiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prebuilt { rustc } => write!(f, "{} with its prebuilt core for BPF", rustc.display()),
            Self::Nightly => f.write_str("rustup's nightly with rust-src, which builds core for BPF"),
        }
    }
}

/// Finds the compiler: the first route that this machine has.
pub fn find_compiler() -> Option<Compiler> {
    let rustc = PathBuf::from("/usr/bin/rustc");
    if new_enough(&rustc) && has_prebuilt_core(&rustc) {
        return Some(Compiler::Prebuilt { rustc });
    }
    let sysroot = output(Command::new("rustup").args(["run", "nightly", "rustc", "--print", "sysroot"]))?;
    let core = Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core/src/lib.rs");
    core.is_file().then_some(Compiler::Nightly)
}

/// Finds the linker: in one of `tools` (folders that hold `bin/`), then on the PATH.
pub fn find_linker(tools: &[PathBuf]) -> Option<PathBuf> {
    let own = tools.iter().map(|dir| dir.join("bin").join(LINKER)).find(|path| path.is_file());
    own.or_else(|| {
        let path = std::env::var_os("PATH")?;
        std::env::split_paths(&path).map(|dir| dir.join(LINKER)).find(|path| path.is_file())
    })
}

/// The folder of all that cargo builds, looked up from a path inside it: wherever a setting has put it, cargo leaves
/// its notes about the compiler there.
pub fn target_dir_above(inside: &Path) -> Option<PathBuf> {
    inside.ancestors().find(|dir| dir.join(".rustc_info.json").is_file()).map(Path::to_path_buf)
}

/// Builds the kernel side for kernels of `arch` (as in cargo's `CARGO_CFG_TARGET_ARCH`) and returns the object's path.
///
/// `target_dir` must not be the one of a cargo that waits for this: it holds a lock on its own.
///
/// # Errors
/// Whatever the compiler said, as text.
pub fn build_object(
    compiler: &Compiler,
    linker: &Path,
    workspace: &Path,
    target_dir: &Path,
    arch: &str,
) -> Result<PathBuf, String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = match compiler {
        Compiler::Prebuilt { .. } => Command::new(cargo),
        Compiler::Nightly => {
            let mut command = Command::new("rustup");
            command.args(["run", "nightly", "cargo"]);
            command
        }
    };
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(is_of_another_build) {
            command.env_remove(name);
        }
    }
    // Set and empty: this also overrules a wrapper from a configuration file.
    command.env("RUSTC_WRAPPER", "");
    let flags = [
        format!("--cfg=bpf_target_arch=\"{arch}\""),
        // BTF is made from debug information, and bpf_loop's callback needs BTF.
        "-Cdebuginfo=2".to_owned(),
        "-Clink-arg=--btf".to_owned(),
    ];
    command
        .current_dir(workspace)
        .args(["build", "--release", "--package", "skbtrace-ebpf", "--bin", "skbtrace-ebpf", "--target", TARGET])
        .arg("--target-dir")
        .arg(target_dir)
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
        .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", linker);
    match compiler {
        Compiler::Prebuilt { rustc } => {
            // aya-ebpf uses inline assembly for BPF, which a stable compiler refuses by default.
            command.env("RUSTC", rustc).env("RUSTC_BOOTSTRAP", "aya_ebpf");
        }
        Compiler::Nightly => {
            command.args(["-Z", "build-std=core"]).env_remove("RUSTUP_TOOLCHAIN");
        }
    }
    let done = command.output().map_err(|e| format!("cannot run cargo: {e}"))?;
    if !done.status.success() {
        return Err(format!("the kernel side does not build:\n{}", String::from_utf8_lossy(&done.stderr)));
    }
    Ok(target_dir.join(TARGET).join("release/skbtrace-ebpf"))
}

/// Whether a variable says how cargo builds something else. A build script inherits the outer cargo's choices, under
/// clippy even another compiler; and any that differs between two callers makes cargo build everything again.
fn is_of_another_build(name: &str) -> bool {
    const NAMES: [&str; 14] = [
        "HOST",
        "TARGET",
        "NUM_JOBS",
        "OPT_LEVEL",
        "PROFILE",
        "DEBUG",
        "OUT_DIR",
        "RUSTC",
        "RUSTC_LINKER",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTDOC",
        "RUSTFLAGS",
        "LD_LIBRARY_PATH",
        "CARGO_TARGET_DIR",
    ];
    const PREFIXES: [&str; 7] =
        ["CARGO_BUILD_", "CARGO_CFG_", "CARGO_FEATURE_", "CARGO_MANIFEST_", "CARGO_PKG_", "CARGO_PROFILE_", "DEP_"];
    NAMES.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

fn new_enough(rustc: &Path) -> bool {
    let minor = || output(Command::new(rustc).arg("--version"))?.split('.').nth(1)?.parse::<u32>().ok();
    minor().is_some_and(|minor| minor >= OLDEST_MINOR)
}

fn has_prebuilt_core(rustc: &Path) -> bool {
    let look = || -> Option<bool> {
        let dir = output(Command::new(rustc).args(["--print", "target-libdir", "--target", TARGET]))?;
        let mut files = std::fs::read_dir(dir.trim()).ok()?.flatten().map(|entry| entry.file_name());
        Some(files.any(|name| is_core(&name)))
    };
    look().unwrap_or(false)
}

fn is_core(file: &OsStr) -> bool {
    file.to_str().is_some_and(|name| name.starts_with("libcore-") && name.ends_with(".rlib"))
}

fn output(command: &mut Command) -> Option<String> {
    // RUSTUP_TOOLCHAIN is set for a build script and would turn `rustup run nightly` around; the wrappers likewise.
    let done: io::Result<_> = command.env_remove("RUSTUP_TOOLCHAIN").output();
    let done = done.ok().filter(|done| done.status.success())?;
    String::from_utf8(done.stdout).ok()
}
