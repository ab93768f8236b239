//! Two runs side by side.

use super::text::{label, millis};
use super::{Latency, LoadReport};
use crate::measure::Metric;
use std::fmt::Write;

type Quantile = (&'static str, fn(&Latency) -> f64);
type Count = (&'static str, fn(&LoadReport) -> u64);
const QUANTILES: [Quantile; 4] = [
    ("p50", |latency| latency.p50),
    ("p90", |latency| latency.p90),
    ("p99", |latency| latency.p99),
    ("p99.9", |latency| latency.p999),
];
/// What the server itself says cannot be compared across servers.
const COMPARED: [Metric; 5] =
    [Metric::EditToFirstToken, Metric::FirstToken, Metric::EditAck, Metric::InterToken, Metric::EndToEnd];

/// Both runs' numbers and their ratios: below 1, B is smaller.
pub fn compare(a: &LoadReport, b: &LoadReport) -> String {
    let mut page = String::new();
    for (name, LoadReport { facts, .. }) in [("A", a), ("B", b)] {
        let _ = writeln!(
            page,
            "{name}  {} {}; {}; {} sessions, {:.1} edits/s offered, {:.0} s",
            facts.target,
            facts.model,
            facts.stream,
            facts.sessions,
            facts.edits_offered_per_second,
            facts.duration_s
        );
    }
    let _ = writeln!(page, "\n{:<28} {:<6} {:>12} {:>12} {:>8}", "", "", "A", "B", "B / A");
    for metric in COMPARED {
        let Some((first, second)) = a.latency(metric).zip(b.latency(metric)) else { continue };
        for (name, of) in QUANTILES {
            let (first, second) = (of(first), of(second));
            row(&mut page, label(metric).0, name, [first, second], millis);
        }
    }
    let number = |value: f64| format!("{value:.2}");
    let rate = |report: &LoadReport, count: u64| count as f64 / report.facts.duration_s;
    let rows: [Count; 5] = [
        ("first tokens", |report| report.completions.answered),
        ("tokens generated", |report| report.tokens.generated),
        ("edits acknowledged", |report| report.edits.acknowledged),
        ("context tokens encoded", |report| report.tokens.encoded + report.tokens.encoded_ahead),
        ("errors", |report| report.errors.values().map(|error| error.count).sum()),
    ];
    row(&mut page, "goodput", "/s", [a.goodput_per_second, b.goodput_per_second], number);
    for (name, of) in rows {
        row(&mut page, name, "/s", [rate(a, of(a)), rate(b, of(b))], number);
    }
    page
}

fn row(page: &mut String, name: &str, what: &str, [a, b]: [f64; 2], written: impl Fn(f64) -> String) {
    let ratio = if a > 0.0 { format!("{:.2}", b / a) } else { "-".to_owned() };
    let _ = writeln!(page, "{name:<28} {what:<6} {:>12} {:>12} {ratio:>8}", written(a), written(b));
}
