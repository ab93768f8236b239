//! Where a rank computes: the CPU, or a GPU in builds with `--features cuda`.

use crate::Failure;
use crate::budget::{KvMemory, MemoryBudget};
use crate::cli::{Collectives, DtypeArg, KvDtypeArg, RankArgs};
use crate::progress;
use pie_comm::{Member, TcpListening};
use pie_kv::{KvCache, Precision};
use pie_model::{Compute, Config, Model, OnCpu};
use pie_worker::{FormGroup, TcpPeers};
use std::path::Path;
use std::str::FromStr;

/// `cpu`, `cuda`, or `cuda:N`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceArg {
    /// Host memory and threads.
    Cpu,
    /// A GPU; without a number that of the rank's index.
    Cuda(Option<usize>),
}

impl FromStr for DeviceArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "cpu" => Ok(Self::Cpu),
            None if text == "cuda" => Ok(Self::Cuda(None)),
            Some(("cuda", number)) if number.parse::<usize>().is_ok() => Ok(Self::Cuda(number.parse().ok())),
            _ => Err(format!("`{text}` is no device: write cpu, cuda or cuda:N")),
        }
    }
}

impl std::fmt::Display for DeviceArg {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(None) => f.write_str("cuda"),
            Self::Cuda(Some(number)) => write!(f, "cuda:{number}"),
        }
    }
}

/// Memory for the KV rows of a rank where none is named.
const KV_MEMORY: u64 = 256 << 20;

/// A rank that is ready to join groups.
pub struct Loaded {
    /// Its model and cache.
    pub compute: Box<dyn Compute>,
    /// How it meets its peers.
    pub peers: Box<dyn FormGroup>,
    /// What its memory is for.
    pub budget: MemoryBudget,
    /// Equal on ranks of one model.
    pub fingerprint: String,
    /// As `cpu`, or `cuda:0 NVIDIA H200, bf16`.
    pub device: String,
}

/// Loads a rank's slice of a model and makes its cache; refuses what does not fit before taking it.
pub fn load(
    folder: &Path,
    member: Member,
    arguments: &RankArgs,
    mesh: TcpListening,
) -> Result<Loaded, Failure> {
    let config = Config::read(folder)?;
    config.check_world_size(member.world_size().get() as usize)?;
    match arguments.device {
        DeviceArg::Cpu => on_cpu(folder, &config, member, arguments, mesh),
        DeviceArg::Cuda(_) if arguments.kv_dtype != KvDtypeArg::Auto => Err(
            "--kv-dtype is for CPUs: on a GPU rows are of --dtype, which is bf16 unless it says otherwise"
                .into(),
        ),
        DeviceArg::Cuda(ordinal) => {
            let ordinal = ordinal.unwrap_or(member.rank().index());
            on_gpu(folder, &config, member, arguments, mesh, ordinal)
        }
    }
}

fn on_cpu(
    folder: &Path,
    config: &Config,
    member: Member,
    arguments: &RankArgs,
    mesh: TcpListening,
) -> Result<Loaded, Failure> {
    if !matches!(arguments.dtype, DtypeArg::Auto | DtypeArg::F32) {
        return Err(
            "--dtype: the CPU computes in f32 (weights stay in bf16 if they are); others need --device cuda"
                .into(),
        );
    }
    if arguments.collectives == Collectives::Nccl {
        return Err("--collectives nccl is for GPUs: take tcp, or --device cuda".into());
    }
    let (ranks, kv) = (member.world_size().get().into(), kv_memory(arguments));
    let planned = MemoryBudget::new(config, pie_model::weight_bytes(folder)?, ranks, kv);
    planned.check(1)?;
    let bar = progress::bytes(&format!("rank {}", member.rank().0));
    let mut show = |done, total| progress::show(&bar, done, total);
    let model = Model::load(folder, member, &mut show)?;
    bar.finish_and_clear();
    let budget = MemoryBudget { weights: model.weight_bytes(), ..planned };
    let shape = model.kv_shape(usize::try_from(budget.slots)?);
    let cache = KvCache::with_precision(shape, kv.precision)?;
    let fingerprint = model.fingerprint().to_owned();
    let compute = Box::new(OnCpu::new(model, cache));
    let peers = Box::new(TcpPeers::new(member, mesh));
    let device = match kv.precision {
        Precision::F32 => "cpu",
        Precision::Bf16 => "cpu, KV rows in bf16",
    };
    Ok(Loaded { compute, peers, budget, fingerprint, device: device.to_owned() })
}

