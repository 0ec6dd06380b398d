//! The tracer as its users run it: a process that is waited for until it traces, and that Ctrl-C ends.

use std::{
    fs::File,
    io::{self, BufRead as _, BufReader, Read as _, Seek as _},
    os::unix::process::CommandExt as _,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rustix::fs::{MemfdFlags, memfd_create};

use super::By;
use crate::lab::fault::{Error, show::failed};

/// Under emulation a tracer takes its time to attach, and to write down what it saw.
const PATIENCE: Duration = Duration::from_secs(120);

/// A tracer that traces.
pub(super) struct Tracer {
    child: Child,
    output: File,
}

impl Tracer {
    /// Starts `run --json` on an interface, and waits until it says that it traces.
    pub fn start(by: By<'_>, iface: &str) -> Result<Tracer, Error> {
        let file = memfd_create("skbtrace", MemfdFlags::CLOEXEC).map(File::from);
        let output = file.map_err(|errno| failed("make a file for what the tracer says")(errno))?;
        let stdout = output.try_clone().map_err(failed("make a file for what the tracer says"))?;
        let mut command = Command::new(by.program);
        command.args(["run", "--json", "--backend", by.backend.name(), "--iface", iface]);
        // Ctrl-C at the terminal is for this process; it then ends the tracer.
        command.process_group(0).stdin(Stdio::null()).stdout(stdout).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(failed("start the tracer"))?;
        let stderr = child.stderr.take();
        let mut tracer = Tracer { child, output };
        let mut lines = BufReader::new(stderr.ok_or_else(|| failed("hear the tracer")(io::ErrorKind::BrokenPipe))?);
        let mut said = String::new();
        // The second of its lines is the plan: by then all is attached.
        while !said.contains(" hops") {
            if lines.read_line(&mut said).map_err(failed("hear the tracer"))? == 0 {
                let _ = tracer.child.wait();
                return Err(failed("start the tracer")(io::Error::other(said.trim().to_owned())));
            }
        }
        thread::spawn(move || io::copy(&mut lines, &mut io::sink()));
        Ok(tracer)
    }

    /// Ends it as Ctrl-C does, and returns what it printed.
    pub fn finish(mut self) -> Result<String, Error> {
        // A pid of Linux fits.
        let pid = Pid::from_raw(self.child.id().cast_signed());
        kill(pid, Signal::SIGINT).map_err(|errno| failed("end the tracer")(errno))?;
        let until = Instant::now() + PATIENCE;
        let status = loop {
            match self.child.try_wait().map_err(failed("wait for the tracer"))? {
                Some(status) => break status,
                None if Instant::now() > until => {
                    return Err(failed("end the tracer")(io::ErrorKind::TimedOut));
                }
                None => thread::sleep(Duration::from_millis(20)),
            }
        };
        if !status.success() {
            return Err(failed("trace")(io::Error::other(format!("the tracer ended with {status}"))));
        }
        let mut text = String::new();
        let read = self.output.rewind().and_then(|()| self.output.read_to_string(&mut text));
        read.map_err(failed("read what the tracer said"))?;
        Ok(text)
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        // Where it has ended already, neither call does anything.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
