//! The forward pass: Llama (Touvron et al. 2023) over the rows of any number of sequences.

use crate::batch::{Batch, BatchLimits, LogitRows, Sequence};
use crate::error::ModelError;
use crate::layers::{add_bias, add_sum, gated};
use crate::logits::Logits;
use crate::model::{Layer, Model, QueryKeyNorms, check_member};
use pie_comm::Collective;
use pie_kv::simd::with_scratch;
use pie_kv::{Angles, Attention, KvCache, Strided};
use pie_words::TokenId;
use std::cell::Cell;

thread_local! {
    static WORKSPACE: Cell<Workspace> = Cell::default();
}

/// Memory of a pass, `[rows][width]` each, kept for the next one.
#[derive(Default)]
struct Workspace {
    x: Vec<f32>,
    normed: Vec<f32>,
    qkv: Vec<f32>,
    queries: Vec<f32>,
    attended: Vec<f32>,
    /// This rank's part of what a layer adds.
    partial: Vec<f32>,
    gate_up: Vec<f32>,
    gated: Vec<f32>,
}

/// Room for so many numbers, whatever they are.
fn sized(numbers: &mut Vec<f32>, length: usize) -> &mut [f32] {
    if numbers.len() < length {
        numbers.resize(length, 0.0);
    }
    &mut numbers[..length]
}

/// Runs on a thread of the pool. From outside, every loop that is shared would wake a thread and wait for it to end; inside,
/// the caller takes part in it. Collectives must stay outside where ranks share a pool: a rank that waits for its peers must
/// not hold a thread that they need.
fn in_pool<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    rayon::scope(|_| work())
}

impl Model {
    /// Encodes the rows of a batch: writes their K and V, rotated for their positions, to their slots, and returns the
    /// logits of the rows that are asked for, in that order, the same on every rank.
    ///
    /// All ranks must call it with the same batch (C1): it sums over the ranks twice a layer and gathers once. Rows without
    /// logits leave the last layer when their K and V are written.
    ///
    /// # Errors
    /// A batch that does not fit, before anything is changed; peers that fail; [`ModelError::GivenUp`], on all ranks in the same
    /// layer: the rows hold new numbers in the layers before it, and in those behind it what they held.
    pub fn forward(
        &self,
        batch: &Batch<'_>,
        cache: &mut KvCache,
        comm: &mut dyn Collective,
    ) -> Result<Logits, ModelError> {
        self.check(batch, cache, comm)?;
        with_scratch(&WORKSPACE, |workspace| {
            if self.member.world_size().get() == 1 {
                in_pool(|| self.pass(batch, cache, comm, workspace))
            } else {
                self.pass(batch, cache, comm, workspace)
            }
        })
    }

    fn pass(
        &self,
        batch: &Batch<'_>,
        cache: &mut KvCache,
        comm: &mut dyn Collective,
        space: &mut Workspace,
    ) -> Result<Logits, ModelError> {
        let (wanted, hidden) = (batch.wanted(), self.config.hidden_size);
        let angles = self.rope.angles(&batch.positions);
        self.embed(&batch.tokens, sized(&mut space.x, batch.tokens.len() * hidden));
        for (index, layer) in self.layers.iter().enumerate() {
            let last = index + 1 == self.layers.len();
            if last && wanted.rows.is_empty() {
                in_pool(|| self.attention_inputs(index, layer, batch, &angles, cache, space))?;
                return Ok(Logits::new(Vec::new(), self.config.vocab_size));
            }
            let rows = if last { wanted.rows.len() } else { batch.tokens.len() };
            in_pool(|| {
                self.attention_inputs(index, layer, batch, &angles, cache, space)?;
                let sequences = if last { wanted.keep(space, hidden, self) } else { &batch.sequences };
                self.attention(index, layer, rows, sequences, cache, space)
            })?;
            add_partial(space, rows * hidden, batch, comm)?;
            in_pool(|| self.mlp(layer, rows, space));
            add_partial(space, rows * hidden, batch, comm)?;
        }
        let (rows, part) = (wanted.order.len(), self.head.0.outputs());
        let logits = in_pool(|| {
            let x = sized(&mut space.partial, rows * hidden);
            for (to, row) in x.chunks_exact_mut(hidden).zip(&wanted.order) {
                to.copy_from_slice(&space.x[*row as usize * hidden..][..hidden]);
            }
            let normed = sized(&mut space.normed, rows * hidden);
            self.norm.forward(x, normed);
            let mut logits = vec![0.0; rows * part];
            self.head.0.multiply(normed, &mut logits);
            logits
        });
        let logits = whole_rows(&logits, rows, part, self.config.vocab_size, comm)?;
        Ok(Logits::new(logits, self.config.vocab_size))
    }

