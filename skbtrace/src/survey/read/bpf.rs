//! BPF programs by their id: what they are called. The kernel is asked once, when the first program turns up.

use std::collections::HashMap;

use crate::name::printable;

/// The loaded programs.
#[derive(Default)]
pub(super) struct Programs {
    names: Option<HashMap<u32, String>>,
    unnamed: bool,
}

impl Programs {
    /// `invert (id 12)`, safe to print.
    pub(super) fn describe(&mut self, id: u32) -> String {
        let names = self.names.get_or_insert_with(|| {
            let loaded = aya::programs::loaded_programs().filter_map(Result::ok);
            loaded.map(|program| (program.id(), printable(program.name()))).collect()
        });
        match names.get(&id) {
            Some(name) if !name.is_empty() => format!("{name} (id {id})"),
            Some(_) => format!("id {id}"),
            None => {
                self.unnamed = true;
                format!("id {id}")
            }
        }
    }

    /// What to say of programs that were not found.
    pub(super) fn unseen(&self) -> Option<String> {
        self.unnamed.then(|| "the names of some BPF programs: listing programs needs CAP_SYS_ADMIN, run as root".into())
    }
}
