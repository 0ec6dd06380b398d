//! The files of a recording: made so that nobody else reads the packets in them, for whoever called sudo, and never
//! in place of another file unless that is asked for.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File, OpenOptions},
    io::{self, IsTerminal as _, Write},
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _, fchown},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use super::{clock::now_ns, stop::Why};
use crate::{
    store::{End, Parts, Recorder, Start},
    topology::Topology,
    trace::Losses,
};

/// What is to be recorded, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordOptions {
    /// The file; `-` is standard output.
    pub path: PathBuf,
    /// Size of a file beyond which the next one is begun, bytes.
    pub rotate: Option<u64>,
    /// Whether existing files may be replaced.
    pub force: bool,
}

impl RecordOptions {
    /// Whether the recording goes to standard output.
    #[must_use]
    pub fn to_stdout(&self) -> bool {
        self.path == Path::new("-")
    }
}

/// What a recording is written to.
pub enum Sink {
    File(File),
    Stdout(io::Stdout),
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Sink::File(file) => file.write(bytes),
            Sink::Stdout(stdout) => stdout.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Sink::File(file) => file.flush(),
            Sink::Stdout(stdout) => stdout.flush(),
        }
    }
}

/// The files of one recording.
pub struct Files {
    options: RecordOptions,
    /// The first, made before anything else is set up.
    first: Option<Sink>,
    /// The one that is being written.
    current: PathBuf,
}

impl Files {
    /// Makes the first file.
    ///
    /// # Errors
    /// When it exists, or cannot be made.
    pub fn create(options: &RecordOptions) -> Result<Files> {
        let options = options.clone();
        if options.to_stdout() {
            if io::stdout().is_terminal() {
                bail!("a recording is nothing for a terminal: name a file, or send it into a pipe");
            }
            return Ok(Files { options, first: Some(Sink::Stdout(io::stdout())), current: "-".into() });
        }
        let older = if options.rotate.is_some() { parts_of(&options.path)? } else { Vec::new() };
        if let (Some(part), false) = (older.first(), options.force) {
            bail!("{} exists: choose another name, or replace the recording with --force", part.display());
        }
        for part in &older {
            fs::remove_file(part).with_context(|| format!("cannot replace {}", part.display()))?;
        }
        let current = path_of(&options, 1);
        let first = make(&current, options.force).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => {
                anyhow::anyhow!("{} exists: choose another name, or replace it with --force", current.display())
            }
            _ => anyhow::anyhow!("cannot write {}: {error}", current.display()),
        })?;
        Ok(Files { options, first: Some(Sink::File(first)), current })
    }
}

impl Parts for Files {
    type Out = Sink;

    fn open(&mut self, part: u32) -> io::Result<Sink> {
        if let Some(first) = self.first.take() {
            return Ok(first);
        }
        self.current = path_of(&self.options, part);
        make(&self.current, self.options.force).map(Sink::File)
    }

    fn cut(&mut self, out: &mut Sink, length: u64) -> io::Result<()> {
        match out {
            Sink::File(file) => {
                file.set_len(length)?;
                io::Seek::seek(file, io::SeekFrom::Start(length)).map(drop)
            }
            Sink::Stdout(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}

/// The file of a part: `trace.pcapng`, or with rotation `trace.0001.pcapng`.
fn path_of(options: &RecordOptions, part: u32) -> PathBuf {
    if options.rotate.is_none() {
        return options.path.clone();
    }
    let mut name = OsString::from(options.path.file_stem().unwrap_or_default());
    name.push(format!(".{part:04}"));
    if let Some(extension) = options.path.extension() {
        name.push(".");
        name.push(extension);
    }
    options.path.with_file_name(name)
}

/// Parts of an older recording of this name, in their order.
fn parts_of(path: &Path) -> Result<Vec<PathBuf>> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let entries = fs::read_dir(parent).with_context(|| format!("cannot look into {}", parent.display()))?;
    let mut parts: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(|it| is_part(it, path)).collect();
    parts.sort();
    Ok(parts)
}

fn is_part(candidate: &Path, path: &Path) -> bool {
    let (whole, extension) = match path.extension() {
        Some(extension) => (candidate.file_stem().map(Path::new), Some(extension)),
        None => (Some(candidate), None),
    };
    let number = whole.and_then(Path::extension).and_then(OsStr::to_str).unwrap_or_default();
    extension.is_none_or(|extension| candidate.extension() == Some(extension))
        && whole.and_then(Path::file_stem) == path.file_stem()
        && number.len() >= 4
        && number.bytes().all(|digit| digit.is_ascii_digit())
}

/// Makes a file that its owner alone reads. An empty one is taken for none; pipes and devices are written as they are.
pub(crate) fn make(path: &Path, force: bool) -> io::Result<File> {
    if is_laid_out(path) {
        let why = "somebody else has put a link or a pipe there, where everybody may: choose another name";
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    }
    match fs::metadata(path) {
        Ok(there) if there.file_type().is_fifo() || there.file_type().is_char_device() => {
            let file = OpenOptions::new().write(true).open(path)?;
            let opened = file.metadata()?;
            if (opened.dev(), opened.ino()) != (there.dev(), there.ino()) {
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, "it became another one meanwhile"));
            }
            return Ok(file);
        }
        Ok(there) if there.is_dir() => return Err(io::ErrorKind::IsADirectory.into()),
        // Removed and made anew, so that mode and owner are ours, and a link is replaced and not followed.
        Ok(there) if there.len() == 0 || force => fs::remove_file(path)?,
        // A link that leads nowhere.
        Err(_) if force && fs::symlink_metadata(path).is_ok() => fs::remove_file(path)?,
        _ => {}
    }
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    if let Some((uid, gid)) = caller() {
        fchown(&file, Some(uid), Some(gid))?;
    }
    Ok(file)
}

