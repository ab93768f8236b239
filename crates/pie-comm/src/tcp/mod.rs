//! Groups over TCP: a rank is a process, every pair of ranks has a connection.

mod failure;
mod form;
mod group;
mod links;
mod wire;

pub use form::{TcpListening, TcpMesh};
pub use group::TcpGroup;

use std::time::Duration;

/// The deadlines of a group (C2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// For each collective, from the moment that this rank calls it.
    pub deadline: Duration,
    /// For all ranks to have connected.
    pub form_deadline: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self { deadline: Duration::from_secs(10), form_deadline: Duration::from_secs(15) }
    }
}
