//! What repairing takes back of the loss by many edits, and what it costs.

use super::summary::{AgeKey, CacheQuality, Mean, Summary};
use super::{LOGARITHMIC, PURPLE, draw_charts};
use crate::error::EvalError;
use crate::names::{Arm, Spot, Storage};
use pie_chart::{Axis, BLUE, Chart, GREEN, Mark, RED, RGBColor, Scale, Series};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Below this a divergence is drawn at it: nothing that a sampler could see.
const FLOOR: f64 = 1e-9;

/// What a chart shows of a cache.
type AgeMetric = fn(&CacheQuality) -> f64;

pub(super) fn is_there(summary: &Summary) -> bool {
    summary.ages.keys().any(|key| matches!(key.arm, Arm::Repaired | Arm::Healed))
}

pub(super) fn markdown(summary: &Summary) -> String {
    let mut page = String::from("# Many edits, repaired\n\n");
    if let Some((language, setting)) = summary.aged {
        let _ = writeln!(
            page,
            "Model `{}`, {} {}, f32; edits of one to five lines are made up, but where they are those of commits. Made by `{}`.\n",
            summary.model(),
            language.label(),
            setting.label(),
            summary.command()
        );
    }
    page.push_str(
        "*edited* is plain PIE, as on the page of many edits. *repaired*: each edit's own pass encodes as many of the kept rows \
         right behind it again. *healed*: and between two edits, none behind the last one, rows are encoded again from the frontier \
         on for so many seconds. *At the cursor* the last edit inserts five lines near the cursor, and the line there is filled in; \
         the edits before it are on both sides. *At the cursor of commits* the edits are the changes of a file's commits around the place \
         where the latest of them added a line, which is filled in. KL and equal tokens are along up to 24 tokens that a fresh encoding generates. Time \
         is that of the edits' own passes; what is done between edits is in the last column alone.\n\n",
    );
    if let Some(first) = summary.commits.first() {
        let files: Vec<String> = summary.commits.iter().map(|one| format!("`{one}`")).collect();
        let _ = writeln!(
            page,
            "Commits are those of {} (`--spots git --git …/{} --accumulated-samples {}`).\n",
            files.join(", "),
            first.repository,
            files.len()
        );
    }
    if let Some(rate) = summary.rate {
        let _ = writeln!(
            page,
            "A pass of {} rows in a document of {} tokens took {:.0} ms here, so a second of a person is {:.0} rows.\n",
            rate.rows, rate.tokens, rate.pass_ms, rate.rows_per_second
        );
    }
    page.push_str("| line | edits | cache | samples | EM | ES | same line as fresh | KL, next token | KL, along the tokens | equal tokens | cosine of keys | rows of an edit | time of an edit | added | rows between edits |\n");
    page.push_str(
        "| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for spot in Spot::ALL {
        for edits in counts(summary, *spot) {
            for (key, age) in of(summary, *spot).filter(|(key, _)| key.edits == edits) {
                row(summary, key, age, &mut page);
            }
        }
    }
    page
}

/// What repairs, and what it is compared with.
fn of(summary: &Summary, spot: Spot) -> impl Iterator<Item = (&AgeKey, &CacheQuality)> {
    // Where windows of several sizes are compared, this page shows those that heal.
    let healed = summary.ages.keys().filter(|key| key.arm == Arm::Healed);
    let windows: BTreeSet<u32> = healed.map(|key| key.window).collect();
    let is_of = move |key: &AgeKey| {
        let is_shown = match key.arm {
            Arm::Fresh | Arm::Edited => true,
            Arm::Repaired | Arm::Healed => windows.is_empty() || windows.contains(&key.window),
            Arm::Turned | Arm::Before | Arm::Scattered => false,
        };
        key.spot == spot && key.storage == Storage::F32 && is_shown
    };
    summary.ages.iter().filter(move |(key, age)| is_of(key) && age.followed.count > 0)
}

fn counts(summary: &Summary, spot: Spot) -> BTreeSet<u32> {
    of(summary, spot).map(|(key, _)| key.edits).collect()
}

