//! Certificates, keys and tokens: read from the files that flags name, checked at the start, and read again when they change.
//! What they are used for is below, in `pie-transport` and `pie_router::auth`.

pub mod args;
mod files;
pub mod token;

use crate::Failure;
use crate::cli::{HttpArg, ServeArgs};
use crate::observe::{Security, What};
use args::{ClientArgs, InternalArgs, PublicArgs};
use files::{FlagFile, WatchedFiles, all_or_none};
use pie_client::{Access, BearerToken};
use pie_router::auth::{AccessTokens, Gate};
use pie_transport::{
    Acceptor, ClientTls, Clients, ConnectionAge, Connector, PeerName, RootCertificates, ServerTls,
    TlsIdentity,
};
use std::net::SocketAddr;

/// Names that certificates of the internal plane carry, whatever the addresses.
const ROUTER: &str = "pie-router";
const WORKER: &str = "pie-worker";
/// Connections of a rank's control port: its owner's, the next owner's, probes.
const WORKER_CONNECTIONS: usize = 64;
/// Connections of a router's internal port: one of each other router, and some to spare.
const ROUTER_CONNECTIONS: usize = 1024;

/// A router's ports, and its way to the ranks.
pub struct Ports {
    /// Of the public API.
    pub public: Acceptor,
    /// Who may call it.
    pub gate: Option<Gate>,
    /// Of the internal API.
    pub internal: Acceptor,
    /// How the router calls its ranks.
    pub ranks: Connector,
    /// How the router calls other routers.
    pub routers: Connector,
}

impl Ports {
    /// Reads what the flags name. Without `internal` the ranks are reached in plaintext.
    pub fn of(
        serve: &ServeArgs,
        internal: Option<&InternalArgs>,
        security: &Security,
    ) -> Result<Self, Failure> {
        let PublicArgs { tokens, connections, connection_age, connection_grace, .. } = &serve.public;
        let tls = public_tls(&serve.public, security)?;
        let mut ports = vec![("--listen", serve.listen)];
        if let Some(HttpArg::At(listen)) = serve.http {
            ports.push(("--http", listen));
        }
        for (flag, listen) in ports {
            check_in_clear(flag, listen, &serve.public, tls.as_ref())?;
        }
        let gate = match tokens {
            Some(path) => Some(gate(FlagFile::new("--tokens", path), security)?),
            None => None,
        };
        let internal = internal.map(|internal| internal_tls(internal, security)).transpose()?.flatten();
        if internal.is_none() {
            warn_of_the_internal_plane("--peer-listen", serve.peer_listen);
        }
        let to = |name| -> Result<Connector, Failure> {
            Ok(match &internal {
                Some((_, client)) => Connector::tls_to(client.clone(), PeerName::new(name)?),
                None => Connector::plain(),
            })
        };
        let (ranks, routers) = (to(WORKER)?, to(ROUTER)?);
        let internal = Acceptor::new(internal.map(|(server, _)| server), ROUTER_CONNECTIONS);
        security.watch_port("internal", internal.stats().clone());
        let age = connection_age.map(|limit| ConnectionAge { limit, grace: *connection_grace });
        let public = Acceptor::new(tls, *connections).aging(age);
        security.watch_port("public", public.stats().clone());
        Ok(Self { public, gate, internal, ranks, routers })
    }
}

/// Whoever reaches a port in plaintext from elsewhere sees what passes: tokens must not, and all else is warned of.
fn check_in_clear(
    flag: &str,
    listen: SocketAddr,
    public: &PublicArgs,
    tls: Option<&ServerTls>,
) -> Result<(), Failure> {
    if tls.is_some() || listen.ip().is_loopback() {
        return Ok(());
    }
    match &public.tokens {
        Some(_) if public.insecure_tokens => {}
        Some(tokens) => {
            let tokens = tokens.display();
            return Err(format!(
                "--tokens {tokens}: tokens would travel in clear to {listen} ({flag}): give --tls-cert and --tls-key, or, where TLS \
                 ends in front of this router, --insecure-tokens"
            )
            .into());
        }
        None => tracing::warn!(
            "{flag} {listen} takes calls in plaintext from everybody who reaches it, without asking who calls: give --tokens and \
             --tls-cert with --tls-key, or listen on 127.0.0.1 (docs/security.md)"
        ),
    }
    Ok(())
}

