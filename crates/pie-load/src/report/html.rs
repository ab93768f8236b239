//! A report as one HTML file that needs nothing else.

use super::text::{label, millis};
use super::{Latency, LoadReport};
use crate::error::LoadError;
use crate::measure::Metric;
use pie_chart::{Axis, BLUE, Chart, GREEN, GREY, LimitLine, RED, Scale, Series, Size, draw};
use std::fmt::Write;
use std::slice;

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;color:#222;max-width:860px;margin:32px auto;padding:0 16px}\
h1{font-size:22px;margin:0}h2{font-size:16px;margin:32px 0 6px}p{margin:6px 0;color:#555}\
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}\
th,td{padding:4px 8px;text-align:right;border-bottom:1px solid #e6e6e6;vertical-align:top}\
th:first-child,td:first-child{text-align:left}th{color:#777;font-weight:500}td small{color:#888;display:block}\
.cards{display:flex;flex-wrap:wrap;gap:12px;margin:20px 0}.card{flex:1 1 150px;background:#f6f7f6;border-radius:8px;padding:12px 14px}\
.card b{display:block;font-size:22px;color:#1b7f5c}.card.bad b{color:#c44e28}.card span{color:#666;font-size:13px}\
svg{width:100%;height:auto;border:1px solid #eee;border-radius:6px}pre{background:#f6f7f6;padding:12px;border-radius:8px;white-space:pre-wrap}";

/// A page around a body.
pub(super) fn frame(title: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>{title}</title><style>{STYLE}</style>\n<h1>{title}</h1>\n{body}</html>\n",
        title = escaped(title)
    )
}

/// Text that cannot be taken for markup.
pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// The page of a report.
///
/// # Errors
/// A chart cannot be drawn.
pub fn page(report: &LoadReport) -> Result<String, LoadError> {
    let mut body = String::new();
    let facts = &report.facts;
    let _ = writeln!(
        body,
        "<p>{} {}, {} ranks. {} sessions, {:.1} edits/s offered in open loop, {:.0} s measured. {}.</p>",
        escaped(&facts.target),
        escaped(&facts.model),
        facts.ranks,
        facts.sessions,
        facts.edits_offered_per_second,
        facts.duration_s,
        escaped(&facts.stream),
    );
    cards(&mut body, report);
    let _ = writeln!(body, "<h2>Latencies</h2>\n{}", table(report));
    section(&mut body, "Latency by percentile", "", &percentiles(report))?;
    let note = "By when the completion was due, not by when it was sent.";
    section(&mut body, "First token over time", note, &first_tokens(report))?;
    section(&mut body, "Throughput", "", &throughput(report))?;
    let _ = writeln!(body, "<h2>All numbers</h2>\n<pre>{}</pre>", escaped(&super::text(report)));
    Ok(frame("pie load", &body))
}

/// Of all charts of the page.
const SIZE: Size = (820, 340);

pub(super) fn section(body: &mut String, title: &str, note: &str, chart: &Chart) -> Result<(), LoadError> {
    let note = if note.is_empty() { String::new() } else { format!("<p>{note}</p>\n") };
    let _ = writeln!(body, "<h2>{title}</h2>\n{note}{}", draw(slice::from_ref(chart), SIZE)?);
    Ok(())
}

fn cards(body: &mut String, report: &LoadReport) {
    let quantile = |of: fn(&Latency) -> f64| {
        report.latency(Metric::EditToFirstToken).map_or("–".to_owned(), |latency| millis(of(latency)))
    };
    let errors: u64 = report.errors.values().map(|error| error.count).sum();
    let limit = format!("completions/s within {:.0} ms", report.facts.limit_ms);
    let acknowledged = report.edits.acknowledged as f64 / report.facts.duration_s;
    let good = ["card", "card bad"];
    let troubles = errors + report.compared.different.len() as u64;
    let cards = [
        (good[0], quantile(|latency| latency.p50), "edit to first token, p50"),
        (good[0], quantile(|latency| latency.p99), "edit to first token, p99"),
        (good[0], format!("{:.1}", report.goodput_per_second), limit.as_str()),
        (good[0], format!("{acknowledged:.0}"), "edits/s acknowledged"),
        (good[usize::from(troubles > 0)], troubles.to_string(), "errors and differing documents"),
    ];
    body.push_str("<div class=\"cards\">");
    for (class, value, name) in cards {
        let _ = write!(body, "<div class=\"{class}\"><b>{value}</b><span>{name}</span></div>");
    }
    body.push_str("</div>\n");
}

fn table(report: &LoadReport) -> String {
    let mut rows = String::from(
        "<table><tr><th></th><th>count</th><th>p50</th><th>p90</th><th>p99</th><th>p99.9</th><th>max</th></tr>",
    );
    for metric in Metric::ALL {
        let Some(Latency { count, p50, p90, p99, p999, max, .. }) = report.latency(metric) else { continue };
        let (name, meaning) = label(metric);
        let _ = write!(rows, "<tr><td>{name}<small>{meaning}</small></td><td>{count}</td>");
        for value in [p50, p90, p99, p999, max] {
            let _ = write!(rows, "<td>{}</td>", millis(*value));
        }
        rows.push_str("</tr>");
    }
    rows + "</table>"
}

pub(super) const MILLIS: Axis = Axis { name: "", scale: Scale::Logarithmic { floor: 1e-3 }, format: millis };

fn percentiles(report: &LoadReport) -> Chart {
    let metrics = [Metric::EditToFirstToken, Metric::EditAck, Metric::EndToEnd, Metric::InterToken];
    let measured = metrics.iter().zip([GREEN, BLUE, RED, GREY]).filter_map(|(metric, color)| {
        let points = report.latency(*metric)?.curve.clone();
        Some(Series::line(label(*metric).0, color, points))
    });
    Chart {
        title: None,
        x: Axis { name: "percentile", scale: Scale::Nines, format: percent },
        y: MILLIS,
        series: measured.collect(),
        limit: None,
    }
}

/// Only whole nines have a label: 90, 99, 99.9.
fn percent(quantile: f64) -> String {
    let nines = -(1.0 - quantile).log10();
    if (nines - nines.round()).abs() > 1e-6 {
        return String::new();
    }
    let text = format!("{:.3}", quantile * 100.0);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// The latency that is not to be exceeded.
pub(super) fn limit_line(milliseconds: f64) -> LimitLine {
    LimitLine { value: milliseconds, name: format!("limit {milliseconds:.0} ms") }
}

fn first_tokens(report: &LoadReport) -> Chart {
    let of = |value: fn(&super::Moment) -> Option<f64>| {
        report.timeline.iter().filter_map(|moment| Some((moment.at_s, value(moment)?))).collect()
    };
    Chart {
        title: None,
        x: SECONDS,
        y: MILLIS,
        series: vec![
            Series::line("p50", GREEN, of(|moment| moment.first_token_p50_ms)),
            Series::line("p99", BLUE, of(|moment| moment.first_token_p99_ms)),
        ],
        limit: Some(limit_line(report.facts.limit_ms)),
    }
}

const SECONDS: Axis = Axis { name: "seconds", scale: Scale::FromZero, format: |value| format!("{value:.0}") };

fn throughput(report: &LoadReport) -> Chart {
    let of = |value: fn(&super::Moment) -> f64| {
        report.timeline.iter().map(|moment| (moment.at_s, value(moment))).collect()
    };
    let errors = Series::line("errors/s", RED, of(|moment| moment.errors as f64 / moment.length_s));
    let mut series = vec![
        Series::line("edits/s", GREEN, of(|moment| moment.edits_per_second)),
        Series::line("first tokens/s", BLUE, of(|moment| moment.answers_per_second)),
    ];
    series.extend((!report.errors.is_empty()).then_some(errors));
    let y = Axis { name: "", scale: Scale::FromZero, format: |value| format!("{value:.0}") };
    Chart { title: None, x: SECONDS, y, series, limit: None }
}
