//! README's table of what each kernel gives: between two markers, and written from what tests on these kernels have left, never typed.
//!
//! A run on some kernels knows their rows and leaves the others as they are. What depends on more than the kernel (how long the
//! longest program is, say) is written and not compared: a row is out of date when one of its other cells is. A kernel without a row
//! is no fault.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use crate::{tools, vm};

const BEGIN: &str = "<!-- what each kernel gives: written by `cargo xtask test --write-table` -->";
const END: &str = "<!-- end of what each kernel gives -->";

/// What a test has left of a kernel.
#[derive(Debug, Deserialize)]
struct Given {
    cells: Vec<Cell>,
    /// Names of hops, by the reason why they are left out.
    left_out: BTreeMap<String, Vec<String>>,
}

#[derive(Debug, Deserialize)]
struct Cell {
    title: String,
    content: String,
    /// Whether it is compared.
    firm: bool,
}

impl Given {
    /// Its lines in the README: that of the table, and the one below it.
    fn lines(&self, kernel: &str) -> Lines {
        let cells: Vec<&str> = self.cells.iter().map(|cell| cell.content.as_str()).collect();
        let reasons: Vec<String> =
            self.left_out.iter().map(|(why, hops)| format!("{} ({why})", hops.join(", "))).collect();
        Lines {
            row: format!("| {kernel} | {} |", cells.join(" | ")),
            left_out: format!("- {kernel}: {}", reasons.join("; ")),
        }
    }

    fn header(&self) -> String {
        let titles: Vec<&str> = self.cells.iter().map(|cell| cell.title.as_str()).collect();
        format!("| kernel | {} |\n|---|{}", titles.join(" | "), "---|".repeat(titles.len()))
    }

    /// How the README's lines differ, where they must not; empty where they do not.
    fn differences(&self, kernel: &str, written: &Lines) -> Vec<String> {
        let new = self.lines(kernel);
        let old = cells(&written.row);
        let mut found: Vec<String> = cells(&new.row)
            .iter()
            .skip(1)
            .zip(&self.cells)
            .enumerate()
            .filter(|(at, (now, cell))| cell.firm && old.get(at + 1) != Some(*now))
            .map(|(at, (now, cell))| format!("{}: {now}, not {}", cell.title, old.get(at + 1).unwrap_or(&"in it")))
            .collect();
        if new.left_out != written.left_out {
            found.push(format!("left out are {}", new.left_out.trim_start_matches("- ")));
        }
        found
    }
}

/// What the README has of a kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Lines {
    row: String,
    left_out: String,
}

fn cells(row: &str) -> Vec<&str> {
    row.trim().trim_matches('|').split('|').map(str::trim).collect()
}

/// Writes the rows of the kernels that ran into the README, or, where not to write, says whether they stand there already.
///
/// # Errors
/// Where the README has no markers, or its other rows would not fit those that are new.
pub fn settle(readme: &Path, rows: &[(&str, String)], write: bool) -> Result<bool> {
    let text = tools::read(readme)?;
    let mut given = Vec::new();
    for (kernel, row) in rows {
        given.push((*kernel, serde_json::from_str(row).with_context(|| format!("what {kernel} has left"))?));
    }
    if write {
        let new = written(&text, &given)?;
        if new != text {
            std::fs::write(readme, new).with_context(|| format!("{}: cannot write", readme.display()))?;
        }
        println!("table: README.md says what each of these kernels gives");
        return Ok(true);
    }
    let (_, old, _) = section(&text)?;
    let mut good = true;
    for (kernel, given) in &given {
        let written = lines_of(old, kernel);
        if written == Lines::default() {
            println!("table: README.md has no row for {kernel} yet");
            continue;
        }
        let differences = given.differences(kernel, &written);
        if !differences.is_empty() {
            good = false;
            println!("table: README.md is out of date for {kernel}: {}", differences.join("; "));
        }
    }
    if good {
        println!("table: README.md says nothing else about these kernels");
    } else {
        println!("table: `cargo xtask test --no-lint --write-table --kernels … matrix::` writes it");
    }
    Ok(good)
}

/// What is before the table, the table, and what is behind it.
fn section(text: &str) -> Result<(&str, &str, &str)> {
    let split = || {
        let (before, rest) = text.split_once(BEGIN)?;
        let (table, after) = rest.split_once(END)?;
        Some((before, table, after))
    };
    split().with_context(|| format!("README.md has no place for the table: the lines {BEGIN} and {END}"))
}

fn lines_of(table: &str, kernel: &str) -> Lines {
    let line = |begin: String| table.lines().find(|line| line.starts_with(&begin)).unwrap_or_default().to_owned();
    Lines { row: line(format!("| {kernel} |")), left_out: line(format!("- {kernel}: ")) }
}