/// User and group of whoever called sudo.
fn caller() -> Option<(u32, u32)> {
    let id = |name| std::env::var(name).ok()?.parse().ok();
    rustix::process::geteuid().is_root().then(|| Some((id("SUDO_UID")?, id("SUDO_GID")?)))?
}

/// Whether a link or a pipe of this name may have been laid out for us: in a folder such as /tmp, by neither us, nor whoever
/// called sudo, nor the folder's owner. The kernel has the same rule (fs.protected_symlinks, fs.protected_fifos), where
/// it is on.
fn is_laid_out(path: &Path) -> bool {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let (Ok(there), Ok(folder)) = (fs::symlink_metadata(path), fs::metadata(parent)) else { return false };
    let ours = [Some(rustix::process::geteuid().as_raw()), caller().map(|(uid, _)| uid), Some(folder.uid())];
    (there.is_symlink() || there.file_type().is_fifo())
        && is_for_all(folder.mode())
        && !ours.contains(&Some(there.uid()))
}

/// Sticky, and writable by others than its owner.
fn is_for_all(mode: u32) -> bool {
    mode & 0o1000 != 0 && mode & 0o022 != 0
}

/// The recording of a run, if there is to be one.
#[derive(Default)]
pub struct Recording(Option<Recorder<Files>>);

impl Recording {
    /// Begins it.
    ///
    /// # Errors
    /// When the beginning cannot be written.
    pub fn begin(files: Option<Files>, start: Start) -> Result<Recording> {
        let Some(files) = files else { return Ok(Recording(None)) };
        let (limit, path) = (files.options.rotate, files.current.clone());
        let recorder =
            Recorder::new(files, start, limit).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Recording(Some(recorder)))
    }

    /// Whether anything is recorded.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Writes. When that fails the recording is ended where it is whole, and the run has a reason to end.
    pub fn write(&mut self, write: impl FnOnce(&mut Recorder<Files>) -> io::Result<()>) -> Result<(), Why> {
        let Some(recorder) = &mut self.0 else { return Ok(()) };
        let Err(error) = write(recorder) else { return Ok(()) };
        let path = recorder.parts().current.display().to_string();
        if error.kind() == io::ErrorKind::BrokenPipe {
            self.0 = None;
            return Err(Why::OutputClosed);
        }
        let why = format!("cannot write {path}: {error}");
        let losses = recorder.losses();
        let whole = recorder.give_up(End {
            now_ns: now_ns(),
            losses,
            finished: true,
            failed: true,
            why: why.clone(),
            ..End::default()
        });
        self.0 = None;
        let rest = if whole { "; what was recorded until then can be shown" } else { "" };
        Err(Why::Failed(format!("{why}{rest}")))
    }
}

/// The end of a recording.
pub fn end(why: &Why, now_ns: u64, losses: Losses) -> End {
    End {
        now_ns,
        losses,
        finished: !matches!(why, Why::Counted),
        failed: matches!(why, Why::Failed(_)),
        why: why.to_string(),
        ..End::default()
    }
}

