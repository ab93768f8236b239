//! What a checkpoint calls the tensors of a decoder layer, and which part of each is a rank's.

use crate::checkpoint::{Checkpoint, Matrix};
use crate::config::Config;
use crate::error::ModelError;
use crate::shard::Shard;
use std::ops::Range;

pub(crate) const EMBEDDING: &str = "model.embed_tokens.weight";
pub(crate) const NORM: &str = "model.norm.weight";
pub(crate) const HEAD: &str = "lm_head.weight";
/// What the names of the layers' tensors begin with.
pub(crate) const LAYERS: &str = "model.layers.";
/// The tensors of a layer.
pub(crate) const PARTS: [&str; 9] = [
    "input_layernorm",
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "post_attention_layernorm",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
];

/// The name of one of [`PARTS`].
pub(crate) fn layer_tensor(layer: usize, part: &str) -> String {
    format!("{LAYERS}{layer}.{part}.weight")
}

/// One layer of a checkpoint, nothing of it read yet but the norms.
pub(crate) struct LayerTensors {
    pub attention_norm: Vec<f32>,
    pub query: Matrix,
    pub key: Matrix,
    pub value: Matrix,
    pub output: Matrix,
    pub mlp_norm: Vec<f32>,
    pub gate: Matrix,
    pub up: Matrix,
    pub down: Matrix,
}

impl LayerTensors {
    pub fn find(checkpoint: &Checkpoint, config: &Config, index: usize) -> Result<Self, ModelError> {
        let Config { hidden_size: hidden, intermediate_size: mlp, head_dim, heads, kv_heads, .. } = *config;
        let name = |part: &str| layer_tensor(index, part);
        let matrix = |part: &str, rows, columns| checkpoint.matrix(&name(part), rows, columns);
        let norm = |part: &str| checkpoint.vector(&name(part), hidden);
        Ok(Self {
            attention_norm: norm("input_layernorm")?,
            query: matrix("self_attn.q_proj", heads * head_dim, hidden)?,
            key: matrix("self_attn.k_proj", kv_heads * head_dim, hidden)?,
            value: matrix("self_attn.v_proj", kv_heads * head_dim, hidden)?,
            output: matrix("self_attn.o_proj", hidden, heads * head_dim)?,
            mlp_norm: norm("post_attention_layernorm")?,
            gate: matrix("mlp.gate_proj", mlp, hidden)?,
            up: matrix("mlp.up_proj", mlp, hidden)?,
            down: matrix("mlp.down_proj", hidden, mlp)?,
        })
    }
}

impl Shard {
    /// Rows of the queries' matrix, and of the keys' and values', that are this rank's.
    pub(crate) fn head_rows(&self, head_dim: usize) -> (Range<usize>, Range<usize>) {
        let rows = |heads: &Range<usize>| heads.start * head_dim..heads.end * head_dim;
        (rows(&self.heads), rows(&self.kv_heads))
    }
}
