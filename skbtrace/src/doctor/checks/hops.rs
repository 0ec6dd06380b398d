//! The hops that this kernel lacks, by the reason.

use super::{Facts, Row, State, ok, row};

/// So many names are told of each reason.
const SHOWN: usize = 4;

/// What becomes of the hops of the catalogue.
pub(super) fn hops(facts: &Facts) -> Vec<Row> {
    let name = "hops";
    let Some(hops) = &facts.hops else { return Vec::new() };
    let mut reasons: Vec<(&str, Vec<&str>)> = Vec::new();
    for (hop, reason) in &hops.left_out {
        match reasons.iter_mut().find(|(known, _)| known == reason) {
            Some((_, names)) => names.push(hop),
            None => reasons.push((reason, vec![hop])),
        }
    }
    let there = hops.all - hops.left_out.len();
    if there == 0 {
        let fix = "report it, with the kernel's release: skbtrace knows none of its functions";
        return vec![row(name, State::Broken, "none is in this kernel", fix)];
    }
    let mut rows = ok(name, format!("{there} of {}", hops.all));
    for (reason, names) in reasons {
        let more = names.len().saturating_sub(SHOWN);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let shown = names.get(..SHOWN).unwrap_or(&names).join(", ");
        let found = format!("left out: {shown}{more}: {reason}");
        // Of functions that took each other's place over the years, no kernel has all.
        let fix = match reason.strip_prefix("module ").and_then(|rest| rest.strip_suffix(" is not loaded")) {
            Some(module) => format!("modprobe {module}, if packets are to pass it: its hops are found from then on"),
            None => "none needed: `skbtrace hops` says which there are, and which hops a timeline lacks".to_owned(),
        };
        let state = if reason == "not in this kernel" { State::Ok } else { State::Note };
        let fix = (state != State::Ok).then_some(fix);
        rows.push(Row { name, state, found, fix });
    }
    rows
}
