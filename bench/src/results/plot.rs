//! Charts of a run: work, latency and memory of each cell, and the margin of each bar.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::bar::Verdict;
use super::chart::{Chart, ChartMark, Row, Scale};
use super::report::{count, fine, short};
use super::sample::{Figure, Sample, Unit};
use super::stats::{Latency, Spread};
use crate::results::{self, Results};

/// Writes one file per chart into `dir`, which is created if missing, and returns their paths.
///
/// # Errors
/// `dir` cannot be written.
pub(crate) fn write(results: &Results, dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let put = |(name, chart): (String, Chart)| {
        let path = dir.join(name + ".svg");
        fs::write(&path, chart.svg()).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    };
    charts(results).into_iter().map(put).collect()
}

/// The charts with their file names.
fn charts(results: &Results) -> Vec<(String, Chart)> {
    let mut charts = Vec::new();
    for rows in results.cells.chunk_by(|a, b| a.cell == b.cell) {
        let cell = &rows[0].cell;
        let of = |title: &str, axis: &str, scale, drawn: Vec<Row>| {
            let (title, axis) = (format!("{cell}: {title}"), axis.to_owned());
            (!drawn.is_empty()).then_some(Chart { title, axis, scale, rows: drawn })
        };
        let is_of =
            |unit| move |row: &&results::Row| row.samples.first().is_some_and(|sample| sample.work.unit == unit);
        // A cell with both units is about deliveries.
        let (name, unit) = match rows.iter().find(is_of(Unit::Delivery)) {
            Some(_) => ("deliveries", Unit::Delivery),
            None => ("connections", Unit::Connection),
        };
        let work = bars(rows.iter().filter(is_of(unit)), Figure::PerCpuSecond);
        let memory = bars(rows.iter(), Figure::AnonymousPerConnection);
        let per_cpu = format!("{name} per second of server CPU");
        let drawn = [
            ("work", of("work", &per_cpu, Scale::Linear, work)),
            ("latency", of("latency, p50 p90 p99 p99.9 max", "milliseconds", Scale::Log, dots(rows))),
            ("memory", of("memory", "bytes of user-space memory a connection adds", Scale::Log, memory)),
        ];
        charts.extend(drawn.into_iter().filter_map(|(what, chart)| Some((format!("{cell}-{what}"), chart?))));
    }
    if !results.bars.is_empty() {
        charts.push(("bars".to_owned(), margins(&results.bars)));
    }
    charts
}

/// One bar per row with this figure, grouped by line.
fn bars<'a>(rows: impl Iterator<Item = &'a results::Row>, figure: Figure) -> Vec<Row> {
    draw(rows, |row| {
        let spread = row.spread(figure)?;
        Some((ChartMark::Bar(spread), count(spread.median)))
    })
}

fn dots(rows: &[results::Row]) -> Vec<Row> {
    draw(rows.iter(), |row| {
        let median = |pick: fn(&Latency) -> f64| row.median(|sample: &Sample| sample.latency.as_ref().map(pick));
        let p99 = median(|l| l.p99)? / 1e3;
        // Calls of microseconds are too short for a chart in milliseconds.
        if row.samples.iter().all(|sample| sample.work.unit == Unit::Call) && p99 < 1.0 {
            return None;
        }
        let points = [
            ("p50", median(|l| l.p50)?),
            ("p90", median(|l| l.p90)?),
            ("p99", median(|l| l.p99)?),
            ("p99.9", median(|l| l.p999)?),
            ("max", median(|l| l.max)?),
        ];
        Some((ChartMark::Dots(points.map(|(name, us)| (name, us / 1e3)).to_vec()), format!("p99 {p99:.2} ms")))
    })
}

fn draw<'a>(
    rows: impl Iterator<Item = &'a results::Row>,
    mark: impl Fn(&results::Row) -> Option<(ChartMark, String)>,
) -> Vec<Row> {
    let mut contenders: Vec<&str> = Vec::new();
    let mut drawn = Vec::new();
    for row in rows {
        let colour = contenders.iter().position(|name| *name == row.contender).unwrap_or_else(|| {
            contenders.push(&row.contender);
            contenders.len() - 1
        });
        if let Some((mark, note)) = mark(row) {
            drawn.push(Row { group: row.line.clone(), label: row.contender.clone(), mark, colour, note });
        }
    }
    // Rows were measured by contender and are compared by line.
    let lines: Vec<String> = drawn.iter().map(|row| row.group.clone()).collect();
    drawn.sort_by_key(|row| lines.iter().position(|line| *line == row.group));
    drawn
}

