//! What a checkpoint calls the tensors of a decoder layer, and which part of each is a rank's.

use crate::architecture::{Architecture, Biases, HeadNorms};
use crate::checkpoint::Checkpoint;
use crate::config::Config;
use crate::error::ModelError;
use crate::matrix::Matrix;
use crate::shard::Shard;
use std::ops::Range;

pub(crate) const EMBEDDING: &str = "model.embed_tokens.weight";
pub(crate) const NORM: &str = "model.norm.weight";
pub(crate) const HEAD: &str = "lm_head.weight";
/// What the names of the layers' tensors begin with.
pub(crate) const LAYERS: &str = "model.layers.";
/// The tensors of a layer that all architectures have.
const PARTS: [&str; 9] = [
    "input_layernorm.weight",
    "self_attn.q_proj.weight",
    "self_attn.k_proj.weight",
    "self_attn.v_proj.weight",
    "self_attn.o_proj.weight",
    "post_attention_layernorm.weight",
    "mlp.gate_proj.weight",
    "mlp.up_proj.weight",
    "mlp.down_proj.weight",
];
const BIASES: [&str; 3] = ["self_attn.q_proj.bias", "self_attn.k_proj.bias", "self_attn.v_proj.bias"];
const HEAD_NORMS: [&str; 2] = ["self_attn.q_norm.weight", "self_attn.k_norm.weight"];

/// The tensors of a layer.
pub(crate) fn parts(architecture: &Architecture) -> impl Iterator<Item = &'static str> {
    let biases: &[&str] = match architecture.biases {
        Biases::Absent => &[],
        Biases::QueryKeyValue => &BIASES,
    };
    let head_norms: &[&str] = match architecture.head_norms {
        HeadNorms::Absent => &[],
        HeadNorms::QueryKey => &HEAD_NORMS,
    };
    PARTS.iter().chain(biases).chain(head_norms).copied()
}

/// The name of one of a layer's parts.
pub(crate) fn layer_tensor(layer: usize, part: &str) -> String {
    format!("{LAYERS}{layer}.{part}")
}

/// One layer of a checkpoint, nothing of it read yet but the vectors.
pub(crate) struct LayerTensors {
    /// [hidden].
    pub attention_norm: Vec<f32>,
    /// [heads * head dimension][hidden].
    pub query: Matrix,
    /// [kv heads * head dimension][hidden].
    pub key: Matrix,
    /// [kv heads * head dimension][hidden].
    pub value: Matrix,
    /// `[heads · head_dim]` of the queries, `[kv_heads · head_dim]` of keys and values.
    pub biases: Option<[Vec<f32>; 3]>,
    /// `[head_dim]` of the queries and of the keys.
    pub head_norms: Option<[Vec<f32>; 2]>,
    /// [hidden][heads * head dimension].
    pub output: Matrix,
    /// [hidden].
    pub mlp_norm: Vec<f32>,
    /// [mlp][hidden].
    pub gate: Matrix,
    /// [mlp][hidden].
    pub up: Matrix,
    /// [hidden][mlp].
    pub down: Matrix,
}

impl LayerTensors {
    /// Finds the tensors of a layer; one that is missing, or of another shape, is refused.
    pub fn find(checkpoint: &Checkpoint, config: &Config, index: usize) -> Result<Self, ModelError> {
        let Config { hidden_size: hidden, intermediate_size: mlp, head_dim, heads, kv_heads, .. } = *config;
        let name = |part: &str| layer_tensor(index, part);
        let matrix = |part: &str, rows, columns| checkpoint.matrix(&name(part), rows, columns);
        let vector = |part: &str, length| checkpoint.vector(&name(part), length);
        let [attention_norm, query, key, value, output, mlp_norm, gate, up, down] = PARTS;
        let (queries, keys) = (heads * head_dim, kv_heads * head_dim);
        let biases = match config.architecture.biases {
            Biases::Absent => None,
            Biases::QueryKeyValue => {
                let [query, key, value] = BIASES;
                Some([vector(query, queries)?, vector(key, keys)?, vector(value, keys)?])
            }
        };
        let head_norms = match config.architecture.head_norms {
            HeadNorms::Absent => None,
            HeadNorms::QueryKey => {
                let [query, key] = HEAD_NORMS;
                Some([vector(query, head_dim)?, vector(key, head_dim)?])
            }
        };
        Ok(Self {
            attention_norm: vector(attention_norm, hidden)?,
            query: matrix(query, queries, hidden)?,
            key: matrix(key, keys, hidden)?,
            value: matrix(value, keys, hidden)?,
            biases,
            head_norms,
            output: matrix(output, hidden, queries)?,
            mlp_norm: vector(mlp_norm, hidden)?,
            gate: matrix(gate, mlp, hidden)?,
            up: matrix(up, mlp, hidden)?,
            down: matrix(down, hidden, mlp)?,
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
