//! What is worked out before an owner is asked: whole texts are tokenized, and large edits prepared on a copy of the document.
//! The owner serves everybody on one task, so it only takes what is done, if the document is still as it was.

use super::PoolService;
use crate::call::Call;
use crate::faults;
use crate::life::Life;
use crate::owner::Owner;
use crate::tenants::Tenant;
use crate::tokenizing::{Waits, beside};
use pie_proto::reason::reason_of;
use pie_proto::request::{ApplyEdits, Content, Edits, SessionName};
use pie_proto::{Fault, Reason, v1};
use pie_text::{Document, TextError};
use pie_words::Strategy;
use std::time::Instant;
use tonic::Status;

/// Edits that insert no more, at no more places, are tokenized by the owner: that takes less than asking it twice.
const SMALL_BYTES: usize = 2 << 10;
const SMALL_EDITS: usize = 32;
/// How often a text is compared with its session, if others change that meanwhile.
const ATTEMPTS: usize = 3;

/// A text to open.
pub(super) struct Opening {
    pub tenant: Tenant,
    pub name: SessionName,
    pub content: Content,
    pub strategy: Option<Strategy>,
}

impl PoolService {
    /// The most bytes of a text that a group could take: fewer than its model's context has tokens, each of the longest.
    fn text_limit(&self, owner: &Owner) -> usize {
        let context = usize::try_from(owner.stats().published.context_limit.get()).unwrap_or(usize::MAX);
        let seen = if context > 0 { self.tokenizer.most_bytes(context) } else { None };
        seen.map_or(self.document_limit, |seen| seen.min(self.document_limit))
    }

    fn check_text(&self, owner: &Owner, bytes: usize) -> Result<usize, Fault> {
        let limit = self.text_limit(owner);
        if bytes > limit {
            return Err(faults::text(&TextError::TooLong { bytes, limit }));
        }
        Ok(limit)
    }

    /// A copy of a session's document as it is now.
    async fn look(
        &self,
        owner: &Owner,
        tenant: &Tenant,
        name: &SessionName,
    ) -> Result<Option<Document>, Status> {
        let (tenant, session) = (tenant.clone(), name.clone());
        Ok(self.ask(owner, |reply| Call::Look { tenant, session, reply }).await?.map(|document| *document))
    }

    pub(super) async fn open_here(
        &self,
        owner: &Owner,
        opening: Opening,
    ) -> Result<v1::OpenSessionResponse, Status> {
        let Opening { tenant, name, content, strategy } = opening;
        let bytes = match &content {
            Content::Text(text) => text.len(),
            Content::Tokens(_) => 0,
        };
        self.counted(self.check_text(owner, bytes))?;
        let mut attempt = 1;
        loop {
            let held = self.look(owner, &tenant, &name).await?;
            let (tokenizer, limit, content) = (self.tokenizer.clone(), self.document_limit, content.clone());
            let prepared = beside(bytes, Waits::Briefly, move || {
                let document = match content {
                    Content::Text(text) => Document::open(tokenizer, &text, limit),
                    Content::Tokens(tokens) => Document::open_tokens(tokenizer, tokens),
                };
                let document = document.map_err(|error| faults::text(&error))?;
                let change = held.map(|held| held.become_like(&document)).transpose();
                Ok((Box::new(document), change.map_err(|error| faults::text(&error))?.map(Box::new)))
            });
            let (document, change) = self.counted(prepared.await)?;
            let Life { identity, begins } = self.counted(Life::new())?;
            let document = Box::new(document.at_revision(begins));
            let (tenant, name) = (tenant.clone(), name.clone());
            let opened = self
                .ask(owner, |reply| Call::Open { tenant, name, identity, document, change, strategy, reply })
                .await;
            match opened {
                Err(status) if attempt < ATTEMPTS && reason_of(&status) == Some(Reason::RevisionMismatch) => {
                    attempt += 1;
                }
                opened => return opened,
            }
        }
    }

    pub(super) async fn edit_here(
        &self,
        owner: &Owner,
        tenant: Tenant,
        request: ApplyEdits,
        arrived: Instant,
    ) -> Result<v1::ApplyEditsResponse, Status> {
        let (Edits::Text(edits) | Edits::Sequential(edits)) = &request.edits else {
            return self.edit_as_it_is(owner, tenant, request, arrived).await;
        };
        let inserted = edits.iter().map(|edit| edit.insert.len()).sum();
        let is_small = inserted <= SMALL_BYTES && edits.len() <= SMALL_EDITS;
        let is_local = self.tokenizer.restarts_around(edits.iter().map(|edit| edit.insert.as_str()));
        if is_small && is_local {
            return self.edit_as_it_is(owner, tenant, request, arrived).await;
        }
        let limit = self.counted(self.check_text(owner, inserted))?;
        let Some(document) = self.look(owner, &tenant, &request.session).await? else {
            return self.counted(Err(faults::no_session(request.session.as_str())));
        };
        let bytes = if is_local { inserted } else { inserted + document.len_bytes() };
        let prepared = beside(bytes, Waits::Briefly, move || {
            let change = faults::prepare(&document.limited(limit), &request, None)?;
            // What is worked out need not be kept.
            Ok((ApplyEdits { edits: Edits::Text(Vec::new()), ..request }, Some(Box::new(change))))
        });
        let (request, prepared) = self.counted(prepared.await)?;
        self.ask(owner, |reply| Call::Edit { tenant, request, prepared, arrived, reply }).await
    }

    /// The owner works out what the edit does.
    async fn edit_as_it_is(
        &self,
        owner: &Owner,
        tenant: Tenant,
        request: ApplyEdits,
        arrived: Instant,
    ) -> Result<v1::ApplyEditsResponse, Status> {
        self.ask(owner, |reply| Call::Edit { tenant, request, prepared: None, arrived, reply }).await
    }
}
