//! The kernels that tests run on: one table, and the cache of unpacked Debian packages behind it.
//!
//! A kernel in the cache is whole: it is unpacked beside its place and renamed into it. It is used as it is until
//! somebody deletes it, so that two runs on one machine mean the same kernel.

use std::cmp::Ordering;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use regex_lite::Regex;

use super::apt::Suite;
use crate::tools;

/// A kernel by the short name that users give.
struct Row {
    name: &'static str,
    suite: &'static str,
    /// The part of the package's name that is the version. What is not matched here, such as `-rt`, is no part of it.
    version: &'static str,
    /// What comes before the version: all of these packages together are the kernel.
    packages: &'static [&'static str],
}

/// Oldest first. From 7.2 on the image, the modules and the list of what is built in are packages of their own.
const KERNELS: &[Row] = &[
    Row { name: "5.10", suite: "bullseye", version: r"5\.10\.0-\d+", packages: &["linux-image"] },
    Row { name: "6.1", suite: "bookworm-security", version: r"6\.1\.0-\d+", packages: &["linux-image"] },
    Row { name: "6.12", suite: "bookworm-security", version: r"6\.12\.\d+\+deb12", packages: &["linux-image"] },
    Row { name: "6.18", suite: "trixie-backports", version: r"6\.18\.\d+\+deb13", packages: &["linux-image"] },
    Row {
        name: "7.3",
        suite: "trixie-backports",
        version: r"7\.3\.\d+\+deb13",
        packages: &["linux-binary", "linux-base", "linux-modules"],
    },
];

/// How the names of folders begin that are not kernels yet.
const UNPACKING: &str = ".unpacking-";

/// An unpacked kernel.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// As `uname -r` tells it.
    pub release: String,
    /// What QEMU boots.
    pub image: PathBuf,
    /// What modprobe looks into: `/lib/modules/<release>`.
    pub modules: PathBuf,
}

/// The names in the table.
pub fn names() -> impl Iterator<Item = &'static str> {
    KERNELS.iter().map(|row| row.name)
}

/// The kernel of that name: from the cache, or else from the archive.
///
/// # Errors
/// An unknown name, and whatever goes wrong while fetching.
pub fn get(name: &str, cache: &Path) -> Result<Kernel> {
    let Some(row) = KERNELS.iter().find(|row| row.name == name) else {
        bail!("there is no kernel {name} here: choose one of {}", names().collect::<Vec<_>>().join(", "));
    };
    let place = cache.join("kernels").join(name);
    if !place.is_dir() {
        fs::create_dir_all(cache.join("kernels"))
            .with_context(|| format!("{}: cannot create the cache", cache.display()))?;
        let lock = File::create(cache.join("lock"))?;
        lock.lock()?;
        // Another run may have been faster.
        if !place.is_dir() {
            fetch(row, cache, &place).with_context(|| format!("kernel {name} cannot be fetched"))?;
        }
    }
    open(&place)
}

fn fetch(row: &Row, cache: &Path, place: &Path) -> Result<()> {
    let start = Instant::now();
    let suite = Suite::update(row.suite, &cache.join("apt").join(row.suite))?;
    let mut all = Vec::new();
    for prefix in row.packages {
        all.extend(suite.names(&format!("{prefix}-"))?);
    }
    let packages = newest(row, &all)?.with_context(|| {
        let what = if all.is_empty() { "no kernel at all".to_owned() } else { series(&all).join(", ") };
        format!("the suite {} no longer has a kernel {}; it has {what}", row.suite, row.name)
    })?;

    // The lock is ours: what lies half unpacked is of a run that was killed.
    for entry in fs::read_dir(cache.join("kernels"))?.flatten() {
        if entry.file_name().to_string_lossy().starts_with(UNPACKING) {
            fs::remove_dir_all(entry.path())?;
        }
    }
    let unpacked = tempfile::Builder::new().prefix(UNPACKING).tempdir_in(cache.join("kernels"))?;
    for package in &packages {
        eprintln!("fetching {package} ({})…", row.suite);
        suite.unpack(package, unpacked.path())?;
    }
    let kernel = open(unpacked.path())?;
    // depmod wants the folder above lib/modules.
    let base = kernel.modules.ancestors().nth(3).context("modules lie too high")?;
    let done = tools::command("depmod")?.arg("-b").arg(base).arg(&kernel.release).output()?;
    ensure!(done.status.success(), "depmod: {}", tools::said(&done));
    fs::rename(unpacked.keep(), place)?;
    eprintln!("fetched {} in {} s", kernel.release, start.elapsed().as_secs());
    Ok(())
}

fn open(dir: &Path) -> Result<Kernel> {
    let found = ["lib/modules", "usr/lib/modules"].into_iter().find_map(|sub| {
        let entry = fs::read_dir(dir.join(sub)).ok()?.flatten().next()?;
        Some((entry.file_name().into_string().ok()?, entry.path()))
    });
    let (release, modules) =
        found.with_context(|| format!("{} holds no modules: delete it, and it is fetched again", dir.display()))?;
    let images = [dir.join("boot").join(format!("vmlinuz-{release}")), modules.join("vmlinuz")];
    let image = images.into_iter().find(|image| image.is_file());
    let image =
        image.with_context(|| format!("{} holds no vmlinuz: delete it, and it is fetched again", dir.display()))?;
    Ok(Kernel { release, image, modules })
}

