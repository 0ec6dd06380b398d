//! The table of times at the end of the text: a row per pair of neighbouring hops, in the order of the path, and one for
//! the whole way.

use super::duration;
use super::headline::{counted, queue_name};
use crate::trace::{Latency, Pair, Times};

/// Rows for pairs at most: a table of all would be longer than a screen, and the rest takes no time worth a row.
const MOST: usize = 20;

/// Columns of a row, less what is said behind them.
const COLUMNS: usize = 6;

/// A row: its cells, and a remark behind them.
type Row = ([String; COLUMNS], String);

/// The lines of the table, its header first.
pub(super) fn table(latency: &Latency) -> Vec<String> {
    let shown = longest(latency.pairs());
    let left_out = latency.pairs().len() - shown.len();
    let header = ["hop → hop", "count", "p50", "p90", "p99", "max"].map(str::to_owned);
    let mut rows: Vec<Row> = vec![(header, String::new())];
    rows.extend(shown.into_iter().map(|pair| {
        let remark = pair.waited.map_or_else(String::new, |queue| format!("  waiting in {}", queue_name(queue)));
        row(format!("{} → {}", pair.from.name(), pair.to.name()), &pair.times, remark)
    }));
    let before_total = rows.len();
    rows.push(row("first hop → delivery".to_owned(), latency.total(), String::new()));
    let mut widths = [0; COLUMNS];
    for (cells, _) in &rows {
        for (width, cell) in widths.iter_mut().zip(cells) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut lines: Vec<String> = rows.iter().map(|row| line(row, &widths)).collect();
    if left_out > 0 {
        lines.insert(before_total, format!("… and {} that took less time in all", counted(left_out as u64, "pair")));
    }
    lines
}

/// The pairs that took most of the time, all their packets together, in the order in which they were.
fn longest(pairs: &[Pair]) -> Vec<&Pair> {
    let mut places: Vec<usize> = (0..pairs.len()).collect();
    places.sort_by_key(|place| std::cmp::Reverse(pairs[*place].times.sum_ns()));
    places.truncate(MOST);
    places.sort_unstable();
    places.into_iter().map(|place| &pairs[place]).collect()
}

fn row(name: String, times: &Times, remark: String) -> Row {
    let percentile = |percent| duration(times.percentile_ns(percent));
    let cells = [
        name,
        times.count().to_string(),
        percentile(50.0),
        percentile(90.0),
        percentile(99.0),
        duration(times.max_ns()),
    ];
    (cells, remark)
}

fn line((cells, remark): &Row, widths: &[usize; COLUMNS]) -> String {
    let [name, numbers @ ..] = cells;
    let [left, rights @ ..] = widths;
    let numbers: String = numbers.iter().zip(rights).map(|(cell, width)| format!("  {cell:>width$}")).collect();
    format!("{name:<left$}{numbers}{remark}")
}
