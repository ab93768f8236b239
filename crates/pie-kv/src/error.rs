//! What the cache refuses.

/// Why the cache refuses. Nothing was changed then.
#[derive(Debug, thiserror::Error)]
pub enum KvError {
    /// The rotation cannot be made.
    #[error("RoPE: {0}")]
    Rope(String),
    /// The memory cannot be had.
    #[error("the KV cache of {bytes} bytes cannot be allocated: give the rank less --kv-memory")]
    OutOfMemory {
        /// What was asked.
        bytes: u64,
    },
    /// A slot beyond the cache.
    #[error("slot {slot} is beyond the cache's {slots} slots: tables and cache must have one capacity")]
    SlotOutOfRange {
        /// Which.
        slot: u32,
        /// How many there are.
        slots: usize,
    },
    /// A layer that the model does not have.
    #[error("layer {layer} does not exist: the cache has {layers}")]
    LayerOutOfRange {
        /// Which.
        layer: usize,
        /// How many there are.
        layers: usize,
    },
    /// Rows of the wrong shape.
    #[error("{what} has shape {got:?}, expected {expected:?}")]
    Shape {
        /// Which rows.
        what: &'static str,
        /// Its shape.
        got: Vec<usize>,
        /// What it should be.
        expected: Vec<usize>,
    },
    /// Flat arrays of different lengths, or rows that see more than their table has.
    #[error("{0}")]
    Mismatch(String),
    /// The GPU.
    #[cfg(feature = "cuda")]
    #[error(transparent)]
    Gpu(#[from] crate::cuda::GpuError),
}

impl KvError {
    /// The stable code of this error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Rope(_) => "KV_ROPE",
            Self::OutOfMemory { .. } => "KV_OUT_OF_MEMORY",
            Self::SlotOutOfRange { .. } => "KV_SLOT_OUT_OF_RANGE",
            Self::LayerOutOfRange { .. } => "KV_LAYER_OUT_OF_RANGE",
            Self::Shape { .. } => "KV_SHAPE",
            Self::Mismatch(_) => "KV_MISMATCH",
            #[cfg(feature = "cuda")]
            Self::Gpu(error) => error.code(),
        }
    }
}
