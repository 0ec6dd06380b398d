//! What `skbtrace lab status` says, from what was observed.

use std::fmt::Write as _;

use serde::Serialize;

use super::{
    DEVICES, Device, End, Missing, NAMESPACES, Observed, Place, Scenario,
    fault::mark,
    firewall::{self, Report},
    missing, scenario,
    state::{at, paired},
};
use crate::name::printable;

/// The state of the lab.
#[derive(Debug, Serialize)]
pub struct Status {
    /// Which scenario is up, whole or in part.
    pub scenario: Option<Scenario>,
    /// What it lacks.
    #[serde(serialize_with = "as_text")]
    pub missing: Vec<Missing>,
    /// The faults that are in place.
    pub faults: Vec<String>,
    /// What was seen under the lab's names.
    pub observed: Observed,
    /// The firewall, when the scenario has a bridge.
    pub firewall: Report,
}

fn as_text<S: serde::Serializer>(missing: &[Missing], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(missing.iter().map(ToString::to_string))
}

impl Status {
    /// Judges what was observed; reads the firewall when it matters.
    #[must_use]
    pub fn of(observed: Observed) -> Self {
        let scenario = scenario(&observed);
        let layout = scenario.map(Scenario::layout);
        let missing = layout.map(|layout| missing(layout, &observed)).unwrap_or_default();
        let firewall = layout.and_then(|layout| layout.bridge).map(firewall::check).unwrap_or_default();
        let faults = mark::in_place(&observed).into_iter().map(|fault| fault.name).collect();
        Self { scenario, missing, faults, observed, firewall }
    }

    /// Whether a scenario is up and lacks nothing.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.scenario.is_some() && self.missing.is_empty()
    }

    /// The lines to show: the scenario, a line per device, what is missing. Without the warnings.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let Some(scenario) = self.scenario else {
            return vec![if self.observed.is_empty() {
                "no lab is up: build one with `skbtrace lab up`".to_owned()
            } else {
                "no lab is up, and there are leftovers of one: remove them with `skbtrace lab down`".to_owned()
            }];
        };
        let state = if self.missing.is_empty() { "is up" } else { "is incomplete: repair it with `skbtrace lab up`" };
        let mut lines = vec![format!("the {scenario} lab {state}")];
        let devices = self.observed.ours().map(|(place, device)| self.device(place, device));
        lines.extend(devices);
        lines.extend(self.missing.iter().map(|missing| format!("missing: {missing}")));
        lines.extend(self.faults.iter().map(|fault| {
            let fault = printable(fault.as_bytes());
            format!("fault in place: {fault}; `skbtrace lab fault clear` takes it back")
        }));
        lines
    }

    fn device(&self, place: Place, device: &Device) -> String {
        let width = |names: &[&str]| names.iter().map(|name| name.len()).max().unwrap_or(0);
        let (places, names) = (width(&NAMESPACES), width(&DEVICES));
        let name = printable(device.name.as_bytes());
        let mut line = format!("  {:places$}  {name:names$}", place.unwrap_or("here"));
        if let Some(peer) = self.peer(place, device) {
            let _ = write!(line, "  ═ {peer}");
        }
        let bridge = device.master.and_then(|index| self.observed.here.iter().find(|bridge| bridge.index == index));
        if let Some(bridge) = bridge {
            let state = device.port_state.as_deref().unwrap_or("state unknown");
            let _ = write!(line, "  port of {}, {state}", printable(bridge.name.as_bytes()));
        }
        for (address, prefix) in &device.addresses {
            let _ = write!(line, "  {address}/{prefix}");
        }
        if device.default_route {
            line.push_str("  default route");
        }
        let link = if device.up { device.operstate.as_str() } else { "set down" };
        let _ = write!(line, "  {link}");
        line
    }

    /// The other end of a veth, when it is the one that the scenario wants.
    fn peer(&self, place: Place, device: &Device) -> Option<String> {
        let is_this = |end: &End| end.place == place && end.device == device.name;
        let pair = self.scenario?.layout().pairs.iter().find(|pair| pair.iter().any(is_this))?;
        let other = pair.iter().find(|end| !is_this(end))?;
        paired(pair, &self.observed).then(|| at(other.place, other.device))
    }
}
