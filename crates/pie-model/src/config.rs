//! `config.json` of a Hugging Face folder: what this program runs, and refusals by name of what it does not.

use crate::error::ModelError;
use pie_kv::RopeScaling;
use pie_plan::TokenId;
use serde_json::{Value, json};
use std::path::Path;

/// Sizes and constants of a Llama model.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the MLP.
    pub intermediate_size: usize,
    /// Layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Dimension of a head.
    pub head_dim: usize,
    /// Tokens of the vocabulary.
    pub vocab_size: usize,
    /// Positions that the model knows.
    pub max_position_embeddings: usize,
    /// Of RMSNorm.
    pub rms_norm_eps: f64,
    /// Base of RoPE.
    pub rope_theta: f64,
    /// Scaling of RoPE.
    pub rope_scaling: RopeScaling,
    /// Whether the head is the embedding.
    pub tied_head: bool,
    /// Tokens that end a text.
    pub end_of_text: Vec<TokenId>,
}

/// (name, hidden, MLP, layers, heads, KV heads, head dimension, vocabulary, context, tied)
type Preset = (&'static str, usize, usize, usize, usize, usize, usize, usize, usize, bool);

/// DeepSeek-Coder's sizes, and small models in its shape for demo, benchmarks and tests.
const PRESETS: [Preset; 8] = [
    ("deepseek-coder-1.3b", 2048, 5504, 24, 16, 16, 128, 32256, 16384, false),
    ("deepseek-coder-6.7b", 4096, 11008, 32, 32, 32, 128, 32256, 16384, false),
    ("deepseek-coder-33b", 7168, 19200, 62, 56, 8, 128, 32256, 16384, false),
    ("tiny", 384, 1024, 6, 16, 8, 24, 8192, 16384, true),
    ("bench-14m", 256, 1408, 8, 8, 4, 32, 8192, 32768, false),
    ("bench-90m", 768, 2048, 12, 12, 4, 64, 8192, 32768, false),
    ("bench-116m", 768, 3072, 12, 12, 4, 64, 8192, 32768, false),
    ("test", 256, 384, 4, 16, 8, 16, 512, 2048, true),
];

impl Config {
    /// A configuration by name; all have DeepSeek-Coder's RoPE: theta 100000, linear scaling by 4.
    ///
    /// # Errors
    /// [`ModelError::UnknownPreset`] lists the names.
    pub fn preset(name: &str) -> Result<Self, ModelError> {
        let Some(preset) = PRESETS.iter().find(|preset| preset.0 == name) else {
            let known = PRESETS.map(|preset| preset.0).join(", ");
            return Err(ModelError::UnknownPreset { name: name.to_owned(), known });
        };
        let (_, hidden_size, intermediate_size, layers, heads, kv_heads, head_dim, vocab_size, context, tied_head) =
            *preset;
        Ok(Self {
            hidden_size,
            intermediate_size,
            layers,
            heads,
            kv_heads,
            head_dim,
            vocab_size,
            max_position_embeddings: context,
            rms_norm_eps: 1e-6,
            rope_theta: 100_000.0,
            rope_scaling: RopeScaling::Linear { factor: 4.0 },
            tied_head,
            end_of_text: Vec::new(),
        })
    }

    /// Reads `config.json` of a model folder.
    ///
    /// # Errors
    /// [`ModelError::File`], or [`ModelError::Unsupported`] with the field.
    pub fn read(folder: &Path) -> Result<Self, ModelError> {
        let path = folder.join("config.json");
        let failed = |why: String| ModelError::File { path: path.clone(), why };
        let text = std::fs::read_to_string(&path).map_err(|error| failed(error.to_string()))?;
        let json: Value = serde_json::from_str(&text).map_err(|error| failed(error.to_string()))?;
        Self::from_json(&json)
    }

    /// Checks a parsed `config.json`.
    ///
    /// # Errors
    /// [`ModelError::Unsupported`] with the field.
    pub fn from_json(json: &Value) -> Result<Self, ModelError> {
        refuse(json)?;
        let heads = size(json, "num_attention_heads")?;
        let hidden_size = size(json, "hidden_size")?;
        let kv_heads = optional_size(json, "num_key_value_heads")?.unwrap_or(heads);
        let head_dim = optional_size(json, "head_dim")?.unwrap_or(hidden_size / heads);
        if !heads.is_multiple_of(kv_heads) {
            return Err(unsupported("num_key_value_heads", format!("is {kv_heads}, which does not divide {heads} heads")));
        }
        if !head_dim.is_multiple_of(2) {
            return Err(unsupported("head_dim", format!("is {head_dim}; RoPE needs an even one")));
        }
        // Newer folders keep RoPE's numbers together.
        let rope = json.get("rope_parameters").filter(|rope| rope.is_object());
        let theta = rope.and_then(|rope| rope.get("rope_theta")).or_else(|| json.get("rope_theta"));
        let scaling = json.get("rope_scaling").filter(|scaling| scaling.is_object()).or(rope);
        Ok(Self {
            hidden_size,
            intermediate_size: size(json, "intermediate_size")?,
            layers: size(json, "num_hidden_layers")?,
            heads,
            kv_heads,
            head_dim,
            vocab_size: size(json, "vocab_size")?,
            max_position_embeddings: optional_size(json, "max_position_embeddings")?.unwrap_or(2048),
            rms_norm_eps: json.get("rms_norm_eps").and_then(Value::as_f64).unwrap_or(1e-6),
            rope_theta: theta.and_then(Value::as_f64).unwrap_or(10_000.0),
            rope_scaling: scaling.map_or(Ok(RopeScaling::None), rope_scaling)?,
            tied_head: json.get("tie_word_embeddings").and_then(Value::as_bool).unwrap_or(false),
            end_of_text: token_ids(json.get("eos_token_id")),
        })
    }

    /// The configuration as `config.json`.
    pub fn to_json(&self) -> Value {
        let scaling = match self.rope_scaling {
            RopeScaling::None => Value::Null,
            RopeScaling::Linear { factor } => json!({ "type": "linear", "factor": factor }),
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position } => json!({
                "rope_type": "llama3", "factor": factor, "low_freq_factor": low_freq_factor,
                "high_freq_factor": high_freq_factor, "original_max_position_embeddings": original_max_position,
            }),
        };
        json!({
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
            "hidden_size": self.hidden_size, "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.layers, "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads, "head_dim": self.head_dim, "vocab_size": self.vocab_size,
            "max_position_embeddings": self.max_position_embeddings, "rms_norm_eps": self.rms_norm_eps,
            "rope_theta": self.rope_theta, "rope_scaling": scaling, "tie_word_embeddings": self.tied_head,
            "eos_token_id": self.end_of_text.iter().map(|token| token.0).collect::<Vec<_>>(),
            "torch_dtype": "bfloat16",
        })
    }

    /// Parameters of the whole model.
    pub fn parameters(&self) -> u64 {
        let (hidden, kv) = (self.hidden_size, self.kv_heads * self.head_dim);
        let query = self.heads * self.head_dim;
        let layer = hidden * (2 * query + 2 * kv + 3 * self.intermediate_size + 2);
        let tables = if self.tied_head { 1 } else { 2 };
        (self.layers * layer + tables * self.vocab_size * hidden + hidden) as u64
    }
}

