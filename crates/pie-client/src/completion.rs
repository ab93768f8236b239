//! A completion: how to ask for one, its stream, and all of it.

use crate::Pool;
use crate::error::ClientError;
use crate::patience::{Overload, RetryBudget};
pub use pie_proto::request::{Exactness, RegionLines};
use pie_proto::{REVISION_METADATA, Reason, v1};

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
    /// A text that it may write: it then comes several tokens at a time, and is the same.
    pub prediction: String,
    /// In the mode `Rewrite`: which lines are written anew.
    pub lines: RegionLines,
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
            prediction: self.prediction.clone(),
            lines_before: Some(self.lines.before),
            lines_behind: Some(self.lines.behind),
            ..Default::default()
        }
    }
}

/// A completion that is running. Dropping it cancels it.
///
/// Its stream may break: the router dies, or the group of ranks, or the way there. Then the pool is asked again, at the next of its
/// routers, for what comes behind the tokens that are here already, for about ten seconds: whoever reads sees a pause. Tokens and text are
/// those of a stream that never broke, if the model computes as it did (a cache that was encoded anew has no stale rows, which may
/// change what follows). Timings come once, with the first token. If the document was edited meanwhile, it ends as edited.
pub struct Completion {
    /// None while nobody answers.
    messages: Option<tonic::Streaming<v1::CompleteResponse>>,
    finish: v1::FinishReason,
    /// The pool has taken it once.
    is_accepted: bool,
    again: CompletionRetry,
}

/// How the same completion is asked for again.
struct CompletionRetry {
    pool: Pool,
    /// With what is here of the answer.
    request: v1::CompleteRequest,
    patience: RetryBudget,
    /// Some of it is here, and its timings are.
    has_begun: bool,
}

impl CompletionRetry {
    async fn ask(&mut self) -> Result<tonic::Streaming<v1::CompleteResponse>, ClientError> {
        loop {
            let error = match self.pool.wire().complete(self.request.clone()).await {
                // One that does not know what was generated would begin anew.
                Ok(answer) if self.has_begun && !answer.metadata().contains_key(REVISION_METADATA) => {
                    ClientError::CutOff
                }
                Ok(answer) => return Ok(answer.into_inner()),
                Err(status) => status.into(),
            };
            self.patience.wait(error).await?;
        }
    }

    /// Whether another stream may give the rest. Edits of lines that are written anew are not told twice, nor otherwise.
    fn goes_on(&self) -> bool {
        !self.has_begun || self.request.mode() != v1::CompletionMode::Rewrite
    }

    /// What an earlier stream told once is not told again.
    fn tell(&mut self, mut message: v1::CompleteResponse) -> v1::CompleteResponse {
        self.request.seed = self.request.seed.or(message.seed);
        if self.has_begun {
            (message.timings, message.seed) = (None, None);
        }
        if !message.tokens.is_empty() {
            self.has_begun = true;
            self.request.generated.extend(message.tokens.iter().map(|token| token.id));
            // Whoever has waited for nothing more is patient again, also where many ask at a time.
            self.patience = self.pool.patience(Overload::Waits);
        }
        message
    }
}

impl Completion {
    /// Nobody has been asked yet.
    pub(crate) fn new(pool: Pool, request: v1::CompleteRequest, overload: Overload) -> Self {
        let patience = pool.patience(overload);
        let again = CompletionRetry { pool, request, patience, has_begun: false };
        Self { messages: None, finish: v1::FinishReason::Unspecified, is_accepted: false, again }
    }

    /// Asks, until the pool takes it.
    pub(crate) async fn ask(&mut self) -> Result<(), ClientError> {
        self.messages = Some(self.again.ask().await?);
        self.is_accepted = true;
        Ok(())
    }

    /// From now on of a session that was opened anew, with the same text.
    pub(crate) fn renew(&mut self, identity: &str, revision: u64) {
        self.again.request.identity = identity.to_owned();
        self.again.request.revision = Some(revision);
    }

    /// The next message; `None` behind the last, which carries the finish reason.
    ///
    /// # Errors
    /// The pool's refusal, or a stream that ends without a finish reason, and nobody who goes on with it.
    pub async fn next(&mut self) -> Result<Option<v1::CompleteResponse>, ClientError> {
        if self.finish != v1::FinishReason::Unspecified {
            // A call that is left before its end counts as cancelled.
            if let Some(mut messages) = self.messages.take() {
                let _ = messages.message().await;
            }
            return Ok(None);
        }
        loop {
            if let Some(messages) = &mut self.messages {
                let error = match messages.message().await {
                    Ok(Some(message)) => {
                        self.finish = message.finish_reason();
                        return Ok(Some(self.again.tell(message)));
                    }
                    Ok(None) => ClientError::CutOff,
                    Err(status) => status.into(),
                };
                self.messages = None;
                if !self.again.goes_on() {
                    return Err(error);
                }
                self.again.patience.wait(error).await?;
            }
            match self.ask().await {
                // It was accepted, and edited then. One that has begun is told so by the pool.
                Err(error) if self.is_accepted && error.reason() == Some(Reason::RevisionMismatch) => {
                    self.finish = v1::FinishReason::Edited;
                    let revision = self.again.request.revision.unwrap_or_default();
                    let finish_reason = self.finish.into();
                    return Ok(Some(v1::CompleteResponse { revision, finish_reason, ..Default::default() }));
                }
                asked => asked?,
            }
        }
    }

    /// All of it.
    ///
    /// # Errors
    /// As [`Completion::next`].
    pub async fn finished(mut self) -> Result<Completed, ClientError> {
        let mut completed = Completed::default();
        while let Some(message) = self.next().await? {
            completed.add(message);
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
    /// In the mode `Rewrite`: what it changes, to be applied together at the revision that it was asked for.
    pub edits: Vec<v1::TextEdit>,
}

impl Completed {
    pub(crate) fn add(&mut self, message: v1::CompleteResponse) {
        self.text.push_str(&message.text_delta);
        self.finish = message.finish_reason();
        self.tokens.extend(message.tokens);
        self.edits.extend(message.edits);
        if let Some(timings) = message.timings {
            self.timings = timings;
        }
    }
}