/// The names that a topology gives.
pub fn name_table(topology: &Topology) -> crate::store::NameTable {
    let mut table = crate::store::NameTable::default();
    for netns in topology.all_netns() {
        table.netns.insert(netns.inum, topology.netns_label(netns.inum));
    }
    for link in topology.links() {
        if let Some(master) = link.master.and_then(|master| topology.link(master)) {
            table.bridges.entry(link.key.netns).or_default().insert(link.key.ifindex, master.display());
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::{Files, RecordOptions, Sink, is_for_all, is_laid_out, is_part, make, path_of};
    use crate::store::Parts as _;
    use std::{fs, io::Write as _, os::unix::fs::PermissionsExt as _, path::Path};

    fn options(path: &Path, rotate: Option<u64>, force: bool) -> RecordOptions {
        RecordOptions { path: path.to_owned(), rotate, force }
    }

    #[test]
    fn parts_have_numbers_before_the_extension() {
        let name = |path: &str, part| path_of(&options(Path::new(path), Some(1), false), part).display().to_string();
        assert_eq!(name("a/b.c.pcapng", 1), "a/b.c.0001.pcapng");
        assert_eq!(name("trace", 12_345), "trace.12345");
        let part = |candidate: &str, path: &str| is_part(Path::new(candidate), Path::new(path));
        assert!(part("./trace.0001.pcapng", "trace.pcapng") && part("./trace.0099", "trace"));
        assert!(!part("./trace.pcapng", "trace.pcapng") && !part("./trace.001.pcapng", "trace.pcapng"));
        assert!(!part("./trace2.0001.pcapng", "trace.pcapng") && !part("./trace.0001.txt", "trace.pcapng"));
    }

    #[test]
    fn an_existing_file_is_replaced_only_when_asked() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.pcapng");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        make(&path, false).unwrap().write_all(b"old").unwrap();
        assert_eq!(mode(&path), 0o600);
        let refused = Files::create(&options(&path, None, false)).err().unwrap().to_string();
        assert_eq!(refused, format!("{} exists: choose another name, or replace it with --force", path.display()));
        assert_eq!(fs::read(&path).unwrap(), b"old");
        // A link is replaced, not followed; so is an empty file, whatever its mode.
        let link = dir.path().join("link.pcapng");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        make(&link, true).unwrap();
        assert!(!fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read(&path).unwrap(), b"old");
        fs::set_permissions(&link, fs::Permissions::from_mode(0o644)).unwrap();
        make(&link, false).unwrap();
        assert_eq!(mode(&link), 0o600);
    }

    #[test]
    fn a_link_that_leads_nowhere_is_replaced_only_when_asked_and_never_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (link, target) = (dir.path().join("link"), dir.path().join("target"));
        std::os::unix::fs::symlink(&target, &link).unwrap();
        assert_eq!(make(&link, false).unwrap_err().kind(), std::io::ErrorKind::AlreadyExists);
        make(&link, true).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_file() && !target.exists());
    }

    #[test]
    fn links_of_others_are_refused_where_everybody_may_put_them() {
        assert!(is_for_all(0o41777) && is_for_all(0o1770));
        assert!(!is_for_all(0o777) && !is_for_all(0o1755));
        // Our own are not.
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o1777)).unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("/dev/null", &link).unwrap();
        assert!(!is_laid_out(&link) && !is_laid_out(&dir.path().join("none")));
        make(&link, false).unwrap();
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::lchown(&link, Some(65534), None).unwrap();
            std::os::unix::fs::chown(dir.path(), Some(65533), None).unwrap();
            assert!(is_laid_out(&link));
            let refused = make(&link, true).unwrap_err();
            assert_eq!(refused.kind(), std::io::ErrorKind::PermissionDenied);
        }
    }

    #[test]
    fn older_parts_go_all_together() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.pcapng");
        for part in [1, 2, 7] {
            fs::write(dir.path().join(format!("x.{part:04}.pcapng")), "old").unwrap();
        }
        assert!(Files::create(&options(&path, Some(1), false)).is_err());
        let mut files = Files::create(&options(&path, Some(1), true)).unwrap();
        assert!(matches!(files.open(1), Ok(Sink::File(_))) && matches!(files.open(2), Ok(Sink::File(_))));
        let mut names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["x.0001.pcapng", "x.0002.pcapng"]);
    }

    #[test]
    fn a_file_that_could_not_be_written_is_cut_and_goes_on_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.pcapng");
        let mut files = Files::create(&options(&path, None, false)).unwrap();
        let mut out = files.open(1).unwrap();
        out.write_all(b"whole|torn").unwrap();
        files.cut(&mut out, 6).unwrap();
        out.write_all(b"end").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"whole|end");
    }
}
