//! `skbtrace doctor`: whether a run can work on this machine, and what it would lack.

use std::{io, process::ExitCode};

use anyhow::Result;

use super::segment::SegmentArgs;
use crate::{
    doctor::{Facts, Report, Target},
    render::doctor,
    run::wants_colour,
};

/// What to look at.
#[derive(Debug, clap::Args)]
#[command(mut_arg("iface", |iface| {
    iface.help("Of the network look only at the segment of this interface, in whatever netns it is")
}))]
#[command(after_help = "\
Looks at everything that a run rests on, and says of each thing how it stands:

  ok       as it should be
  note     worth knowing: something is left out, or stands in the way of packets on purpose
  warning  a run works and shows less than it could; or packets are likely to suffer
  broken   `skbtrace run` cannot work here

Below each line but those that are ok stands what to do about it. First come what decides whether there can be a trace (kernel, \
privileges, types, kprobes), what a trace would show (structures, hops), and who else traces; then the network: namespaces that \
are not seen, MTUs that differ, XDP and tc programs, sockets that copy packets. Nothing is changed by looking.

Root sees most. It need not be root that traces: the first lines say which capabilities do, and what is lost without each.

Examples:
  sudo skbtrace doctor                     the whole machine
  sudo skbtrace doctor --iface calmveth1   of the network only what packets of calmveth1 pass
  skbtrace doctor --json | jq -r '.checks[] | select(.state != \"ok\") | .name + \": \" + .found'

Exit status: 0 a run works here, 1 it does not, 2 wrong usage.")]
pub struct Args {
    #[command(flatten)]
    segment: SegmentArgs,
    /// Print one JSON object (schema: skbtrace/schema/doctor.schema.json)
    #[arg(long)]
    json: bool,
}

/// Looks and prints.
pub fn run(args: &Args) -> Result<ExitCode> {
    let SegmentArgs { iface, netns } = &args.segment;
    let target = iface.as_deref().map(|iface| Target { iface, netns: netns.as_deref() });
    let report = Report::of(&Facts::read(target));
    let mut out = io::stdout();
    let written =
        if args.json { doctor::json(&mut out, &report) } else { doctor::text(&mut out, &report, wants_colour()) };
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error.into()),
        _ => {}
    }
    Ok(if report.works() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
