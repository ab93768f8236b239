//! Several rates of one stream: where latency leaves the ground.

use super::html::{MILLIS, frame, limit_line, section};
use super::text::millis;
use super::{Latency, LoadReport};
use crate::error::LoadError;
use crate::measure::Metric;
use pie_chart::{Axis, BLUE, Chart, GREEN, LimitLine, RED, Scale, Series};
use serde::{Deserialize, Serialize};
use std::fmt::Write;

/// A p99 of so many times the p99 at the least rate is behind the knee.
const FACTOR: f64 = 3.0;

/// Reports of several rates, ascending.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Knee {
    /// One for each rate.
    pub runs: Vec<LoadReport>,
}

impl Knee {
    /// The greatest rate before p99 of edit to first token is three times that of the least rate, or the server falls
    /// behind. None when the first already does.
    pub fn rate(&self) -> Option<f64> {
        let p99 = |report: &LoadReport| report.latency(Metric::EditToFirstToken).map(|latency| latency.p99);
        let ground = self.runs.first().and_then(p99)?;
        let fine = |report: &&LoadReport| {
            report.edits.unsent == 0 && p99(report).is_some_and(|p99| p99 <= ground * FACTOR)
        };
        self.runs.iter().take_while(fine).last().map(|report| report.facts.edits_offered_per_second)
    }
}

/// A knee for the terminal.
pub fn knee_text(knee: &Knee) -> String {
    let mut page = format!(
        "{:>10} {:>10} {:>12} {:>12} {:>12} {:>12} {:>10} {:>8}\n",
        "offered/s", "acked/s", "TTFT p50", "TTFT p99", "ack p50", "ack p99", "goodput/s", "errors"
    );
    for report in &knee.runs {
        let of = |metric, of: fn(&Latency) -> f64| {
            report.latency(metric).map_or("-".to_owned(), |latency| millis(of(latency)))
        };
        let errors: u64 = report.errors.values().map(|error| error.count).sum();
        let _ = writeln!(
            page,
            "{:>10.1} {:>10.1} {:>12} {:>12} {:>12} {:>12} {:>10.2} {:>8}",
            report.facts.edits_offered_per_second,
            report.edits.acknowledged as f64 / report.facts.duration_s,
            of(Metric::EditToFirstToken, |latency| latency.p50),
            of(Metric::EditToFirstToken, |latency| latency.p99),
            of(Metric::EditAck, |latency| latency.p50),
            of(Metric::EditAck, |latency| latency.p99),
            report.goodput_per_second,
            errors,
        );
    }
    match knee.rate() {
        Some(rate) => {
            let _ = writeln!(
                page,
                "the knee: up to {rate:.1} edits/s p99 stays within {FACTOR} times that of the least rate"
            );
        }
        None => page.push_str("the knee lies below the least rate, or no completion followed an edit\n"),
    }
    page
}

/// The page of a knee.
///
/// # Errors
/// A chart cannot be drawn.
pub fn knee_page(knee: &Knee) -> Result<String, LoadError> {
    let mut body = String::new();
    if let Some(report) = knee.runs.first() {
        let facts = &report.facts;
        let target = super::html::escaped(&format!("{} {}", facts.target, facts.model));
        let _ = writeln!(
            body,
            "<p>{target}, {} sessions, {:.0} s for each rate.</p>",
            facts.sessions, facts.duration_s
        );
    }
    let limit = knee.runs.first().map(|report| limit_line(report.facts.limit_ms));
    section(&mut body, "Edit to first token", "", &latency(knee, Metric::EditToFirstToken, limit))?;
    section(&mut body, "Edit acknowledged", "", &latency(knee, Metric::EditAck, None))?;
    let rate = |name: &str, color, of: fn(&LoadReport) -> f64| {
        let point = |report: &LoadReport| (report.facts.edits_offered_per_second, of(report));
        Series::line(name, color, knee.runs.iter().map(point).collect())
    };
    let chart = Chart {
        title: None,
        x: OFFERED,
        y: Axis { name: "", scale: Scale::FromZero, format: |value| format!("{value:.0}") },
        series: vec![
            rate("edits/s acknowledged", GREEN, |report| {
                report.edits.acknowledged as f64 / report.facts.duration_s
            }),
            rate("goodput/s", BLUE, |report| report.goodput_per_second),
        ],
        limit: None,
    };
    section(&mut body, "Throughput", "", &chart)?;
    let _ = writeln!(body, "<h2>All numbers</h2>\n<pre>{}</pre>", knee_text(knee));
    Ok(frame("pie load knee", &body))
}

const OFFERED: Axis =
    Axis { name: "edits/s offered", scale: Scale::FromZero, format: |value| format!("{value:.0}") };

fn latency(knee: &Knee, metric: Metric, limit: Option<LimitLine>) -> Chart {
    // A quantile beyond the sample is the maximum, and says nothing of its own.
    let of = |name: &str, color, least: u64, of: fn(&Latency) -> f64| {
        let point = |report: &LoadReport| {
            let latency = report.latency(metric).filter(|latency| latency.count >= least)?;
            Some((report.facts.edits_offered_per_second, of(latency)))
        };
        Series::line(name, color, knee.runs.iter().filter_map(point).collect())
    };
    let series = vec![
        of("p50", GREEN, 1, |latency| latency.p50),
        of("p99", BLUE, 1, |latency| latency.p99),
        of("p99.9", RED, 1000, |latency| latency.p999),
    ];
    Chart {
        title: None,
        x: OFFERED,
        y: MILLIS,
        series: series.into_iter().filter(|one| !one.points.is_empty()).collect(),
        limit,
    }
}
