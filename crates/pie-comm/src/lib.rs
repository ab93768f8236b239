//! Collectives between the ranks of a tensor-parallel group.
//!
//! **Owns** what a rank knows of its group ([`Member`]), the sums and gathers between ranks ([`Collective`]), and how
//! they travel: nowhere ([`Solo`]), between threads ([`ThreadGroup`]), or over TCP between processes ([`TcpMesh`]).
//!
//! **Invariants.** C1: all ranks make the same sequence of calls; a rank that is out of step is an error that names both
//! sides, never garbage. C2: every call has a deadline, and a dead or silent rank is named on all others. C3: ranks are
//! summed in rank order, so the result is the same bits on every rank, in every run, over every transport. A group that
//! failed stays failed: form a new one, with a greater epoch.
//!
//! **Must not know** models, plans, or who decides on epochs.

mod collective;
mod error;
mod member;
#[cfg(feature = "cuda")]
mod nccl;
mod tcp;
mod thread;

pub use collective::{Collective, Solo};
pub use error::{CollectiveCall, CommError, Loss, Operation, Refusal};
pub use member::{Member, Rank, WorldSize};
#[cfg(feature = "cuda")]
pub use nccl::{DeviceCollective, NcclGroup};
pub use tcp::{Deadlines, TcpGroup, TcpListening, TcpMesh};
pub use thread::{ThreadGroup, ThreadMember};
