//! The report of a run: numbers as JSON, and pages made of them. Nothing is measured here.

mod compare;
mod html;
mod knee;
mod text;

pub use compare::compare;
pub use html::page;
pub use knee::{Knee, knee_page, knee_text};
pub use text::text;

use crate::error::LoadError;
use crate::measure::{Compared, CompletionCounts, EditCounts, ErrorCount, Metric, Tally, TokenCounts};
use crate::run::{CompletionTrigger, ProcessUse, RunState};
use crate::target::LoadTarget;
use hdrhistogram::Histogram;
use pie_proto::v1;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

const FORMAT: u32 = 1;
/// Points of a timeline.
const MOMENTS: usize = 120;
/// Quantiles of a latency's curve.
const CURVE: [f64; 16] =
    [0.0, 0.1, 0.25, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.97, 0.99, 0.995, 0.999, 0.9999];

/// What was run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RunFacts {
    /// Where load was sent.
    pub target: String,
    /// The model there, as far as the server says.
    pub model: String,
    /// Ranks of the pool's groups.
    pub ranks: usize,
    /// What was played, in words.
    pub stream: String,
    /// Documents open at any time.
    pub sessions: usize,
    /// Times as fast as written.
    pub speed: f64,
    /// Edits a second that were due in the measured time.
    pub edits_offered_per_second: f64,
    /// Played, but not measured.
    pub warmup_s: f64,
    /// Seconds that were measured.
    pub duration_s: f64,
    /// For a first token to be of use.
    pub limit_ms: f64,
    /// The most tokens of a completion.
    pub tokens: u32,
    /// Whether every keystroke asked, and dropped what was asked before.
    pub storm: bool,
    /// Whether the run was cut short: the measured time is what there was of it.
    #[serde(default)]
    pub interrupted: bool,
}

impl RunFacts {
    pub(crate) fn of(
        shared: &RunState,
        measured: Duration,
        edits: EditCounts,
        about: Option<&v1::DescribePoolResponse>,
    ) -> Self {
        let RunState { options, source, target, speed, .. } = shared;
        let (target, ranks) = match target {
            LoadTarget::Pool(_) => {
                let ranks = about.map_or(0, |about| about.groups.iter().map(|group| group.ranks.len()).sum());
                (format!("pie-pool {}", about.map_or("?", |about| about.version.as_str())), ranks)
            }
            LoadTarget::OpenAi(server) => (server.url(), 0),
        };
        let duration_s = measured.as_secs_f64();
        Self {
            target,
            model: about.map(|about| about.model.clone()).unwrap_or_default(),
            ranks,
            stream: source.describe(),
            sessions: options.sessions,
            speed: *speed,
            edits_offered_per_second: (edits.sent + edits.unsent) as f64 / duration_s,
            warmup_s: options.warmup.as_secs_f64(),
            duration_s,
            limit_ms: options.limit.as_secs_f64() * 1e3,
            tokens: options.tokens,
            storm: options.asking == CompletionTrigger::EveryKeystroke,
            interrupted: false,
        }
    }
}

/// What the pool said of itself before and after.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PoolFacts {
    /// KV slots of all groups.
    pub slots_total: u64,
    /// Free before the run.
    pub slots_free_before: u64,
    /// Free when all sessions of the run were closed.
    pub slots_free_after: u64,
    /// Sessions of others before and after.
    pub sessions_before: u64,
    /// Sessions of others when all of the run were closed.
    pub sessions_after: u64,
    /// What the groups' owners counted meanwhile; nothing if they do not count.
    pub counters: BTreeMap<String, u64>,
}

impl PoolFacts {
    pub(crate) fn of(
        before: Option<&v1::DescribePoolResponse>,
        after: Option<&v1::DescribePoolResponse>,
    ) -> Option<Self> {
        let (before, after) = before.zip(after)?;
        let sum = |about: &v1::DescribePoolResponse, of: fn(&v1::Group) -> u32| {
            about.groups.iter().map(|group| u64::from(of(group))).sum()
        };
        Some(Self {
            slots_total: sum(after, |group| group.slots_total),
            slots_free_before: sum(before, |group| group.slots_free),
            slots_free_after: sum(after, |group| group.slots_free),
            sessions_before: sum(before, |group| group.sessions),
            sessions_after: sum(after, |group| group.sessions),
            counters: counters(before, after),
        })
    }

