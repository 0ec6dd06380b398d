//! Debian packages of any suite, without touching the machine's own lists: a private apt, with its own folder and its
//! own one-line source, and no root.
//!
//! It is apt itself that checks the suite's signature, the index against it, and the package against the index, and
//! that knows this machine's proxies: no checksum code here could be as good. The address of the archive comes from
//! the sources that this machine has; only the suite's name is ours.

use std::path::{Path, PathBuf};
use std::process::Output;

use anyhow::{Context as _, Result, bail, ensure};

use crate::tools;

/// What Debian's archive is verified by.
pub const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Overrides the address of Debian's archive, for machines whose apt knows only another distribution.
const MIRROR: &str = "SKBTRACE_DEBIAN_MIRROR";

/// One suite's packages.
pub struct Suite {
    name: String,
    dir: PathBuf,
}

impl Suite {
    /// Downloads the list of the suite's packages into `dir`, which nobody else may be using.
    ///
    /// # Errors
    /// Where apt is missing, no address is known, or the list is not what the archive's keys have signed.
    pub fn update(name: &str, dir: &Path) -> Result<Self> {
        ensure!(Path::new(KEYRING).is_file(), "{KEYRING} is missing: run `cargo xtask setup`");
        let suite = Self { name: name.to_owned(), dir: dir.to_path_buf() };
        for sub in ["state/lists/partial", "cache/archives/partial"] {
            std::fs::create_dir_all(dir.join(sub)).with_context(|| format!("{}: cannot create", dir.display()))?;
        }
        let source = format!("deb [arch=amd64 targets=Packages signed-by={KEYRING}] {} {name} main\n", address(name)?);
        std::fs::write(dir.join("sources.list"), source)?;
        suite.apt("apt-get", dir, &["update"])?;
        Ok(suite)
    }

    /// The names of all packages that begin with `prefix`.
    ///
    /// # Errors
    /// Where apt-cache fails.
    pub fn names(&self, prefix: &str) -> Result<Vec<String>> {
        let done = self.apt("apt-cache", &self.dir, &["pkgnames", prefix])?;
        Ok(String::from_utf8_lossy(&done.stdout).lines().map(str::to_owned).collect())
    }

    /// Downloads a package and unpacks it into `to`, without running anything that it brings along.
    ///
    /// # Errors
    /// Where the package cannot be had or is not what the index says.
    pub fn unpack(&self, package: &str, to: &Path) -> Result<()> {
        let downloads = tempfile::tempdir_in(&self.dir)?;
        self.apt("apt-get", downloads.path(), &["download", package])?;
        for file in std::fs::read_dir(downloads.path())? {
            let done = tools::command("dpkg-deb")?.arg("-x").arg(file?.path()).arg(to).output()?;
            ensure!(done.status.success(), "{package} does not unpack: {}", tools::said(&done));
        }
        Ok(())
    }

    fn apt(&self, program: &str, in_dir: &Path, args: &[&str]) -> Result<Output> {
        let dir = self.dir.display();
        let options = [
            format!("Dir::Etc::sourcelist={dir}/sources.list"),
            "Dir::Etc::sourceparts=/dev/null".to_owned(),
            format!("Dir::State={dir}/state"),
            "Dir::State::status=/dev/null".to_owned(),
            format!("Dir::Cache={dir}/cache"),
            // The user _apt cannot look into a home directory; nothing unverified is used either way.
            "APT::Sandbox::User=root".to_owned(),
            "APT::Architecture=amd64".to_owned(),
            "Acquire::Languages=none".to_owned(),
            "Acquire::Retries=3".to_owned(),
            // A list that could not be had, and one that nobody signed, are errors whatever this machine thinks.
            "APT::Update::Error-Mode=any".to_owned(),
            "Acquire::AllowInsecureRepositories=false".to_owned(),
            "Acquire::AllowWeakRepositories=false".to_owned(),
            "APT::Get::AllowUnauthenticated=false".to_owned(),
        ];
        let mut command = tools::command(program)?;
        command.current_dir(in_dir).arg("-q");
        for option in &options {
            command.arg("-o").arg(option);
        }
        let done = command.args(args).output().with_context(|| format!("{program} does not start"))?;
        if !done.status.success() {
            bail!("{program} {} (suite {}): {}", args.join(" "), self.name, tools::said(&done));
        }
        Ok(done)
    }
}

/// The address of the archive that has `suite`, without a slash at its end.
///
/// # Errors
/// Where neither apt's sources nor the environment name one.
pub fn address(suite: &str) -> Result<String> {
    let found = if let Ok(main) = std::env::var(MIRROR) {
        (Some(main), None)
    } else {
        let format = "$(REPO_URI)|$(LABEL)";
        let done =
            tools::command("apt-get")?.args(["indextargets", "--format", format, "Created-By: Packages"]).output()?;
        archives(&String::from_utf8_lossy(&done.stdout))
    };
    pick(found, suite.ends_with("-security")).with_context(|| {
        format!("apt on this machine has no Debian archive among its sources: set {MIRROR} to the address of a mirror")
    })
}

/// The main and the security archive among apt's targets: lines of `address|label`, the label empty before the first
/// update.
fn archives(targets: &str) -> (Option<String>, Option<String>) {
    let find = |label: &str, path: &str| {
        let lines = || targets.lines().filter_map(|line| line.split_once('|'));
        let by_label = lines().find(|(_, l)| *l == label);
        let by_path = || lines().find(|(address, _)| address.trim_end_matches('/').ends_with(path));
        by_label.or_else(by_path).map(|(address, _)| address.to_owned())
    };
    (find("Debian", "/debian"), find("Debian-Security", "/debian-security"))
}

/// The one of two archives that a suite is in; mirrors have the two beside each other.
fn pick((main, security): (Option<String>, Option<String>), want_security: bool) -> Option<String> {
    let trim = |address: String| address.trim_end_matches('/').to_owned();
    let (main, security) = (main.map(trim), security.map(trim));
    if want_security {
        security.or_else(|| Some(format!("{}-security", main?)))
    } else {
        main.or_else(|| Some(security?.trim_end_matches("-security").to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::{archives, pick};

    #[test]
    fn archives_are_found_by_label_and_before_the_first_update_by_path() {
        let updated = "http://one.example/deb/|Debian\nhttp://two.example/sec|Debian-Security\n";
        assert_eq!(pick(archives(updated), false).as_deref(), Some("http://one.example/deb"));
        assert_eq!(pick(archives(updated), true).as_deref(), Some("http://two.example/sec"));

        let fresh = "http://other.example/node|\nhttp://one.example/debian/|\n";
        assert_eq!(pick(archives(fresh), false).as_deref(), Some("http://one.example/debian"));
        assert_eq!(pick(archives(fresh), true).as_deref(), Some("http://one.example/debian-security"));

        let foreign = "http://one.example/ubuntu/|Ubuntu\n";
        assert_eq!(pick(archives(foreign), true), None);
    }
}