/// A rank's control port: with an identity it takes routers only.
pub fn worker(internal: &InternalArgs, listen: SocketAddr, security: &Security) -> Result<Acceptor, Failure> {
    let tls = internal_tls(internal, security)?.map(|(server, _)| server);
    if tls.is_none() {
        warn_of_the_internal_plane("--listen", listen);
    }
    let acceptor = Acceptor::new(tls, WORKER_CONNECTIONS);
    security.watch_port("internal", acceptor.stats().clone());
    Ok(acceptor)
}

/// Whoever reaches the internal plane in plaintext can do what routers do.
fn warn_of_the_internal_plane(flag: &str, listen: SocketAddr) {
    if !listen.ip().is_loopback() {
        tracing::warn!(
            "{flag} {listen} takes internal calls in plaintext from everybody who reaches it: give --internal-cert, --internal-key and \
             --internal-ca, or let nobody but this pool reach it (docs/security.md)"
        );
    }
}

/// The two files of an identity.
#[derive(Clone)]
struct IdentityFiles {
    certificate: FlagFile,
    key: FlagFile,
}

impl IdentityFiles {
    fn read(&self) -> Result<TlsIdentity, Failure> {
        let Self { certificate, key } = self;
        let identity = TlsIdentity::from_pem(&certificate.read()?, &key.read()?);
        Ok(identity.map_err(|error| format!("{certificate} with {key}: {error}"))?)
    }
}

fn roots(file: &FlagFile) -> Result<RootCertificates, Failure> {
    Ok(RootCertificates::from_pem(&file.read()?).map_err(|error| format!("{file}: {error}"))?)
}

fn public_tls(arguments: &PublicArgs, security: &Security) -> Result<Option<ServerTls>, Failure> {
    let PublicArgs { tls_cert, tls_key, tls_client_ca, .. } = arguments;
    let authority = tls_client_ca.as_ref().map(|path| FlagFile::new("--tls-client-ca", path));
    let Some([certificate, key]) = all_or_none([("--tls-cert", tls_cert), ("--tls-key", tls_key)])? else {
        return match authority {
            Some(authority) => {
                Err(format!("{authority}: client certificates need --tls-cert and --tls-key too").into())
            }
            None => Ok(None),
        };
    };
    let followed = WatchedFiles::new([&certificate, &key].into_iter().chain(&authority));
    let pair = IdentityFiles { certificate, key };
    let read = move || -> Result<(TlsIdentity, Clients), Failure> {
        let clients = match &authority {
            Some(authority) => Clients::SignedBy(roots(authority)?),
            None => Clients::Anyone,
        };
        Ok((pair.read()?, clients))
    };
    let (identity, clients) = read()?;
    let tls = ServerTls::new(&identity, &clients)?;
    let renewed = tls.clone();
    followed.follow(What::Certificates, security, move || {
        let (identity, clients) = read()?;
        Ok(renewed.renew(&identity, &clients)?)
    });
    Ok(Some(tls))
}

/// Both sides of the internal plane: a server that takes routers only, and a client.
fn internal_tls(
    arguments: &InternalArgs,
    security: &Security,
) -> Result<Option<(ServerTls, ClientTls)>, Failure> {
    let InternalArgs { internal_cert, internal_key, internal_ca } = arguments;
    let files = [
        ("--internal-cert", internal_cert),
        ("--internal-key", internal_key),
        ("--internal-ca", internal_ca),
    ];
    let Some([certificate, key, authority]) = all_or_none(files)? else { return Ok(None) };
    let followed = WatchedFiles::new([&certificate, &key, &authority]);
    let pair = IdentityFiles { certificate, key };
    let read = move || -> Result<(TlsIdentity, RootCertificates), Failure> {
        Ok((pair.read()?, roots(&authority)?))
    };
    let (identity, trusted) = read()?;
    let router = PeerName::new(ROUTER)?;
    let server = ServerTls::new(&identity, &Clients::Named(trusted.clone(), router.clone()))?;
    let client = ClientTls::new(&trusted, Some(&identity))?;
    let renewed = (server.clone(), client.clone());
    followed.follow(What::Certificates, security, move || {
        let (identity, trusted) = read()?;
        let (server, client) = &renewed;
        server.renew(&identity, &Clients::Named(trusted.clone(), router.clone()))?;
        Ok(client.renew(&trusted, Some(&identity))?)
    });
    Ok(Some((server, client)))
}

