//! Both latencies of each step as an SVG picture.

use super::report::Report;
use crate::Failure;
use plotters::prelude::*;
use std::path::Path;

const PIE: RGBColor = RGBColor(0x1b, 0x7f, 0x5c);
const FULL: RGBColor = RGBColor(0xc4, 0x4e, 0x28);

/// Draws edit-to-first-token of `pie` and `full` for each step, on a logarithmic axis.
pub fn draw(report: &Report, path: &Path) -> Result<(), Failure> {
    let root = SVGBackend::new(path, (900, 480)).into_drawing_area();
    root.fill(&WHITE)?;
    let values = || {
        report.rows.iter().flat_map(|row| [row.pie.edit_to_first_token_ms, row.full.edit_to_first_token_ms])
    };
    let least = values().fold(f64::INFINITY, f64::min).max(0.1);
    let most = values().fold(1.0, f64::max);
    let title =
        format!("Edit to first token, {} tokens, {} workers", report.document_tokens, report.world_size);
    let mut chart = ChartBuilder::on(&root)
        .caption(title, ("sans-serif", 20))
        .margin(16)
        .x_label_area_size(40)
        .y_label_area_size(64)
        .build_cartesian_2d(0.5..report.rows.len() as f64 + 0.5, (least / 2.0..most * 2.0).log_scale())?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(report.rows.len())
        .x_label_formatter(&|x| format!("{x:.0}"))
        .x_desc("edit")
        .y_desc("milliseconds")
        .draw()?;
    type Latency = fn(&super::report::Row) -> f64;
    let series: [(&str, RGBColor, Latency); 2] = [
        ("pie", PIE, |row| row.pie.edit_to_first_token_ms),
        ("full", FULL, |row| row.full.edit_to_first_token_ms),
    ];
    for (name, color, latency) in series {
        let points: Vec<_> = report
            .rows
            .iter()
            .enumerate()
            .map(|(index, row)| (index as f64 + 1.0, latency(row).max(0.1)))
            .collect();
        chart
            .draw_series(LineSeries::new(points.clone(), color.stroke_width(2)))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2)));
        chart.draw_series(points.into_iter().map(|point| Circle::new(point, 4, color.filled())))?;
    }
    chart.configure_series_labels().background_style(WHITE.mix(0.8)).border_style(BLACK.mix(0.3)).draw()?;
    root.present()?;
    Ok(())
}
