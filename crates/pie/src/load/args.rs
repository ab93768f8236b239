//! What `pie load` takes.

use crate::cli::StrategyArg;
use crate::secure::args::ClientArgs;
use crate::units;
use clap::{Args, Subcommand, ValueEnum};
use pie_load::script::{Caret, CompletionMode};
use std::path::PathBuf;
use std::time::Duration;

/// `pie load`
#[derive(Clone, Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "docs/load.md says how to read the report, and has the format of scripts."
)]
pub struct LoadArgs {
    /// What to play, where no other command is named.
    #[command(flatten)]
    pub run: RunArgs,
    /// What else to do.
    #[command(subcommand)]
    pub command: Option<LoadCommand>,
}

/// The commands of `pie load`.
#[derive(Clone, Debug, Subcommand)]
pub enum LoadCommand {
    /// Play streams and measure: the same as `pie load` without a command.
    Run(RunArgs),
    /// Run several rates, and draw latency against the rate.
    Knee(KneeArgs),
    /// Compare two reports, as ratios.
    Compare {
        /// A report (--json of a run).
        a: PathBuf,
        /// Another.
        b: PathBuf,
    },
    /// Write a script of people who are made up.
    Generate(GenerateArgs),
    /// Write a script of a git repository's history: every commit's change of a file as timed edits of it.
    Script(ScriptArgs),
}

/// A run.
#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    /// Address of the pool.
    #[arg(long, env = "PIE_POOL", default_value = "http://127.0.0.1:7400", value_name = "URL")]
    pub pool: String,
    /// How the pool is reached, and who calls.
    #[command(flatten)]
    pub access: ClientArgs,
    /// Send whole prompts to the /v1/completions of this server (llama.cpp, vLLM, …) instead.
    #[arg(long, value_name = "URL")]
    pub openai: Option<String>,
    /// Name of the model there.
    #[arg(long, default_value = "default", value_name = "NAME")]
    pub openai_model: String,
    /// Documents that are open at any time.
    #[arg(long, default_value_t = 8, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub sessions: u32,
    /// Edits a second that all sessions offer together, whatever the server does.
    #[arg(long, value_name = "EDITS", value_parser = positive, conflicts_with = "speed")]
    pub rate: Option<f64>,
    /// Times as fast as the streams are written; 1 is people's own speed.
    #[arg(long, default_value_t = 1.0, value_name = "X", value_parser = positive)]
    pub speed: f64,
    /// The measured time.
    #[arg(long, default_value = "30s", value_name = "TIME", value_parser = units::some_time)]
    pub duration: Duration,
    /// Played before it, and not measured.
    #[arg(long, default_value = "2s", value_name = "TIME", value_parser = units::duration)]
    pub warmup: Duration,
    /// How long what was due may still take when the time is over.
    #[arg(long, default_value = "15s", value_name = "TIME", value_parser = units::duration)]
    pub drain: Duration,
    /// Play this script instead of people who are made up.
    #[arg(long, value_name = "FILE")]
    pub script: Option<PathBuf>,
    /// Who types.
    #[command(flatten)]
    pub people: PeopleArgs,
    /// The most tokens of a completion.
    #[arg(long, visible_alias = "max-tokens", default_value_t = 16, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub tokens: u32,
    /// A first token that comes later is no good: for the goodput.
    #[arg(long, default_value = "300ms", value_name = "TIME", value_parser = units::some_time)]
    pub limit: Duration,
    /// Every keystroke asks for a completion, and drops the one before.
    #[arg(long)]
    pub storm: bool,
    /// Spread the sessions over tenants `tenant-0`, `tenant-1`, …; 0 names none.
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub tenants: u32,
    /// How caches follow edits.
    #[arg(long, default_value = "pie")]
    pub strategy: StrategyArg,
    /// Read every document back when it is closed; fail unless all are equal, no slot is lost, and nothing went wrong.
    #[arg(long)]
    pub verify: bool,
    /// Codes of errors that --verify allows, separated by commas.
    #[arg(long, value_name = "CODES", value_delimiter = ',')]
    pub allow: Vec<String>,
    /// Report processor time and memory of this process (the router's) too.
    #[arg(long, value_name = "PID")]
    pub pid: Option<u32>,
    /// Write the report as JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write the report as one HTML page with plots.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

