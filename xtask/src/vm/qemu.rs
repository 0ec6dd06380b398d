//! One boot of one machine: starts QEMU, follows the files through which the guest speaks, and ends it, whatever
//! happens.
//!
//! The guest says that the command began, what it prints, and how it ended, in a shared folder. So the three ways to
//! die are told apart by what is there: nothing began (boot again), it began but never ended (the kernel died under
//! the test), it ended (the test's own status).

use std::fs::{self, File};
use std::io::{self, IsTerminal as _, Read as _, Write};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::kernels::Kernel;
use super::{Machine, initramfs};
use crate::tools;

/// How the guest's processors are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Accel {
    /// By this machine's own processor.
    Kvm,
    /// By translation: slow, and everywhere.
    Tcg,
}

impl Accel {
    /// The name that QEMU has for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }
}

/// How one boot ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The command ended, with this status (128 and the signal's number where a signal ended it).
    Exited(i32),
    /// The command began and did not end in the time allowed.
    TimedOut,
    /// The machine died while the command ran.
    Died(String),
    /// The command never began.
    NeverBegan(String),
    /// This signal told us to stop.
    Interrupted(i32),
}

/// One boot, and all that was heard of it.
pub struct Boot {
    /// How it ended.
    pub ending: Ending,
    /// What the command printed.
    pub stdout: Vec<u8>,
    /// What the command complained about.
    pub stderr: Vec<u8>,
    /// What the kernel said.
    pub console: String,
}

const TICK: Duration = Duration::from_millis(20);

/// How long a boot may take. Translation on a busy machine is slow; with KVM it is two seconds, and a kernel that hangs
/// there is to be found out soon.
const fn boot_time(accel: Accel) -> Duration {
    Duration::from_secs(match accel {
        Accel::Kvm => 30,
        Accel::Tcg => 240,
    })
}

/// What ends a machine: its first words in the kernel's log.
const FATAL: [&str; 4] = ["Kernel panic", "BUG: soft lockup", "double fault", "Attempted to kill init"];

/// Boots the machine once and runs `script` in it. With `stream` the output is also passed on while it appears.
///
/// # Errors
/// Where QEMU cannot be started or the shared files cannot be used; not where the guest fails.
pub fn boot(machine: &Machine, kernel: &Kernel, accel: Accel, script: &str, stream: bool) -> Result<Boot> {
    let interrupted = interruptions()?;
    let dir = tempfile::Builder::new().prefix("skbtrace-vm-").tempdir()?;
    let ctl = dir.path().join("ctl");
    fs::create_dir(&ctl)?;
    fs::write(ctl.join("cmd"), script)?;
    let initrd = dir.path().join("initrd");
    fs::write(&initrd, initramfs::build(kernel, machine.out.is_some())?)?;
    let console = dir.path().join("console");
    File::create(&console)?;

    let mut qemu = Guard(command(machine, kernel, accel, dir.path())?.spawn().context("QEMU does not start")?);
    let mut said = Follower::new(console.clone(), machine.console.then(|| Box::new(io::stderr()) as Box<dyn Write>));
    let mut stdout = Follower::new(ctl.join("stdout"), stream.then(|| Box::new(io::stdout()) as Box<dyn Write>));
    let mut stderr = Follower::new(ctl.join("stderr"), stream.then(|| Box::new(io::stderr()) as Box<dyn Write>));
    let mut progress = Progress::new(format!("booting {} ({})", kernel.release, accel.name()), machine.console);
    let mut began: Option<Instant> = None;

    let ending = loop {
        // Asked for before the output is read: then all of a dead machine's output has been read.
        let exit = qemu.0.try_wait()?;
        let status = fs::read_to_string(ctl.join("status")).ok();
        if began.is_none() && ctl.join("began").exists() {
            began = Some(Instant::now());
            progress.finish("");
        }
        said.follow()?;
        stdout.follow()?;
        stderr.follow()?;

        if let Some(status) = status {
            break Ending::Exited(status.trim().parse().context("the guest told no exit status")?);
        }
        let signal = interrupted.load(Ordering::Relaxed);
        if signal != 0 {
            break Ending::Interrupted(i32::try_from(signal)?);
        }
        let fatal = said.new_line_with(&FATAL);
        let dead = match (&exit, &fatal) {
            (_, Some(line)) => Some(line.clone()),
            (Some(status), None) => Some(format!("QEMU ended by itself ({status})")),
            (None, None) => None,
        };
        match (dead, began) {
            (Some(why), _) => {
                // The rest of the kernel's last words: a stack trace takes a moment on a serial line.
                if exit.is_none() {
                    thread::sleep(Duration::from_millis(500));
                    said.follow()?;
                }
                break if began.is_some() { Ending::Died(why) } else { Ending::NeverBegan(why) };
            }
            (None, Some(began)) if began.elapsed() > machine.timeout => break Ending::TimedOut,
            (None, None) if progress.start.elapsed() > boot_time(accel) => {
                break Ending::NeverBegan(format!("it was not up after {} s", boot_time(accel).as_secs()));
            }
            (None, _) => {}
        }
        progress.tick();
        thread::sleep(TICK);
    };
    drop(qemu);
    if began.is_none() {
        progress.finish(" failed");
    }
    stdout.follow()?;
    stderr.follow()?;
    said.follow()?;
    Ok(Boot {
        ending,
        stdout: stdout.bytes,
        stderr: stderr.bytes,
        console: String::from_utf8_lossy(&said.bytes).into_owned(),
    })
}

