//! `pie bench`: what one rank costs, without router and network. `pie` and `full` are measured in turns in one run, so
//! that their ratio holds on a noisy machine.

pub mod args;
mod bed;
#[cfg(feature = "cuda")]
mod gpu;

use crate::cli::ModelArgs;
use crate::models;
use crate::{Failure, progress};
use args::{BenchArgs, BenchCommand, BenchRunArgs};
use bed::{DecodingTogether, NoiseBed, TokenEdit};
use indicatif::ProgressBar;
use pie_eval::metrics::median;
use pie_kv::Precision;
use pie_model::Config;
use pie_words::Strategy;
use serde::Serialize;
use std::path::Path;
use std::time::Duration;

/// Share of the context before the insertion, in percent.
const PLACES: [usize; 3] = [10, 50, 90];
const DECODED: u32 = 64;

/// One figure of an edit.
#[derive(Debug, Serialize)]
struct EditRow {
    model: String,
    context: u32,
    inserted: u32,
    at_percent: usize,
    pie_ms: f64,
    full_ms: f64,
    /// Median of the ratios of neighbouring measurements.
    ratio: f64,
    pie_encoded: u32,
    full_encoded: u32,
    pie_rotated: u32,
}

/// Speeds of a model.
#[derive(Debug, Serialize)]
struct SpeedRow {
    model: String,
    parameters: u64,
    context: u32,
    prefill_tokens_per_s: f64,
    decode_tokens_per_s: f64,
}

#[derive(Debug, Default, Serialize)]
struct Figures {
    threads: usize,
    kv_dtype: &'static str,
    edits: Vec<EditRow>,
    speeds: Vec<SpeedRow>,
    batches: Vec<BatchRow>,
}

/// Sessions that decode together.
#[derive(Debug, Serialize)]
struct BatchRow {
    model: String,
    context: u32,
    sessions: u32,
    tokens_per_s: f64,
    /// Against one session, in the same run.
    ratio: f64,
}

/// Measures, and prints the tables.
pub fn run(arguments: BenchArgs) -> Result<(), Failure> {
    match arguments.command {
        None => on_cpu(arguments.run),
        #[cfg(feature = "cuda")]
        Some(BenchCommand::Gpu(arguments)) => gpu::run(&arguments),
        #[cfg(not(feature = "cuda"))]
        Some(BenchCommand::Gpu(_)) => Err(crate::device::NO_GPUS.into()),
    }
}

fn on_cpu(arguments: BenchRunArgs) -> Result<(), Failure> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = if arguments.threads == 0 { cores } else { arguments.threads };
    crate::worker::set_threads(threads)?;
    let kv_dtype = match arguments.kv_dtype.precision() {
        Precision::F32 => "f32",
        Precision::Bf16 => "bf16",
    };
    let mut figures = Figures { threads, kv_dtype, ..Figures::default() };
    outln!("one rank, {threads} threads, KV rows in {kv_dtype}, medians of {} runs\n", arguments.repeat);
    for model in &arguments.models {
        measure(model, &arguments, &mut figures)?;
    }
    if let Some(path) = &arguments.report {
        std::fs::write(path, serde_json::to_string_pretty(&figures)? + "\n")
            .map_err(|error| format!("--report {}: {error}", path.display()))?;
    }
    Ok(())
}

fn measure(preset: &str, arguments: &BenchRunArgs, figures: &mut Figures) -> Result<(), Failure> {
    let folder = match preset {
        "pie-coder" => models::shipped()?,
        // Of a shape and a short name that are one word the shape is meant: it needs no hub.
        shape if Config::preset(shape).is_ok() => models::seeded(shape)?,
        model => {
            let named = ModelArgs { model: Some(model.into()), hub: arguments.hub.clone() };
            let is_word = !model.contains(['/', ':']);
            // A word may be a shape with a slip in it: then the shapes are listed.
            let shapes = |error: Failure| match Config::preset(model).err().filter(|_| is_word) {
                Some(unknown) => format!("{error}; and {unknown}").into(),
                None => error,
            };
            models::resolve(&named).map_err(shapes)?.path
        }
    };
    let longest = arguments.contexts.iter().copied().max().unwrap_or(0) + arguments.insert + DECODED + 1;
    // Seeded models take room: who measures should know where.
    say!("{preset} is in {}", folder.display());
    let mut machine = bed::load(&folder, longest, arguments.kv_dtype.precision())?;
    let parameters = machine.model().config().parameters();
    let table =
        GrowingTable { bar: progress::count(&format!("measuring {preset}"), measurements(arguments)) };
    table.line(&format!("{preset} ({:.1} M parameters)", parameters as f64 / 1e6));

    table.line("| context | prefill tokens/s | decode tokens/s |\n| --- | --- | --- |");
    for context in std::iter::once(1).chain(arguments.contexts.iter().copied()) {
        let mut bed = NoiseBed::new(&mut machine, 1)?;
        let prefill = bed.open(context)?;
        let decode = bed.decode(DECODED)?;
        let row = SpeedRow {
            model: preset.to_owned(),
            parameters,
            context,
            prefill_tokens_per_s: f64::from(context) / prefill.as_secs_f64(),
            decode_tokens_per_s: f64::from(DECODED) / decode.as_secs_f64(),
        };
        let prefill = if context > 1 { format!("{:.0}", row.prefill_tokens_per_s) } else { "-".to_owned() };
        table.row(&format!("| {context} | {prefill} | {:.0} |", row.decode_tokens_per_s));
        figures.speeds.push(row);
    }

    batches(preset, arguments, &folder, (&table, figures))?;

    table.line(&format!(
        "\n| context | {} tokens inserted at | pie | full | full / pie | encoded | rotated |\n\
         | --- | --- | --- | --- | --- | --- | --- |",
        arguments.insert
    ));
    for context in &arguments.contexts {
        let mut bed = NoiseBed::new(&mut machine, 1)?;
        bed.open(*context)?;
        for place in PLACES {
            let row = edit(preset, &mut bed, *context, place, arguments)?;
            table.row(&format!(
                "| {context} | {place} % | {:.1} ms | {:.0} ms | {:.1} | {} / {} | {} |",
                row.pie_ms, row.full_ms, row.ratio, row.pie_encoded, row.full_encoded, row.pie_rotated
            ));
            figures.edits.push(row);
        }
    }
    table.line("");
    table.bar.finish_and_clear();
    Ok(())
}

