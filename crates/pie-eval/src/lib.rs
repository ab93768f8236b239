//! What PIE costs in quality and gains in time, for any model and any data: the paper's tables 2 to 4 and figures 1, 3
//! and 4, and what the paper leaves open: many edits one after another.
//!
//! **Owns** RepoBench-C's data ([`dataset`]), its metrics ([`metrics`]), the paper's tasks ([`task`]), the driver of one
//! rank ([`engine`]), the runs ([`evaluate`]), their results ([`results`]) and the pages made of them ([`report`]).
//!
//! **Invariant.** All methods of a case start from one state, number for number: the original context encoded as if it had
//! just been opened. A case depends on its names and the seed alone, so a run that was interrupted goes on to the same
//! results, times apart.
//!
//! **Must not know** the router, clients, the command line.

pub mod dataset;
pub mod engine;
mod error;
mod evaluate;
pub mod metrics;
pub mod names;
pub mod report;
pub mod results;
mod similarity;
pub mod task;

pub use error::EvalError;
pub use evaluate::{EvaluationOptions, GitSource, Progress, run};
