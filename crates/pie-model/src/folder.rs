//! A model folder: a configuration and weights that belong together, which is checked before any weight is read.

use crate::checkpoint::Checkpoint;
use crate::config::Config;
use crate::error::ModelError;
use crate::tensors::{EMBEDDING, HEAD, LAYERS, NORM, layer_tensor, parts};
use std::path::Path;

/// Stored by older files, and computed here.
const COMPUTED: &str = "rotary_emb.inv_freq";

/// What a folder holds.
pub(crate) struct Folder {
    /// What `config.json` says, and refuses.
    pub config: Config,
    /// The weights' files, of which nothing but headers is read.
    pub checkpoint: Checkpoint,
    /// Where embedding and head are.
    pub tables: VocabularyTables,
}

/// Which tensors are the two tables of the vocabulary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct VocabularyTables {
    /// The tensor that tokens are looked up in.
    pub embedding: &'static str,
    /// The tensor that logits come from; the embedding's in models that tie them.
    pub head: &'static str,
}

impl Folder {
    /// Reads the configuration and the headers of the weights, and refuses tensors that are missing or would be left out.
    /// Whether the head is the embedding is from here on what the weights say.
    pub fn open(folder: &Path) -> Result<Self, ModelError> {
        let config = Config::read(folder)?;
        let checkpoint = Checkpoint::open(folder, &config)?;
        let tables = VocabularyTables::of(&checkpoint, &config);
        let of_layer = |layer| parts(config.architecture).map(move |part| layer_tensor(layer, part));
        let of_layers = (0..config.layers).flat_map(of_layer);
        let mut needed =
            [tables.embedding, tables.head, NORM].map(str::to_owned).into_iter().chain(of_layers);
        if let Some(missing) = needed.find(|name| !checkpoint.has(name)) {
            return Err(checkpoint.missing(&missing));
        }
        let unused: Vec<&str> = checkpoint.names().filter(|name| !is_used(name, &config)).collect();
        if let Some(first) = unused.first() {
            return Err(checkpoint.unused(first, unused.len() - 1, why(first, &config)));
        }
        let config = Config { tied_head: tables.embedding == tables.head, ..config };
        Ok(Self { config, checkpoint, tables })
    }
}

/// Bytes that all weights of a model take in memory on the CPU, but for the embedding, which stays in its file: those of quantized
/// weights are kept as they are, those of others in bf16 or f32.
///
/// # Errors
/// As [`crate::Model::load`] has of configurations and headers.
pub fn weight_bytes(model: &Path) -> Result<u64, ModelError> {
    let Folder { checkpoint, tables, .. } = Folder::open(model)?;
    let is_computed_with = |name: &&str| *name != tables.embedding || tables.embedding == tables.head;
    let bytes = |name: &str| checkpoint.packed_bytes(name);
    Ok(checkpoint.names().filter(is_computed_with).map(bytes).sum())
}

impl VocabularyTables {
    /// As Transformers 5 ties them: where the configuration says so, the one that is stored is both; of two that differ each is
    /// its own.
    fn of(checkpoint: &Checkpoint, config: &Config) -> Self {
        let apart = Self { embedding: EMBEDDING, head: HEAD };
        match (checkpoint.has(EMBEDDING), checkpoint.has(HEAD)) {
            _ if !config.tied_head => apart,
            (true, true) if !checkpoint.are_equal(EMBEDDING, HEAD) => apart,
            (false, true) => Self { embedding: HEAD, head: HEAD },
            _ => Self { embedding: EMBEDDING, head: EMBEDDING },
        }
    }
}

/// Layer and part of a layer's tensor, whatever they are.
fn layer_of(name: &str) -> Option<(usize, &str)> {
    let (layer, part) = name.strip_prefix(LAYERS)?.split_once('.')?;
    Some((layer.parse().ok()?, part))
}

fn is_used(name: &str, config: &Config) -> bool {
    let of_a_layer = || {
        let (layer, part) = layer_of(name)?;
        Some(layer < config.layers && parts(config.architecture).any(|known| known == part))
    };
    [EMBEDDING, HEAD, NORM].contains(&name) || name.ends_with(COMPUTED) || of_a_layer().unwrap_or(false)
}

fn why(name: &str, config: &Config) -> String {
    match layer_of(name) {
        Some((layer, _)) if layer >= config.layers => {
            format!(
                "num_hidden_layers of config.json is {}; take the config.json of these weights",
                config.layers
            )
        }
        _ if name.ends_with(".bias") => {
            format!("{} has no such biases; use a model without them", config.architecture.class)
        }
        _ => format!(
            "{} has no such tensor; use the folder of the model alone, without what was added to it",
            config.architecture.class
        ),
    }
}
