//! What `pie bench` takes.

use crate::cli::{DtypeArg, KvDtypeArg};
use crate::device::DeviceArg;
use crate::hub::args::HubArgs;
use clap::{Args, Subcommand, value_parser};
use std::path::PathBuf;

/// `pie bench`
#[derive(Clone, Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct BenchArgs {
    /// What to measure on the CPU, where no other kind is named.
    #[command(flatten)]
    pub run: BenchRunArgs,
    /// What else to measure.
    #[command(subcommand)]
    pub command: Option<BenchCommand>,
}

/// The commands of `pie bench`.
#[derive(Clone, Debug, Subcommand)]
pub enum BenchCommand {
    /// Measure a GPU: edits, recomputing, prefill, decode and turning keys, each beside what the GPU could do at best
    /// (needs a build with `--features cuda`).
    Gpu(BenchGpuArgs),
}

/// One rank on the CPU.
#[derive(Clone, Debug, Args)]
pub struct BenchRunArgs {
    /// Models to measure: `pie-coder`, the one that ships; seeded shapes; folders, GGUF files, places on a hub (hf:OWNER/NAME) and
    /// short names, as --model of other commands takes them.
    #[arg(long, default_value = "bench-14m,bench-90m", value_name = "NAMES", value_delimiter = ',')]
    pub models: Vec<String>,
    /// The hub, if one is there.
    #[command(flatten)]
    pub hub: HubArgs,
    /// Context lengths.
    #[arg(long, default_value = "1024,4096", value_name = "TOKENS", value_delimiter = ',', value_parser = value_parser!(u32).range(1..))]
    pub contexts: Vec<u32>,
    /// Inserted tokens.
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = value_parser!(u32).range(1..=512))]
    pub insert: u32,
    /// Context lengths of sessions that decode together.
    #[arg(long, default_value = "64,512", value_name = "TOKENS", value_delimiter = ',', value_parser = value_parser!(u32).range(1..=1 << 20))]
    pub batch_contexts: Vec<u32>,
    /// Sessions that decode together, each with a context of its own.
    #[arg(long, default_value = "1,4,16", value_name = "COUNTS", value_delimiter = ',', value_parser = value_parser!(u32).range(1..=256))]
    pub sessions: Vec<u32>,
    /// Repetitions; medians are reported.
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = value_parser!(u32).range(1..))]
    pub repeat: u32,
    /// Numbers of KV rows.
    #[arg(long, default_value = "f32", value_name = "TYPE")]
    pub kv_dtype: KvDtypeArg,
    /// Threads; 0 takes all cores.
    #[arg(long, env = "PIE_THREADS", default_value_t = 0, value_name = "N")]
    pub threads: usize,
    /// Write all figures as JSON.
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
}

/// `pie bench gpu`
#[derive(Clone, Debug, Args)]
pub struct BenchGpuArgs {
    // It takes the place of the settings file's flag, whose name and type it therefore has. It is not optional, since the
    // file's environment variable would then stand in for it.
    /// The model's sizes: a preset (deepseek-coder-33b, deepseek-coder-6.7b, deepseek-coder-1.3b, bench-116m, …), or the path
    /// of a config.json. Its weights are random numbers, made on the GPU.
    #[arg(long, required = true, value_name = "NAME|FILE")]
    pub config: Option<PathBuf>,
    /// The GPU, as cuda:N.
    #[arg(long, default_value = "cuda:0", value_name = "DEVICE")]
    pub device: DeviceArg,
    /// Numbers of weights, activations and KV rows; auto is bf16.
    #[arg(long, default_value = "auto", value_name = "TYPE")]
    pub dtype: DtypeArg,
    /// Context lengths.
    #[arg(long, default_value = "4096,16384", value_name = "TOKENS", value_delimiter = ',', value_parser = value_parser!(u32).range(16..=1 << 20))]
    pub contexts: Vec<u32>,
    /// Tokens that an edit inserts, or deletes.
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = value_parser!(u32).range(1..=512))]
    pub insert: u32,
    /// Sessions that decode together, each with a context of its own.
    #[arg(long, default_value = "1,8,32", value_name = "COUNTS", value_delimiter = ',', value_parser = value_parser!(u32).range(1..=256))]
    pub batches: Vec<u32>,
    /// Tokens that each of them generates in one measurement.
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = value_parser!(u32).range(1..=4096))]
    pub tokens: u32,
    /// Repetitions; medians are reported.
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = value_parser!(u32).range(1..))]
    pub repeat: u32,
    /// Rows of a step: tokens encoded in one forward pass.
    #[arg(long, default_value_t = 2048, value_name = "N", value_parser = value_parser!(u32).range(8..=1 << 16))]
    pub step_tokens: u32,
    /// Launch each pass kernel by kernel, as one of a kind that was not seen before, instead of replaying a graph.
    #[arg(long)]
    pub no_graphs: bool,
    /// Of the random weights and tokens.
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub seed: u32,
    /// Write all figures as JSON.
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// Write the table as Markdown.
    #[arg(long, value_name = "FILE")]
    pub markdown: Option<PathBuf>,
}
