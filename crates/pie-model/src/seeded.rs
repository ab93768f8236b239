//! Models of seeded random weights: real folders, for demonstration and measurement without a download.

use crate::architecture::{Biases, HeadNorms};
use crate::config::Config;
use crate::error::ModelError;
use half::bf16;
use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// Numbers drawn from one stream of the generator.
const CHUNK: usize = 1 << 16;
/// Numbers in memory at once.
const PIECE: usize = 1 << 22;

/// Writes `config.json` and `model.safetensors` (bf16) with weights that depend on the configuration and the seed alone.
/// The folder appears whole or not at all; if another process made the same one meanwhile, that one stays. `progress`
/// hears (bytes written, bytes in all).
///
/// # Errors
/// Files that cannot be written; a folder of another model in this place.
pub fn write_model(
    folder: &Path,
    config: &Config,
    seed: u64,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(), ModelError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| ModelError::File { path, source }
    };
    let making = beside(folder);
    let result = fs::create_dir_all(&making)
        .and_then(|()| fs::write(making.join("config.json"), config.to_json()))
        .and_then(|()| write_weights(&making.join("model.safetensors"), config, seed, progress))
        .and_then(|()| fs::rename(&making, folder));
    if let Err(error) = result {
        // What is left over helps nobody, and the first error is the one to tell.
        let _ = fs::remove_dir_all(&making);
        let same = fs::read_to_string(folder.join("config.json")).is_ok_and(|text| text == config.to_json());
        if !same || !folder.join("model.safetensors").is_file() {
            return Err(failed(folder)(error));
        }
    }
    Ok(())
}

/// A name of this process's own, on the same file system.
fn beside(folder: &Path) -> PathBuf {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    folder.with_file_name(format!(".{name}.{}.making", std::process::id()))
}

pub(crate) struct Spec {
    name: String,
    shape: Vec<usize>,
    mean: f32,
    deviation: f32,
}

impl Spec {
    /// Of the embedding and the head.
    pub(crate) const TABLE_GAIN: f32 = 2.0;
    /// Of queries and keys.
    pub(crate) const QUERY_GAIN: f32 = 1.5;
    /// Of biases, and of the norms of heads.
    const VECTOR_DEVIATION: f32 = 0.3;

    fn numbers(&self) -> usize {
        self.shape.iter().product()
    }
}

/// Every matrix keeps the size of what it is given (deviation 1 / sqrt(inputs)), queries and keys a little more so that
/// attention chooses, and logits spread by about 2: neither flat nor certain.
fn specs(config: &Config) -> Vec<Spec> {
    let Config { hidden_size: hidden, intermediate_size: mlp, head_dim, heads, kv_heads, vocab_size, .. } =
        *config;
    let matrix = |name: String, outputs: usize, inputs: usize, gain: f32| Spec {
        name,
        shape: vec![outputs, inputs],
        mean: 0.0,
        deviation: gain / (inputs as f32).sqrt(),
    };
    let norm = |name: String| Spec { name, shape: vec![hidden], mean: 1.0, deviation: 0.1 };
    let mut specs =
        vec![matrix("model.embed_tokens.weight".to_owned(), vocab_size, hidden, Spec::TABLE_GAIN)];
    for layer in 0..config.layers {
        let name = |part: &str| format!("model.layers.{layer}.{part}.weight");
        specs.extend([
            norm(name("input_layernorm")),
            matrix(name("self_attn.q_proj"), heads * head_dim, hidden, Spec::QUERY_GAIN),
            matrix(name("self_attn.k_proj"), kv_heads * head_dim, hidden, Spec::QUERY_GAIN),
            matrix(name("self_attn.v_proj"), kv_heads * head_dim, hidden, 1.0),
            matrix(name("self_attn.o_proj"), hidden, heads * head_dim, 1.0),
            norm(name("post_attention_layernorm")),
            matrix(name("mlp.gate_proj"), mlp, hidden, 1.0),
            matrix(name("mlp.up_proj"), mlp, hidden, 1.0),
            matrix(name("mlp.down_proj"), hidden, mlp, 1.0),
        ]);
    }
    let vector = |name: String, length: usize, mean: f32| Spec {
        name,
        shape: vec![length],
        mean,
        deviation: Spec::VECTOR_DEVIATION,
    };
    for layer in 0..config.layers {
        let name = |part: &str| format!("model.layers.{layer}.self_attn.{part}");
        if config.architecture.biases == Biases::QueryKeyValue {
            specs.extend([
                vector(name("q_proj.bias"), heads * head_dim, 0.0),
                vector(name("k_proj.bias"), kv_heads * head_dim, 0.0),
                vector(name("v_proj.bias"), kv_heads * head_dim, 0.0),
            ]);
        }
        if config.architecture.head_norms == HeadNorms::QueryKey {
            specs.extend([
                vector(name("q_norm.weight"), head_dim, 1.0),
                vector(name("k_norm.weight"), head_dim, 1.0),
            ]);
        }
    }
    specs.push(norm("model.norm.weight".to_owned()));
    if !config.tied_head {
        specs.push(matrix("lm_head.weight".to_owned(), vocab_size, hidden, Spec::TABLE_GAIN));
    }
    specs
}

