//! What the output is to look like: flags that mean the same wherever packets are printed.

use clap::ValueEnum;

use crate::render::MAX_PAYLOAD;
use crate::run::{Format, Look, wants_colour};

/// Flags of every command that prints packets.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(super) struct LookArgs {
    /// Print one JSON object per packet, and one for the summary
    #[arg(long)]
    json: bool,
    /// With --json: one object per hop of each packet instead
    #[arg(long, requires = "json")]
    events: bool,
    /// Say, below the first sight of each hop, what the kernel does there
    #[arg(long, conflicts_with = "json")]
    explain: bool,
    /// Show of each hop only what changed with it: length, device, mark, VLAN, TTL, addresses (NAT) and more. With --json:
    /// beside the rest, as `changed`
    #[arg(long)]
    diff: bool,
    /// Of a garbled packet show the bytes of its payload before and after the change, 16 a line, if they are among this many
    /// first ones (1 to 1500; 256 when no number is given). Bytes are copied at each hop for that, page frags included: of
    /// a recording only those can be shown that it has, so give it to `run -w` as well
    #[arg(long, value_name = "BYTES", num_args = 0..=1, require_equals = true, default_missing_value = "256",
        conflicts_with = "events", value_parser = clap::value_parser!(u16).range(1..=MAX_PAYLOAD))]
    payload: Option<u16>,
    /// Print the books only, no packets
    #[arg(short, long)]
    quiet: bool,
    /// When to use colours
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    color: Colour,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Colour {
    /// On a terminal, unless NO_COLOR is set
    Auto,
    Always,
    Never,
}

impl LookArgs {
    /// What was asked for.
    pub(super) fn resolve(&self) -> Look {
        let format = match (self.json, self.events) {
            (true, true) => Format::JsonEvents,
            (true, false) => Format::Json,
            (false, _) => Format::Text,
        };
        let LookArgs { explain, diff, quiet, payload, .. } = *self;
        Look { format, colour: self.color.wanted(), explain, diff, quiet, payload }
    }
}

impl Colour {
    /// Whether standard output gets colours.
    fn wanted(self) -> bool {
        match self {
            Colour::Always => true,
            Colour::Never => false,
            Colour::Auto => wants_colour(),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::LookArgs;
    use crate::run::{Format, Look};

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        look: LookArgs,
    }

    fn look(args: &str) -> Option<Look> {
        let args = std::iter::once("x").chain(args.split_whitespace());
        Command::try_parse_from(args).ok().map(|command| command.look.resolve())
    }

    #[test]
    fn flags_say_what_the_output_looks_like() {
        let text =
            Look { format: Format::Text, colour: false, explain: false, diff: false, quiet: false, payload: None };
        assert_eq!(look("--color never"), Some(text));
        assert_eq!(look("--color always --explain"), Some(Look { colour: true, explain: true, ..text }));
        assert_eq!(look("--color never --diff"), Some(Look { diff: true, ..text }));
        assert_eq!(look("--color never -q --json"), Some(Look { format: Format::Json, quiet: true, ..text }));
        assert_eq!(look("--color never --json --events"), Some(Look { format: Format::JsonEvents, ..text }));
        let payload = |bytes| Some(Look { payload: Some(bytes), ..text });
        assert_eq!(look("--color never --payload"), payload(256));
        assert_eq!(look("--color never --payload=1500"), payload(1500));
        let wrong = ["--payload=0", "--payload=1501", "--payload 99", "--json --events --payload"];
        for wrong in ["--events", "--json --explain", "--color pink"].into_iter().chain(wrong) {
            assert_eq!(look(wrong), None, "{wrong}");
        }
    }
}