/// Memory of a rank on the CPU for KV rows.
fn kv_memory(arguments: &RankArgs) -> KvMemory {
    KvMemory { bytes: arguments.kv_memory.unwrap_or(KV_MEMORY), precision: arguments.kv_dtype.precision() }
}

/// What all ranks of a pool take, before any is started: on the CPU they share one memory.
pub fn check_pool(folder: &Path, world_size: u64, ranks: u64, arguments: &RankArgs) -> Result<(), Failure> {
    match arguments.device {
        DeviceArg::Cpu => {
            let (config, weights) = (Config::read(folder)?, pie_model::weight_bytes(folder)?);
            MemoryBudget::new(&config, weights, world_size, kv_memory(arguments)).check(ranks)
        }
        // Each asks its own GPU.
        DeviceArg::Cuda(_) => Ok(()),
    }
}

/// Ranks that a model of somebody's own is shared by on this machine, if he does not say how many.
pub fn ranks_for(model: &Path, arguments: &RankArgs) -> Result<u32, Failure> {
    match arguments.device {
        DeviceArg::Cpu | DeviceArg::Cuda(Some(_)) => Ok(1),
        DeviceArg::Cuda(None) => {
            let (config, gpus) = (Config::read(model)?, count_gpus()?.max(1));
            let most = (1..=gpus).rev().find(|ranks| config.check_world_size(*ranks).is_ok());
            Ok(u32::try_from(most.unwrap_or(1))?)
        }
    }
}

/// The settings of one rank of a pool on this machine. Ranks beyond the GPUs share them, and then meet over TCP.
pub fn of_rank(rank: u32, ranks: u32, arguments: &RankArgs) -> Result<RankArgs, Failure> {
    let DeviceArg::Cuda(ordinal) = arguments.device else { return Ok(arguments.clone()) };
    let gpus = match ordinal {
        Some(_) => 1,
        None => count_gpus()?.max(1),
    };
    let shared = (ranks as usize) > gpus;
    let own = ordinal.unwrap_or(rank as usize % gpus);
    let collectives = match arguments.collectives {
        Collectives::Auto if shared => Collectives::Tcp,
        chosen => chosen,
    };
    // Of a GPU that others load to at the same moment nobody can take what is left.
    let kv_memory = arguments.kv_memory.or(shared.then_some(KV_MEMORY));
    Ok(RankArgs { device: DeviceArg::Cuda(Some(own)), collectives, kv_memory, ..arguments.clone() })
}

/// What builds without GPUs say when they are asked for one.
#[cfg(not(feature = "cuda"))]
pub const NO_GPUS: &str = "--device cuda: this program was built without GPUs; build it with `cargo build --release --features cuda` (docs/gpu.md)";

#[cfg(not(feature = "cuda"))]
fn count_gpus() -> Result<usize, Failure> {
    Err(NO_GPUS.into())
}

#[cfg(not(feature = "cuda"))]
fn on_gpu(
    _folder: &Path,
    _config: &Config,
    _member: Member,
    _arguments: &RankArgs,
    _mesh: TcpListening,
    _ordinal: usize,
) -> Result<Loaded, Failure> {
    Err(NO_GPUS.into())
}

#[cfg(feature = "cuda")]
pub use gpu::dtype;
#[cfg(feature = "cuda")]
use gpu::{count_gpus, on_gpu};

