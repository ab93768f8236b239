//! The flags of what keeps strangers out.

use clap::Args;
use std::path::PathBuf;
use std::time::Duration;

/// Of the public port.
#[derive(Clone, Debug, Args)]
pub struct PublicArgs {
    /// TLS on the public port: its certificate chain, PEM. Files are read again when they change.
    #[arg(long, env = "PIE_TLS_CERT", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// The certificate's key, PEM.
    #[arg(long, env = "PIE_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// Take only clients with a certificate of these authorities, PEM.
    #[arg(long, env = "PIE_TLS_CLIENT_CA", value_name = "FILE")]
    pub tls_client_ca: Option<PathBuf>,
    /// Ask every call for a bearer token of this file, TOML; `pie token` makes entries. It is read again when it changes.
    #[arg(long, env = "PIE_TOKENS", value_name = "FILE")]
    pub tokens: Option<PathBuf>,
    /// Take tokens in plaintext from other machines: where TLS ends in front of this router.
    #[arg(long, env = "PIE_INSECURE_TOKENS")]
    pub insecure_tokens: bool,
    /// Connections of the public port; more are turned away.
    #[arg(long, env = "PIE_CONNECTIONS", default_value_t = 4096, value_name = "N", value_parser = crate::units::some)]
    pub connections: usize,
    /// Connections of the public port get no older than this: then clients are told to connect anew, so that they spread over the
    /// routers that there are. Without it they get as old as they like.
    #[arg(long, env = "PIE_CONNECTION_AGE", value_name = "TIME", value_parser = crate::units::some_time)]
    pub connection_age: Option<Duration>,
    /// Calls of a connection that is too old may end in this time.
    #[arg(long, env = "PIE_CONNECTION_GRACE", default_value = "5m", value_name = "TIME", value_parser = crate::units::duration)]
    pub connection_grace: Duration,
}

impl PublicArgs {
    /// Plaintext for everybody.
    pub fn none() -> Self {
        Self {
            tls_cert: None,
            tls_key: None,
            tls_client_ca: None,
            tokens: None,
            insecure_tokens: false,
            connections: 4096,
            connection_age: None,
            connection_grace: Duration::from_secs(300),
        }
    }
}

/// Between routers and workers: all three or none.
#[derive(Clone, Debug, Args)]
pub struct InternalArgs {
    /// TLS between routers and workers: this process's certificate chain, PEM, with the DNS name `pie-router` or
    /// `pie-worker`. Files are read again when they change.
    #[arg(long, env = "PIE_INTERNAL_CERT", value_name = "FILE")]
    pub internal_cert: Option<PathBuf>,
    /// The certificate's key, PEM.
    #[arg(long, env = "PIE_INTERNAL_KEY", value_name = "FILE")]
    pub internal_key: Option<PathBuf>,
    /// The authorities that the others' certificates are of, PEM.
    #[arg(long, env = "PIE_INTERNAL_CA", value_name = "FILE")]
    pub internal_ca: Option<PathBuf>,
}

/// Of commands that call a pool.
#[derive(Clone, Debug, Args)]
pub struct ClientArgs {
    /// File with the bearer token to send.
    #[arg(long, env = "PIE_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Authorities that the pool's certificate is of, PEM, for https:// addresses.
    #[arg(long, env = "PIE_CA", value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Certificate to show to the pool, PEM.
    #[arg(long, env = "PIE_CLIENT_CERT", value_name = "FILE")]
    pub client_cert: Option<PathBuf>,
    /// Its key, PEM.
    #[arg(long, env = "PIE_CLIENT_KEY", value_name = "FILE")]
    pub client_key: Option<PathBuf>,
}

/// `pie token`
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "The token is shown once, on the first line; what follows is its entry for the tokens file."
)]
pub struct TokenArgs {
    /// Whose sessions it opens.
    #[arg(long, value_name = "NAME")]
    pub tenant: String,
    /// It may run the pool too: drain, cordon.
    #[arg(long)]
    pub admin: bool,
    /// Until when it is valid: a time from now (30d, 12h) or a moment in UTC (2027-01-01T00:00:00Z).
    #[arg(long, value_name = "TIME")]
    pub expires: Option<String>,
}
