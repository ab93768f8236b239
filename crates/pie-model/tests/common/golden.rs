//! What `scripts/goldens/make.py` and `scripts/goldens/quantized.py` made.

use safetensors::SafeTensors;
use std::path::{Path, PathBuf};

/// Folders of `tests/goldens`.
pub const MODELS: [&str; 10] = [
    "linear-tied",
    "linear-4kv",
    "llama3",
    "sharded-bf16",
    "mistral",
    "qwen2",
    "qwen2-yarn",
    "qwen3",
    "gguf-llama",
    "gguf-qwen2",
];
/// A model, and what Transformers gives for a prompt.
pub struct Golden {
    /// A folder, or a GGUF file.
    pub model: PathBuf,
    pub prompt: Vec<u32>,
    /// [prompt][vocabulary]
    pub logits: Vec<Vec<f32>>,
    pub greedy: Vec<u32>,
}

/// One of [`MODELS`].
pub fn golden(name: &str) -> Golden {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens").join(name);
    let bytes = std::fs::read(folder.join("expected.safetensors")).expect("goldens are committed");
    let tensors = SafeTensors::deserialize(&bytes).expect("safetensors");
    let words = |name: &str| -> Vec<[u8; 4]> {
        tensors.tensor(name).expect("a tensor of the goldens").data().as_chunks().0.to_vec()
    };
    let ids = |name: &str| words(name).into_iter().map(u32::from_le_bytes).collect::<Vec<u32>>();
    let logits: Vec<f32> = words("logits").into_iter().map(f32::from_le_bytes).collect();
    let (prompt, greedy) = (ids("prompt"), ids("greedy"));
    let width = logits.len() / prompt.len();
    let file = folder.join("model.gguf");
    let model = if file.is_file() { file } else { folder };
    Golden { model, logits: logits.chunks_exact(width).map(<[f32]>::to_vec).collect(), prompt, greedy }
}
