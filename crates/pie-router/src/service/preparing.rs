//! What is worked out before an owner is asked: whole texts are tokenized, and large edits prepared on a copy of the document.
//! The owner serves everybody on one task, so it only takes what is done, if the document is still as it was.
//!
//! Lengths come first: what no context of the group's model could hold is refused before anything is tokenized.

use crate::faults;
use crate::group::{Asker, LocalGroup};
use pie_group::call::{Call, EditReply, Prepared};
use pie_group::carrying::document;
use pie_group::carrying::parts_bytes;
use pie_group::life::SessionStart;
use pie_group::tenants::Tenant;
use pie_group::tokenizing::{AdmissionWait, beside};
use pie_proto::request::{ApplyEdits, Content, Edits, SessionName};
use pie_proto::{Fault, Reason, v1};
use pie_text::{Document, DocumentChange, TextError, Tokenizer};
use pie_words::{AskedFollowing, Spellings, TokenId};
use std::sync::Arc;

/// How often a text is compared with its session, if others change that meanwhile.
pub(super) const ATTEMPTS: usize = 3;

/// A text to open.
pub(super) struct Opening {
    /// Whose.
    pub tenant: Tenant,
    /// Under which name.
    pub name: SessionName,
    /// What its client has.
    pub content: Content,
    /// What its text means where it spells control tokens.
    pub spellings: Spellings,
    /// How its cache follows its edits.
    pub following: AskedFollowing,
}

impl LocalGroup {
    /// The most bytes of a text that the group could take: fewer than its model's context has tokens, each of the longest.
    fn text_limit(&self) -> usize {
        let context = self.owner.holdings().context_limit;
        let seen = if context > 0 { self.router.tokenizer.most_bytes(context) } else { None };
        seen.map_or(self.router.document_limit, |seen| seen.min(self.router.document_limit))
    }

    /// Whether a text, or a list of tokens, can be part of any document here; with the most bytes of one.
    fn check_length(&self, bytes: usize, tokens: usize) -> Result<usize, Fault> {
        let (limit, context) = (self.text_limit(), self.owner.holdings().context_limit);
        self.router.counted(match () {
            () if bytes > limit => Err(faults::text(&TextError::TooLong { bytes, limit })),
            () if context > 0 && tokens >= context => Err(faults::too_long(tokens, context)),
            () => Ok(limit),
        })
    }

    /// Opens a session: its text is tokenized, or, where it is open already, what differs from the text that it has.
    pub(super) async fn open(&self, opening: Opening) -> Result<v1::OpenSessionResponse, Fault> {
        let Opening { tenant, name, content, spellings, following } = opening;
        let tokenizer = self.router.tokenizer.reading(spellings);
        let (bytes, tokens) = match &content {
            Content::Text(text) => (text.len(), 0),
            Content::Tokens(tokens) => (0, tokens.len()),
        };
        self.check_length(bytes, tokens)?;
        let content = Arc::new(content);
        let mut attempt = 1;
        loop {
            let (owner, session) = (tenant.clone(), name.clone());
            let held = self.ask(|reply| Call::Look { tenant: owner, session, reply }).await?;
            let (limit, tokenizer, content) =
                (self.router.document_limit, tokenizer.clone(), content.clone());
            let prepared = beside(bytes, AdmissionWait::Briefly, move || match held {
                None => {
                    let document = document(&content, &tokenizer, limit)?;
                    let SessionStart { identity, begins } = SessionStart::new()?;
                    Ok(Prepared::New { identity, document: Box::new(document.at_revision(begins)) })
                }
                Some(held) => {
                    let change = difference(&held, &content, &tokenizer, limit)?;
                    Ok(Prepared::Again(Box::new(change)))
                }
            });
            let prepared = self.router.counted(prepared.await)?;
            let (tenant, name) = (tenant.clone(), name.clone());
            match self.ask(|reply| Call::Open { tenant, name, prepared, following, reply }).await {
                Err(fault) if attempt < ATTEMPTS && fault.reason == Reason::RevisionMismatch => attempt += 1,
                opened => return opened,
            }
        }
    }

    /// The tokens of what a completion may write.
    pub(super) async fn expected(&self, prediction: String) -> Result<Vec<TokenId>, Fault> {
        if prediction.is_empty() {
            return Ok(Vec::new());
        }
        let tokenizer = self.router.tokenizer.clone();
        let bytes = prediction.len();
        let encode = move || tokenizer.encode(&prediction).map_err(|error| faults::text(&error));
        self.router.counted(beside(bytes, AdmissionWait::Briefly, encode).await)
    }

    /// Edits a session. What takes more than a moment the owner hands back, with a copy of the document to prepare it on.
    pub(super) async fn edit(
        &self,
        asker: Asker,
        request: ApplyEdits,
    ) -> Result<v1::ApplyEditsResponse, Fault> {
        let (bytes, tokens) = match &request.edits {
            Edits::Text(edits) | Edits::Sequential(edits) => {
                (edits.iter().map(|edit| edit.insert.len()).sum(), 0)
            }
            Edits::Tokens(splices) => (0, splices.iter().map(|splice| splice.insert.len()).sum()),
            Edits::Parts(parts) => (parts_bytes(parts), 0),
        };
        let limit = self.check_length(bytes, tokens)?;
        let Asker { tenant, arrived } = asker;
        let edit = |request, prepared| {
            let tenant = tenant.clone();
            self.ask(|reply| Call::Edit { tenant, request, prepared, arrived, reply })
        };
        let (document, request, bytes) = match edit(request, None).await? {
            EditReply::Done(answer) => return Ok(answer),
            EditReply::Beside { document, request, bytes } => (document.limited(limit), *request, bytes),
        };
        let prepared = beside(bytes, AdmissionWait::Briefly, move || {
            let change = faults::prepare(&document, &request, None)?;
            // What is worked out need not be kept.
            Ok((ApplyEdits { edits: Edits::Text(Vec::new()), ..request }, Some(Box::new(change))))
        });
        let (request, change) = self.router.counted(prepared.await)?;
        match edit(request, change).await? {
            EditReply::Done(answer) => Ok(answer),
            EditReply::Beside { .. } => {
                Err(Fault::new(Reason::Internal, "an edit that is worked out is only to be made"))
            }
        }
    }
}

/// The change that makes `held` equal to what its client has: what both have in common stays.
fn difference(
    held: &Document,
    wanted: &Content,
    tokenizer: &Arc<Tokenizer>,
    limit: usize,
) -> Result<DocumentChange, Fault> {
    let change = match wanted {
        Content::Text(_) if held.spellings() != tokenizer.spellings() => {
            // The same text may have other tokens now.
            held.become_read_as(&document(wanted, tokenizer, limit)?)
        }
        Content::Text(text) => held.become_text(text),
        Content::Tokens(tokens) => held.become_tokens(tokens),
    };
    change.map_err(|error| faults::text(&error))
}
