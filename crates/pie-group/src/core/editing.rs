//! Edits: made against the current revision (R1), whole or not at all (R2). Older completions end (D1), and the tables hear of the splices.

use super::Core;
use super::session::Session;
use crate::carrying::parts_bytes;
use crate::faults;
use crate::tenants::Tenant;
use pie_proto::Fault;
use pie_proto::request::{ApplyEdits, Edits};
use pie_text::{Document, DocumentChange, TextError};
use pie_words::{Following, SessionId, Splices};
use std::time::Instant;

/// What an edit did.
pub(crate) struct EditSummary {
    /// The session that was edited.
    pub session: SessionId,
    /// Tokens that came.
    pub inserted: usize,
    /// Tokens that went.
    pub deleted: usize,
    /// Tokens that were tokenized again to find out.
    pub retokenized: usize,
}

/// Edits that have no more bytes tokenized, at no more places, are worked out here: that takes less than asking the owner twice.
const SMALL_BYTES: usize = 2 << 10;
const SMALL_EDITS: usize = 32;

/// A copy of a document, to work an edit out on that takes more than a moment.
pub(crate) struct Copy {
    /// As it was at the revision that the edit is against.
    pub document: Box<Document>,
    /// Bytes of text that the edit has tokenized.
    pub bytes: usize,
}

impl Core {
    /// What is needed to work an edit out elsewhere; nothing, if it can be made here at once.
    pub(crate) fn copy_for(&self, tenant: &Tenant, request: &ApplyEdits) -> Result<Option<Copy>, Fault> {
        let session = self.sessions.find(tenant, &request.session, request.identity.as_ref())?;
        let document = &session.document;
        let edits = match &request.edits {
            Edits::Text(edits) | Edits::Sequential(edits) => edits,
            Edits::Tokens(_) => return Ok(None),
            Edits::Parts(parts) => {
                let bytes = parts_bytes(parts);
                let copy = || Copy { document: Box::new(document.snapshot()), bytes };
                return Ok((bytes > SMALL_BYTES).then(copy));
            }
        };
        let inserted: usize = edits.iter().map(|edit| edit.insert.len()).sum();
        let is_local = document.restarts_around(edits.iter().map(|edit| edit.insert.as_str()));
        let bytes = if is_local { inserted } else { inserted + document.len_bytes() };
        let is_small = bytes <= SMALL_BYTES && edits.len() <= SMALL_EDITS;
        Ok((!is_small).then(|| Copy { document: Box::new(document.snapshot()), bytes }))
    }

    /// Edits a document. What was worked out on a copy of it is refused if it has changed since.
    pub(crate) fn edit(
        &mut self,
        tenant: &Tenant,
        request: &ApplyEdits,
        prepared: Option<DocumentChange>,
        arrived: Instant,
    ) -> Result<EditSummary, Fault> {
        let session = self.sessions.find(tenant, &request.session, request.identity.as_ref())?;
        let prepare = || faults::prepare(&session.document, request, self.model.vocabulary());
        let change = prepared.map_or_else(|| faults::contained(prepare), Ok)?;
        session.document.accepts(&change).map_err(|error| match error {
            TextError::ForeignChange => faults::another_life(session),
            error => faults::text(&error),
        })?;
        let edited = EditSummary {
            session: session.id,
            inserted: change.splices().inserted(),
            deleted: change.splices().deleted(),
            retokenized: change.stats().tokens_retokenized,
        };
        self.check_growth(session, change.splices())?;
        let following = session.following.with(request.following);
        self.commit(edited.session, change, following, Some(arrived))?;
        self.stats.sessions.edits.add(1);
        Ok(edited)
    }

    /// Whether a document may change so: the model's context, the cache, and the tenant have limits. One that is above them
    /// already, since another model serves it than when it was opened, may shrink.
    pub(super) fn check_growth(&self, session: &Session, splices: &Splices) -> Result<(), Fault> {
        let before = session.tokens();
        let after = before - splices.deleted() + splices.inserted();
        if after <= before {
            return Ok(());
        }
        self.model.check_length(after)?;
        if let Ok(planner) = &self.planner {
            planner.check_slots(after)?;
        }
        self.sessions.tenants.check_growth(&session.tenant, after - before)
    }

    /// Changes a document, and tells the group. Everything was checked before.
    pub(super) fn commit(
        &mut self,
        id: SessionId,
        change: DocumentChange,
        following: Following,
        arrived: Option<Instant>,
    ) -> Result<(), Fault> {
        let revision = |core: &Self| core.sessions.get(id).map(Session::revision);
        let (before, splices) = (revision(self), change.splices().clone());
        self.sessions.commit(id, change, arrived)?;
        // An edit that changes nothing makes no revision.
        if let (Ok(planner), Some(session)) = (&mut self.planner, self.sessions.get(id))
            && before != Some(session.revision())
        {
            planner.edited(session, splices, following);
        }
        Ok(())
    }
}
