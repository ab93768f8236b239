//! GGUF files: what they call tensors, and what their settings say in the keys of a config.json, so that both are checked by the
//! same rules.

use super::{Checkpoint, CheckpointTensor, Tensor, map};
use crate::architecture::{Architecture, LLAMA};
use crate::config::Config;
use crate::error::ModelError;
use crate::matrix::RowOrder;
use crate::tensors::{EMBEDDING, HEAD, NORM, layer_tensor};
use pie_gguf::{Gguf, GgufError, Storage};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

const STORED_HEAD: &str = "output.weight";
/// What frequencies are divided by: how files of Llama 3.1 say their scaling.
const FACTORS: &str = "rope_freqs.weight";
/// What a layer's tensors are called, without `.weight` or `.bias`.
const PARTS: [(&str, &str); 11] = [
    ("attn_norm", "input_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("attn_q_norm", "self_attn.q_norm"),
    ("attn_k_norm", "self_attn.k_norm"),
    ("ffn_norm", "post_attention_layernorm"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
];
/// Architectures that llama.cpp calls otherwise than their config.json.
const RENAMED: [(&str, &str); 8] = [
    ("qwen2moe", "qwen2_moe"),
    ("qwen3moe", "qwen3_moe"),
    ("qwen3next", "qwen3_next"),
    ("deepseek2", "deepseek_v2"),
    ("granitehybrid", "granitemoehybrid"),
    ("gpt-oss", "gpt_oss"),
    ("falcon-mamba", "falcon_mamba"),
    ("rwkv6", "rwkv"),
];

fn open(path: &Path) -> Result<Gguf, ModelError> {
    Gguf::open(path).map_err(|source| ModelError::Gguf { path: path.to_owned(), source })
}

impl Checkpoint {
    pub(super) fn of_gguf(path: &Path, config: &Config) -> Result<Self, ModelError> {
        let file = open(path)?;
        let mapped = map(path).map_err(|source| ModelError::File { path: path.to_owned(), source })?;
        let mapped = Arc::new((path.to_owned(), mapped));
        let mut checkpoint = Self { place: path.to_owned(), tensors: BTreeMap::new() };
        for info in file.tensors.iter().filter(|info| info.name != FACTORS) {
            let name = name_of(&info.name);
            let has_pairs =
                *config.architecture == LLAMA && ["q_proj", "k_proj"].iter().any(|part| name.contains(part));
            // The file's beginning was checked against its length.
            let start = info.start as usize;
            let found = CheckpointTensor {
                tensor: Tensor {
                    stored: info.name.clone(),
                    file: mapped.clone(),
                    bytes: start..start + info.bytes().unwrap_or(0) as usize,
                    storage: info.storage.unwrap_or(Storage::F32),
                    shape: info.shape.clone(),
                    order: if has_pairs {
                        RowOrder::Pairs { head_dim: config.head_dim }
                    } else {
                        RowOrder::AsIs
                    },
                },
                foreign: info.storage.is_none().then(|| Storage::name_of(info.kind)),
            };
            checkpoint.insert(name, found)?;
        }
        Ok(checkpoint)
    }
}

/// The name of a tensor in a folder; its own if there is none such.
fn name_of(stored: &str) -> String {
    let of_layer = || {
        let (layer, part) = stored.strip_prefix("blk.")?.split_once('.')?;
        let (part, kind) = part.rsplit_once('.')?;
        let (_, known) = PARTS.iter().find(|(name, _)| *name == part)?;
        Some(layer_tensor(layer.parse().ok()?, &format!("{known}.{kind}")))
    };
    match stored {
        "token_embd.weight" => EMBEDDING.to_owned(),
        "output_norm.weight" => NORM.to_owned(),
        STORED_HEAD => HEAD.to_owned(),
        _ => of_layer().unwrap_or_else(|| stored.to_owned()),
    }
}

/// What a config.json of the model would say.
pub(crate) fn config(path: &Path) -> Result<Value, ModelError> {
    let file = open(path)?;
    if file.unsigned("split.count").is_some_and(|parts| parts > 1) {
        return Err(ModelError::Unsupported {
            what: "one part of a GGUF file that was split".to_owned(),
            advice: "join the parts (`llama-gguf-split --merge`), or use a file that is whole",
        });
    }
    let missing = |key: &str, expected| ModelError::Gguf {
        path: path.to_owned(),
        source: GgufError::Setting { key: key.to_owned(), expected },
    };
    let architecture =
        file.text("general.architecture").ok_or_else(|| missing("general.architecture", "text"))?;
    let key = |name: &str| format!("{architecture}.{name}");
    let number = |name: &str| file.unsigned(&key(name)).ok_or_else(|| missing(&key(name), "whole number"));
    let renamed = RENAMED.iter().find(|(name, _)| *name == architecture);
    let experts = file.unsigned(&key("expert_count")).unwrap_or(0);
    let model_type = match renamed {
        Some((_, name)) => name,
        None if architecture == LLAMA.model_type && experts > 0 => "mixtral",
        None => architecture,
    };
    Architecture::of(&json!({"model_type": model_type}))?;
    let embedding = file.tensors.iter().find(|tensor| tensor.name == "token_embd.weight");
    let vocabulary = embedding.and_then(|tensor| tensor.shape.first());
    let heads = number("attention.head_count")?;
    let head_dim = file.unsigned(&key("attention.key_length"));
    let mut config = json!({
        "model_type": model_type,
        "vocab_size": vocabulary.ok_or_else(|| missing("token_embd.weight", "tensor of the file"))?,
        "hidden_size": number("embedding_length")?,
        "intermediate_size": number("feed_forward_length")?,
        "num_hidden_layers": number("block_count")?,
        "num_attention_heads": heads,
        "num_key_value_heads": file.unsigned(&key("attention.head_count_kv")).unwrap_or(heads),
        "max_position_embeddings": number("context_length")?,
        "rms_norm_eps": file.float(&key("attention.layer_norm_rms_epsilon"))
            .ok_or_else(|| missing(&key("attention.layer_norm_rms_epsilon"), "number"))?,
        "tie_word_embeddings": !file.tensors.iter().any(|tensor| tensor.name == STORED_HEAD),
        "eos_token_id": ends(&file),
        "rope_theta": file.float(&key("rope.freq_base")),
        "rope_scaling": scaling(&file, &key, path)?,
        "sliding_window": file.unsigned(&key("attention.sliding_window")),
        "head_dim": head_dim,
    });
    let dimension = head_dim.or_else(|| number("embedding_length").ok()?.checked_div(heads));
    if let (Some(turned), Some(dimension)) = (file.unsigned(&key("rope.dimension_count")), dimension)
        && turned != dimension
    {
        config["partial_rotary_factor"] = json!(turned as f64 / dimension as f64);
    }
    Ok(config)
}

/// Tokens that end a text.
fn ends(file: &Gguf) -> Vec<u64> {
    let roles = ["eos_token_id", "eot_token_id", "eom_token_id"];
    let ends = roles.iter().filter_map(|role| file.unsigned(&format!("tokenizer.ggml.{role}")));
    // Files write the largest number for none.
    ends.filter(|token| *token < u64::from(u32::MAX)).collect()
}

fn scaling(file: &Gguf, key: &dyn Fn(&str) -> String, path: &Path) -> Result<Value, ModelError> {
    if let Some(factors) = file.tensors.iter().find(|tensor| tensor.name == FACTORS) {
        let theta = file.float(&key("rope.freq_base")).unwrap_or(10_000.0);
        let mapped = map(path).map_err(|source| ModelError::File { path: path.to_owned(), source })?;
        let numbers = factors.shape.iter().product();
        let mut stored = vec![0.0; numbers];
        let fits = factors.storage == Some(Storage::F32) && factors.shape.len() == 1;
        if fits {
            // The file's beginning was checked against its length.
            Storage::F32.widen(&mapped[factors.start as usize..][..4 * numbers], 0, &mut stored);
        }
        let known = LLAMA3.iter().find(|factor| fits && is_llama3(&stored, theta, **factor));
        let factor = known.ok_or(ModelError::Unsupported {
            what: format!("{FACTORS}, which is not the scaling of Llama 3.1 or 3.2,"),
            advice: "use the folder of the model, whose config.json says how its rotation is scaled",
        })?;
        return Ok(json!({
            "rope_type": "llama3", "factor": factor, "low_freq_factor": LOW, "high_freq_factor": HIGH,
            "original_max_position_embeddings": ORIGINAL,
        }));
    }
    let factor = file.float(&key("rope.scaling.factor")).or_else(|| file.float(&key("rope.scale_linear")));
    Ok(match (file.text(&key("rope.scaling.type")), factor) {
        (Some("none"), _) | (None, None) => Value::Null,
        (None | Some("linear"), factor) => json!({"rope_type": "linear", "factor": factor}),
        (Some(kind), factor) => json!({
            "rope_type": kind, "factor": factor,
            "original_max_position_embeddings": file.float(&key("rope.scaling.original_context_length")),
            "attention_factor": file.float(&key("rope.scaling.attn_factor")),
        }),
    })
}

/// The factors of Llama 3.1 and 3.2, whose other constants are the same.
const LLAMA3: [f64; 2] = [8.0, 32.0];
const LOW: f64 = 1.0;
const HIGH: f64 = 4.0;
const ORIGINAL: f64 = 8192.0;

/// Whether frequencies are divided as Llama 3.1 divides them: those of long waves by the factor, those of short ones not.
fn is_llama3(stored: &[f32], theta: f64, factor: f64) -> bool {
    let expected = |pair: usize| {
        let wave = std::f64::consts::TAU * theta.powf(pair as f64 / stored.len() as f64);
        let turns = ORIGINAL / wave;
        let kept = ((turns - LOW) / (HIGH - LOW)).clamp(0.0, 1.0);
        1.0 / ((1.0 - kept) / factor + kept)
    };
    stored.iter().enumerate().all(|(pair, stored)| (f64::from(*stored) / expected(pair) - 1.0).abs() < 1e-3)
}
