//! What the demo found: a line for each step as it happens, a summary, and all of it as JSON.

use pie_client::Completed;
use pie_eval::metrics::median;
use pie_proto::v1;
use serde::Serialize;
use std::collections::BTreeMap;

/// Characters of a completion that the table shows.
const SHOWN: usize = 90;

/// One step of the script on both sessions.
#[derive(Clone, Debug, Serialize)]
pub struct ComparedStep {
    /// What was edited, in words.
    pub edit: String,
    /// Requests that it took.
    pub requests: usize,
    /// What `pie` did for its first token.
    pub pie: StepCost,
    /// What the session with the strategy `full` did.
    pub full: StepCost,
    /// Leading tokens of the two completions that are equal.
    pub equal_tokens: usize,
    /// Tokens of a completion.
    pub completed_tokens: usize,
    /// The document's last line, which the completions go on from.
    pub last_line: String,
    /// What `pie` completes.
    pub pie_text: String,
    /// What `full` completes.
    pub full_text: String,
    /// Kullback-Leibler divergence of `pie`'s first token from `full`'s, over `full`'s most likely tokens and the rest
    /// taken as one.
    pub divergence: f64,
}

/// The cost of a first token.
#[derive(Clone, Debug, Serialize)]
pub struct StepCost {
    /// Tokens encoded.
    pub encoded: u32,
    /// Keys turned.
    pub rotated: u32,
    /// Tokens taken from the cache.
    pub reused: u32,
    /// From the latest edit's arrival to the first token, milliseconds.
    pub edit_to_first_token_ms: f64,
    /// Of that, forward passes.
    pub compute_ms: f64,
}

/// All figures.
#[derive(Clone, Debug, Serialize)]
pub struct DemoReport {
    /// The release that the pool runs.
    pub version: String,
    /// The model's name.
    pub model: String,
    /// Numbers of the model's weights.
    pub parameters: u64,
    /// Worker processes.
    pub world_size: u32,
    /// The file's name.
    pub document: String,
    /// Tokens of the document when it was opened.
    pub document_tokens: u32,
    /// From opening the document to its first completion's first token, milliseconds.
    pub open_to_first_token_ms: f64,
    /// What each step of the script took.
    pub rows: Vec<ComparedStep>,
}

impl DemoReport {
    /// A report without steps, of a pool that describes itself so.
    pub fn new(about: &v1::DescribePoolResponse, document: String, world_size: u32) -> Self {
        Self {
            version: about.version.clone(),
            model: about.model.clone(),
            parameters: about.parameters,
            world_size,
            document,
            document_tokens: 0,
            open_to_first_token_ms: 0.0,
            rows: Vec::new(),
        }
    }

    /// The document is encoded for the first time.
    pub fn opened(&mut self, first: Completed) {
        self.document_tokens = first.timings.tokens_encoded + first.timings.tokens_reused;
        self.open_to_first_token_ms = milliseconds(first.timings.first_token_us);
        outln!(
            "opened: {} tokens, first completion after {:.0} ms\n",
            self.document_tokens,
            self.open_to_first_token_ms
        );
    }
}

impl ComparedStep {
    /// One step of the script: the completions behind the same edit, with each strategy.
    pub fn new(edit: &str, requests: usize, document: &str, pie: &Completed, full: &Completed) -> Self {
        let pairs = pie.tokens.iter().zip(&full.tokens);
        Self {
            edit: edit.to_owned(),
            requests,
            pie: StepCost::of(&pie.timings),
            full: StepCost::of(&full.timings),
            equal_tokens: pairs.take_while(|(a, b)| a.id == b.id).count(),
            completed_tokens: full.tokens.len(),
            last_line: document.rsplit('\n').next().unwrap_or_default().to_owned(),
            pie_text: pie.text.clone(),
            full_text: full.text.clone(),
            divergence: divergence(full.tokens.first(), pie.tokens.first()),
        }
    }

    /// How many times faster.
    pub fn speedup(&self) -> f64 {
        self.full.edit_to_first_token_ms / self.pie.edit_to_first_token_ms.max(1e-3)
    }
}

