//! GGUF files, as llama.cpp writes them: the settings and the list of tensors at their beginning, and the blocks in which numbers
//! are stored.
//!
//! **Owns** the format: [`Gguf`] reads a beginning and trusts no length in it; [`Storage`] knows the size of a block, and widens
//! one ([`Storage::group`]) to the numbers that it stands for, which are those of ggml's own reference, bit for bit.
//!
//! **Must not know** models, text.

mod error;
mod header;
mod storage;

pub use error::GgufError;
pub use header::{Gguf, GgufValue, TensorInfo};
pub use storage::{BLOCK, GROUP, QuantizationScale, QuantizedGroup, Storage};
