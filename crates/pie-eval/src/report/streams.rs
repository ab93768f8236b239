//! Windows of several sizes, and as many rows elsewhere, in streams of many edits.

use super::summary::{AgeKey, CacheQuality, Summary};
use super::{LOGARITHMIC, PURPLE, draw_charts};
use crate::error::EvalError;
use crate::names::{Arm, Spot, Storage};
use pie_chart::{Axis, BLUE, Chart, GREY, Mark, Scale, Series};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Below this a divergence is drawn at it: nothing that a sampler could see.
const FLOOR: f64 = 1e-9;

/// Streams of one length that end in one place.
type StreamKey = (Spot, u32);

pub(super) fn is_there(summary: &Summary) -> bool {
    !streams(summary).is_empty()
}

/// Those that have several windows, or rows elsewhere.
fn streams(summary: &Summary) -> BTreeSet<StreamKey> {
    let of = |arm: Arm| summary.ages.keys().filter(move |key| key.arm == arm && key.storage == Storage::F32);
    let mut streams: BTreeSet<StreamKey> =
        of(Arm::Before).chain(of(Arm::Scattered)).map(|key| (key.spot, key.edits)).collect();
    let mut seen = BTreeSet::new();
    streams.extend(of(Arm::Repaired).map(|key| (key.spot, key.edits)).filter(|stream| !seen.insert(*stream)));
    streams
}

/// One choice of rows by its windows; no window is the same for all.
fn curve(summary: &Summary, (spot, edits): StreamKey, arm: Arm) -> Vec<(u32, &CacheQuality)> {
    let is_of = |key: &AgeKey| {
        let is_plain = key.arm == Arm::Edited;
        key.storage == Storage::F32 && key.spot == spot && key.edits == edits && (key.arm == arm || is_plain)
    };
    let mine = summary.ages.iter().filter(|(key, age)| is_of(key) && age.followed.count > 0);
    let mut curve: Vec<_> = mine.map(|(key, age)| (key.window, age)).collect();
    curve.sort_by_key(|(window, _)| *window);
    curve
}

pub(super) fn markdown(summary: &Summary) -> String {
    let mut page = String::from("# How many rows to encode again, many edits long\n\n");
    let _ = writeln!(
        page,
        "Model `{}`, f32, made-up edits of one to five lines. The pass of *each* edit encodes so many kept \
         rows again: right behind the edited place (*repaired*), right before it, or scattered over the stale rows at random; \
         nothing is done between edits. KL and equal tokens are along up to 24 tokens that a fresh encoding generates.\n",
        summary.model()
    );
    for stream in streams(summary) {
        let (spot, edits) = stream;
        let _ = writeln!(page, "## {edits} edits, line {}\n", spot.label());
        page.push_str("| rows | window | samples | KL, mean | equal tokens | same line as fresh | EM | ES | cosine of keys | rows of an edit | time of an edit |\n");
        page.push_str("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n");
        for arm in [Arm::Repaired, Arm::Before, Arm::Scattered] {
            for (window, age) in curve(summary, stream, arm) {
                let name = if window == 0 { Arm::Edited.label() } else { arm.label() };
                if window == 0 && arm != Arm::Repaired {
                    continue;
                }
                let _ = writeln!(
                    page,
                    "| {name} | {window} | {} | {:.1e} | {:.1} % | {:.0} % | {:.1} | {:.1} | {:.6} | {:.0} | {:.1} ms |",
                    age.kls.len(),
                    age.followed.value(),
                    age.greedy.value(),
                    age.agrees.value(),
                    age.exact_match.value(),
                    age.edit_similarity.value(),
                    age.cosine.value(),
                    age.edit_rows.value(),
                    age.edit_ms.value(),
                );
            }
        }
        page.push('\n');
    }
    page
}

pub(super) fn draw(summary: &Summary, folder: &Path) -> Result<Vec<PathBuf>, EvalError> {
    let mut charts = Vec::new();
    for stream in streams(summary) {
        let one = |(arm, color)| Series {
            name: Arm::label(arm).to_owned(),
            color,
            mark: Mark::Line,
            points: curve(summary, stream, arm)
                .into_iter()
                .map(|(_, age)| (age.edit_ms.value(), age.followed.value().max(FLOOR)))
                .collect(),
        };
        let (spot, edits) = stream;
        charts.push(Chart {
            title: Some(format!("{}, {edits} edits, line {}", summary.model(), spot.label())),
            x: Axis {
                name: "milliseconds of an edit",
                scale: Scale::FromZero,
                format: |value| format!("{value:.0}"),
            },
            y: Axis {
                name: "KL to a fresh cache, nats",
                scale: LOGARITHMIC,
                format: |value| format!("{value:.1e}"),
            },
            series: [(Arm::Repaired, PURPLE), (Arm::Before, GREY), (Arm::Scattered, BLUE)].map(one).into(),
            limit: None,
        });
    }
    if charts.is_empty() {
        return Ok(Vec::new());
    }
    let path = folder.join("streams.svg");
    draw_charts(&path, &charts)?;
    Ok(vec![path])
}
