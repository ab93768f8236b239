//! The paper's figures 1, 3 and 4.

use super::summary::{Cell, Distances, Mean, Summary};
use super::{LOGARITHMIC, PURPLE, draw_charts};
use crate::error::EvalError;
use crate::names::{Language, Method, Setting, Task};
use pie_chart::{Axis, BLUE, Chart, GREEN, Mark, RED, RGBColor, Scale, Series};
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Layers are whole; nothing stands at the ticks between them.
fn whole(place: f64) -> String {
    if (place - place.round()).abs() < 1e-6 { format!("{place:.0}") } else { String::new() }
}

fn color(method: Method) -> RGBColor {
    match method {
        Method::Full => RED,
        Method::Conflict => BLUE,
        Method::Pie => GREEN,
        Method::Repair => PURPLE,
    }
}

/// Draws what there are results for; returns the files.
pub(super) fn draw(summary: &Summary, folder: &Path) -> Result<Vec<PathBuf>, EvalError> {
    let mut written = Vec::new();
    if let Some((language, setting)) = first(summary) {
        let path = folder.join("figure1.svg");
        draw_charts(&path, &latency_and_accuracy(summary, language, setting))?;
        written.push(path);
    }
    if let Some((language, setting)) = summary.compared {
        let of = format!("{}, {} {}", summary.model(), language.label(), setting.label());
        let cosine = Chart {
            title: Some(format!("Keys behind the edit, against full recomputation ({of})")),
            x: Axis { name: "layer", scale: Scale::Linear, format: whole },
            y: Axis {
                name: "cosine similarity",
                scale: Scale::Linear,
                format: |value| format!("{value:.3}"),
            },
            series: series(summary, |distances| &distances.cosine),
            limit: None,
        };
        let kl = Chart {
            title: Some(format!("Generated tokens, against full recomputation ({of})")),
            x: Axis { name: "generated token", scale: Scale::Linear, format: |token| format!("{token:.0}") },
            y: Axis {
                name: "KL divergence, nats",
                scale: LOGARITHMIC,
                format: |value| format!("{value:.0e}"),
            },
            series: series(summary, |distances| &distances.kl),
            limit: None,
        };
        for (name, chart) in [("figure3.svg", cosine), ("figure4.svg", kl)] {
            let path = folder.join(name);
            draw_charts(&path, &[chart])?;
            written.push(path);
        }
    }
    Ok(written)
}

/// Language and setting of figure 1: the first of the tables, as in the paper.
fn first(summary: &Summary) -> Option<(Language, Setting)> {
    summary.cells.keys().map(|(_, language, _, setting)| (*language, *setting)).min()
}

fn latency_and_accuracy(summary: &Summary, language: Language, setting: Setting) -> Vec<Chart> {
    let chart = |name: &'static str, of: fn(&Cell) -> f64| {
        let points = |method: Method| {
            let cell = |task: &Task| summary.cells.get(&(*task, language, method, setting));
            let cells = Task::ALL.iter().filter_map(cell).filter(|cell| cell.timed > 0);
            cells.map(|cell| (cell.median_ms, of(cell))).collect()
        };
        let one = |method: &Method| Series {
            name: method.label().to_owned(),
            color: color(*method),
            mark: Mark::Dots,
            points: points(*method),
        };
        Chart {
            title: Some(format!(
                "{}, {} {}, one dot a task",
                summary.model(),
                language.label(),
                setting.label()
            )),
            x: Axis {
                name: "milliseconds from edit to next token",
                scale: LOGARITHMIC,
                format: |value| format!("{value:.0}"),
            },
            y: Axis { name, scale: Scale::Linear, format: |value| format!("{value:.1}") },
            series: Method::ALL.iter().map(one).filter(|series| !series.points.is_empty()).collect(),
            limit: None,
        }
    };
    let em = chart("exact match, percent", |cell| cell.exact_match.mean);
    vec![em, chart("edit similarity, percent", |cell| cell.edit_similarity.mean)]
}

/// Of each method: all tasks together as a line, and each task as a thin one.
fn series(summary: &Summary, of: fn(&Distances) -> &Vec<Mean>) -> Vec<Series> {
    let mut list = Vec::new();
    for method in [Method::Conflict, Method::Pie, Method::Repair] {
        let mut together: Vec<Mean> = Vec::new();
        let mut add = |name: String, mark: Mark, means: &[Mean]| {
            let value = |(index, mean): (usize, &Mean)| (index as f64 + 1.0, mean.value());
            let points = means.iter().enumerate().map(value).collect();
            list.push(Series { name, color: color(method), mark, points });
        };
        for ((_, other), distances) in &summary.distances {
            if *other == method {
                let means = of(distances);
                together.resize(together.len().max(means.len()), Mean::default());
                for (sum, mean) in together.iter_mut().zip(means) {
                    sum.sum += mean.sum;
                    sum.count += mean.count;
                }
            }
        }
        if !together.is_empty() {
            add(method.label().to_owned(), Mark::Line, &together);
        }
    }
    list
}

/// The numbers of figures 3 and 4, by task.
pub(super) fn csv(summary: &Summary) -> String {
    let mut page = String::from("figure,task,method,place,value,samples\n");
    for ((task, method), distances) in &summary.distances {
        for (figure, means) in [(3, &distances.cosine), (4, &distances.kl)] {
            for (index, mean) in means.iter().enumerate() {
                let (value, count) = (mean.value(), mean.count);
                let _ = writeln!(page, "{figure},{task},{method},{},{value:e},{count}", index + 1);
            }
        }
    }
    page
}
