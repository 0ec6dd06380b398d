//! Runs a command on a real kernel: one of Debian's, booted in QEMU, with this machine's root under an overlay.
//!
//! The guest sees every file of the host at its own path, and whatever it writes is gone afterwards. So a test program
//! needs no image and no copy, and cannot hurt this machine. [`run`] is the whole interface.

mod apt;
mod initramfs;
mod kernels;
mod qemu;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

pub use apt::{KEYRING, Suite, address as archive_of};
pub use initramfs::find_busybox;
pub use kernels::names;
pub use qemu::{Accel, Ending, interruptions};

/// How often a machine that never got to the command is booted again: an early kernel dies now and then under
/// translation, and that says nothing about the command.
const BOOTS: usize = 3;

/// Variables that the command gets from here.
const PASSED_ON: [&str; 5] = ["PATH", "HOME", "LANG", "TERM", "USER"];
/// Beginnings of names of variables that the command gets from here.
const PASSED_ON_PREFIXES: [&str; 4] = ["RUST_", "CARGO_", "SKBTRACE_", "INSTA_"];

/// The machine.
#[derive(Clone, Debug)]
pub struct Machine {
    /// The kernel's short name, one of [`names`].
    pub kernel: String,
    /// Processors.
    pub cpus: u32,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// How long the command may run; the boot does not count.
    pub timeout: Duration,
    /// Shows the console on stderr while it boots and runs.
    pub console: bool,
    /// KVM where it works, unless this says otherwise.
    pub accel: Option<Accel>,
    /// A folder that the guest sees at /out and can write to.
    pub out: Option<PathBuf>,
    /// More parameters for the kernel, behind those that every machine has.
    pub append: Option<String>,
}

impl Machine {
    /// A machine like those that tests use.
    pub fn new(kernel: &str) -> Self {
        Self {
            kernel: kernel.to_owned(),
            cpus: 2,
            memory_mib: 2048,
            timeout: Duration::from_secs(900),
            console: false,
            accel: None,
            out: None,
            append: None,
        }
    }
}

/// The command.
#[derive(Clone, Debug, Default)]
pub struct Job {
    /// One word: a line for the shell. More: a program and its arguments, as they are.
    pub words: Vec<OsString>,
    /// Where it runs; the current folder unless given.
    pub dir: Option<PathBuf>,
    /// Variables besides those that are passed on anyway.
    pub env: Vec<(String, String)>,
    /// Whether its output is also shown here while it runs.
    pub stream: bool,
}

/// What came of it.
#[derive(Debug)]
pub struct Report {
    /// How it ended.
    pub ending: Ending,
    /// What the command printed.
    pub stdout: Vec<u8>,
    /// What the command complained about.
    pub stderr: Vec<u8>,
    /// What the kernel said.
    pub console: String,
    /// The kernel, as `uname -r` tells it.
    pub release: String,
}

impl Report {
    /// Tells on stderr what the kernel said last, for a reader who has to find out why something failed; nothing where
    /// it had nothing to say since the command began.
    pub fn show_last_words(&self) {
        let words = last_words(&self.console);
        if !words.is_empty() {
            eprintln!("console of {}:\n{words}", self.release);
        }
    }

    /// The exit status for whoever asked for the command, after telling on stderr why it is not the command's own.
    pub fn conclude(&self, console_was_shown: bool) -> ExitCode {
        let (code, why) = match &self.ending {
            Ending::Exited(code) => (*code, None),
            Ending::Interrupted(signal) => (128 + signal, None),
            Ending::TimedOut => (124, Some("the command was not done in time, and the machine was ended".to_owned())),
            Ending::Died(why) => (125, Some(format!("the machine died under the command: {why}"))),
            Ending::NeverBegan(why) => (125, Some(format!("the machine died before the command began: {why}"))),
        };
        if let Some(why) = why {
            if !console_was_shown {
                self.show_last_words();
            }
            eprintln!("error: {why}");
        }
        ExitCode::from(u8::try_from(code).unwrap_or(125))
    }
}

