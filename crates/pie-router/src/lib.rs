//! The router: sessions with their documents, the owner of the group, and the public API.
//!
//! **Owns** the documents of all sessions, the owner's replica of the group's tables ([`core::Core`], which does no
//! input or output), the one task that drives the group ([`owner`]), and the gRPC service ([`service`]).
//!
//! **Invariant.** One task is the only writer of a group: it takes every call as an [`owner::Event`], changes a
//! document whole or not at all (R1, R2), and puts what follows into the next plan. A failed call has changed nothing.
//!
//! **Must not know** models, CUDA: ranks are behind `pie.worker.v1`.

mod admin;
mod aside;
pub mod auth;
pub mod call;
pub mod calls;
mod carrying;
mod closing;
pub mod core;
pub mod desk;
mod directory;
mod faults;
mod group;
mod life;
mod local;
mod messages;
mod moving;
pub mod owner;
mod packing;
mod peer;
mod peers;
pub mod ranks;
mod reasoned;
pub mod server;
mod service;
mod spans;
pub mod stats;
pub mod tenants;
#[cfg(test)]
mod testing;
mod tokenizing;

pub use local::{InProcessApi, LocalService};
pub use owner::{GroupState, Watched};
pub use server::{InternalApi, Phase, PublicApi, Readiness, RunningRouter, ServeError, ServeOptions, serve};
