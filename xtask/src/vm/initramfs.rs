//! The machine's first file system, written as a cpio archive in memory: busybox, two scripts, and the few modules
//! that reach the host's root.
//!
//! It is not compressed: it never leaves this machine's memory, and some kernels lack one decompressor or the other.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};

use super::kernels::Kernel;
use crate::tools;

/// What it takes to mount the host's root under an overlay.
const MODULES: [&str; 4] = ["virtio_pci", "9pnet_virtio", "9p", "overlay"];

/// The archive for a kernel; `share_out` asks the guest to mount a second folder at /out.
///
/// # Errors
/// A missing busybox, or a kernel without the modules.
pub fn build(kernel: &Kernel, share_out: bool) -> Result<Vec<u8>> {
    let busybox = find_busybox().context("a static busybox is missing: run `cargo xtask setup`")?;
    let dep = tools::read(&kernel.modules.join("modules.dep"))?;
    let builtin = tools::read(&kernel.modules.join("modules.builtin"))?;
    let order = load_order(&dep, &builtin, &MODULES).with_context(|| format!("kernel {}", kernel.release))?;

    let mut archive = Cpio::default();
    for dir in ["bin", "proc", "sys", "dev", "modules", "host", "rw", "new"] {
        archive.add(dir, 0o040_755, &[])?;
    }
    archive.add("bin/busybox", 0o100_755, &fs::read(busybox)?)?;
    archive.add("init", 0o100_755, include_bytes!("init.sh"))?;
    archive.add("guest.sh", 0o100_644, include_bytes!("guest.sh"))?;
    if share_out {
        archive.add("share-out", 0o100_644, &[])?;
    }
    let mut names = String::new();
    for (number, path) in order.iter().enumerate() {
        let name = format!("{number}.ko");
        archive.add(&format!("modules/{name}"), 0o100_644, &read_module(&kernel.modules.join(path))?)?;
        names.push_str(&name);
        names.push('\n');
    }
    archive.add("modules/order", 0o100_644, names.as_bytes())?;
    archive.finish()
}

/// The busybox that needs no libraries, where there is one. Debian has another one under the same path.
pub fn find_busybox() -> Option<PathBuf> {
    tools::find("busybox").filter(|path| fs::read(path).is_ok_and(|elf| is_static(&elf)))
}

/// Whether a 64-bit ELF file asks for no dynamic loader (has no program header PT_INTERP).
fn is_static(elf: &[u8]) -> bool {
    let number = |at: usize, size: usize| -> Option<usize> {
        let bytes = elf.get(at..at.checked_add(size)?)?;
        Some(bytes.iter().rev().fold(0, |sum, byte| (sum << 8) | usize::from(*byte)))
    };
    let interpreted = || -> Option<bool> {
        let (start, size, count) = (number(0x20, 8)?, number(0x36, 2)?, number(0x38, 2)?);
        let kinds: Option<Vec<usize>> = (0..count).map(|i| number(start.checked_add(i * size)?, 4)).collect();
        Some(kinds?.contains(&3))
    };
    elf.starts_with(b"\x7fELF") && interpreted() == Some(false)
}

fn read_module(path: &Path) -> Result<Vec<u8>> {
    let program = match path.extension().and_then(|extension| extension.to_str()) {
        Some("ko") => return fs::read(path).with_context(|| format!("{}: cannot read", path.display())),
        Some("xz") => "xz",
        Some("zst") => "zstd",
        Some("gz") => "gzip",
        _ => bail!("{}: not a module", path.display()),
    };
    let done = tools::command(program)?.arg("-dc").arg(path).output()?;
    ensure!(done.status.success(), "{program} {}: {}", path.display(), tools::said(&done));
    Ok(done.stdout)
}

/// The files of the wanted modules and of all that they need, each after what it needs.
///
/// `dep` is modules.dep (`file: file file …`), `builtin` is modules.builtin: what is in the kernel is not loaded.
fn load_order(dep: &str, builtin: &str, wanted: &[&str]) -> Result<Vec<String>> {
    fn name(path: &str) -> String {
        let file = path.rsplit('/').next().unwrap_or(path);
        file.split('.').next().unwrap_or(file).replace('-', "_")
    }
    fn visit(lines: &[(&str, &str)], line: (&str, &str), order: &mut Vec<String>) {
        if order.iter().any(|done| done == line.0) {
            return;
        }
        for need in line.1.split_whitespace() {
            if let Some(line) = lines.iter().find(|(path, _)| *path == need) {
                visit(lines, *line, order);
            }
        }
        order.push(line.0.to_owned());
    }

    let lines: Vec<(&str, &str)> = dep.lines().filter_map(|line| line.split_once(':')).collect();
    let mut order = Vec::new();
    for module in wanted {
        match lines.iter().find(|(path, _)| name(path) == *module) {
            Some(line) => visit(&lines, *line, &mut order),
            None if builtin.lines().any(|path| name(path) == *module) => {}
            None => bail!("it has no module {module}"),
        }
    }
    Ok(order)
}

