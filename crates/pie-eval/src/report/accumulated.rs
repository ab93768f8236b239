//! Quality against the edits since the last full encoding.

use super::summary::{Age, Summary};
use super::{LOGARITHMIC, draw_charts};
use crate::error::EvalError;
use crate::metrics::median;
use crate::results::{Arm, Storage};
use pie_chart::{Axis, Chart, GREEN, GREY, Mark, Scale, Series};
use std::fmt::Write;
use std::path::{Path, PathBuf};

const STORAGES: [(Storage, &str); 2] = [(Storage::F32, "f32"), (Storage::Bf16, "bf16")];
/// Below this a divergence is drawn at it: nothing that a sampler could see.
const FLOOR: f64 = 1e-9;

pub(super) fn markdown(summary: &Summary) -> String {
    let mut page = String::from("# Many edits without a full encoding\n\n");
    let samples = summary.ages.values().map(|age| age.kls.len()).max().unwrap_or(0);
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
    for ((storage, arm, edits), age) in &summary.ages {
        let _ = writeln!(
            page,
            "| {} | {} | {edits} | {:.1} | {:.1} | {:.0} % | {:.1e} | {:.1e} | {:.6} | {:.6} | {:.0} % | {:.1} |",
            name(*storage),
            arm_name(*arm),
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
    STORAGES.iter().for_each(|(_, name)| page.push_str(&format!(" {name} |")));
    page.push_str("\n| ---: | ---: | ---: |\n");
    let counts: std::collections::BTreeSet<u32> =
        summary.ages.keys().filter(|(_, arm, _)| *arm == Arm::Edited).map(|(_, _, edits)| *edits).collect();
    for edits in counts {
        let _ = write!(page, "| {edits} |");
        for (storage, _) in STORAGES {
            let of = |arm| summary.ages.get(&(storage, arm, edits)).map(|age: &Age| age.kl.value());
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

pub(super) fn csv(summary: &Summary) -> String {
    let mut page = String::from(
        "storage,cache,edits,samples,exact_match,edit_similarity,agrees,kl_mean,kl_median,cosine,cosine_last_layer,kept,turns\n",
    );
    for ((storage, arm, edits), age) in &summary.ages {
        let _ = writeln!(
            page,
            "{},{},{edits},{},{:.2},{:.2},{:.2},{:e},{:e},{},{},{:.2},{:.2}",
            name(*storage),
            arm_name(*arm),
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
        );
    }
    page
}

pub(super) fn draw(summary: &Summary, folder: &Path) -> Result<Vec<PathBuf>, EvalError> {
    if summary.ages.is_empty() {
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

fn series(summary: &Summary, of: fn(&Age) -> f64) -> Vec<Series> {
    let mut list = Vec::new();
    for (arm, color) in [(Arm::Edited, GREEN), (Arm::Turned, GREY)] {
        for (storage, name) in STORAGES {
            let mine = summary.ages.iter().filter(|((s, a, _), _)| *s == storage && *a == arm);
            let points = mine.map(|((_, _, edits), age)| (f64::from(*edits), of(age))).collect();
            let mark = if storage == Storage::F32 { Mark::Line } else { Mark::Thin };
            list.push(Series { name: format!("{}, {name}", arm_name(arm)), color, mark, points });
        }
    }
    list
}

fn name(storage: Storage) -> &'static str {
    STORAGES.iter().find(|(other, _)| *other == storage).map_or("", |(_, name)| name)
}

fn arm_name(arm: Arm) -> &'static str {
    match arm {
        Arm::Fresh => "fresh",
        Arm::Edited => "edited",
        Arm::Turned => "turned",
    }
}