#[cfg(feature = "cuda")]
mod gpu {
    use super::{Collectives, DtypeArg, Failure, Loaded};
    use crate::budget::{MemoryBudget, STEP_ROWS, WANTED_ROWS};
    use crate::cli::RankArgs;
    use crate::progress;
    use pie_comm::{Member, TcpListening};
    use pie_kv::KvShape;
    use pie_kv::cuda::{Dtype, Gpu, GpuCache};
    use pie_model::Config;
    use pie_model::cuda::OnGpu;
    use pie_worker::{FormGroup, NcclPeers, TcpPeers};
    use std::path::Path;

    /// Of what is left of a GPU's memory, the part that KV rows take where none is named: kernels, graphs and NCCL take some
    /// too.
    const KV_PERCENT: u64 = 90;

    /// GPUs that the driver shows to this process.
    pub fn count_gpus() -> Result<usize, Failure> {
        Ok(Gpu::count()?)
    }

    /// Numbers of weights, activations and rows: bf16 unless asked otherwise.
    pub fn dtype(argument: DtypeArg) -> Dtype {
        match argument {
            DtypeArg::Auto | DtypeArg::Bf16 => Dtype::Bf16,
            DtypeArg::F16 => Dtype::F16,
            DtypeArg::F32 => Dtype::F32,
        }
    }

    /// Loads one rank's slice to the GPU of this ordinal, with as many KV rows as its memory holds.
    pub fn on_gpu(
        folder: &Path,
        config: &Config,
        member: Member,
        arguments: &RankArgs,
        mesh: TcpListening,
        ordinal: usize,
    ) -> Result<Loaded, Failure> {
        let (gpu, dtype) = (Gpu::open(ordinal)?, dtype(arguments.dtype));
        let budget = budget(&gpu, config, member, dtype, arguments.kv_memory)?;
        let bar = progress::bytes(&format!("rank {}", member.rank().0));
        let mut show = |done, total| progress::show(&bar, done, total);
        let slots = usize::try_from(budget.slots)?;
        let compute = OnGpu::load(&gpu, folder, member, dtype, slots, &mut show)?;
        bar.finish_and_clear();
        let over_nccl = match arguments.collectives {
            Collectives::Auto => member.world_size().get() > 1,
            chosen => chosen == Collectives::Nccl,
        };
        let device = format!("cuda:{ordinal} {}, {}", gpu.name(), dtype.suffix());
        let peers: Box<dyn FormGroup> = if over_nccl {
            Box::new(NcclPeers::new(member, mesh, gpu))
        } else {
            Box::new(TcpPeers::new(member, mesh))
        };
        let fingerprint = compute.fingerprint().to_owned();
        Ok(Loaded { compute: Box::new(compute), peers, budget, fingerprint, device })
    }

    fn budget(
        gpu: &Gpu,
        config: &Config,
        member: Member,
        dtype: Dtype,
        kv: Option<u64>,
    ) -> Result<MemoryBudget, Failure> {
        let weights = OnGpu::weight_bytes(config, member, dtype)?;
        let activations = OnGpu::pass_bytes(config, member, dtype, STEP_ROWS as usize, WANTED_ROWS as usize)?;
        let (free, _) = gpu.memory()?;
        let left = free.saturating_sub(weights + activations);
        let kv = kv.unwrap_or(left / 100 * KV_PERCENT);
        let ranks = member.world_size().get() as usize;
        let kv_heads = config.kv_heads.div_ceil(ranks);
        let one = KvShape { layers: config.layers, kv_heads, head_dim: config.head_dim, slots: 1 };
        let row = GpuCache::bytes(&one, dtype);
        let slots = (kv / row.max(1)).min(u64::from(u32::MAX));
        let budget = MemoryBudget { weights, kv: slots * row, slots, activations };
        budget.check_in(1, Some(free), &format!("GPU {}", gpu.ordinal()))?;
        Ok(budget)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_read_and_written_alike() {
        for text in ["cpu", "cuda", "cuda:0", "cuda:15"] {
            assert_eq!(text.parse::<DeviceArg>().expect("a device").to_string(), text);
        }
        for text in ["", "gpu", "cuda:", "cuda:x", "cuda:-1", "cpu:0"] {
            assert!(text.parse::<DeviceArg>().is_err(), "{text}");
        }
    }
}
