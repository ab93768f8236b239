//! Quality against the edits since the last full encoding.

use super::summary::{AgeKey, CacheQuality, Mean, Summary};
use super::{LOGARITHMIC, draw_charts};
use crate::error::EvalError;
use crate::metrics::median;
use crate::names::{Arm, Spot, Storage};
use pie_chart::{Axis, Chart, GREEN, GREY, Mark, Scale, Series};
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Below this a divergence is drawn at it: nothing that a sampler could see.
const FLOOR: f64 = 1e-9;

pub(super) fn is_there(summary: &Summary) -> bool {
    summary.ages.keys().any(is_without_repairs)
}

pub(super) fn markdown(summary: &Summary) -> String {
    let mut page = String::from("# Many edits without a full encoding\n\n");
    let at_the_end = summary.ages.iter().filter(|(key, _)| key.spot == Spot::End);
    let samples = at_the_end.map(|(_, age)| age.kls.len()).max().unwrap_or(0);
    if let Some((language, setting)) = summary.aged {
        let _ = writeln!(
            page,
            "Model `{}`, {samples} samples of {} {}. Made by `{}`.\n",
            summary.model(),
            language.label(),
            setting.label(),
            summary.command()
        );
    }
    page.push_str(
        "*edited*: a text that is k edits (one to five lines inserted, deleted or replaced anywhere) before the prompt is \
         encoded, then the k edits are made one by one by PIE. *turned*: the prompt's keys are turned there and back, k \
         turns in all, and nothing is encoded. Both are compared with the prompt encoded fresh in the same storage, so \
         *turned* shows rounding alone, and *edited* rounding and stale semantics. bf16: rows are rounded whenever they are \
         written or turned; all else is computed in f32.\n\n",
    );
    page.push_str("| storage | cache | edits | EM | ES | same prediction as fresh | KL, mean | KL, median | cosine of keys, all layers | last layer | never encoded again | turns of a key |\n");
    page.push_str("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n");
    for (key, age) in summary.ages.iter().filter(|(key, _)| is_without_repairs(key)) {
        let AgeKey { storage, arm, edits, .. } = key;
        let _ = writeln!(
            page,
            "| {storage} | {arm} | {edits} | {:.1} | {:.1} | {:.0} % | {:.1e} | {:.1e} | {:.6} | {:.6} | {:.0} % | {:.1} |",
            age.exact_match.value(),
            age.edit_similarity.value(),
            age.agrees.value(),
            age.kl.value(),
            median(age.kls.clone()),
            age.cosine.value(),
            age.last_layer.value(),
            age.kept.value(),
            age.turns.value(),
        );
    }
    page.push('\n');
    shares(summary, &mut page);
    page
}

/// What part of an edited cache's divergence turning alone gives.
fn shares(summary: &Summary, page: &mut String) {
    page.push_str("Rounding's part of the divergence, KL of *turned* over KL of *edited*:\n\n| edits |");
    Storage::ALL.iter().for_each(|storage| page.push_str(&format!(" {storage} |")));
    page.push_str("\n| ---: | ---: | ---: |\n");
    let counts: std::collections::BTreeSet<u32> =
        summary.ages.keys().filter(|key| key.arm == Arm::Edited).map(|key| key.edits).collect();
    for edits in counts {
        let _ = write!(page, "| {edits} |");
        for storage in Storage::ALL {
            let key = |arm| AgeKey { storage: *storage, spot: Spot::End, arm, window: 0, idle: 0, edits };
            let of = |arm| summary.ages.get(&key(arm)).map(|age: &CacheQuality| age.kl.value());
            match (of(Arm::Turned), of(Arm::Edited)) {
                (Some(turned), Some(edited)) if edited > 0.0 => {
                    let _ = write!(page, " {:.2} % |", 100.0 * turned / edited);
                }
                _ => page.push_str(" |"),
            }
        }
        page.push('\n');
    }
}

fn is_without_repairs(key: &AgeKey) -> bool {
    key.spot == Spot::End && matches!(key.arm, Arm::Fresh | Arm::Edited | Arm::Turned)
}

pub(super) fn csv(summary: &Summary) -> String {
    let mut page = String::from(
        "storage,spot,cache,window,idle_seconds,edits,samples,exact_match,edit_similarity,agrees,kl_mean,kl_median,cosine,\
         cosine_last_layer,kept,turns,kl_followed,greedy_followed,edit_rows,edit_ms,idle_rows\n",
    );
    let measured = |mean: &Mean| if mean.count > 0 { format!("{:e}", mean.value()) } else { String::new() };
    for (key, age) in &summary.ages {
        let AgeKey { storage, spot, arm, window, idle, edits } = key;
        let _ = writeln!(
            page,
            "{storage},{spot},{arm},{window},{idle},{edits},{},{:.2},{:.2},{:.2},{:e},{:e},{},{},{:.2},{:.2},{},{},{},{},{}",
            age.kls.len(),
            age.exact_match.value(),
            age.edit_similarity.value(),
            age.agrees.value(),
            age.kl.value(),
            median(age.kls.clone()),
            age.cosine.value(),
            age.last_layer.value(),
            age.kept.value(),
            age.turns.value(),
            measured(&age.followed),
            measured(&age.greedy),
            measured(&age.edit_rows),
            measured(&age.edit_ms),
            measured(&age.idle_rows),
        );
    }
    page
}

pub(super) fn draw(summary: &Summary, folder: &Path) -> Result<Vec<PathBuf>, EvalError> {
    if !is_there(summary) {
        return Ok(Vec::new());
    }
    let x = Axis { name: "edits, or turns", scale: LOGARITHMIC, format: |value| format!("{value:.0}") };
    let divergence = Chart {
        title: Some(format!("{}: next token, against a fresh cache", summary.model())),
        x,
        y: Axis { name: "KL divergence, nats", scale: LOGARITHMIC, format: |value| format!("{value:.0e}") },
        series: series(summary, |age| age.kl.value().max(FLOOR)),
        limit: None,
    };
    let quality = Chart {
        title: Some(format!("{}: predicted line, against the true one", summary.model())),
        x,
        y: Axis {
            name: "edit similarity, percent",
            scale: Scale::Linear,
            format: |value| format!("{value:.1}"),
        },
        series: series(summary, |age| age.edit_similarity.value()),
        limit: None,
    };
    let path = folder.join("accumulated.svg");
    draw_charts(&path, &[divergence, quality])?;
    Ok(vec![path])
}

fn series(summary: &Summary, of: fn(&CacheQuality) -> f64) -> Vec<Series> {
    let mut list = Vec::new();
    for (arm, color) in [(Arm::Edited, GREEN), (Arm::Turned, GREY)] {
        for storage in Storage::ALL {
            let is_mine = |key: &AgeKey| key.storage == *storage && key.spot == Spot::End && key.arm == arm;
            let mine = summary.ages.iter().filter(|(key, _)| is_mine(key));
            let points = mine.map(|(key, age)| (f64::from(key.edits), of(age))).collect();
            let mark = if *storage == Storage::F32 { Mark::Line } else { Mark::Thin };
            list.push(Series { name: format!("{arm}, {storage}"), color, mark, points });
        }
    }
    list
}
