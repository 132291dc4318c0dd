//! All results of a run: rows of samples, reasons for invalidity, and the JSON format.

pub(super) mod bar;
mod chart;
pub(super) mod markdown;
pub(super) mod plot;
pub(super) mod report;
pub(super) mod sample;
pub(super) mod stats;

use std::path::Path;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use bar::Verdict;
use sample::{Figure, Sample};
use stats::Spread;

/// Rows in the order of their first measurement.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Results {
    /// Version of Skylark.
    pub(super) version: String,
    pub(super) quick: bool,
    /// Value of `--connections`.
    pub(super) connections: Option<u32>,
    pub(super) cores: usize,
    pub(super) kernel: String,
    pub(super) cells: Vec<Row>,
    pub(super) bars: Vec<Verdict>,
    /// Reasons that make the run invalid; empty = valid.
    pub(super) invalid: Vec<String>,
}

/// One line of one cell for one contender, with all its repetitions.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Row {
    pub(super) cell: String,
    pub(super) line: String,
    pub(super) contender: String,
    /// Deliveries (or connects) per second of server CPU.
    pub(super) per_cpu_second: Option<Spread>,
    /// Per second of wall-clock time.
    pub(super) per_second: Option<Spread>,
    pub(super) samples: Vec<Sample>,
}

impl Results {
    pub(super) fn add(&mut self, cell: &str, line: &str, contender: &str, sample: Sample) {
        let is_it = |row: &&mut Row| row.cell == cell && row.line == line && row.contender == contender;
        self.invalid.extend(sample.invalid.iter().map(|why| format!("{cell}, {line}, {contender}: {why}")));
        if let Some(row) = self.cells.iter_mut().find(is_it) {
            row.samples.push(sample);
            row.summarise();
            return;
        }
        // A row that could not be measured before is added late, and still placed with its cell.
        let position = self.cells.iter().rposition(|row| row.cell == cell).map_or(self.cells.len(), |last| last + 1);
        let (cell, line, contender) = (cell.to_owned(), line.to_owned(), contender.to_owned());
        let mut row = Row { cell, line, contender, per_cpu_second: None, per_second: None, samples: vec![sample] };
        row.summarise();
        self.cells.insert(position, row);
    }

    pub(super) fn row(&self, cell: &str, line: &str, contender: &str) -> Option<&Row> {
        self.cells.iter().find(|row| row.cell == cell && row.line == line && row.contender == contender)
    }

    /// 0: every bar holds, 1: one was missed, 3: the run is invalid.
    pub(super) fn exit_code(&self) -> u8 {
        const MISSED: u8 = 1;
        const INVALID: u8 = 3;
        if self.invalid.is_empty() { u8::from(self.bars.iter().any(|bar| !bar.ok)) * MISSED } else { INVALID }
    }

    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{} is not a result of skylark-bench", path.display()))
    }

    pub(super) fn write(&self, path: &Path) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(self)?;
        std::fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))
    }
}

impl Row {
    /// One value per repetition.
    pub(super) fn values(&self, figure: Figure) -> Vec<f64> {
        self.samples.iter().map(|sample| sample.figure(figure)).collect()
    }

    pub(super) fn spread(&self, figure: Figure) -> Option<Spread> {
        Spread::of(self.values(figure))
    }

    /// The median of another value.
    pub(super) fn median(&self, value: impl Fn(&Sample) -> Option<f64>) -> Option<f64> {
        Spread::of(self.samples.iter().filter_map(value)).map(|spread| spread.median)
    }

    fn summarise(&mut self) {
        self.per_cpu_second = self.spread(Figure::PerCpuSecond);
        self.per_second = self.spread(Figure::PerSecond);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repetitions_gather_in_one_row() {
        let mut results = Results::default();
        for count in [100, 300, 200] {
            results.add("a", "b", "c", Sample::of(count, 1.0));
        }
        results.add("a", "b", "d", Sample::of(1, 1.0));
        assert_eq!(results.cells.len(), 2);
        let spread = results.row("a", "b", "c").unwrap().per_cpu_second.unwrap();
        assert_eq!((spread.min, spread.median, spread.max), (100.0, 200.0, 300.0));
    }

    #[test]
    fn rows_of_a_cell_stand_together() {
        let mut results = Results::default();
        for (cell, contender) in [("a", "c"), ("b", "c"), ("a", "late")] {
            results.add(cell, "line", contender, Sample::of(1, 1.0));
        }
        let cells: Vec<&str> = results.cells.iter().map(|row| row.cell.as_str()).collect();
        assert_eq!(cells, ["a", "a", "b"]);
    }

    #[test]
    fn a_run_with_an_invalid_sample_is_invalid() {
        let mut results = Results::default();
        let sample = Sample { invalid: vec!["one was missed".to_owned()], ..Sample::of(1, 1.0) };
        results.add("a", "b", "c", sample);
        assert_eq!(results.invalid, ["a, b, c: one was missed"]);
    }

    #[test]
    fn missed_bar_exits_with_1_and_invalid_run_with_3() {
        let bar = |ok| Verdict { ok, ..Verdict::default() };
        let mut results = Results { bars: vec![bar(true)], ..Results::default() };
        assert_eq!(results.exit_code(), 0);
        results.bars.push(bar(false));
        assert_eq!(results.exit_code(), 1);
        results.invalid.push("one was missed".to_owned());
        assert_eq!(results.exit_code(), 3);
    }

    #[test]
    fn json_is_read_back() {
        let mut results = Results::default();
        results.add("a", "b", "c", Sample::of(1, 1.0));
        let text = serde_json::to_string(&results).unwrap();
        let again: Results = serde_json::from_str(&text).unwrap();
        assert_eq!(again.cells[0].samples, results.cells[0].samples);
    }
}
