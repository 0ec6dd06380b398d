//! `skbtrace report`.

use std::{
    cell::RefCell,
    fs,
    io::{self, IsTerminal as _, Write as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::ExitCode,
    rc::Rc,
};

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;

use super::select::SelectArgs;
use super::show::replay;
use crate::{
    name::printable,
    render::Names,
    report::{About, Mermaid, Page, Perfetto},
    run::{Output, Whole, make},
    store::Start,
    trace::{Packet, Summary},
    verdict::{Explained, Payload},
};

/// Which recording, what of it, and in what form.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The page is one file that needs no network: findings first, the topology, every packet hop by hop with its times, the bytes of \
changed payloads where the run had --payload, and how long each hop took. It can be searched, filtered, walked through by keys, \
and printed. It holds what the recording holds: addresses, names of processes, bytes of payloads.

Of a recording that is damaged or cut short there is what comes before the damage; the page says so, and the exit status is 1.")]
pub struct Args {
    /// The recording, or its parts in their order; `-` is standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Where to write it; `-`, or nothing, is standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Replace the file that is there
    #[arg(long)]
    force: bool,
    /// What to make
    #[arg(long, value_name = "FORMAT", default_value = "html")]
    format: Format,
    /// The packet to draw, or to open the page at; without it, the first that was garbled, or dropped, or incomplete, or the first
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    packet: Option<u64>,
    /// Packets to whom nothing happened, at most, in a page; and as many to whom something did
    #[arg(long, value_name = "COUNT", default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    #[command(flatten)]
    select: SelectArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// One self-contained page
    Html,
    /// A trace for ui.perfetto.dev and chrome://tracing: a track per device, a flow per packet
    Perfetto,
    /// A sequence diagram of one packet, as tickets and wikis draw it
    Mermaid,
}

/// What is being made.
enum Making {
    Html(Box<Page>),
    Perfetto(Perfetto),
    Mermaid(Mermaid),
}

/// It, shared with the replay that fills it.
#[derive(Clone)]
struct Shared {
    making: Rc<RefCell<Making>>,
    about: Rc<About>,
}

/// Makes it.
pub fn run(args: &Args) -> Result<ExitCode> {
    if args.packet.is_some() && args.format == Format::Perfetto {
        bail!("a trace for Perfetto has all packets: --packet is for html and mermaid, and --number chooses packets");
    }
    let to = Target::of(args)?;
    let making = match args.format {
        Format::Html => Making::Html(Box::new(Page::new(args.limit as usize))),
        Format::Perfetto => Making::Perfetto(Perfetto::default()),
        Format::Mermaid => Making::Mermaid(Mermaid::new(args.packet)),
    };
    let about = About { file: file_names(&args.files), open: args.packet, ..About::default() };
    let shared = Shared { making: Rc::new(RefCell::new(making)), about: Rc::new(about) };
    let mut output = Output::whole(Box::new(shared.clone()));
    if let Some(selection) = args.select.clone().selection() {
        output = output.only(selection);
    }
    let (replayed, missing) = replay(output, &args.files)?;
    let complaint = missing.map(|error| format!("{error:#}")).or(replayed.complaint);
    // Where the recording lay is nothing for whoever gets the report.
    let told = complaint.as_deref().map(|complaint| match args.files.iter().find_map(|path| behind(path, complaint)) {
        Some((name, rest)) => format!("{name}{rest}"),
        None => complaint.to_owned(),
    });
    let Ok(making) = Rc::try_unwrap(shared.making).map(RefCell::into_inner) else {
        bail!("the recording is still being read; this is a defect in skbtrace");
    };
    let (text, said) = finish(making, told.as_deref(), args)?;
    to.write(&text).with_context(|| format!("cannot write {}", to.name()))?;
    if let Some(said) = said {
        eprintln!("skbtrace: {said}");
    }
    match complaint {
        Some(complaint) => bail!("{complaint}; {} has what comes before", to.name()),
        None => Ok(ExitCode::SUCCESS),
    }
}

/// The text, and what is to be said beside it.
fn finish(making: Making, complaint: Option<&str>, args: &Args) -> Result<(String, Option<String>)> {
    // Of a file that is no recording there is nothing to show.
    let nothing = |there_is: bool| match complaint {
        Some(complaint) if !there_is => bail!("{complaint}; `skbtrace run --iface X -w FILE` makes a recording"),
        _ => Ok(()),
    };
    match making {
        Making::Html(page) => {
            nothing(page.has_begun())?;
            let (count, left_out) = page.counts();
            let said = (left_out > 0).then(|| {
                format!("the page has {count} packets; {left_out} more are left out: choose by --number, --host or --port, or raise --limit")
            });
            Ok((page.finish(complaint)?, said))
        }
        Making::Perfetto(mut trace) => {
            nothing(trace.stays() > 0)?;
            if let Some(complaint) = complaint {
                trace.note(complaint);
            }
            Ok((trace.finish()?, None))
        }
        Making::Mermaid(diagram) => match diagram.finish() {
            Some((number, text)) if args.packet.is_none() => {
                Ok((text, Some(format!("this is packet {number}; --packet chooses another"))))
            }
            Some((_, text)) => Ok((text, None)),
            None => {
                nothing(false)?;
                match args.packet {
                    Some(number) => bail!("there is no packet {number} there: `skbtrace show` lists those that are"),
                    None => bail!("there is no packet there: the filters, or the recording, leave none"),
                }
            }
        },
    }
}

impl Whole for Shared {
    fn begin(&mut self, start: &Start) {
        if let Making::Html(page) = &mut *self.making.borrow_mut() {
            page.begin(About {
                tool: start.tool.clone(),
                kernel: start.kernel.clone(),
                machine: start.machine.clone(),
                preface: start.preface.clone(),
                clock_offset_ns: start.clock_offset_ns,
                target: start.target,
                ..About::clone(&self.about)
            });
        }
    }

    fn notice(&mut self, text: &str) {
        match &mut *self.making.borrow_mut() {
            Making::Html(page) => page.notice(text),
            Making::Perfetto(trace) => trace.note(text),
            Making::Mermaid(_) => {}
        }
    }

    fn packet(&mut self, packet: &Packet, payload: &Payload, names: &dyn Names) {
        match &mut *self.making.borrow_mut() {
            Making::Html(page) => page.packet(packet, payload, names),
            Making::Perfetto(trace) => trace.packet(packet, payload, names),
            Making::Mermaid(diagram) => diagram.packet(packet, payload, names),
        }
    }

    fn findings(&mut self, findings: &[Explained], names: &dyn Names) {
        if let Making::Html(page) = &mut *self.making.borrow_mut() {
            page.findings(findings, names);
        }
    }

    fn summary(&mut self, summary: &Summary, names: &dyn Names) {
        if let Making::Html(page) = &mut *self.making.borrow_mut() {
            page.summary(summary, names);
        }
    }
}

/// Where it goes.
struct Target<'a> {
    /// `None` is standard output.
    path: Option<&'a Path>,
    force: bool,
}

