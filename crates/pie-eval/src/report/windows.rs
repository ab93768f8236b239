//! Quality and time by the rows that are encoded again with an edit.

use super::summary::{Mean, Summary};
use super::{LOGARITHMIC, PURPLE, draw_charts};
use crate::error::EvalError;
use crate::metrics::median;
use crate::names::{Choice, Task};
use crate::results::{CaseId, Record, WindowTrial};
use pie_chart::{Axis, BLUE, Chart, GREY, Mark, RED, RGBColor, Scale, Series};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Below this a divergence is drawn at it: nothing that a sampler could see.
const FLOOR: f64 = 1e-9;
/// All but full recomputation.
const WINDOWS: [Choice; 3] = [Choice::Behind, Choice::Before, Choice::Scattered];

/// One choice of rows, on all cases of a task.
#[derive(Clone, Debug, Default)]
struct Point {
    exact_match: Mean,
    edit_similarity: Mean,
    agrees: Mean,
    kl: Mean,
    kls: Vec<f64>,
    greedy: Mean,
    times: Vec<f64>,
    encoded: Mean,
    tokens: Mean,
}

/// All choices of all tasks, on the cases that have every choice.
pub(super) struct Windows(BTreeMap<(Task, Choice, u32), Point>);

impl Windows {
    /// From the lines of a file of results; lines of other experiments are passed over.
    pub fn of(lines: &[Record]) -> Self {
        let all = lines.iter().filter_map(|line| match line {
            Record::Window(one) => Some(one),
            _ => None,
        });
        let mut cases: BTreeMap<CaseId, Vec<&WindowTrial>> = BTreeMap::new();
        let mut choices = BTreeSet::new();
        for one in all {
            choices.insert((one.id.choice, one.id.window));
            cases.entry(one.id.case).or_default().push(one);
        }
        let mut points = BTreeMap::<_, Point>::new();
        // A case that was interrupted would compare choices on other cases than each other's.
        for one in cases.into_values().filter(|trials| trials.len() == choices.len()).flatten() {
            points.entry((one.id.case.task, one.id.choice, one.id.window)).or_default().add(one);
        }
        Self(points)
    }

    /// Whether no case has every choice.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn tasks(&self) -> BTreeSet<Task> {
        self.0.keys().map(|(task, ..)| *task).collect()
    }

    /// The windows of one choice, with what no window gives in front: that is the same for all.
    fn curve(&self, task: Task, choice: Choice) -> Vec<(u32, &Point)> {
        let is_of = |(other, of, window): &(Task, Choice, u32)| {
            *other == task
                && (*of == choice || (*window == 0 && *of == Choice::Behind && choice != Choice::All))
        };
        let mut curve: Vec<_> = self
            .0
            .iter()
            .filter(|(key, _)| is_of(key))
            .map(|((_, _, window), point)| (*window, point))
            .collect();
        curve.sort_by_key(|(window, _)| *window);
        curve
    }
}

impl Point {
    fn add(&mut self, one: &WindowTrial) {
        self.exact_match.add(100.0 * f64::from(u8::from(one.exact_match)));
        self.edit_similarity.add(f64::from(one.edit_similarity));
        self.agrees.add(100.0 * f64::from(u8::from(one.agrees)));
        self.kl.add(f64::from(one.followed.kl));
        self.kls.push(f64::from(one.followed.kl));
        self.greedy.add(100.0 * f64::from(one.followed.greedy));
        self.times.push(one.work.time_ms);
        self.encoded.add(f64::from(one.work.encoded));
        self.tokens.add(one.tokens as f64);
    }

    fn median_ms(&self) -> f64 {
        median(self.times.clone())
    }
}

