//! `pie bench gpu`: one GPU with a whole model of random weights. Everything is warmed up before it is timed, what is compared
//! is measured in turns, and beside each time stands the least that it could be ([`floor`]).

mod floor;
mod measure;
mod row;

use crate::Failure;
use crate::bench::args::BenchGpuArgs;
use crate::device::{self, DeviceArg};
use crate::progress;
use floor::{Floors, Rates};
use measure::Measuring;
use pie_comm::{Collective, Solo};
use pie_eval::engine::Machine;
use pie_kv::KvShape;
use pie_kv::cuda::{Dtype, Gpu, GpuCache};
use pie_model::Config;
use pie_model::cuda::{OnGpu, copy_rate, matrix_rate};
use row::GpuFigures;
use std::path::Path;

/// Bytes that are copied to measure the bandwidth: far more than any GPU has near its multiprocessors.
const COPIED: u64 = 1 << 30;
/// Rows of the products that measure the matrix rate.
const MATRIX_ROWS: usize = 8192;
/// Of what weights and activations leave of a GPU's memory, the part that KV rows may take: graphs, tables and partial results
/// of attention take some too.
const KV_PERCENT: u64 = 90;
/// What cuBLAS and the arrays of steps take, whatever the model.
const FIXED: u64 = 64 << 20;

/// Measures, prints the table, and writes the figures as JSON where asked.
pub fn run(arguments: &BenchGpuArgs) -> Result<(), Failure> {
    let name = arguments.config.as_deref().ok_or("--config is missing")?;
    let DeviceArg::Cuda(ordinal) = arguments.device else {
        return Err("--device: this measures a GPU, cuda:N; `pie bench` measures the CPU".into());
    };
    if arguments.step_tokens < arguments.insert {
        return Err("--step-tokens is less than --insert: an edit is to be measured as one pass".into());
    }
    let (gpu, dtype) = (Gpu::open(ordinal.unwrap_or(0))?, device::dtype(arguments.dtype));
    let config = config(name, arguments)?;
    let (free, total) = gpu.memory()?;
    let rates = rates(&gpu, &config, dtype, free)?;
    let slots = slots(&gpu, &config, dtype, arguments)?;
    let compute = load(&gpu, &config, dtype, slots, arguments)?;
    let floors = Floors::new(&config, dtype.size(), rates);
    let figures = GpuFigures {
        config: name.display().to_string(),
        parameters: config.parameters(),
        weight_bytes: OnGpu::weight_bytes(&config, Solo::new().member(), dtype)?,
        gpu: gpu.name().to_owned(),
        memory_bytes: total,
        free_bytes: free,
        dtype: dtype.suffix(),
        slots,
        step_tokens: arguments.step_tokens,
        inserted: arguments.insert,
        repeat: arguments.repeat,
        seed: arguments.seed,
        graphs: !arguments.no_graphs,
        rates,
        rows: Vec::new(),
        left_out: Vec::new(),
        targets: Vec::new(),
    };
    outln!("{}\n{}", figures.heading(), row::HEAD);
    let machine = Machine::new(compute, slots).with_chunk(arguments.step_tokens);
    let mut measuring = Measuring { arguments, machine, floors, figures };
    measuring.all()?;
    let mut figures = measuring.figures;
    figures.targets = row::targets(&figures.rows);
    outln!("{}", figures.ending());
    write(arguments.report.as_deref(), &(serde_json::to_string_pretty(&figures)? + "\n"))?;
    write(arguments.markdown.as_deref(), &figures.markdown())
}

/// A preset, or a file. Positions beyond the model's context cost what others do, and mean as little with random weights, so
/// that they are allowed: a document of 16,384 tokens can be edited.
fn config(name: &Path, arguments: &BenchGpuArgs) -> Result<Config, Failure> {
    let mut config = match name.to_str().map(Config::preset) {
        Some(Ok(config)) => config,
        Some(Err(unknown)) if !name.is_file() => {
            return Err(format!("--config: {unknown}, nor a file").into());
        }
        _ => {
            let text = std::fs::read_to_string(name)
                .map_err(|error| format!("--config {}: {error}", name.display()))?;
            Config::parse(&text, name)?
        }
    };
    let longest = arguments.contexts.iter().copied().max().unwrap_or(0) + room(arguments);
    config.max_position_embeddings = config.max_position_embeddings.max(longest as usize);
    Ok(config)
}

/// Tokens beside a document: what an edit inserts or a session generates.
fn room(arguments: &BenchGpuArgs) -> u32 {
    arguments.insert.max(arguments.tokens) + 2
}

fn rates(gpu: &Gpu, config: &Config, dtype: Dtype, free: u64) -> Result<Rates, Failure> {
    let bytes_per_s = copy_rate(gpu, COPIED.min(free / 4) as usize)?;
    let operations_per_s = matrix_rate(gpu, config, dtype, MATRIX_ROWS)?;
    // What was freed is given back when the stream is waited for.
    gpu.synchronize()?;
    Ok(Rates { bytes_per_s, operations_per_s })
}

/// How many tokens the cache shall hold: what the largest row needs, or what there is memory for.
fn slots(gpu: &Gpu, config: &Config, dtype: Dtype, arguments: &BenchGpuArgs) -> Result<u32, Failure> {
    let member = Solo::new().member();
    let most = |numbers: &[u32]| u64::from(numbers.iter().copied().max().unwrap_or(1));
    let (context, batch) = (most(&arguments.contexts), most(&arguments.batches));
    let weights = OnGpu::weight_bytes(config, member, dtype)?;
    let activations =
        OnGpu::pass_bytes(config, member, dtype, arguments.step_tokens as usize, batch as usize)?;
    let (free, _) = gpu.memory()?;
    let Some(left) = free.checked_sub(weights + activations + FIXED) else {
        let say = |bytes: u64| bytes as f64 / 1e9;
        return Err(format!(
            "{:.1} GB of weights and {:.1} GB of activations are more than the {:.1} GB that GPU {} has free: take a smaller \
             --config, or lower --step-tokens",
            say(weights),
            say(activations),
            say(free),
            gpu.ordinal()
        )
        .into());
    };
    let Config { layers, kv_heads, head_dim, .. } = *config;
    let row = GpuCache::bytes(&KvShape { layers, kv_heads, head_dim, slots: 1 }, dtype);
    let wanted = batch * (context + u64::from(room(arguments)));
    Ok(u32::try_from(wanted.min(left / 100 * KV_PERCENT / row.max(1)))?)
}

fn load(
    gpu: &Gpu,
    config: &Config,
    dtype: Dtype,
    slots: u32,
    arguments: &BenchGpuArgs,
) -> Result<OnGpu, Failure> {
    let bar = progress::bytes("making random weights");
    let (member, seed) = (Solo::new().member(), u64::from(arguments.seed));
    let mut compute = OnGpu::random(gpu, config.clone(), member, dtype, slots as usize, seed)?;
    if arguments.no_graphs {
        compute.without_graphs();
    }
    bar.finish_and_clear();
    Ok(compute)
}

fn write(path: Option<&Path>, text: &str) -> Result<(), Failure> {
    let Some(path) = path else { return Ok(()) };
    Ok(std::fs::write(path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))?)
}
