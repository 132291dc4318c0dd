//! The table printed at the end of a run.

use std::fmt::Write as _;

use super::sample::{Figure, Sample, Unit};
use super::stats::{Spread, float};
use super::{Results, Row};

/// Rows by cell, then bars, then the reasons for an invalid run.
pub(crate) fn table(results: &Results, baseline: Option<&Results>) -> String {
    let mut text = String::new();
    let mut cell = "";
    for row in &results.cells {
        if row.cell != cell {
            cell = &row.cell;
            let _ = writeln!(text, "\n{cell}");
            let _ = writeln!(text, "{}", heading(baseline.is_some()));
        }
        let _ = writeln!(text, "{}", line(row, baseline));
    }
    if !results.bars.is_empty() {
        let _ = writeln!(text, "\nbars (median of ratios within repetitions, and their range)");
    }
    for bar in &results.bars {
        let mark = if bar.ok { "ok  " } else { "MISS" };
        let (value, low, high) = (fine(bar.value), fine(bar.min), fine(bar.max));
        let _ = writeln!(text, "  {mark} {value:>8} {} {:<6} ({low}–{high})  {}", bar.must, short(bar.bar), bar.name);
    }
    if let Some(connections) = results.connections {
        let _ = writeln!(text, "\nat most {connections} connections: no bar is judged");
    }
    for why in &results.invalid {
        let _ = writeln!(text, "\nINVALID {why}");
    }
    text
}

fn heading(has_baseline: bool) -> String {
    let mut text = format!(
        "  {:<26} {:<22} {:>9} {:>10} {:>17} {:>7} {:>6} {:>8} {:>8} {:>8} {:>8} {:>8} {:>9} {:>6}",
        "",
        "",
        "per s",
        "per CPU-s",
        "range",
        "µs each",
        "user",
        "p50 ms",
        "p90",
        "p99",
        "p99.9",
        "max",
        "RSS MB",
        "gen"
    );
    if has_baseline {
        text.push_str("  baseline");
    }
    text
}

fn line(row: &Row, baseline: Option<&Results>) -> String {
    let spread = |figure| row.spread(figure);
    let per_cpu = spread(Figure::PerCpuSecond);
    let range = per_cpu.map_or(String::new(), |Spread { min, max, .. }| format!("{}–{}", count(min), count(max)));
    let latency = |pick: fn(&super::stats::Latency) -> f64| {
        row.median(|sample| sample.latency.as_ref().map(pick)).map_or("–".to_owned(), |us| format!("{:.2}", us / 1e3))
    };
    let percent = |value: Option<f64>| value.map_or("–".to_owned(), |share| format!("{:.0} %", share * 100.0));
    let mut text = format!(
        "  {:<26} {:<22} {:>9} {:>10} {:>17} {:>7} {:>6} {:>8} {:>8} {:>8} {:>8} {:>8} {:>9} {:>6}",
        row.line,
        row.contender,
        spread(Figure::PerSecond).map_or("–".to_owned(), |s| count(s.median)),
        per_cpu.map_or("–".to_owned(), |s| count(s.median)),
        range,
        spread(Figure::CpuMicros).map_or("–".to_owned(), |s| short(s.median)),
        percent(row.median(|sample| Some(sample.cost.user / sample.cost.cpu()))),
        latency(|l| l.p50),
        latency(|l| l.p90),
        latency(|l| l.p99),
        latency(|l| l.p999),
        latency(|l| l.max),
        row.median(|sample| Some(float(sample.memory.resident) / 1e6)).map_or("–".to_owned(), short),
        percent(row.median(|sample| Some(sample.generator_share()))),
    );
    if let Some(each) = row.median(|sample| sample.per_connection.map(|each| each.anonymous)) {
        let resident = row.median(|sample| sample.per_connection.map(|each| each.resident)).unwrap_or(f64::NAN);
        let cpu = spread(Figure::CpuMillisPerSecond).map_or(f64::NAN, |spread| spread.median);
        let _ =
            write!(text, "\n{:>29} {each:.0} B user space, {resident:.0} B RSS a connection; {cpu:.1} CPU-ms/s", "");
    }
    if row.samples.iter().all(|sample| sample.work.unit == Unit::Call) {
        let micros = |pick: fn(&super::stats::Latency) -> f64| {
            row.median(|sample| sample.latency.as_ref().map(pick)).map_or("–".to_owned(), fine)
        };
        let cpu = spread(Figure::CpuMicros).map_or("–".to_owned(), |s| fine(s.median));
        let _ = write!(
            text,
            "\n{:>29} {cpu} µs of CPU each; p50 {} µs, p99 {} µs",
            "",
            micros(|l| l.p50),
            micros(|l| l.p99)
        );
        if let Some(each) = spread(Figure::AllocationsPerDelivery) {
            let _ = write!(text, "; {} allocations", short(each.median));
        }
    } else if let Some(each) = spread(Figure::AllocationsPerDelivery) {
        let publish = spread(Figure::AllocationsPerPublish).map_or(f64::NAN, |spread| spread.median);
        let _ = write!(text, "\n{:>29} {:.4} allocations a delivery, {} a publish", "", each.median, short(publish));
    }
    if let Some(each) = spread(Figure::EngineMicros) {
        let trips = spread(Figure::RoundTripsPerRequest).map_or(f64::NAN, |spread| spread.median);
        let _ = write!(
            text,
            "\n{:>29} besides {} µs of Redis each; {} Redis round trips a request",
            "",
            short(each.median),
            short(trips)
        );
    }
    if let Some(ratio) = baseline.and_then(|baseline| ratio(row, baseline)) {
        let _ = write!(text, "  {ratio:.2}x");
    }
    text
}