/// A table on standard output, under which standard error shows how much of it is still to come.
struct GrowingTable {
    bar: ProgressBar,
}

impl GrowingTable {
    fn line(&self, line: &str) {
        self.bar.suspend(|| outln!("{line}"));
    }

    /// A line that was measured.
    fn row(&self, line: &str) {
        self.bar.inc(1);
        self.line(line);
    }
}

/// Lines of a model's tables.
fn measurements(arguments: &BenchRunArgs) -> usize {
    let speeds = 1 + arguments.contexts.len();
    let batches = arguments.batch_contexts.len() * arguments.sessions.len();
    speeds + batches + arguments.contexts.len() * PLACES.len()
}

/// Tokens a second of one session and of several together, in turns.
fn batches(
    preset: &str,
    arguments: &BenchRunArgs,
    folder: &Path,
    (table, figures): (&GrowingTable, &mut Figures),
) -> Result<(), Failure> {
    let Some(most) = arguments.sessions.iter().copied().max() else { return Ok(()) };
    table.line(
        "\n| context of each | sessions decoding together | tokens/s | against one |\n| --- | --- | --- | --- |",
    );
    for context in arguments.batch_contexts.iter().copied() {
        let (slots, precision) = (most.saturating_mul(context + DECODED + 2), arguments.kv_dtype.precision());
        let mut machine = table.bar.suspend(|| bed::load(folder, slots, precision))?;
        let mut group = DecodingTogether::open(&mut machine, most, context)?;
        for sessions in arguments.sessions.iter().copied() {
            let (mut speeds, mut ratios) = (Vec::new(), Vec::new());
            for _ in 0..arguments.repeat {
                let alone = group.tokens_per_s(1, DECODED)?;
                let together = group.tokens_per_s(sessions, DECODED)?;
                speeds.push(together);
                ratios.push(together / alone);
            }
            let row = BatchRow {
                model: preset.to_owned(),
                context,
                sessions,
                tokens_per_s: median(speeds),
                ratio: median(ratios),
            };
            table.row(&format!("| {context} | {sessions} | {:.0} | {:.1} |", row.tokens_per_s, row.ratio));
            figures.batches.push(row);
        }
    }
    Ok(())
}

fn edit(
    preset: &str,
    bed: &mut NoiseBed<'_>,
    context: u32,
    place: usize,
    arguments: &BenchRunArgs,
) -> Result<EditRow, Failure> {
    let edit = TokenEdit::insertion((context as usize * place / 100) as u32, arguments.insert);
    let back = edit.inverse();
    let (mut pies, mut fulls, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    let (mut pie_work, mut full_work) = Default::default();
    for _ in 0..arguments.repeat {
        let (pie, work) = bed.edit(&edit, Strategy::Pie)?;
        pie_work = work;
        bed.edit(&back, Strategy::Pie)?;
        let (full, work) = bed.edit(&edit, Strategy::Full)?;
        full_work = work;
        bed.edit(&back, Strategy::Pie)?;
        ratios.push(full.as_secs_f64() / pie.as_secs_f64());
        pies.push(milliseconds(pie));
        fulls.push(milliseconds(full));
    }
    Ok(EditRow {
        model: preset.to_owned(),
        context,
        inserted: arguments.insert,
        at_percent: place,
        pie_ms: median(pies),
        full_ms: median(fulls),
        ratio: median(ratios),
        pie_encoded: pie_work.encoded,
        full_encoded: full_work.encoded,
        pie_rotated: pie_work.rotated,
    })
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
