//! What a rank may use: where it computes, and with how much memory.

use crate::device::DeviceArg;
use clap::{Args, ValueEnum};
use pie_kv::Precision;
use std::path::PathBuf;

/// Numbers on a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DtypeArg {
    /// bf16.
    Auto,
    /// As models come.
    Bf16,
    /// IEEE half.
    F16,
    /// For checks.
    F32,
}

/// Numbers of KV rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum KvDtypeArg {
    /// On a CPU f32, on a GPU what it computes with.
    Auto,
    /// As the CPU computes.
    F32,
    /// Half the memory.
    Bf16,
}

impl KvDtypeArg {
    /// What rows on a CPU are kept as.
    pub fn precision(self) -> Precision {
        match self {
            Self::Auto | Self::F32 => Precision::F32,
            Self::Bf16 => Precision::Bf16,
        }
    }
}

/// How ranks sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Collectives {
    /// NCCL wherever that is possible.
    Auto,
    /// Through host memory.
    Tcp,
    /// From GPU to GPU.
    Nccl,
}

/// What a rank may use.
#[derive(Clone, Debug, Args)]
pub struct RankArgs {
    /// Where to compute: cpu, or, in a build with `--features cuda`, a GPU as cuda:N; cuda gives each rank its own.
    #[arg(long, env = "PIE_DEVICE", default_value = "cpu", value_name = "DEVICE")]
    pub device: DeviceArg,
    /// Numbers of weights, activations and KV rows on a GPU; auto is bf16. The CPU computes in f32.
    #[arg(long, env = "PIE_DTYPE", default_value = "auto", value_name = "TYPE")]
    pub dtype: DtypeArg,
    /// Numbers of KV rows on a CPU: auto is f32; bf16 holds twice the tokens in the same memory and reads them faster, rounded to 8
    /// bits. On a GPU they are those of --dtype.
    #[arg(long, env = "PIE_KV_DTYPE", default_value = "auto", value_name = "TYPE")]
    pub kv_dtype: KvDtypeArg,
    /// How the ranks sum: tcp; nccl, for GPUs of their own; auto is nccl wherever that is possible.
    #[arg(long, env = "PIE_COLLECTIVES", default_value = "auto", value_name = "KIND")]
    pub collectives: Collectives,
    /// Memory for the KV cache of each rank, for example 512MiB or 2GiB; if not given, 256MiB, and of a GPU that a rank has
    /// for itself most of what its weights leave.
    #[arg(long, env = "PIE_KV_MEMORY", value_name = "SIZE", value_parser = crate::units::bytes)]
    pub kv_memory: Option<u64>,
    /// Folder for the cache of documents that nobody uses: what is there need not be encoded again when its rows have gone, or the process.
    /// Several ranks, groups and models may have one. It holds what people write.
    #[arg(long, env = "PIE_KV_SPILL", value_name = "DIR")]
    pub kv_spill: Option<PathBuf>,
    /// Bytes of all that is in that folder: what was not used for longest goes.
    #[arg(long, env = "PIE_KV_SPILL_SIZE", default_value = "8GiB", value_name = "SIZE", value_parser = crate::units::bytes)]
    pub kv_spill_size: u64,
    /// Threads of a rank; 0 shares the machine's cores among the ranks.
    #[arg(long, env = "PIE_THREADS", default_value_t = 0, value_name = "N")]
    pub threads: usize,
}

impl Default for RankArgs {
    fn default() -> Self {
        let (dtype, collectives) = (DtypeArg::Auto, Collectives::Auto);
        Self {
            device: DeviceArg::Cpu,
            dtype,
            kv_dtype: KvDtypeArg::Auto,
            collectives,
            kv_memory: None,
            kv_spill: None,
            kv_spill_size: 8 << 30,
            threads: 0,
        }
    }
}
