//! Tables of text: the first column to the left, numbers to the right.

use std::fmt::Write as _;

use super::stats::Spread;

/// A table.
pub struct Table {
    rows: Vec<(Vec<String>, String)>,
}

impl Table {
    /// With these titles.
    pub fn new(titles: &[&str]) -> Self {
        Self { rows: vec![(titles.iter().map(|title| (*title).to_owned()).collect(), String::new())] }
    }

    /// One row more.
    pub fn row(&mut self, cells: Vec<String>) {
        self.noted(cells, "");
    }

    /// One row more, with a note behind it.
    pub fn noted(&mut self, cells: Vec<String>, note: &str) {
        self.rows.push((cells, note.to_owned()));
    }

    /// Its text.
    pub fn text(&self) -> String {
        let columns = self.rows.iter().map(|(row, _)| row.len()).max().unwrap_or(0);
        let cells = |column: usize| self.rows.iter().filter_map(move |(row, _)| row.get(column));
        let width = |column: usize| cells(column).map(|cell| cell.chars().count()).max();
        let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
        let mut text = String::new();
        for (row, note) in &self.rows {
            let mut line = String::new();
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                // Writing to a string does not fail.
                let _ = if column == 0 { write!(line, "{cell:<width$}") } else { write!(line, "  {cell:>width$}") };
            }
            // Writing to a string does not fail.
            let _ = write!(line, "  {note}");
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// A median, and where there were several values, how far they lie apart.
pub fn cell(spread: Option<&Spread>) -> String {
    let Some(spread) = spread else { return "-".to_owned() };
    let median = number(spread.median);
    if spread.values.len() < 2 {
        return median;
    }
    format!("{median} ({}..{})", number(spread.low), number(spread.high))
}

/// With three digits at most, unless it is larger.
pub fn number(value: f64) -> String {
    let digits = match value.abs() {
        size if size >= 99.95 => 0,
        size if size >= 9.995 => 1,
        _ => 2,
    };
    let plain = format!("{value:.digits$}");
    match plain.split_once('.') {
        Some((whole, rest)) => format!("{}.{rest}", grouped(whole)),
        None => grouped(&plain),
    }
}

/// All of its digits: it was counted.
pub fn count(value: u64) -> String {
    grouped(&value.to_string())
}

/// In threes.
fn grouped(whole: &str) -> String {
    let mut text = String::new();
    for (at, digit) in whole.char_indices() {
        let left = whole.len() - at;
        if at > 0 && left.is_multiple_of(3) && !text.ends_with('-') {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{Spread, Table, cell, count, number};

    #[test]
    fn numbers_stand_below_each_other() {
        let mut table = Table::new(&["tool", "ns", "%"]);
        table.row(vec!["floor".to_owned(), "1,400".to_owned(), "-".to_owned()]);
        table.row(vec!["skbtrace".to_owned(), "3".to_owned(), "99.8".to_owned()]);
        table.noted(vec!["pwru".to_owned(), "-".to_owned(), "-".to_owned()], "not here");
        insta::assert_snapshot!(table.text(), @r"
        tool         ns     %
        floor     1,400     -
        skbtrace      3  99.8
        pwru          -     -  not here
        ");
    }

    #[test]
    fn a_number_has_the_digits_that_mean_something() {
        let shown = [0.004, 1.234, 12.34, 99.96, 1234.5, 1_234_567.0, -1234.0].map(number);
        assert_eq!(shown, ["0.00", "1.23", "12.3", "100", "1,234", "1,234,567", "-1,234"]);
        assert_eq!([0, 90, 1_000_000].map(count), ["0", "90", "1,000,000"]);
    }

    #[test]
    fn a_single_value_has_no_spread() {
        assert_eq!(cell(Spread::of(&[1400.0]).as_ref()), "1,400");
        assert_eq!(cell(Spread::of(&[3.0, 1.0, 2.0]).as_ref()), "2.00 (1.00..3.00)");
        assert_eq!(cell(None), "-");
    }
}