fn command(machine: &Machine, kernel: &Kernel, accel: Accel, dir: &Path) -> Result<Command> {
    let qemu = tools::find("qemu-system-x86_64").context("qemu-system-x86_64 is missing: run `cargo xtask setup`")?;
    // QEMU must not outlive us, even where we are killed without a chance to clean up.
    let mut command = tools::command("setpriv")?;
    command.args(["--pdeathsig", "KILL"]).arg(qemu);
    match accel {
        Accel::Kvm => command.args(["-accel", "kvm", "-cpu", "host"]),
        // Without la57: five-level page tables cost a walk more at each miss, and early kernels trip over them.
        Accel::Tcg => command.args(["-accel", "tcg,thread=multi", "-cpu", "max,la57=off"]),
    };
    let mut append = vec![
        "console=ttyS0 loglevel=7 mitigations=off",
        // An oops or a lock-up ends the machine, and with -no-reboot QEMU too. Translation on a busy machine stalls
        // for long: the watchdog waits for twice this time.
        "oops=panic panic=-1 softlockup_panic=1 nmi_watchdog=0 sysctl.kernel.watchdog_thresh=30",
        // Every probe that is attached or detached waits for grace periods, and tests do so by the thousand: no test asserts a
        // time.
        "rcupdate.rcu_expedited=1",
    ];
    append.extend(machine.append.as_deref());
    let share = |path: &Path, tag: &str, readonly: bool| {
        // A comma ends an option; QEMU wants it doubled in a path.
        let path = path.display().to_string().replace(',', ",,");
        let readonly = if readonly { ",readonly=on" } else { "" };
        format!("local,path={path},mount_tag={tag},security_model=none,multidevs=remap{readonly}")
    };
    command
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
        .args(["-m", &machine.memory_mib.to_string(), "-smp", &machine.cpus.to_string()])
        .args(["-serial", &format!("file:{}", dir.join("console").display())])
        .arg("-kernel")
        .arg(&kernel.image)
        .arg("-initrd")
        .arg(dir.join("initrd"))
        .args(["-append", &append.join(" ")])
        .args(["-virtfs", &share(Path::new("/"), "host", true)])
        .args(["-virtfs", &share(&dir.join("ctl"), "ctl", false)])
        .args(["-virtfs", &share(&kernel.modules, "modules", true)]);
    if let Some(out) = &machine.out {
        command.args(["-virtfs", &share(out, "out", false)]);
    }
    // In a group of its own: a Ctrl-C on the terminal is ours to act on.
    command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null());
    command.stderr(File::options().append(true).open(dir.join("console"))?);
    Ok(command)
}

