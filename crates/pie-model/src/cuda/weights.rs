//! A rank's slice of the weights in device memory.

use super::product::DeviceMatrix;
use crate::architecture::{Biases, HeadNorms};
use crate::checkpoint::Checkpoint;
use crate::config::Config;
use crate::error::ModelError;
use crate::folder::Folder;
use crate::matrix::Matrix;
use crate::shard::Shard;
use crate::tensors::{LayerTensors, NORM};
use cudarc::driver::{CudaEvent, PinnedHostSlice};
use half::{bf16, f16};
use pie_kv::cuda::{Dtype, Gpu, GpuError, Memory};
use std::ops::Range;

/// All weights of a slice. Norms are f32, the rest in the model's type.
pub(super) struct Weights {
    /// The whole table, with rows of zeros up to what all ranks' parts of the head need.
    pub embedding: DeviceMatrix,
    /// From the embedding to the head.
    pub layers: Vec<GpuLayer>,
    /// The norm before the head.
    pub norm: Memory,
    /// Unless it is a part of the embedding.
    pub head: Option<DeviceMatrix>,
}

pub(super) struct GpuLayer {
    /// The norm before attention.
    pub attention_norm: Memory,
    /// Rows of all own query heads, then of the key heads, then of the value heads.
    pub qkv: DeviceMatrix,
    /// Of a row of `qkv`, f32.
    pub biases: Option<Memory>,
    /// Of the heads of the queries, then of the keys, f32.
    pub head_norms: Option<Memory>,
    /// From the rank's own heads to its part of the residual's sum.
    pub output: DeviceMatrix,
    /// The norm before the MLP.
    pub mlp_norm: Memory,
    /// Rows of the gate, then of up.
    pub gate_up: DeviceMatrix,
    /// From the rank's part of the MLP to its part of the residual's sum.
    pub down: DeviceMatrix,
}

/// Numbers of a layer's biases.
fn biases(config: &Config, shard: &Shard) -> usize {
    match config.architecture.biases {
        Biases::Absent => 0,
        Biases::QueryKeyValue => (shard.heads.len() + 2 * shard.kv_heads.len()) * config.head_dim,
    }
}

/// Numbers of a layer's norms of heads.
fn head_norms(config: &Config) -> usize {
    match config.architecture.head_norms {
        HeadNorms::Absent => 0,
        HeadNorms::QueryKey => 2 * config.head_dim,
    }
}

impl Weights {
    /// Bytes in device memory that a slice takes.
    pub fn bytes(config: &Config, shard: &Shard, ranks: usize, dtype: Dtype) -> u64 {
        let Config { hidden_size: hidden, head_dim, layers, vocab_size, .. } = *config;
        let heads = 2 * shard.heads.len() + 2 * shard.kv_heads.len();
        let layer = hidden * (heads * head_dim + 3 * shard.mlp.len());
        let table = vocab_size.max(ranks * shard.vocabulary_part) * hidden;
        let head = if config.tied_head { 0 } else { shard.vocabulary_part * hidden };
        let vectors = layers * (2 * hidden + biases(config, shard) + head_norms(config)) + hidden;
        (dtype.size() * (layers * layer + table + head) + 4 * vectors) as u64
    }

    /// Memory for a slice, all zeros.
    pub fn zeros(
        gpu: &Gpu,
        config: &Config,
        shard: &Shard,
        ranks: usize,
        dtype: Dtype,
    ) -> Result<Self, GpuError> {
        let Config { hidden_size: hidden, head_dim, layers, vocab_size, .. } = *config;
        let (heads, kv_heads, mlp) = (shard.heads.len(), shard.kv_heads.len(), shard.mlp.len());
        let matrix = |outputs, inputs| DeviceMatrix::zeros(gpu, dtype, outputs, inputs);
        let norm = || Memory::zeros(gpu, 4 * hidden, "the weights");
        let some = |numbers: usize| {
            (numbers > 0).then(|| Memory::zeros(gpu, 4 * numbers, "the weights")).transpose()
        };
        let layer = |_| -> Result<GpuLayer, GpuError> {
            Ok(GpuLayer {
                attention_norm: norm()?,
                qkv: matrix((heads + 2 * kv_heads) * head_dim, hidden)?,
                biases: some(biases(config, shard))?,
                head_norms: some(head_norms(config))?,
                output: matrix(hidden, heads * head_dim)?,
                mlp_norm: norm()?,
                gate_up: matrix(2 * mlp, hidden)?,
                down: matrix(hidden, mlp)?,
            })
        };
        Ok(Self {
            embedding: matrix(vocab_size.max(ranks * shard.vocabulary_part), hidden)?,
            layers: (0..layers).map(layer).collect::<Result<_, _>>()?,
            norm: norm()?,
            head: if config.tied_head { None } else { Some(matrix(shard.vocabulary_part, hidden)?) },
        })
    }

