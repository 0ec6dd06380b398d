//! The payload of a packet along its path: the same at every hop, or changed between two of them.
//!
//! Two neighbouring digests of the same range are compared as they are. Where packets were appended to another, by GRO or in
//! a socket, its digest is that of all of them together; where one was cut, the parts' digests add up to its own. What
//! cannot be compared, because something between was not seen, is left open. Inside a tunnel a packet's payload is another,
//! tunnel headers included: each is compared with its own.

use skbtrace_common::{Digest, HopId};

use super::digest::{Place, is_whole, locate, sum};
use crate::trace::{Outcome, Packet, Step};

/// What is known of a packet's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload {
    /// It has none, or nothing can be said of it.
    Unverified,
    /// It was the same wherever it was looked at.
    Same {
        /// At so many hops, all branches together.
        hops: u32,
    },
    /// It changed.
    Garbled(Changes),
}

/// So many changes of one packet are told besides the first.
const MORE: usize = 3;

/// Where it changed: mostly in one place, in more where more than one writes to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Changes {
    first: Change,
    more: [Option<Change>; MORE],
}

impl Changes {
    fn new(first: Change) -> Changes {
        Changes { first, more: [None; MORE] }
    }

    /// Adds one, unless it is what is known already, seen from further off: from outside a tunnel, what changed inside.
    fn add(&mut self, change: Change) {
        if self.all().any(|known| change.encloses(known)) {
            return;
        }
        if let Some(free) = self.more.iter_mut().find(|more| more.is_none()) {
            *free = Some(change);
        }
    }

    /// The first of them.
    #[must_use]
    pub fn first(&self) -> &Change {
        &self.first
    }

    /// All but the first, in the order in which they were found.
    pub fn more(&self) -> impl Iterator<Item = &Change> {
        self.more.iter().flatten()
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &Change> {
        std::iter::once(&self.first).chain(self.more())
    }
}

/// A hop of a packet, or of one of its branches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Site {
    /// Id of the packet or branch.
    pub packet: u64,
    /// The hop.
    pub hop: HopId,
    /// Number of the step.
    pub step: u32,
}

/// Where it changed, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// The last hop at which it was as before.
    pub before: Site,
    /// The first hop at which it was not.
    pub after: Site,
    /// Where in the payload; `None` where only the sum of several packets can be compared.
    pub place: Option<Place>,
}

impl Change {
    /// Whether another change lies between the two hops of this one.
    fn encloses(&self, other: &Change) -> bool {
        // A branch begins behind every hop that its packet had by then.
        let begins = other.before.packet == self.before.packet && other.before.step >= self.before.step
            || other.before.packet == self.after.packet && self.before.packet != self.after.packet;
        begins && other.after.packet == self.after.packet && other.after.step <= self.after.step
    }
}

/// What is known so far.
struct Found {
    hops: u32,
    /// Something could not be compared.
    open: bool,
    changes: Option<Changes>,
}

/// Compares the payload of a packet and its branches along their paths.
#[must_use]
pub fn payload(packet: &Packet) -> Payload {
    let mut found = Found { hops: 0, open: false, changes: None };
    walk(packet, Bases::default(), &mut found);
    match found {
        Found { changes: Some(changes), .. } => Payload::Garbled(changes),
        Found { hops: 2.., open: false, .. } => Payload::Same { hops: found.hops },
        _ => Payload::Unverified,
    }
}

/// The digest to compare with, and where it was made.
#[derive(Clone, Copy)]
struct Base<'a> {
    site: Site,
    layer: i8,
    digest: &'a Digest,
}