fn unsupported(field: &'static str, why: impl Into<String>) -> ModelError {
    ModelError::Unsupported { field, why: why.into() }
}

/// What this program would run wrongly, by name.
fn refuse(json: &Value) -> Result<(), ModelError> {
    let text = |field: &str| json.get(field).and_then(Value::as_str).map(str::to_owned);
    if let Some(kind) = text("model_type").filter(|kind| kind != "llama") {
        return Err(unsupported("model_type", format!("is `{kind}`; this program runs `llama`")));
    }
    if let Some(act) = text("hidden_act").filter(|act| act != "silu" && act != "swish") {
        return Err(unsupported("hidden_act", format!("is `{act}`; this program knows `silu`")));
    }
    for field in ["attention_bias", "mlp_bias"] {
        if json.get(field).and_then(Value::as_bool) == Some(true) {
            return Err(unsupported(field, "is true; biases are not supported"));
        }
    }
    if json.get("quantization_config").is_some_and(|value| !value.is_null()) {
        return Err(unsupported("quantization_config", "is set; use unquantized f32, f16 or bf16 weights"));
    }
    Ok(())
}

fn optional_size(json: &Value, field: &'static str) -> Result<Option<usize>, ModelError> {
    match json.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_u64().and_then(|number| usize::try_from(number).ok()) {
            Some(number) if number > 0 => Ok(Some(number)),
            _ => Err(unsupported(field, format!("is {value}; it must be a number above 0"))),
        },
    }
}

fn size(json: &Value, field: &'static str) -> Result<usize, ModelError> {
    optional_size(json, field)?.ok_or_else(|| unsupported(field, "is missing"))
}

/// Scalings that keep angles linear in the position; any other cannot be turned.
fn rope_scaling(scaling: &Value) -> Result<RopeScaling, ModelError> {
    let kind = scaling.get("rope_type").or_else(|| scaling.get("type")).and_then(Value::as_str).unwrap_or("default");
    let number = |field: &str| scaling.get(field).and_then(Value::as_f64).filter(|number| *number > 0.0);
    let missing = |field: &str| unsupported("rope_scaling", format!("of type {kind} lacks a positive `{field}`"));
    let need = |field: &str| number(field).ok_or_else(|| missing(field));
    match kind {
        "default" => Ok(RopeScaling::None),
        "linear" => Ok(RopeScaling::Linear { factor: need("factor")? }),
        "llama3" => Ok(RopeScaling::Llama3 {
            factor: need("factor")?,
            low_freq_factor: need("low_freq_factor")?,
            high_freq_factor: need("high_freq_factor")?,
            original_max_position: need("original_max_position_embeddings")?,
        }),
        other => Err(unsupported(
            "rope_scaling",
            format!("is `{other}`: its frequencies depend on the length, so cached keys cannot be turned; `linear` and `llama3` can"),
        )),
    }
}

fn token_ids(value: Option<&Value>) -> Vec<TokenId> {
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok()).map(TokenId);
    match value {
        Some(Value::Array(list)) => list.iter().filter_map(id).collect(),
        Some(value) => id(value).into_iter().collect(),
        None => Vec::new(),
    }
}
