//! The bytes of a payload before and after a change: lines of 16 around the first difference, and why there are none where
//! there are none.

use std::fmt::Write as _;

use skbtrace_common::HopId;

use crate::trace::{Packet, Step};
use crate::verdict::{Change, Place, Site};

/// At most so many bytes of a payload can be asked for: a packet of the usual size.
pub const MAX_PAYLOAD: i64 = 1500;

/// Bytes in a line.
const LINE: usize = 16;
/// Lines before and after the one with the first difference.
const AROUND: usize = 4;

/// Both sides of a change.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Sides<'a> {
    /// The bytes around the first difference.
    Differ(Excerpt<'a>),
    /// So many first bytes of the payload are known of both, and the same.
    Same(usize),
    /// No bytes were copied at this hop.
    NotCopied(HopId),
    /// They are not the same part of the stream.
    Apart,
}

/// Whole lines of both sides, or what there is of the last.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Excerpt<'a> {
    /// Where they begin in the payload.
    pub(crate) offset: u32,
    pub(crate) before: &'a [u8],
    pub(crate) after: &'a [u8],
}

/// What is known of both sides.
pub(super) fn sides<'a>(packet: &'a Packet, change: &Change) -> Sides<'a> {
    let Some(((old, before), (new, after))) = at(packet, &change.before).zip(at(packet, &change.after)) else {
        return Sides::Apart;
    };
    if (old.digest.start, old.digest.bytes) != (new.digest.start, new.digest.bytes) {
        return Sides::Apart;
    }
    let (Some(before), Some(after)) = (before, after) else {
        return Sides::NotCopied(if before.is_none() { old.hop } else { new.hop });
    };
    let common = before.len().min(after.len()).min(old.digest.bytes as usize);
    let (before, after) = (&before[..common], &after[..common]);
    let Some(first) = before.iter().zip(after).position(|(old, new)| old != new) else {
        return Sides::Same(common);
    };
    let from = (first / LINE).saturating_sub(AROUND) * LINE;
    let to = ((first / LINE + AROUND + 1) * LINE).min(common);
    Sides::Differ(Excerpt {
        offset: u32::try_from(from).unwrap_or(u32::MAX),
        before: &before[from..to],
        after: &after[from..to],
    })
}

/// The step at a site, and the first bytes of the payload there.
fn at<'a>(packet: &'a Packet, site: &Site) -> Option<(&'a Step, Option<&'a [u8]>)> {
    packet.tree().filter(|packet| packet.id == site.packet).find_map(|packet| {
        let step = packet.steps.iter().find(|step| step.event.step == site.step && step.hop == site.hop)?;
        let kept = packet.payloads.iter().rev().find(|kept| kept.step <= site.step);
        Some((step, kept.map(|kept| &kept.bytes[..]).filter(|bytes| !bytes.is_empty())))
    })
}

/// Both sides around the first difference, or why they cannot be shown and what to do about it. `wanted` is how many bytes were
/// asked for.
pub(crate) fn excerpt<'a>(packet: &'a Packet, change: &Change, wanted: u16) -> Result<Excerpt<'a>, String> {
    Err(match sides(packet, change) {
        Sides::Differ(excerpt) => return Ok(excerpt),
        Sides::Apart => "what is compared was cut or put together in between, and has no bytes side by side".to_owned(),
        Sides::NotCopied(HopId::TcpTransmitSkb) => {
            "none are copied where TCP begins: the packet has no headers there yet".to_owned()
        }
        Sides::NotCopied(hop) => format!("none were copied at {}; `run --payload` does, recorded or not", hop.name()),
        Sides::Same(copied) => {
            let needed = match change.place {
                Some(Place::Byte { offset, .. }) => i64::from(offset) + 1,
                Some(Place::Range { to, .. }) => i64::from(to),
                None => MAX_PAYLOAD,
            };
            let how = if copied >= MAX_PAYLOAD as usize {
                "more are never copied".to_owned()
            } else {
                let needed = needed.max(copied as i64 + 1).min(MAX_PAYLOAD);
                // Of a recording that was cut short there, no more can be shown.
                let run = if copied < usize::from(wanted) { "run " } else { "" };
                format!("`{run}--payload={needed}` goes further")
            };
            format!("the first {copied} are the same at both hops, and the change is behind them; {how}")
        }
    })
}

/// Writes both sides, for people. `wanted` is how many bytes were asked for; `paint` marks a byte that differs.
pub(super) fn write(text: &mut String, packet: &Packet, change: &Change, wanted: u16, paint: &dyn Fn(&str) -> String) {
    match excerpt(packet, change, wanted) {
        Ok(excerpt) => {
            let (old, new) = (change.before.hop.name(), change.after.hop.name());
            let _ = writeln!(text, "    bytes of the payload at {old} (-) and at {new} (+):");
            lines(text, &excerpt, paint);
        }
        Err(why) => drop(writeln!(text, "    bytes of the payload: {why}")),
    }
}

/// A line where both are the same, and three where they are not.
fn lines(text: &mut String, excerpt: &Excerpt<'_>, paint: &dyn Fn(&str) -> String) {
    for (number, (old, new)) in excerpt.before.chunks(LINE).zip(excerpt.after.chunks(LINE)).enumerate() {
        let offset = excerpt.offset as usize + number * LINE;
        if old == new {
            line(text, ' ', offset, old, old, paint);
            continue;
        }
        line(text, '-', offset, old, new, paint);
        line(text, '+', offset, new, old, paint);
        let marks: String = old.iter().zip(new).map(|(old, new)| if old == new { "   " } else { "^^ " }).collect();
        let _ = writeln!(text, "    {:9}{}", "", marks.trim_end());
    }
}

fn line(text: &mut String, mark: char, offset: usize, bytes: &[u8], other: &[u8], paint: &dyn Fn(&str) -> String) {
    let _ = write!(text, "    {mark} {offset:>5}  ");
    for (byte, other) in bytes.iter().zip(other) {
        let digits = format!("{byte:02x}");
        let _ = write!(text, "{} ", if byte == other { digits } else { paint(&digits) });
    }
    let room = (LINE - bytes.len()) * 3;
    let letters: String =
        bytes.iter().map(|byte| if matches!(byte, b' '..=b'~') { char::from(*byte) } else { '.' }).collect();
    let _ = writeln!(text, "{:room$} {letters}", "");
}

/// Bytes in hexadecimal digits.
pub(crate) fn digits(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut digits, byte| {
        let _ = write!(digits, "{byte:02x}");
        digits
    })
}
