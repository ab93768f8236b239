//! What load is sent to: a pool, which holds documents, or an OpenAI-style server, which takes whole prompts.

mod events;
mod openai;

pub use events::EventReader;
pub use openai::OpenAi;

use crate::error::LoadError;
use crate::script::{Caret, CompletionMode, ScriptCompletion};
use openai::Chunks;
use pie_client::{
    Access, ClientError, Completion, CompletionOptions, Edit, EditOutcome, Pool, SessionHandle,
};
use pie_proto::v1;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

/// Sessions that share a connection.
const SHARED: usize = 64;
const MOST_CONNECTIONS: usize = 16;
/// A pool says in this time what it is, or nothing.
const DESCRIBED_WITHIN: Duration = Duration::from_secs(10);

/// What load is sent to.
#[derive(Clone, Debug)]
pub enum LoadTarget {
    /// A pool, over some connections, each in a tenant's name or in nobody's. Sessions take them in turn.
    Pool(Vec<Pool>),
    /// A server of `/v1/completions`.
    OpenAi(Box<OpenAi>),
}

impl LoadTarget {
    /// Connects to a pool for so many sessions, spread over tenants `tenant-0`, `tenant-1`, … unless there are none.
    ///
    /// # Errors
    /// Nobody answers.
    pub async fn pool(
        url: &str,
        access: &Access,
        sessions: usize,
        tenants: usize,
    ) -> Result<Self, LoadError> {
        let connections = sessions.div_ceil(SHARED).clamp(1, MOST_CONNECTIONS);
        let mut open = Vec::new();
        for _ in 0..connections {
            open.push(Pool::connect_with(url, access).await?);
        }
        if tenants == 0 {
            return Ok(Self::Pool(open));
        }
        let named = (0..connections.max(tenants))
            .map(|index| open[index % connections].as_tenant(&format!("tenant-{}", index % tenants)));
        Ok(Self::Pool(named.collect::<Result<_, _>>()?))
    }

    /// What the pool says of itself; nothing for other servers, or if it refuses.
    pub(crate) async fn describe(&self) -> Option<v1::DescribePoolResponse> {
        match self {
            Self::Pool(pools) => {
                tokio::time::timeout(DESCRIBED_WITHIN, pools.first()?.describe()).await.ok()?.ok()
            }
            Self::OpenAi(_) => None,
        }
    }

    /// How often calls were repeated, because the pool refused them for a moment.
    pub(crate) fn repeats(&self) -> u64 {
        match self {
            Self::Pool(pools) => pools.iter().map(Pool::repeats).sum(),
            Self::OpenAi(_) => 0,
        }
    }

    pub(crate) async fn open(
        &self,
        index: usize,
        name: &str,
        text: String,
        strategy: v1::Strategy,
    ) -> Result<ServedDocument, CallError> {
        match self {
            Self::Pool(pools) => {
                let pool = &pools[index % pools.len()];
                Ok(ServedDocument::Pool(Box::new(pool.open(name, text, strategy).await?)))
            }
            Self::OpenAi(server) => Ok(ServedDocument::Prompts(server.clone())),
        }
    }
}

/// Why a call fails, as reports count it.
#[derive(Clone, Debug)]
pub struct CallError {
    /// Stable: what is counted.
    pub code: String,
    /// What happened, in a sentence.
    pub message: String,
}

impl CallError {
    /// No answer came in time.
    pub(crate) fn late(what: &str, limit: Duration) -> Self {
        Self {
            code: "NO_ANSWER".to_owned(),
            message: format!("{what} within {limit:?}: the server is silent"),
        }
    }
}

impl From<ClientError> for CallError {
    fn from(error: ClientError) -> Self {
        let code = match &error {
            // A status without a reason is not of this program's making: its gRPC code is all there is.
            ClientError::Refused(status) if error.reason().is_none() => format!("GRPC_{:?}", status.code()),
            _ => error.code().to_owned(),
        };
        Self { code, message: error.to_string() }
    }
}

/// A document as the server has it.
pub(crate) enum ServedDocument {
    Pool(Box<SessionHandle>),
    /// Nothing is there: every prompt is whole.
    Prompts(Box<OpenAi>),
}

