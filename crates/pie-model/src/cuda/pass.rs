//! The forward pass on the stream.

use super::graphs::{self, Launching};
use super::product::Output;
use super::space::ActivationAddresses;
use super::weights::GpuLayer;
use super::{Address, OnGpu};
use crate::batch::{Batch, LogitRows, Sequence};
use crate::error::ModelError;
use cudarc::driver::{CudaFunction, LaunchArgs};
use pie_comm::Collective;
use pie_kv::Attention;
use pie_kv::cuda::{
    Dtype, Gpu, GpuCache, GpuError, LaunchConfig, Memory, Placing, PushKernelArg, SentSequences, Upload,
    UploadOffset,
};

/// Kernels between products and attention.
pub(super) struct LayerKernels {
    embed: CudaFunction,
    norm: CudaFunction,
    add_norm: CudaFunction,
    ready_heads: CudaFunction,
    gated: CudaFunction,
    pick: CudaFunction,
    greedy: CudaFunction,
    /// Numbers of the gate that a thread takes, if the width is a multiple of it.
    together: usize,
}

impl LayerKernels {
    /// Loads the kernels for a type of numbers.
    pub fn new(gpu: &Gpu, dtype: Dtype) -> Result<Self, GpuError> {
        let kernels = gpu.load(include_bytes!("../../kernels/layers.ptx.gz"))?;
        let sampling = gpu.load(include_bytes!("../../kernels/sampling.ptx.gz"))?;
        let typed = |name: &str| kernels.get(&format!("{name}_{}", dtype.suffix()));
        Ok(Self {
            embed: typed("embed")?,
            norm: typed("norm")?,
            add_norm: typed("add_norm")?,
            ready_heads: typed("ready_heads")?,
            gated: typed("gated")?,
            pick: kernels.get("pick_rows")?,
            greedy: sampling.get("greedy")?,
            together: 16 / dtype.size(),
        })
    }
}

/// What a pass launches, as far as it differs from pass to pass: equal plans enqueue the same.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct LaunchPlan {
    rows: usize,
    tokens: UploadOffset,
    slots: UploadOffset,
    angles: UploadOffset,
    seen: SentSequences,
    last: Last,
}

/// The rows that go on after the last layer's keys and values are written.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Last {
    None,
    All,
    Some { rows: usize, picked: UploadOffset, seen: SentSequences },
}

impl LaunchPlan {
    fn wanted(&self) -> usize {
        match self.last {
            Last::None => 0,
            Last::All => self.rows,
            Last::Some { rows, .. } => rows,
        }
    }
}

