//! One document of the client's.

use crate::Pool;
use crate::completion::{Completed, Completion, CompletionOptions};
use crate::error::ClientError;
use crate::patience::Overload;
use pie_proto::{Reason, v1};
use std::future::Future;
use std::ops::Range;

/// An edit in bytes of the text before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    /// The bytes of the text that go; empty for an insertion.
    pub range: Range<usize>,
    /// The text that comes in their place.
    pub text: String,
}

/// What an edit did.
#[derive(Clone, Debug, PartialEq)]
pub enum EditOutcome {
    /// The pool applied it.
    Applied(v1::ApplyEditsResponse),
    /// Pool and client had parted; the pool took the client's whole text and encodes the difference.
    Resynced(v1::OpenSessionResponse),
}

/// An open document: the client's text, and the session in the pool that follows it.
#[derive(Clone, Debug)]
pub struct SessionHandle {
    pool: Pool,
    name: String,
    text: String,
    /// Of the session as it was opened last: what another client opens under the name is not mistaken for it.
    identity: String,
    revision: u64,
    tokens: u32,
    strategy: v1::Strategy,
    /// What stands in front of the text; the pool has it unless it has lost the session.
    parts: v1::Parts,
}

impl SessionHandle {
    pub(crate) async fn open(
        pool: Pool,
        name: String,
        text: String,
        strategy: v1::Strategy,
    ) -> Result<Self, ClientError> {
        let (identity, parts) = (String::new(), v1::Parts::default());
        let mut session = Self { pool, name, text, identity, revision: 0, tokens: 0, strategy, parts };
        let opened = session.push().await?;
        session.name = opened.session;
        Ok(session)
    }

    /// The session's name, which the pool chose if none was given.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The client's text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The revision that the pool has of it.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Tokens that the pool has of it.
    pub fn tokens(&self) -> u32 {
        self.tokens
    }

    /// Applies edits to the text, here and in the pool. All are in bytes of the present text and must not overlap.
    ///
    /// # Errors
    /// [`ClientError::BadEdit`], or the pool's refusal; the text is then as before.
    pub async fn edit(&mut self, edits: &[Edit]) -> Result<EditOutcome, ClientError> {
        let text = self.edited(edits)?;
        let wire = |edit: &Edit| v1::TextEdit {
            range: Some(v1::text_edit::Range::Bytes(v1::ByteRange {
                start: edit.range.start as u64,
                end: edit.range.end as u64,
            })),
            text: edit.text.clone(),
        };
        let request = v1::ApplyEditsRequest {
            session: self.name.clone(),
            base_revision: self.revision,
            edits: Some(v1::apply_edits_request::Edits::Text(v1::TextEdits {
                edits: edits.iter().map(wire).collect(),
                ..Default::default()
            })),
            strategy: v1::Strategy::Unspecified.into(),
            identity: self.identity.clone(),
            repair_window: None,
        };
        let mut patience = self.pool.patience(Overload::Tells);
        loop {
            match self.pool.wire().apply_edits(request.clone()).await.map_err(ClientError::from) {
                Ok(answer) => {
                    let answer = answer.into_inner();
                    (self.text, self.revision, self.tokens) = (text, answer.revision, answer.tokens);
                    return Ok(EditOutcome::Applied(answer));
                }
                // Also what a repeated call finds that had been heard the first time.
                Err(error) if parted(&error) => return self.replace(text).await.map(EditOutcome::Resynced),
                Err(error) => patience.wait(error).await?,
            }
        }
    }

    /// Puts texts in front of the document, in place of those that stand there: of files that are open beside it, of definitions that it
    /// uses. What both have in common stays encoded.
    ///
    /// # Errors
    /// The pool's refusal; what stood there stands there then.
    pub async fn put_in_front(&mut self, parts: v1::Parts) -> Result<(), ClientError> {
        let before = std::mem::replace(&mut self.parts, parts);
        let mut put = self.put().await;
        if put.as_ref().is_err_and(parted) {
            put = self.push().await.map(drop);
            // One that is open already keeps its own.
            if put.is_ok() && self.parts.parts.is_empty() {
                put = self.put().await;
            }
        }
        if put.is_err() {
            self.parts = before;
        }
        put
    }

    /// Gives the pool the parts.
    async fn put(&mut self) -> Result<(), ClientError> {
        let request = v1::ApplyEditsRequest {
            session: self.name.clone(),
            base_revision: self.revision,
            edits: Some(v1::apply_edits_request::Edits::Parts(self.parts.clone())),
            strategy: v1::Strategy::Unspecified.into(),
            identity: self.identity.clone(),
            repair_window: None,
        };
        let answer = self
            .pool
            .patiently(|mut wire| {
                let request = request.clone();
                async move { wire.apply_edits(request).await }
            })
            .await?;
        (self.revision, self.tokens) = (answer.revision, answer.tokens);
        Ok(())
    }

