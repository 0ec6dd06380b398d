//! Hops whose module is loaded while a run goes on: they join it. A host without a bridge has no module `bridge`, and whoever traces
//! there wants to see the first bridge that somebody makes.
//!
//! What the module's types would tell was not known when the kernel side was loaded: the port behind `__br_forward` is not named.

use std::{
    fs::{self, File},
    path::Path,
};

use super::{live::Run, stop::Why};
use crate::{
    hops::{Hop, Plan},
    host::Symbols,
};

/// Hops that are still to come.
pub(super) struct Late {
    hops: Vec<&'static Hop>,
    /// Opened before capabilities are given up, so that addresses are seen in it.
    symbols: Option<File>,
}

impl Late {
    /// Those that the plan lacks for want of their modules.
    pub(super) fn of(plan: &Plan) -> Late {
        let hops: Vec<_> = plan.awaited().collect();
        let symbols = if hops.is_empty() { None } else { Symbols::file().ok() };
        Late { hops, symbols }
    }

    /// A module that was loaded meanwhile, once.
    fn next(&self) -> Option<&'static str> {
        let state = |module: &str| fs::read_to_string(Path::new("/sys/module").join(module).join("initstate"));
        let loaded = |module: &&str| state(module).is_ok_and(|state| state.trim() == "live");
        self.hops.iter().filter_map(|hop| hop.module).find(loaded)
    }

    /// Its hops, which are waited for no more.
    fn take(&mut self, module: &str) -> Vec<&'static Hop> {
        let (taken, left) = self.hops.iter().partition(|hop| hop.module == Some(module));
        self.hops = left;
        taken
    }
}

impl Run {
    /// Attaches the hops of modules that were loaded since, and says so.
    pub(super) fn join_late(&mut self) -> Result<(), Why> {
        while let Some(module) = self.late.next() {
            let mut hops = self.late.take(module);
            // Not every kernel has all that the catalogue knows of a module.
            let symbols = self.late.symbols.as_ref().and_then(|file| Symbols::read_from(file).ok());
            if let Some(symbols) = &symbols {
                hops.retain(|hop| symbols.has(hop.name()));
            }
            let attached = self.capture.attach_more(&hops, symbols.as_ref());
            if let Some(symbols) = symbols {
                self.names.symbols = Box::new(move |address| symbols.describe(address));
            }
            for line in self.capture.told() {
                self.notice(&line)?;
            }
            let said = match attached {
                Ok(refused) => {
                    let refused: Vec<String> =
                        refused.iter().map(|(hop, why)| format!("; {}: {why}", hop.name())).collect();
                    let count = hops.len() - refused.len();
                    let hops = if count == 1 { "hop is" } else { "hops are" };
                    format!("module {module} was loaded: its {count} {hops} traced from now on{}", refused.concat())
                }
                Err(error) => {
                    format!("module {module} was loaded, and its hops are not traced ({error}): start the run again")
                }
            };
            self.notice(&said)?;
        }
        Ok(())
    }
}
