//! A bar: a figure, or a ratio of two figures of one run, with the bound that it must reach.

use serde::{Deserialize, Serialize};

use super::Results;
use super::sample::Figure;
use super::stats::Spread;

/// A bar. Ratios are computed per repetition; their median is compared.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Bar {
    pub(crate) name: &'static str,
    pub(crate) figure: Figure,
    /// `(line, contender)`.
    pub(crate) of: (&'static str, &'static str),
    /// The reference.
    pub(crate) by: By,
    pub(crate) must: Must,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum By {
    /// Divided by another row of the same cell: `(line, contender)`.
    Row(&'static str, &'static str),
    /// The excess over another row of the same cell.
    Above(&'static str, &'static str),
    /// Divided by a number.
    Number(f64),
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Must {
    BeAtLeast(f64),
    BeAtMost(f64),
}

/// Result of a bar.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Verdict {
    pub(crate) name: String,
    pub(crate) value: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
    /// `≥` or `≤`.
    pub(crate) must: String,
    pub(crate) bar: f64,
    pub(crate) ok: bool,
}

impl Bar {
    /// Judges the bar; `None` if a figure was not measured.
    pub(crate) fn judge(&self, cell: &str, results: &Results) -> Option<Verdict> {
        let of = results.row(cell, self.of.0, self.of.1)?;
        let values = of.values(self.figure).into_iter();
        let other = |line, contender| Some(results.row(cell, line, contender)?.values(self.figure));
        let compared: Vec<f64> = match self.by {
            By::Number(number) => values.map(|value| value / number).collect(),
            By::Row(line, contender) => values.zip(other(line, contender)?).map(|(value, by)| value / by).collect(),
            By::Above(line, contender) => values.zip(other(line, contender)?).map(|(value, by)| value - by).collect(),
        };
        let Spread { median, min, max } = Spread::of(compared)?;
        let (must, bar, ok) = match self.must {
            Must::BeAtLeast(bar) => ("≥", bar, median >= bar),
            Must::BeAtMost(bar) => ("≤", bar, median <= bar),
        };
        Some(Verdict { name: self.name.to_owned(), value: median, min, max, must: must.to_owned(), bar, ok })
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::Sample;
    use super::*;

    fn results() -> Results {
        let mut results = Results::default();
        for (ours, theirs) in [(80, 100), (300, 400), (90, 100)] {
            results.add("cell", "line", "ours", Sample::of(ours, 1.0));
            results.add("cell", "line", "theirs", Sample::of(theirs, 1.0));
        }
        results
    }

    fn bar(must: Must) -> Bar {
        let by = By::Row("line", "theirs");
        Bar { name: "b", figure: Figure::PerCpuSecond, of: ("line", "ours"), by, must }
    }

    #[test]
    fn the_ratio_is_taken_within_each_repetition() {
        let verdict = bar(Must::BeAtLeast(0.8)).judge("cell", &results()).unwrap();
        assert_eq!((verdict.value, verdict.min, verdict.max), (0.8, 0.75, 0.9));
        assert!(verdict.ok);
        assert_eq!((verdict.must.as_str(), verdict.bar), ("≥", 0.8));
    }

    #[test]
    fn a_difference_is_taken_within_each_repetition_too() {
        let bar = Bar { by: By::Above("line", "theirs"), ..bar(Must::BeAtMost(-10.0)) };
        let verdict = bar.judge("cell", &results()).unwrap();
        assert_eq!((verdict.value, verdict.min, verdict.max, verdict.ok), (-20.0, -100.0, -10.0, true));
    }

    #[test]
    fn a_bar_is_missed_on_its_own_side() {
        assert!(!bar(Must::BeAtLeast(0.81)).judge("cell", &results()).unwrap().ok);
        assert!(!bar(Must::BeAtMost(0.79)).judge("cell", &results()).unwrap().ok);
    }

    #[test]
    fn bar_without_a_figure_has_no_verdict() {
        assert_eq!(bar(Must::BeAtLeast(1.0)).judge("other", &results()), None);
        assert_eq!(bar(Must::BeAtLeast(1.0)).judge("cell", &Results::default()), None);
    }
}
