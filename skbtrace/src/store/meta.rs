//! What a recording holds beside events: all that the live run's output depended on. Each is a JSON object in a
//! block of its own, so that a person can read it too.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use skbtrace_common::{DeviceKey, Event, HopId};

use crate::name::still_printable;
use crate::render::Names;
use crate::survey::Survey;
use crate::trace::{HopBooks, Losses, Reasons, StitchOptions};

/// Version of the format. It rises when [`Event`] changes, or anything here in a way that an older reader would get
/// wrong. Hops travel by name, so that new ones change nothing.
pub const FORMAT: u32 = 3;

// Whoever changes the layout of an event raises FORMAT.
const _: () = assert!(size_of::<Event>() == 248 && FORMAT == 3);

/// Everything but events.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Record {
    /// The first of a file.
    Start(Box<Start>),
    /// The names from here on.
    Names(NameTable),
    /// The kernel's code at an address that the next event bears.
    Symbol {
        /// The address.
        address: u64,
        /// The function and the offset in it.
        name: String,
    },
    /// The stitcher was told the time and the losses.
    Tick {
        /// CLOCK_MONOTONIC, nanoseconds.
        now_ns: u64,
        /// Since the beginning of the run.
        losses: Losses,
        /// There were events that had not been read: of no packet was it known that nothing had come for it.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        is_behind: bool,
    },
    /// Said to the person at the run.
    Notice {
        /// What.
        text: String,
    },
    /// What there is on the host that can do something to packets, as far as findings asked for it.
    Survey(Box<Survey>),
    /// The file was full: the recording goes on in the next one.
    Next {
        /// Number of the next part.
        part: u32,
    },
    /// The last of a recording.
    End(Box<End>),
}

/// The beginning of a file: with it, each part of a recording can be read by itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Start {
    /// [`FORMAT`] of the file.
    pub version: u32,
    /// Version of skbtrace that wrote it.
    pub tool: String,
    /// Names the recording: the same in all of its parts.
    pub recording: String,
    /// Number of this part, from 1.
    pub part: u32,
    /// Release of the traced kernel.
    pub kernel: String,
    /// Its machine, as `uname -m` has it.
    pub machine: String,
    /// Wall clock less CLOCK_MONOTONIC, nanoseconds: packets bear the sum.
    pub clock_offset_ns: i64,
    /// Bytes kept of each packet.
    pub snaplen: u16,
    /// Lines before the first packet.
    pub preface: Vec<String>,
    /// netns and ifindex of the device of interest.
    pub target: Option<(u32, u32)>,
    /// See [`StitchOptions::max_open`].
    pub max_open: usize,
    /// See [`StitchOptions::idle_ns`].
    pub idle_ns: u64,
    /// See [`StitchOptions::tcp_ends_unseen`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tcp_ends_unseen: bool,
    /// See [`StitchOptions::tcp_code`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tcp_code: Vec<(u64, u64)>,
    /// Waits that are too long, nanoseconds, where somebody said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slow_ns: Option<u64>,
    /// Drop reasons of the traced kernel, with their prefixes.
    pub reasons: BTreeMap<u32, String>,
    /// Names of the hops, by the numbers that they have in this file.
    pub hops: Vec<String>,
    /// Names at this time.
    pub names: NameTable,
    /// Code that events of earlier parts named.
    pub symbols: BTreeMap<u64, String>,
    /// What was lost in earlier parts.
    pub losses: Losses,
    /// How many packets were reported in earlier parts.
    pub packets: u64,
    /// How many packets were under way when the part before ended.
    pub under_way: usize,
}

/// How a recording ended.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct End {
    /// When: CLOCK_MONOTONIC, nanoseconds.
    pub now_ns: u64,
    /// All that was lost.
    pub losses: Losses,
    /// Whether the packets under way were reported at the end; they are not when a number of packets was asked for.
    pub finished: bool,
    /// Whether what ended it was a failure.
    pub failed: bool,
    /// What ended it, in words.
    pub why: String,
    /// Events in the recording, all parts together.
    pub events: u64,
    /// Packets that the run reported.
    pub packets: u64,
    /// The books of every hop.
    #[serde(default)]
    pub hops: Vec<HopBooks>,
}

