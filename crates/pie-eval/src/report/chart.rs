//! Line and point charts as SVG.

use crate::error::EvalError;
use plotters::coord::Shift;
use plotters::prelude::*;
use std::path::Path;

pub(super) const PIE: RGBColor = RGBColor(0x1b, 0x7f, 0x5c);
pub(super) const FULL: RGBColor = RGBColor(0xc4, 0x4e, 0x28);
pub(super) const CONFLICT: RGBColor = RGBColor(0x4c, 0x5c, 0xa8);
pub(super) const TURNED: RGBColor = RGBColor(0x8a, 0x8a, 0x8a);

/// An axis.
#[derive(Clone, Copy)]
pub(super) struct Axis {
    pub name: &'static str,
    pub scale: Scale,
    /// Writes a value.
    pub format: fn(f64) -> String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Scale {
    Linear,
    Logarithmic,
}

/// How points are shown.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    /// A line through dots.
    Line,
    /// The same line, thin.
    Thin,
    /// A dot alone.
    Dot,
}

pub(super) struct Series {
    pub name: String,
    pub color: RGBColor,
    pub mark: Mark,
    pub points: Vec<(f64, f64)>,
}

pub(super) struct Chart {
    pub title: String,
    pub x: Axis,
    pub y: Axis,
    pub series: Vec<Series>,
}

/// Draws charts side by side.
pub(super) fn draw(path: &Path, charts: &[Chart]) -> Result<(), EvalError> {
    let failed = |error: String| EvalError::Draw { path: path.to_owned(), reason: error };
    let width = 760 * charts.len().max(1) as u32;
    let root = SVGBackend::new(path, (width, 480)).into_drawing_area();
    root.fill(&WHITE).map_err(|error| failed(error.to_string()))?;
    for (chart, area) in charts.iter().zip(root.split_evenly((1, charts.len().max(1)))) {
        one(&area, chart).map_err(|error| failed(error.to_string()))?;
    }
    root.present().map_err(|error| failed(error.to_string()))
}

/// Pixels of the title and the names of the series above a chart, from where on they stand, and for each name.
const HEAD: u32 = 56;
const LEFT: i32 = 88;
const ENTRY: usize = 165;

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn one(area: &DrawingArea<SVGBackend<'_>, Shift>, chart: &Chart) -> Outcome {
    let all = || chart.series.iter().flat_map(|series| &series.points);
    let (x, y) = (chart.x.scale, chart.y.scale);
    let x_range = range(all().map(|(value, _)| x.place(*value)));
    let mut y_range = range(all().map(|(_, value)| y.place(*value)));
    if y == Scale::Linear && all().all(|(_, value)| *value >= 0.0) {
        y_range.start = y_range.start.max(0.0);
    }
    let (head, body) = area.split_vertically(HEAD);
    title(&head, chart)?;
    let mut context = ChartBuilder::on(&body)
        .margin(16)
        .margin_top(4)
        .x_label_area_size(40)
        .y_label_area_size(72)
        .build_cartesian_2d(x_range, y_range)?;
    context
        .configure_mesh()
        .x_label_formatter(&|place| (chart.x.format)(x.value(*place)))
        .y_label_formatter(&|place| (chart.y.format)(y.value(*place)))
        .x_desc(chart.x.name)
        .y_desc(chart.y.name)
        .draw()?;
    for series in &chart.series {
        let color = series.color;
        let points: Vec<_> = series.points.iter().map(|(a, b)| (x.place(*a), y.place(*b))).collect();
        let width = if series.mark == Mark::Line { 2 } else { 1 };
        let radius = if series.mark == Mark::Dot { 6 } else { 3 };
        if series.mark != Mark::Dot {
            context.draw_series(LineSeries::new(points.clone(), color.stroke_width(width)))?;
        }
        context.draw_series(points.into_iter().map(|point| Circle::new(point, radius, color.filled())))?;
    }
    Ok(())
}

/// What the chart shows, and whose each colour is: above the points, so that it hides none.
fn title(head: &DrawingArea<SVGBackend<'_>, Shift>, chart: &Chart) -> Outcome {
    head.draw_text(&chart.title, &("sans-serif", 18).into_text_style(head), (LEFT, 8))?;
    let style = ("sans-serif", 13).into_text_style(head);
    for (x, series) in (LEFT..).step_by(ENTRY).zip(&chart.series) {
        let radius = if series.mark == Mark::Thin { 3 } else { 5 };
        head.draw(&Circle::new((x + 6, 42), radius, series.color.filled()))?;
        head.draw_text(&series.name, &style, (x + 18, 35))?;
    }
    Ok(())
}

impl Scale {
    fn place(self, value: f64) -> f64 {
        match self {
            Self::Linear => value,
            Self::Logarithmic => value.max(1e-12).log10(),
        }
    }

    fn value(self, place: f64) -> f64 {
        match self {
            Self::Linear => place,
            Self::Logarithmic => 10.0_f64.powf(place),
        }
    }
}

/// All values, with a little room.
fn range(values: impl Iterator<Item = f64>) -> std::ops::Range<f64> {
    let bounds =
        values.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), value| (a.min(value), b.max(value)));
    let (least, most) = if bounds.0.is_finite() && bounds.1.is_finite() { bounds } else { (0.0, 1.0) };
    let room = if most > least { (most - least) * 0.06 } else { 1.0 };
    least - room..most + room
}
