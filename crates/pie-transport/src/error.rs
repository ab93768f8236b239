//! What can be wrong with an identity, and with a connection.

use std::error::Error;

/// Why PEM text gives no identity or no roots. Whoever read it knows the file.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Text that is not PEM.
    #[error("it is not PEM: {0}")]
    Pem(rustls::pki_types::pem::Error),
    /// PEM without a certificate.
    #[error("there is no certificate (a block `BEGIN CERTIFICATE`)")]
    NoCertificate,
    /// PEM without a key, or with an encrypted one.
    #[error("there is no private key (a block `BEGIN PRIVATE KEY`, not encrypted)")]
    NoKey,
    /// A certificate that cannot be used.
    #[error("a certificate cannot be used: {0}")]
    BadCertificate(rustls::Error),
    /// A key that cannot be used.
    #[error("the key cannot be used: {0}")]
    BadKey(rustls::Error),
    /// Two halves of different identities.
    #[error("the key does not belong to the certificate")]
    Mismatch,
    /// A client verifier that cannot be built of the roots.
    #[error("clients cannot be checked with it: {0}")]
    Verifier(rustls::server::VerifierBuilderError),
    /// A protocol version that the library was built without.
    #[error("TLS is not to be had: {0}")]
    Tls(rustls::Error),
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The address says TLS, and there is none.
    #[error("{0} asks for TLS, and nothing says whom to trust: {1}")]
    NoTls(String, &'static str),
    /// The address says plaintext where TLS is demanded.
    #[error("{0} is plaintext, and this side demands TLS: use https://")]
    Plain(String),
    /// An address without a host.
    #[error("{0} names no host")]
    NoHost(String),
    /// Nobody listens, or it cannot be reached.
    #[error("{0}")]
    Unreachable(std::io::Error),
    /// The handshake failed.
    #[error("TLS: {0}")]
    Handshake(std::io::Error),
    /// All else, with its causes.
    #[error("{0}")]
    Other(String),
}

/// An error in one line, with its causes: tonic hides the one that matters behind two others.
pub fn causes(error: &(dyn Error + 'static)) -> String {
    let mut told = vec![error.to_string()];
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        if !told.iter().any(|known| known.contains(&text)) {
            told.push(text);
        }
        next = cause.source();
    }
    // `transport error` says nothing once there is a cause.
    let first = usize::from(told.len() > 1 && told[0] == "transport error");
    told[first..].join(": ")
}