    /// Slots that nobody gave back: all must be free when no session is left. Where others have sessions, before or afterwards,
    /// their slots come and go, and nothing can be said.
    pub fn leaked(&self) -> u64 {
        match (self.sessions_before, self.sessions_after) {
            (0, 0) => self.slots_total.saturating_sub(self.slots_free_after),
            _ => 0,
        }
    }
}

fn counters(before: &v1::DescribePoolResponse, after: &v1::DescribePoolResponse) -> BTreeMap<String, u64> {
    let mut sums: BTreeMap<String, u64> = BTreeMap::new();
    for counters in after.groups.iter().filter_map(|group| group.counters.as_ref()) {
        for (name, value) in named(counters) {
            *sums.entry(name.to_owned()).or_default() += value;
        }
    }
    for counters in before.groups.iter().filter_map(|group| group.counters.as_ref()) {
        for (name, value) in named(counters) {
            // A group that was formed again counts from 0.
            let sum = sums.entry(name.to_owned()).or_default();
            *sum = sum.saturating_sub(value);
        }
    }
    sums
}

fn named(counters: &v1::Counters) -> [(&'static str, u64); 15] {
    [
        ("steps", counters.steps),
        ("passes", counters.passes),
        ("interrupts", counters.interrupts),
        ("tokens_encoded", counters.tokens_encoded),
        ("tokens_repaired", counters.tokens_repaired),
        ("tokens_rotated", counters.tokens_rotated),
        ("tokens_reused", counters.tokens_reused),
        ("tokens_adopted", counters.tokens_adopted),
        ("tokens_shared", counters.tokens_shared),
        ("tokens_generated", counters.tokens_generated),
        ("sessions_dropped", counters.sessions_dropped),
        ("repairs_given_up", counters.repairs_given_up),
        ("refused", counters.refused),
        ("compute_us", counters.compute_us),
        ("collective_us", counters.collective_us),
    ]
}

/// A latency's distribution, in milliseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// How many were measured.
    pub count: u64,
    /// Arithmetic mean.
    pub mean: f64,
    /// Milliseconds below which half of them stay.
    pub p50: f64,
    /// Milliseconds below which 90 % stay.
    pub p90: f64,
    /// Milliseconds below which 99 % stay.
    pub p99: f64,
    /// Milliseconds below which 99.9 % stay.
    pub p999: f64,
    /// The slowest.
    pub max: f64,
    /// (quantile, milliseconds).
    pub curve: Vec<(f64, f64)>,
}

impl Latency {
    fn of(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
        // A quantile beyond the sample says nothing.
        let known = |quantile: &&f64| (1.0 - **quantile) * histogram.len() as f64 >= 0.999;
        Self {
            count: histogram.len(),
            mean: histogram.mean() / 1e3,
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: histogram.max() as f64 / 1e3,
            curve: CURVE.iter().filter(known).map(|quantile| (*quantile, at(*quantile))).collect(),
        }
    }
}

/// A part of the measured time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Moment {
    /// Its beginning, seconds.
    pub at_s: f64,
    /// Its length, seconds.
    pub length_s: f64,
    /// Edits a second that were answered.
    pub edits_per_second: f64,
    /// First tokens a second.
    pub answers_per_second: f64,
    /// Calls that failed.
    pub errors: u64,
    /// Of the first tokens that were due in it, milliseconds; none without any.
    pub first_token_p50_ms: Option<f64>,
    /// The same: 99 % are faster.
    pub first_token_p99_ms: Option<f64>,
}

/// Everything that is known of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LoadReport {
    /// The version of this form, by which a file is known to be a report.
    pub pie_load_report: u32,
    /// What was run.
    pub facts: RunFacts,
    /// Edits that were due in the measured time.
    pub edits: EditCounts,
    /// Completions that were due in it.
    pub completions: CompletionCounts,
    /// Completions a second whose first token came within the limit.
    pub goodput_per_second: f64,
    /// Tokens of these completions.
    pub tokens: TokenCounts,
    /// Latencies, by the name of the metric.
    pub latencies: BTreeMap<String, Latency>,
    /// Calls that were repeated, because the pool refused them for a moment.
    #[serde(default)]
    pub repeats: u64,
    /// Failed calls by code.
    pub errors: BTreeMap<String, ErrorCount>,
    /// Documents compared at their end; nothing if that was not asked for.
    pub compared: Compared,
    /// The measured time in at most 120 parts.
    pub timeline: Vec<Moment>,
    /// The pool before and after.
    pub pool: Option<PoolFacts>,
    /// A process that was watched.
    pub process: Option<ProcessUse>,
}

