//! What ends a run: a signal, the time, the command that was to be traced; or the run itself.

use std::{
    fmt, io,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result};
use tokio::{
    process::{Child, Command},
    signal::unix::{Signal, SignalKind, signal},
    time::Instant,
};

/// A command that was asked to end has so long until it is killed.
const PATIENCE: Duration = Duration::from_secs(2);

/// What ended a run.
#[derive(Debug)]
pub enum Why {
    /// Ctrl-C or SIGTERM.
    Signal(&'static str),
    /// Its time was over.
    TimedOut,
    /// It had as many packets as it was to have.
    Counted,
    /// The command ended.
    CommandEnded(ExitStatus),
    /// Nobody reads the output any more.
    OutputClosed,
    /// Something failed.
    Failed(String),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::Signal(name) => f.write_str(name),
            Why::TimedOut => f.write_str("its time was over"),
            Why::Counted => f.write_str("it had the packets that it was to have"),
            Why::CommandEnded(status) => write!(f, "the command ended: {status}"),
            Why::OutputClosed => f.write_str("nobody read the output any more"),
            Why::Failed(error) => f.write_str(error),
        }
    }
}

impl Why {
    /// A failure to write: a reader that has gone, or worse.
    pub(super) fn from_write(error: io::Error) -> Why {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Why::OutputClosed
        } else {
            Why::Failed(format!("cannot write the output: {error}"))
        }
    }
}

/// How a run ended.
#[derive(Debug)]
pub struct Ended {
    /// What ended it.
    pub why: Why,
    /// The command was still running and was stopped.
    pub stopped_command: bool,
}

/// Everything that can end a run from outside.
pub struct Stops {
    interrupt: Signal,
    terminate: Signal,
    timeout: Option<Duration>,
    deadline: Option<Instant>,
    child: Option<Child>,
}

impl Stops {
    /// Takes over the signals.
    pub fn new(timeout: Option<Duration>) -> Result<Stops> {
        let handler = |kind| signal(kind).context("cannot take over signals");
        Ok(Stops {
            interrupt: handler(SignalKind::interrupt())?,
            terminate: handler(SignalKind::terminate())?,
            timeout,
            deadline: None,
            child: None,
        })
    }

    /// The run begins: starts the command, if there is one, and the clock.
    ///
    /// The command's output goes to standard error: standard output is the trace's.
    pub fn spawn(&mut self, command: &[String]) -> Result<()> {
        self.deadline = self.timeout.map(|timeout| Instant::now() + timeout);
        let Some((program, args)) = command.split_first() else { return Ok(()) };
        let child = Command::new(program)
            .args(args)
            .stdin(Stdio::null())
            .stdout(io::stderr())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot run {program}"))?;
        self.child = Some(child);
        Ok(())
    }

    /// Waits for whatever comes first. Safe to cancel.
    pub async fn next(&mut self) -> Why {
        let Stops { interrupt, terminate, deadline, child, .. } = self;
        tokio::select! {
            _ = interrupt.recv() => Why::Signal("SIGINT"),
            _ = terminate.recv() => Why::Signal("SIGTERM"),
            () = until(*deadline) => Why::TimedOut,
            why = ended(child.as_mut()) => why,
        }
    }

    /// Sees to it that the command has ended.
    pub async fn wind_up(&mut self, why: Why) -> Ended {
        let mut stopped_command = false;
        if !matches!(why, Why::CommandEnded(_))
            && let Some(mut child) = self.child.take()
        {
            stopped_command = true;
            if let Some(pid) = child.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw)
            {
                // A command that has ended in the meantime needs no asking.
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            }
            if tokio::time::timeout(PATIENCE, child.wait()).await.is_err() {
                // Killed for good; its status interests nobody.
                let _ = child.kill().await;
            }
        }
        Ended { why, stopped_command }
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

async fn ended(child: Option<&mut Child>) -> Why {
    match child {
        Some(child) => match child.wait().await {
            Ok(status) => Why::CommandEnded(status),
            Err(error) => Why::Failed(format!("cannot wait for the command: {error}")),
        },
        None => std::future::pending().await,
    }
}
