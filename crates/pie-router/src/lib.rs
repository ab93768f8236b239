//! The router: who may call, where a session lives, and the public API.
//!
//! **Owns** the gRPC services, public and internal ([`server`]), callers and their rights ([`auth`]), and the directory of groups
//! and sessions, whichever router owns them; sessions are opened, forwarded, moved and resumed here.
//!
//! **Invariant.** A call reaches the one owner of its session's group, here or elsewhere, or is refused with a reason that says
//! what to do; whoever makes it need not know which it was.
//!
//! **Must not know** what a group does with a call (that is `pie-group`'s), models, CUDA.

mod admin;
mod aside;
pub mod auth;
pub mod calls;
mod closing;
mod directory;
mod elsewhere;
mod faults;
mod group;
mod local;
mod moving;
mod packing;
mod peer;
mod reasoned;
pub mod server;
mod service;

pub use local::{InProcessApi, LocalService};
pub use server::{InternalApi, Phase, PublicApi, Readiness, RunningRouter, ServeError, ServeOptions, serve};
