//! The architectures that are computed, as rows of a table: each is Llama's with a few things of its own. And those that are
//! known and not computed, with why.

use crate::error::ModelError;
use serde_json::Value;

/// What tells one architecture of Llama's family from another.
#[derive(Debug, PartialEq, Eq)]
pub struct Architecture {
    /// What `architectures` of config.json calls it.
    pub class: &'static str,
    /// What `model_type` calls it.
    pub model_type: &'static str,
    /// What is added to queries, keys and values before they are rotated.
    pub biases: Biases,
    /// What queries and keys go through before they are rotated.
    pub head_norms: HeadNorms,
}

/// Biases of the projections to queries, keys and values. Keys are cached behind them and rotated, so turning stays exact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Biases {
    /// None.
    Absent,
    /// One number for each of their rows.
    QueryKeyValue,
}

/// RMSNorm of each head of the queries and keys, with one weight of `[head_dim]` for all heads of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadNorms {
    /// None.
    Absent,
    /// Of both.
    QueryKey,
}

/// Llama 1 to 3, DeepSeek-Coder, Seed-Coder, Mellum, SmolLM2 (Touvron et al. 2023).
pub const LLAMA: Architecture = Architecture {
    class: "LlamaForCausalLM",
    model_type: "llama",
    biases: Biases::Absent,
    head_norms: HeadNorms::Absent,
};
/// Mistral and Codestral, where no layer has a window (Jiang et al. 2023).
pub const MISTRAL: Architecture =
    Architecture { class: "MistralForCausalLM", model_type: "mistral", ..LLAMA };
/// Qwen2, Qwen2.5 and Qwen2.5-Coder (Yang et al. 2024).
pub const QWEN2: Architecture =
    Architecture { class: "Qwen2ForCausalLM", model_type: "qwen2", biases: Biases::QueryKeyValue, ..LLAMA };
/// Qwen3 without experts (Yang et al. 2025).
pub const QWEN3: Architecture =
    Architecture { class: "Qwen3ForCausalLM", model_type: "qwen3", head_norms: HeadNorms::QueryKey, ..LLAMA };

static KNOWN: [&Architecture; 4] = [&LLAMA, &MISTRAL, &QWEN2, &QWEN3];

const RECURRENT: &str =
    "its recurrent layers keep one state for all that was read, which cannot be edited in the middle";
const WINDOWS: &str = "layers with a sliding window are not built";
const LATENT: &str = "its keys are cached compressed (MLA), which is not built";
const EXPERTS: &str = "a mixture of experts is not built";

/// By `model_type`: what people try, and why it is refused.
const REFUSED: [(&str, &str); 22] = [
    ("mamba", RECURRENT),
    ("mamba2", RECURRENT),
    ("falcon_mamba", RECURRENT),
    ("rwkv", RECURRENT),
    ("jamba", RECURRENT),
    ("bamba", RECURRENT),
    ("recurrent_gemma", RECURRENT),
    ("granitemoehybrid", RECURRENT),
    ("nemotron_h", RECURRENT),
    ("qwen3_next", RECURRENT),
    ("lfm2", RECURRENT),
    ("gemma2", WINDOWS),
    ("gemma3", WINDOWS),
    ("gemma3_text", WINDOWS),
    ("cohere2", WINDOWS),
    ("gpt_oss", WINDOWS),
    ("deepseek_v2", LATENT),
    ("deepseek_v3", LATENT),
    ("minicpm3", LATENT),
    ("mixtral", EXPERTS),
    ("qwen2_moe", EXPERTS),
    ("qwen3_moe", EXPERTS),
];

impl Architecture {
    /// The row of a `config.json`.
    ///
    /// # Errors
    /// [`ModelError::NotLlama`] for what is not in the table, [`ModelError::Unsupported`] for layers with a window and biases
    /// that the row does not have.
    pub fn of(config: &Value) -> Result<&'static Self, ModelError> {
        let model_type = config.get("model_type").and_then(Value::as_str).unwrap_or("not said");
        let known = KNOWN.iter().find(|known| known.model_type == model_type);
        let refused = |got: &str| {
            let why = REFUSED.iter().find(|(name, _)| *name == model_type);
            let why = why.map_or("it is not of Llama's family, as far as is known here", |(_, why)| why);
            ModelError::NotLlama { got: got.to_owned(), why }
        };
        let classes = config.get("architectures").and_then(Value::as_array);
        let mut classes = classes.into_iter().flatten().filter_map(Value::as_str);
        let known = *known.ok_or_else(|| refused(classes.clone().next().unwrap_or(model_type)))?;
        // Without its head, or another model's with the same configuration.
        let bare = known.class.replace("ForCausalLM", "Model");
        if let Some(foreign) = classes.find(|name| *name != known.class && *name != bare) {
            return Err(refused(foreign));
        }
        known.check_biases(config)?;
        check_windows(config)?;
        Ok(known)
    }

    fn check_biases(&self, config: &Value) -> Result<(), ModelError> {
        let is_on = |key: &&str| config.get(*key) == Some(&Value::Bool(true));
        let absent = match self.biases {
            Biases::Absent => ["attention_bias", "mlp_bias"].as_slice(),
            Biases::QueryKeyValue => &["mlp_bias"],
        };
        let what = absent.iter().find(|key| is_on(key)).map(|key| (*key).to_owned());
        let advice = "use a model without these biases";
        what.map_or(Ok(()), |what| Err(ModelError::Unsupported { what, advice }))
    }
}

/// Refuses windows that some token of the context would not see beyond. Qwen2's count where `use_sliding_window` says so.
fn check_windows(config: &Value) -> Result<(), ModelError> {
    let number = |key: &str| config.get(key).and_then(Value::as_u64);
    let is_off = config.get("use_sliding_window") == Some(&Value::Bool(false));
    let context = number("max_position_embeddings").unwrap_or(u64::MAX);
    let window = number("sliding_window").filter(|window| !is_off && *window < context);
    let kinds = config.get("layer_types").and_then(Value::as_array).into_iter().flatten();
    let other = kinds.filter_map(Value::as_str).find(|kind| *kind != "full_attention");
    let what = match (window, other) {
        (Some(window), _) => format!("sliding_window {window}"),
        (None, Some(kind)) => format!("a layer of the kind \"{kind}\""),
        (None, None) => return Ok(()),
    };
    Err(ModelError::Unsupported { what, advice: "use a model in which every token sees all before it" })
}