impl StepCost {
    fn of(timings: &v1::Timings) -> Self {
        Self {
            encoded: timings.tokens_encoded + timings.tokens_encoded_ahead,
            rotated: timings.tokens_rotated,
            reused: timings.tokens_reused.saturating_sub(timings.tokens_encoded_ahead),
            edit_to_first_token_ms: milliseconds(timings.edit_to_first_token_us),
            compute_ms: milliseconds(timings.compute_us),
        }
    }
}

fn milliseconds(micros: u64) -> f64 {
    micros as f64 / 1000.0
}

/// KL(full || pie) of two tokens' alternatives. What `pie` does not list has at most its least listed probability.
fn divergence(full: Option<&v1::CompletedToken>, pie: Option<&v1::CompletedToken>) -> f64 {
    let (Some(full), Some(pie)) = (full, pie) else { return 0.0 };
    let listed: BTreeMap<u32, f64> = pie.top.iter().map(|top| (top.id, f64::from(top.logprob))).collect();
    let least = listed.values().copied().fold(0.0, f64::min);
    let (mut sum, mut mass_full, mut mass_pie) = (0.0, 0.0, 0.0);
    for top in &full.top {
        let (p, q) = (f64::from(top.logprob), listed.get(&top.id).copied().unwrap_or(least));
        sum += p.exp() * (p - q);
        mass_full += p.exp();
        mass_pie += q.exp();
    }
    let (rest_full, rest_pie) = ((1.0 - mass_full).max(1e-9), (1.0 - mass_pie).max(1e-9));
    (sum + rest_full * (rest_full / rest_pie).ln()).max(0.0)
}

/// The table's head.
pub fn header() {
    outln!(
        "{:<31} {:>24}   {:>8}   {:>27}   {:>13}\n{:<31} {:>8} {:>7} {:>7}   {:>8}   {:>9} {:>9} {:>7}   {:>6} {:>6}",
        "",
        "tokens with pie",
        "full",
        "edit to first token",
        "next tokens",
        "edit",
        "encoded",
        "rotated",
        "reused",
        "encoded",
        "pie",
        "full",
        "faster",
        "equal",
        "KL"
    );
}

/// A step's line.
pub fn line(row: &ComparedStep) {
    outln!(
        "{:<31} {:>8} {:>7} {:>7}   {:>8}   {:>6.1} ms {:>6.0} ms {:>6.1}x   {:>3}/{:<2} {:>6.3}",
        row.edit,
        row.pie.encoded,
        row.pie.rotated,
        row.pie.reused,
        row.full.encoded,
        row.pie.edit_to_first_token_ms,
        row.full.edit_to_first_token_ms,
        row.speedup(),
        row.equal_tokens,
        row.completed_tokens,
        row.divergence,
    );
}

/// What was completed: the line so far, and in marks what the model adds, line breaks shown as arrows.
pub fn completion(row: &ComparedStep) {
    let shown = |text: &str| {
        let text: String =
            text.trim_end().replace('\n', "↵").split_whitespace().collect::<Vec<_>>().join(" ");
        let cut: String = text.chars().take(SHOWN).collect();
        if cut.len() < text.len() { cut + "…" } else { cut }
    };
    let last: String = row.last_line.trim_start().to_owned();
    if row.pie_text == row.full_text {
        outln!("    both: {last}⟨{}⟩", shown(&row.pie_text));
    } else {
        outln!("    pie:  {last}⟨{}⟩\n    full: {last}⟨{}⟩", shown(&row.pie_text), shown(&row.full_text));
    }
}

/// What it comes to.
pub fn summary(report: &DemoReport) {
    if report.rows.is_empty() {
        return;
    }
    let of = |value: fn(&ComparedStep) -> f64| median(report.rows.iter().map(value).collect());
    let encoded = |value: fn(&ComparedStep) -> u32| report.rows.iter().map(value).sum::<u32>();
    let agree = report.rows.iter().filter(|row| row.equal_tokens > 0).count();
    outln!(
        "\nmedian edit to first token: pie {:.1} ms, full {:.1} ms: {:.1} times faster",
        of(|row| row.pie.edit_to_first_token_ms),
        of(|row| row.full.edit_to_first_token_ms),
        of(ComparedStep::speedup)
    );
    outln!(
        "tokens encoded in all: pie {}, full {}; next token equal to full's in {agree} of {} edits",
        encoded(|row| row.pie.encoded),
        encoded(|row| row.full.encoded),
        report.rows.len()
    );
}
