//! Line and point charts as SVG: of the evaluation's figures and of load reports.
//!
//! **Owns** how numbers become a picture: scales, ranges, colours, and where names stand.
//!
//! **Must not know** what the numbers mean.

use plotters::coord::Shift;
use plotters::prelude::*;
use std::ops::Range;

pub use plotters::style::RGBColor;

/// Our method, and what is good.
pub const GREEN: RGBColor = RGBColor(0x1b, 0x7f, 0x5c);
/// What it is compared with, and what is bad.
pub const RED: RGBColor = RGBColor(0xc4, 0x4e, 0x28);
/// A second kind.
pub const BLUE: RGBColor = RGBColor(0x4c, 0x5c, 0xa8);
/// What is only there for comparison.
pub const GREY: RGBColor = RGBColor(0x8a, 0x8a, 0x8a);

/// How values are laid out along an axis.
#[derive(Clone, Copy, PartialEq)]
pub enum Scale {
    /// Evenly, from the least to the greatest.
    Linear,
    /// Evenly, from 0.
    FromZero,
    /// By their logarithm.
    Logarithmic {
        /// The place of all smaller ones, 0 among them.
        floor: f64,
    },
    /// Quantiles: each nine is as wide as the one before.
    Nines,
}

/// An axis.
#[derive(Clone, Copy)]
pub struct Axis {
    /// What stands beside it.
    pub name: &'static str,
    /// How values are laid out.
    pub scale: Scale,
    /// Writes a value.
    pub format: fn(f64) -> String,
}

/// How points are shown.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// A line, through dots if they are few.
    Line,
    /// The same line, thin.
    Thin,
    /// Dots alone.
    Dots,
}

/// Points that belong together.
pub struct Series {
    /// Stands above the chart, beside the colour.
    pub name: String,
    /// Of its points and lines.
    pub color: RGBColor,
    /// How they are shown.
    pub mark: Mark,
    /// Values of both axes.
    pub points: Vec<(f64, f64)>,
}

impl Series {
    /// Points on a line.
    pub fn line(name: &str, color: RGBColor, points: Vec<(f64, f64)>) -> Self {
        Self { name: name.to_owned(), color, mark: Mark::Line, points }
    }
}

/// A value that is not to be exceeded: a line across.
pub struct LimitLine {
    /// Of the vertical axis.
    pub value: f64,
    /// Stands above the chart.
    pub name: String,
}

/// What one chart shows.
pub struct Chart {
    /// Above all; none where the page around it says it.
    pub title: Option<String>,
    /// To the right.
    pub x: Axis,
    /// Upwards.
    pub y: Axis,
    /// What is drawn.
    pub series: Vec<Series>,
    /// And what it is measured against.
    pub limit: Option<LimitLine>,
}

/// The width and height of a chart in pixels.
pub type Size = (u32, u32);

/// A chart that cannot be drawn.
#[derive(Debug, thiserror::Error)]
#[error("a chart cannot be drawn: {0}")]
pub struct ChartError(String);

type Drawing<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), Box<dyn std::error::Error>>;

/// Draws charts side by side, as one SVG element.
///
/// # Errors
/// Numbers that no axis can show.
pub fn draw(charts: &[Chart], (width, height): Size) -> Result<String, ChartError> {
    let mut svg = String::new();
    let size = (width * charts.len().max(1) as u32, height);
    let root = SVGBackend::with_string(&mut svg, size).into_drawing_area();
    draw_all(&root, charts).map_err(|error| ChartError(error.to_string()))?;
    drop(root);
    Ok(svg)
}

fn draw_all(root: &Drawing<'_>, charts: &[Chart]) -> Drawn {
    root.fill(&WHITE)?;
    for (chart, area) in charts.iter().zip(root.split_evenly((1, charts.len().max(1)))) {
        draw_one(&area, chart)?;
    }
    Ok(root.present()?)
}

/// Pixels of the title above a chart; of the names of its series; from where on both stand; for each name.
const TITLE: u32 = 26;
const NAMES: u32 = 30;
const LEFT: i32 = 86;
const NAME: usize = 172;
/// Points of a line that are shown as dots too.
const DOTS_LIMIT: usize = 40;

