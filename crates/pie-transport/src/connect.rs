//! Calls others: channels over TLS or in plaintext, to peers whose name is checked.

use crate::connection::Connection;
use crate::error::{ConnectError, IdentityError, causes};
use crate::identity::{ALPN, PeerName, RootCertificates, TlsIdentity, provider};
use arc_swap::ArcSwap;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::codegen::http::Uri;
use tonic::transport::{Channel, Endpoint};
use tower_service::Service;

/// The client's side of TLS. Clones share it, and [`ClientTls::renew`] holds for all.
#[derive(Clone, Debug)]
pub struct ClientTls(Arc<ArcSwap<ClientConfig>>);

impl ClientTls {
    /// Trusts `roots`, and shows `identity` to servers that ask for one.
    ///
    /// # Errors
    /// [`IdentityError::Tls`].
    pub fn new(roots: &RootCertificates, identity: Option<&TlsIdentity>) -> Result<Self, IdentityError> {
        Ok(Self(Arc::new(ArcSwap::from_pointee(config(roots, identity)?))))
    }

    /// From the next connection on, trusts and is this.
    ///
    /// # Errors
    /// [`IdentityError::Tls`]; the old one stays.
    pub fn renew(
        &self,
        roots: &RootCertificates,
        identity: Option<&TlsIdentity>,
    ) -> Result<(), IdentityError> {
        self.0.store(Arc::new(config(roots, identity)?));
        Ok(())
    }
}

fn config(roots: &RootCertificates, identity: Option<&TlsIdentity>) -> Result<ClientConfig, IdentityError> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(IdentityError::Tls)?
        .with_root_certificates(roots.store());
    let mut config = match identity {
        Some(identity) => builder.with_client_cert_resolver(identity.resolver()),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(config)
}

/// Makes connections for tonic's channels, also for those that connect again by themselves.
#[derive(Clone, Debug, Default)]
pub struct Connector(ConnectionSecurity);

#[derive(Clone, Debug, Default)]
enum ConnectionSecurity {
    #[default]
    Plain,
    Tls {
        tls: ClientTls,
        /// `None`: the host of the address.
        name: Option<PeerName>,
    },
}

impl Connector {
    /// In plaintext, to `http://` addresses.
    pub fn plain() -> Self {
        Self(ConnectionSecurity::Plain)
    }

    /// Over TLS to `https://` addresses, whose certificates must carry the address's host.
    pub fn tls(tls: ClientTls) -> Self {
        Self(ConnectionSecurity::Tls { tls, name: None })
    }

    /// The same; the certificates must carry `name`, whatever the address.
    pub fn tls_to(tls: ClientTls, name: PeerName) -> Self {
        Self(ConnectionSecurity::Tls { tls, name: Some(name) })
    }

    /// Connects a channel.
    ///
    /// # Errors
    /// [`ConnectError`], in words that name the cause.
    pub async fn connect(&self, endpoint: Endpoint) -> Result<Channel, ConnectError> {
        endpoint
            .connect_with_connector(self.clone())
            .await
            .map_err(|error| ConnectError::Other(causes(&error)))
    }

    /// A channel that connects when it is used first, and says then what stands in the way.
    pub fn lazily(&self, endpoint: Endpoint) -> Channel {
        endpoint.connect_with_connector_lazy(self.clone())
    }

    async fn reach(self, address: Uri) -> Result<Connection, ConnectError> {
        let secure = address.scheme_str() == Some("https");
        let (tls, name) = match self.0 {
            ConnectionSecurity::Plain if secure => {
                let advice =
                    "give the authority's certificate (--ca; --internal-ca between routers and workers)";
                return Err(ConnectError::NoTls(address.to_string(), advice));
            }
            ConnectionSecurity::Plain => return Ok(Connection::plain(dial(&address, 80).await?)),
            ConnectionSecurity::Tls { .. } if !secure => {
                return Err(ConnectError::Plain(address.to_string()));
            }
            ConnectionSecurity::Tls { tls, name } => (tls, name),
        };
        let name = match name {
            Some(name) => name.0,
            None => ServerName::try_from(host(&address)?.to_owned())
                .map_err(|_| ConnectError::NoHost(address.to_string()))?,
        };
        let stream = dial(&address, 443).await?;
        let connector = TlsConnector::from(tls.0.load_full());
        let stream = connector.connect(name, stream).await.map_err(ConnectError::Handshake)?;
        Ok(Connection::tls(stream))
    }
}

/// IPv6 addresses stand in brackets in a URL, and nowhere else.
fn host(address: &Uri) -> Result<&str, ConnectError> {
    let host = address.host().ok_or_else(|| ConnectError::NoHost(address.to_string()))?;
    Ok(host.trim_start_matches('[').trim_end_matches(']'))
}

async fn dial(address: &Uri, default_port: u16) -> Result<TcpStream, ConnectError> {
    let port = address.port_u16().unwrap_or(default_port);
    let stream = TcpStream::connect((host(address)?, port)).await.map_err(ConnectError::Unreachable)?;
    stream.set_nodelay(true).map_err(ConnectError::Unreachable)?;
    Ok(stream)
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Connection>;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, ConnectError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, address: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move { connector.reach(address).await.map(TokioIo::new) })
    }
}
