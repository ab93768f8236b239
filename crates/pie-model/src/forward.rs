//! The forward pass: Llama (Touvron et al. 2023) over the rows of any number of sequences.

use crate::batch::{Batch, Limits, Sequence};
use crate::error::ModelError;
use crate::layers::gated;
use crate::model::{Layer, Model};
use candle_core::{Device, Tensor};
use pie_comm::Collective;
use pie_kv::{Attention, KvCache};
use pie_plan::TokenId;

impl Model {
    /// Encodes the rows of a batch: writes their K and V, rotated for their positions, to their slots, and returns the
    /// logits of the rows that are asked for, [logits_of, vocabulary] in f32, the same on every rank.
    ///
    /// All ranks must call it with the same batch (C1): it sums over the ranks twice a layer and gathers once. Rows without
    /// logits leave the last layer when their K and V are written.
    ///
    /// # Errors
    /// A batch that does not fit, before anything is changed; peers that fail.
    pub fn forward(
        &self,
        batch: &Batch,
        cache: &mut KvCache,
        comm: &mut dyn Collective,
    ) -> Result<Tensor, ModelError> {
        self.check(batch, cache, comm)?;
        let wanted = batch.wanted();
        let mut x = self.embed(&batch.tokens)?;
        for (index, layer) in self.layers.iter().enumerate() {
            let mut queries = self.attention_inputs(index, layer, &x, batch, cache)?;
            let mut sequences = &batch.sequences;
            if index + 1 == self.layers.len() {
                if wanted.rows.is_empty() {
                    return Ok(Tensor::zeros(
                        (0, self.config.vocab_size),
                        candle_core::DType::F32,
                        &Device::Cpu,
                    )?);
                }
                let rows = Tensor::new(wanted.rows.as_slice(), &Device::Cpu)?;
                (x, queries) = (x.index_select(&rows, 0)?, queries.index_select(&rows, 0)?);
                sequences = &wanted.sequences;
            }
            let attentions: Vec<Attention<'_>> = sequences.iter().map(Sequence::attention).collect();
            let attended = cache.attend(index, &queries, &attentions)?.flatten_from(1)?;
            x = (x + layer.output.forward(&attended, comm)?)?;
            let gate_up = layer.gate_up.forward(&layer.mlp_norm.forward(&x)?)?;
            x = (x + layer.down.forward(&gated(&gate_up)?, comm)?)?;
        }
        let x = x.index_select(&Tensor::new(wanted.order.as_slice(), &Device::Cpu)?, 0)?;
        let part = self.head.forward(&self.norm.forward(&x)?)?;
        // The last rank's part ends with padding.
        Ok(comm.all_gather_last(&part)?.narrow(1, 0, self.config.vocab_size)?.contiguous()?)
    }

    /// Writes the rows' keys and values of a layer; returns the rotated queries, [rows, own heads, head dimension].
    fn attention_inputs(
        &self,
        index: usize,
        layer: &Layer,
        x: &Tensor,
        batch: &Batch,
        cache: &mut KvCache,
    ) -> Result<Tensor, ModelError> {
        let (rows, head_dim) = (batch.tokens.len(), self.config.head_dim);
        let (heads, kv_heads) = (self.shard.heads.len(), self.shard.kv_heads.len());
        let qkv = layer.qkv.forward(&layer.attention_norm.forward(x)?)?;
        let part = |first: usize, count: usize| {
            let columns = qkv.narrow(1, first * head_dim, count * head_dim)?;
            columns.contiguous()?.reshape((rows, count, head_dim))
        };
        let (queries, keys) = (part(0, heads)?, part(heads, kv_heads)?);
        let values = part(heads + kv_heads, kv_heads)?;
        self.rope.rotate(&queries, &batch.positions)?;
        self.rope.rotate(&keys, &batch.positions)?;
        cache.write(index, &batch.slots, &keys, &values)?;
        Ok(queries)
    }

    /// [rows, hidden].
    fn embed(&self, tokens: &[TokenId]) -> Result<Tensor, ModelError> {
        let hidden = self.config.hidden_size;
        let mut rows = vec![0.0; tokens.len() * hidden];
        for (token, row) in tokens.iter().zip(rows.chunks_exact_mut(hidden)) {
            self.embedding.row(token.0 as usize, 0..hidden, row);
        }
        Ok(Tensor::from_vec(rows, (tokens.len(), hidden), &Device::Cpu)?)
    }

    fn check(&self, batch: &Batch, cache: &KvCache, comm: &dyn Collective) -> Result<(), ModelError> {
        if comm.member() != self.member {
            let say =
                |member: pie_comm::Member| format!("rank {} of {}", member.rank(), member.world_size().get());
            let (weights, collective) = (say(self.member), say(comm.member()));
            return Err(ModelError::MemberMismatch { weights, collective });
        }
        let slots = cache.shape().slots;
        if cache.shape() != self.kv_shape(slots) {
            let (got, needed) = (cache.shape(), self.kv_shape(slots));
            return Err(ModelError::BatchInvalid(format!(
                "the cache is {got:?}, this slice needs {needed:?}"
            )));
        }
        let (vocabulary, positions) = (self.config.vocab_size, self.config.max_position_embeddings);
        batch.check(&Limits { vocabulary, positions, slots })
    }
}