/// Boots the machine, runs the command in it as root, and ends the machine.
///
/// # Errors
/// Where there is no kernel, no QEMU or no room; how the command and the machine fared is in the report.
pub fn run(machine: &Machine, job: &Job) -> Result<Report> {
    if std::env::consts::ARCH != "x86_64" {
        bail!("the machines are x86_64 and share this machine's programs, which are {}", std::env::consts::ARCH);
    }
    let cache = cache_dir()?;
    let kernel = kernels::get(&machine.kernel, &cache)?;
    let script = script(job)?;
    let broken = kvm_note(&cache);
    let mut accel = machine.accel.unwrap_or_else(|| choose_accel(&broken));
    let mut left = BOOTS;
    loop {
        let boot = qemu::boot(machine, &kernel, accel, &script, job.stream)?;
        if let Ending::NeverBegan(why) = &boot.ending {
            if accel == Accel::Kvm && machine.accel.is_none() {
                // There is a /dev/kvm on machines where no kernel gets far with it.
                eprintln!("KVM does not work here ({why}): TCG instead, from now on");
                accel = Accel::Tcg;
                std::fs::write(&broken, why).with_context(|| format!("{}: cannot write", broken.display()))?;
                continue;
            }
            left -= 1;
            if left > 0 {
                eprintln!("the machine died before the command began ({why}): booting again");
                continue;
            }
        }
        let qemu::Boot { ending, stdout, stderr, console } = boot;
        return Ok(Report { ending, stdout, stderr, console, release: kernel.release });
    }
}

/// The end of a console, without the boot where the command had begun: guest.sh marks that place.
fn last_words(console: &str) -> String {
    let since = console.rsplit_once("skbtrace-vm: the command begins").map_or(console, |(_, since)| since);
    let lines: Vec<&str> = since.trim().lines().collect();
    lines.get(lines.len().saturating_sub(60)..).unwrap_or_default().join("\n")
}

/// Where kernels are kept: beside what other programs keep for this user, so that a clean clone finds them.
fn cache_dir() -> Result<PathBuf> {
    let base = std::env::var_os("XDG_CACHE_HOME").filter(|dir| Path::new(dir).is_absolute()).map(PathBuf::from);
    let base = base.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
    Ok(base.context("neither XDG_CACHE_HOME nor HOME says where to keep kernels")?.join("skbtrace"))
}

/// The file that says that KVM failed on this kernel of this machine.
fn kvm_note(cache: &Path) -> PathBuf {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    cache.join(format!("kvm-fails-on-{}", release.trim().replace('/', "_")))
}

fn choose_accel(broken: &Path) -> Accel {
    let usable = std::fs::File::options().read(true).write(true).open("/dev/kvm").is_ok();
    if usable && !broken.exists() { Accel::Kvm } else { Accel::Tcg }
}

/// The shell script that is the command: its folder, its variables, its words.
fn script(job: &Job) -> Result<String> {
    let dir = match &job.dir {
        Some(dir) => dir.clone(),
        None => std::env::current_dir().context("the current folder is gone")?,
    };
    let mut lines = vec!["unset PWD OLDPWD SHLVL".to_owned()];
    let passed = std::env::vars().filter(|(name, _)| {
        PASSED_ON.contains(&name.as_str()) || PASSED_ON_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
    });
    for (name, value) in passed.chain(job.env.iter().cloned()) {
        // A name that is none for a shell can come from nowhere but a hostile place.
        if name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            lines.push(format!("export {name}={}", quote(&value)));
        }
    }
    // A user's PATH may not hold the programs for administrators, and here the user is root.
    lines.push("export PATH=\"$PATH:/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin\"".to_owned());
    lines.push(format!("cd {} || exit 127", quote(&text(dir.as_os_str())?)));
    let words: Vec<String> = job.words.iter().map(|word| text(word)).collect::<Result<_>>()?;
    lines.push(match words.as_slice() {
        [] => bail!("there is no command to run"),
        [line] => format!("exec /bin/sh -c {}", quote(line)),
        words => format!("exec {}", words.iter().map(|word| quote(word)).collect::<Vec<_>>().join(" ")),
    });
    Ok(lines.join("\n") + "\n")
}

fn text(word: &std::ffi::OsStr) -> Result<String> {
    word.to_str().map(str::to_owned).with_context(|| format!("{}: not UTF-8", word.display()))
}

fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::{Job, last_words, quote, script};

    fn last_line(words: &[&str]) -> String {
        let job = Job { words: words.iter().map(Into::into).collect(), ..Job::default() };
        script(&job).unwrap().lines().last().unwrap().to_owned()
    }

    #[test]
    fn one_word_is_a_line_for_the_shell_and_more_are_left_as_they_are() {
        assert_eq!(last_line(&["exit 7"]), "exec /bin/sh -c 'exit 7'");
        assert_eq!(last_line(&["echo", "a  b", "$HOME"]), "exec 'echo' 'a  b' '$HOME'");
    }

    #[test]
    fn the_boot_is_told_only_where_the_command_never_began() {
        assert_eq!(last_words("boot\nskbtrace-vm: the command begins\nOops\n"), "Oops");
        assert_eq!(last_words("boot\npanic\n"), "boot\npanic");
        let long: String = (0..100).map(|line| format!("{line}\n")).collect();
        assert_eq!(last_words(&long).lines().next(), Some("40"));
    }

    #[test]
    fn a_quote_stays_inside_its_word() {
        assert_eq!(quote("it's"), r"'it'\''s'");
    }
}
