//! `skbtrace lab fault prove`: whether this program finds the faults of the gallery on this kernel. A row per fault, expected
//! beside found, and at the end how many were found. A backend with fewer hops may be named: what is beyond it says why.

use std::{process::ExitCode, sync::atomic::Ordering};

use anyhow::Context as _;
use clap::Args;

use super::{print, stop_flag};
use crate::{
    cli::backend::BackendArgs,
    hops::Backend,
    host::Host,
    lab::{
        Scenario,
        fault::{
            self, Fault,
            prove::{By, Proof, prove, prove_clean},
        },
    },
    run,
};

#[derive(Debug, Args)]
pub(super) struct ProveArgs {
    /// Which faults, by name [default: all of them, some of them two at once, and none]
    names: Vec<String>,
    /// All of them at once, which must then all be found
    #[arg(long, requires = "names")]
    together: bool,
    #[command(flatten)]
    backend: BackendArgs,
    /// A JSON object per row in place of the table
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &ProveArgs) -> anyhow::Result<ExitCode> {
    let named: Result<Vec<_>, _> = args.names.iter().map(|name| fault::find(name)).collect();
    let named = named?;
    let rows: Vec<Vec<&'static Fault>> = match (named.is_empty(), args.together) {
        (true, _) => fault::all().map(|fault| vec![fault]).chain(fault::pairs()?).collect(),
        (false, true) => vec![named],
        (false, false) => named.into_iter().map(|fault| vec![fault]).collect(),
    };
    let program = std::env::current_exe().context("find this program")?;
    let stop = stop_flag()?;
    let (backend, why) = run::backend(args.backend.named(), &Host::look()?)?;
    if let Some(why) = why {
        eprintln!("{why}");
    }
    let by = By { program: &program, backend };
    let (mut found, mut tried, mut beyond) = (0, 0, 0);
    if args.names.is_empty() {
        // What is found where nothing is wrong makes every other row worthless.
        for scenario in [Scenario::Bridge, Scenario::Pair, Scenario::Loopback] {
            let proof = prove_clean(scenario, by, &stop)?;
            tried += 1;
            found += usize::from(proof.holds());
            say(&format!("no fault, {scenario}"), &["nothing".to_owned()], &proof, args.json)?;
        }
    }
    for faults in &rows {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let names: Vec<_> = faults.iter().map(|fault| fault.name).collect();
        tried += 1;
        match prove(faults, by, &stop) {
            Ok(proof) => {
                found += usize::from(proof.holds());
                beyond += usize::from(proof.holds() && proof.is_beyond());
                let expected: Vec<_> = faults.iter().map(|fault| expected(fault, backend)).collect();
                say(&names.join(" + "), &expected, &proof, args.json)?;
            }
            // The other rows can still be tried.
            Err(error) => print(&[format!("FAILED  {}: {error}", names.join(" + "))])?,
        }
    }
    crate::lab::down(None)?;
    if !args.json {
        let silent = match beyond {
            0 => String::new(),
            _ => format!("; {beyond} of them are beyond the {} backend, and say why", backend.name()),
        };
        print(&[format!("{found} of {tried} rows are as they should be{silent}")])?;
    }
    Ok(if found == tried { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn expected(fault: &Fault, backend: Backend) -> String {
    let verdict = fault.verdict;
    if let Some(reason) = verdict.beyond(backend) {
        return format!("nothing by {}s: {reason}", backend.name());
    }
    let cause = serde_json::to_value(verdict.cause).ok();
    let cause = cause.as_ref().and_then(|cause| cause.as_str()).unwrap_or_default();
    format!("{} {} at {} ({cause})", verdict.class.name(), verdict.span, verdict.device)
}

fn say(name: &str, expected: &[String], proof: &Proof, json: bool) -> anyhow::Result<()> {
    if json {
        return print(&[serde_json::to_string(proof)?]);
    }
    let word = match (proof.holds(), proof.is_beyond()) {
        (true, false) => "ok    ",
        (true, true) => "beyond",
        (false, _) => "FAILED",
    };
    let mut lines = vec![format!("{word}  {name}")];
    lines.extend(expected.iter().map(|line| format!("        expected  {line}")));
    lines.extend(proof.judgement.found.iter().map(|found| format!("        found     {}", found.line())));
    if !proof.holds() {
        lines.extend(proof.judgement.wrong.iter().map(|wrong| format!("        wrong     {wrong}")));
        lines.extend(proof.traffic.iter().map(|line| format!("        traffic   {line}")));
        lines.extend(proof.judgement.witnesses.iter().map(|line| format!("        witness   {line}")));
        if !proof.shown {
            lines.push("        wrong     the traffic did not show the fault".to_owned());
        }
    }
    let (intact, sent) = proof.clean;
    lines.push(format!("        beside    {intact} of {sent} clean datagrams arrived"));
    print(&lines)
}
