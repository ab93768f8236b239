//! Line charts as SVG text.

use crate::error::LoadError;
use plotters::coord::Shift;
use plotters::prelude::*;

pub(super) const GREEN: RGBColor = RGBColor(0x1b, 0x7f, 0x5c);
pub(super) const RED: RGBColor = RGBColor(0xc4, 0x4e, 0x28);
pub(super) const BLUE: RGBColor = RGBColor(0x4c, 0x5c, 0xa8);
pub(super) const GREY: RGBColor = RGBColor(0x8a, 0x8a, 0x8a);
pub(super) const COLORS: [RGBColor; 4] = [GREEN, BLUE, RED, GREY];

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Scale {
    /// From 0 on.
    Linear,
    Logarithmic,
    /// Quantiles: each nine is as wide as the one before.
    Nines,
}

#[derive(Clone, Copy)]
pub(super) struct Axis {
    pub name: &'static str,
    pub scale: Scale,
    pub format: fn(f64) -> String,
}

pub(super) struct Series {
    pub name: String,
    pub color: RGBColor,
    pub points: Vec<(f64, f64)>,
}

pub(super) struct Chart {
    pub x: Axis,
    pub y: Axis,
    pub series: Vec<Series>,
    /// A line across, with its name.
    pub limit: Option<(f64, String)>,
}

const SIZE: (u32, u32) = (820, 340);
/// Pixels above a chart for the names of its series, and of each.
const HEAD: u32 = 30;
const LEFT: i32 = 84;
const ENTRY: usize = 178;

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// A chart as an SVG element.
pub(super) fn draw(chart: &Chart) -> Result<String, LoadError> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        one(&root, chart).map_err(|error| LoadError::Draw(error.to_string()))?;
        root.present().map_err(|error| LoadError::Draw(error.to_string()))?;
    }
    Ok(svg)
}

fn one(root: &DrawingArea<SVGBackend<'_>, Shift>, chart: &Chart) -> Outcome {
    root.fill(&WHITE)?;
    let (x, y) = (chart.x.scale, chart.y.scale);
    let all = || chart.series.iter().flat_map(|series| &series.points);
    let limit = chart.limit.iter().map(|(value, _)| *value);
    let x_range = range(x, all().map(|(value, _)| *value));
    let y_range = range(y, all().map(|(_, value)| *value).chain(limit));
    let (head, body) = root.split_vertically(HEAD);
    names(&head, chart)?;
    let mut context = ChartBuilder::on(&body)
        .margin(12)
        .margin_top(4)
        .x_label_area_size(38)
        .y_label_area_size(68)
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
    if let Some((value, _)) = &chart.limit {
        let ends = [(x_range.start, y.place(*value)), (x_range.end, y.place(*value))];
        context.draw_series(LineSeries::new(ends, GREY.stroke_width(2)))?;
    }
    for Series { color, points, .. } in &chart.series {
        let points: Vec<_> = points.iter().map(|(a, b)| (x.place(*a), y.place(*b))).collect();
        context.draw_series(LineSeries::new(points.clone(), color.stroke_width(2)))?;
        if points.len() <= 40 {
            context.draw_series(points.into_iter().map(|point| Circle::new(point, 3, color.filled())))?;
        }
    }
    Ok(())
}

fn names(head: &DrawingArea<SVGBackend<'_>, Shift>, chart: &Chart) -> Outcome {
    let style = ("sans-serif", 13).into_text_style(head);
    let limit = chart.limit.iter().map(|(_, name)| (name, GREY));
    let series = chart.series.iter().map(|series| (&series.name, series.color));
    for (x, (name, color)) in (LEFT..).step_by(ENTRY).zip(series.chain(limit)) {
        head.draw(&Circle::new((x + 6, 16), 5, color.filled()))?;
        head.draw_text(name, &style, (x + 18, 9))?;
    }
    Ok(())
}

impl Scale {
    fn place(self, value: f64) -> f64 {
        match self {
            Self::Linear => value,
            Self::Logarithmic => value.max(1e-3).log10(),
            Self::Nines => -(1.0 - value).max(1e-6).log10(),
        }
    }

    fn value(self, place: f64) -> f64 {
        match self {
            Self::Linear => place,
            Self::Logarithmic => 10.0_f64.powf(place),
            Self::Nines => 1.0 - 10.0_f64.powf(-place),
        }
    }
}

/// All values, with a little room.
fn range(scale: Scale, values: impl Iterator<Item = f64>) -> std::ops::Range<f64> {
    let places = values.map(|value| scale.place(value));
    let (least, most) =
        places.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), place| (a.min(place), b.max(place)));
    let (least, most) = if least.is_finite() && most.is_finite() { (least, most) } else { (0.0, 1.0) };
    let least = if scale == Scale::Logarithmic { least } else { 0.0 };
    let room = if most > least { (most - least) * 0.06 } else { 1.0 };
    if scale == Scale::Logarithmic { least - room..most + room } else { least..most + room }
}
