//! `skbtrace run`.

use std::{num::NonZeroU64, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context as _, Result};
use clap::ValueEnum;

use super::backend::BackendArgs;
use super::flow::FlowArgs;
use super::look::LookArgs;
use crate::filter::{CompileError, Expression, FilterError};
use crate::run::{self, Format, Options, RecordOptions, Why};
use crate::verdict::Class;

/// What to trace, and for how long.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Every packet whose path touches the interface is shown with its whole path, the hops before the interface too: its peer, \
the bridge, the bridge's other ports and their peers are watched in every netns. Filters decide on the first hop at which \
a packet is seen; once followed, it is followed to its end, whatever address translation makes of it.

A filter expression is one of tcpdump's: see pcap-filter(7). It is compiled by libpcap and decided in the kernel: what it does \
not want is never sent to this process. Quote it, for the shell has a use for parentheses, & and > too.

  skbtrace run --iface X 'tcp port 8000 and not host 78.78.0.12'
  skbtrace run --iface X arp or icmp                               words need no quotes
  skbtrace run --iface X 'tcp[tcpflags] & (tcp-syn|tcp-rst) != 0'  where connections begin and break
  skbtrace run --iface X 'udp and greater 1000' --count 5          long datagrams
  skbtrace run --iface X 'net 10.0.0.0/8 and not port 22' -- CMD   while CMD runs
  skbtrace run --iface X 'ether src 2e:92:f9:6a:0c:c6 or vlan 5'   asked from where the packet has its Ethernet header
  skbtrace run --iface X 'tcp[((tcp[12:1] & 0xf0) >> 2):4] = 0x47455420'   GET requests: the bytes are found wherever they lie

A packet's first 2,048 bytes can be looked at; an expression that looks further wants no packet. TCP's first two hops come before \
the headers are written: with an expression a segment is first seen behind them.

With -w the run is recorded as well: `skbtrace show FILE` prints the same again, and Wireshark opens the file as it is. \
It is readable by its owner only; under sudo that is whoever called it. With `-w -` the recording goes to standard output, \
the books to standard error, and no packets are printed.")]
pub struct Args {
    /// Interface to trace, by name, in whatever netns it is; NETNS/NAME where the name is not unique
    #[arg(short, long, value_name = "NAME")]
    iface: String,
    /// Look for the interface in this netns only: a name, `init`, pid:N, or a path
    #[arg(long, value_name = "NETNS")]
    netns: Option<String>,
    #[command(flatten)]
    backend: BackendArgs,
    /// Stop after this many packets
    #[arg(short = 'n', long, value_name = "N")]
    count: Option<NonZeroU64>,
    /// Stop after this time: seconds, or with a unit (500ms, 10s, 2m)
    #[arg(short, long, value_name = "TIME", value_parser = duration)]
    timeout: Option<Duration>,
    #[command(flatten)]
    flow: FlowArgs,
    #[command(flatten)]
    look: LookArgs,
    /// Record the run in this pcapng file; `-` is standard output
    #[arg(short, long, value_name = "FILE")]
    write: Option<PathBuf>,
    /// Record this many bytes of each packet at each hop, from 0 to 2048
    #[arg(long, value_name = "BYTES", default_value = "128", value_parser = clap::value_parser!(u16).range(0..=2048))]
    snaplen: u16,
    /// Begin a new file, FILE with .0001, .0002, ... before its extension, whenever one exceeds this size (64K, 100M, 1G)
    #[arg(long, value_name = "SIZE", requires = "write", value_parser = rotate_size)]
    rotate: Option<u64>,
    /// Replace the recording if it exists
    #[arg(long, requires = "write")]
    force: bool,
    /// Do not look at payloads: a garbled packet is not found then, and each hop costs less
    #[arg(long, conflicts_with = "payload")]
    no_verify: bool,
    /// A wait of this long is a finding, in a device's queue and elsewhere [default: 50ms in a queue, 100ms elsewhere]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    slow: Option<Duration>,
    /// Exit with status 3 if there was such a packet
    #[arg(long, value_name = "KIND", value_delimiter = ',')]
    fail_on: Vec<Kind>,
    /// Space for events on their way to user space: a power of two, with K or M
    #[arg(long, value_name = "SIZE", default_value = "8M", value_parser = ring_size)]
    ring_size: u32,
    /// Only packets that this pcap-filter(7) expression wants
    #[arg(value_name = "EXPRESSION")]
    expression: Vec<String>,
    /// Run this command, and stop when it ends; its output goes to standard error
    #[arg(last = true, value_name = "CMD")]
    command: Vec<String>,
}

/// Room for the headers before a payload: Ethernet, two VLAN tags, the longest of IPv4 and of TCP, and something over.
const HEADERS: u16 = 160;

/// A kind of packet that a check must not find.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Its payload changed on the way
    Garbled,
    /// The kernel dropped it, or it was dropped in effect
    Dropped,
    /// It was held up where packets wait
    Delayed,
    /// It was sent twice
    Duplicated,
    /// It was overtaken by others of its flow
    Reordered,
    /// Any finding
    Any,
    /// A part of its path was not seen, or events were lost
    Incomplete,
}

