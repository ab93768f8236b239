//! `config.json` as it is found: older and newer spellings, and what must be refused.

use crate::architecture::Architecture;
use crate::config::Config;
use crate::error::ModelError;
use crate::rotation::{RawRope, Rotation, Unusable};
use pie_kv::RopeScaling;
use pie_words::TokenId;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::Path;

/// The keys that matter; others are ignored, as Transformers does.
#[derive(Deserialize, Serialize)]
pub(crate) struct RawConfig {
    architectures: Option<Vec<String>>,
    model_type: Option<String>,
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    max_position_embeddings: usize,
    rms_norm_eps: f64,
    rope_theta: Option<f64>,
    rope_scaling: Option<RawRope>,
    /// The newer spelling: scaling and theta together (Transformers 5).
    #[serde(skip_serializing)]
    rope_parameters: Option<RawRope>,
    /// Where it stands outside of the rotation's keys, it counts.
    #[serde(skip_serializing)]
    original_max_position_embeddings: Option<f64>,
    #[serde(default)]
    tie_word_embeddings: bool,
    eos_token_id: Option<OneOrMany>,
    hidden_act: Option<String>,
}

#[derive(Deserialize, Serialize)]
#[serde(untagged)]
enum OneOrMany {
    One(u32),
    Many(Vec<u32>),
}

impl OneOrMany {
    fn tokens(&self) -> Vec<TokenId> {
        match self {
            Self::One(token) => vec![TokenId(*token)],
            Self::Many(tokens) => tokens.iter().copied().map(TokenId).collect(),
        }
    }
}

/// Llama's default where config.json is silent.
const THETA: f64 = 10_000.0;

impl RawConfig {
    pub(crate) fn checked(
        self,
        architecture: &'static Architecture,
        path: &Path,
    ) -> Result<Config, ModelError> {
        let invalid =
            |reason: &str| ModelError::ConfigInvalid { path: path.to_owned(), reason: reason.to_owned() };
        let heads = self.num_attention_heads;
        let head_dim = match self.head_dim {
            Some(head_dim) => head_dim,
            None if heads > 0 && self.hidden_size.is_multiple_of(heads) => self.hidden_size / heads,
            None => {
                return Err(invalid(
                    "num_attention_heads does not divide hidden_size, and there is no head_dim",
                ));
            }
        };
        let rope = self.rope_parameters.or(self.rope_scaling).unwrap_or_default();
        let outside = self.original_max_position_embeddings;
        let rotation = rope.rotation(outside, self.max_position_embeddings);
        let Rotation { theta, scaling } = rotation.map_err(|error| match error {
            Unusable::ByLength(kind) => ModelError::RopeNotLinear { kind },
            Unusable::Unknown(kind) => ModelError::Unsupported {
                what: format!("RoPE scaling \"{kind}\""),
                advice: "supported are none, \"linear\", \"llama3\" and \"yarn\"",
            },
            Unusable::Without(key) => invalid(&format!("the RoPE scaling lacks a positive `{key}`")),
        })?;
        let mut end_of_text = self.eos_token_id.map(|tokens| tokens.tokens()).unwrap_or_default();
        end_of_text.sort_unstable();
        end_of_text.dedup();
        Ok(Config {
            architecture,
            vocab_size: self.vocab_size,
            hidden_size: self.hidden_size,
            intermediate_size: self.intermediate_size,
            layers: self.num_hidden_layers,
            heads,
            kv_heads: self.num_key_value_heads.unwrap_or(heads),
            head_dim,
            max_position_embeddings: self.max_position_embeddings,
            rms_norm_eps: self.rms_norm_eps,
            rope_theta: theta.or(self.rope_theta).unwrap_or(THETA),
            rope_scaling: scaling,
            tied_head: self.tie_word_embeddings,
            end_of_text,
        })
    }

    pub(crate) fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a struct of numbers and strings has a JSON text")
    }
}

/// Refuses what would be computed wrongly, by name, whatever the architecture.
pub(crate) fn refuse(config: &Value) -> Result<(), ModelError> {
    let text = |key: &str| config.get(key).and_then(Value::as_str);
    if let Some(quantization) = config.get("quantization_config").filter(|value| !value.is_null()) {
        let method =
            quantization.get("quant_method").and_then(Value::as_str).unwrap_or("by an unknown method");
        return Err(ModelError::Quantized { method: method.to_owned() });
    }
    let unsupported = |what: String, advice| Err(ModelError::Unsupported { what, advice });
    if let Some(activation) = text("hidden_act").filter(|name| *name != "silu" && *name != "swish") {
        return unsupported(format!("hidden_act \"{activation}\""), "Llama's is \"silu\"");
    }
    let places = [Some(config), config.get("rope_parameters"), config.get("rope_scaling")];
    let partial = |place: &Value| place.get("partial_rotary_factor").and_then(Value::as_f64);
    match places.into_iter().flatten().filter_map(partial).find(|factor| *factor != 1.0) {
        Some(factor) => {
            unsupported(format!("partial_rotary_factor {factor}"), "use a model that rotates whole heads")
        }
        None => Ok(()),
    }
}

impl From<&Config> for RawConfig {
    fn from(config: &Config) -> Self {
        Self {
            architectures: Some(vec![config.architecture.class.to_owned()]),
            model_type: Some(config.architecture.model_type.to_owned()),
            vocab_size: config.vocab_size,
            hidden_size: config.hidden_size,
            intermediate_size: config.intermediate_size,
            num_hidden_layers: config.layers,
            num_attention_heads: config.heads,
            num_key_value_heads: Some(config.kv_heads),
            head_dim: Some(config.head_dim),
            max_position_embeddings: config.max_position_embeddings,
            rms_norm_eps: config.rms_norm_eps,
            rope_theta: Some(config.rope_theta),
            rope_scaling: (config.rope_scaling != RopeScaling::None).then(|| config.rope_scaling.into()),
            rope_parameters: None,
            original_max_position_embeddings: None,
            tie_word_embeddings: config.tied_head,
            eos_token_id: match config.end_of_text.as_slice() {
                [] => None,
                [token] => Some(OneOrMany::One(token.0)),
                tokens => Some(OneOrMany::Many(tokens.iter().map(|token| token.0).collect())),
            },
            hidden_act: Some("silu".to_owned()),
        }
    }
}

/// The end-of-text tokens of a `generation_config.json`.
pub(crate) fn end_of_text(text: &str, path: &Path) -> Result<Vec<TokenId>, ModelError> {
    #[derive(Deserialize)]
    struct GenerationConfig {
        eos_token_id: Option<OneOrMany>,
    }
    let parsed: GenerationConfig = serde_json::from_str(text)
        .map_err(|error| ModelError::ConfigInvalid { path: path.to_owned(), reason: error.to_string() })?;
    Ok(parsed.eos_token_id.map(|tokens| tokens.tokens()).unwrap_or_default())
}
