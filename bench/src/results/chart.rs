//! A chart of rows over one axis, as SVG: bars with their range, or dots. Independent of the bench.

use std::fmt::Write as _;

use super::stats::Spread;

/// Rows from top to bottom. Consecutive rows with the same group share a heading.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Chart {
    pub(crate) title: String,
    /// The measured quantity with its unit.
    pub(crate) axis: String,
    pub(crate) scale: Scale,
    pub(crate) rows: Vec<Row>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scale {
    /// From 0.
    Linear,
    /// Decades; values of 0 or less are drawn at the left end.
    Log,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Row {
    pub(crate) group: String,
    pub(crate) label: String,
    pub(crate) mark: ChartMark,
    /// Index of the colour.
    pub(crate) colour: usize,
    /// Text after the mark.
    pub(crate) note: String,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum ChartMark {
    /// The median as a bar, the range as a whisker.
    Bar(Spread),
    /// Values from left to right, each with its name.
    Dots(Vec<(&'static str, f64)>),
}

/// Distinguishable with colour vision deficiency (Okabe and Ito).
const COLOURS: [&str; 7] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#666666"];
const WIDTH: f64 = 900.0;
const LEFT: f64 = 230.0;
const RIGHT: f64 = 140.0;
const TOP: f64 = 44.0;
const ROW: f64 = 20.0;
const HEADING: f64 = 26.0;
const FOOT: f64 = 52.0;

impl Chart {
    pub(crate) fn svg(&self) -> String {
        let headings = self.rows.chunk_by(|a, b| a.group == b.group).count();
        let bottom = TOP + rows(self.rows.len()) * ROW + rows(headings) * HEADING;
        let axis = Axis::of(self);
        let mut body = String::new();
        put(&mut body, 16.0, 24.0, "start", "font-size=\"16\" font-weight=\"bold\"", &self.title);
        for (value, label) in axis.ticks() {
            let x = axis.x(value);
            let _ = writeln!(body, r##"<path d="M{x:.1} {TOP}V{bottom:.1}" stroke="#ddd"/>"##);
            put(&mut body, x, bottom + 16.0, "middle", "", &label);
        }
        put(&mut body, LEFT + axis.width() / 2.0, bottom + 38.0, "middle", "", &self.axis);
        let mut y = TOP;
        for group in self.rows.chunk_by(|a, b| a.group == b.group) {
            put(&mut body, 16.0, y + 18.0, "start", "font-weight=\"bold\"", &group[0].group);
            y += HEADING;
            for row in group {
                draw(&mut body, row, &axis, y);
                y += ROW;
            }
        }
        let height = bottom + FOOT;
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\" \
             font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n{body}</svg>\n"
        )
    }
}

/// Draws one row with its upper end at `y`.
fn draw(body: &mut String, row: &Row, axis: &Axis, y: f64) {
    let (middle, colour) = (y + ROW / 2.0, COLOURS[row.colour % COLOURS.len()]);
    put(body, LEFT - 8.0, middle + 4.0, "end", "", &row.label);
    let end = match &row.mark {
        ChartMark::Bar(Spread { median, min, max }) => {
            let (x, low, high) = (axis.x(*median), axis.x(*min), axis.x(*max));
            let (width, top, height) = (x - LEFT, y + 3.0, ROW - 6.0);
            let _ = writeln!(
                body,
                r##"<rect x="{LEFT}" y="{top}" width="{width:.1}" height="{height}" fill="{colour}"/><path d="M{low:.1} {middle}H{high:.1}M{low:.1} {top}v{height}M{high:.1} {top}v{height}" stroke="#222"/>"##
            );
            x.max(high)
        }
        ChartMark::Dots(dots) => {
            let ends = dots.first().zip(dots.last()).map_or((0.0, 0.0), |(first, last)| (first.1, last.1));
            let (low, high) = (axis.x(ends.0), axis.x(ends.1));
            let _ = writeln!(body, r##"<path d="M{low:.1} {middle}H{high:.1}" stroke="{colour}"/>"##);
            for (name, value) in dots {
                let x = axis.x(*value);
                let _ = writeln!(
                    body,
                    r##"<circle cx="{x:.1}" cy="{middle}" r="4" fill="{colour}"><title>{} {value}</title></circle>"##,
                    escape(name)
                );
            }
            high
        }
    };
    put(body, end + 8.0, middle + 4.0, "start", "", &row.note);
}

fn put(body: &mut String, x: f64, y: f64, anchor: &str, style: &str, text: &str) {
    let text = escape(text);
    let _ = writeln!(body, r##"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}" {style}>{text}</text>"##);
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Maps values to positions.
struct Axis {
    scale: Scale,
    low: f64,
    high: f64,
}

impl Axis {
    fn of(chart: &Chart) -> Self {
        let values = chart.rows.iter().flat_map(|row| match &row.mark {
            ChartMark::Bar(spread) => vec![spread.min, spread.median, spread.max],
            ChartMark::Dots(dots) => dots.iter().map(|dot| dot.1).collect(),
        });
        let values: Vec<f64> = values.filter(|value| value.is_finite() && *value > 0.0).collect();
        let most = values.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
        match chart.scale {
            Scale::Linear => Self { scale: Scale::Linear, low: 0.0, high: if values.is_empty() { 1.0 } else { most } },
            Scale::Log if values.is_empty() => Self { scale: Scale::Log, low: 1.0, high: 10.0 },
            Scale::Log => {
                let least = values.iter().copied().fold(f64::MAX, f64::min);
                let (low, high) = (least.log10().floor(), most.log10().ceil());
                Self { scale: Scale::Log, low: 10_f64.powf(low), high: 10_f64.powf(high.max(low + 1.0)) }
            }
        }
    }

    fn width(&self) -> f64 {
        WIDTH - LEFT - RIGHT
    }

    fn x(&self, value: f64) -> f64 {
        let share = match self.scale {
            Scale::Linear => value / self.high,
            Scale::Log => (value.max(self.low) / self.low).log10() / (self.high / self.low).log10(),
        };
        LEFT + self.width() * if share.is_nan() { 0.0 } else { share.clamp(0.0, 1.0) }
    }

    fn ticks(&self) -> Vec<(f64, String)> {
        let values: Vec<f64> = match self.scale {
            Scale::Linear => {
                let power = 10_f64.powf((self.high / 4.0).log10().floor());
                let step = [1.0, 2.0, 5.0, 10.0].map(|n| n * power).into_iter().find(|step| self.high / step <= 6.0);
                let step = step.unwrap_or(power * 10.0);
                std::iter::successors(Some(0.0), |at| Some(at + step)).take_while(|at| *at <= self.high).collect()
            }
            Scale::Log => std::iter::successors(Some(self.low), |at| Some(at * 10.0))
                .take_while(|at| *at <= self.high * 1.01)
                .collect(),
        };
        values.into_iter().map(|value| (value, short(value))).collect()
    }
}

/// Formats a number as `0.5`, `20k`, `1.5M`.
fn short(value: f64) -> String {
    let digits = |value: f64| {
        let text = format!("{value:.3}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    match value.abs() {
        ..1e4 => digits(value),
        ..1e6 => digits((value / 1e2).round() / 10.0) + "k",
        _ => digits((value / 1e4).round() / 100.0) + "M",
    }
}

#[expect(clippy::cast_precision_loss, reason = "a chart has few rows")]
const fn rows(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(group: &str, label: &str, median: f64) -> Row {
        let mark = ChartMark::Bar(Spread { median, min: median / 2.0, max: median * 2.0 });
        Row { group: group.to_owned(), label: label.to_owned(), mark, colour: 0, note: short(median) }
    }

    fn chart(scale: Scale, rows: Vec<Row>) -> Chart {
        Chart { title: "a < b".to_owned(), axis: "deliveries per second".to_owned(), scale, rows }
    }

    #[test]
    fn a_chart_tells_its_title_axis_groups_and_rows() {
        let svg =
            chart(Scale::Linear, vec![row("one", "x", 1_000.0), row("one", "y", 250_000.0), row("two", "x", 1.0)])
                .svg();
        for text in ["a &lt; b<", ">deliveries per second<", ">one<", ">two<", ">y<", ">250k<", ">500k<", ">0<"] {
            assert!(svg.contains(text), "{text} is not in {svg}");
        }
        assert_eq!((svg.matches(">one<").count(), svg.matches("<rect x=").count()), (1, 3));
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
    }

    #[test]
    fn the_longest_whisker_ends_at_the_end_of_the_axis() {
        let axis = Axis::of(&chart(Scale::Linear, vec![row("", "", 50.0)]));
        assert_eq!((axis.x(0.0), axis.x(100.0), axis.x(f64::NAN)), (LEFT, WIDTH - RIGHT, LEFT));
    }

    #[test]
    fn decades_have_one_width_and_nothing_leaves_the_axis() {
        let dots = ChartMark::Dots(vec![("p50", 0.02), ("max", 30.0)]);
        let rows = vec![Row { mark: dots, ..row("", "", 0.0) }];
        let axis = Axis::of(&chart(Scale::Log, rows));
        let labels: Vec<String> = axis.ticks().into_iter().map(|tick| tick.1).collect();
        assert_eq!(labels, ["0.01", "0.1", "1", "10", "100"]);
        assert!((axis.x(1.0) - axis.x(0.1) - (axis.x(10.0) - axis.x(1.0))).abs() < 1e-9);
        assert_eq!(axis.x(0.0), LEFT);
    }

    #[test]
    fn chart_without_values_is_valid_svg() {
        for scale in [Scale::Linear, Scale::Log] {
            assert!(chart(scale, vec![row("", "", 0.0)]).svg().contains("</svg>"));
        }
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!([0.25, 999.0, 20_000.0, 1_234_567.0].map(short), ["0.25", "999", "20k", "1.23M"]);
    }
}