impl Record {
    /// The same with all its texts safe to print, whoever wrote the file.
    pub(super) fn made_safe(mut self) -> Record {
        match &mut self {
            Record::Start(start) => start.make_safe(),
            Record::Names(names) => names.make_safe(),
            Record::Symbol { name: text, .. } | Record::Notice { text } => make_safe([text]),
            Record::End(end) => {
                let End { why, hops, .. } = &mut **end;
                make_safe(hops.iter_mut().map(|hop| &mut hop.hop).chain([why]));
            }
            Record::Survey(survey) => {
                let Survey { facts, unseen } = &mut **survey;
                let texts = facts.iter_mut().flat_map(|fact| fact.undo.iter_mut().chain([&mut fact.what]));
                make_safe(texts.chain(unseen));
            }
            Record::Tick { .. } | Record::Next { .. } => {}
        }
        self
    }
}

/// Makes texts of a file safe to print. Those that skbtrace has written are, and stay as they are.
fn make_safe<'a>(texts: impl IntoIterator<Item = &'a mut String>) {
    for text in texts {
        *text = still_printable(text);
    }
}

/// Names of namespaces, and which device is a port of which bridge. Safe to print.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameTable {
    /// Labels of namespaces by their numbers.
    pub netns: BTreeMap<u32, String>,
    /// Names of bridges, by the netns and the ifindex of their ports.
    pub bridges: BTreeMap<u32, BTreeMap<u32, String>>,
}

impl NameTable {
    fn make_safe(&mut self) {
        make_safe(self.netns.values_mut().chain(self.bridges.values_mut().flat_map(BTreeMap::values_mut)));
    }

    /// What a namespace is called, in the words of a live run.
    #[must_use]
    pub fn netns(&self, inum: u32) -> String {
        self.netns.get(&inum).cloned().unwrap_or_else(|| format!("net:[{inum}]"))
    }
}

/// The names of a recorded run. Safe to print, as all that a reader of recordings hands out.
#[derive(Clone, Debug, Default)]
pub struct RecordedNames {
    /// Namespaces and bridges.
    pub table: NameTable,
    /// Drop reasons.
    pub reasons: Reasons,
    /// Places in the kernel.
    pub symbols: BTreeMap<u64, String>,
}

impl Names for RecordedNames {
    fn netns(&self, inum: u32) -> String {
        self.table.netns(inum)
    }

    fn bridge_of(&self, device: DeviceKey) -> Option<String> {
        self.table.bridges.get(&device.netns)?.get(&device.ifindex).cloned()
    }

    fn reason(&self, reason: u32) -> Option<String> {
        self.reasons.name(reason).map(str::to_owned)
    }

    fn symbol(&self, address: u64) -> Option<String> {
        self.symbols.get(&address).cloned()
    }
}

impl Start {
    /// Of a run with these options; the rest is for the caller to fill in.
    #[must_use]
    pub fn of(options: &StitchOptions) -> Start {
        Start {
            version: FORMAT,
            tool: env!("CARGO_PKG_VERSION").to_owned(),
            part: 1,
            target: options.target.map(|target| (target.netns, target.ifindex)),
            max_open: options.max_open,
            idle_ns: options.idle_ns,
            tcp_ends_unseen: options.tcp_ends_unseen,
            tcp_code: options.tcp_code.clone(),
            hops: HopId::ALL.iter().map(|hop| hop.name().to_owned()).collect(),
            ..Start::default()
        }
    }

    /// The options of the stitcher of that run.
    #[must_use]
    pub fn stitch_options(&self) -> StitchOptions {
        StitchOptions {
            target: self.target.map(|(netns, ifindex)| DeviceKey { netns, ifindex }),
            reasons: self.drop_reasons(),
            max_open: self.max_open,
            idle_ns: self.idle_ns,
            tcp_ends_unseen: self.tcp_ends_unseen,
            tcp_code: self.tcp_code.clone(),
            // What is shown of a recording, the reader decides.
            payload: 0,
        }
    }

    /// The names at the beginning of the file.
    #[must_use]
    pub fn recorded_names(&self) -> RecordedNames {
        RecordedNames { table: self.names.clone(), reasons: self.drop_reasons(), symbols: self.symbols.clone() }
    }

    fn make_safe(&mut self) {
        let Start { tool, recording, kernel, machine, preface, reasons, hops, names, symbols, .. } = self;
        make_safe([tool, recording, kernel, machine]);
        make_safe(preface.iter_mut().chain(hops).chain(reasons.values_mut()).chain(symbols.values_mut()));
        names.make_safe();
    }

    fn drop_reasons(&self) -> Reasons {
        Reasons::new(self.reasons.iter().map(|(number, name)| (*number, name.clone())))
    }
}
