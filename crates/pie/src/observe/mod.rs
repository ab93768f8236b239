//! What a platform sees of a process: `/metrics`, `/healthz`, `/readyz`, its log and its traces (docs/observability.md). The
//! numbers are counted elsewhere, as plain atomics; here they get names.

mod front;
mod http;
mod logs;
mod out;
mod rank;
mod router;
mod security;
mod traces;
mod voice;

use crate::Failure;
use clap::Args;
use prometheus_client::encoding::prometheus_text;
use prometheus_client::registry::Registry;
use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use tokio::net::TcpListener;

pub use logs::{LogArgs, Telling};
pub use rank::RankSource;
pub use router::RouterSource;
pub use security::{Reload, Security, What};
pub use traces::{ProcessName, TraceArgs, belong_to_starter};
pub use voice::{Tone, begin, for_people, line, tell};

/// What those who run the pool see, and how it ends when they say so.
#[derive(Clone, Debug, Args)]
pub struct PlatformArgs {
    /// Address of /metrics, /healthz and /readyz over HTTP, for those who run the pool; off if not given.
    #[arg(long, env = "PIE_METRICS_LISTEN", value_name = "HOST:PORT", value_parser = crate::units::address)]
    pub metrics_listen: Option<SocketAddr>,
    /// How long what runs may go on after SIGTERM: a router's completions, while new ones are refused; a rank's group. A second
    /// signal ends it.
    #[arg(long, env = "PIE_DRAIN_GRACE", default_value = "20s", value_name = "TIME", value_parser = crate::units::duration)]
    pub drain_grace: Duration,
    /// Where traces go.
    #[command(flatten)]
    pub traces: TraceArgs,
}

/// The endpoints of a process. Cheap to clone; whoever has one can tell what the process is about.
#[derive(Clone)]
pub struct Observe {
    shared: Arc<Observed>,
}

struct Observed {
    /// The address that is listened at; none where no port was asked for.
    address: Option<SocketAddr>,
    security: Security,
    /// What is known from the first moment on.
    build: Registry,
    /// What serves, as soon as it does.
    source: OnceLock<(Registry, Served)>,
    /// Why it is not ready, apart from what the source says.
    hold: Mutex<Option<Cow<'static, str>>>,
}

/// What a process serves.
pub enum Served {
    /// A router.
    Router(RouterSource),
    /// One rank.
    Rank(RankSource),
}

impl Served {
    fn readiness(&self) -> Result<(), String> {
        match self {
            Self::Router(router) => router.readiness.now(),
            Self::Rank(rank) => rank.readiness(),
        }
    }

    fn registry(&self) -> Registry {
        match self {
            // It has several groups, and says of each number which one's it is.
            Self::Router(router) => {
                let mut registry = Registry::default();
                registry.register_collector(Box::new(router.clone()));
                registry
            }
            Self::Rank(rank) => {
                let labels = [
                    ("group".into(), rank.group.clone().into()),
                    ("rank".into(), rank.index.to_string().into()),
                ];
                let mut registry = Registry::with_labels(labels.into_iter());
                registry.register_collector(Box::new(rank.clone()));
                registry
            }
        }
    }
}

impl Observe {
    /// Starts the endpoints, if they are wanted. The process is alive and not ready.
    ///
    /// # Errors
    /// The address cannot be had.
    pub async fn start(arguments: &PlatformArgs, starting: &'static str) -> Result<Self, Failure> {
        let listener = match arguments.metrics_listen {
            Some(listen) => Some(TcpListener::bind(listen).await.map_err(|error| {
                format!("cannot listen on {listen}: {error}; choose another address with --metrics-listen")
            })?),
            None => None,
        };
        let address = listener.as_ref().map(TcpListener::local_addr).transpose()?;
        let mut build = Registry::default();
        build.register_collector(Box::new(out::Build));
        let security = Security::default();
        build.register_collector(Box::new(security.clone()));
        let hold = Mutex::new(Some(starting.into()));
        let observe =
            Self { shared: Arc::new(Observed { address, security, build, source: OnceLock::new(), hold }) };
        if let Some(listener) = listener {
            tokio::spawn(http::serve(listener, observe.clone()));
        }
        Ok(observe)
    }

    /// Where the endpoints listen.
    pub fn address(&self) -> Option<SocketAddr> {
        self.shared.address
    }

    /// Where ports and files of secrets are counted.
    pub fn security(&self) -> &Security {
        &self.shared.security
    }

    /// From now on this serves. A process serves one thing: what comes second is not shown.
    pub fn serves(&self, source: Served) {
        let registry = source.registry();
        let _ = self.shared.source.set((registry, source));
        self.set_hold(None);
    }

    /// From now on the process is not ready, for this reason.
    pub fn ends(&self, why: &'static str) {
        self.set_hold(Some(why.into()));
    }

    fn set_hold(&self, why: Option<Cow<'static, str>>) {
        *self.shared.hold.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

    /// Whether the process serves.
    ///
    /// # Errors
    /// Why not.
    pub fn readiness(&self) -> Result<(), String> {
        let hold = self.shared.hold.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(why) = hold {
            return Err(why.into_owned());
        }
        self.shared.source.get().map_or(Ok(()), |(_, source)| source.readiness())
    }

    /// All metrics in Prometheus' text format.
    ///
    /// # Errors
    /// A number that cannot be written: a bug.
    pub fn metrics(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        prometheus_text::encode(&mut text, &self.shared.build)?;
        if let Some((registry, _)) = self.shared.source.get() {
            prometheus_text::encode(&mut text, registry)?;
        }
        Ok(text)
    }
}