/// A cpio archive in the format that the kernel unpacks ("newc": headers of hexadecimal text, everything aligned to 4).
#[derive(Default)]
struct Cpio {
    bytes: Vec<u8>,
    entries: u32,
}

impl Cpio {
    /// Adds a file or a folder; `mode` holds its kind and its permissions. A folder comes before what is in it.
    fn add(&mut self, name: &str, mode: u32, content: &[u8]) -> Result<()> {
        self.entries += 1;
        let size = u32::try_from(content.len()).with_context(|| format!("{name} is too large for an initramfs"))?;
        let name_size = u32::try_from(name.len() + 1)?;
        let links = 1;
        // inode, mode, uid, gid, links, mtime, size, device (two numbers), device of a device (two), name's size, sum
        let fields = [self.entries, mode, 0, 0, links, 0, size, 0, 0, 0, 0, name_size, 0];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08x}").into_bytes());
        }
        self.bytes.extend(name.as_bytes());
        self.bytes.push(0);
        self.align();
        self.bytes.extend(content);
        self.align();
        Ok(())
    }

    fn finish(mut self) -> Result<Vec<u8>> {
        self.add("TRAILER!!!", 0, &[])?;
        Ok(self.bytes)
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::{Cpio, is_static, load_order};

    const DEP: &str = "\
kernel/fs/9p/9p.ko.xz: kernel/net/9p/9pnet.ko.xz kernel/fs/netfs/netfs.ko.xz kernel/fs/fscache/fscache.ko.xz
kernel/fs/fscache/fscache.ko.xz: kernel/fs/netfs/netfs.ko.xz
kernel/fs/netfs/netfs.ko.xz:
kernel/net/9p/9pnet.ko.xz:
kernel/net/9p/9pnet_virtio.ko.xz: kernel/net/9p/9pnet.ko.xz
kernel/net/rds/rds-tcp.ko.xz:
";

    #[test]
    fn a_module_comes_once_and_after_all_that_it_needs() {
        let order = load_order(DEP, "kernel/fs/overlayfs/overlay.ko\n", &["9pnet_virtio", "9p", "overlay"]).unwrap();
        let expected = [
            "kernel/net/9p/9pnet.ko.xz",
            "kernel/net/9p/9pnet_virtio.ko.xz",
            "kernel/fs/netfs/netfs.ko.xz",
            "kernel/fs/fscache/fscache.ko.xz",
            "kernel/fs/9p/9p.ko.xz",
        ];
        assert_eq!(order, expected);
    }

    #[test]
    fn a_name_with_a_dash_is_found_and_a_missing_module_is_named() {
        assert_eq!(load_order(DEP, "", &["rds_tcp"]).unwrap(), ["kernel/net/rds/rds-tcp.ko.xz"]);
        assert_eq!(load_order(DEP, "", &["overlay"]).unwrap_err().to_string(), "it has no module overlay");
    }

    #[test]
    fn the_archive_is_laid_out_as_the_kernel_reads_it() {
        let mut archive = Cpio::default();
        archive.add("ab", 0o100_644, b"12345").unwrap();
        let bytes = archive.finish().unwrap();
        let header = b"07070100000001000081a40000000000000000000000010000000000000005\
                       0000000000000000000000000000000000000003\
                       00000000";
        assert_eq!(bytes[..110], *header);
        // Name and content begin and end at multiples of 4; then comes the next header.
        assert_eq!(bytes[110..116], *b"ab\0\0\0\0");
        assert_eq!(bytes[116..124], *b"12345\0\0\0");
        assert_eq!(bytes[124..130], *b"070701");
        assert!(bytes.ends_with(b"TRAILER!!!\0\0\0\0"));
        assert_eq!(bytes.len() % 4, 0);
    }

    #[test]
    fn a_program_with_a_loader_is_not_static() {
        assert!(!is_static(&std::fs::read(std::env::current_exe().unwrap()).unwrap()));
        assert!(!is_static(b"#!/bin/sh\n"));
        // A header that names no program headers at all.
        let mut elf = [0_u8; 64];
        elf[..4].copy_from_slice(b"\x7fELF");
        assert!(is_static(&elf));
    }
}
