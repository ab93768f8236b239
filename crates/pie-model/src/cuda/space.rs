//! Memory of a pass, kept for the next one.

use super::Address;
use super::product::FEW;
use crate::config::Config;
use crate::shard::Shard;
use pie_kv::cuda::{Dtype, Gpu, GpuError, Memory};

/// Widths of a rank's activations, in numbers.
#[derive(Clone, Copy)]
pub(super) struct Widths {
    /// The residual stream, whole on every rank.
    pub hidden: usize,
    /// Queries of the rank's own heads.
    pub queries: usize,
    /// These, and keys and values of the rank's own KV heads.
    pub qkv: usize,
    /// The rank's part between the two products of the MLP.
    pub mlp: usize,
    /// Logits of this rank.
    pub part: usize,
}

impl Widths {
    /// The widths of a slice.
    pub fn new(config: &Config, shard: &Shard) -> Self {
        let Config { hidden_size: hidden, head_dim, .. } = *config;
        let queries = shard.heads.len() * head_dim;
        let qkv = queries + 2 * shard.kv_heads.len() * head_dim;
        Self { hidden, queries, qkv, mlp: shard.mlp.len(), part: shard.vocabulary_part }
    }
}

/// Activations, `[rows][width]` each.
pub(super) struct ActivationMemory {
    gpu: Gpu,
    /// Of the slice that it is memory for.
    pub widths: Widths,
    size: usize,
    rows: usize,
    wanted: usize,
    numbers: Activations,
    logits: DeviceLogits,
}

/// Of all rows.
struct Activations {
    x: Memory,
    picked_x: Memory,
    normed: Memory,
    qkv: Memory,
    queries: Memory,
    picked_queries: Memory,
    attended: Memory,
    partial: Memory,
    gate_up: Memory,
    gated: Memory,
}

/// Of the rows that logits are wanted of.
struct DeviceLogits {
    part: Memory,
    /// `[rank][wanted][part]`.
    whole: Memory,
    /// Tokens, then their log probabilities.
    drawn: Memory,
}

/// Addresses of all of it.
#[derive(Clone, Copy)]
pub(super) struct ActivationAddresses {
    /// The residual stream, f32.
    pub x: Address,
    /// The same of the rows whose logits are wanted.
    pub picked_x: Address,
    /// Normed rows, which products read.
    pub normed: Address,
    /// Queries, keys and values, before they are rotated.
    pub qkv: Address,
    /// Rotated queries.
    pub queries: Address,
    /// The same of the rows whose logits are wanted.
    pub picked_queries: Address,
    /// Values, mixed by attention.
    pub attended: Address,
    /// The rank's part of a sum over ranks, f32.
    pub partial: Address,
    /// Gate and up of the MLP, side by side.
    pub gate_up: Address,
    /// silu(gate) * up.
    pub gated: Address,
    /// The rank's part of the logits, f32.
    pub logits: Address,
    /// All ranks' parts, `[rank][wanted][part]`.
    pub whole_logits: Address,
    /// The likeliest tokens, then their log probabilities.
    pub drawn: Address,
}

/// Rows of a step that there is room for from the start.
const ROWS: usize = 64;

impl ActivationMemory {
    /// Memory for the first steps; it grows with them.
    pub fn new(gpu: &Gpu, config: &Config, shard: &Shard, dtype: Dtype) -> Result<Self, GpuError> {
        let (widths, size) = (Widths::new(config, shard), dtype.size());
        Ok(Self {
            numbers: Activations::new(gpu, &widths, size, ROWS)?,
            logits: DeviceLogits::new(gpu, widths.part, 1, FEW)?,
            gpu: gpu.clone(),
            widths,
            size,
            rows: ROWS,
            wanted: FEW,
        })
    }

    /// Bytes for so many rows.
    pub fn bytes(
        config: &Config,
        shard: &Shard,
        ranks: usize,
        dtype: Dtype,
        rows: usize,
        wanted: usize,
    ) -> u64 {
        let (Widths { hidden, queries, qkv, mlp, part }, size) = (Widths::new(config, shard), dtype.size());
        let row = 12 * hidden + size * (hidden + 3 * queries + qkv + 3 * mlp);
        (row * rows.max(ROWS) + 4 * wanted.max(FEW) * part * (1 + ranks)) as u64
    }

    /// Makes room. True if memory has moved.
    pub fn make_room(&mut self, rows: usize, wanted: usize, ranks: usize) -> Result<bool, GpuError> {
        let mut moved = false;
        if rows > self.rows {
            self.gpu.synchronize()?;
            self.rows = rows.next_multiple_of(256);
            self.numbers = Activations::new(&self.gpu, &self.widths, self.size, self.rows)?;
            moved = true;
        }
        if wanted > self.wanted || self.logits.whole.len() < 4 * ranks * self.wanted * self.widths.part {
            self.gpu.synchronize()?;
            self.wanted = wanted.max(FEW).next_power_of_two();
            self.logits = DeviceLogits::new(&self.gpu, self.widths.part, ranks, self.wanted)?;
            moved = true;
        }
        Ok(moved)
    }

    /// Where everything is until memory moves.
    pub fn places(&self) -> ActivationAddresses {
        let Activations {
            x,
            picked_x,
            normed,
            qkv,
            queries,
            picked_queries,
            attended,
            partial,
            gate_up,
            gated,
        } = &self.numbers;
        let DeviceLogits { part, whole, drawn } = &self.logits;
        ActivationAddresses {
            x: x.at(0),
            picked_x: picked_x.at(0),
            normed: normed.at(0),
            qkv: qkv.at(0),
            queries: queries.at(0),
            picked_queries: picked_queries.at(0),
            attended: attended.at(0),
            partial: partial.at(0),
            gate_up: gate_up.at(0),
            gated: gated.at(0),
            logits: part.at(0),
            whole_logits: whole.at(0),
            drawn: drawn.at(0),
        }
    }

    /// Logits of all ranks, `[rank][wanted][part]`.
    pub fn whole_logits(&self) -> &Memory {
        &self.logits.whole
    }

    /// Tokens and log probabilities of the rows that logits were wanted of.
    pub fn drawn(&self) -> &Memory {
        &self.logits.drawn
    }
}

impl Activations {
    fn new(gpu: &Gpu, widths: &Widths, size: usize, rows: usize) -> Result<Self, GpuError> {
        let Widths { hidden, queries, qkv, mlp, .. } = *widths;
        let singles = |width: usize| Memory::zeros(gpu, 4 * rows * width, "activations");
        let typed = |width: usize| Memory::zeros(gpu, size * rows * width, "activations");
        Ok(Self {
            x: singles(hidden)?,
            picked_x: singles(hidden)?,
            normed: typed(hidden)?,
            qkv: typed(qkv)?,
            queries: typed(queries)?,
            picked_queries: typed(queries)?,
            attended: typed(queries)?,
            partial: singles(hidden)?,
            gate_up: typed(2 * mlp)?,
            gated: typed(mlp)?,
        })
    }
}

impl DeviceLogits {
    fn new(gpu: &Gpu, part: usize, ranks: usize, wanted: usize) -> Result<Self, GpuError> {
        let memory = |numbers: usize| Memory::zeros(gpu, 4 * numbers, "logits");
        // With one rank its part is the whole.
        let own = if ranks == 1 { 0 } else { wanted * part };
        Ok(Self { part: memory(own)?, whole: memory(ranks * wanted * part)?, drawn: memory(2 * wanted)? })
    }
}