/// What an edit did.
pub(crate) enum Acked {
    Applied(v1::ApplyEditsResponse),
    /// Another text was there: the whole text was sent.
    Resynced,
    /// Nobody was asked: the server holds no documents.
    Local,
}

type Starting = Pin<Box<dyn Future<Output = Result<StreamingCompletion, CallError>> + Send>>;

impl ServedDocument {
    /// Makes edits, all in bytes of the text before them.
    pub async fn edit(&mut self, edits: &[Edit]) -> Result<Acked, CallError> {
        match self {
            Self::Pool(session) => match session.edit(edits).await? {
                EditOutcome::Applied(answer) => Ok(Acked::Applied(answer)),
                EditOutcome::Resynced(_) => Ok(Acked::Resynced),
            },
            Self::Prompts(_) => Ok(Acked::Local),
        }
    }

    /// Makes the document this text.
    pub async fn replace(&mut self, text: &str) -> Result<(), CallError> {
        if let Self::Pool(session) = self {
            session.replace(text.to_owned()).await?;
        }
        Ok(())
    }

    /// Asks for a completion at an offset of the text; nothing of it is borrowed.
    pub fn start(&self, text: &str, offset: usize, ask: ScriptCompletion, max_tokens: u32) -> Starting {
        match self {
            Self::Pool(session) => {
                let mode = match ask.mode {
                    CompletionMode::Continue => v1::CompletionMode::Continue,
                    CompletionMode::Fim => v1::CompletionMode::FillInTheMiddle,
                };
                let at = (ask.place == Caret::Cursor).then_some(offset);
                let options = CompletionOptions { max_tokens, at, mode, ..Default::default() };
                let started = session.start(&options);
                Box::pin(async move { Ok(StreamingCompletion::Pool(Box::new(started.await?))) })
            }
            Self::Prompts(server) => {
                let suffix = (ask.mode == CompletionMode::Fim).then(|| text[offset..].to_owned());
                let started = server.start(text[..offset].to_owned(), suffix, max_tokens);
                Box::pin(async move { Ok(StreamingCompletion::Prompts(started.await?)) })
            }
        }
    }

    /// Whether an edit ends a running completion there by itself.
    pub fn edits_end_completions(&self) -> bool {
        matches!(self, Self::Pool(_))
    }

    /// The text as the server has it, if it has one.
    pub async fn held(&self) -> Result<Option<String>, CallError> {
        match self {
            Self::Pool(session) => Ok(session.held().await?.text),
            Self::Prompts(_) => Ok(None),
        }
    }

    /// Closes it.
    pub async fn close(self) -> Result<(), CallError> {
        match self {
            Self::Pool(session) => Ok(session.close().await?),
            Self::Prompts(_) => Ok(()),
        }
    }
}

/// A completion as it comes.
pub(crate) enum StreamingCompletion {
    Pool(Box<Completion>),
    Prompts(Chunks),
}

/// What came at once.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CompletionDelta {
    /// What it adds to the completion.
    pub text: String,
    /// How many tokens that is.
    pub tokens: u32,
    /// Of the pool's own clock.
    pub timings: Option<v1::Timings>,
    /// Set in the last one.
    pub end: Option<CompletionEnd>,
}

/// Why a completion ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompletionEnd {
    /// The model or the limit.
    Finished,
    /// A newer edit came.
    Edited,
}

impl StreamingCompletion {
    /// What comes next; none when nothing more does.
    pub async fn next(&mut self) -> Result<Option<CompletionDelta>, CallError> {
        match self {
            Self::Pool(completion) => Ok(completion.next().await?.map(CompletionDelta::from)),
            Self::Prompts(chunks) => chunks.next().await,
        }
    }
}

impl From<v1::CompleteResponse> for CompletionDelta {
    fn from(message: v1::CompleteResponse) -> Self {
        let end = match message.finish_reason() {
            v1::FinishReason::Unspecified => None,
            v1::FinishReason::Edited => Some(CompletionEnd::Edited),
            v1::FinishReason::Stop | v1::FinishReason::Length => Some(CompletionEnd::Finished),
        };
        let tokens = u32::try_from(message.tokens.len()).unwrap_or(u32::MAX);
        Self { text: message.text_delta, tokens, timings: message.timings, end }
    }
}
