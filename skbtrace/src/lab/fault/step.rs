//! The steps that put a fault in place, and how each is taken back.
//!
//! Each step is one change that happens whole or not at all, by the system's own commands where it has one. Taking
//! back what is not there is no error, so undoing is right after a whole fault, after half of one, and twice.

use std::{fmt, fs, fs::File, process::Command, thread};

use serde::{Serialize, Serializer, ser::SerializeStruct};

use super::{
    command::{self, Error, modprobe, run_line, run_words, with_module},
    program::{self, Program},
};
use crate::lab::{
    Place,
    netns::{self, Found},
};

/// One change. Commands are words between spaces; nothing in them is quoted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A command, and the command that takes it back.
    Run {
        /// The namespace in which both run.
        place: Place,
        /// The command.
        run: &'static str,
        /// The command that takes it back.
        undo: &'static str,
        /// The kernel module that it needs, where that is no matter of course.
        module: Option<&'static str>,
    },
    /// A table of nftables of the fault's own, with one chain and one rule.
    Rule {
        /// The namespace.
        place: Place,
        /// Family: `bridge`, `inet`, `netdev`.
        family: &'static str,
        /// Type, hook and priority of the chain.
        hook: &'static str,
        /// The rule.
        rule: &'static str,
        /// The kernel module that it needs.
        module: &'static str,
    },
    /// A setting under /proc/sys; what was there before is put back.
    Setting {
        /// The namespace.
        place: Place,
        /// Its path under /proc/sys.
        name: &'static str,
        /// The value.
        value: &'static str,
    },
    /// A BPF program, which the command attaches by the name [`program::PIN`].
    Program {
        /// The namespace.
        place: Place,
        /// Which.
        program: Program,
        /// The command that attaches it.
        run: &'static str,
        /// The command that takes it away.
        undo: &'static str,
    },
    /// The module br_netfilter, silent but for bridges that are told to use it. It is unloaded again if it was not there.
    BridgeNetfilter,
    /// Nothing; taking it back removes the table that the commands of iptables and ebtables leave behind, empty, if it
    /// was not there.
    Table {
        /// Family.
        family: &'static str,
    },
}

/// The settings of br_netfilter that are on from its first moment.
const BRIDGE_SETTINGS: [&str; 3] = [
    "net/bridge/bridge-nf-call-iptables",
    "net/bridge/bridge-nf-call-ip6tables",
    "net/bridge/bridge-nf-call-arptables",
];

impl Step {
    /// Where it happens.
    #[must_use]
    pub const fn place(&self) -> Place {
        match self {
            Self::Run { place, .. }
            | Self::Rule { place, .. }
            | Self::Setting { place, .. }
            | Self::Program { place, .. } => *place,
            Self::BridgeNetfilter | Self::Table { .. } => None,
        }
    }

    /// The command that does it, for the reader.
    #[must_use]
    pub fn does(&self, fault: &str) -> String {
        match self {
            Self::Run { run, .. } => (*run).to_owned(),
            Self::Rule { family, hook, rule, .. } => format!("nft {}", rules(fault, family, hook, rule)),
            Self::Setting { name, value, .. } => format!("sysctl -w {}={value}", name.replace('/', ".")),
            Self::Program { program, run, .. } => format!("{run} # {program:?}"),
            Self::BridgeNetfilter => "modprobe br_netfilter # with net.bridge.bridge-nf-call-*=0".to_owned(),
            Self::Table { .. } => String::new(),
        }
    }

    /// The command that takes it back, for the reader; `saved` is what the step found.
    #[must_use]
    pub fn undoes(&self, fault: &str, saved: Option<&str>) -> String {
        match self {
            Self::Run { undo, .. } | Self::Program { undo, .. } => (*undo).to_owned(),
            Self::Rule { family, .. } => format!("nft delete table {family} {}", table(fault)),
            Self::Setting { name, .. } => format!("sysctl -w {}={}", name.replace('/', "."), saved.unwrap_or("FORMER")),
            Self::BridgeNetfilter => "rmmod br_netfilter".to_owned(),
            Self::Table { family } => format!("nft delete table {family} filter"),
        }
    }

    /// What taking it back will need to know.
    ///
    /// # Errors
    /// When a setting cannot be read.
    pub fn look(&self) -> Result<Option<String>, Error> {
        match self {
            Self::Run { .. } | Self::Rule { .. } | Self::Program { .. } => Ok(None),
            Self::Setting { place, name, .. } => {
                let read = inside(*place, || fs::read_to_string(setting(name)))?;
                let value = read.map_err(|answer| Error::Failed { doing: format!("read /proc/sys/{name}"), answer })?;
                Ok(Some(value.trim().to_owned()))
            }
            Self::BridgeNetfilter => Ok(Some(if bridge_netfilter() { "there" } else { "absent" }.to_owned())),
            Self::Table { family } => {
                let listed = run_words(&["nft", "list", "table", family, "filter"]);
                Ok(Some(if matches!(listed, Err(Error::Refused { .. })) { "absent" } else { "there" }.to_owned()))
            }
        }
    }

