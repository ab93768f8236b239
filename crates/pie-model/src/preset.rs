//! Models by name: the reference models' sizes, and small ones for demonstration and measurement.

use crate::architecture::LLAMA;
use crate::config::Config;
use crate::error::ModelError;
use pie_kv::RopeScaling;
use pie_words::TokenId;

/// Sizes that differ between presets.
struct Sizes {
    name: &'static str,
    hidden: usize,
    layers: usize,
    heads: usize,
    kv_heads: usize,
    mlp: usize,
    vocab: usize,
    tied: bool,
    context: usize,
    end_of_text: u32,
}

const DEEPSEEK: Sizes = Sizes {
    name: "deepseek-coder-1.3b",
    hidden: 2048,
    layers: 24,
    heads: 16,
    kv_heads: 16,
    mlp: 5504,
    vocab: 32_256,
    tied: false,
    context: 16_384,
    end_of_text: 32_014,
};

/// Small models share the vocabulary of the tokenizer that ships (`models/tiny-code`).
const SMALL: Sizes = Sizes {
    name: "tiny",
    hidden: 384,
    layers: 6,
    heads: 16,
    kv_heads: 8,
    mlp: 1024,
    vocab: 8192,
    tied: true,
    context: 16_384,
    end_of_text: 1,
};

/// The shapes of the peers' measurements.
const BENCH: Sizes = Sizes {
    name: "bench-116m",
    hidden: 768,
    layers: 12,
    heads: 12,
    kv_heads: 4,
    mlp: 3072,
    tied: false,
    context: 32_768,
    ..SMALL
};

/// Next to no work for a rank: what is left is the router's own.
const NULL: Sizes =
    Sizes { name: "null", hidden: 16, layers: 1, heads: 2, kv_heads: 1, mlp: 16, context: 65_536, ..SMALL };

const PRESETS: [Sizes; 9] = [
    DEEPSEEK,
    Sizes {
        name: "deepseek-coder-6.7b",
        hidden: 4096,
        layers: 32,
        heads: 32,
        kv_heads: 32,
        mlp: 11_008,
        ..DEEPSEEK
    },
    Sizes {
        name: "deepseek-coder-33b",
        hidden: 7168,
        layers: 62,
        heads: 56,
        kv_heads: 8,
        mlp: 19_200,
        ..DEEPSEEK
    },
    SMALL,
    Sizes { name: "test", hidden: 256, layers: 4, mlp: 384, vocab: 512, context: 2048, ..SMALL },
    NULL,
    Sizes { name: "bench-14m", hidden: 256, layers: 8, heads: 8, kv_heads: 4, mlp: 1408, ..BENCH },
    Sizes { name: "bench-90m", mlp: 2048, ..BENCH },
    BENCH,
];

impl Config {
    /// A model by name: `deepseek-coder-{1.3b,6.7b,33b}`, `tiny`, `test`, `null`, `bench-{14m,90m,116m}`. All have
    /// DeepSeek-Coder's rotation: theta 100000, linear factor 4.
    ///
    /// # Errors
    /// [`ModelError::UnknownPreset`].
    pub fn preset(name: &str) -> Result<Self, ModelError> {
        let Some(sizes) = PRESETS.iter().find(|sizes| sizes.name == name) else {
            let known = PRESETS.iter().map(|sizes| sizes.name).collect();
            return Err(ModelError::UnknownPreset { name: name.to_owned(), known });
        };
        Ok(Self {
            architecture: &LLAMA,
            vocab_size: sizes.vocab,
            hidden_size: sizes.hidden,
            intermediate_size: sizes.mlp,
            layers: sizes.layers,
            heads: sizes.heads,
            kv_heads: sizes.kv_heads,
            head_dim: sizes.hidden / sizes.heads,
            max_position_embeddings: sizes.context,
            rms_norm_eps: 1e-6,
            rope_theta: 100_000.0,
            rope_scaling: RopeScaling::Linear { factor: 4.0 },
            tied_head: sizes.tied,
            end_of_text: vec![TokenId(sizes.end_of_text)],
        })
    }
}
