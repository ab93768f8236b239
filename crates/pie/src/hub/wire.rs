//! Connections to a hub: straight or through a proxy, with TLS where the address asks for it.

use super::problem::{Code, Problem, RetryAdvice};
use hyper::header::HeaderValue;
use hyper::http::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::{SocksV5, Tunnel};
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use hyper_util::rt::TokioIo;
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use rustls::{ClientConfig, RootCertStore};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio_rustls::TlsConnector;
use tower_service::Service;

/// A connection is there within this time, a proxy's and TLS's part included.
const CONNECT: Duration = Duration::from_secs(30);
/// Of these the first that answers is taken, if a name has several addresses.
const ONE_ADDRESS: Duration = Duration::from_secs(10);
/// Where systems keep the certificates that all their programs trust: Debian, Alpine and distroless images; Fedora and Red Hat; SUSE;
/// macOS and the BSDs.
const BUNDLES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// Names a file of certificates that are trusted, too.
const OWN_BUNDLE: &str = "SSL_CERT_FILE";

/// A stream of bytes, whatever carries it.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for T {}

/// A connection to a host.
pub struct Wire {
    /// What is sent and comes.
    pub stream: Box<dyn ByteStream>,
    /// The proxy that requests are made to instead, by whole addresses, and what it wants to see.
    pub proxy: Option<Option<HeaderValue>>,
}

/// Makes connections, as the environment's proxies and certificates have it.
pub struct Dialer {
    proxies: Matcher,
    // Read when the first address asks for it: nobody needs certificates for a hub on this machine.
    tls: OnceCell<TlsConnector>,
}

impl Dialer {
    /// By HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY and SSL_CERT_FILE of the environment.
    pub fn of_environment() -> Self {
        Self { proxies: Matcher::from_env(), tls: OnceCell::new() }
    }

    /// A connection to an address's host.
    ///
    /// # Errors
    /// [`Code::Unreachable`], with the way that was tried.
    pub async fn dial(&self, address: &Uri) -> Result<Wire, Problem> {
        let host = host(address);
        match tokio::time::timeout(CONNECT, self.connect(address)).await {
            Ok(wire) => wire,
            Err(_) => Err(unreachable(&host, &format!("no connection within {} s", CONNECT.as_secs()))),
        }
    }

    async fn connect(&self, address: &Uri) -> Result<Wire, Problem> {
        let (secure, host) = (address.scheme_str() == Some("https"), host(address));
        let (stream, proxy) = match self.proxies.intercept(address) {
            None => (straight(address, &host).await?, None),
            Some(proxy) => through(&proxy, address, secure, &host).await?,
        };
        if !secure {
            return Ok(Wire { stream: Box::new(stream), proxy });
        }
        let tls = self.tls.get_or_try_init(|| async { tls() }).await?;
        let name = ServerName::try_from(host.clone())
            .map_err(|error| Problem::new(Code::Name, format!("{host} is no host's name: {error}")))?;
        let stream = tls.connect(name, stream).await.map_err(|error| {
            // What TLS itself objects to, a certificate mostly, stays as it is; a connection that breaks is another matter.
            let stays = error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>());
            let advice = "where a proxy has certificates of its own, name their file in SSL_CERT_FILE";
            let problem = unreachable(&host, &format!("TLS fails: {error}; {advice}"));
            if stays { Problem { again: RetryAdvice::Never, ..problem } } else { problem }
        })?;
        Ok(Wire { stream: Box::new(stream), proxy: None })
    }
}

/// The host's name without the brackets of an IPv6 address.
fn host(address: &Uri) -> String {
    address.host().unwrap_or_default().trim_matches(['[', ']']).to_owned()
}

fn unreachable(host: &str, why: &str) -> Problem {
    Problem::passing(Code::Unreachable, format!("{host} cannot be reached: {why}"))
}

fn connector() -> HttpConnector {
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(ONE_ADDRESS));
    connector
}

