//! What can be wrong with a model folder, a batch, or a draw.

use pie_comm::CommError;
use pie_kv::KvError;
use std::path::PathBuf;

/// Why a model cannot be loaded or run.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// A file that cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A `config.json` that says nothing usable.
    #[error("{}: {reason}", path.display())]
    ConfigInvalid {
        /// Which file.
        path: PathBuf,
        /// What is wrong in it.
        reason: String,
    },
    /// Another architecture.
    #[error(
        "the model's configuration: the architecture is {got}: {why}. Supported are the models of LlamaForCausalLM, MistralForCausalLM, \
         Qwen2ForCausalLM and Qwen3ForCausalLM"
    )]
    NotLlama {
        /// What it is.
        got: String,
        /// Why it is not computed.
        why: &'static str,
    },
    /// A RoPE whose frequencies depend on the length of the context.
    #[error(
        "the model's configuration: RoPE scaling \"{kind}\" makes frequencies that depend on the length: cached keys cannot be \
         rotated. Supported: none, \"linear\", \"llama3\", \"yarn\""
    )]
    RopeNotLinear {
        /// The scaling's name.
        kind: String,
    },
    /// A variation of Llama that is not built.
    #[error("the model's configuration: {what} is not supported; {advice}")]
    Unsupported {
        /// The setting.
        what: String,
        /// What to do.
        advice: &'static str,
    },
    /// Quantized weights.
    #[error(
        "the model's configuration: the weights are quantized ({method}); use the f32, f16 or bf16 checkpoint, or a GGUF file"
    )]
    Quantized {
        /// How.
        method: String,
    },
    /// A world size that does not divide the model.
    #[error("{world_size} ranks cannot share {number} {what}; world sizes that fit this model: {fits:?}")]
    WorldSize {
        /// What cannot be divided.
        what: &'static str,
        /// How many of them there are.
        number: usize,
        /// The group's size.
        world_size: usize,
        /// What would work, up to 64.
        fits: Vec<usize>,
    },
    /// No such preset.
    #[error("there is no preset {name:?}; known: {known:?}")]
    UnknownPreset {
        /// What was asked for.
        name: String,
        /// What there is.
        known: Vec<&'static str>,
    },
    /// A folder without weights.
    #[error(
        "{} has neither model.safetensors nor model.safetensors.index.json; weights in other files of a folder (pytorch_model.bin) \
         are not read: save the model with save_pretrained of Transformers, or name a GGUF file itself",
        folder.display()
    )]
    NoWeights {
        /// Which.
        folder: PathBuf,
    },
    /// A safetensors file that is cut off or is none.
    #[error("{}: {reason}; download or copy it again", path.display())]
    WeightsInvalid {
        /// Which file.
        path: PathBuf,
        /// What is wrong in it.
        reason: String,
    },
    /// The index names a file that is not there.
    #[error("{} names {shard}, which cannot be read ({source}); the download is not complete", index.display())]
    ShardMissing {
        /// The index.
        index: PathBuf,
        /// The missing file.
        shard: String,
        /// Why.
        source: std::io::Error,
    },
    /// A GGUF file that cannot be read as one.
    #[error("{}: {source}", path.display())]
    Gguf {
        /// Which file.
        path: PathBuf,
        /// What is wrong in it.
        source: pie_gguf::GgufError,
    },
    /// A weight that is nowhere.
    #[error("{}: no tensor {name}; the weights do not belong to this configuration", place.display())]
    TensorMissing {
        /// Which.
        name: String,
        /// The folder that was searched.
        place: PathBuf,
    },
    /// A weight of another shape than config.json says.
    #[error("{}: {name} has shape {got:?}, the configuration says {expected:?}", place.display())]
    TensorShape {
        /// Which.
        name: String,
        /// Its file.
        place: PathBuf,
        /// Its shape.
        got: Vec<usize>,
        /// What it should be.
        expected: Vec<usize>,
    },
    /// A tensor that would be left out: what is computed without it is another model.
    #[error("{}: {name}{} would be left out: {why}", place.display(), and_more(*.others))]
    TensorUnused {
        /// The first.
        name: String,
        /// Its file.
        place: PathBuf,
        /// How many there are beside.
        others: usize,
        /// Why it is not used, and what to do.
        why: String,
    },
    /// Weights that are NaN or infinite.
    #[error(
        "{}: {name}{index:?} is {value}, not a finite {kind} number: the weights are damaged; download or copy them again",
        place.display()
    )]
    TensorNotFinite {
        /// Which.
        name: String,
        /// Its file.
        place: PathBuf,
        /// Where in the tensor: the first in reading order of those that were read.
        index: Box<[usize]>,
        /// What stands there.
        value: f32,
        /// What it is computed with.
        kind: &'static str,
    },
    /// A weight of a type that is not read.
    #[error("{}: {name} is {got}; supported: F32, F16, BF16, and in GGUF files Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K, Q6_K", place.display())]
    TensorType {
        /// Which.
        name: String,
        /// Its file.
        place: PathBuf,
        /// Its type.
        got: String,
    },
    /// A batch that does not fit the model or itself.
    #[error("batch: {0}")]
    BatchInvalid(String),
    /// The pass was given up in the middle, as its [`Interrupt`](crate::Interrupt) said.
    #[error("the pass was given up in the middle, as it was asked to be")]
    GivenUp,
    /// The model was loaded for another member than the collective's.
    #[error(
        "the weights are those of {weights}, the collective is that of {collective}: load for this member"
    )]
    MemberMismatch {
        /// The member that was given when loading.
        weights: String,
        /// The member that runs now.
        collective: String,
    },
    /// Logits that are not numbers.
    #[error("logit {index} of {vocabulary} is {value}: the weights are damaged, or overflow")]
    LogitsInvalid {
        /// The first that is wrong.
        index: usize,
        /// How many there are.
        vocabulary: usize,
        /// Its value.
        value: f32,
    },
    /// Sampling parameters out of range.
    #[error("sampling: {0}")]
    SamplingInvalid(String),
    /// The GPU.
    #[cfg(feature = "cuda")]
    #[error(transparent)]
    Gpu(#[from] pie_kv::cuda::GpuError),
    /// The cache.
    #[error(transparent)]
    Kv(#[from] KvError),
    /// A peer.
    #[error(transparent)]
    Comm(#[from] CommError),
}

fn and_more(others: usize) -> String {
    match others {
        0 => String::new(),
        1 => " and another tensor".to_owned(),
        others => format!(" and {others} other tensors"),
    }
}

impl ModelError {
    /// The stable code of this error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::File { .. } => "MODEL_FILE",
            Self::ConfigInvalid { .. } => "MODEL_CONFIG_INVALID",
            Self::NotLlama { .. } => "MODEL_NOT_LLAMA",
            Self::RopeNotLinear { .. } => "MODEL_ROPE_NOT_LINEAR",
            Self::Unsupported { .. } => "MODEL_UNSUPPORTED",
            Self::Quantized { .. } => "MODEL_QUANTIZED",
            Self::WorldSize { .. } => "MODEL_WORLD_SIZE",
            Self::UnknownPreset { .. } => "MODEL_UNKNOWN_PRESET",
            Self::NoWeights { .. } => "MODEL_NO_WEIGHTS",
            Self::WeightsInvalid { .. } => "MODEL_WEIGHTS_INVALID",
            Self::ShardMissing { .. } => "MODEL_SHARD_MISSING",
            Self::Gguf { .. } => "MODEL_GGUF",
            Self::TensorMissing { .. } => "MODEL_TENSOR_MISSING",
            Self::TensorShape { .. } => "MODEL_TENSOR_SHAPE",
            Self::TensorUnused { .. } => "MODEL_TENSOR_UNUSED",
            Self::TensorNotFinite { .. } => "MODEL_TENSOR_NOT_FINITE",
            Self::TensorType { .. } => "MODEL_TENSOR_TYPE",
            Self::BatchInvalid(_) => "MODEL_BATCH_INVALID",
            Self::GivenUp => "MODEL_PASS_GIVEN_UP",
            Self::MemberMismatch { .. } => "MODEL_MEMBER_MISMATCH",
            Self::LogitsInvalid { .. } => "MODEL_LOGITS_INVALID",
            Self::SamplingInvalid(_) => "MODEL_SAMPLING_INVALID",
            #[cfg(feature = "cuda")]
            Self::Gpu(error) => error.code(),
            Self::Kv(error) => error.code(),
            Self::Comm(error) => error.code(),
        }
    }
}
