//! Connections: who may connect, over what, and how many.
//!
//! **Owns** TLS of both planes (rustls): an [`Acceptor`] for any listener and a [`Connector`] for any channel, both with an
//! identity that is renewed while they are used; the names that peers are checked for; the limits of a connection.
//!
//! **Must not know** files, flags, calls: it takes PEM text, and gives connections that tonic serves or calls over.

mod accept;
mod connect;
mod connection;
mod error;
mod identity;
mod limits;
mod named;

pub use accept::{AcceptStats, Acceptor, ConnectionAge, Incoming};
pub use connect::{ClientTls, Connector};
pub use connection::Connection;
pub use error::{ConnectError, IdentityError, causes};
pub use identity::{Clients, PeerName, RootCertificates, ServerTls, TlsIdentity};
pub use limits::limited;
