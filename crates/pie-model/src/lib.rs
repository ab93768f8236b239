//! The Llama family from a Hugging Face folder or a GGUF file: a rank's slice of the weights, one ragged forward pass, sampling.
//!
//! **Owns** the configuration and its refusals ([`Config`]), who computes what ([`Shard`]), the weights ([`Model`]), the
//! pass over a [`Batch`] of rows ([`Model::forward`]), and drawing tokens ([`sample`]).
//!
//! **Invariants.** M1: a row sees slots up to its own index only; a batch that says otherwise is refused. C1: a pass makes
//! the same sequence of collectives on every rank: it depends on the batch and the configuration alone. P3: equal
//! logits, parameters and step give the same token on every rank.
//!
//! **Must not know** plans, sessions, text.

pub mod architecture;
mod batch;
mod checkpoint;
mod compute;
mod config;
#[cfg(feature = "cuda")]
pub mod cuda;
mod error;
mod folder;
mod forward;
mod layers;
mod logits;
mod matrix;
mod model;
mod preset;
mod product;
mod raw;
mod rotation;
mod sampling;
pub mod seeded;
mod shard;
mod tensors;

pub use architecture::Architecture;
pub use batch::{Batch, Interrupt, Sequence};
pub use compute::{Compute, Draw, KvRows, OnCpu};
pub use config::Config;
pub use error::ModelError;
pub use folder::weight_bytes;
pub use logits::Logits;
pub use model::Model;
pub use sampling::{Sampled, sample};
pub use shard::Shard;