pub(super) fn markdown(windows: &Windows, summary: &Summary) -> String {
    let mut page = String::from("# How many rows to encode again\n\n");
    let _ = writeln!(page, "Model `{}`. Made by `{}`.\n", summary.model(), summary.command());
    page.push_str(
        "The edit's own pass encodes so many kept rows again, shared out evenly among the edited places: right *behind* them (stale \
         ones), right *before* them (stale or not), or *scattered* over the stale ones at random. No window is PIE. KL and equal \
         tokens are along up to 24 tokens that full recomputation generates; time is from the edit to the next token's logits.\n\n",
    );
    for task in windows.tasks() {
        let points: Vec<_> = windows.0.iter().filter(|((other, ..), _)| *other == task).collect();
        let (cases, tokens) =
            points.first().map_or((0, 0.0), |(_, point)| (point.kls.len(), point.tokens.value()));
        let _ = writeln!(page, "## {}: {cases} cases, {tokens:.0} tokens\n", task.label());
        page.push_str("| rows | window | KL, mean | KL, median | equal tokens | same line as full | EM | ES | rows of the pass | time, median |\n");
        page.push_str("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n");
        for ((_, choice, window), point) in points {
            let window = if *choice == Choice::All { String::new() } else { window.to_string() };
            let _ = writeln!(
                page,
                "| {} | {window} | {:.1e} | {:.1e} | {:.1} % | {:.0} % | {:.1} | {:.1} | {:.0} | {:.1} ms |",
                choice.label(),
                point.kl.value(),
                median(point.kls.clone()),
                point.greedy.value(),
                point.agrees.value(),
                point.exact_match.value(),
                point.edit_similarity.value(),
                point.encoded.value(),
                point.median_ms(),
            );
        }
        page.push('\n');
    }
    page
}

pub(super) fn csv(windows: &Windows) -> String {
    let mut page = String::from(
        "task,rows,window,cases,kl_mean,kl_median,greedy,agrees,exact_match,edit_similarity,encoded,median_ms,tokens\n",
    );
    for ((task, choice, window), point) in &windows.0 {
        let _ = writeln!(
            page,
            "{task},{choice},{window},{},{:e},{:e},{:.2},{:.2},{:.2},{:.2},{:.1},{:.3},{:.1}",
            point.kls.len(),
            point.kl.value(),
            median(point.kls.clone()),
            point.greedy.value(),
            point.agrees.value(),
            point.exact_match.value(),
            point.edit_similarity.value(),
            point.encoded.value(),
            point.median_ms(),
            point.tokens.value(),
        );
    }
    page
}

pub(super) fn draw(windows: &Windows, summary: &Summary, folder: &Path) -> Result<Vec<PathBuf>, EvalError> {
    let mut written = Vec::new();
    for task in windows.tasks() {
        let chart = |y: Axis, choices: &[Choice], value: fn(&Point) -> f64| Chart {
            title: Some(format!("{}, {}: windows of kept rows", summary.model(), task.label())),
            x: Axis {
                name: "milliseconds from edit to next token",
                scale: LOGARITHMIC,
                format: |value| format!("{value:.0}"),
            },
            y,
            series: choices.iter().map(|choice| series(windows, task, *choice, value)).collect(),
            limit: None,
        };
        let kl = Axis {
            name: "KL to full recomputation, nats",
            scale: LOGARITHMIC,
            format: |value| format!("{value:.1e}"),
        };
        let greedy = Axis {
            name: "tokens equal to full recomputation's, percent",
            scale: Scale::Linear,
            format: |value| format!("{value:.1}"),
        };
        // Full recomputation does not diverge from itself.
        let charts = [
            chart(kl, &WINDOWS, |point| point.kl.value().max(FLOOR)),
            chart(greedy, Choice::ALL, |point| point.greedy.value()),
        ];
        let path = folder.join(format!("windows-{task}.svg"));
        draw_charts(&path, &charts)?;
        written.push(path);
    }
    Ok(written)
}

fn series(windows: &Windows, task: Task, choice: Choice, value: fn(&Point) -> f64) -> Series {
    let curve = windows.curve(task, choice).into_iter();
    let mark = if choice == Choice::All { Mark::Dots } else { Mark::Line };
    Series {
        name: choice.label().to_owned(),
        color: color(choice),
        mark,
        points: curve.map(|(_, point)| (point.median_ms(), value(point))).collect(),
    }
}

fn color(choice: Choice) -> RGBColor {
    match choice {
        Choice::Behind => PURPLE,
        Choice::Before => GREY,
        Choice::Scattered => BLUE,
        Choice::All => RED,
    }
}
