//! Builds the kernel side and hands its path to the crate as `SKBTRACE_EBPF_OBJECT`, so that a plain `cargo build`
//! ends in one file that carries its BPF programs with it.

#[path = "../xtask/src/toolchain.rs"]
mod toolchain;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) if why.contains('\n') => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
        Err(why) => {
            // Cargo shows this sentence by itself, before all else.
            println!("cargo::error={why}");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), String> {
    let manifest = PathBuf::from(var("CARGO_MANIFEST_DIR")?);
    let out_dir = PathBuf::from(var("OUT_DIR")?);
    let workspace = manifest.parent().unwrap_or(&manifest);
    let target_dir = toolchain::target_dir_above(&out_dir);
    let mut tools: Vec<PathBuf> = target_dir.iter().map(|dir| dir.join("tools")).collect();
    tools.push(workspace.join("target/tools"));
    let (Some(compiler), Some(linker)) = (toolchain::find_compiler(), toolchain::find_linker(&tools)) else {
        return Err("there is no toolchain here that builds the kernel side: run `cargo xtask setup`".to_owned());
    };
    for input in [
        "Cargo.toml",
        "Cargo.lock",
        "skbtrace-ebpf/Cargo.toml",
        "skbtrace-ebpf/src",
        "skbtrace-common/Cargo.toml",
        "skbtrace-common/src",
        "xtask/src/toolchain.rs",
    ] {
        println!("cargo::rerun-if-changed={}", workspace.join(input).display());
    }
    // Another compiler or linker may come with an upgrade of the machine.
    println!("cargo::rerun-if-changed={}", linker.display());
    if let toolchain::Compiler::Prebuilt { rustc } = &compiler {
        println!("cargo::rerun-if-changed={}", rustc.display());
    }

    // Beside the profiles, not in them: debug, release and clippy share one build of the kernel side for an architecture.
    let arch = var("CARGO_CFG_TARGET_ARCH")?;
    let target_dir = target_dir.unwrap_or(out_dir.clone()).join("ebpf").join(&arch);
    let object = toolchain::build_object(&compiler, &linker, workspace, &target_dir, &arch)?;
    let embedded = out_dir.join("skbtrace-ebpf.o");
    copy_if_changed(&object, &embedded)?;
    println!("cargo::rustc-env=SKBTRACE_EBPF_OBJECT={}", embedded.display());
    Ok(())
}

/// Leaves an equal file alone: a new time stamp would compile the crate again for nothing.
fn copy_if_changed(from: &Path, to: &Path) -> Result<(), String> {
    let new = fs::read(from).map_err(|e| format!("{}: {e}", from.display()))?;
    if fs::read(to).is_ok_and(|old| old == new) {
        return Ok(());
    }
    fs::write(to, new).map_err(|e| format!("{}: {e}", to.display()))
}

fn var(name: &str) -> Result<String, String> {
    env::var(name).map_err(|e| format!("{name}: {e}"))
}