/// The margins of bars with different units, as ratios to their bounds.
fn margins(verdicts: &[Verdict]) -> Chart {
    let row = |verdict: &Verdict| {
        let margin = |value: f64| if verdict.must == "≥" { value / verdict.bar } else { verdict.bar / value };
        let ends = [margin(verdict.min), margin(verdict.max)];
        let mark = ChartMark::Bar(Spread {
            median: margin(verdict.value),
            min: ends[0].min(ends[1]),
            max: ends[0].max(ends[1]),
        });
        let note = format!("{} {} {}", fine(verdict.value), verdict.must, short(verdict.bar));
        let (group, label) = (verdict.name.clone(), if verdict.ok { "holds" } else { "MISSED" }.to_owned());
        Row { group, label, mark, colour: usize::from(!verdict.ok), note }
    };
    Chart {
        title: "bars: how far on the good side".to_owned(),
        axis: "margin; below 1 the bar is missed".to_owned(),
        scale: Scale::Log,
        rows: verdicts.iter().map(row).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::PerConnection;
    use super::*;

    fn results() -> Results {
        let mut results = Results::default();
        for contender in ["skylark", "raw"] {
            for line in ["alone", "burst"] {
                results.add("fan-out", line, contender, Sample::of(1_000, 1.0));
            }
        }
        let latency = Some(Latency { p50: 100.0, p90: 200.0, p99: 1_500.0, p999: 2_000.0, max: 3_000.0 });
        results.add("latency", "5 000/s", "skylark", Sample { latency, ..Sample::of(10, 1.0) });
        let per_connection = Some(PerConnection { resident: 3_000.0, anonymous: 2_900.0 });
        results.add("idle", "two rooms", "skylark", Sample { per_connection, ..Sample::default() });
        let (must, name) = ("≤".to_owned(), "memory".to_owned());
        results.bars.push(Verdict { name, value: 2_900.0, min: 2_800.0, max: 3_000.0, must, bar: 4_096.0, ok: true });
        results
    }

    #[test]
    fn each_cell_has_the_charts_that_it_has_figures_for() {
        let charts = charts(&results());
        let names: Vec<&str> = charts.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["fan-out-work", "latency-work", "latency-latency", "idle-memory", "bars"]);
        assert_eq!(charts[0].1.axis, "deliveries per second of server CPU");
    }

    #[test]
    fn contenders_stand_together_by_line_and_keep_their_colour() {
        let rows = &charts(&results())[0].1.rows;
        let told: Vec<_> = rows.iter().map(|row| (row.group.as_str(), row.label.as_str(), row.colour)).collect();
        assert_eq!(told, [("alone", "skylark", 0), ("alone", "raw", 1), ("burst", "skylark", 0), ("burst", "raw", 1)]);
    }

    #[test]
    fn latencies_are_milliseconds() {
        let rows = &charts(&results())[2].1.rows;
        let ChartMark::Dots(dots) = &rows[0].mark else { panic!("{rows:?}") };
        assert_eq!((dots[2], rows[0].note.as_str()), (("p99", 1.5), "p99 1.50 ms"));
    }

    #[test]
    fn a_margin_above_one_holds_for_both_kinds_of_bar() {
        let bar = |must: &str, value| Verdict {
            name: String::new(),
            value,
            min: value,
            max: value,
            must: must.to_owned(),
            bar: 2.0,
            ok: true,
        };
        let chart = margins(&[bar("≥", 4.0), bar("≤", 1.0), bar("≤", 4.0)]);
        let margin = |row: &Row| if let ChartMark::Bar(spread) = row.mark { spread.median } else { f64::NAN };
        assert_eq!(chart.rows.iter().map(margin).collect::<Vec<_>>(), [2.0, 2.0, 0.5]);
    }
}