impl OnGpu {
    /// Encodes a batch and waits for it: logits and greedy tokens of the wanted rows, which it returns, are then on the GPU.
    pub(super) fn pass<'a>(
        &mut self,
        batch: &Batch<'a>,
        comm: &mut dyn Collective,
    ) -> Result<LogitRows<'a>, ModelError> {
        self.check(batch, comm)?;
        let wanted = batch.wanted();
        let ranks = self.member.world_size().get() as usize;
        if batch.tokens.is_empty() {
            return Ok(wanted);
        }
        let plan = self.send(batch, &wanted, ranks)?;
        let group = comm.on_device().map(|device| device.group());
        let on_stream = ranks == 1 || group.is_some();
        // Larger passes run longer than their launches take, and seldom come again.
        let way = if on_stream && plan.rows <= REPLAYED {
            self.graphs.way(&plan, group)?
        } else {
            Launching::Launch
        };
        match way {
            Launching::Launch => self.enqueue(&plan, comm)?,
            Launching::Capture => {
                graphs::begin(&self.gpu)?;
                if let Err(error) = self.enqueue(&plan, comm) {
                    graphs::abandon(&self.gpu);
                    return Err(error);
                }
                if !self.graphs.end(&self.gpu, plan.clone()) {
                    self.enqueue(&plan, comm)?;
                }
            }
            Launching::Replayed => {}
        }
        match comm.on_device() {
            Some(device) => device.wait()?,
            None => self.gpu.synchronize()?,
        }
        Ok(wanted)
    }

    /// Sends what a pass needs to know.
    fn send(
        &mut self,
        batch: &Batch<'_>,
        wanted: &LogitRows<'_>,
        ranks: usize,
    ) -> Result<LaunchPlan, ModelError> {
        let rows = batch.tokens.len();
        let mut moved = self.space.make_room(rows, wanted.rows.len(), ranks)?;
        let upload = &mut self.upload;
        upload.begin();
        let tokens = upload.put(&batch.tokens.iter().map(|token| token.0).collect::<Vec<u32>>());
        let slots = upload.put(&batch.slots.iter().map(|slot| slot.0).collect::<Vec<u32>>());
        let angles = GpuCache::put_angles(upload, &self.rope, &batch.positions);
        let heads = self.shard.heads.len();
        let mut prepare = |upload: &mut Upload, sequences: &[Sequence<'_>], rows: usize| {
            let sequences: Vec<Attention<'_>> = sequences.iter().map(Sequence::attention).collect();
            let (seen, anew) = self.cache.prepare(upload, &sequences, rows, heads)?;
            moved |= anew;
            Ok::<_, ModelError>(seen)
        };
        let seen = prepare(upload, &batch.sequences, rows)?;
        let last = match wanted.rows.len() {
            0 => Last::None,
            all if all == rows => Last::All,
            rows => {
                let picked = upload.put(&wanted.rows);
                Last::Some { rows, picked, seen: prepare(upload, &wanted.sequences, rows)? }
            }
        };
        moved |= self.upload.send()?;
        if moved {
            self.graphs.forget();
        }
        Ok(LaunchPlan { rows, tokens, slots, angles, seen, last })
    }

    /// Enqueues the whole pass.
    fn enqueue(&mut self, plan: &LaunchPlan, comm: &mut dyn Collective) -> Result<(), ModelError> {
        let mut at = self.space.places();
        self.embed(plan, &at)?;
        let count = self.weights.layers.len();
        for index in 0..count {
            self.attention_inputs(index, plan, &at)?;
            let (mut rows, mut seen) = (plan.rows, plan.seen);
            if index + 1 == count {
                match &plan.last {
                    Last::None => return Ok(()),
                    Last::All => {}
                    Last::Some { rows: some, picked, seen: of_some } => {
                        (rows, seen) = (*some, *of_some);
                        self.pick(rows, *picked, &mut at)?;
                    }
                }
            }
            self.attention(index, rows, &seen, &at)?;
            self.sum(at.partial, rows, comm)?;
            self.mlp(index, rows, &at)?;
            self.sum(at.partial, rows, comm)?;
            let weight =
                self.weights.layers.get(index + 1).map_or(&self.weights.norm, |next| &next.attention_norm);
            self.add_norm(weight.at(0), rows, &at)?;
        }
        self.head(plan.wanted(), &at, comm)
    }

    fn layer(&self, index: usize) -> &GpuLayer {
        &self.weights.layers[index]
    }

    fn embed(&self, plan: &LaunchPlan, at: &ActivationAddresses) -> Result<(), ModelError> {
        let (table, tokens) = (self.weights.embedding.memory.at(0), self.upload.at(plan.tokens));
        let hidden = self.config.hidden_size as u32;
        let mut launch = self.gpu.stream().launch_builder(&self.kernels.embed);
        launch.arg(&table).arg(&tokens).arg(&at.x).arg(&hidden);
        // SAFETY: the arguments are those of `embed` in layers.cu; tokens are below the vocabulary, which was checked, and x has
        // room for all rows.
        unsafe { run(&mut launch, by_row(plan.rows, 0))? };
        let (weight, epsilon) = (self.layer(0).attention_norm.at(0), self.config.rms_norm_eps as f32);
        let mut launch = self.gpu.stream().launch_builder(&self.kernels.norm);
        launch.arg(&at.x).arg(&weight).arg(&at.normed).arg(&hidden).arg(&epsilon);
        // SAFETY: as above, of `norm`.
        unsafe { run(&mut launch, by_row(plan.rows, NORM_SHARED)) }
    }

    /// From normed rows: writes the rows' keys and values of a layer, and leaves the rotated queries.
    fn attention_inputs(
        &self,
        index: usize,
        plan: &LaunchPlan,
        at: &ActivationAddresses,
    ) -> Result<(), ModelError> {
        let placing = Placing {
            qkv: at.qkv,
            queries: at.queries,
            angles: self.upload.at(plan.angles),
            slots: self.upload.at(plan.slots),
            rows: plan.rows as u32,
            heads: self.shard.heads.len() as u32,
        };
        // SAFETY: activations have room for all rows; slots were checked with the batch.
        unsafe {
            self.products.multiply(
                self.layer(index).qkv.all(),
                at.normed,
                at.qkv,
                plan.rows,
                Output::Same,
            )?;
            self.ready_heads(index, plan.rows, at)?;
            self.cache.place(index, &placing)?;
        }
        Ok(())
    }

    /// Adds biases to queries, keys and values, and norms their heads, where the architecture has either.
    fn ready_heads(&self, index: usize, rows: usize, at: &ActivationAddresses) -> Result<(), ModelError> {
        let layer = self.layer(index);
        if layer.biases.is_none() && layer.head_norms.is_none() {
            return Ok(());
        }
        let address =
            |memory: &Option<Memory>| memory.as_ref().map_or(Address::default(), |memory| memory.at(0));
        let (biases, norms) = (address(&layer.biases), address(&layer.head_norms));
        let (queries, keys) = (self.shard.heads.len() as u32, self.shard.kv_heads.len() as u32);
        let (dim, epsilon) = (self.config.head_dim as u32, self.config.rms_norm_eps as f32);
        let grid_dim = (queries + 2 * keys, rows as u32, 1);
        let config = LaunchConfig { grid_dim, block_dim: (32, 1, 1), shared_mem_bytes: 0 };
        let mut launch = self.gpu.stream().launch_builder(&self.kernels.ready_heads);
        launch.arg(&at.qkv).arg(&biases).arg(&norms).arg(&dim).arg(&queries).arg(&keys).arg(&epsilon);
        // SAFETY: the arguments are those of `ready_heads`; activations have room for all rows, and vectors are as long as
        // the heads.
        unsafe { run(&mut launch, config)? };
        Ok(())
    }

    /// From the queries to this rank's part of what attention adds to x.
    fn attention(
        &self,
        index: usize,
        rows: usize,
        seen: &SentSequences,
        at: &ActivationAddresses,
    ) -> Result<(), ModelError> {
        let heads = self.shard.heads.len();
        // SAFETY: activations have room for all rows, and these are as many as were prepared.
        unsafe {
            self.cache.attend(index, &self.upload, seen, (at.queries, at.attended), heads)?;
            self.products.multiply(self.layer(index).output.all(), at.attended, at.partial, rows, Output::F32)
        }
    }

    /// Adds what attention gave to x, and leaves this rank's part of what the MLP adds to it.
    fn mlp(&self, index: usize, rows: usize, at: &ActivationAddresses) -> Result<(), ModelError> {
        let layer = self.layer(index);
        self.add_norm(layer.mlp_norm.at(0), rows, at)?;
        // SAFETY: activations have room for all rows.
        unsafe { self.products.multiply(layer.gate_up.all(), at.normed, at.gate_up, rows, Output::Same)? };
        let width = self.space.widths.mlp;
        let threads =
            if width.is_multiple_of(self.kernels.together) { width / self.kernels.together } else { width };
        let grid_dim = ((threads as u32).div_ceil(THREADS), rows as u32, 1);
        let config = LaunchConfig { grid_dim, block_dim: (THREADS, 1, 1), shared_mem_bytes: 0 };
        let width = width as u32;
        let mut launch = self.gpu.stream().launch_builder(&self.kernels.gated);
        launch.arg(&at.gate_up).arg(&at.gated).arg(&width);
        // SAFETY: the arguments are those of `gated`; activations have room for all rows.
        unsafe {
            run(&mut launch, config)?;
            self.products.multiply(layer.down.all(), at.gated, at.partial, rows, Output::F32)
        }
    }

    /// x += partial, and normed rows of it.
    fn add_norm(&self, weight: Address, rows: usize, at: &ActivationAddresses) -> Result<(), ModelError> {
        let (hidden, epsilon) = (self.config.hidden_size as u32, self.config.rms_norm_eps as f32);
        let mut launch = self.gpu.stream().launch_builder(&self.kernels.add_norm);
        launch.arg(&at.x).arg(&at.partial).arg(&weight).arg(&at.normed).arg(&hidden).arg(&epsilon);
        // SAFETY: the arguments are those of `add_norm`; activations have room for all rows.
        unsafe { run(&mut launch, by_row(rows, NORM_SHARED)) }
    }

    /// Rows of x and of the queries that go on, one behind the other; the addresses are theirs from here on.
    fn pick(
        &self,
        rows: usize,
        picked: UploadOffset,
        at: &mut ActivationAddresses,
    ) -> Result<(), ModelError> {
        let (hidden, queries) =
            (4 * self.space.widths.hidden, self.dtype().size() * self.space.widths.queries);
        let list = self.upload.at(picked);
        for (from, to, bytes) in [(at.x, at.picked_x, hidden), (at.queries, at.picked_queries, queries)] {
            let row = (bytes / 16) as u32;
            let mut launch = self.gpu.stream().launch_builder(&self.kernels.pick);
            launch.arg(&from).arg(&to).arg(&list).arg(&row);
            let grid_dim = (row.div_ceil(THREADS), rows as u32, 1);
            let config = LaunchConfig { grid_dim, block_dim: (THREADS, 1, 1), shared_mem_bytes: 0 };
            // SAFETY: the arguments are those of `pick_rows`; rows are whole words, which loading checked, and are of the batch.
            unsafe { run(&mut launch, config)? };
        }
        (at.x, at.queries) = (at.picked_x, at.picked_queries);
        Ok(())
    }

    /// Logits of normed rows, of all ranks, and the greedy token of each.
    fn head(
        &mut self,
        rows: usize,
        at: &ActivationAddresses,
        comm: &mut dyn Collective,
    ) -> Result<(), ModelError> {
        let (ranks, part) = (self.member.world_size().get(), self.space.widths.part);
        let own = if ranks == 1 { at.whole_logits } else { at.logits };
        // SAFETY: logits have room for all wanted rows.
        unsafe { self.logits_part(rows, at.normed, own)? };
        if ranks > 1 {
            // SAFETY: as above; the whole has room for the parts of all ranks.
            unsafe {
                match comm.on_device() {
                    Some(device) => device.all_gather(own, at.whole_logits, rows * part)?,
                    None => self.staged.gather(own, at.whole_logits, rows * part, comm)?,
                }
            }
        }
        let (rows, part, vocabulary) = (rows as u32, part as u32, self.config.vocab_size as u32);
        let (tokens, logprobs) = (at.drawn, at.drawn + 4 * u64::from(rows));
        let mut launch = self.gpu.stream().launch_builder(&self.kernels.greedy);
        launch.arg(&at.whole_logits).arg(&ranks).arg(&rows).arg(&part).arg(&vocabulary);
        launch.arg(&tokens).arg(&logprobs);
        let config = LaunchConfig { grid_dim: (rows, 1, 1), block_dim: (1024, 1, 1), shared_mem_bytes: 384 };
        // SAFETY: the arguments are those of `greedy` in sampling.cu; logits and results have room for all wanted rows.
        unsafe { run(&mut launch, config) }
    }

    /// # Safety
    /// The addresses have room for the rows.
    unsafe fn logits_part(&self, rows: usize, normed: Address, to: Address) -> Result<(), ModelError> {
        let table = match &self.weights.head {
            Some(head) => head.all(),
            None => {
                let part = self.space.widths.part;
                self.weights.embedding.view(self.member.rank().index() * part, part)
            }
        };
        // SAFETY: the caller's.
        unsafe { self.products.multiply(table, normed, to, rows, Output::F32) }
    }

    /// Sums `[rows][hidden]` over all ranks, in place.
    fn sum(&mut self, address: Address, rows: usize, comm: &mut dyn Collective) -> Result<(), ModelError> {
        let count = rows * self.space.widths.hidden;
        // SAFETY: the address is of activations, with room for all rows.
        unsafe {
            match comm.on_device() {
                Some(device) => Ok(device.all_reduce_sum(address, count)?),
                None if self.member.world_size().get() == 1 => Ok(()),
                None => self.staged.sum(address, count, comm),
            }
        }
    }
}

/// Rows up to which passes are replayed as graphs.
const REPLAYED: usize = 128;
const THREADS: u32 = 256;
/// A number of each warp.
const NORM_SHARED: u32 = 128;

fn by_row(rows: usize, shared_mem_bytes: u32) -> LaunchConfig {
    LaunchConfig { grid_dim: (rows as u32, 1, 1), block_dim: (THREADS, 1, 1), shared_mem_bytes }
}

/// # Safety
/// The arguments are those of the kernel, and fit the launch.
unsafe fn run(launch: &mut LaunchArgs<'_>, config: LaunchConfig) -> Result<(), ModelError> {
    // SAFETY: the caller's.
    unsafe { launch.launch(config) }.map_err(GpuError::failed("launching a kernel"))?;
    Ok(())
}
