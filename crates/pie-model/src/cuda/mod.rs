//! A rank's slice of a model on a GPU.
//!
//! A pass is enqueued on one stream from the tokens to the drawn tokens; the host waits once, at its end. Weights,
//! activations and rows are bf16, f16 or f32; the residual, the sums over ranks, norms and logits are f32. cuBLAS multiplies
//! many rows, kernels of `kernels/` do the rest. A pass whose launches were seen before is replayed as a CUDA graph.

mod graphs;
mod measure;
mod pass;
mod product;
mod random;
mod sampled;
mod space;
mod staged;
mod weights;

use crate::batch::{Batch, BatchLimits};
use crate::compute::{Compute, Draw, KvRows, check_draws};
use crate::config::Config;
use crate::error::ModelError;
use crate::folder::Folder;
use crate::model::check_member;
use crate::sampling::Sampled;
use crate::seeded::Spec;
use crate::shard::Shard;
use graphs::Graphs;
pub use measure::{copy_rate, matrix_rate};
use pass::LayerKernels;
use pie_comm::{Collective, Member};
use pie_kv::cuda::{Dtype, Gpu, GpuCache, GpuError, Memory, Upload};
use pie_kv::{KvShape, Rope};
use pie_words::Slot;
use product::{DeviceMatrix, Products};
use random::Random;
use space::ActivationMemory;
use staged::StagedCollective;
use std::path::Path;
use weights::Weights;

/// An address of device memory.
type Address = u64;

/// [`Compute`] on a GPU.
pub struct OnGpu {
    gpu: Gpu,
    config: Config,
    fingerprint: String,
    member: Member,
    shard: Shard,
    rope: Rope,
    weights: Weights,
    cache: GpuCache,
    products: Products,
    kernels: LayerKernels,
    space: ActivationMemory,
    upload: Upload,
    staged: StagedCollective,
    graphs: Graphs,
}

impl OnGpu {
    /// Reads a member's slice of a Hugging Face folder into device memory, with a cache of `slots` tokens. `progress` hears
    /// (bytes done, bytes in all).
    ///
    /// # Errors
    /// Configurations and world sizes that do not fit; files; the GPU.
    pub fn load(
        gpu: &Gpu,
        folder: &Path,
        member: Member,
        dtype: Dtype,
        slots: usize,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self, ModelError> {
        // What is wrong with the configuration alone is said first.
        let shard = checked_shard(&Config::read(folder)?, member, dtype)?;
        let ranks = member.world_size().get() as usize;
        let folder = Folder::open(folder)?;
        let config = folder.config.clone();
        let (weights, fingerprint) = Weights::load(gpu, folder, (&shard, ranks), dtype, progress)?;
        Self::new(gpu, config, fingerprint, (member, shard), weights, dtype, slots)
    }

    /// A member's slice of a model of seeded random weights, made on the GPU: for measuring, without files.
    ///
    /// # Errors
    /// As [`OnGpu::load`].
    pub fn random(
        gpu: &Gpu,
        config: Config,
        member: Member,
        dtype: Dtype,
        slots: usize,
        seed: u64,
    ) -> Result<Self, ModelError> {
        let shard = checked_shard(&config, member, dtype)?;
        let ranks = member.world_size().get() as usize;
        let mut weights = Weights::zeros(gpu, &config, &shard, ranks, dtype)?;
        fill_randomly(gpu, &config, &mut weights, dtype, seed)?;
        Self::new(gpu, config, format!("seeded-{seed}"), (member, shard), weights, dtype, slots)
    }

    fn new(
        gpu: &Gpu,
        config: Config,
        fingerprint: String,
        (member, shard): (Member, Shard),
        weights: Weights,
        dtype: Dtype,
        slots: usize,
    ) -> Result<Self, ModelError> {
        let Config { layers, head_dim, .. } = config;
        let shape = KvShape { layers, kv_heads: shard.kv_heads.len(), head_dim, slots };
        Ok(Self {
            rope: Rope::new(config.head_dim, config.rope_theta, &config.rope_scaling)?,
            cache: GpuCache::new(gpu, shape, dtype)?,
            products: Products::new(gpu, dtype)?,
            kernels: LayerKernels::new(gpu, dtype)?,
            space: ActivationMemory::new(gpu, &config, &shard, dtype)?,
            upload: Upload::new(gpu, 4 << 20)?,
            staged: StagedCollective::new(gpu)?,
            graphs: Graphs::default(),
            gpu: gpu.clone(),
            config,
            fingerprint,
            member,
            shard,
            weights,
        })
    }

    /// Bytes of a member's slice in device memory.
    ///
    /// # Errors
    /// [`ModelError::WorldSize`].
    pub fn weight_bytes(config: &Config, member: Member, dtype: Dtype) -> Result<u64, ModelError> {
        let shard = Shard::new(config, member)?;
        Ok(Weights::bytes(config, &shard, member.world_size().get() as usize, dtype))
    }

    /// Bytes of a pass of so many rows, of which `wanted` have logits.
    ///
    /// # Errors
    /// [`ModelError::WorldSize`].
    pub fn pass_bytes(
        config: &Config,
        member: Member,
        dtype: Dtype,
        rows: usize,
        wanted: usize,
    ) -> Result<u64, ModelError> {
        let shard = Shard::new(config, member)?;
        Ok(ActivationMemory::bytes(config, &shard, member.world_size().get() as usize, dtype, rows, wanted))
    }

    /// Equal on ranks that hold slices of one model.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The GPU.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// The number type of weights, activations and rows.
    pub fn dtype(&self) -> Dtype {
        self.cache.dtype()
    }

    /// Launches every pass kernel by kernel from now on, and replays none as a graph.
    pub fn without_graphs(&mut self) {
        self.graphs = Graphs::off();
    }

    /// How many graphs were replayed so far.
    pub fn replays(&self) -> u64 {
        self.graphs.replays()
    }

    /// Encodes the rows of a batch and returns their logits: see [`crate::Model::forward`]. For checks; a rank draws on
    /// the GPU.
    ///
    /// # Errors
    /// As [`crate::Model::forward`]; the GPU.
    pub fn logits(
        &mut self,
        batch: &Batch<'_>,
        comm: &mut dyn Collective,
    ) -> Result<Vec<Vec<f32>>, ModelError> {
        let wanted = self.pass(batch, comm)?;
        self.read_logits(&wanted.order, wanted.rows.len())
    }

    fn check(&self, batch: &Batch<'_>, comm: &dyn Collective) -> Result<(), ModelError> {
        check_member(self.member, comm.member())?;
        let (vocabulary, positions) = (self.config.vocab_size, self.config.max_position_embeddings);
        batch.check(&BatchLimits { vocabulary, positions, slots: self.cache.shape().slots })
    }
}

impl Compute for OnGpu {
    fn config(&self) -> &Config {
        &self.config
    }