    /// Reads a slice from a folder's files, piece by piece through pinned memory. Returns the fingerprint too.
    pub fn load(
        gpu: &Gpu,
        folder: Folder,
        (shard, ranks): (&Shard, usize),
        dtype: Dtype,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<(Self, String), ModelError> {
        let Folder { config, checkpoint, tables } = folder;
        let config = &config;
        let mut weights = Self::zeros(gpu, config, shard, ranks, dtype)?;
        let total = Self::bytes(config, shard, ranks, dtype);
        let feed = Feed::new(gpu, dtype, progress, total)?;
        let mut loader = GpuLoader { checkpoint, config, shard, feed };
        for (index, layer) in weights.layers.iter_mut().enumerate() {
            loader.layer(index, layer)?;
        }
        loader.feed.norm(&mut weights.norm, &loader.checkpoint.vector(NORM, config.hidden_size)?)?;
        let table = loader.checkpoint.matrix(tables.embedding, config.vocab_size, config.hidden_size)?;
        loader.feed.rows(&mut weights.embedding, 0, &table, 0..config.vocab_size)?;
        if let Some(head) = &mut weights.head {
            let table = loader.checkpoint.matrix(tables.head, config.vocab_size, config.hidden_size)?;
            loader.feed.rows(head, 0, &table, shard.vocabulary.clone())?;
        }
        gpu.synchronize()?;
        let fingerprint = loader.checkpoint.fingerprint(config);
        Ok((weights, fingerprint))
    }
}

struct GpuLoader<'a> {
    checkpoint: Checkpoint,
    config: &'a Config,
    shard: &'a Shard,
    feed: Feed<'a>,
}

impl GpuLoader<'_> {
    fn layer(&mut self, index: usize, to: &mut GpuLayer) -> Result<(), ModelError> {
        let of = LayerTensors::find(&self.checkpoint, self.config, index)?;
        let (own, own_kv) = self.shard.head_rows(self.config.head_dim);
        let own_mlp = self.shard.mlp.clone();
        let feed = &mut self.feed;
        feed.norm(&mut to.attention_norm, &of.attention_norm)?;
        feed.norm(&mut to.mlp_norm, &of.mlp_norm)?;
        if let (Some(to), Some([query, key, value])) = (&mut to.biases, of.biases) {
            feed.norm(to, &[&query[own.clone()], &key[own_kv.clone()], &value[own_kv.clone()]].concat())?;
        }
        if let (Some(to), Some(norms)) = (&mut to.head_norms, of.head_norms) {
            feed.norm(to, &norms.concat())?;
        }
        let (queries, keys) = (own.len(), own_kv.len());
        feed.rows(&mut to.qkv, 0, &of.query, own.clone())?;
        feed.rows(&mut to.qkv, queries, &of.key, own_kv.clone())?;
        feed.rows(&mut to.qkv, queries + keys, &of.value, own_kv)?;
        feed.columns(&mut to.output, &of.output, own)?;
        feed.rows(&mut to.gate_up, 0, &of.gate, own_mlp.clone())?;
        feed.rows(&mut to.gate_up, own_mlp.len(), &of.up, own_mlp.clone())?;
        feed.columns(&mut to.down, &of.down, own_mlp)
    }
}

/// Bytes of a piece on its way.
const PIECE: usize = 32 << 20;

/// Two pieces of pinned memory in turns: while one travels, the next is filled.
struct Feed<'a> {
    gpu: Gpu,
    dtype: Dtype,
    pieces: [(PinnedHostSlice<u8>, CudaEvent); 2],
    next: usize,
    progress: &'a mut dyn FnMut(u64, u64),
    done: u64,
    total: u64,
}

impl<'a> Feed<'a> {
    fn new(
        gpu: &Gpu,
        dtype: Dtype,
        progress: &'a mut dyn FnMut(u64, u64),
        total: u64,
    ) -> Result<Self, GpuError> {
        let piece = || {
            // SAFETY: the memory is not set; it is bytes, and only those that were filled travel.
            let memory = unsafe { gpu.context().alloc_pinned(PIECE) };
            let memory = memory.map_err(GpuError::failed("taking pinned memory"))?;
            let travelled = gpu.context().new_event(None).map_err(GpuError::failed("making an event"))?;
            Ok((memory, travelled))
        };
        progress(0, total);
        Ok(Self { gpu: gpu.clone(), dtype, pieces: [piece()?, piece()?], next: 0, progress, done: 0, total })
    }

