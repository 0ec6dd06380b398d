//! `skbtrace lab fault`: the gallery of faults.

use std::process::ExitCode;

use clap::Subcommand;

use super::{
    print,
    prove::{self, ProveArgs},
    stop_flag,
};
use crate::{
    lab::fault::{self, Cleared, Fault, Injected, Step, placed},
    name::printable,
};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List the faults: what each does, and what a tracer must say of it
    List {
        /// As a JSON array, with the commands of each fault, its traffic and its verdict
        #[arg(long)]
        json: bool,
    },
    /// Put a fault into the lab that is up
    Inject {
        /// Its name
        name: String,
        /// Beside a fault that is in place
        #[arg(long)]
        also: bool,
    },
    /// Send the traffic that shows a fault; exit status 1 when its effect is not seen
    Show {
        /// Its name [default: the fault that is in place]
        name: Option<String>,
        /// As one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Take back every fault that is in place, and say what was undone
    Clear,
    /// Put faults in place one by one, trace each with clean traffic beside it, and compare what is found with what must be
    ///
    /// Exit status 1 when one is not found as its row expects, or when anything else is blamed. Builds the lab that each
    /// needs, and removes it in the end.
    Prove(ProveArgs),
}

pub(super) fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::List { json } => list(json),
        Command::Inject { name, also } => inject(fault::find(&name)?, also),
        Command::Show { name, json } => show(name.as_deref(), json),
        Command::Clear => clear(),
        Command::Prove(args) => prove::run(&args),
    }
}

fn list(json: bool) -> anyhow::Result<ExitCode> {
    if json {
        print(&[serde_json::to_string_pretty(&fault::all().collect::<Vec<_>>())?])?;
        return Ok(ExitCode::SUCCESS);
    }
    let width = fault::all().map(|fault| fault.name.len()).max().unwrap_or(0);
    let row = |fault: &'static Fault| {
        let (class, verdict) = (fault.verdict.class.name(), fault.verdict);
        let place = verdict.place.map_or_else(String::new, |name| format!("{name}/"));
        let beyond = verdict.beyond_tracepoints.map(|reason| format!("beyond tracepoints: {reason}"));
        let mut lines = vec![
            format!("{:width$}  {class:10}  {:8}  {}", fault.name, fault.scenario.name(), fault.teaches),
            format!(
                "{:width$}  {:10}  {:8}  expect: {class} {} at {place}{}: {}",
                "", "", "", verdict.span, verdict.device, verdict.because
            ),
        ];
        lines.extend(beyond.map(|beyond| format!("{:width$}  {:10}  {:8}  {beyond}", "", "", "")));
        lines
    };
    print(&fault::all().flat_map(row).collect::<Vec<_>>())?;
    Ok(ExitCode::SUCCESS)
}

fn inject(fault: &'static Fault, also: bool) -> anyhow::Result<ExitCode> {
    let name = fault.name;
    let mut lines = match fault::inject(fault, also, &*stop_flag()?)? {
        Injected::Before => vec![format!("{name} is in place already")],
        Injected::Now if fault.steps.is_empty() => {
            vec![format!("{name} is in place: nothing is changed, its traffic is what is at fault")]
        }
        Injected::Now => {
            let done =
                |step: &Step| Some(step.does(name)).filter(|does| !does.is_empty()).map(|does| placed(step, &does));
            let mut lines = vec![format!("{name} is in place")];
            lines.extend(fault.steps.iter().filter_map(done).map(|command| format!("  {command}")));
            lines
        }
    };
    lines.push(fault.teaches.to_owned());
    let iface = fault.iface();
    lines.push(format!("trace it: skbtrace run --iface {iface} -- skbtrace lab fault show {name}"));
    lines.push("take it back: skbtrace lab fault clear".to_owned());
    print(&lines)?;
    Ok(ExitCode::SUCCESS)
}

fn show(name: Option<&str>, json: bool) -> anyhow::Result<ExitCode> {
    let fault = match name {
        Some(name) => fault::find(name)?,
        None => match fault::in_place()?.1.as_slice() {
            [one] => fault::find(&one.name)?,
            faults => return Err(fault::Error::WhichOne(faults.len()).into()),
        },
    };
    let seen = fault::show::run(fault, &*stop_flag()?)?;
    let mut lines = seen.lines.clone();
    if json {
        lines = vec![serde_json::to_string(&seen)?];
    } else {
        lines.push(format!("the effect of {} was {}", fault.name, if seen.effect { "seen" } else { "not seen" }));
    }
    print(&lines)?;
    Ok(if seen.effect { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn clear() -> anyhow::Result<ExitCode> {
    // A signal in the middle would leave half a fault, and it is a matter of moments.
    let _ignored = stop_flag()?;
    let cleared = fault::clear()?;
    let mut lines = Vec::new();
    for Cleared { name, commands } in &cleared {
        lines.push(format!("{} has been taken back", printable(name.as_bytes())));
        lines.extend(commands.iter().map(|command| format!("  {command}")));
    }
    if cleared.is_empty() {
        lines.push("no fault was in place".to_owned());
    }
    print(&lines)?;
    Ok(ExitCode::SUCCESS)
}