fn gate(file: FlagFile, security: &Security) -> Result<Gate, Failure> {
    let followed = WatchedFiles::new([&file]);
    let read = move || -> Result<AccessTokens, Failure> {
        let text = String::from_utf8(file.read()?).map_err(|_| format!("{file}: it is not UTF-8"))?;
        Ok(AccessTokens::parse(&text).map_err(|error| format!("{file}: {error}"))?)
    };
    let gate = Gate::new(read()?);
    let renewed = gate.clone();
    followed.follow(What::Tokens, security, move || {
        renewed.replace(read()?);
        Ok(())
    });
    Ok(gate)
}

/// Of the public API, where an address names none.
const PORT: u16 = 7400;

impl ClientArgs {
    /// The addresses of a pool as people write them, with what they leave out.
    pub fn url(&self, given: &str) -> String {
        let scheme = if self.ca.is_some() || self.client_cert.is_some() { "https" } else { "http" };
        let whole = |url: &str| {
            if url.contains("://") || url.is_empty() {
                return url.to_owned();
            }
            // The last colon of an IPv6 address in brackets is inside of them.
            let has_port = url.rsplit_once(':').is_some_and(|(_, port)| !port.contains(']'));
            let port = if has_port { String::new() } else { format!(":{PORT}") };
            format!("{scheme}://{url}{port}")
        };
        given.split(',').map(|url| whole(url.trim())).collect::<Vec<_>>().join(",")
    }

    /// Reads what the flags name, once.
    pub fn open(&self) -> Result<Access, Failure> {
        let token = match &self.token_file {
            Some(path) => {
                let file = FlagFile::new("--token-file", path);
                let text = String::from_utf8_lossy(&file.read()?).trim().to_owned();
                Some(BearerToken::new(&text).map_err(|error| format!("{file}: {error}"))?)
            }
            None => None,
        };
        let pair = all_or_none([("--client-cert", &self.client_cert), ("--client-key", &self.client_key)])?;
        let identity =
            pair.map(|[certificate, key]| IdentityFiles { certificate, key }.read()).transpose()?;
        let connector = match &self.ca {
            Some(path) => {
                let roots = roots(&FlagFile::new("--ca", path))?;
                Connector::tls(ClientTls::new(&roots, identity.as_ref())?)
            }
            None if identity.is_some() => {
                return Err(
                    "--client-cert needs --ca too: the authority of the pool's own certificate".into()
                );
            }
            None => Connector::plain(),
        };
        Ok(Access { connector, token })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_whole_whatever_people_leave_out() {
        let plain = ClientArgs { token_file: None, ca: None, client_cert: None, client_key: None };
        let tls = ClientArgs { ca: Some("ca.pem".into()), ..plain.clone() };
        let cases = [
            (&plain, "localhost:7520", "http://localhost:7520"),
            (&plain, "localhost", "http://localhost:7400"),
            (&plain, "[::1]", "http://[::1]:7400"),
            (&plain, "[::1]:1", "http://[::1]:1"),
            (&plain, "https://a", "https://a"),
            (&plain, "a:1, http://b:2", "http://a:1,http://b:2"),
            (&plain, "", ""),
            (&tls, "a:1,b", "https://a:1,https://b:7400"),
            (&tls, "http://a:1", "http://a:1"),
        ];
        for (access, given, whole) in cases {
            assert_eq!(access.url(given), whole, "{given}");
        }
    }
}
