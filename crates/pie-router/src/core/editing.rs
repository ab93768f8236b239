//! Edits: a document changes whole or not at all (R2), its older completions end (D1), and the tables hear of the splices.

use super::tables::Op;
use super::{Core, count};
use crate::completion::Completion;
use crate::faults;
use crate::stats::Outcome;
use crate::tenants::Tenant;
use pie_plan::{SessionId, Strategy};
use pie_proto::request::ApplyEdits;
use pie_proto::{Fault, v1};
use pie_text::{Change, TextError};
use std::collections::VecDeque;
use std::time::Instant;

impl Core {
    pub(super) fn edit(
        &mut self,
        tenant: &Tenant,
        request: ApplyEdits,
        arrived: Instant,
    ) -> Result<v1::ApplyEditsResponse, Fault> {
        let id = self.id_of(tenant, &request.session, request.identity.as_ref())?;
        let session = self.session(id, &request.session)?;
        let vocabulary = self.vocabulary();
        let change = faults::contained(|| faults::prepare(&session.document, &request, vocabulary))?;
        self.apply(tenant, &request, change, arrived)
    }

    /// Applies an edit that was prepared on this document as it is, or as it was: then it is refused.
    pub(super) fn apply(
        &mut self,
        tenant: &Tenant,
        request: &ApplyEdits,
        change: Change,
        arrived: Instant,
    ) -> Result<v1::ApplyEditsResponse, Fault> {
        let id = self.id_of(tenant, &request.session, request.identity.as_ref())?;
        let session = self.session(id, &request.session)?;
        let strategy = request.strategy.unwrap_or(session.strategy);
        session.document.accepts(&change).map_err(|error| match error {
            TextError::ForeignChange => faults::another_life(session),
            error => faults::text(&error),
        })?;
        let (inserted, deleted) = (change.splices().inserted(), change.splices().deleted());
        self.check_growth(session, change.splices())?;
        let tokens_retokenized = count(change.stats().tokens_retokenized);
        self.commit(id, change, strategy, Some(arrived))?;
        self.stats.edits.add(1);
        let session = self.session(id, &request.session)?;
        Ok(v1::ApplyEditsResponse {
            revision: session.document.revision().0,
            tokens: count(session.tokens()),
            tokens_inserted: count(inserted),
            tokens_deleted: count(deleted),
            tokens_retokenized,
        })
    }

    /// Changes a document, ends its older completions (D1), and queues the splices. Everything was checked before.
    pub(super) fn commit(
        &mut self,
        id: SessionId,
        change: Change,
        strategy: Strategy,
        arrived: Option<Instant>,
    ) -> Result<(), Fault> {
        let ticket = self.ticket();
        let Some(session) = self.sessions.get_mut(&id) else { return Ok(()) };
        let splices = change.splices().clone();
        let (before, revision) = (session.tokens(), session.document.revision());
        session.document.commit(change).map_err(|error| faults::text(&error))?;
        if session.document.revision() == revision {
            return Ok(());
        }
        self.quiet.remove(&id);
        (session.edited, session.used) = (arrived.or(session.edited), self.now);
        if session.completions.is_empty() {
            session.ticket = ticket;
        }
        let (stay, end): (VecDeque<_>, VecDeque<_>) =
            session.completions.drain(..).partition(Completion::outlives_edits);
        session.completions = stay;
        let revision = session.document.revision().0;
        for waiting in session.completions.iter_mut().filter(|completion| !completion.has_begun()) {
            waiting.revision = revision;
        }
        let after = session.tokens();
        let encoded = match (strategy, splices.iter().next()) {
            (Strategy::Full, Some(first)) => after - first.at.usize(),
            _ => splices.inserted(),
        };
        session.ahead.add(encoded);
        self.tenants.edited(&session.tenant, before, after);
        self.tokens = self.tokens + after - before;
        self.completions -= end.len();
        for completion in end {
            self.stats.ended(Outcome::Edited);
            completion.end_by_edit();
        }
        self.queue(Op::Splice { session: id, splices, strategy });
        Ok(())
    }
}
