//! What a GPU refuses.

use cudarc::driver::DriverError;
use cudarc::driver::sys::cudaError_enum::CUDA_ERROR_OUT_OF_MEMORY;

/// Why something cannot be done on a GPU.
#[derive(Debug, thiserror::Error)]
pub enum GpuError {
    /// A library of CUDA is not there.
    #[error(
        "{library} is not found: install NVIDIA's {package}, or name its folder in LD_LIBRARY_PATH; --device cpu does without"
    )]
    NoLibrary {
        /// Its name.
        library: &'static str,
        /// What it comes with.
        package: &'static str,
    },
    /// There is no such GPU.
    #[error(
        "there is no GPU {ordinal}: this machine has {count}, counted from 0 (CUDA_VISIBLE_DEVICES may hide some)"
    )]
    NoDevice {
        /// Which was asked for.
        ordinal: usize,
        /// How many there are.
        count: usize,
    },
    /// Memory that the GPU does not have.
    #[error(
        "{bytes} bytes for {what} are not free on the GPU ({free} are): lower --kv-memory, or use more ranks"
    )]
    OutOfMemory {
        /// What was asked for.
        bytes: u64,
        /// For what.
        what: &'static str,
        /// What is free.
        free: u64,
    },
    /// A model or a number type that the kernels are not made for.
    #[error("not on a GPU: {0}")]
    Unsupported(String),
    /// The driver, or a library on top of it.
    #[error("{action} failed: {problem}; see the rank's log, and `nvidia-smi`")]
    Failed {
        /// What was done.
        action: &'static str,
        /// What the driver says.
        problem: String,
    },
}

impl GpuError {
    /// The stable code of this error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoLibrary { .. } => "GPU_NO_LIBRARY",
            Self::NoDevice { .. } => "GPU_NO_DEVICE",
            Self::OutOfMemory { .. } => "GPU_OUT_OF_MEMORY",
            Self::Unsupported(_) => "GPU_UNSUPPORTED",
            Self::Failed { .. } => "GPU_FAILED",
        }
    }

    /// For `map_err`: the driver refused this.
    pub fn failed<E: std::fmt::Debug>(action: &'static str) -> impl Fn(E) -> Self {
        move |error| Self::Failed { action, problem: format!("{error:?}") }
    }

    /// For `map_err` of an allocation.
    pub(crate) fn allocation(bytes: usize, what: &'static str, free: u64) -> impl Fn(DriverError) -> Self {
        move |error| match error.0 {
            CUDA_ERROR_OUT_OF_MEMORY => Self::OutOfMemory { bytes: bytes as u64, what, free },
            _ => Self::failed("taking memory")(error),
        }
    }
}
