//! Both latencies of each step as an SVG picture.

use super::report::{ComparedStep, DemoReport};
use crate::Failure;
use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::path::Path;

const PIE: RGBColor = RGBColor(0x1b, 0x7f, 0x5c);
const FULL: RGBColor = RGBColor(0xc4, 0x4e, 0x28);
const WIDTH: u32 = 920;
const ROW: u32 = 34;
const HEAD: u32 = 64;
const FOOT: u32 = 60;
const NAMES: u32 = 250;

type StepChart<'a> = ChartContext<
    'a,
    SVGBackend<'a>,
    Cartesian2d<plotters::coord::combinators::LogCoord<f64>, RangedCoordf64>,
>;

/// Draws edit-to-first-token of `pie` and `full`, a line for each step, on a logarithmic axis.
pub fn draw(report: &DemoReport, path: &Path) -> Result<(), Failure> {
    let steps = report.rows.len();
    let height = HEAD + FOOT + ROW * u32::try_from(steps)?;
    let root = SVGBackend::new(path, (WIDTH, height)).into_drawing_area();
    root.fill(&WHITE)?;
    title(report, &root)?;
    let values = || report.rows.iter().flat_map(|row| [pie(row), full(row)]);
    let least = values().fold(f64::INFINITY, f64::min);
    let most = values().fold(1.0, f64::max);
    let mut chart = ChartBuilder::on(&root)
        .margin_top(HEAD - 14)
        .margin_left(NAMES)
        .margin_right(70)
        .margin_bottom(10)
        .x_label_area_size(FOOT - 14)
        .build_cartesian_2d((least / 1.5..most * 1.5).log_scale(), steps as f64 - 0.5..-0.5)?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .disable_y_axis()
        .x_label_formatter(&|x| format!("{x}"))
        .x_desc("milliseconds from the edit to the first token")
        .label_style(("sans-serif", 13))
        .light_line_style(BLACK.mix(0.05))
        .draw()?;
    for (index, row) in report.rows.iter().enumerate() {
        step(&mut chart, &root, row, index)?;
    }
    root.present()?;
    Ok(())
}

fn pie(row: &ComparedStep) -> f64 {
    row.pie.edit_to_first_token_ms.max(0.1)
}

fn full(row: &ComparedStep) -> f64 {
    row.full.edit_to_first_token_ms.max(0.1)
}

fn title(report: &DemoReport, root: &DrawingArea<SVGBackend<'_>, Shift>) -> Result<(), Failure> {
    let text = format!(
        "Edit to first token: {} tokens of code, {} workers",
        report.document_tokens, report.world_size
    );
    root.draw_text(&text, &("sans-serif", 19).into_text_style(root), (16, 12))?;
    for (x, name, color) in [(600, "pie", PIE), (670, "full recomputation", FULL)] {
        root.draw(&Circle::new((x, 22), 5, color.filled()))?;
        root.draw_text(name, &("sans-serif", 15).into_text_style(root), (x + 12, 14))?;
    }
    Ok(())
}

/// A step's two points, joined; its name to the left, how many times faster to the right.
fn step(
    chart: &mut StepChart<'_>,
    root: &DrawingArea<SVGBackend<'_>, Shift>,
    row: &ComparedStep,
    index: usize,
) -> Result<(), Failure> {
    let (at, pie, full) = (index as f64, pie(row), full(row));
    chart.draw_series(LineSeries::new([(pie, at), (full, at)], BLACK.mix(0.25).stroke_width(2)))?;
    chart
        .draw_series([Circle::new((pie, at), 5, PIE.filled()), Circle::new((full, at), 5, FULL.filled())])?;
    let (_, y) = chart.backend_coord(&(pie, at));
    let text = |position| ("sans-serif", 14).into_text_style(root).pos(Pos::new(position, VPos::Center));
    root.draw_text(&row.edit, &text(HPos::Right), (i32::try_from(NAMES)? - 12, y))?;
    let right = i32::try_from(WIDTH)? - 12;
    root.draw_text(&format!("{:.1}x", row.speedup()), &text(HPos::Right), (right, y))?;
    Ok(())
}
