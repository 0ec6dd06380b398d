//! The data in a page, as JSON. Tables hold what packets share, and numbers in packets are places in those tables: a packet of
//! thirty hops takes some 400 bytes.
//!
//! It is made for the scripts of the page and changes with them: for programs there is `show --json`. Where the two say the
//! same thing they say it by the same code.

use serde::Serialize;
use serde_json::Value;

use crate::trace::Queue;

/// All of it.
#[derive(Debug, Serialize)]
pub(super) struct Data<'a> {
    pub(super) about: &'a About,
    /// Wall clock of the first packet: seconds, and nanoseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) since: Option<(i64, i64)>,
    /// What is wrong with the recording.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) damage: Option<&'a str>,
    /// What was said to the person at the run.
    pub(super) notices: &'a [String],
    /// Packets that are not in the page, because it would be too large.
    pub(super) left_out: u64,
    /// The last line of `show --json`, less its findings; `None` where the recording breaks off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) books: Option<&'a Value>,
    pub(super) findings: &'a [Finding],
    pub(super) netns: Vec<&'a str>,
    pub(super) devices: Vec<&'a Device>,
    pub(super) links: Vec<Link>,
    pub(super) hops: Vec<Hop>,
    pub(super) shapes: &'a [Shape],
    pub(super) packets: &'a [Packet],
}

/// What was recorded, and where. Safe to print.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct About {
    /// What the recording is called.
    pub file: String,
    /// Version of skbtrace that recorded.
    pub tool: String,
    /// Release of the traced kernel.
    pub kernel: String,
    /// Its machine.
    pub machine: String,
    /// The lines before the first packet.
    pub preface: Vec<String>,
    /// Wall clock less CLOCK_MONOTONIC, nanoseconds.
    #[serde(skip)]
    pub clock_offset_ns: i64,
    /// netns and ifindex of the device of interest.
    #[serde(skip)]
    pub target: Option<(u32, u32)>,
    /// Number of the packet that is open at first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub open: Option<u64>,
}

/// A finding: what programs get, and what people read.
#[derive(Debug, Serialize)]
pub(super) struct Finding {
    #[serde(flatten)]
    pub(super) finding: crate::render::json::Finding,
    pub(super) headline: String,
    /// What each line is, and what it says.
    pub(super) lines: Vec<(&'static str, String)>,
}

/// A device, under one of its names.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub(super) struct Device {
    pub(super) name: String,
    pub(super) netns: usize,
    pub(super) ifindex: u32,
    /// The bridge that it is a port of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) bridge: Option<String>,
    /// It is the one that was traced.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) target: bool,
}

/// Packets pass from one device to another.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Link {
    pub(super) from: usize,
    pub(super) to: usize,
    /// They are the ends of one pair: what is sent into one comes out of the other.
    pub(super) pair: bool,
    pub(super) packets: u64,
}

/// A hop of the catalogue.
#[derive(Debug, Serialize)]
pub(super) struct Hop {
    pub(super) name: &'static str,
    pub(super) teaches: &'static str,
    /// The `sk_buff` is freed there.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) end: bool,
}

/// All of a step but its time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub(super) struct Shape {
    pub(super) hop: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) dev: Option<usize>,
    /// The device that it hands the packet to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) to: Option<usize>,
    /// `skb->len`.
    pub(super) len: u32,
    /// The hook of netfilter, or the bridge.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) within: Option<String>,
    /// The queue in which the time before it was spent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) waited: Option<Queue>,
    /// What else is to be said of it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) says: Vec<String>,
    /// Events lost before it.
    #[serde(skip_serializing_if = "is_none")]
    pub(super) lost: u32,
}

/// A packet.
#[derive(Debug, Serialize)]
pub(super) struct Packet {
    /// Its number.
    pub(super) n: u64,
    /// When it began, nanoseconds after the first packet.
    pub(super) at: i64,
    /// How long it took.
    pub(super) took: u64,
    /// Its addresses, and what it is.
    pub(super) is: String,
    /// How many hops saw the same payload.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) same: Option<u32>,
    /// The changes of its payload.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) changed: Option<Changed>,
    #[serde(flatten)]
    pub(super) life: Life,
}

/// One `sk_buff` of a packet: the first, or a branch.
#[derive(Debug, Serialize)]
pub(super) struct Life {
    /// `show --json` has the same word.
    pub(super) verdict: &'static str,
    /// How it ended.
    pub(super) ended: String,
    /// The same at more length, where there is more to say.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) words: String,
    /// Places of the steps at which its payload had changed, each with the number of the change.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) garbled: Vec<(usize, usize)>,
    /// Of each step its shape, and nanoseconds since the one before; of the first of a branch since the one that it left at.
    pub(super) steps: Vec<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) branches: Vec<Branch>,
}

/// A clone, a copy or a part.
#[derive(Debug, Serialize)]
pub(super) struct Branch {
    /// Place of the step at which it left.
    pub(super) after: usize,
    #[serde(flatten)]
    pub(super) life: Life,
}

/// That a payload changed: mostly in one place.
#[derive(Debug, Serialize)]
pub(super) struct Changed {
    /// `GARBLED between … and …`.
    pub(super) says: String,
    /// Each of the changes.
    pub(super) all: Vec<Change>,
}

/// Where a payload changed, and how.
#[derive(Debug, Serialize)]
pub(super) struct Change {
    /// The last hop that saw it as it was, and the first that did not.
    pub(super) from: usize,
    pub(super) to: usize,
    /// `payload changed: 1 byte differs, …`.
    pub(super) place: String,
    /// Where the bytes below begin in the payload.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) offset: Option<u32>,
    /// In hexadecimal digits.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) before: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) after: String,
    /// Why there are none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) why: String,
}

fn is_none(count: &u32) -> bool {
    *count == 0
}