    /// Completes the text, to the end of the stream. It goes on where it was when the stream breaks, as [`Completion`] does, and also when
    /// the pool has lost the session meanwhile: then that is opened again with the text.
    ///
    /// # Errors
    /// The pool's refusal, after retries of what may be retried.
    pub async fn complete(&mut self, options: &CompletionOptions) -> Result<Completed, ClientError> {
        let request = self.request(options);
        let mut completion = Completion::new(self.pool.clone(), request, Overload::Waits);
        let (mut completed, mut is_renewed) = (Completed::default(), false);
        loop {
            match completion.next().await {
                Ok(Some(message)) => {
                    completed.add(message);
                    is_renewed = false;
                }
                Ok(None) => return Ok(completed),
                Err(error) if gone(&error) && !is_renewed => {
                    self.push().await?;
                    completion.renew(&self.identity, self.revision);
                    is_renewed = true;
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn request(&self, options: &CompletionOptions) -> v1::CompleteRequest {
        let identity = self.identity.clone();
        v1::CompleteRequest { identity, ..options.request(self.name.clone(), self.revision) }
    }

    /// Starts a completion of the text as it is now. The future borrows nothing, so the session can be edited meanwhile.
    ///
    /// # Errors
    /// The pool's refusal.
    pub fn start(
        &self,
        options: &CompletionOptions,
    ) -> impl Future<Output = Result<Completion, ClientError>> + Send + use<> {
        let request = self.request(options);
        let mut completion = Completion::new(self.pool.clone(), request, Overload::Tells);
        async move {
            completion.ask().await?;
            Ok(completion)
        }
    }

    /// Replaces the whole text, here and in the pool, which keeps what it holds of it.
    ///
    /// # Errors
    /// The pool's refusal; the text is then as before.
    pub async fn replace(&mut self, text: String) -> Result<v1::OpenSessionResponse, ClientError> {
        let before = std::mem::replace(&mut self.text, text);
        let pushed = self.push().await;
        if pushed.is_err() {
            self.text = before;
        }
        pushed
    }

    /// What the pool holds of the session, with its text.
    ///
    /// # Errors
    /// The pool's refusal.
    pub async fn held(&self) -> Result<v1::GetSessionResponse, ClientError> {
        let (session, identity) = (self.name.clone(), self.identity.clone());
        let request = v1::GetSessionRequest { session, content: true, identity };
        self.pool
            .patiently(|mut wire| {
                let request = request.clone();
                async move { wire.get_session(request).await }
            })
            .await
    }

    /// Closes the session.
    ///
    /// # Errors
    /// The pool's refusal.
    pub async fn close(self) -> Result<(), ClientError> {
        let request = v1::CloseSessionRequest { session: self.name, identity: self.identity };
        self.pool
            .patiently(|mut wire| {
                let request = request.clone();
                async move { wire.close_session(request).await }
            })
            .await?;
        Ok(())
    }

    /// Gives the pool the whole text; it keeps what it holds of it.
    async fn push(&mut self) -> Result<v1::OpenSessionResponse, ClientError> {
        let request = v1::OpenSessionRequest {
            session: self.name.clone(),
            content: Some(v1::open_session_request::Content::Text(self.text.clone())),
            strategy: self.strategy.into(),
            repair_window: None,
            control_tokens: false,
        };
        let opened = self
            .pool
            .patiently(|mut wire| {
                let request = request.clone();
                async move { wire.open_session(request).await }
            })
            .await?;
        (self.revision, self.tokens) = (opened.revision, opened.tokens);
        self.identity.clone_from(&opened.identity);
        // A session that is opened anew has none.
        if !self.parts.parts.is_empty() {
            self.put().await?;
        }
        Ok(opened)
    }

    fn edited(&self, edits: &[Edit]) -> Result<String, ClientError> {
        let mut sorted: Vec<&Edit> = edits.iter().collect();
        sorted.sort_by_key(|edit| (edit.range.start, edit.range.end));
        let mut text = String::with_capacity(self.text.len());
        let mut at = 0;
        for edit in sorted {
            let Range { start, end } = edit.range;
            let bad = || ClientError::BadEdit { start, end, length: self.text.len() };
            self.text.get(start..end).ok_or_else(bad)?;
            text.push_str(self.text.get(at..start).ok_or_else(bad)?);
            text.push_str(&edit.text);
            at = end;
        }
        text.push_str(&self.text[at..]);
        Ok(text)
    }
}

/// The pool has another text than the client thinks.
fn parted(error: &ClientError) -> bool {
    gone(error) || error.reason() == Some(Reason::RevisionMismatch)
}

/// The pool has the session no longer.
fn gone(error: &ClientError) -> bool {
    matches!(error.reason(), Some(Reason::SessionUnknown | Reason::SessionReplaced))
}