/// Work per CPU-second relative to the baseline.
fn ratio(row: &Row, baseline: &Results) -> Option<f64> {
    let then = baseline.row(&row.cell, &row.line, &row.contender)?.per_cpu_second?;
    Some(row.per_cpu_second?.median / then.median)
}

/// Progress line of one sample.
pub(crate) fn brief(cell: &str, line: &str, contender: &str, sample: &Sample) -> String {
    let figure = match sample.work.unit {
        Unit::Delivery => format!("{} deliveries per CPU-second", count(sample.figure(Figure::PerCpuSecond))),
        Unit::Connection if sample.work.count > 0 => {
            format!("{} µs of CPU a connection", short(sample.figure(Figure::CpuMicros)))
        }
        Unit::Call => format!("{} µs of CPU each", fine(sample.figure(Figure::CpuMicros))),
        Unit::Connection => format!("{:.0} bytes a connection", sample.figure(Figure::AnonymousPerConnection)),
    };
    let mark = if sample.invalid.is_empty() { "" } else { ", INVALID" };
    format!("{cell}, {line}, {contender}: {figure}{mark}")
}

/// Formats a number as `275k`, `4.02M`.
pub(crate) fn count(value: f64) -> String {
    if value.is_nan() {
        "–".to_owned()
    } else if value >= 1e6 {
        format!("{:.2}M", value / 1e6)
    } else if value >= 1e4 {
        format!("{:.0}k", value / 1e3)
    } else {
        format!("{value:.0}")
    }
}

/// Enough digits to show the side of a bar on which a value lies.
pub(crate) fn fine(value: f64) -> String {
    if value.abs() >= 10.0 { short(value) } else { format!("{value:.3}") }
}

pub(crate) fn short(value: f64) -> String {
    if value.abs() >= 100.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}

#[cfg(test)]
mod tests {
    use super::super::sample::Sample;
    use super::*;

    #[test]
    fn a_row_tells_its_ratio_to_the_baseline() {
        let (mut now, mut then) = (Results::default(), Results::default());
        now.add("cell", "line", "skylark", Sample::of(300_000, 1.0));
        then.add("cell", "line", "skylark", Sample::of(200_000, 1.0));
        let text = table(&now, Some(&then));
        assert!(text.contains("1.50x") && text.contains("300k"), "{text}");
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!((count(999.0), count(275_123.0), count(4_020_000.0)), ("999".into(), "275k".into(), "4.02M".into()));
    }
}
