//! The tracer as a process: started, waited for until it traces, signalled, and judged by how it ended.

use std::{
    io::{BufRead as _, BufReader, Read},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{
    machine::{assert_nothing_attached, wait_until},
    model::Trace,
};

/// The program under test: the optimised one where the build was told of it, for kernels under emulation.
pub const PROGRAM: &str = match option_env!("SKBTRACE_PROGRAM") {
    Some(optimised) => optimised,
    None => env!("CARGO_BIN_EXE_skbtrace"),
};

/// A tracer that is running.
pub struct Tracer {
    child: Reaped,
    out: Captured,
    err: Captured,
}

/// A child that does not outlive a test that fails.
struct Reaped(Child);

impl Drop for Reaped {
    fn drop(&mut self) {
        // Where it has ended already, neither call does anything.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A stream that is read as it comes.
struct Captured {
    text: Arc<Mutex<String>>,
    reader: JoinHandle<()>,
}

impl Captured {
    fn of(stream: impl Read + Send + 'static) -> Captured {
        let text = Arc::new(Mutex::new(String::new()));
        let shared = Arc::clone(&text);
        let reader = thread::spawn(move || {
            let mut stream = BufReader::new(stream);
            let mut line = Vec::new();
            while stream.read_until(b'\n', &mut line).unwrap() > 0 {
                shared.lock().unwrap().push_str(&String::from_utf8_lossy(&line));
                line.clear();
            }
        });
        Captured { text, reader }
    }

    fn so_far(&self) -> String {
        self.text.lock().unwrap().clone()
    }

    fn all(self) -> String {
        self.reader.join().unwrap();
        self.text.lock().unwrap().clone()
    }
}

/// How a tracer ended.
#[derive(Debug)]
pub struct Done {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Done {
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// Its JSON, when it ended well.
    pub fn trace(&self) -> Trace {
        assert_eq!(self.code(), Some(0), "{self:#?}");
        Trace::parse(&self.stdout)
    }
}

impl Tracer {
    /// `skbtrace run` with these arguments, not waited for.
    pub fn spawn(args: &[&str]) -> Tracer {
        Tracer::spawn_command(Command::new(PROGRAM).arg("run").args(args))
    }

    /// A command that runs the tracer.
    pub fn spawn_command(command: &mut Command) -> Tracer {
        let piped = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = Reaped(piped.spawn().unwrap());
        let out = Captured::of(child.0.stdout.take().unwrap());
        let err = Captured::of(child.0.stderr.take().unwrap());
        Tracer { child, out, err }
    }

    /// `skbtrace run` with these arguments, once it traces.
    pub fn start(args: &[&str]) -> Tracer {
        Tracer::spawn(args).ready()
    }

    /// Waits until it traces, which it says.
    pub fn ready(mut self) -> Tracer {
        wait_until("the tracer traces", || {
            let said = self.out.so_far() + &self.err.so_far();
            let over = self.child.0.try_wait().unwrap();
            assert!(over.is_none(), "the tracer ended: {over:?}: {said}");
            said.contains(" hops traced by ")
        });
        self
    }

    /// Number of its process.
    pub fn pid(&self) -> u32 {
        self.child.0.id()
    }

    /// What it has said so far.
    pub fn messages(&self) -> String {
        self.err.so_far()
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.0.id().try_into().unwrap()), signal).unwrap();
    }

    /// Waits for its end.
    pub fn wait(mut self) -> Done {
        wait_until("the tracer ends", || self.child.0.try_wait().unwrap().is_some());
        let status = self.child.0.wait().unwrap();
        // Whatever it left running would hold the pipes open.
        Done { status, stdout: self.out.all(), stderr: self.err.all() }
    }

    /// Ends it as Ctrl-C does.
    pub fn interrupt(self) -> Done {
        self.signal(Signal::SIGINT);
        self.wait()
    }
}

/// `skbtrace run` with these arguments, to its end; nothing may be left attached.
pub fn run(args: &[&str]) -> Done {
    let done = Tracer::spawn(args).wait();
    assert_nothing_attached();
    done
}

/// What a tracer sees of this traffic on calmveth1, with `arguments` beside. The kernel skips a probe where an interrupt
/// comes while another probe runs, and says so: then hops are missing by chance, and it is tried again.
pub fn traced(arguments: &[&str], mut traffic: impl FnMut()) -> Trace {
    for _ in 0..5 {
        let tracer = Tracer::start(&[&["--iface", "calmveth1", "--json"], arguments].concat());
        traffic();
        let trace = tracer.interrupt().trace();
        if trace.summary.losses.get("missed_probes").is_none_or(|missed| *missed == 0) {
            assert_nothing_attached();
            trace.assert_complete();
            return trace;
        }
    }
    panic!("probes were missed each time");
}