    fn norm(&mut self, to: &mut Memory, weight: &[f32]) -> Result<(), ModelError> {
        to.write(0, weight)?;
        self.count(size_of_val(weight));
        Ok(())
    }

    /// Some rows of a matrix, to rows of `to` from `first` on.
    fn rows(
        &mut self,
        to: &mut DeviceMatrix,
        first: usize,
        from: &Matrix,
        rows: Range<usize>,
    ) -> Result<(), ModelError> {
        self.block(to, first, from, rows, 0..from.columns())
    }

    /// Some columns of all rows.
    fn columns(
        &mut self,
        to: &mut DeviceMatrix,
        from: &Matrix,
        columns: Range<usize>,
    ) -> Result<(), ModelError> {
        self.block(to, 0, from, 0..from.rows(), columns)
    }

    fn block(
        &mut self,
        to: &mut DeviceMatrix,
        first: usize,
        from: &Matrix,
        rows: Range<usize>,
        columns: Range<usize>,
    ) -> Result<(), ModelError> {
        let width = columns.len() * self.dtype.size();
        let at_once = (PIECE / width.max(1)).max(1);
        for start in rows.clone().step_by(at_once) {
            let some = start..rows.end.min(start + at_once);
            let (pinned, travelled) = &mut self.pieces[self.next];
            self.next ^= 1;
            travelled.synchronize().map_err(GpuError::failed("sending weights"))?;
            let bytes = &mut pinned.as_mut_slice().map_err(GpuError::failed("sending weights"))?
                [..some.len() * width];
            for (row, bytes) in some.clone().zip(bytes.chunks_exact_mut(width)) {
                fill(from, row, columns.clone(), self.dtype, bytes);
            }
            let place = (first + start - rows.start) * width;
            let mut to = to.memory.slice_mut().slice_mut(place..place + bytes.len());
            self.gpu.stream().memcpy_htod(&*bytes, &mut to).map_err(GpuError::failed("sending weights"))?;
            travelled.record(self.gpu.stream()).map_err(GpuError::failed("sending weights"))?;
            let sent = bytes.len();
            self.count(sent);
        }
        from.check_for(self.dtype.suffix())
    }

    fn count(&mut self, bytes: usize) {
        self.done += bytes as u64;
        (self.progress)(self.done.min(self.total), self.total);
    }
}

/// Some columns of a row, as they are in the file or rounded to another type.
fn fill(from: &Matrix, row: usize, columns: Range<usize>, dtype: Dtype, bytes: &mut [u8]) {
    let first = row * from.columns() + columns.start;
    if let Some(same) = from.bytes(row, columns.clone(), dtype.suffix()) {
        bytes.copy_from_slice(same);
    } else {
        let mut numbers = vec![0.0; columns.len()];
        from.row(row, columns, &mut numbers);
        for (bytes, number) in bytes.chunks_exact_mut(dtype.size()).zip(numbers) {
            match dtype {
                Dtype::F32 => bytes.copy_from_slice(&number.to_le_bytes()),
                Dtype::F16 => bytes.copy_from_slice(&f16::from_f32(number).to_le_bytes()),
                Dtype::Bf16 => bytes.copy_from_slice(&bf16::from_f32(number).to_le_bytes()),
            }
        }
    }
    // Those that another type has no number for are found too.
    let wrong = match dtype {
        Dtype::F32 => endless(bytes, |bytes| f32::from_le_bytes(bytes).is_finite()),
        Dtype::F16 => endless(bytes, |bytes| f16::from_le_bytes(bytes).is_finite()),
        Dtype::Bf16 => endless(bytes, |bytes| bf16::from_le_bytes(bytes).is_finite()),
    };
    if let Some(place) = wrong {
        from.note(first + place);
    }
}

/// The first of some numbers that is not finite. Without an early end to the search it goes as fast as they are copied.
fn endless<const SIZE: usize>(bytes: &[u8], is_finite: impl Fn([u8; SIZE]) -> bool) -> Option<usize> {
    let numbers = bytes.as_chunks::<SIZE>().0;
    if numbers.iter().fold(true, |finite, number| finite & is_finite(*number)) {
        return None;
    }
    numbers.iter().position(|number| !is_finite(*number))
}
