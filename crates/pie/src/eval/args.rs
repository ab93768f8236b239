//! What `pie eval` takes.

use crate::cli::ModelArgs;
use clap::{Args, Subcommand};
use pie_eval::EvaluationOptions;
use pie_eval::names::{Arm, Language, Method, Setting, Spot, Storage, Task};
use std::path::PathBuf;

/// `pie eval`
#[derive(Clone, Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "A run that was interrupted goes on when the same command is given again; results that are there are kept."
)]
pub struct EvalArgs {
    /// What to evaluate, where no other command is named.
    #[command(flatten)]
    pub run: EvalRunArgs,
    /// What else to do.
    #[command(subcommand)]
    pub command: Option<EvalCommand>,
}

/// The commands of `pie eval`.
#[derive(Clone, Debug, Subcommand)]
pub enum EvalCommand {
    /// Make the tables and figures of results that are there again, without computing.
    Report {
        /// The --out folder of a run.
        #[arg(default_value = "pie-eval")]
        folder: PathBuf,
    },
}

/// A run of `pie eval`.
#[derive(Clone, Debug, Args)]
pub struct EvalRunArgs {
    /// The model.
    #[command(flatten)]
    pub model: ModelArgs,
    /// RepoBench-C: a file or a folder of .jsonl, .jsonl.gz or .parquet (with `--features parquet`), whose paths name
    /// language and setting. Without it the small set that ships.
    #[arg(long, value_name = "PATH")]
    pub data: Option<PathBuf>,
    /// Where results, tables and figures go.
    #[arg(long, default_value = "pie-eval", value_name = "FOLDER")]
    pub out: PathBuf,
    /// Samples of each language and setting; all if not given.
    #[arg(long, value_name = "N", value_parser = crate::units::some)]
    pub samples: Option<usize>,
    /// Languages: python, java.
    #[arg(long, default_value = "python,java", value_name = "NAMES", value_delimiter = ',')]
    pub languages: Vec<Language>,
    /// Settings: cross_file_first (XF-F), cross_file_random (XF-R), in_file (IF).
    #[arg(
        long,
        default_value = "cross_file_first,cross_file_random,in_file",
        value_name = "NAMES",
        value_delimiter = ','
    )]
    pub settings: Vec<Setting>,
    /// Tasks: insertion, deletion, edition as in the paper; cursor, which fills in a line just behind an edit near it, for models
    /// with markers.
    #[arg(long, default_value = "insertion,deletion,edition", value_name = "NAMES", value_delimiter = ',')]
    pub tasks: Vec<Task>,
    /// Methods: full, conflict, pie, repair, which encodes a window of kept tokens behind each edited place again.
    #[arg(long, default_value = "full,conflict,pie,repair", value_name = "NAMES", value_delimiter = ',')]
    pub methods: Vec<Method>,
    /// How often each sample is edited elsewhere.
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100))]
    pub seeds: u64,
    /// Samples of each language and setting for which full recomputation runs in each case, to be timed. Of the others only
    /// its predictions are taken: those of the prompt encoded once, which are the same.
    #[arg(long, default_value_t = 20, value_name = "N")]
    pub timed_samples: usize,
    /// Samples of the first language and setting whose keys and distributions are compared (figures 3 and 4).
    #[arg(long, default_value_t = 50, value_name = "N")]
    pub kl_samples: usize,
    /// Samples of the first language and setting that are edited many times without a full encoding.
    #[arg(long, default_value_t = 20, value_name = "N")]
    pub accumulated_samples: usize,
    /// How many times.
    #[arg(long, default_value = "1,3,10,30,100,300", value_name = "COUNTS", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub edits: Vec<u32>,
    /// What happens to their caches: fresh, edited, turned, repaired (a window with each edit), healed (and idle time between edits).
    #[arg(
        long,
        default_value = "fresh,edited,turned,repaired,healed",
        value_name = "NAMES",
        value_delimiter = ','
    )]
    pub arms: Vec<Arm>,
    /// What the rows of these caches are kept in: f32, bf16. Repairing, and the cursor, are looked at in f32 alone.
    #[arg(long, default_value = "f32,bf16", value_name = "NAMES", value_delimiter = ',')]
    pub storages: Vec<Storage>,
    /// Where these caches predict: end, cursor, git; all but the end for models with markers, and git with --git.
    #[arg(long, default_value = "end,cursor,git", value_name = "NAMES", value_delimiter = ',')]
    pub spots: Vec<Spot>,
    /// A git repository: the edits are, once more, the changes that commits made to a file around one place, of the files that were
    /// changed most often.
    #[arg(long, value_name = "REPOSITORY")]
    pub git: Option<PathBuf>,
    /// Only files under this path of it.
    #[arg(long, value_name = "PATH", requires = "git")]
    pub git_under: Option<String>,
    /// Seconds of a person between two edits, in which a cache heals; 0 is repairing with each edit alone.
    #[arg(long, default_value = "0,1,5", value_name = "SECONDS", value_delimiter = ',')]
    pub idle: Vec<u32>,
    /// Kept tokens that are encoded again with an edit, by the method `repair` and where edits are many.
    #[arg(long, default_value_t = EvaluationOptions::WINDOW, value_name = "N")]
    pub window: u32,
    /// Samples of the first language and setting for which windows of several sizes are compared, with as many rows elsewhere.
    #[arg(long, default_value_t = 20, value_name = "N")]
    pub window_samples: usize,
    /// Of these sizes.
    #[arg(long, default_value = "0,8,16,32,64,128,256", value_name = "COUNTS", value_delimiter = ',')]
    pub windows: Vec<u32>,
    /// Longest context in tokens, at most the model's; longer prompts lose lines in front. 8192 if not given.
    #[arg(long, value_name = "TOKENS", value_parser = crate::units::some)]
    pub context: Option<usize>,
    /// Threads; 0 takes all cores.
    #[arg(long, env = "PIE_THREADS", default_value_t = 0, value_name = "N")]
    pub threads: usize,
}