/// Runs it.
pub fn run(args: Args) -> Result<ExitCode> {
    let fail_on = args.fail_on.clone();
    let expression = match Expression::compile(&args.expression.join(" ")) {
        Err(error @ FilterError::Compile(CompileError::Refused(_))) => {
            eprintln!("skbtrace: {error}");
            return Ok(ExitCode::from(2));
        }
        expression => expression?,
    };
    let options = resolve(args, expression)?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the runtime")?;
    let report = runtime.block_on(run::run(&options))?;
    if let Why::Failed(error) = &report.ended.why {
        anyhow::bail!("{error}");
    }
    if let Why::OutputClosed = report.ended.why {
        eprintln!("skbtrace: nobody reads the output any more: stopped after {} packets", report.summary.packets);
        return Ok(ExitCode::SUCCESS);
    }
    if report.ended.stopped_command
        && let Why::TimedOut = report.ended.why
    {
        eprintln!("skbtrace: the time was over before the command ended: it was stopped");
    }
    let summary = &report.summary;
    let has = |class| report.found.contains(&class);
    let found = fail_on.iter().any(|kind| match kind {
        Kind::Garbled => summary.garbled > 0,
        Kind::Dropped => summary.dropped > 0 || has(Class::Dropped),
        Kind::Delayed => has(Class::Delayed),
        Kind::Duplicated => has(Class::Duplicated),
        Kind::Reordered => has(Class::Reordered),
        Kind::Any => !report.found.is_empty(),
        Kind::Incomplete => !summary.every_packet_complete(),
    });
    if found {
        return Ok(ExitCode::from(3));
    }
    if let Some(status) = report.failed_command() {
        eprintln!("skbtrace: the command failed: {status}");
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

/// From what was typed to what it means.
fn resolve(args: Args, expression: Option<Expression>) -> Result<Options> {
    let mut filter = args.flow.filter();
    filter.verify = u16::from(!args.no_verify);
    let look = args.look.resolve();
    let for_payload = look.payload.map_or(0, |payload| payload + HEADERS);
    let snaplen = args.snaplen.max(for_payload);
    filter.snaplen = if args.write.is_some() { snaplen } else { for_payload };
    let record = args.write.map(|path| RecordOptions { path, rotate: args.rotate, force: args.force });
    let is_json = look.format != Format::Text;
    if record.as_ref().is_some_and(|record| record.to_stdout() && (record.rotate.is_some() || is_json)) {
        anyhow::bail!("a recording on standard output is all that goes there: leave out --rotate and --json");
    }
    Ok(Options {
        iface: args.iface,
        netns: args.netns,
        count: args.count,
        timeout: args.timeout,
        backend: args.backend.named(),
        filter,
        expression,
        slow: args.slow,
        ring_size: args.ring_size,
        look,
        snaplen,
        record,
        command: args.command,
    })
}

fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" | "s" => 1.0,
        "ms" => 0.001,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        other => return Err(format!("unknown unit {other:?}: use ms, s, m or h")),
    };
    let number: f64 = digits.parse().map_err(|_| "not a number: try 10, 500ms or 2m".to_owned())?;
    let duration = Duration::try_from_secs_f64(number * unit).map_err(|error| error.to_string())?;
    if duration.is_zero() { Err("must be longer than nothing".to_owned()) } else { Ok(duration) }
}

fn ring_size(text: &str) -> Result<u32, String> {
    let size = u32::try_from(size(text)?).unwrap_or(u32::MAX);
    // The kernel wants whole pages, and pages are 4 to 64 KiB.
    if !size.is_power_of_two() || !(65_536..=1 << 30).contains(&size) {
        return Err("must be a power of two from 64K to 1024M".to_owned());
    }
    Ok(size)
}

fn rotate_size(text: &str) -> Result<u64, String> {
    // A file must have room for more than its beginning.
    match size(text)? {
        size if size < 1 << 16 => Err("must be at least 64K".to_owned()),
        size => Ok(size),
    }
}

/// Bytes, with K, M or G.
fn size(text: &str) -> Result<u64, String> {
    let (digits, unit) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (&text[..text.len() - 1], 1 << 10),
        Some(b'm' | b'M') => (&text[..text.len() - 1], 1 << 20),
        Some(b'g' | b'G') => (&text[..text.len() - 1], 1 << 30),
        _ => (text, 1),
    };
    let number: u64 = digits.parse().map_err(|_| "not a size: try 64K or 8M".to_owned())?;
    Ok(number.saturating_mul(unit))
}

#[cfg(test)]
mod tests {
    use super::{duration, ring_size, rotate_size};
    use std::time::Duration;

    #[test]
    fn times_have_units() {
        assert_eq!(duration("10"), Ok(Duration::from_secs(10)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1.5m"), Ok(Duration::from_secs(90)));
        for wrong in ["", "s", "-1", "0", "10 parsecs", "nan", "1e400"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn ring_sizes_are_powers_of_two_of_whole_pages() {
        assert_eq!(ring_size("64K"), Ok(65_536));
        assert_eq!(ring_size("8m"), Ok(8 << 20));
        assert_eq!(ring_size("1048576"), Ok(1 << 20));
        for wrong in ["", "K", "3M", "4K", "2048M", "-1", "99999999999999999999M"] {
            assert!(ring_size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn files_have_room_for_more_than_their_beginning() {
        assert_eq!(rotate_size("64K"), Ok(65_536));
        assert_eq!(rotate_size("3g"), Ok(3 << 30));
        for wrong in ["", "63K", "K", "-1", "1T"] {
            assert!(rotate_size(wrong).is_err(), "{wrong}");
        }
    }
}
