//! The model of one rank and its ragged forward pass.

use crate::config::Config;
use crate::error::ModelError;
use crate::linear::{Linear, RmsNorm, swiglu};
use crate::shard::Shard;
use crate::weights::Weights;
use candle_core::{Device, Tensor};
use pie_comm::{Collective, Member};
use pie_kv::{Attention, KvCache, KvShape, Rope};
use pie_plan::{Slot, TokenId, TokenIndex};
use std::ops::Range;
use std::path::Path;

/// One sequence's rows in a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequence {
    /// Which rows of the batch.
    pub rows: Range<usize>,
    /// The slots of its tokens, in order.
    pub table: Vec<Slot>,
    /// For each row how many leading slots of the table it sees (M1), ascending.
    pub visible: Vec<u32>,
}

/// The rows of a forward pass, of any number of sequences.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// [rows]
    pub tokens: Vec<TokenId>,
    /// [rows] What queries and keys are rotated for.
    pub positions: Vec<TokenIndex>,
    /// [rows] Where K and V go.
    pub slots: Vec<Slot>,
    /// Together all rows, in order.
    pub sequences: Vec<Sequence>,
    /// Rows whose logits are wanted, ascending.
    pub logits_of: Vec<usize>,
}

struct Layer {
    attention_norm: RmsNorm,
    /// Queries, keys and values of this rank's heads in one product.
    qkv: Linear,
    out: Linear,
    mlp_norm: RmsNorm,
    gate_up: Linear,
    down: Linear,
}

/// A rank's slice of a model.
pub struct Model {
    config: Config,
    fingerprint: String,
    member: Member,
    shard: Shard,
    rope: Rope,
    weights: Weights,
    layers: Vec<Layer>,
    norm: RmsNorm,
    head: Linear,
    device: Device,
}

