//! `skbtrace survey`: what on this host can do something to packets, without tracing any.

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
    process::ExitCode,
};

use anyhow::Result;
use serde::Serialize;

use super::segment::SegmentArgs;
use crate::{
    survey::{Effects, Fact, Survey},
    topology::Topology,
};

/// Which segment to look at.
#[derive(Debug, clap::Args)]
#[command(mut_arg("iface", |iface| {
    iface.help("Interface whose segment to look at, in whatever netns it is; without it, everything on this host")
}))]
#[command(after_help = "\
Lists all that can change, drop, delay, duplicate or reorder a packet on its way through the interface: tc filters and BPF \
programs, XDP, queueing disciplines, rules of nftables, iptables and ebtables, bridges and their ports, MTUs, offloads, routes and \
reverse path filters, neighbours, sockets with full buffers. It looks at the interface, its peer, the bridge, the bridge's other \
ports and their peers, each in its netns.

That something can drop a packet does not mean that it does: most firewalls are there on purpose. Which of these met a packet \
is what `skbtrace run` tells. Below each line stands the command that takes the thing away, where there is one; think before \
you run it.

Nothing is changed by looking, and no kernel module is loaded. What could not be looked at is said at the end.

Examples:
  skbtrace survey --iface calmveth1
  skbtrace survey --iface eth0 --netns web --json | jq -r '.facts[] | select(.effects.drop) | .what'")]
pub struct Args {
    #[command(flatten)]
    segment: SegmentArgs,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// A fact with the names of where it is.
#[derive(Serialize)]
struct Named<'a> {
    /// The namespace's name.
    netns_name: String,
    /// The device's name, with its namespace where that is not the initial one.
    device: Option<String>,
    #[serde(flatten)]
    fact: &'a Fact,
}

#[derive(Serialize)]
struct Json<'a> {
    facts: Vec<Named<'a>>,
    unseen: &'a [String],
}

/// Reads and prints it.
pub fn run(args: Args) -> Result<ExitCode> {
    let topology = Topology::read()?;
    let SegmentArgs { iface, netns } = &args.segment;
    let survey = match iface {
        Some(name) => {
            let link = topology.find(name, netns.as_deref())?;
            Survey::read(&topology, &topology.segment(link.key))
        }
        None => Survey::read_all(&topology),
    };
    let text = if args.json { json(&topology, &survey)? } else { text(&topology, &survey) };
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(ExitCode::SUCCESS),
    }
}

fn json(topology: &Topology, survey: &Survey) -> Result<String> {
    let facts = survey.facts.iter().map(|fact| Named {
        netns_name: topology.netns_label(fact.netns),
        device: fact.device().map(|key| topology.label(key)),
        fact,
    });
    let all = Json { facts: facts.collect(), unseen: &survey.unseen };
    Ok(serde_json::to_string(&all)? + "\n")
}

fn text(topology: &Topology, survey: &Survey) -> String {
    let mut places: BTreeMap<(u32, Option<u32>), Vec<&Fact>> = BTreeMap::new();
    for fact in &survey.facts {
        // What belongs to the whole namespace comes behind its devices.
        places.entry((fact.netns, fact.ifindex.or(Some(u32::MAX)))).or_default().push(fact);
    }
    let mut text = String::new();
    for facts in places.values() {
        let Some(first) = facts.first() else { continue };
        match first.device() {
            Some(device) => text += &topology.label(device),
            None => text += &format!("network namespace {}", topology.netns_label(first.netns)),
        }
        text.push('\n');
        for fact in facts {
            text += &format!("  {}\n    {}\n", fact.what, can(fact.effects));
            if let Some(undo) = &fact.undo {
                text += &format!("    undo: {undo}\n");
            }
        }
    }
    if survey.facts.is_empty() {
        text += "Nothing was found that can change, drop, delay, duplicate or reorder packets.\n";
    }
    for sentence in &survey.unseen {
        text += &format!("Not looked at: {sentence}\n");
    }
    text
}

/// `can drop and delay packets`.
fn can(effects: Effects) -> String {
    let all = [
        (effects.garble, "change the payload of"),
        (effects.drop, "drop"),
        (effects.delay, "delay"),
        (effects.duplicate, "duplicate"),
        (effects.reorder, "reorder"),
        (effects.rewrite, "rewrite headers of"),
    ];
    let words: Vec<&str> = all.into_iter().filter(|(can, _)| *can).map(|(_, word)| word).collect();
    match words.as_slice() {
        [] => "does nothing to packets".to_owned(),
        [one] => format!("can {one} packets"),
        [first @ .., last] => format!("can {} and {last} packets", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::can;
    use crate::survey::Effects;

    #[test]
    fn effects_are_said_in_words() {
        assert_eq!(can(Effects::default()), "does nothing to packets");
        assert_eq!(can(Effects { drop: true, ..Effects::default() }), "can drop packets");
        let three = Effects { garble: true, drop: true, rewrite: true, ..Effects::default() };
        assert_eq!(can(three), "can change the payload of, drop and rewrite headers of packets");
    }
}