fn draw_one(area: &Drawing<'_>, chart: &Chart) -> Drawn {
    let (x, y) = (chart.x.scale, chart.y.scale);
    let all = || chart.series.iter().flat_map(|series| &series.points);
    let limit = chart.limit.iter().map(|limit| limit.value);
    let x_range = x.range(all().map(|(value, _)| *value));
    let y_range = y.range(all().map(|(_, value)| *value).chain(limit));
    let title = if chart.title.is_some() { TITLE } else { 0 };
    let (head, body) = area.split_vertically(title + NAMES);
    draw_names(&head, chart, title)?;
    let mut context = ChartBuilder::on(&body)
        .margin(14)
        .margin_top(4)
        .x_label_area_size(40)
        .y_label_area_size(70)
        .build_cartesian_2d(x_range.clone(), y_range)?;
    context
        .configure_mesh()
        .max_light_lines(1)
        .light_line_style(WHITE)
        .bold_line_style(RGBColor(0xdd, 0xdd, 0xdd))
        .axis_style(GREY)
        .x_label_formatter(&|place| (chart.x.format)(x.value(*place)))
        .y_label_formatter(&|place| (chart.y.format)(y.value(*place)))
        .x_desc(chart.x.name)
        .y_desc(chart.y.name)
        .draw()?;
    if let Some(LimitLine { value, .. }) = &chart.limit {
        let ends = [(x_range.start, y.place(*value)), (x_range.end, y.place(*value))];
        context.draw_series(LineSeries::new(ends, GREY.stroke_width(2)))?;
    }
    for Series { color, mark, points, .. } in &chart.series {
        let points: Vec<_> = points.iter().map(|(a, b)| (x.place(*a), y.place(*b))).collect();
        if *mark != Mark::Dots {
            let width = if *mark == Mark::Line { 2 } else { 1 };
            context.draw_series(LineSeries::new(points.clone(), color.stroke_width(width)))?;
        }
        if *mark == Mark::Dots || points.len() <= DOTS_LIMIT {
            let radius = if *mark == Mark::Dots { 6 } else { 3 };
            let dot = |point| Circle::new(point, radius, color.filled());
            context.draw_series(points.into_iter().map(dot))?;
        }
    }
    Ok(())
}

/// What the chart shows, and whose each colour is: above the points, so that it hides none.
fn draw_names(head: &Drawing<'_>, chart: &Chart, below: u32) -> Drawn {
    if let Some(title) = &chart.title {
        head.draw_text(title, &("sans-serif", 18).into_text_style(head), (LEFT, 8))?;
    }
    let style = ("sans-serif", 13).into_text_style(head);
    let series = chart.series.iter().map(|series| {
        let radius = if series.mark == Mark::Thin { 3 } else { 5 };
        (&series.name, series.color, radius)
    });
    let limit = chart.limit.iter().map(|limit| (&limit.name, GREY, 5));
    let below = i32::try_from(below)?;
    for (x, (name, color, radius)) in (LEFT..).step_by(NAME).zip(series.chain(limit)) {
        head.draw(&Circle::new((x + 6, below + 16), radius, color.filled()))?;
        head.draw_text(name, &style, (x + 18, below + 9))?;
    }
    Ok(())
}

impl Scale {
    /// Where a value stands.
    fn place(self, value: f64) -> f64 {
        match self {
            Self::Linear | Self::FromZero => value,
            Self::Logarithmic { floor } => value.max(floor).log10(),
            Self::Nines => -(1.0 - value).max(1e-6).log10(),
        }
    }

    /// What stands at a place.
    fn value(self, place: f64) -> f64 {
        match self {
            Self::Linear | Self::FromZero => place,
            Self::Logarithmic { .. } => 10.0_f64.powf(place),
            Self::Nines => 1.0 - 10.0_f64.powf(-place),
        }
    }

    /// The places of all values, with a little room. What is never negative gets no room below 0.
    fn range(self, values: impl Iterator<Item = f64>) -> Range<f64> {
        let places = values.map(|value| self.place(value));
        let (least, most) =
            places.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), place| (a.min(place), b.max(place)));
        let (least, most) = if least.is_finite() && most.is_finite() { (least, most) } else { (0.0, 1.0) };
        let least = if matches!(self, Self::FromZero | Self::Nines) { 0.0 } else { least };
        let room = if most > least { (most - least) * 0.06 } else { 1.0 };
        let is_logarithmic = matches!(self, Self::Logarithmic { .. });
        let start = if is_logarithmic || least < 0.0 { least - room } else { (least - room).max(0.0) };
        start..most + room
    }
}