impl<'a> Target<'a> {
    /// Looked at before the recording is read, which may take a while.
    fn of(args: &'a Args) -> Result<Target<'a>> {
        let path = args.output.as_deref().filter(|path| *path != Path::new("-"));
        let Some(path) = path else {
            if args.format == Format::Html && io::stdout().is_terminal() {
                bail!("a page is nothing for a terminal: name a file with -o, or send it into a pipe");
            }
            return Ok(Target { path: None, force: args.force });
        };
        let place = |path: &Path| fs::metadata(path).ok().map(|file| (file.dev(), file.ino()));
        if let Some(there) = place(path)
            && args.files.iter().any(|file| place(file) == Some(there))
        {
            bail!("{} is the recording itself: choose another name for the report", path.display());
        }
        if !args.force && fs::metadata(path).is_ok_and(|file| file.is_file() && file.len() > 0) {
            bail!("{} exists: choose another name, or replace it with --force", path.display());
        }
        Ok(Target { path: Some(path), force: args.force })
    }

    fn name(&self) -> String {
        self.path.map_or_else(|| "standard output".to_owned(), |path| path.display().to_string())
    }

    fn write(&self, text: &str) -> io::Result<()> {
        match self.path {
            // A reader that has gone is no error.
            None => match io::stdout().write_all(text.as_bytes()).and_then(|()| io::stdout().flush()) {
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
                written => written,
            },
            Some(path) => make(path, self.force)?.write_all(text.as_bytes()),
        }
    }
}

/// What the recording is called, without where it lies.
fn file_names(files: &[PathBuf]) -> String {
    files.iter().map(|path| file_name(path)).collect::<Vec<_>>().join(", ")
}

fn file_name(path: &Path) -> String {
    match path.file_name() {
        Some(name) if path != Path::new("-") => printable(name.as_encoded_bytes()),
        _ => "standard input".to_owned(),
    }
}

/// The name of a file, and what a complaint says of it behind its path.
fn behind<'a>(path: &Path, complaint: &'a str) -> Option<(String, &'a str)> {
    let rest = complaint.strip_prefix(&path.display().to_string())?;
    rest.starts_with(':').then(|| (file_name(path), rest))
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use clap::Parser;

    use super::{Args, run};
    use crate::store::testkit::{recorded, traffic};

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        args: Args,
    }

    /// Makes what these words ask for: its text, or what was said.
    fn made(words: &[&str], output: &Path) -> Result<String, String> {
        let words = [&["report"], words, &["-o", output.to_str().unwrap()]].concat();
        let command = Command::try_parse_from(words).map_err(|error| error.to_string())?;
        run(&command.args).map_err(|error| format!("{error:#}"))?;
        Ok(fs::read_to_string(output).unwrap())
    }

    #[test]
    fn a_recording_becomes_a_page_a_trace_and_a_diagram() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("trace.pcapng");
        fs::write(&file, recorded(&traffic(2))).unwrap();
        let file = file.to_str().unwrap();
        let page = made(&[file], &dir.path().join("a.html")).unwrap();
        assert!(page.contains(r#""file":"trace.pcapng""#) && page.contains(r#""kernel":"6.1.0-test""#));
        let trace = made(&[file, "--format", "perfetto"], &dir.path().join("a.json")).unwrap();
        assert!(serde_json::from_str::<serde_json::Value>(&trace).unwrap()["traceEvents"].is_array());
        let diagram = made(&[file, "--format", "mermaid"], &dir.path().join("a.mmd")).unwrap();
        assert!(diagram.starts_with("sequenceDiagram\n") && diagram.contains("DROPPED"), "{diagram}");
        let other = made(&[file, "--format", "mermaid", "--packet", "2"], &dir.path().join("b.mmd")).unwrap();
        assert!(other.contains("#35;2 ") && other != diagram, "{other}");
        // What is chosen is what there is.
        let few = made(&[file, "--port", "8000"], &dir.path().join("c.html")).unwrap();
        assert!(few.contains("TCP 78.78.0.11:58854") && !few.contains("UDP 78.78.0.11:40000"));
    }

    #[test]
    fn what_cannot_be_made_is_said_with_its_cause_and_the_next_step() {
        let dir = tempfile::tempdir().unwrap();
        let (file, page) = (dir.path().join("trace.pcapng"), dir.path().join("page.html"));
        fs::write(&file, recorded(&traffic(1))).unwrap();
        let file = file.to_str().unwrap();
        let says = |words: &[&str], output: &Path, said: &[&str]| {
            let error = made(words, output).unwrap_err();
            assert!(said.iter().all(|said| error.contains(said)), "{error}");
        };
        says(&["/none.pcapng"], &page, &["cannot open /none.pcapng", "run --iface X -w FILE"]);
        says(&["/dev/null"], &page, &["it is empty", "run --iface X -w FILE"]);
        says(&[file], Path::new(file), &["is the recording itself", "choose another name"]);
        says(&[file, "--force"], Path::new(file), &["is the recording itself"]);
        says(&[file, "--format", "mermaid", "--packet", "99"], &page, &["no packet 99", "skbtrace show"]);
        says(&[file, "--format", "mermaid", "--port", "1"], &page, &["no packet there", "filters"]);
        says(&[file, "--format", "perfetto", "--packet", "1"], &page, &["--number chooses packets"]);
        assert!(!page.exists());
        fs::write(&page, "mine").unwrap();
        says(&[file], &page, &["exists", "--force"]);
        assert_eq!(fs::read_to_string(&page).unwrap(), "mine");
        assert!(made(&[file, "--force"], &page).unwrap().contains("<!DOCTYPE html>"));
    }

    #[test]
    fn of_a_torn_recording_there_is_what_comes_before_and_the_page_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let (file, page) = (dir.path().join("trace.pcapng"), dir.path().join("page.html"));
        let whole = recorded(&traffic(2));
        fs::write(&file, &whole[..whole.len() / 2]).unwrap();
        let error = made(&[file.to_str().unwrap()], &page).unwrap_err();
        assert!(error.starts_with(&format!("{}: damaged at byte", file.display())), "{error}");
        assert!(error.ends_with(&format!("{} has what comes before", page.display())), "{error}");
        let page = fs::read_to_string(page).unwrap();
        // Where it lay is not in the page.
        assert!(
            page.contains(r#""damage":"trace.pcapng: damaged at byte"#) && !page.contains(dir.path().to_str().unwrap())
        );
        assert!(page.contains("UDP 78.78.0.11:40000"));
    }
}
