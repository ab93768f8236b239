//! A report for the terminal.

use super::{Latency, LoadReport};
use crate::measure::Metric;
use std::fmt::Write;

/// What a latency is called in reports, and from when to when it counts.
pub(super) fn label(metric: Metric) -> (&'static str, &'static str) {
    match metric {
        Metric::EditToFirstToken => {
            ("edit to first token", "completions behind an edit, from when they were due")
        }
        Metric::FirstToken => ("first token", "all completions, from when they were due"),
        Metric::EditAck => ("edit acknowledged", "from when the edit was due"),
        Metric::InterToken => ("token to token", ""),
        Metric::EndToEnd => ("whole completion", "from when it was due, those that came to their end"),
        Metric::Open => ("document opened", "during the run, from when it was due"),
        Metric::SendDelay => {
            ("sent late by", "waiting for earlier edits of the session, in every line above")
        }
        Metric::ServerFirstToken => ("server: call to first token", "the server's clock"),
        Metric::ServerEditToFirstToken => {
            ("server: edit to first token", "the server's clock, people's pauses between included")
        }
        Metric::ServerBesideSteps => {
            ("server: beside the ranks", "first token without the ranks' steps: queue and router")
        }
        Metric::OutsideServer => {
            ("outside the server", "first token from sending, without the server's time")
        }
    }
}

/// Milliseconds, with three digits that mean something.
pub(super) fn millis(value: f64) -> String {
    match value {
        value if value >= 10_000.0 => format!("{:.1} s", value / 1e3),
        value if value >= 100.0 => format!("{value:.0} ms"),
        value if value >= 10.0 => format!("{value:.1} ms"),
        value => format!("{value:.2} ms"),
    }
}

/// A report for the terminal.
pub fn text(report: &LoadReport) -> String {
    let mut page = String::new();
    // Writing to a string does not fail.
    let _ = write_facts(&mut page, report);
    let _ = write_latencies(&mut page, report);
    let _ = write_counts(&mut page, report);
    let _ = write_server(&mut page, report);
    let _ = write_troubles(&mut page, report);
    page
}

fn write_facts(page: &mut String, report: &LoadReport) -> std::fmt::Result {
    let facts = &report.facts;
    writeln!(page, "{} {}, {} ranks; {}", facts.target, facts.model, facts.ranks, facts.stream)?;
    writeln!(
        page,
        "{} sessions at {:.3} times their own speed: {:.1} edits/s offered; {:.0} s measured behind {:.0} s of warm-up{}",
        facts.sessions,
        facts.speed,
        facts.edits_offered_per_second,
        facts.duration_s,
        facts.warmup_s,
        if facts.storm { "; every keystroke asks and drops what was asked before" } else { "" },
    )
}

fn write_latencies(page: &mut String, report: &LoadReport) -> std::fmt::Result {
    writeln!(
        page,
        "\n{:<28} {:>8} {:>10} {:>10} {:>10} {:>10} {:>10}",
        "", "count", "p50", "p90", "p99", "p99.9", "max"
    )?;
    for metric in Metric::ALL {
        if let Some(Latency { count, p50, p90, p99, p999, max, .. }) = report.latency(metric) {
            let [p50, p90, p99, p999, max] = [p50, p90, p99, p999, max].map(|value| millis(*value));
            let (name, _) = label(metric);
            writeln!(page, "{name:<28} {count:>8} {p50:>10} {p90:>10} {p99:>10} {p999:>10} {max:>10}")?;
        }
    }
    Ok(())
}

fn write_counts(page: &mut String, report: &LoadReport) -> std::fmt::Result {
    let (edits, counts, facts) = (&report.edits, &report.completions, &report.facts);
    writeln!(
        page,
        "\nedits        {} sent, {} acknowledged ({:.1}/s), {} by the whole text, {} never sent; tokens {} in, {} out, {} tokenized again",
        edits.sent,
        edits.acknowledged,
        edits.acknowledged as f64 / facts.duration_s,
        edits.resynced,
        edits.unsent,
        edits.tokens_inserted,
        edits.tokens_deleted,
        edits.tokens_retokenized,
    )?;
    writeln!(
        page,
        "completions  {} asked, {} answered, {} finished; ended by a newer edit {} before a token and {} after; dropped by the client {} and {}; {} failed",
        counts.asked,
        counts.answered,
        counts.finished,
        counts.superseded_unanswered,
        counts.superseded_answered,
        counts.cancelled_unanswered,
        counts.cancelled_answered,
        counts.failed,
    )?;
    let late = counts.answered - counts.within_limit;
    writeln!(
        page,
        "goodput      {:.2} completions/s with a first token within {:.0} ms ({} of {} answered were later; {} were given up later than that without one)",
        report.goodput_per_second, facts.limit_ms, late, counts.answered, counts.given_up_late,
    )?;
    writeln!(
        page,
        "accepted     {} whole or in part; {} times nothing had come",
        counts.accepted, counts.nothing_to_accept
    )
}

fn write_server(page: &mut String, report: &LoadReport) -> std::fmt::Result {
    let tokens = &report.tokens;
    writeln!(
        page,
        "tokens       {} generated ({:.1}/s); of contexts {} encoded when asked, {} ahead, {} rotated, {} reused, {} adopted",
        tokens.generated,
        tokens.generated as f64 / report.facts.duration_s,
        tokens.encoded,
        tokens.encoded_ahead,
        tokens.rotated,
        tokens.reused,
        tokens.adopted,
    )?;
    if let Some(pool) = &report.pool {
        let counted = pool.counters.iter().filter(|(_, value)| **value > 0);
        let counted: Vec<String> = counted.map(|(name, value)| format!("{name} {value}")).collect();
        writeln!(
            page,
            "pool         {} of {} slots free afterwards{}{}",
            pool.slots_free_after,
            pool.slots_total,
            if counted.is_empty() { "" } else { "; counted: " },
            counted.join(", "),
        )?;
    }
    if let Some(process) = &report.process {
        let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        writeln!(
            page,
            "process {}  {:.2} s of processor time, {:.0} µs for an edit; {:.1} MiB resident at the start, {:.1} MiB at most",
            process.pid,
            process.cpu_seconds,
            process.cpu_us_per_edit,
            mebibytes(process.resident_first),
            mebibytes(process.resident_most),
        )?;
    }
    Ok(())
}

fn write_troubles(page: &mut String, report: &LoadReport) -> std::fmt::Result {
    if report.repeats > 0 {
        writeln!(page, "repeated     {} calls that the pool refused for a moment", report.repeats)?;
    }
    for (code, error) in &report.errors {
        writeln!(page, "error        {} times {code}, first: {}", error.count, error.example)?;
    }
    let compared = &report.compared;
    if compared.equal > 0 || !compared.different.is_empty() {
        writeln!(
            page,
            "compared     {} documents equal, {} different",
            compared.equal,
            compared.different.len()
        )?;
    }
    if report.facts.interrupted {
        writeln!(page, "note         the run was cut short: the figures are of the time until then")?;
    }
    if report.edits.unsent > 0 {
        writeln!(
            page,
            "note         the server fell behind: latencies of what was never sent are missing above"
        )?;
    }
    Ok(())
}
