//! A run as Markdown: one table per cell, and one of the bars.

use std::fmt::Write as _;

use super::report::{count, fine, short};
use super::sample::Figure;
use super::stats::Latency;
use super::{Results, Row};

/// The figures of a run that readers compare.
pub(crate) fn document(results: &Results) -> String {
    let repetitions = results.cells.iter().map(|row| row.samples.len()).max().unwrap_or(0);
    let quick = if results.quick { ", --quick" } else { "" };
    let mut text = format!(
        "Skylark {}, {} cores, Linux {}, {repetitions} repetitions{quick}: medians, ranges in brackets.\n",
        results.version, results.cores, results.kernel
    );
    for why in &results.invalid {
        let _ = writeln!(text, "\n**Invalid:** {why}");
    }
    for rows in results.cells.chunk_by(|a, b| a.cell == b.cell) {
        let _ = writeln!(text, "\n### {}\n", rows[0].cell);
        text.push_str(&cell(rows));
    }
    if !results.bars.is_empty() {
        text.push_str("\n### Bars\n\n| bar | measured | must be | |\n|---|---|---|---|\n");
    }
    for bar in &results.bars {
        let (value, low, high) = (fine(bar.value), fine(bar.min), fine(bar.max));
        let mark = if bar.ok { "holds" } else { "**missed**" };
        let _ = writeln!(text, "| {} | {value} ({low}–{high}) | {} {} | {mark} |", bar.name, bar.must, short(bar.bar));
    }
    text
}

/// A column: its heading, and the text for a row.
type Column = (&'static str, fn(&Row) -> Option<String>);

const COLUMNS: [Column; 11] = [
    ("a second", |row| row.spread(Figure::PerSecond).map(|spread| count(spread.median))),
    ("per CPU-second", |row| {
        let spread = row.spread(Figure::PerCpuSecond)?;
        Some(format!("{} ({}–{})", count(spread.median), count(spread.min), count(spread.max)))
    }),
    ("CPU each, µs", |row| row.spread(Figure::CpuMicros).map(|spread| short(spread.median))),
    ("p50 ms", |row| millis(row, |latency| latency.p50)),
    ("p99 ms", |row| millis(row, |latency| latency.p99)),
    ("p99.9 ms", |row| millis(row, |latency| latency.p999)),
    ("bytes a connection", |row| {
        row.spread(Figure::AnonymousPerConnection).map(|spread| format!("{:.0}", spread.median))
    }),
    ("allocations a delivery", |row| {
        row.spread(Figure::AllocationsPerDelivery).map(|spread| format!("{:.3}", spread.median))
    }),
    ("allocations a publish", |row| row.spread(Figure::AllocationsPerPublish).map(|spread| short(spread.median))),
    ("Redis CPU each, µs", |row| row.spread(Figure::EngineMicros).map(|spread| short(spread.median))),
    ("Redis round trips a request", |row| row.spread(Figure::RoundTripsPerRequest).map(|spread| short(spread.median))),
];

/// Formats a cell; columns without any value are omitted.
fn cell(rows: &[Row]) -> String {
    let has = |column: &&Column| rows.iter().any(|row| (column.1)(row).is_some());
    let columns: Vec<&Column> = COLUMNS.iter().filter(has).collect();
    let heads: Vec<&str> = columns.iter().map(|column| column.0).collect();
    let mut text = format!("| | | {} |\n|---|---|{}\n", heads.join(" | "), "--:|".repeat(heads.len()));
    for row in rows {
        let cells: Vec<String> = columns.iter().map(|column| (column.1)(row).unwrap_or_default()).collect();
        let _ = writeln!(text, "| {} | {} | {} |", row.line, row.contender, cells.join(" | "));
    }
    text
}

fn millis(row: &Row, pick: fn(&Latency) -> f64) -> Option<String> {
    row.median(|sample| sample.latency.as_ref().map(pick)).map(|micros| format!("{:.2}", micros / 1e3))
}

#[cfg(test)]
mod tests {
    use super::super::bar::Verdict;
    use super::super::sample::Sample;
    use super::*;

    #[test]
    fn columns_without_a_figure_are_left_out() {
        let mut results = Results::default();
        results.add("unicast", "single", "skylark", Sample::of(20_000, 1.0));
        results.add("unicast", "single", "skylark", Sample::of(30_000, 1.0));
        let text = document(&results);
        assert!(text.contains("| | | a second | per CPU-second | CPU each, µs |\n|---|---|--:|--:|--:|\n"), "{text}");
        assert!(text.contains("| single | skylark | 12k | 25k (20k–30k) | "), "{text}");
    }

    #[test]
    fn bars_and_faults_are_told() {
        let (name, must) = ("a / b".to_owned(), "≥".to_owned());
        let bar = Verdict { name, value: 0.7, min: 0.6, max: 0.9, must, bar: 0.8, ok: false };
        let results = Results { bars: vec![bar], invalid: vec!["one was missed".to_owned()], ..Results::default() };
        let text = document(&results);
        assert!(text.contains("| a / b | 0.700 (0.600–0.900) | ≥ 0.80 | **missed** |"), "{text}");
        assert!(text.contains("**Invalid:** one was missed"), "{text}");
    }
}