/// Of the packages in a suite those that make the newest kernel of a row; none where one of them is missing.
fn newest(row: &Row, all: &[String]) -> Result<Option<Vec<String>>> {
    // `-unsigned` is the same kernel without a signature for secure boot; suites have one of the two, or both.
    let pattern =
        Regex::new(&format!(r"^({})(-unsigned)?-({})-amd64(-unsigned)?$", row.packages.join("|"), row.version))?;
    let mut versions: Vec<&str> =
        all.iter().filter_map(|name| Some(pattern.captures(name)?.get(3)?.as_str())).collect();
    versions.sort_by(|a, b| natural(b, a));
    versions.dedup();
    let package = |prefix: &str, version: &str| {
        let spellings = [
            format!("{prefix}-{version}-amd64"),
            format!("{prefix}-{version}-amd64-unsigned"),
            format!("{prefix}-unsigned-{version}-amd64"),
        ];
        spellings.into_iter().find(|name| all.contains(name))
    };
    Ok(versions.into_iter().find_map(|version| row.packages.iter().map(|prefix| package(prefix, version)).collect()))
}

/// The series (`6.12`) that package names speak of, for a message.
fn series(all: &[String]) -> Vec<String> {
    let Ok(pattern) = Regex::new(r"-(\d+\.\d+)\.") else { return Vec::new() };
    let mut found: Vec<String> =
        all.iter().filter_map(|name| Some(pattern.captures(name)?.get(1)?.as_str().to_owned())).collect();
    found.sort_by(|a, b| natural(a, b));
    found.dedup();
    found
}

/// Compares names so that numbers in them count as numbers: `6.1.0-9` comes before `6.1.0-56`.
fn natural(a: &str, b: &str) -> Ordering {
    let numbers =
        |s: &str| -> Vec<u64> { s.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect() };
    numbers(a).cmp(&numbers(b)).then_with(|| a.cmp(b))
}

#[cfg(test)]
mod tests {
    use super::{KERNELS, newest, series};

    fn pick(kernel: &str, all: &[&str]) -> Option<Vec<String>> {
        let row = KERNELS.iter().find(|row| row.name == kernel).unwrap();
        let all: Vec<String> = all.iter().map(|name| (*name).to_owned()).collect();
        newest(row, &all).unwrap()
    }

    #[test]
    fn versions_compare_as_numbers_and_flavours_are_left_out() {
        let all = [
            "linux-image-6.1.0-9-amd64",
            "linux-image-6.1.0-56-amd64",
            "linux-image-6.1.0-56-amd64-unsigned",
            "linux-image-6.1.0-56-amd64-dbg",
            "linux-image-6.1.0-57-cloud-amd64",
            "linux-image-6.1.0-57-rt-amd64",
            "linux-image-6.12.117+deb12-amd64",
            "linux-image-amd64",
        ];
        assert_eq!(pick("6.1", &all), Some(vec!["linux-image-6.1.0-56-amd64".to_owned()]));
        assert_eq!(pick("6.12", &all), Some(vec!["linux-image-6.12.117+deb12-amd64".to_owned()]));
        assert_eq!(pick("5.10", &all), None);
    }

    #[test]
    fn an_unsigned_image_does_where_there_is_no_other() {
        let all = ["linux-image-6.12.113+deb12-amd64", "linux-image-6.12.117+deb12-amd64-unsigned"];
        assert_eq!(pick("6.12", &all), Some(vec!["linux-image-6.12.117+deb12-amd64-unsigned".to_owned()]));
    }

    #[test]
    fn image_and_modules_are_of_one_version() {
        let all = [
            "linux-binary-unsigned-7.3.9+deb13-amd64",
            "linux-binary-unsigned-7.3.4+deb13-amd64",
            "linux-binary-unsigned-7.3.4+deb13-rt-amd64",
            "linux-base-7.3.4+deb13-amd64",
            "linux-base-7.3.9+deb13-amd64",
            "linux-modules-7.3.4+deb13-amd64",
            "linux-modules-7.3.9+deb13-rt-amd64",
        ];
        let expected =
            ["linux-binary-unsigned", "linux-base", "linux-modules"].map(|p| format!("{p}-7.3.4+deb13-amd64"));
        assert_eq!(pick("7.3", &all), Some(expected.to_vec()));
    }

    #[test]
    fn a_suite_without_the_kernel_is_told_by_what_it_has() {
        let all = ["linux-image-6.18.5+deb13-amd64", "linux-image-6.9.2+deb13-rt-amd64", "linux-image-amd64"];
        assert_eq!(series(&all.map(str::to_owned)), ["6.9", "6.18"]);
    }
}
