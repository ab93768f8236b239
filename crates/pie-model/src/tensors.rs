//! What a checkpoint calls the tensors of a decoder layer, and which part of each is a rank's.

use crate::checkpoint::{Checkpoint, Matrix};
use crate::config::Config;
use crate::error::ModelError;
use crate::shard::Shard;
use std::ops::Range;

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
        let name = |part: &str| format!("model.layers.{index}.{part}.weight");
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
