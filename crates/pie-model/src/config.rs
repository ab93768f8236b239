//! A model's sizes, from `config.json`, with refusals by name of what would be computed wrongly.

use crate::architecture::{Architecture, Biases, HeadNorms};
use crate::checkpoint;
use crate::error::ModelError;
use crate::raw::{self, RawConfig};
use crate::rotation;
use pie_gguf::Gguf;
use pie_kv::RopeScaling;
use pie_words::TokenId;
use std::path::Path;

/// The sizes and constants of a model of the Llama family.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// What it has beside Llama's.
    pub architecture: &'static Architecture,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the MLP.
    pub intermediate_size: usize,
    /// Decoder layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads: divides `heads`.
    pub kv_heads: usize,
    /// Dimension of a head: even.
    pub head_dim: usize,
    /// Entries of the vocabulary.
    pub vocab_size: usize,
    /// Positions are below this.
    pub max_position_embeddings: usize,
    /// Added to the mean square in RMSNorm.
    pub rms_norm_eps: f64,
    /// Base of the rotation.
    pub rope_theta: f64,
    /// Scaling of the rotation's frequencies.
    pub rope_scaling: RopeScaling,
    /// Whether the head is the embedding (`tie_word_embeddings`), and not `lm_head.weight`.
    pub tied_head: bool,
    /// Tokens that end a text, as config.json and generation_config.json say; ascending.
    pub end_of_text: Vec<TokenId>,
}

impl Config {
    /// Reads `config.json` of a folder, and the end-of-text tokens of `generation_config.json` if it is there; or the settings of
    /// a GGUF file.
    ///
    /// # Errors
    /// Files that cannot be read, and every model that would be computed wrongly.
    pub fn read(folder: &Path) -> Result<Self, ModelError> {
        if Gguf::is_named(folder) {
            return Self::of_keys(checkpoint::settings(folder)?, folder);
        }
        let path = folder.join("config.json");
        let mut config = Self::parse(&read(&path)?, &path)?;
        let generation = folder.join("generation_config.json");
        if generation.is_file() {
            config.end_of_text.extend(raw::end_of_text(&read(&generation)?, &generation)?);
            config.end_of_text.sort_unstable();
            config.end_of_text.dedup();
            config.check().map_err(|reason| ModelError::ConfigInvalid { path: generation, reason })?;
        }
        Ok(config)
    }

    /// The configuration in the text of a `config.json`; `path` is for errors.
    ///
    /// # Errors
    /// As [`Config::read`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, ModelError> {
        let invalid = |error: serde_json::Error| ModelError::ConfigInvalid {
            path: path.to_owned(),
            reason: error.to_string(),
        };
        Self::of_keys(serde_json::from_str(text).map_err(invalid)?, path)
    }

    /// The configuration in the keys of a config.json.
    fn of_keys(mut value: serde_json::Value, path: &Path) -> Result<Self, ModelError> {
        let invalid = |reason: String| ModelError::ConfigInvalid { path: path.to_owned(), reason };
        rotation::choose(&mut value);
        // Before the keys are read, so that another architecture is told by name and not by the first key that it lacks.
        let architecture = Architecture::of(&value)?;
        raw::refuse(&value)?;
        let raw: RawConfig = serde_json::from_value(value).map_err(|error| invalid(error.to_string()))?;
        let config = raw.checked(architecture, path)?;
        config.check().map_err(invalid)?;
        Ok(config)
    }

    /// The text of a `config.json` for this model, as Transformers reads it.
    pub fn to_json(&self) -> String {
        RawConfig::from(self).to_json()
    }

    /// Numbers of the whole model; tied weights count once.
    pub fn parameters(&self) -> u64 {
        self.counted() as u64
    }

    /// The same, where sizes were not checked yet.
    fn counted(&self) -> u128 {
        let [hidden, mlp, layers, heads, vocab] = [
            self.hidden_size,
            self.intermediate_size,
            self.layers,
            self.heads + self.kv_heads,
            self.vocab_size,
        ]
        .map(|size| size as u128);
        let attention = 2 * hidden * self.head_dim as u128 * heads;
        let own = match self.architecture.biases {
            Biases::Absent => 0,
            Biases::QueryKeyValue => self.head_dim as u128 * (heads + self.kv_heads as u128),
        };
        let own = match self.architecture.head_norms {
            HeadNorms::Absent => own,
            HeadNorms::QueryKey => own + 2 * self.head_dim as u128,
        };
        let layer = attention + 3 * hidden * mlp + 2 * hidden + own;
        let tables = if self.tied_head { 1 } else { 2 };
        layers * layer + hidden + tables * vocab * hidden
    }

    /// Refuses a world size that does not divide the model. KV heads are shared or replicated; the vocabulary is padded.
    ///
    /// # Errors
    /// [`ModelError::WorldSize`].
    pub fn check_world_size(&self, world_size: usize) -> Result<(), ModelError> {
        match self.undivided(world_size) {
            None => Ok(()),
            Some((what, number)) => {
                let fits = (1..=64).filter(|size| self.undivided(*size).is_none()).collect();
                Err(ModelError::WorldSize { what, number, world_size, fits })
            }
        }
    }

    fn undivided(&self, world_size: usize) -> Option<(&'static str, usize)> {
        if !self.heads.is_multiple_of(world_size) {
            Some(("attention heads", self.heads))
        } else if !self.kv_heads.is_multiple_of(world_size) && !world_size.is_multiple_of(self.kv_heads) {
            Some(("KV heads", self.kv_heads))
        } else if !self.intermediate_size.is_multiple_of(world_size) {
            Some(("MLP columns", self.intermediate_size))
        } else {
            None
        }
    }

    /// What no tensor could have.
    fn check(&self) -> Result<(), String> {
        let sizes = [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.layers),
            ("num_attention_heads", self.heads),
            ("num_key_value_heads", self.kv_heads),
            ("head_dim", self.head_dim),
            ("max_position_embeddings", self.max_position_embeddings),
        ];
        // Products of sizes must not overflow; no real model comes near.
        if let Some((name, size)) = sizes.iter().find(|(_, size)| *size == 0 || *size > 1 << 24) {
            return Err(format!("{name} is {size}"));
        }
        // So that bytes of weights, caches and activations can be reckoned; a thousand times the largest model.
        if self.counted() > 1 << 50 {
            return Err(format!("it would have {} parameters", self.counted()));
        }
        if !self.heads.is_multiple_of(self.kv_heads) {
            return Err(format!("{} heads cannot share {} KV heads evenly", self.heads, self.kv_heads));
        }
        if !self.head_dim.is_multiple_of(2) {
            return Err(format!("head_dim is {}; RoPE needs an even one", self.head_dim));
        }
        if !(self.rms_norm_eps.is_finite() && self.rms_norm_eps > 0.0) {
            return Err(format!("rms_norm_eps is {}", self.rms_norm_eps));
        }
        match self.end_of_text.iter().find(|token| token.0 as usize >= self.vocab_size) {
            Some(token) => {
                Err(format!("eos_token_id {token} is beyond the vocabulary of {}", self.vocab_size))
            }
            None => Ok(()),
        }
    }
}

fn read(path: &Path) -> Result<String, ModelError> {
    std::fs::read_to_string(path).map_err(|source| ModelError::File { path: path.to_owned(), source })
}
