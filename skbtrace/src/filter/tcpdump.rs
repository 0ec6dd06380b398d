//! libpcap by way of tcpdump, for a skbtrace that can open no library, or finds none: `tcpdump -ddd` compiles an expression and
//! prints the program in numbers.

use std::{io, process::Command};

use super::{Link, cbpf};

/// Compiles an expression; `None` when there is no tcpdump.
pub(super) fn compile(expression: &str, link: Link) -> Option<Result<Vec<cbpf::Insn>, String>> {
    let name = match link {
        Link::Ethernet => "EN10MB",
        Link::Network => "RAW",
    };
    // The kernel's directories of administration are not on everybody's path.
    let run =
        |program: &str| Command::new(program).args(["-ddd", "-y", name, "--", expression]).env("LC_ALL", "C").output();
    let output = match run("tcpdump") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => run("/usr/sbin/tcpdump"),
        other => other,
    };
    let output = output.ok()?;
    if output.status.success() {
        let text = String::from_utf8_lossy(&output.stdout);
        return Some(parse(&text).ok_or_else(|| "tcpdump printed no program".to_owned()));
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let last = text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("tcpdump failed");
    Some(Err(last.strip_prefix("tcpdump: ").unwrap_or(last).to_owned()))
}

/// A program in numbers: how many instructions, then four numbers for each.
fn parse(text: &str) -> Option<Vec<cbpf::Insn>> {
    let mut lines = text.lines();
    let count: usize = lines.next()?.trim().parse().ok()?;
    let insn = |line: &str| {
        let mut numbers = line.split_whitespace();
        let insn = cbpf::Insn {
            code: numbers.next()?.parse().ok()?,
            jt: numbers.next()?.parse().ok()?,
            jf: numbers.next()?.parse().ok()?,
            k: numbers.next()?.parse().ok()?,
        };
        numbers.next().is_none().then_some(insn)
    };
    let program = lines.map(insn).collect::<Option<Vec<_>>>()?;
    (program.len() == count).then_some(program)
}

#[cfg(test)]
mod tests {
    use super::{cbpf::Insn, parse};

    #[test]
    fn programs_are_read_as_they_are_printed() {
        let insns = [Insn { code: 40, jt: 0, jf: 0, k: 12 }, Insn { code: 6, jt: 0, jf: 0, k: 262_144 }];
        assert_eq!(parse("2\n40 0 0 12\n6 0 0 262144\n").as_deref(), Some(&insns[..]));
        for wrong in ["", "x\n", "1\n", "2\n40 0 0 12\n", "1\n40 0 0\n", "1\n40 0 0 12 5\n", "1\n40 256 0 12\n"] {
            assert_eq!(parse(wrong), None, "{wrong:?}");
        }
    }
}