impl Model {
    /// Loads this member's slice; `progress` hears of layers done and in all.
    ///
    /// # Errors
    /// [`ModelError`] names the file, field or weight that is wrong, or the world size that does not fit.
    pub fn load(
        folder: &Path,
        member: Member,
        device: &Device,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self, ModelError> {
        let config = Config::read(folder)?;
        let shard = Shard::new(&config, member)?;
        let rope = Rope::new(config.head_dim, config.rope_theta, &config.rope_scaling)?;
        let weights = Weights::open(folder)?;
        let mut layers = Vec::with_capacity(config.layers);
        for index in 0..config.layers {
            layers.push(Layer::load(&weights, index, &config, &shard, device)?);
            progress(index as u64 + 1, config.layers as u64);
        }
        let norm = RmsNorm::new(weights.vector("model.norm.weight", config.hidden_size)?, config.rms_norm_eps, device)?;
        let head = head(&weights, &config, &shard, device)?;
        let fingerprint = fingerprint(&config);
        Ok(Self { config, fingerprint, member, shard, rope, weights, layers, norm, head, device: device.clone() })
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Equal on all ranks that hold the same model.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The rotation of its keys.
    pub fn rope(&self) -> &Rope {
        &self.rope
    }

    /// The shape of a cache of `slots` tokens on this rank.
    pub fn kv_shape(&self, slots: usize) -> KvShape {
        let kv_heads = self.shard.kv_heads.len();
        KvShape { layers: self.config.layers, kv_heads, head_dim: self.config.head_dim, slots }
    }

    /// Bytes of this rank's weights in memory, the mapped embedding left out.
    pub fn weight_bytes(&self) -> u64 {
        let of_layer = |layer: &Layer| {
            layer.qkv.bytes() + layer.out.bytes() + layer.gate_up.bytes() + layer.down.bytes()
        };
        self.layers.iter().map(of_layer).sum::<u64>() + self.head.bytes()
    }

    /// Encodes the rows: writes their K and V to the cache, and returns the logits of the wanted rows, f32
    /// [wanted, vocabulary], the same on every rank.
    ///
    /// # Errors
    /// A batch that does not fit; a peer that fails.
    pub fn forward(
        &self,
        batch: &Batch,
        cache: &mut KvCache,
        comm: &mut dyn Collective,
    ) -> Result<Tensor, ModelError> {
        self.check(batch)?;
        let mut x = self.embed(&batch.tokens)?;
        let last = self.layers.len() - 1;
        for (index, layer) in self.layers.iter().enumerate() {
            let (queries, keys, values) = self.project(layer, &x, &batch.positions)?;
            cache.write(index, &batch.slots, &keys, &values)?;
            // Behind the last layer's keys and values only the wanted rows matter.
            let attended = if index < last {
                let views = batch.sequences.iter().map(view).collect::<Vec<_>>();
                cache.attend(index, &queries, &views)?
            } else if batch.logits_of.is_empty() {
                return Ok(Tensor::zeros((0, self.config.vocab_size), x.dtype(), &self.device)?);
            } else {
                x = pick(&x, &batch.logits_of)?;
                let wanted = wanted(batch);
                let views = wanted.iter().map(|(row, table, visible)| Attention { rows: row.clone(), table, visible });
                cache.attend(index, &pick(&queries, &batch.logits_of)?, &views.collect::<Vec<_>>())?
            };
            x = self.finish(layer, x, &attended, comm)?;
        }
        self.logits(&x, comm)
    }

    /// Queries, keys and values of this rank, queries and keys rotated: each [rows, heads, head dimension].
    fn project(
        &self,
        layer: &Layer,
        x: &Tensor,
        positions: &[TokenIndex],
    ) -> Result<(Tensor, Tensor, Tensor), ModelError> {
        let qkv = layer.qkv.forward(&layer.attention_norm.forward(x)?)?;
        let (rows, dim) = (qkv.dims2()?.0, self.config.head_dim);
        let (heads, kv_heads) = (self.shard.heads.len(), self.shard.kv_heads.len());
        let part = |first: usize, heads: usize| {
            qkv.narrow(1, first * dim, heads * dim)?.contiguous()?.reshape((rows, heads, dim))
        };
        let queries = part(0, heads)?;
        let keys = part(heads, kv_heads)?;
        let values = part(heads + kv_heads, kv_heads)?;
        // A product of one head alone shares its memory with `qkv`; rotating it in place is still right: nobody reads
        // that part again.
        self.rope.rotate(&queries, positions)?;
        self.rope.rotate(&keys, positions)?;
        Ok((queries, keys, values))
    }

    /// The rest of a layer; the two row-parallel products are summed over the ranks.
    fn finish(
        &self,
        layer: &Layer,
        x: Tensor,
        attended: &Tensor,
        comm: &mut dyn Collective,
    ) -> Result<Tensor, ModelError> {
        let attention = layer.out.forward(&attended.flatten_from(1)?)?;
        comm.all_reduce_sum(&attention)?;
        let x = (x + attention)?;
        let mlp = layer.down.forward(&swiglu(&layer.gate_up.forward(&layer.mlp_norm.forward(&x)?)?)?)?;
        comm.all_reduce_sum(&mlp)?;
        Ok((x + mlp)?)
    }

    fn logits(&self, x: &Tensor, comm: &mut dyn Collective) -> Result<Tensor, ModelError> {
        let part = self.head.forward(&self.norm.forward(x)?)?;
        let all = comm.all_gather_last(&part)?;
        Ok(all.narrow(1, 0, self.config.vocab_size)?.contiguous()?)
    }

    /// Rows of the embedding, straight from the mapped file: no rank holds the table, none sends its part.
    fn embed(&self, tokens: &[TokenId]) -> Result<Tensor, ModelError> {
        let (hidden, shape) = (self.config.hidden_size, [self.config.vocab_size, self.config.hidden_size]);
        let mut rows = Vec::with_capacity(tokens.len() * hidden);
        for token in tokens {
            let row = token.0 as usize;
            rows.extend(self.weights.slice(EMBEDDING, shape, row..row + 1, 0..hidden)?);
        }
        Ok(Tensor::from_vec(rows, (tokens.len(), hidden), &self.device)?)
    }

    fn check(&self, batch: &Batch) -> Result<(), ModelError> {
        let wrong = |what: String| Err(ModelError::Batch(what));
        let rows = batch.tokens.len();
        if rows == 0 || batch.positions.len() != rows || batch.slots.len() != rows {
            let (positions, slots) = (batch.positions.len(), batch.slots.len());
            return wrong(format!("{rows} tokens, {positions} positions and {slots} slots"));
        }
        if let Some(token) = batch.tokens.iter().find(|token| token.0 as usize >= self.config.vocab_size) {
            return wrong(format!("token {token} is not in the vocabulary of {}", self.config.vocab_size));
        }
        let limit = self.config.max_position_embeddings;
        if let Some(position) = batch.positions.iter().find(|position| position.usize() >= limit) {
            return wrong(format!("position {position} is beyond the model's {limit}"));
        }
        let mut next = 0;
        for sequence in &batch.sequences {
            if sequence.rows.start != next || sequence.rows.len() != sequence.visible.len() {
                return wrong(format!("the sequence of rows {:?} does not follow row {next}", sequence.rows));
            }
            next = sequence.rows.end;
        }
        if next != rows || batch.logits_of.iter().any(|row| *row >= rows) || !batch.logits_of.is_sorted() {
            return wrong(format!("sequences cover {next} of {rows} rows; logits of {:?}", batch.logits_of));
        }
        debug_assert_eq!(self.member.world_size().get() as usize * self.shard.heads.len(), self.config.heads);
        Ok(())
    }
}

const EMBEDDING: &str = "model.embed_tokens.weight";

impl Layer {
    fn load(
        weights: &Weights,
        index: usize,
        config: &Config,
        shard: &Shard,
        device: &Device,
    ) -> Result<Self, ModelError> {
        let name = |part: &str| format!("model.layers.{index}.{part}.weight");
        let (hidden, dim, mlp) = (config.hidden_size, config.head_dim, config.intermediate_size);
        let scale = |heads: &Range<usize>| heads.start * dim..heads.end * dim;
        let (heads, kv_heads) = (scale(&shard.heads), scale(&shard.kv_heads));
        // Column-parallel: a slice of the output rows.
        let rows = |part: &str, all: usize, rows: &Range<usize>| {
            weights.slice(&name(part), [all, hidden], rows.clone(), 0..hidden)
        };
        let mut qkv = rows("self_attn.q_proj", config.heads * dim, &heads)?;
        qkv.extend(rows("self_attn.k_proj", config.kv_heads * dim, &kv_heads)?);
        qkv.extend(rows("self_attn.v_proj", config.kv_heads * dim, &kv_heads)?);
        let mut gate_up = rows("mlp.gate_proj", mlp, &shard.mlp)?;
        gate_up.extend(rows("mlp.up_proj", mlp, &shard.mlp)?);
        // Row-parallel: a slice of the input columns.
        let out = weights.slice(&name("self_attn.o_proj"), [hidden, config.heads * dim], 0..hidden, heads.clone())?;
        let down = weights.slice(&name("mlp.down_proj"), [hidden, mlp], 0..hidden, shard.mlp.clone())?;
        let norm = |part: &str| RmsNorm::new(weights.vector(&name(part), hidden)?, config.rms_norm_eps, device);
        Ok(Self {
            attention_norm: norm("input_layernorm")?,
            qkv: Linear::new(qkv, heads.len() + 2 * kv_heads.len(), device)?,
            out: Linear::new(out, hidden, device)?,
            mlp_norm: norm("post_attention_layernorm")?,
            gate_up: Linear::new(gate_up, 2 * shard.mlp.len(), device)?,
            down: Linear::new(down, hidden, device)?,
        })
    }
}

/// This rank's rows of the head, padded with zeros where the vocabulary does not divide.
fn head(weights: &Weights, config: &Config, shard: &Shard, device: &Device) -> Result<Linear, ModelError> {
    let name = if config.tied_head || !weights.has("lm_head.weight") { EMBEDDING } else { "lm_head.weight" };
    let shape = [config.vocab_size, config.hidden_size];
    let mut rows = weights.slice(name, shape, shard.vocabulary.clone(), 0..config.hidden_size)?;
    rows.resize(shard.vocabulary_part * config.hidden_size, 0.0);
    Linear::new(rows, shard.vocabulary_part, device)
}

fn fingerprint(config: &Config) -> String {
    format!("{:016x}", xxhash_rust::xxh3::xxh3_64(config.to_json().to_string().as_bytes()))
}

fn view(sequence: &Sequence) -> Attention<'_> {
    Attention { rows: sequence.rows.clone(), table: &sequence.table, visible: &sequence.visible }
}

/// The wanted rows, each as a sequence of its own: (row among the wanted, table, what it sees).
fn wanted(batch: &Batch) -> Vec<(Range<usize>, &[Slot], &[u32])> {
    let sequence_of = |row: usize| batch.sequences.iter().find(move |sequence| sequence.rows.contains(&row));
    let rows = batch.logits_of.iter().enumerate();
    rows.filter_map(|(index, row)| {
        let sequence = sequence_of(*row)?;
        let at = row - sequence.rows.start;
        Some((index..index + 1, sequence.table.as_slice(), &sequence.visible[at..=at]))
    })
    .collect()
}

fn pick(x: &Tensor, rows: &[usize]) -> Result<Tensor, ModelError> {
    let rows: Vec<u32> = rows.iter().map(|row| *row as u32).collect();
    let count = rows.len();
    Ok(x.index_select(&Tensor::from_vec(rows, count, x.device())?, 0)?)
}
