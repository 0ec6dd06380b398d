//! One self-contained page of a whole recording.

use serde_json::Value;

use super::gather::Gather;
use super::html::html;
pub use super::model::About;
use super::model::{Data, Finding, Packet as PacketData};
use super::{Interest, interest};
use crate::render::Names;
use crate::render::finding::lines;
use crate::render::json::{books, finding_of};
use crate::trace::{Packet, Summary};
use crate::verdict::{Explained, Payload};

/// Gathers a recording for a page.
#[derive(Debug)]
pub struct Page {
    about: About,
    begun: bool,
    gather: Gather,
    packets: Vec<PacketData>,
    /// Packets to whom nothing happened, at most.
    most: usize,
    well: usize,
    left_out: u64,
    begin_ns: Option<u64>,
    notices: Vec<String>,
    findings: Vec<Finding>,
    books: Option<Value>,
}

impl Page {
    /// Of at most so many packets to whom nothing happened, and as many to whom something did.
    #[must_use]
    pub fn new(most: usize) -> Page {
        Page {
            about: About::default(),
            begun: false,
            gather: Gather::default(),
            packets: Vec::new(),
            most,
            well: 0,
            left_out: 0,
            begin_ns: None,
            notices: Vec::new(),
            findings: Vec::new(),
            books: None,
        }
    }

    /// What was recorded, before its first packet.
    pub fn begin(&mut self, about: About) {
        self.gather.target = about.target;
        self.about = about;
        self.begun = true;
    }

    /// Something that was said to the person at the run.
    pub fn notice(&mut self, text: &str) {
        self.notices.push(text.to_owned());
    }

    /// A packet; one without a number is not for display, and passed over.
    pub fn packet(&mut self, packet: &Packet, payload: &Payload, names: &dyn Names) {
        let Some(number) = packet.number else { return };
        let is_well = interest(packet, payload) == Interest::Well;
        let like_it = if is_well { self.well } else { self.packets.len() - self.well };
        if like_it >= self.most {
            self.left_out += 1;
            return;
        }
        self.well += usize::from(is_well);
        // A packet is reported when it ends: a later one may have begun before.
        let begin_ns = *self.begin_ns.get_or_insert_with(|| packet.first_ns());
        self.packets.push(self.gather.packet((number, begin_ns), packet, payload, names));
    }

    /// What was found.
    pub fn findings(&mut self, findings: &[Explained], names: &dyn Names) {
        self.findings = findings
            .iter()
            .map(|explained| {
                let (headline, lines) = lines(explained, names);
                Finding { finding: finding_of(explained, names), headline, lines }
            })
            .collect();
    }

    /// The books.
    pub fn summary(&mut self, summary: &Summary, names: &dyn Names) {
        // What does not fit into JSON is missing from the page; there is no such thing in the books.
        self.books = serde_json::to_value(books(summary, &[], names)).ok();
    }

    /// Whether there was a recording at all.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.begun
    }

    /// How many packets are in it, and how many are not.
    #[must_use]
    pub fn counts(&self) -> (usize, u64) {
        (self.packets.len(), self.left_out)
    }

    /// The page. `damage` is what is wrong with the recording, where something is.
    ///
    /// # Errors
    /// When the data cannot be written as JSON, which would be a defect.
    pub fn finish(self, damage: Option<&str>) -> serde_json::Result<String> {
        Ok(html(&self.data(damage)?))
    }

    /// The data of the page, as JSON.
    pub(super) fn data(&self, damage: Option<&str>) -> serde_json::Result<String> {
        let since = self.begin_ns.map(|begin_ns| {
            let wall_ns = i128::from(begin_ns) + i128::from(self.about.clock_offset_ns);
            let (s, ns) = (wall_ns.div_euclid(1_000_000_000), wall_ns.rem_euclid(1_000_000_000));
            (i64::try_from(s).unwrap_or(0), i64::try_from(ns).unwrap_or(0))
        });
        serde_json::to_string(&Data {
            about: &self.about,
            since,
            damage,
            notices: &self.notices,
            left_out: self.left_out,
            books: self.books.as_ref(),
            findings: &self.findings,
            netns: self.gather.netns.iter().map(String::as_str).collect(),
            devices: self.gather.devices.iter().collect(),
            links: self.gather.links.all(),
            hops: self.gather.hops(),
            shapes: self.gather.shapes.all(),
            packets: &self.packets,
        })
    }
}
