//! The wire: generated types of `pie.v1` (public), `pie.worker.v1` and `pie.peer.v1` (internal), the only checked conversions from
//! them, and the reasons that errors carry.
//!
//! **Invariant.** What leaves this crate has been checked: a request that converts names exactly one thing to do, and
//! every refusal carries a [`Reason`] with a stable code, what was wrong, and what to do.
//!
//! **Must not know** behaviour: sessions, models, documents.

pub mod carried;
pub mod held;
pub mod memo;
pub mod plan;
pub mod reason;
pub mod request;
pub mod trace;

pub use reason::{Fault, Reason};

/// Generated of the proto files, and committed (`tests/generated.rs` checks and writes it); nested as the packages are, since they
/// name each other so.
#[allow(
    missing_docs,
    clippy::all,
    clippy::allow_attributes_without_reason,
    reason = "generated; the proto files are the documentation"
)]
mod generated {
    /// The public API, for clients.
    pub mod v1 {
        include!("../generated/pie.v1.rs");
    }
    /// Between routers.
    pub mod peer {
        /// Between routers.
        pub mod v1 {
            include!("../generated/pie.peer.v1.rs");
        }
    }
    /// Between a group's owner and its ranks.
    pub mod worker {
        /// Between a group's owner and its ranks.
        pub mod v1 {
            include!("../generated/pie.worker.v1.rs");
        }
    }
}

/// What routers say to each other, generated from `proto/pie/peer/v1/peer.proto`, which documents it.
pub use generated::peer::v1 as peer_v1;
/// The public API, generated from `proto/pie/v1`, which documents it.
pub use generated::v1;
/// The internal control, generated from `proto/pie/worker/v1/worker.proto`, which documents it.
pub use generated::worker::v1 as worker_v1;

/// The metadata in which the answer to Complete names the revision that the completion was accepted for, before its first message. Where
/// it is missing, the router does not know of `generated`.
pub const REVISION_METADATA: &str = "pie-revision";

/// The public API as a file descriptor set, for gRPC reflection.
pub const PUBLIC_DESCRIPTORS: &[u8] = include_bytes!("../generated/public.bin");
