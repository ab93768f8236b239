//! The rows of `pie bench gpu`, each beside its floor; the targets; the table.

use super::floor::{Floors, Pass, Rates};
use pie_eval::engine::Done;
use serde::Serialize;
use std::fmt::Write;

/// What a row measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MeasurementKind {
    /// A whole document to its next token.
    Recompute,
    /// An edit to the next token.
    Edit,
    /// Turning keys alone.
    Settle,
    /// Opening documents, one behind the other.
    Prefill,
    /// Sessions that generate together.
    Decode,
}

/// One figure.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    /// What is measured.
    pub kind: MeasurementKind,
    /// As `64 tokens at 50 %`.
    pub what: String,
    /// Tokens of the document, of each session.
    pub context: u32,
    /// Sessions that take part.
    pub batch: u32,
    /// `pie`, `conflict`, `full`, of edits.
    pub strategy: Option<&'static str>,
    /// Of edits that insert at one place: how much of the context stands before it.
    pub at_percent: Option<u32>,
    /// Rows that were encoded.
    pub encoded: u64,
    /// Keys that were turned, of all layers counted as one.
    pub turned: u64,
    /// Median of the repetitions, milliseconds.
    pub ms: f64,
    /// The least that the GPU's rates allow, milliseconds.
    pub floor_ms: f64,
    /// Measured time over floor: 1 cannot be beaten.
    pub over_floor: f64,
    /// Of generated or encoded tokens.
    pub tokens_per_s: f64,
    /// Bytes that must be read (of settling: read and written) a second, in 10^9.
    pub gb_per_s: f64,
    /// The same as a share of the measured bandwidth.
    pub of_bandwidth: f64,
    /// Operations a second as a share of the measured matrix rate.
    pub of_matrix_rate: f64,
    /// How much less time than recomputing from the same edit: 1 - the median of the ratios of neighbours.
    pub below_full: Option<f64>,
}

impl Figure {
    /// Of passes that took `seconds` and made `tokens` tokens.
    pub fn new(
        kind: MeasurementKind,
        what: String,
        (context, batch): (u32, u32),
        timed: &TimedPasses<'_>,
    ) -> Self {
        let TimedPasses { floors, passes, seconds, tokens } = *timed;
        let (floor, rates) = (floors.seconds(passes), floors.rates());
        Self {
            kind,
            what,
            context,
            batch,
            strategy: None,
            at_percent: None,
            encoded: passes.iter().map(|pass| pass.rows).sum(),
            turned: 0,
            ms: 1e3 * seconds,
            floor_ms: 1e3 * floor,
            over_floor: seconds / floor,
            tokens_per_s: tokens as f64 / seconds,
            gb_per_s: floors.bytes(passes) as f64 / seconds / 1e9,
            of_bandwidth: floors.bytes(passes) as f64 / seconds / rates.bytes_per_s,
            of_matrix_rate: floors.operations(passes) as f64 / seconds / rates.operations_per_s,
            below_full: None,
        }
    }

    /// Of an edit, with what it did by the engine's own count.
    pub fn edit(self, strategy: &'static str, done: Done) -> Self {
        let (encoded, turned) = (done.encoded.into(), done.rotated.into());
        Self { strategy: Some(strategy), encoded, turned, ..self }
    }

    /// Of turning `turned` keys of `key_bytes` bytes, each read and written.
    pub fn settle(context: u32, turned: u32, key_bytes: u64, seconds: f64, rates: Rates) -> Self {
        let bytes = 2.0 * f64::from(turned) * key_bytes as f64;
        let floor = bytes / rates.bytes_per_s;
        Self {
            kind: MeasurementKind::Settle,
            what: "turning keys alone".to_owned(),
            context,
            batch: 1,
            strategy: None,
            at_percent: None,
            encoded: 0,
            turned: turned.into(),
            ms: 1e3 * seconds,
            floor_ms: 1e3 * floor,
            over_floor: seconds / floor,
            tokens_per_s: f64::from(turned) / seconds,
            gb_per_s: bytes / seconds / 1e9,
            of_bandwidth: floor / seconds,
            of_matrix_rate: 0.0,
            below_full: None,
        }
    }
}

/// Passes and how long they took.
#[derive(Clone, Copy)]
pub struct TimedPasses<'a> {
    /// The floors of the model.
    pub floors: &'a Floors,
    /// What was computed.
    pub passes: &'a [Pass],
    /// How long all of it took.
    pub seconds: f64,
    /// Tokens that came of it: generated, or encoded.
    pub tokens: u64,
}

/// Something to be reached.
#[derive(Clone, Debug, Serialize)]
pub struct Goal {
    /// In words.
    pub what: String,
    /// The number to be reached.
    pub wanted: f64,
    /// The number that was measured.
    pub got: f64,
    /// Whether that is enough.
    pub met: bool,
}

impl Goal {
    fn at_most(what: String, wanted: f64, got: f64) -> Self {
        Self { what, wanted, got, met: got <= wanted }
    }

    fn at_least(what: String, wanted: f64, got: f64) -> Self {
        Self { what, wanted, got, met: got >= wanted }
    }
}

/// What the rows reach of what they should.
pub fn targets(rows: &[Figure]) -> Vec<Goal> {
    let shortest = rows.iter().filter(|row| row.kind == MeasurementKind::Edit).map(|row| row.context).min();
    rows.iter().flat_map(|row| of_row(row, Some(row.context) == shortest)).collect()
}

