//! Packets → the data of a page: as they are reported, one after another, so that no packet is kept beside its data.

use skbtrace_common::{DeviceKey, HopId};

use super::links::Links;
use super::model::{self, Branch, Change, Changed, Device, Life, Shape};
use super::table::Table;
use crate::hops::{Role, hop};
use crate::render::headline::{headline, last_words, status};
use crate::render::hex::{digits, excerpt};
use crate::render::payload::{garbled, mark};
use crate::render::row::{Place, device_name, row, wait, within};
use crate::render::{MAX_PAYLOAD, Names, json};
use crate::trace::{Packet, Step};
use crate::verdict::{self, Changes, Payload};

/// A device by its place and its name at that time.
type DeviceName = (DeviceKey, [u8; 16]);

/// The tables that packets share.
#[derive(Debug, Default)]
pub(super) struct Gather {
    /// The device of interest.
    pub(super) target: Option<(u32, u32)>,
    inums: Table<u32>,
    /// Names of namespaces, as they are called when first seen.
    pub(super) netns: Vec<String>,
    known: Table<DeviceName>,
    /// In the order of `known`.
    pub(super) devices: Vec<Device>,
    hops: Table<HopId>,
    pub(super) shapes: Table<Shape>,
    pub(super) links: Links,
}

impl Gather {
    /// The data of a packet that has this number. `begin_ns` is the time of the first
    /// packet.
    pub(super) fn packet(
        &mut self,
        (number, begin_ns): (u64, u64),
        packet: &Packet,
        payload: &Payload,
        names: &dyn Names,
    ) -> model::Packet {
        let changes = if let Payload::Garbled(changes) = payload { Some(changes) } else { None };
        let life = self.life(packet, None, changes, names);
        self.links.note(&self.known, packet);
        model::Packet {
            n: number,
            at: packet.first_ns().wrapping_sub(begin_ns).cast_signed(),
            took: packet.total_ns(),
            is: headline(packet),
            same: if let Payload::Same { hops } = payload { Some(*hops) } else { None },
            changed: changes.map(|changes| self.changed(packet, changes)),
            life,
        }
    }

    /// The hops that were seen, by their numbers.
    pub(super) fn hops(&self) -> Vec<model::Hop> {
        let row = |id: &HopId| hop(*id);
        let hops = self.hops.all().iter().map(row);
        hops.map(|hop| model::Hop { name: hop.name(), teaches: hop.teaches, end: hop.role == Role::End }).collect()
    }

    /// A packet or a branch. `source` is the step that it was cloned at.
    fn life(&mut self, packet: &Packet, source: Option<&Step>, changes: Option<&Changes>, names: &dyn Names) -> Life {
        let mut at = Place::after(source);
        let mut before = None;
        let mut steps = Vec::with_capacity(packet.steps.len() * 2);
        for (index, step) in packet.steps.iter().enumerate() {
            let says = if step.role() == Role::End {
                Vec::new()
            } else {
                remarks(before.or(source), (packet, index), &mut at, names)
            };
            let shape = self.shape(step, says, names);
            let left = || source.map_or(0, |source| step.event.time_ns.saturating_sub(source.event.time_ns));
            let since_ns = before.map_or_else(left, |_| step.delta_ns);
            steps.extend([self.shapes.place(shape) as u64, since_ns]);
            before = Some(step);
        }
        let branches = packet.branches.iter().map(|branch| {
            let source = packet.steps.get(branch.after).or(packet.steps.last());
            Branch { after: branch.after, life: self.life(&branch.packet, source, changes, names) }
        });
        let branches = branches.collect();
        let (ended, words) = (status(packet, names), last_words(packet, names));
        let place = |change: &verdict::Change| {
            let is_it = |step: &Step| change.after.step == step.event.step && change.after.hop == step.hop;
            packet.steps.iter().position(is_it).filter(|_| change.after.packet == packet.id)
        };
        let numbered = changes.into_iter().flat_map(Changes::all).enumerate();
        Life {
            verdict: json::status(packet.verdict()),
            garbled: numbered.filter_map(|(number, change)| Some((place(change)?, number))).collect(),
            words: if words == ended { String::new() } else { words },
            ended,
            steps,
            branches,
        }
    }

    fn shape(&mut self, step: &Step, says: Vec<String>, names: &dyn Names) -> Shape {
        Shape {
            hop: self.hops.place(step.hop),
            dev: step.device().map(|key| self.device(key, &step.event.dev, names)),
            to: step.second_device().map(|key| self.device(key, &step.event.dev2, names)),
            len: step.event.len,
            within: within(step, names),
            waited: step.waited,
            says,
            lost: step.missing,
        }
    }

    fn device(&mut self, key: DeviceKey, name: &[u8; 16], names: &dyn Names) -> usize {
        let place = self.known.place((key, *name));
        if place == self.devices.len() {
            let netns = self.inums.place(key.netns);
            if netns == self.netns.len() {
                self.netns.push(names.netns(key.netns));
            }
            self.devices.push(Device {
                name: device_name(name, key.ifindex),
                netns,
                ifindex: key.ifindex,
                bridge: names.bridge_of(key),
                target: self.target == Some((key.netns, key.ifindex)),
            });
        }
        place
    }

    fn changed(&mut self, packet: &Packet, changes: &Changes) -> Changed {
        Changed { says: garbled(changes), all: changes.all().map(|change| self.change(packet, change)).collect() }
    }

    fn change(&mut self, packet: &Packet, change: &verdict::Change) -> Change {
        let place = mark(change);
        let mut data = Change {
            from: self.hops.place(change.before.hop),
            to: self.hops.place(change.after.hop),
            place: place.trim_start_matches("◀ ").to_owned(),
            offset: None,
            before: String::new(),
            after: String::new(),
            why: String::new(),
        };
        match excerpt(packet, change, u16::try_from(MAX_PAYLOAD).unwrap_or(u16::MAX)) {
            Ok(bytes) => {
                data.offset = Some(bytes.offset);
                (data.before, data.after) = (digits(bytes.before), digits(bytes.after));
            }
            Err(why) => data.why = why,
        }
        data
    }
}

/// What the text says of a step, but for its wait: that has its own place, and would make every step another one.
fn remarks(before: Option<&Step>, (packet, index): (&Packet, usize), at: &mut Place, names: &dyn Names) -> Vec<String> {
    let step = &packet.steps[index];
    let mut says = row(before, step, None, at, names).remarks;
    if let Some(wait) = wait(step) {
        says.retain(|remark| *remark != wait);
    }
    says.extend(
        packet.netfilter_accepted(index).map(|accepted| if accepted { "accepted" } else { "dropped" }.to_owned()),
    );
    says
}