async fn straight(address: &Uri, host: &str) -> Result<TcpStream, Problem> {
    let stream =
        connector().call(address.clone()).await.map_err(|error| unreachable(host, &causes(&error)))?;
    Ok(stream.into_inner())
}

/// A tunnel to the host; or, for what is not secret, the proxy's own connection and what it wants to see.
async fn through(
    proxy: &Intercept,
    address: &Uri,
    secure: bool,
    host: &str,
) -> Result<(TcpStream, Option<Option<HeaderValue>>), Problem> {
    // Its user and password are no part of what is said.
    let shown = proxy
        .uri()
        .authority()
        .map_or("?", |authority| authority.as_str().rsplit('@').next().unwrap_or_default());
    let failed = |why: String| unreachable(host, &format!("by the proxy {shown}: {why}"));
    let port = address.port_u16().unwrap_or(if secure { 443 } else { 80 });
    let target: Uri =
        format!("{}://{}:{port}", if secure { "https" } else { "http" }, address.host().unwrap_or_default())
            .parse()
            .map_err(|error| failed(format!("the address is none: {error}")))?;
    match proxy.uri().scheme_str() {
        Some("http") if !secure => {
            let stream =
                connector().call(proxy.uri().clone()).await.map_err(|error| failed(causes(&error)))?;
            Ok((stream.into_inner(), Some(proxy.basic_auth().cloned())))
        }
        Some("http") => {
            let mut tunnel = Tunnel::new(proxy.uri().clone(), connector());
            if let Some(user) = proxy.basic_auth() {
                tunnel = tunnel.with_auth(user.clone());
            }
            let stream = tunnel.call(target).await.map_err(|error| failed(causes(&error)))?;
            Ok((TokioIo::into_inner(stream), None))
        }
        Some("socks5" | "socks5h") => {
            let mut socks = SocksV5::new(proxy.uri().clone(), connector());
            if let Some((user, password)) = proxy.raw_auth() {
                socks = socks.with_auth(user.to_owned(), password.to_owned());
            }
            let stream = socks.call(target).await.map_err(|error| failed(causes(&error)))?;
            Ok((TokioIo::into_inner(stream), None))
        }
        other => {
            let kind = other.unwrap_or("none");
            let what = format!(
                "the proxy {shown} is of the kind {kind}: http:// and socks5:// are known (HTTPS_PROXY, ALL_PROXY)"
            );
            Err(Problem::new(Code::Unreachable, what))
        }
    }
}

/// An error with what is behind it.
pub fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

/// Trusts what the system trusts, and the file that SSL_CERT_FILE names.
fn tls() -> Result<TlsConnector, Problem> {
    let mut roots = RootCertStore::empty();
    let own = std::env::var_os(OWN_BUNDLE).filter(|path| !path.is_empty()).map(PathBuf::from);
    if let Some(path) = &own {
        let certificates = certificates(path).map_err(|why| {
            Problem::new(Code::Unreachable, format!("{OWN_BUNDLE} names {}, which {why}", path.display()))
        })?;
        roots.add_parsable_certificates(certificates);
    }
    let systems = BUNDLES.iter().find_map(|path| certificates(Path::new(path)).ok());
    roots.add_parsable_certificates(systems.into_iter().flatten());
    if roots.is_empty() {
        let what = format!(
            "this system trusts nobody: there are no certificates in {}; install its package ca-certificates, or name a file of \
             them in {OWN_BUNDLE}",
            BUNDLES.join(", ")
        );
        return Err(Problem::new(Code::Unreachable, what));
    }
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| Problem::new(Code::Unreachable, format!("TLS cannot be set up: {error}")))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = std::fs::read(path).map_err(|error| format!("cannot be read: {error}"))?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let found = found.map_err(|error| format!("is no file of certificates: {error}"))?;
    if found.is_empty() { Err("has no certificate".to_owned()) } else { Ok(found) }
}
