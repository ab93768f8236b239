//! Who a process is, whom it trusts, and what its clients must be.

use crate::error::IdentityError;
use crate::named::Named;
use arc_swap::ArcSwap;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, InvalidDnsNameError, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{RootCertStore, ServerConfig};
use std::sync::Arc;

/// What gRPC speaks.
pub(crate) const ALPN: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

/// What clients of a port speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocols {
    /// HTTP/2 alone.
    Grpc,
    /// HTTP/1.1 too.
    Http,
}

pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// A certificate chain and the key that belongs to it.
#[derive(Clone, Debug)]
pub struct TlsIdentity(Arc<CertifiedKey>);

impl TlsIdentity {
    /// Reads a chain (the process's own certificate first) and its key.
    ///
    /// # Errors
    /// [`IdentityError`]; [`IdentityError::Mismatch`] if the two do not belong together.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, IdentityError> {
        let chain = certificates(chain)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| match error {
            PemError::NoItemsFound => IdentityError::NoKey,
            error => IdentityError::Pem(error),
        })?;
        let certified = CertifiedKey::from_der(chain, key, &provider()).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => IdentityError::Mismatch,
            rustls::Error::InvalidCertificate(_) => IdentityError::BadCertificate(error),
            error => IdentityError::BadKey(error),
        })?;
        Ok(Self(Arc::new(certified)))
    }

    pub(crate) fn resolver(&self) -> Arc<SingleCertAndKey> {
        Arc::new(SingleCertAndKey::from(CertifiedKey::clone(&self.0)))
    }
}

/// Authorities whose certificates are trusted.
#[derive(Clone, Debug)]
pub struct RootCertificates(Arc<RootCertStore>);

impl RootCertificates {
    /// Reads certificates of authorities.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub fn from_pem(text: &[u8]) -> Result<Self, IdentityError> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(text)? {
            roots.add(certificate).map_err(IdentityError::BadCertificate)?;
        }
        Ok(Self(Arc::new(roots)))
    }

    pub(crate) fn store(&self) -> Arc<RootCertStore> {
        self.0.clone()
    }
}

fn certificates(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    let found = found.map_err(IdentityError::Pem)?;
    if found.is_empty() { Err(IdentityError::NoCertificate) } else { Ok(found) }
}

/// A DNS name that a peer's certificate must carry, wherever the peer is: pods have addresses that no certificate names.
#[derive(Clone, Debug)]
pub struct PeerName(pub(crate) ServerName<'static>);

impl PeerName {
    /// A DNS name.
    ///
    /// # Errors
    /// It is none.
    pub fn new(name: &'static str) -> Result<Self, InvalidDnsNameError> {
        Ok(Self(ServerName::try_from(name)?))
    }
}

/// What a client must show.
#[derive(Clone, Debug)]
pub enum Clients {
    /// Nothing: who calls is told otherwise, or not at all.
    Anyone,
    /// A certificate of one of these authorities.
    SignedBy(RootCertificates),
    /// The same, with this name.
    Named(RootCertificates, PeerName),
}

/// The server's side of TLS. Clones share it, and [`ServerTls::renew`] holds for all.
#[derive(Clone, Debug)]
pub struct ServerTls(Arc<ArcSwap<ServerConfig>>);

impl ServerTls {
    /// Serves as `identity`.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub fn new(identity: &TlsIdentity, clients: &Clients) -> Result<Self, IdentityError> {
        Ok(Self(Arc::new(ArcSwap::from_pointee(config(identity, clients)?))))
    }

    /// From the next connection on, serves as this. Nothing is resumed from before, so an authority that is gone is gone.
    ///
    /// # Errors
    /// [`IdentityError`]; the old identity stays.
    pub fn renew(&self, identity: &TlsIdentity, clients: &Clients) -> Result<(), IdentityError> {
        self.0.store(Arc::new(config(identity, clients)?));
        Ok(())
    }

    /// What a handshake goes by now, on a port of these protocols.
    pub(crate) fn current(&self, protocols: Protocols) -> Arc<ServerConfig> {
        let config = self.0.load_full();
        match protocols {
            Protocols::Grpc => config,
            Protocols::Http => {
                let mut config = ServerConfig::clone(&config);
                config.alpn_protocols.push(HTTP1.to_vec());
                Arc::new(config)
            }
        }
    }
}

fn config(identity: &TlsIdentity, clients: &Clients) -> Result<ServerConfig, IdentityError> {
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(IdentityError::Tls)?;
    let builder = match clients {
        Clients::Anyone => builder.with_no_client_auth(),
        Clients::SignedBy(roots) => builder.with_client_cert_verifier(signed_by(roots)?),
        Clients::Named(roots, name) => {
            builder.with_client_cert_verifier(Arc::new(Named::new(signed_by(roots)?, name.clone())))
        }
    };
    let mut config = builder.with_cert_resolver(identity.resolver());
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(config)
}

fn signed_by(roots: &RootCertificates) -> Result<Arc<dyn ClientCertVerifier>, IdentityError> {
    WebPkiClientVerifier::builder_with_provider(roots.store(), provider())
        .build()
        .map_err(IdentityError::Verifier)
}