/// People who are made up.
#[derive(Clone, Debug, Args)]
pub struct PeopleArgs {
    /// Equal seeds give equal streams.
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub seed: u64,
    /// The text that they type from; sources of pie-pool if not given.
    #[arg(long, value_name = "FILE")]
    pub document: Option<PathBuf>,
    /// Size of their documents, about.
    #[arg(long, default_value = "8KiB", value_name = "SIZE", value_parser = units::bytes)]
    pub document_size: u64,
    /// From their last key to asking.
    #[arg(long, default_value = "0ms", value_name = "TIME", value_parser = units::duration)]
    pub debounce: Duration,
    /// Share of the completions that they take over, whole or in part.
    #[arg(long, default_value_t = 0.25, value_name = "SHARE", value_parser = share)]
    pub accept: f64,
    /// Where completions are asked for; as the script says if not given.
    #[arg(long, value_name = "PLACE")]
    pub at: Option<PlaceArg>,
    /// What completions see; as the script says if not given.
    #[arg(long, value_name = "MODE")]
    pub mode: Option<ModeArg>,
}

/// Where a completion is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PlaceArg {
    /// At the cursor.
    Cursor,
    /// At the document's end.
    End,
}

/// What a completion sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ModeArg {
    /// The text before its place.
    Continue,
    /// The text on both sides.
    Fim,
}

impl From<PlaceArg> for Caret {
    fn from(place: PlaceArg) -> Self {
        match place {
            PlaceArg::Cursor => Self::Cursor,
            PlaceArg::End => Self::End,
        }
    }
}

impl From<ModeArg> for CompletionMode {
    fn from(mode: ModeArg) -> Self {
        match mode {
            ModeArg::Continue => Self::Continue,
            ModeArg::Fim => Self::Fim,
        }
    }
}

/// `pie load knee`
#[derive(Clone, Debug, Args)]
pub struct KneeArgs {
    /// Edits a second, ascending, separated by commas.
    #[arg(long, value_name = "EDITS", value_delimiter = ',', required = true, value_parser = positive)]
    pub rates: Vec<f64>,
    /// Each rate is run so; --json and --html are those of the knee.
    #[command(flatten)]
    pub run: RunArgs,
}

/// `pie load generate`
#[derive(Clone, Debug, Args)]
pub struct GenerateArgs {
    /// Where the script goes.
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// Documents.
    #[arg(long, default_value_t = 8, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub documents: u32,
    /// The time that each is edited.
    #[arg(long, default_value = "3m", value_name = "TIME", value_parser = units::some_time)]
    pub length: Duration,
    /// Who types.
    #[command(flatten)]
    pub people: PeopleArgs,
}

/// `pie load script`
#[derive(Clone, Debug, Args)]
pub struct ScriptArgs {
    /// The repository.
    #[arg(long, value_name = "FOLDER")]
    pub git: PathBuf,
    /// Where the script goes.
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// Only files under this path of the repository.
    #[arg(long, value_name = "PATH")]
    pub under: Option<String>,
    /// The most files: those with the most versions.
    #[arg(long, default_value_t = 16, value_name = "N", value_parser = units::some)]
    pub files: usize,
    /// The most versions of a file: the latest.
    #[arg(long, default_value_t = 200, value_name = "N", value_parser = versions)]
    pub versions: usize,
    /// The largest version.
    #[arg(long, default_value = "32KiB", value_name = "SIZE", value_parser = units::bytes)]
    pub file_size: u64,
    /// Of the times.
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub seed: u64,
    /// Share of the completions that are taken over.
    #[arg(long, default_value_t = 0.0, value_name = "SHARE", value_parser = share)]
    pub accept: f64,
}

fn positive(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| format!("`{text}` is no number"))?;
    if number.is_finite() && number > 0.0 { Ok(number) } else { Err(format!("{text} is not above 0")) }
}

fn versions(text: &str) -> Result<usize, String> {
    match units::some(text)? {
        1 => Err("one version has no edits: give at least 2".to_owned()),
        versions => Ok(versions),
    }
}

fn share(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| format!("`{text}` is no number"))?;
    if (0.0..=1.0).contains(&number) { Ok(number) } else { Err(format!("{text} is not between 0 and 1")) }
}