impl<'a> Base<'a> {
    fn of(packet: &Packet, step: &'a Step) -> Base<'a> {
        let site = Site { packet: packet.id, hop: step.hop, step: step.event.step };
        Base { site, layer: step.layer, digest: &step.digest }
    }
}

/// Tunnels inside one another that are told apart.
const LAYERS: i8 = 4;

/// The last digest of each layer, and the last of all.
#[derive(Clone, Copy, Default)]
struct Bases<'a> {
    layers: [Option<Base<'a>>; LAYERS as usize],
    last: Option<Base<'a>>,
}

impl<'a> Bases<'a> {
    /// Takes a newer one, and gives the one before it in its layer.
    fn replace(&mut self, base: Base<'a>) -> Option<Base<'a>> {
        self.last = Some(base);
        // A packet that was first seen inside a tunnel has come out of it at -1.
        let at = usize::from(base.layer.rem_euclid(LAYERS).unsigned_abs());
        self.layers[at].replace(base).filter(|before| before.layer == base.layer)
    }
}

fn walk<'a>(packet: &'a Packet, inherited: Bases<'a>, found: &mut Found) {
    found.open |= matches!(packet.outcome, Outcome::Incomplete { .. });
    let mut bases = inherited;
    for (index, step) in packet.steps.iter().enumerate() {
        if step.missing > 0 || step.is_nested() {
            // What was not seen may have changed it: nothing is said across the gap, nor across the two beside a step around which
            // hops were skipped.
            found.open |= bases.last.is_some();
            bases = Bases::default();
        }
        if is_whole(&step.digest) && is_comparable(step) && !step.is_nested() {
            let here = Base::of(packet, step);
            if let Some(base) = bases.replace(here) {
                compare(packet, base, here, found);
            }
            found.hops += 1;
        }
        if !packet.was_cut() {
            let branches = packet.branches.iter().filter(|branch| branch.after == index);
            branches.for_each(|branch| walk(&branch.packet, bases, found));
        }
    }
    if packet.was_cut() {
        // Where it went on itself, that has been done where it did.
        if let Some(base) = bases.last.filter(|base| !goes_on(packet, base)) {
            cut(packet, base, None, found);
        }
        packet.branches.iter().for_each(|branch| walk(&branch.packet, Bases::default(), found));
    }
}

/// Whether the digest is one of the first part as which a packet that was cut went on.
fn goes_on(packet: &Packet, base: &Base<'_>) -> bool {
    let whole = packet.steps.iter().filter(|step| is_whole(&step.digest)).map(|step| step.digest.bytes).max();
    base.site.packet == packet.id && whole.is_some_and(|whole| base.digest.bytes < whole)
}

/// Whether nothing but a fault changes the payload on its way: routers and NAT rewrite what an ICMP error quotes.
fn is_comparable(step: &Step) -> bool {
    let kind = (step.event.sport >> 8) as u8;
    match step.event.l4_proto {
        1 => matches!(kind, 0 | 8),
        58 => matches!(kind, 128 | 129),
        _ => true,
    }
}

fn compare(packet: &Packet, before: Base<'_>, after: Base<'_>, found: &mut Found) {
    let (old, new) = (before.digest, after.digest);
    let place = if (old.start, old.bytes) == (new.start, new.bytes) {
        locate(old, new).map(Some)
    } else if new.bytes > old.bytes {
        // Others were appended to it, or it completes a datagram that came in fragments.
        let parts = packet.parts.iter().filter_map(|part| part.digest.as_ref());
        let pieces: Vec<&Digest> = std::iter::once(old).chain(parts).collect();
        let Some(expected) = tile(&pieces, new) else {
            found.open = true;
            return;
        };
        (expected != sum(new)).then_some(None)
    } else if packet.was_cut() {
        // It goes on as the first of its own parts.
        return cut(packet, before, Some(after), found);
    } else {
        found.open = true;
        return;
    };
    note(found, before, after, place);
}

fn note(found: &mut Found, before: Base<'_>, after: Base<'_>, place: Option<Option<Place>>) {
    let Some(place) = place else { return };
    let change = Change { before: before.site, after: after.site, place };
    match &mut found.changes {
        Some(changes) => changes.add(change),
        none => *none = Some(Changes::new(change)),
    }
}

/// The sum of the pieces that make up the range of `whole`, one behind the other; `None` when they leave a gap. What is in
/// another piece already is not wanted again: the first of several that begin at a place is taken.
fn tile(pieces: &[&Digest], whole: &Digest) -> Option<u64> {
    let (mut bytes, mut total) = (0, 0_u64);
    while bytes < whole.bytes {
        let at = whole.start.wrapping_add(bytes);
        let piece = pieces.iter().find(|piece| piece.start == at && is_whole(piece))?;
        bytes = bytes.checked_add(piece.bytes)?;
        total = total.wrapping_add(sum(piece));
    }
    (bytes == whole.bytes).then_some(total)
}

/// Compares a packet that was cut with its parts, as each was first seen; `own` is what it went on as itself.
fn cut(packet: &Packet, base: Base<'_>, own: Option<Base<'_>>, found: &mut Found) {
    let branches = packet.branches.iter().filter_map(|branch| first(&branch.packet, base.layer));
    let parts: Vec<Base<'_>> = own.into_iter().chain(branches).collect();
    let pieces: Vec<&Digest> = parts.iter().map(|part| part.digest).collect();
    match (tile(&pieces, base.digest), parts.last()) {
        (Some(total), Some(last)) => note(found, base, *last, (total != sum(base.digest)).then_some(None)),
        _ => found.open = true,
    }
}

fn first(packet: &Packet, layer: i8) -> Option<Base<'_>> {
    let step = packet.steps.iter().find(|step| is_whole(&step.digest) && step.layer == layer)?;
    (step.missing == 0 && !step.is_nested()).then(|| Base::of(packet, step))
}

#[cfg(test)]
mod tests;
