//! One rank of a tensor-parallel group: it applies plans, in order, to its slice of the KV cache and of the model.
//!
//! **Owns** the rank ([`RankExecutor`]: tables, cache, model, collectives), its engine thread ([`Engine`]) and its gRPC shell
//! ([`service`]), with the ledger of documents that it keeps for the group's next owner and does not read,
//! and rows on disk ([`spill`]).
//!
//! **Invariant.** The rank changes state through plans only (P1, P2): a plan that fails ends the epoch on this rank,
//! and what is left of it is thrown away, never half applied.
//!
//! **Must not know** tokenizers, documents, clients.

pub mod engine;
pub mod error;
mod keeper;
pub mod rank;
pub mod service;
mod span;
mod speculating;
pub mod spill;
mod stats;
mod tcp;
mod timed;

pub use engine::{Engine, FormGroup, RankFacts};
pub use error::WorkerError;
pub use pie_proto::plan::SampledToken;
pub use rank::{Observer, RankExecutor, Saved, StepReport};
pub use spill::{BlockCounts, Spill, SpillOptions};
pub use stats::RankStats;
#[cfg(feature = "cuda")]
pub use tcp::NcclPeers;
pub use tcp::TcpPeers;