fn write_weights(
    path: &Path,
    config: &Config,
    seed: u64,
    progress: &mut dyn FnMut(u64, u64),
) -> std::io::Result<()> {
    let specs = specs(config);
    let mut file = BufWriter::new(File::create(path)?);
    let header = header(&specs);
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(header.as_bytes())?;
    let total = 2 * specs.iter().map(Spec::numbers).sum::<usize>() as u64;
    let mut done = 0;
    for (index, spec) in specs.iter().enumerate() {
        let numbers = spec.numbers();
        for start in (0..numbers).step_by(PIECE) {
            let bytes = piece(spec, seed ^ ((index as u64) << 32), start, PIECE.min(numbers - start));
            file.write_all(&bytes)?;
            done += bytes.len() as u64;
            progress(done, total);
        }
    }
    file.into_inner()?.sync_all()
}

/// The safetensors header, padded with spaces to a multiple of eight bytes as the format asks.
fn header(specs: &[Spec]) -> String {
    let mut header = serde_json::Map::new();
    header.insert("__metadata__".to_owned(), serde_json::json!({ "format": "pt" }));
    let mut start = 0;
    for spec in specs {
        let end = start + 2 * spec.numbers();
        let entry = serde_json::json!({ "dtype": "BF16", "shape": spec.shape, "data_offsets": [start, end] });
        header.insert(spec.name.clone(), entry);
        start = end;
    }
    let mut header = serde_json::Value::Object(header).to_string();
    header.extend(std::iter::repeat_n(' ', header.len().next_multiple_of(8) - header.len()));
    header
}

fn piece(spec: &Spec, seed: u64, start: usize, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; 2 * count];
    bytes.par_chunks_mut(2 * CHUNK).enumerate().for_each(|(index, bytes)| {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        random.set_stream((start / CHUNK + index) as u64);
        for to in bytes.as_chunks_mut::<2>().0 {
            *to = bf16::from_f32(spec.mean + spec.deviation * bell(random.next_u64())).to_le_bytes();
        }
    });
    bytes
}

/// Mean 0, variance 1, within 3.5: the sum of four uniform numbers of 16 bits, which is normal enough for weights and
/// several times faster than an exact normal draw.
fn bell(bits: u64) -> f32 {
    const MEAN: f32 = 4.0 * 32_767.5;
    // The variance of one is (2^32 - 1) / 12.
    const DEVIATION: f32 = 37_837.23;
    let sum: u64 = (0..4).map(|part| (bits >> (16 * part)) & 0xffff).sum();
    (sum as f32 - MEAN) / DEVIATION
}
