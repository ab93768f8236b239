//! A group: the ranks that hold a model together, the documents that live with them, and the one task that drives both.
//!
//! **Owns** the documents of a group's sessions, the owner's replica of the group's tables ([`core::Core`], which does no
//! input or output), the task that takes calls and sends plans ([`owner`]), and what of it other routers hear ([`peers`]).
//!
//! **Invariant.** One task is the only writer of a group: it takes every call as an [`owner::Event`], changes a
//! document whole or not at all (R1, R2), and puts what follows into the next plan. A failed call has changed nothing.
//!
//! **Must not know** who may call, by which service and connection, nor in which group a session lives: that is the
//! router's. Models and CUDA neither: ranks are behind `pie.worker.v1`.

pub mod call;
pub mod carrying;
pub mod core;
pub mod desk;
pub mod faults;
pub mod life;
pub mod messages;
pub mod owner;
pub mod peers;
pub mod ranks;
pub mod spans;
pub mod stats;
pub mod tenants;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod tokenizing;

pub use owner::{GroupState, Watched};
