//! How each tool is called. All are told to trace the same six functions, and little else about them is changed: their rings and their
//! ways of attaching are those that a user gets. pwru is asked for length and device, which the others print unasked. skbtrace traces
//! all of its hops: it cannot be told not to, and what is compared is what a hit costs. It prints JSON, the longer one of its formats:
//! an event is easier to count in it.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::plan::{FUNCTIONS, Programs, Tool};

/// The command of a tool, for traffic on the interface; none where nobody traces.
///
/// # Errors
/// Where the tool is not there.
pub fn command(tool: Tool, programs: &Programs, iface: &str) -> Result<Option<Command>> {
    let other = |program: &Option<_>| -> Result<Command> {
        let program: &std::path::PathBuf = program.as_ref().with_context(|| format!("{tool} is not there"))?;
        Ok(Command::new(program))
    };
    let own = |program: &Path, arguments: &[&str]| {
        let mut command = Command::new(program);
        command.args(arguments);
        command
    };
    Ok(Some(match tool {
        Tool::None => return Ok(None),
        Tool::Empty | Tool::Floor | Tool::FloorNoWakeup => own(&programs.xtask, &["bench-probe", &tool.to_string()]),
        Tool::Skbtrace => own(&programs.skbtrace, &["run", "--iface", iface, "--json"]),
        Tool::SkbtraceNoVerify => own(&programs.skbtrace, &["run", "--iface", iface, "--json", "--no-verify"]),
        Tool::Bpftrace | Tool::BpftraceStack => {
            let mut command = other(&programs.bpftrace)?;
            command.args(["-e", &script(tool == Tool::BpftraceStack)]);
            command
        }
        Tool::Pwru => {
            let mut command = other(&programs.pwru)?;
            command.args(["--all-kmods", "--output-meta", "--filter-func", &format!("^({})$", names().join("|"))]);
            command
        }
        Tool::Retis => {
            let mut command = other(&programs.retis)?;
            command.args(["collect", "--collectors", "skb,dev,ns"]);
            command.args(names().iter().flat_map(|name| ["--probe".to_owned(), format!("kprobe:{name}")]));
            command
        }
    }))
}

fn names() -> [&'static str; FUNCTIONS.len()] {
    FUNCTIONS.each_ref().map(|function| function.name)
}

/// What the seed's author wrote, as far as what it prints tells: a line per function, and on demand the stack.
fn script(stack: bool) -> String {
    let mut script = String::new();
    for function in &FUNCTIONS {
        let (name, position) = (function.name, function.skb);
        let (format, argument) = if stack { ("%s", ", kstack") } else { ("", "") };
        // Writing to a string does not fail.
        let _ = write!(
            script,
            "kprobe:{name} {{ $skb = (struct sk_buff *)arg{position}; \
             printf(\"{name} skb=%llx len=%d dev=%s{format}\\n\", $skb, $skb->len, $skb->dev->name{argument}); }} "
        );
    }
    script
}

#[cfg(test)]
mod tests {
    use super::{command, script};
    use crate::bench::plan::{Programs, Tool};

    #[test]
    fn the_script_has_a_probe_for_each_function_and_the_skb_where_it_is() {
        let script = script(false);
        assert_eq!(script.matches("kprobe:").count(), 6);
        assert!(script.contains("kprobe:br_handle_frame_finish { $skb = (struct sk_buff *)arg2; "), "{script}");
        assert!(!script.contains("kstack"));
        assert!(super::script(true).contains("dev=%s%s\\n\", $skb, $skb->len, $skb->dev->name, kstack)"));
    }

    #[test]
    fn a_tool_that_is_not_there_is_named() {
        let none = Programs::default();
        assert_eq!(command(Tool::Pwru, &none, "x").unwrap_err().to_string(), "pwru is not there");
        assert!(command(Tool::None, &none, "x").unwrap().is_none());
    }
}
