//! The way to the pool, shared by all documents: connected when somebody needs it, and people are told when it comes and goes.

use async_lsp::ClientSocket;
use lsp_types::{LogMessageParams, MessageType, notification::LogMessage};
use pie_client::{Access, ClientError, Pool};
use pie_proto::Reason;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::timeout;

/// A pool that is there connects, and describes itself, in this time.
const ANSWER: Duration = Duration::from_millis(1500);

/// Where the pool is, and who calls.
#[derive(Clone, Debug)]
pub struct PoolAddress {
    /// Its address; `None` while it starts. Another one when it has been started anew.
    pub url: watch::Receiver<Option<String>>,
    /// TLS and the token.
    pub access: Access,
    /// In whose name calls are made, where the pool asks for no tokens.
    pub tenant: Option<String>,
}

/// A connection, and what the pool says of itself.
#[derive(Clone)]
pub struct PoolConnection {
    url: String,
    /// The connection.
    pub pool: Pool,
    /// Tokens of a document at the most; `None` if the pool does not say.
    pub context: Option<usize>,
    has_no_markers: Arc<AtomicBool>,
}

impl PoolConnection {
    /// Whether the model has markers for filling in the middle, as far as is known.
    pub fn fills_in(&self) -> bool {
        !self.has_no_markers.load(Ordering::Relaxed)
    }

    /// The pool refused to fill in the middle: its model cannot.
    pub fn does_not_fill_in(&self) {
        self.has_no_markers.store(true, Ordering::Relaxed);
    }
}

/// Why a document is not completed now.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The pool that was to be started does not serve yet.
    #[error("the pool is starting")]
    Starting,
    /// Nobody answers, or not in time.
    #[error("the pool does not answer ({0} took too long)")]
    Silent(&'static str),
    /// The pool refuses, or the connection broke.
    #[error(transparent)]
    Client(#[from] ClientError),
}

impl LinkError {
    /// The pool's reason, if it refused.
    pub fn reason(&self) -> Option<Reason> {
        match self {
            Self::Client(error) => error.reason(),
            Self::Starting | Self::Silent(_) => None,
        }
    }

    /// The session is another one than was thought, or none: it must be opened again.
    pub fn is_gone(&self) -> bool {
        use Reason::{RevisionMismatch, SessionReplaced, SessionUnknown};
        matches!(self.reason(), Some(SessionUnknown | SessionReplaced | RevisionMismatch))
    }

    /// The model cannot see so much, or the pool has no room for it: a part of it may do.
    pub fn is_too_long(&self) -> bool {
        matches!(self.reason(), Some(Reason::DocumentTooLong | Reason::KvExhausted))
    }

    /// Nobody is there.
    pub fn is_away(&self) -> bool {
        match self {
            Self::Starting | Self::Silent(_) => true,
            Self::Client(error @ ClientError::Refused(_)) => error.reason().is_none() && error.passes(),
            Self::Client(error) => matches!(error, ClientError::Connect { .. } | ClientError::CutOff),
        }
    }

    /// What tells this trouble from another one.
    fn kind(&self) -> &'static str {
        match self {
            _ if self.is_away() => "away",
            Self::Client(error) => error.code(),
            Self::Starting | Self::Silent(_) => "away",
        }
    }
}

/// The way to the pool. Clones share it.
#[derive(Clone)]
pub struct PoolLink(Arc<Shared>);

struct Shared {
    address: PoolAddress,
    client: ClientSocket,
    connected: Mutex<Option<PoolConnection>>,
    /// What the editor has been told of the pool: nothing yet, that it serves, or a kind of trouble.
    told: Mutex<Option<&'static str>>,
}

const SERVES: &str = "serves";

impl PoolLink {
    /// Nobody has been called yet.
    pub fn new(address: PoolAddress, client: ClientSocket) -> Self {
        Self(Arc::new(Shared { address, client, connected: Mutex::default(), told: Mutex::default() }))
    }

    /// The connection, made if there is none.
    ///
    /// # Errors
    /// Nobody answers, or the pool refuses.
    pub async fn connect(&self) -> Result<PoolConnection, LinkError> {
        let url = self.0.address.url.borrow().clone().ok_or(LinkError::Starting)?;
        if let Some(connected) = self.connected().filter(|connected| connected.url == url) {
            return Ok(connected);
        }
        let PoolAddress { access, tenant, .. } = &self.0.address;
        let pool = timeout(ANSWER, Pool::connect_with(&url, access));
        let pool = pool.await.map_err(|_| LinkError::Silent("connecting"))??;
        let pool = match tenant {
            Some(tenant) => pool.as_tenant(tenant)?,
            None => pool,
        };
        let described = timeout(ANSWER, pool.describe());
        let described = described.await.map_err(|_| LinkError::Silent("describing itself"))??;
        let context = usize::try_from(described.context_limit).ok().filter(|limit| *limit > 0);
        let connected = PoolConnection { url, pool, context, has_no_markers: Arc::default() };
        *self.0.connected.lock().unwrap_or_else(PoisonError::into_inner) = Some(connected.clone());
        Ok(connected)
    }

    fn connected(&self) -> Option<PoolConnection> {
        self.0.connected.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The pool did what it was asked to.
    pub fn serves(&self) {
        let url = self.0.address.url.borrow().clone().unwrap_or_default();
        self.tell(SERVES, MessageType::INFO, || format!("pie: the pool at {url} serves"));
    }

    /// It did not. A pool that is away is connected anew, since it may come back as another one.
    pub fn fails(&self, error: &LinkError) {
        if error.is_away() {
            *self.0.connected.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
        self.tell(error.kind(), MessageType::WARNING, || format!("pie: no completions for now: {error}"));
    }

    /// Tells the editor what is new, once.
    fn tell(&self, kind: &'static str, typ: MessageType, message: impl FnOnce() -> String) {
        let before = self.0.told.lock().unwrap_or_else(PoisonError::into_inner).replace(kind);
        if before == Some(kind) {
            return;
        }
        let message = message();
        tracing::info!("{message}");
        // The editor may be gone: there is nobody to tell.
        let _ = self.0.client.notify::<LogMessage>(LogMessageParams { typ, message });
    }
}
