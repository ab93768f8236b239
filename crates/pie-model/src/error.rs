//! What is wrong with a model folder, a batch, or logits.

use pie_comm::CommError;
use pie_kv::KvError;
use std::path::PathBuf;

/// Why a model cannot be loaded or run.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// A file that cannot be read.
    #[error("{path}: {why}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// A configuration that this program does not run.
    #[error("config.json: `{field}` {why}")]
    Unsupported {
        /// Which field.
        field: &'static str,
        /// What is wrong with it, and what would be right.
        why: String,
    },
    /// A world size that does not divide the model.
    #[error("{world_size} ranks cannot share {count} {what}: {fits}")]
    WorldSize {
        /// How many ranks.
        world_size: u32,
        /// What does not divide.
        what: &'static str,
        /// How many of it there are.
        count: usize,
        /// Which sizes would do.
        fits: String,
    },
    /// A weight that is missing or of another shape.
    #[error("weight `{name}`: {why}")]
    Weight {
        /// Which.
        name: String,
        /// Why.
        why: String,
    },
    /// A name that is no preset.
    #[error("there is no model preset `{name}`: there are {known}")]
    UnknownPreset {
        /// The name.
        name: String,
        /// Those that there are.
        known: String,
    },
    /// A batch that does not fit together or the model.
    #[error("the batch is wrong: {0}")]
    Batch(String),
    /// Logits that are no numbers.
    #[error("the logits of the model are not finite: the weights are damaged or overflow")]
    NotFinite,
    /// The cache.
    #[error(transparent)]
    Kv(#[from] KvError),
    /// A peer.
    #[error(transparent)]
    Comm(#[from] CommError),
    /// candle.
    #[error("tensor operation: {0}")]
    Tensor(#[from] candle_core::Error),
}

impl ModelError {
    /// The stable code of this error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::File { .. } => "MODEL_FILE",
            Self::Unsupported { .. } => "MODEL_UNSUPPORTED",
            Self::WorldSize { .. } => "MODEL_WORLD_SIZE",
            Self::Weight { .. } => "MODEL_WEIGHT",
            Self::UnknownPreset { .. } => "MODEL_UNKNOWN_PRESET",
            Self::Batch(_) => "MODEL_BATCH",
            Self::NotFinite => "MODEL_NOT_FINITE",
            Self::Kv(error) => error.code(),
            Self::Comm(error) => error.code(),
            Self::Tensor(_) => "MODEL_TENSOR",
        }
    }
}
