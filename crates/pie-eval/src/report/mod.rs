//! Pages made of results: the paper's tables and figures, and what many edits cost. Nothing is computed again.

mod accumulated;
mod figures;
mod healing;
mod published;
mod streams;
mod summary;
mod tables;
mod windows;

use crate::error::EvalError;
use crate::results;
use pie_chart::{Chart, RGBColor, Scale, Size};
use std::path::{Path, PathBuf};
use summary::Summary;
use windows::Windows;

/// Makes all pages of a folder's results beside them; returns what was written.
///
/// # Errors
/// No results, or a folder that cannot be written.
pub fn write(folder: &Path) -> Result<Vec<PathBuf>, EvalError> {
    let lines = results::read(folder)?;
    let summary = Summary::of(&lines);
    let mut written = Vec::new();
    let mut page = |name: &str, text: String| {
        let path = folder.join(name);
        std::fs::write(&path, text).map_err(EvalError::file(&path))?;
        written.push(path);
        Ok::<_, EvalError>(())
    };
    page("tables.md", tables::markdown(&summary))?;
    page("tables.csv", tables::csv(&summary))?;
    if !summary.distances.is_empty() {
        page("figures.csv", figures::csv(&summary))?;
    }
    if accumulated::is_there(&summary) {
        page("accumulated.md", accumulated::markdown(&summary))?;
    }
    if !summary.ages.is_empty() {
        page("accumulated.csv", accumulated::csv(&summary))?;
    }
    if healing::is_there(&summary) {
        page("healing.md", healing::markdown(&summary))?;
    }
    if streams::is_there(&summary) {
        page("streams.md", streams::markdown(&summary))?;
    }
    let windows = Windows::of(&lines);
    if !windows.is_empty() {
        page("windows.md", windows::markdown(&windows, &summary))?;
        page("windows.csv", windows::csv(&windows))?;
    }
    written.extend(figures::draw(&summary, folder)?);
    written.extend(accumulated::draw(&summary, folder)?);
    written.extend(healing::draw(&summary, folder)?);
    written.extend(streams::draw(&summary, folder)?);
    written.extend(windows::draw(&windows, &summary, folder)?);
    Ok(written)
}

/// Divergences and latencies of many sizes; smaller divergences are rounding.
const LOGARITHMIC: Scale = Scale::Logarithmic { floor: 1e-12 };

/// What repairs.
const PURPLE: RGBColor = RGBColor(0x7b, 0x3f, 0x98);

/// Of each chart of a figure.
const SIZE: Size = (760, 480);

/// Draws the charts of a figure side by side.
fn draw_charts(path: &Path, charts: &[Chart]) -> Result<(), EvalError> {
    std::fs::write(path, pie_chart::draw(charts, SIZE)?).map_err(EvalError::file(path))
}
