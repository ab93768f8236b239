//! The wire: generated types of `pie.v1` (public) and `pie.worker.v1` (internal), the only checked conversions from
//! them, and the reasons that errors carry.
//!
//! **Invariant.** What leaves this crate has been checked: a request that converts names exactly one thing to do, and
//! every refusal carries a [`Reason`] with a stable code, what was wrong, and what to do.
//!
//! **Must not know** behaviour: sessions, models, documents.

pub mod plan;
pub mod reason;
pub mod request;
pub mod trace;

pub use reason::{Fault, Reason};

/// The public API, generated from `proto/pie/v1/pie.proto`, which documents it.
#[allow(
    missing_docs,
    clippy::all,
    clippy::allow_attributes_without_reason,
    reason = "generated; the proto file is the documentation"
)]
pub mod v1 {
    tonic::include_proto!("pie.v1");
}

/// The internal control, generated from `proto/pie/worker/v1/worker.proto`, which documents it.
#[allow(
    missing_docs,
    clippy::all,
    clippy::allow_attributes_without_reason,
    reason = "generated; the proto file is the documentation"
)]
pub mod worker_v1 {
    tonic::include_proto!("pie.worker.v1");
}

/// Both packages as a file descriptor set, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