impl LoadReport {
    pub(crate) fn of(
        facts: RunFacts,
        tally: &Tally,
        pool: Option<PoolFacts>,
        process: Option<ProcessUse>,
    ) -> Self {
        let histograms = tally.latencies.iter().filter(|(_, histogram)| !histogram.is_empty());
        let latencies = histograms
            .map(|(metric, histogram)| (metric.name().to_owned(), Latency::of(histogram)))
            .collect();
        let process = process.map(|process| ProcessUse {
            cpu_us_per_edit: process.cpu_seconds * 1e6 / tally.acknowledged_ever.max(1) as f64,
            ..process
        });
        Self {
            pie_load_report: FORMAT,
            goodput_per_second: tally.completions.within_limit as f64 / facts.duration_s,
            timeline: timeline(&facts, tally),
            facts,
            edits: tally.edits.clone(),
            completions: tally.completions.clone(),
            tokens: tally.tokens.clone(),
            latencies,
            repeats: 0,
            errors: tally.errors.clone(),
            compared: tally.compared.clone(),
            pool,
            process,
        }
    }

    /// A latency, if it was measured.
    pub fn latency(&self, metric: Metric) -> Option<&Latency> {
        self.latencies.get(metric.name())
    }

    /// What a run that was to be correct did wrong, in words. Errors whose codes are allowed do not count.
    pub fn faults(&self, allowed: &[String]) -> Vec<String> {
        let mut faults = self
            .compared
            .different
            .iter()
            .map(|what| format!("a document differs: {what}"))
            .collect::<Vec<_>>();
        for (code, error) in self.errors.iter().filter(|(code, _)| !allowed.contains(code)) {
            faults.push(format!("{} times {code}: {}", error.count, error.example));
        }
        if let Some(leaked) = self.pool.as_ref().map(PoolFacts::leaked).filter(|leaked| *leaked > 0) {
            faults.push(format!("{leaked} KV slots were not given back when all sessions were closed"));
        }
        if self.edits.unsent > 0 {
            faults
                .push(format!("{} steps were due and never sent: the server fell behind", self.edits.unsent));
        }
        faults
    }
}

fn timeline(facts: &RunFacts, tally: &Tally) -> Vec<Moment> {
    let seconds = facts.duration_s.ceil().max(1.0) as usize;
    let length = seconds.div_ceil(MOMENTS);
    let mut first_tokens: Vec<Vec<u32>> = vec![Vec::new(); seconds.div_ceil(length)];
    for (at, micros) in &tally.first_tokens {
        if let Some(moment) = first_tokens.get_mut(*at as usize / length) {
            moment.push(*micros);
        }
    }
    let moments = first_tokens.into_iter().enumerate();
    moments
        .map(|(index, mut tokens)| {
            tokens.sort_unstable();
            let at = |share: f64| {
                let last = tokens.len().checked_sub(1)?;
                Some(f64::from(tokens[(last as f64 * share).round() as usize]) / 1e3)
            };
            let start = index * length;
            let length_s = (facts.duration_s - start as f64).min(length as f64);
            let all = tally.seconds.iter().skip(start).take(length);
            let sum = |of: fn(&crate::measure::Second) -> u32| {
                all.clone().map(|second| u64::from(of(second))).sum::<u64>()
            };
            Moment {
                at_s: start as f64,
                length_s,
                edits_per_second: sum(|second| second.edits) as f64 / length_s,
                answers_per_second: sum(|second| second.answers) as f64 / length_s,
                errors: sum(|second| second.errors),
                first_token_p50_ms: at(0.5),
                first_token_p99_ms: at(0.99),
            }
        })
        .collect()
}

/// Reads a report, or a knee's.
///
/// # Errors
/// The file is none.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<T, LoadError> {
    let text = std::fs::read_to_string(path).map_err(LoadError::file(path))?;
    serde_json::from_str(&text)
        .map_err(|error| LoadError::BadReport { path: path.to_owned(), reason: error.to_string() })
}

/// Writes a report's file.
///
/// # Errors
/// The file cannot be written.
pub fn write(path: &Path, text: &str) -> Result<(), LoadError> {
    std::fs::write(path, text).map_err(LoadError::file(path))
}

/// A report as JSON.
///
/// # Errors
/// A number that JSON does not have.
pub fn json<T: Serialize>(report: &T) -> Result<String, LoadError> {
    Ok(serde_json::to_string_pretty(report)? + "\n")
}
