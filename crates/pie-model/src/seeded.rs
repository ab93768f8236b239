//! Models of seeded random weights, for measuring and for testing: the work is real, the text is noise.

use crate::config::Config;
use crate::error::ModelError;
use half::bf16;
use rayon::prelude::*;
use safetensors::{Dtype, tensor::TensorView};
use std::path::Path;

/// Writes `config.json` and `model.safetensors` (bf16) to a new folder; the same seed gives the same bytes. The folder
/// appears whole or not at all. `progress` hears of tensors done and in all.
///
/// # Errors
/// [`ModelError::File`].
pub fn write_model(
    folder: &Path,
    config: &Config,
    seed: u64,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(), ModelError> {
    let failed = |why: String| ModelError::File { path: folder.to_owned(), why };
    let partial = folder.with_extension(format!("partial-{}", std::process::id()));
    std::fs::create_dir_all(&partial).map_err(|error| failed(error.to_string()))?;
    let shapes = shapes(config);
    let mut tensors = Vec::with_capacity(shapes.len());
    for (index, (name, shape)) in shapes.iter().enumerate() {
        let number = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(index as u64);
        tensors.push((name.clone(), shape.clone(), noise(shape, number)));
        progress(index as u64 + 1, shapes.len() as u64);
    }
    let views = tensors.iter().map(|(name, shape, data)| {
        let view = TensorView::new(Dtype::BF16, shape.clone(), data).map_err(|error| failed(error.to_string()))?;
        Ok((name.clone(), view))
    });
    let views: Vec<_> = views.collect::<Result<_, ModelError>>()?;
    safetensors::serialize_to_file(views, None, &partial.join("model.safetensors"))
        .map_err(|error| failed(error.to_string()))?;
    std::fs::write(partial.join("config.json"), format!("{:#}\n", config.to_json()))
        .map_err(|error| failed(error.to_string()))?;
    match std::fs::rename(&partial, folder) {
        // Somebody else made the same folder meanwhile.
        Err(_) if folder.join("config.json").is_file() => {
            std::fs::remove_dir_all(&partial).map_err(|error| failed(error.to_string()))
        }
        result => result.map_err(|error| failed(error.to_string())),
    }
}

/// Names and shapes as Hugging Face has them.
fn shapes(config: &Config) -> Vec<(String, Vec<usize>)> {
    let (hidden, mlp) = (config.hidden_size, config.intermediate_size);
    let (query, kv) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
    let mut shapes = vec![("model.embed_tokens.weight".to_owned(), vec![config.vocab_size, hidden])];
    for index in 0..config.layers {
        let parts = [
            ("input_layernorm", vec![hidden]),
            ("self_attn.q_proj", vec![query, hidden]),
            ("self_attn.k_proj", vec![kv, hidden]),
            ("self_attn.v_proj", vec![kv, hidden]),
            ("self_attn.o_proj", vec![hidden, query]),
            ("post_attention_layernorm", vec![hidden]),
            ("mlp.gate_proj", vec![mlp, hidden]),
            ("mlp.up_proj", vec![mlp, hidden]),
            ("mlp.down_proj", vec![hidden, mlp]),
        ];
        shapes.extend(parts.map(|(part, shape)| (format!("model.layers.{index}.{part}.weight"), shape)));
    }
    shapes.push(("model.norm.weight".to_owned(), vec![hidden]));
    if !config.tied_head {
        shapes.push(("lm_head.weight".to_owned(), vec![config.vocab_size, hidden]));
    }
    shapes
}

/// Numbers of about normal distribution with deviation 1.5 / sqrt(in); norms are 1.
fn noise(shape: &[usize], seed: u64) -> Vec<u8> {
    let count: usize = shape.iter().product();
    if shape.len() == 1 {
        return bf16::ONE.to_le_bytes().repeat(count);
    }
    // Four uniform numbers of 16 bits: their sum has deviation sqrt(4 / 12) in units of their range.
    let scale = 1.5 / (shape[shape.len() - 1] as f32).sqrt() / (4.0_f32 / 12.0).sqrt() / 65_536.0;
    let mut bytes = vec![0; count * 2];
    bytes.par_chunks_mut(2).enumerate().with_min_len(1 << 14).for_each(|(index, bytes)| {
        let bits = mixed(seed.wrapping_mul(0x2545_f491_4f6c_dd1d).wrapping_add(index as u64));
        let sum: i64 = (0..4).map(|part| i64::from((bits >> (16 * part)) as u16)).sum();
        let number = (sum - 2 * 65_535) as f32 * scale;
        bytes.copy_from_slice(&bf16::from_f32(number).to_le_bytes());
    });
    bytes
}

/// splitmix64's finalizer: every bit depends on every bit.
fn mixed(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
