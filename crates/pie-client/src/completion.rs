//! A completion: how to ask for one, its stream, and all of it.

use crate::Pool;
use crate::error::ClientError;
use crate::patience::{Overload, Patience};
use pie_proto::v1;

/// How to complete.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CompletionOptions {
    /// The most tokens to generate; 64 when 0.
    pub max_tokens: u32,
    /// Flattens the distribution that tokens are drawn from; 0 always takes the likeliest.
    pub temperature: f32,
    /// Equal seeds give equal tokens; the pool chooses one when absent.
    pub seed: Option<u64>,
    /// End before one of these.
    pub stop: Vec<String>,
    /// Alternatives to report for each token.
    pub top_logprobs: u32,
    /// The cursor, in bytes of the text; its end when absent.
    pub at: Option<usize>,
    /// What of the text a completion at a cursor sees.
    pub mode: v1::CompletionMode,
    /// What a newer edit does to it.
    pub on_edit: v1::OnEdit,
    /// What of the cache it may read.
    pub exactness: Exactness,
}

/// What of the cache a completion may read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Exactness {
    /// All, stale tokens too.
    #[default]
    AsItIs,
    /// What encoding its context anew would give: what is stale is encoded again first.
    Exact,
}

impl CompletionOptions {
    pub(crate) fn request(&self, session: String, revision: u64) -> v1::CompleteRequest {
        v1::CompleteRequest {
            session,
            revision: Some(revision),
            max_tokens: self.max_tokens,
            temperature: self.temperature,
            seed: self.seed,
            stop: self.stop.clone(),
            top_logprobs: self.top_logprobs,
            at: self.at.map(|at| v1::complete_request::At::AtByte(at as u64)),
            mode: self.mode.into(),
            on_edit: self.on_edit.into(),
            exact: self.exactness == Exactness::Exact,
            ..Default::default()
        }
    }
}

/// A completion that is running. Dropping it cancels it.
pub struct Completion {
    messages: tonic::Streaming<v1::CompleteResponse>,
    finish: v1::FinishReason,
    /// Until the first message comes, nothing is lost by asking again, where nobody else does.
    again: Option<Again>,
}

struct Again {
    pool: Pool,
    request: v1::CompleteRequest,
    patience: Patience,
}

impl Again {
    async fn ask(&mut self) -> Result<tonic::Streaming<v1::CompleteResponse>, ClientError> {
        loop {
            match self.pool.wire().complete(self.request.clone()).await {
                Ok(messages) => return Ok(messages.into_inner()),
                Err(status) => self.patience.wait(status.into()).await?,
            }
        }
    }
}

impl Completion {
    pub(crate) async fn start(pool: Pool, request: v1::CompleteRequest) -> Result<Self, ClientError> {
        let mut again = Again { patience: pool.patience(Overload::Tells), pool, request };
        let messages = again.ask().await?;
        Ok(Self { messages, finish: v1::FinishReason::Unspecified, again: Some(again) })
    }

    /// Asks once, for callers who have a patience of their own.
    pub(crate) async fn once(pool: &Pool, request: v1::CompleteRequest) -> Result<Self, ClientError> {
        let messages = pool.wire().complete(request).await?.into_inner();
        Ok(Self { messages, finish: v1::FinishReason::Unspecified, again: None })
    }

    /// The next message; `None` behind the last, which carries the finish reason.
    ///
    /// # Errors
    /// The pool's refusal, or a stream that ends without a finish reason.
    pub async fn next(&mut self) -> Result<Option<v1::CompleteResponse>, ClientError> {
        loop {
            let error = match self.messages.message().await {
                Ok(Some(message)) => {
                    self.again = None;
                    self.finish = message.finish_reason();
                    return Ok(Some(message));
                }
                Ok(None) if self.finish != v1::FinishReason::Unspecified => return Ok(None),
                Ok(None) => ClientError::CutOff,
                Err(status) => status.into(),
            };
            let Some(again) = &mut self.again else { return Err(error) };
            again.patience.wait(error).await?;
            self.messages = again.ask().await?;
        }
    }

    /// All of it.
    ///
    /// # Errors
    /// As [`Completion::next`].
    pub async fn finished(mut self) -> Result<Completed, ClientError> {
        let mut completed = Completed::default();
        while let Some(message) = self.next().await? {
            completed.text.push_str(&message.text_delta);
            completed.finish = message.finish_reason();
            completed.tokens.extend(message.tokens);
            if let Some(timings) = message.timings {
                completed.timings = timings;
            }
        }
        Ok(completed)
    }
}

/// A finished completion.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Completed {
    /// All text deltas, joined.
    pub text: String,
    /// All generated tokens, with their log probabilities.
    pub tokens: Vec<v1::CompletedToken>,
    /// Why it ended.
    pub finish: v1::FinishReason,
    /// Where the time to the first token went.
    pub timings: v1::Timings,
}