/// The targets of one row. An edit is held against its floor in the shortest context, where least hides what it costs.
fn of_row(row: &Figure, shortest: bool) -> Vec<Goal> {
    let name = format!("{}: {}", row.context, row.what);
    let of_matrix_rate =
        || Goal::at_least(format!("{name}: full, of the matrix rate"), 0.5, row.of_matrix_rate);
    let of_bandwidth = || Goal::at_least(format!("{name}: of the bandwidth"), 0.8, row.of_bandwidth);
    let saved = |wanted: f64| {
        let what = format!("{name}: pie, below recomputing from the edit");
        row.below_full.map(|got| Goal::at_least(what, wanted, got))
    };
    match (row.kind, row.strategy, row.at_percent) {
        (MeasurementKind::Recompute, ..) | (MeasurementKind::Edit, Some("full"), Some(10 | 50)) => {
            vec![of_matrix_rate()]
        }
        (MeasurementKind::Edit, Some("pie"), Some(place)) => {
            let floor =
                shortest.then(|| Goal::at_most(format!("{name}: pie, time / floor"), 1.3, row.over_floor));
            let saved = match place {
                10 => saved(0.95),
                50 => saved(0.92),
                _ => None,
            };
            floor.into_iter().chain(saved).collect()
        }
        (MeasurementKind::Decode, ..) if row.batch == 1 => vec![of_bandwidth()],
        (MeasurementKind::Settle, ..) => vec![of_bandwidth()],
        _ => Vec::new(),
    }
}

/// All of a run.
#[derive(Debug, Serialize)]
pub struct GpuFigures {
    /// The configuration's name or folder, as it was given.
    pub config: String,
    /// Numbers of the model's weights.
    pub parameters: u64,
    /// Bytes of device memory that the weights take.
    pub weight_bytes: u64,
    /// As the driver names it.
    pub gpu: String,
    /// All memory of the GPU.
    pub memory_bytes: u64,
    /// Before anything was loaded.
    pub free_bytes: u64,
    /// Numbers of weights, activations and rows.
    pub dtype: &'static str,
    /// Tokens that the cache holds.
    pub slots: u32,
    /// Rows of a step at most.
    pub step_tokens: u32,
    /// Tokens that an edit inserts.
    pub inserted: u32,
    /// Timed repetitions of each row.
    pub repeat: u32,
    /// What documents were made of.
    pub seed: u32,
    /// Whether passes of a kind that was seen before were replayed.
    pub graphs: bool,
    /// The GPU's own, measured before.
    pub rates: Rates,
    /// The table.
    pub rows: Vec<Figure>,
    /// What the GPU has no memory for.
    pub left_out: Vec<String>,
    /// What was to be reached, and whether it was.
    pub targets: Vec<Goal>,
}

/// The heads of the table's columns.
pub const HEAD: &str = "\
| what | context | strategy | encoded | turned | ms | floor ms | time / floor | tokens/s | GB/s | of bandwidth | of matrix rate | below full |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |";

/// A row of the table.
pub fn line(row: &Figure) -> String {
    let percent = |share: f64| format!("{:.1} %", 100.0 * share);
    let some = |count: u64| if count > 0 { count.to_string() } else { "-".to_owned() };
    format!(
        "| {} | {} | {} | {} | {} | {:.3} | {:.3} | {:.2} | {:.0} | {:.1} | {} | {} | {} |",
        row.what,
        row.context,
        row.strategy.unwrap_or("-"),
        some(row.encoded),
        some(row.turned),
        row.ms,
        row.floor_ms,
        row.over_floor,
        row.tokens_per_s,
        row.gb_per_s,
        percent(row.of_bandwidth),
        percent(row.of_matrix_rate),
        row.below_full.map_or_else(|| "-".to_owned(), percent),
    )
}

impl GpuFigures {
    /// What is measured, and on what.
    pub fn heading(&self) -> String {
        let (parameters, weights) = (self.parameters as f64 / 1e9, self.weight_bytes as f64 / 1e9);
        let (memory, free) = (self.memory_bytes as f64 / 1e9, self.free_bytes as f64 / 1e9);
        let Rates { bytes_per_s, operations_per_s } = self.rates;
        format!(
            "{} ({parameters:.2} G parameters, random weights of seed {}, {} {weights:.2} GB) on one {} ({memory:.1} GB, \
             {free:.1} GB free): copies {:.1} GB/s, products {:.2} T operations/s. Steps of {} rows, {}, medians of {}.\n",
            self.config,
            self.seed,
            self.dtype,
            self.gpu,
            bytes_per_s / 1e9,
            operations_per_s / 1e12,
            self.step_tokens,
            if self.graphs { "passes replayed as graphs" } else { "passes launched kernel by kernel" },
            self.repeat,
        )
    }

    /// The page.
    pub fn markdown(&self) -> String {
        let mut page = format!("{}\n{HEAD}\n", self.heading());
        for row in &self.rows {
            page.extend([&line(row), "\n"]);
        }
        page + &self.ending()
    }

    /// What stands below the table: what was left out, and the targets.
    pub fn ending(&self) -> String {
        let mut page = String::new();
        let left_out = self.left_out.iter().map(|reason| format!("\nLeft out: {reason}\n"));
        page.extend(left_out);
        page.push_str("\n| target | wanted | got | |\n| --- | --- | --- | --- |\n");
        for Goal { what, wanted, got, met } in &self.targets {
            let met = if *met { "met" } else { "**missed**" };
            // Writing to a string does not fail.
            let _ = writeln!(page, "| {what} | {wanted} | {got:.3} | {met} |");
        }
        page
    }
}