    /// Takes the step.
    ///
    /// # Errors
    /// See [`Error`]; nothing has changed then.
    pub fn take(&self, fault: &str) -> Result<(), Error> {
        match self {
            Self::Run { place, run, module, .. } => with_module(*module, || inside(*place, || run_line(run))?),
            Self::Rule { place, family, hook, rule, module } => {
                let rules = rules(fault, family, hook, rule);
                with_module(Some(module), || inside(*place, || run_words(&["nft", &rules]))?)
            }
            Self::Setting { place, name, value } => set(*place, name, value),
            Self::Program { place, program, run, .. } => inside(*place, || {
                // A thread of its own: pinning costs it its view of the mounts.
                let attach = || match program::pin(*program) {
                    Ok(()) => run_line(run),
                    Err((doing, answer)) => Err(Error::Failed { doing: doing.to_owned(), answer }),
                };
                thread::scope(|scope| match scope.spawn(attach).join() {
                    Ok(done) => done,
                    Err(panic) => std::panic::resume_unwind(panic),
                })
            })?,
            Self::BridgeNetfilter if bridge_netfilter() => Ok(()),
            Self::BridgeNetfilter => {
                modprobe("br_netfilter").map_err(|why| Error::NoModule {
                    module: "br_netfilter",
                    command: "ls /proc/sys/net/bridge".to_owned(),
                    answer: "No such file or directory".to_owned(),
                    why,
                })?;
                BRIDGE_SETTINGS.iter().try_for_each(|name| set(None, name, "0"))
            }
            Self::Table { .. } => Ok(()),
        }
    }

    /// Takes the step back; `saved` is what it found. Whether there was anything to take back.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn undo(&self, fault: &str, saved: Option<&str>) -> Result<bool, Error> {
        if let Some(name) = self.place()
            && !matches!(netns::find(name).map_err(Box::new)?, Found::Namespace(_))
        {
            return Ok(false);
        }
        let undone = match self {
            Self::Run { place, undo, .. } | Self::Program { place, undo, .. } => inside(*place, || run_line(undo))?,
            Self::Rule { place, family, .. } => {
                inside(*place, || run_words(&["nft", "delete", "table", family, &table(fault)]))?
            }
            Self::Setting { place, name, .. } => match saved {
                Some(value) => set(*place, name, value),
                None => return Ok(false),
            },
            Self::BridgeNetfilter if saved == Some("absent") && bridge_netfilter() => {
                // Where somebody needs it by now, it stays.
                // Not `modprobe -r`: that takes the module bridge along where nothing else needs it, and every bridge with it.
                return Ok(run_words(&["rmmod", "br_netfilter"]).is_ok());
            }
            Self::Table { family } if saved == Some("absent") && is_empty(family) => {
                run_words(&["nft", "delete", "table", family, "filter"])
            }
            Self::BridgeNetfilter | Self::Table { .. } => return Ok(false),
        };
        command::undone(undone)
    }

    /// Whether the two cannot be in place together, or not be taken back one by one.
    #[must_use]
    pub fn clashes(&self, other: &Self) -> bool {
        let of_its_own = matches!(self, Self::Rule { .. } | Self::BridgeNetfilter | Self::Table { .. });
        !of_its_own && self.place() == other.place() && self.undoes("", None) == other.undoes("", None)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.does("FAULT"))
    }
}

impl Serialize for Step {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = serializer.serialize_struct("Step", 3)?;
        out.serialize_field("place", &self.place())?;
        out.serialize_field("does", &self.does("FAULT"))?;
        out.serialize_field("undoes", &self.undoes("FAULT", None))?;
        out.end()
    }
}

/// The table of a fault.
#[must_use]
pub fn table(fault: &str) -> String {
    format!("skbtrace_lab_{}", fault.replace('-', "_"))
}

/// One transaction of nft.
fn rules(fault: &str, family: &str, hook: &str, rule: &str) -> String {
    let table = table(fault);
    format!(
        "add table {family} {table}; add chain {family} {table} fault {{ type {hook}; }}; \
         add rule {family} {table} fault {rule}"
    )
}

fn setting(name: &str) -> std::path::PathBuf {
    std::path::Path::new("/proc/sys").join(name)
}

fn set(place: Place, name: &str, value: &str) -> Result<(), Error> {
    let written = inside(place, || fs::write(setting(name), value))?;
    written.map_err(|answer| Error::Failed { doing: format!("write {value} to /proc/sys/{name}"), answer })
}

fn bridge_netfilter() -> bool {
    setting(BRIDGE_SETTINGS[0]).exists()
}

/// Whether a table called filter has no rule.
fn is_empty(family: &str) -> bool {
    let listed = Command::new("nft").args(["-j", "list", "table", family, "filter"]).output();
    listed.is_ok_and(|output| output.status.success() && !output.stdout.windows(7).any(|at| at == b"\"rule\":"))
}

/// Runs `work` in a place.
pub(super) fn inside<T: Send>(place: Place, work: impl FnOnce() -> T + Send) -> Result<T, Error> {
    Ok(netns::inside_or_here(namespace(place)?.as_ref(), work).map_err(Box::new)?)
}

/// The namespace of a place.
pub(super) fn namespace(place: Place) -> Result<Option<File>, Error> {
    let Some(name) = place else { return Ok(None) };
    match netns::find(name).map_err(Box::new)? {
        Found::Namespace(file) => Ok(Some(file)),
        Found::Absent | Found::Leftover | Found::Other => {
            Err(Box::new(crate::lab::Error::NoNamespace { name: name.to_owned() }).into())
        }
    }
}
