//! Calls that end: an answer, a refusal, or, when the time is over, who was silent.

use crate::Failure;
use pie_client::{Access, ClientError, Pool};
use pie_proto::v1;
use std::path::PathBuf;
use std::time::Duration;
use tonic::{Response, Status, Streaming};

/// What is known is said in this time.
const ANSWER: Duration = Duration::from_secs(10);
/// A text travels, and is tokenized, in this time.
const TEXT: Duration = Duration::from_secs(60);
/// A document is encoded, and a token computed, in this time: large models on few cores take theirs.
const TOKENS: Duration = Duration::from_secs(300);
/// What a pool says of itself comes so much later than it may take.
const SLACK: Duration = Duration::from_secs(5);

/// Why a command fails.
#[derive(Debug, thiserror::Error)]
pub enum CtlError {
    /// The pool refuses, or is not there.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Something listens, and says nothing.
    #[error(
        "{url} did not answer within {} (asked to {asked}): something listens there and is silent. Is it a pool, and does it run? \
         `pie ctl health --wait TIME` waits for it; --timeout gives a call more time",
        humantime::format_duration(*.limit)
    )]
    Silent {
        /// The address that was called.
        url: String,
        /// How long an answer was waited for.
        limit: Duration,
        /// What was waited for: an answer, or the next token.
        asked: &'static str,
    },
    /// A file that cannot be read.
    #[error("{}: {source}", path.display())]
    File {
        /// The file that was named.
        path: PathBuf,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// What only this program's side can be wrong about.
    #[error("{text}")]
    Other {
        /// Its stable code, for programs.
        code: &'static str,
        /// What happened, in a sentence.
        text: String,
    },
    /// Flags that do not go together, or files that they name.
    #[error(transparent)]
    Flags(#[from] Failure),
}

impl CtlError {
    /// The stable code of this error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Client(error) => error.code(),
            Self::Silent { .. } => "NO_ANSWER",
            Self::File { .. } => "FILE",
            Self::Other { code, .. } => code,
            Self::Flags(_) => "BAD_FLAG",
        }
    }
}

impl From<Status> for CtlError {
    fn from(status: Status) -> Self {
        Self::Client(status.into())
    }
}

/// What a call waits for, at most, if nobody says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// What the pool knows.
    Answer,
    /// Work on a text.
    Text,
    /// The next token.
    Tokens,
    /// What the pool itself limits by this time.
    Beyond(Duration),
}

/// How a pool is called.
#[derive(Clone)]
pub struct CallOptions {
    /// The address that was called.
    pub url: String,
    /// TLS and the token.
    pub access: Access,
    /// The tenant that is called for, where the pool asks for no tokens.
    pub tenant: Option<String>,
    /// How long an answer may take.
    pub timeout: Option<Duration>,
}

/// A connection to a pool.
pub struct PoolCaller {
    way: CallOptions,
    pool: Pool,
}

impl PoolCaller {
    /// Connects.
    ///
    /// # Errors
    /// Nobody answers, or the tenant's name is none.
    pub async fn connect(way: CallOptions) -> Result<Self, CtlError> {
        let limit = way.limit(Wait::Answer);
        let connected = tokio::time::timeout(limit, Pool::connect_with(&way.url, &way.access)).await;
        let pool = connected.map_err(|_| way.silent(limit, "connect"))??;
        let pool = match &way.tenant {
            Some(tenant) => pool.as_tenant(tenant)?,
            None => pool,
        };
        Ok(Self { way, pool })
    }

    /// The connection, without a limit on how long answers take.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// How long an answer may take, if somebody said so.
    pub fn timeout(&self) -> Option<Duration> {
        self.way.timeout
    }

    /// Waits for an answer.
    ///
    /// # Errors
    /// The refusal, or [`CtlError::Silent`].
    pub async fn ask<T, E: Into<CtlError>>(
        &self,
        wait: Wait,
        asked: &'static str,
        call: impl Future<Output = Result<T, E>>,
    ) -> Result<T, CtlError> {
        let limit = self.way.limit(wait);
        let answer = tokio::time::timeout(limit, call).await;
        answer.map_err(|_| self.way.silent(limit, asked))?.map_err(Into::into)
    }

    /// The same of a call on the wire.
    ///
    /// # Errors
    /// As [`PoolCaller::ask`].
    pub async fn call<T>(
        &self,
        wait: Wait,
        asked: &'static str,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, CtlError> {
        Ok(self.ask(wait, asked, call).await?.into_inner())
    }

    /// The next message of a stream.
    ///
    /// # Errors
    /// As [`PoolCaller::ask`].
    pub async fn next<T>(
        &self,
        wait: Wait,
        asked: &'static str,
        messages: &mut Streaming<T>,
    ) -> Result<Option<T>, CtlError> {
        self.ask(wait, asked, messages.message()).await
    }

    /// What the pool is made of.
    ///
    /// # Errors
    /// As [`PoolCaller::ask`].
    pub async fn describe(&self) -> Result<v1::DescribePoolResponse, CtlError> {
        self.ask(Wait::Answer, "describe the pool", self.pool.describe()).await
    }
}

impl CallOptions {
    fn limit(&self, wait: Wait) -> Duration {
        match (wait, self.timeout) {
            (Wait::Beyond(limit), _) => limit.saturating_add(SLACK),
            (_, Some(timeout)) => timeout,
            (Wait::Answer, None) => ANSWER,
            (Wait::Text, None) => TEXT,
            (Wait::Tokens, None) => TOKENS,
        }
    }

    fn silent(&self, limit: Duration, asked: &'static str) -> CtlError {
        // To be read: what is left of a time has fractions.
        let limit = Duration::from_millis(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX));
        CtlError::Silent { url: self.url.clone(), limit, asked }
    }
}