/// The number of the signal that asked us to stop, or 0.
///
/// # Errors
/// Where the signals cannot be caught.
pub fn interruptions() -> Result<Arc<AtomicUsize>> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    static SIGNAL: OnceLock<Arc<AtomicUsize>> = OnceLock::new();
    if let Some(signal) = SIGNAL.get() {
        return Ok(Arc::clone(signal));
    }
    let signal = Arc::new(AtomicUsize::new(0));
    for number in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register_usize(number, Arc::clone(&signal), usize::try_from(number)?)?;
    }
    Ok(Arc::clone(SIGNAL.get_or_init(|| signal)))
}

/// Ends the process when it goes out of sight.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A file that somebody else is still writing: all of it, and a copy passed on as it grows.
struct Follower {
    path: PathBuf,
    file: Option<File>,
    bytes: Vec<u8>,
    looked_at: usize,
    to: Option<Box<dyn Write>>,
}

impl Follower {
    fn new(path: PathBuf, to: Option<Box<dyn Write>>) -> Self {
        Self { path, file: None, bytes: Vec::new(), looked_at: 0, to }
    }

    fn follow(&mut self) -> Result<()> {
        if self.file.is_none() {
            self.file = File::open(&self.path).ok();
        }
        let Some(file) = &mut self.file else { return Ok(()) };
        let before = self.bytes.len();
        file.read_to_end(&mut self.bytes).with_context(|| format!("{}: cannot read", self.path.display()))?;
        let new = self.bytes.get(before..).unwrap_or_default();
        if let Some(to) = &mut self.to
            && !new.is_empty()
        {
            // A reader that is gone does not stop the run: its status is still wanted.
            let _ = to.write_all(new).and_then(|()| to.flush());
        }
        Ok(())
    }

    /// The first line not looked at before that holds one of the words.
    fn new_line_with(&mut self, words: &[&str]) -> Option<String> {
        let new = self.bytes.get(self.looked_at..).unwrap_or_default();
        let whole_lines = new.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let text = String::from_utf8_lossy(new.get(..whole_lines).unwrap_or_default()).into_owned();
        self.looked_at += whole_lines;
        text.lines().find(|line| words.iter().any(|word| line.contains(word))).map(|line| line.trim().to_owned())
    }
}

/// Whether somebody's line counts seconds already: machines may run side by side.
static IS_LIVE: AtomicBool = AtomicBool::new(false);

/// The one line that says what we wait for, with the seconds counted where somebody watches.
struct Progress {
    what: String,
    start: Instant,
    shown: Option<u64>,
    live: bool,
}

impl Progress {
    fn new(what: String, console: bool) -> Self {
        // A console in between would tear the line apart, and so would a second machine's.
        let live = io::stderr().is_terminal() && !console && !IS_LIVE.swap(true, Ordering::Relaxed);
        Self { what, start: Instant::now(), shown: None, live }
    }

    fn tick(&mut self) {
        let seconds = self.start.elapsed().as_secs();
        if self.live && self.shown.is_none_or(|shown| shown != seconds) && self.shown != Some(u64::MAX) {
            self.shown = Some(seconds);
            eprint!("\r{}… {seconds} s", self.what);
        }
    }

    fn finish(&mut self, how: &str) {
        let back = if self.live { "\r" } else { "" };
        eprintln!("{back}{}…{how} {} s", self.what, self.start.elapsed().as_secs());
        self.shown = Some(u64::MAX);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.live {
            IS_LIVE.store(false, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::Follower;

    #[test]
    fn a_line_is_looked_at_once_and_only_when_it_is_whole() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let mut follower = Follower::new(file.path().to_path_buf(), None);
        file.write_all(b"fine\nKernel pa").unwrap();
        follower.follow().unwrap();
        assert_eq!(follower.new_line_with(&["panic"]), None);
        file.write_all(b"nic: x\nmore\n").unwrap();
        follower.follow().unwrap();
        assert_eq!(follower.new_line_with(&["panic"]).as_deref(), Some("Kernel panic: x"));
        assert_eq!(follower.new_line_with(&["panic"]), None);
        assert_eq!(follower.bytes, b"fine\nKernel panic: x\nmore\n");
    }
}