/// The README with these rows in its table.
fn written(text: &str, given: &[(&str, Given)]) -> Result<String> {
    let (before, old, after) = section(text)?;
    let Some((_, first)) = given.first() else { return Ok(text.to_owned()) };
    let (mut rows, mut left_out) = (Vec::new(), Vec::new());
    for kernel in vm::names() {
        let lines = match given.iter().find(|(name, _)| *name == kernel) {
            Some((_, given)) => given.lines(kernel),
            None => lines_of(old, kernel),
        };
        if lines != Lines::default() {
            ensure!(
                cells(&lines.row).len() == first.cells.len() + 1,
                "the table has other columns now: run it on all kernels that it has, {kernel} among them"
            );
            rows.push(lines.row);
            left_out.push(lines.left_out);
        }
    }
    let (header, rows, left_out) = (first.header(), rows.join("\n"), left_out.join("\n"));
    Ok(format!("{before}{BEGIN}\n{header}\n{rows}\n\nLeft out by kprobe, and why:\n\n{left_out}\n{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::{BEGIN, END, Given, lines_of, section, settle, written};

    const NEW: &str = r#"{"cells":[{"title":"hops","content":"65 of 70","firm":true},
        {"title":"instructions","content":"9","firm":false}],"left_out":{"not in this kernel":["a","b"],"why":["c"]}}"#;

    fn given() -> Given {
        serde_json::from_str(NEW).unwrap()
    }

    fn table(rows: &str) -> String {
        format!("before\n{BEGIN}\n| kernel | hops | instructions |\n|---|---|---|\n{rows}\n{END}\nafter\n")
    }

    #[test]
    fn the_kernels_that_ran_are_written_and_the_others_stay() {
        let old = table("| 6.1 | 1 of 70 | 1 |\n| 7.3 | 2 of 70 | 2 |\n\n- 6.1: old\n- 7.3: kept");
        let new = written(&old, &[("6.1", given())]).unwrap();
        insta::assert_snapshot!(new, @r"
        before
        <!-- what each kernel gives: written by `cargo xtask test --write-table` -->
        | kernel | hops | instructions |
        |---|---|---|
        | 6.1 | 65 of 70 | 9 |
        | 7.3 | 2 of 70 | 2 |

        Left out by kprobe, and why:

        - 6.1: a, b (not in this kernel); c (why)
        - 7.3: kept
        <!-- end of what each kernel gives -->
        after
        ");
        assert_eq!(written(&new, &[("6.1", given())]).unwrap(), new);
    }

    #[test]
    fn a_row_is_out_of_date_where_the_kernel_gives_something_else() {
        let same = table("| 6.1 | 65 of 70 | 1000 |\n\n- 6.1: a, b (not in this kernel); c (why)");
        let differences = |text: &str| given().differences("6.1", &lines_of(section(text).unwrap().1, "6.1"));
        assert_eq!(differences(&same), [""; 0]);
        assert_eq!(differences(&same.replace("65 of", "64 of")), ["hops: 65 of 70, not 64 of 70"]);
        assert_eq!(differences(&same.replace("a, b", "a")), ["left out are 6.1: a, b (not in this kernel); c (why)"]);
        assert_eq!(differences(&table("")).len(), 2);
    }

    #[test]
    fn columns_do_not_change_for_some_kernels_alone() {
        let old = table("| 6.1 | 1 of 70 | 1 |\n| 7.3 | 2 of 70 |\n\n- 6.1: old\n- 7.3: kept");
        let why = written(&old, &[("6.1", given())]).unwrap_err().to_string();
        assert!(why.contains("7.3 among them"), "{why}");
        assert!(written("no markers", &[("6.1", given())]).is_err());
    }

    #[test]
    fn only_who_is_told_to_write_does() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let read = || std::fs::read_to_string(file.path()).unwrap();
        let rows = [("6.1", NEW.to_owned())];
        // No row is no wrong one.
        std::fs::write(file.path(), table("")).unwrap();
        assert!(settle(file.path(), &rows, false).unwrap());
        let old = table("| 6.1 | 1 of 70 | 1 |\n\n- 6.1: old");
        std::fs::write(file.path(), &old).unwrap();
        assert!(!settle(file.path(), &rows, false).unwrap());
        assert_eq!(read(), old);
        assert!(settle(file.path(), &rows, true).unwrap() && settle(file.path(), &rows, false).unwrap());
        assert!(read().contains("| 6.1 | 65 of 70 | 9 |"));
    }
}