    /// From x: writes the rows' keys and values of a layer, and leaves the rotated queries.
    fn attention_inputs(
        &self,
        index: usize,
        layer: &Layer,
        batch: &Batch<'_>,
        angles: &Angles,
        cache: &mut KvCache,
        space: &mut Workspace,
    ) -> Result<(), ModelError> {
        let (rows, hidden, dim) = (batch.tokens.len(), self.config.hidden_size, self.config.head_dim);
        let (queries, keys) = (self.shard.heads.len() * dim, self.shard.kv_heads.len() * dim);
        let width = queries + 2 * keys;
        let normed = sized(&mut space.normed, rows * hidden);
        layer.attention_norm.forward(&space.x[..rows * hidden], normed);
        let qkv = sized(&mut space.qkv, rows * width);
        layer.qkv.0.multiply(normed, qkv);
        if let Some(bias) = &layer.bias {
            add_bias(qkv, bias);
        }
        if let Some(QueryKeyNorms { query, key }) = &layer.head_norms {
            query.forward_heads(qkv, width, 0..queries);
            key.forward_heads(qkv, width, queries..queries + keys);
        }
        angles.rotate(qkv, width, queries + keys);
        let part = |first: usize| Strided { numbers: qkv, first, stride: width };
        cache.write(index, &batch.slots, part(queries), part(queries + keys))?;
        let to = sized(&mut space.queries, rows * queries);
        for (to, from) in to.chunks_exact_mut(queries).zip(qkv.chunks_exact(width)) {
            to.copy_from_slice(&from[..queries]);
        }
        Ok(())
    }

    /// From the queries to this rank's part of what attention adds to x.
    fn attention(
        &self,
        index: usize,
        layer: &Layer,
        rows: usize,
        sequences: &[Sequence<'_>],
        cache: &KvCache,
        space: &mut Workspace,
    ) -> Result<(), ModelError> {
        let heads = self.shard.heads.len();
        let length = rows * heads * self.config.head_dim;
        let attentions: Vec<Attention<'_>> = sequences.iter().map(Sequence::attention).collect();
        let attended = sized(&mut space.attended, length);
        cache.attend(index, (&space.queries[..length], heads), &attentions, attended)?;
        layer.output.0.multiply(attended, sized(&mut space.partial, rows * self.config.hidden_size));
        Ok(())
    }

    /// From x to this rank's part of what the MLP adds to it.
    fn mlp(&self, layer: &Layer, rows: usize, space: &mut Workspace) {
        let (hidden, width) = (self.config.hidden_size, self.shard.mlp.len());
        let normed = sized(&mut space.normed, rows * hidden);
        layer.mlp_norm.forward(&space.x[..rows * hidden], normed);
        let gate_up = sized(&mut space.gate_up, rows * 2 * width);
        layer.gate_up.0.multiply(normed, gate_up);
        let middle = sized(&mut space.gated, rows * width);
        gated(gate_up, middle, width);
        layer.down.0.multiply(middle, sized(&mut space.partial, rows * hidden));
    }

    /// To [rows][hidden].
    fn embed(&self, tokens: &[TokenId], to: &mut [f32]) {
        let hidden = self.config.hidden_size;
        for (token, row) in tokens.iter().zip(to.chunks_exact_mut(hidden)) {
            self.embedding.row(token.0 as usize, 0..hidden, row);
        }
    }

    fn check(&self, batch: &Batch<'_>, cache: &KvCache, comm: &dyn Collective) -> Result<(), ModelError> {
        check_member(self.member, comm.member())?;
        let slots = cache.shape().slots;
        if cache.shape() != self.kv_shape(slots) {
            let (got, needed) = (cache.shape(), self.kv_shape(slots));
            return Err(ModelError::BatchInvalid(format!(
                "the cache is {got:?}, this slice needs {needed:?}"
            )));
        }
        let (vocabulary, positions) = (self.config.vocab_size, self.config.max_position_embeddings);
        batch.check(&BatchLimits { vocabulary, positions, slots })
    }
}

/// Adds what all ranks have in `partial` to the first `numbers` of x. Where the pass may be given up one number more is summed:
/// the ranks that want it (C1: all hear the same).
fn add_partial(
    space: &mut Workspace,
    numbers: usize,
    batch: &Batch<'_>,
    comm: &mut dyn Collective,
) -> Result<(), ModelError> {
    let Some(interrupt) = batch.interrupt else {
        return add_sum(&mut space.x[..numbers], &mut space.partial[..numbers], comm);
    };
    let partial = sized(&mut space.partial, numbers + 1);
    partial[numbers] = if (interrupt.0)() { 1.0 } else { 0.0 };
    add_sum(&mut space.x[..numbers], partial, comm)?;
    if partial[numbers] > 0.0 { Err(ModelError::GivenUp) } else { Ok(()) }
}

/// `[rows][part]` of each rank to `[rows][vocabulary]`: the last rank's part ends with padding.
fn whole_rows(
    logits: &[f32],
    rows: usize,
    part: usize,
    vocabulary: usize,
    comm: &mut dyn Collective,
) -> Result<Vec<f32>, ModelError> {
    let ranks = comm.member().world_size().get() as usize;
    let mut gathered = vec![0.0; ranks * logits.len()];
    comm.all_gather(logits, &mut gathered)?;
    let mut whole = Vec::with_capacity(rows * vocabulary);
    for row in 0..rows {
        for rank in 0..ranks {
            let width = part.min(vocabulary.saturating_sub(rank * part));
            whole.extend_from_slice(&gathered[(rank * rows + row) * part..][..width]);
        }
    }
    Ok(whole)
}

impl<'a> LogitRows<'a> {
    /// Moves the rows that go on to the front of x and of the queries; returns their sequences.
    fn keep(&self, space: &mut Workspace, hidden: usize, model: &Model) -> &[Sequence<'a>] {
        let queries = model.shard.heads.len() * model.config.head_dim;
        for (numbers, width) in [(&mut space.x, hidden), (&mut space.queries, queries)] {
            // Rows ascend: none is overwritten before it is moved.
            for (to, from) in self.rows.iter().enumerate() {
                let from = *from as usize * width;
                numbers.copy_within(from..from + width, to * width);
            }
        }
        &self.sequences
    }
}