    fn member(&self) -> Member {
        self.member
    }

    fn kv_shape(&self) -> KvShape {
        self.cache.shape()
    }

    fn copy(&mut self, from: &[Slot], to: &[Slot]) -> Result<(), ModelError> {
        Ok(self.cache.copy(from, to)?)
    }

    fn turn(&mut self, slots: &[Slot], deltas: &[i32]) -> Result<(), ModelError> {
        Ok(self.cache.turn(&self.rope, slots, deltas)?)
    }

    fn forward(
        &mut self,
        batch: &Batch<'_>,
        draws: &[Draw],
        comm: &mut dyn Collective,
    ) -> Result<Vec<Sampled>, ModelError> {
        check_draws(batch, draws)?;
        let wanted = self.pass(batch, comm)?;
        self.draw(&wanted, draws)
    }

    fn rows(&self, layer: usize, slots: &[Slot]) -> Result<KvRows, ModelError> {
        let (keys, values) = self.cache.rows(layer, slots)?;
        Ok(KvRows { keys, values })
    }

    fn set_rows(&mut self, layer: usize, slots: &[Slot], rows: &KvRows) -> Result<(), ModelError> {
        Ok(self.cache.set_rows(layer, slots, &rows.keys, &rows.values)?)
    }
}

/// A member's part, if the kernels can read its rows in words of 16 bytes.
fn checked_shard(config: &Config, member: Member, dtype: Dtype) -> Result<Shard, ModelError> {
    let shard = Shard::new(config, member)?;
    let rows = [
        ("hidden_size", config.hidden_size),
        ("this rank's heads", shard.heads.len() * config.head_dim),
        ("this rank's KV heads", shard.kv_heads.len() * config.head_dim),
    ];
    match rows.into_iter().find(|(_, width)| !(width * dtype.size()).is_multiple_of(16)) {
        Some((what, width)) => {
            let problem = format!("{what} of {width} numbers, which are no multiple of 16 bytes");
            Err(GpuError::Unsupported(problem).into())
        }
        None => Ok(shard),
    }
}

/// The deviations of [`crate::seeded`]; the numbers are others.
fn fill_randomly(
    gpu: &Gpu,
    config: &Config,
    weights: &mut Weights,
    dtype: Dtype,
    seed: u64,
) -> Result<(), ModelError> {
    let mut random = Random::new(gpu, dtype, seed)?;
    let mut fill =
        |matrix: &DeviceMatrix, gain: f32| random.fill(&matrix.memory, gain / (matrix.inputs as f32).sqrt());
    fill(&weights.embedding, Spec::TABLE_GAIN)?;
    for layer in &weights.layers {
        // Queries and keys a little more than values, as far as one matrix of the three allows.
        fill(&layer.qkv, Spec::QUERY_GAIN)?;
        fill(&layer.output, 1.0)?;
        fill(&layer.gate_up, 1.0)?;
        fill(&layer.down, 1.0)?;
    }
    if let Some(head) = &weights.head {
        fill(head, Spec::TABLE_GAIN)?;
    }
    let ones = vec![1.0_f32; config.hidden_size];
    let norms = weights.layers.iter_mut().flat_map(|layer| [&mut layer.attention_norm, &mut layer.mlp_norm]);
    let norms: Vec<&mut Memory> = norms.chain([&mut weights.norm]).collect();
    for norm in norms {
        norm.write(0, &ones)?;
    }
    Ok(())
}