fn row(summary: &Summary, key: &AgeKey, age: &CacheQuality, page: &mut String) {
    let plain = AgeKey { arm: Arm::Edited, window: 0, idle: 0, ..*key };
    let plain = summary.ages.get(&plain).map(|age| age.edit_ms).filter(|time| time.value() > 0.0);
    let is_timed = |mean: &Mean| mean.count > 0;
    let time = if is_timed(&age.edit_ms) { format!("{:.1} ms", age.edit_ms.value()) } else { String::new() };
    let added = match plain {
        Some(plain) if is_timed(&age.edit_ms) && key.arm != Arm::Edited => {
            format!("{:+.0} %", 100.0 * (age.edit_ms.value() / plain.value() - 1.0))
        }
        _ => String::new(),
    };
    let _ = writeln!(
        page,
        "| {} | {} | {} | {} | {:.1} | {:.1} | {:.0} % | {:.1e} | {:.1e} | {:.1} % | {:.6} | {:.0} | {time} | {added} | {:.0} |",
        key.spot.label(),
        key.edits,
        name(key),
        age.kls.len(),
        age.exact_match.value(),
        age.edit_similarity.value(),
        age.agrees.value(),
        age.kl.value(),
        age.followed.value(),
        age.greedy.value(),
        age.cosine.value(),
        age.edit_rows.value(),
        age.idle_rows.value(),
    );
}

fn name(key: &AgeKey) -> String {
    match key.arm {
        Arm::Fresh | Arm::Edited | Arm::Turned | Arm::Before | Arm::Scattered => key.arm.to_string(),
        Arm::Repaired => format!("repaired, {} behind", key.window),
        Arm::Healed => format!("healed, {} s, {} behind", key.idle, key.window),
    }
}

pub(super) fn draw(summary: &Summary, folder: &Path) -> Result<Vec<PathBuf>, EvalError> {
    if !is_there(summary) {
        return Ok(Vec::new());
    }
    let mut written = Vec::new();
    let divergence = Axis {
        name: "KL divergence along the tokens, nats",
        scale: LOGARITHMIC,
        format: |value| format!("{value:.1e}"),
    };
    let agreement =
        Axis { name: "equal tokens, percent", scale: Scale::Linear, format: |value| format!("{value:.1}") };
    let figures: [(&str, Axis, AgeMetric); 2] = [
        ("healing-divergence.svg", divergence, |age| age.followed.value().max(FLOOR)),
        ("healing-tokens.svg", agreement, |age| age.greedy.value()),
    ];
    for (file, y, value) in figures {
        let spots = Spot::ALL.iter().filter(|spot| !counts(summary, **spot).is_empty());
        let charts: Vec<Chart> = spots.map(|spot| chart(summary, *spot, y, value)).collect();
        let path = folder.join(file);
        draw_charts(&path, &charts)?;
        written.push(path);
    }
    Ok(written)
}

fn chart(summary: &Summary, spot: Spot, y: Axis, value: AgeMetric) -> Chart {
    let mut series: Vec<Series> = Vec::new();
    for (key, age) in of(summary, spot).filter(|(key, _)| key.arm != Arm::Fresh) {
        let (name, point) = (name(key), (f64::from(key.edits), value(age)));
        match series.iter_mut().find(|series| series.name == name) {
            Some(series) => series.points.push(point),
            None => series.push(Series { name, color: color(key), mark: Mark::Line, points: vec![point] }),
        }
    }
    Chart {
        title: Some(format!("{}, line {}, against a fresh cache", summary.model(), spot.label())),
        x: Axis { name: "edits", scale: LOGARITHMIC, format: |value| format!("{value:.0}") },
        y,
        series,
        limit: None,
    }
}

fn color(key: &AgeKey) -> RGBColor {
    match (key.arm, key.idle) {
        (Arm::Repaired, _) => PURPLE,
        (Arm::Healed, 0..=1) => BLUE,
        (Arm::Healed, _) => GREEN,
        (Arm::Fresh | Arm::Edited | Arm::Turned | Arm::Before | Arm::Scattered, _) => RED,
    }
}
