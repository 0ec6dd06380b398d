//! `skbtrace lab`: builds, shows and removes a scenario to trace, sends traffic through it, and puts faults into it.

mod fault;
mod prove;

use std::{
    io::{self, Write},
    net::Ipv4Addr,
    process::ExitCode,
    sync::{Arc, atomic::AtomicBool},
};

use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::lab::{
    self, Removed, Scenario, Status,
    firewall::Report,
    traffic::{self, MAX_DATAGRAM, Options, Protocol, record::HEADER},
};
use crate::name::printable;

/// Build a scenario to trace, look at it, send traffic through it, remove it
#[derive(Debug, Args)]
pub struct LabArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build a scenario, repair it, or replace the one that is up
    Up {
        /// Which
        #[arg(default_value = "bridge")]
        scenario: Scenario,
    },
    /// Show the scenario that is up; exit status 1 when none is, or it is incomplete
    Status {
        /// As one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Remove what the lab made, and nothing else
    Down {
        /// Only when this scenario is up
        scenario: Option<Scenario>,
    },
    /// Send traffic that verifies itself from ns-calm2 to ns-calm1; exit status 1 when not all of it arrives
    ///
    /// Every record carries a sequence number and a payload that follows from it, so the receiver names each one that
    /// is lost, doubled, out of order or changed. Ctrl-C ends it with the summary.
    Traffic(TrafficArgs),
    /// Put a fault of the gallery into the lab, show it, take it back
    #[command(subcommand)]
    Fault(fault::Command),
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Protocols {
    Tcp,
    Udp,
    /// UDP, then TCP
    Both,
}

#[derive(Debug, Args)]
struct TrafficArgs {
    /// What to send
    #[arg(long, value_enum, default_value = "both")]
    proto: Protocols,
    /// Records to send per protocol; 0: until Ctrl-C
    #[arg(long, value_name = "N", default_value_t = 1000)]
    count: u64,
    /// Bytes of a record, its 32 bytes of header included
    #[arg(long, value_name = "BYTES", default_value_t = 512,
        value_parser = clap::value_parser!(u32).range(HEADER as i64..=MAX_DATAGRAM as i64))]
    size: u32,
    /// Records a second; 0: as fast as they are received
    #[arg(long, value_name = "PPS", default_value_t = 200)]
    rate: u64,
    /// Connections that take turns
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    connections: u16,
    /// The namespace that sends [default: as the scenario has it]
    #[arg(long, value_name = "NETNS")]
    from: Option<String>,
    /// The namespace that receives [default: as the scenario has it]
    #[arg(long, value_name = "NETNS")]
    to: Option<String>,
    /// The sender's address [default: as the scenario has it]
    #[arg(long, value_name = "ADDRESS")]
    bind: Option<Ipv4Addr>,
    /// The receiver's address [default: as the scenario has it]
    #[arg(long, value_name = "ADDRESS")]
    server: Option<Ipv4Addr>,
    /// The receiver's port
    #[arg(long, default_value_t = 8000, value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,
    /// A JSON object per protocol in place of the summary
    #[arg(long)]
    json: bool,
}

/// Runs the subcommand. Exit status 1: `status` found no complete lab, or `traffic` did not all arrive.
///
/// # Errors
/// Whatever the lab could not do; the message names the next step.
pub fn run(args: LabArgs) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Up { scenario } => up(scenario),
        Command::Status { json } => status(json),
        Command::Down { scenario } => down(scenario),
        Command::Traffic(args) => traffic(&args),
        Command::Fault(command) => fault::run(command),
    }
}

/// A flag that the first SIGINT or SIGTERM sets; the second ends the process as usual.
fn stop_flag() -> anyhow::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // In this order: the flag must not be set yet when the first signal asks whether it is.
        signal_hook::flag::register_conditional_default(signal, Arc::clone(&stop)).context("handle signals")?;
        signal_hook::flag::register(signal, Arc::clone(&stop)).context("handle signals")?;
    }
    Ok(stop)
}

/// Prints lines. A closed pipe is not worth an error: what was asked for has been done.
fn print(lines: &[String]) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    let written = lines.iter().try_for_each(|line| writeln!(out, "{line}")).and_then(|()| out.flush());
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error).context("write to the standard output"),
        _ => Ok(()),
    }
}

fn warn(firewall: &Report) {
    for warning in firewall.warnings() {
        eprintln!("warning: {warning}");
    }
}

fn up(scenario: Scenario) -> anyhow::Result<ExitCode> {
    let outcome = lab::up(scenario, &*stop_flag()?)?;
    let mut lines = Vec::new();
    lines.extend(
        outcome
            .cleared
            .iter()
            .map(|name| format!("the fault {} was in place and has been cleared", printable(name.as_bytes()))),
    );
    lines.extend(outcome.replaced.map(|replaced| format!("the {replaced} lab was up and has been removed")));
    let repaired = outcome.repaired.iter().filter(|missing| outcome.was_there && !missing.comes_by_itself());
    lines.extend(repaired.map(|missing| format!("repaired: {missing}")));
    if outcome.was_there && outcome.repaired.is_empty() {
        lines.push(format!("the {scenario} lab was up already"));
    }
    let status = Status::of(lab::observe()?);
    lines.extend(status.lines());
    print(&lines)?;
    warn(&status.firewall);
    Ok(ExitCode::SUCCESS)
}

fn status(json: bool) -> anyhow::Result<ExitCode> {
    let status = Status::of(lab::observe()?);
    if json {
        print(&[serde_json::to_string(&status)?])?;
    } else {
        print(&status.lines())?;
        warn(&status.firewall);
    }
    Ok(if status.is_complete() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn down(scenario: Option<Scenario>) -> anyhow::Result<ExitCode> {
    // A signal in the middle would leave half a lab, and it is a matter of milliseconds.
    let _ignored = stop_flag()?;
    print(&[match lab::down(scenario)? {
        Removed::Lab(Some(scenario)) => format!("the {scenario} lab has been removed"),
        Removed::Lab(None) => "what was left of a lab has been removed".to_owned(),
        Removed::Nothing => "no lab was up".to_owned(),
        Removed::Another(other) => format!("nothing removed: the {other} lab is up"),
    }])?;
    Ok(ExitCode::SUCCESS)
}

fn traffic(args: &TrafficArgs) -> anyhow::Result<ExitCode> {
    let options = Options {
        count: args.count,
        size: args.size as usize,
        rate: args.rate,
        connections: args.connections,
        port: args.port,
        from: args.from.clone(),
        to: args.to.clone(),
        bind: args.bind,
        server: args.server,
    };
    let protocols: &[Protocol] = match args.proto {
        Protocols::Tcp => &[Protocol::Tcp],
        Protocols::Udp => &[Protocol::Udp],
        Protocols::Both => &[Protocol::Udp, Protocol::Tcp],
    };
    let stop = stop_flag()?;
    let path = traffic::path(&options)?;
    let mut clean = true;
    for protocol in protocols {
        if stop.load(std::sync::atomic::Ordering::Relaxed) {
            break;
        }
        let report = traffic::run(*protocol, &path, &options, &stop)?;
        clean &= report.is_clean();
        if args.json {
            print(&[serde_json::to_string(&report)?])?;
        } else {
            print(&report.lines())?;
        }
    }
    Ok(if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
