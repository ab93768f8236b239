//! The Llama family on one rank of a tensor-parallel group.
//!
//! **Owns** the configuration with its refusals ([`Config`]), the rank's slice of the weights, the ragged forward pass
//! ([`Model::forward`]: prefill, splices of several places, the re-encoded last token and decode are all just rows),
//! and sampling ([`sample`]).
//!
//! **Invariants.** M1: a row sees what its sequence says, no more. C3: a group of n ranks computes what one rank would,
//! up to the last digits. P3, in part: sampling depends on logits, seed and step alone.
//!
//! **Must not know** plans, text, where rows come from.

mod config;
mod error;
mod forward;
mod linear;
mod sampling;
pub mod seeded;
mod shard;
mod weights;

pub use candle_core::Device;
pub use config::Config;
pub use error::ModelError;
pub use forward::{Batch, Model, Sequence};
pub use sampling::{Sampled, SamplingParameters, sample};
