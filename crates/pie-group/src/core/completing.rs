//! Completions are accepted: what could not be answered is refused at once.

use super::completion::{ActiveCompletion, CompletionId, InsertionPoint};
use super::session::{Session, count};
use super::{Core, UnreadCompletions};
use crate::call::WorkedOut;
use crate::faults;
use crate::tenants::Tenant;
use pie_proto::Fault;
use pie_proto::request::{Complete, Mode};
use pie_words::{Cursor, Revision, TokenId};
use std::time::Instant;

/// Completions that may wait in one session.
const WAITING_LIMIT: usize = 8;

impl Core {
    /// A completion waits for its turn; of which revision of the document, it is told now. What becomes of it is told as news.
    pub(crate) fn complete(
        &mut self,
        tenant: &Tenant,
        mut request: Complete,
        worked_out: WorkedOut,
        arrived: Instant,
        unread: UnreadCompletions,
    ) -> Result<(CompletionId, Revision), Fault> {
        let session = self.sessions.find(tenant, &request.session, request.identity.as_ref())?;
        let planner = self.planner.as_mut().map_err(|why| faults::group_lost(why))?;
        let id = CompletionId { session: session.id, number: self.accepted + 1 };
        let (model, most) = ((&self.model.facts, &*self.tokenizer), self.settings.limits.rows as usize / 2);
        if let Some(revision) =
            request.revision.filter(|wanted| !request.generated.is_empty() && *wanted < session.revision())
        {
            // The earlier stream would have met the edit.
            let completion =
                ActiveCompletion::new(id, request, (revision, InsertionPoint::End), model, most, arrived)?;
            planner.allotment.completions.end_edited(completion);
            self.accepted += 1;
            return Ok((id, revision));
        }
        faults::check_completion(&request, session, &self.model.facts)?;
        if planner.completions(session.id) >= WAITING_LIMIT {
            return Err(faults::too_many_waiting(WAITING_LIMIT, &session.name));
        }
        self.model.check(&session.document)?;
        if unread.all >= self.settings.completions {
            return Err(faults::too_many_completions(self.settings.completions));
        }
        self.sessions.tenants.check_request(tenant, unread.own)?;
        let WorkedOut { expected, prompt } = worked_out;
        let place = faults::contained(|| place(session, &request, self.model.fim.is_some(), prompt))?;
        let context = self.model.context(&session.document, &place, request.mode);
        let length = context.length(session.tokens());
        self.model.check_length(length + request.generated.len())?;
        planner.check_slots(length + request.generated.len())?;
        // The context ends where the model's does, or the cache, which no waiting makes larger. Markers and branches take more of it: what
        // they leave shows while it runs.
        let room = self.model.room(length).min(planner.slots().saturating_sub(length));
        request.max_tokens = request.max_tokens.min(count(room));
        let (revision, mut expected) = (session.revision(), session.removed.before(expected));
        // Another model may serve than when they stood in the document.
        expected.retain(|token| self.model.vocabulary().is_none_or(|vocabulary| token.0 < vocabulary));
        let completion = ActiveCompletion::new(id, request, (revision, place), model, most, arrived)?;
        planner.accept(completion.expecting(expected));
        self.accepted += 1;
        self.sessions.used(id.session);
        Ok((id, revision))
    }
}

/// Where a completion is to write: found now, so that a cursor that is none is refused at once.
fn place(
    session: &Session,
    request: &Complete,
    fills: bool,
    prompt: Vec<TokenId>,
) -> Result<InsertionPoint, Fault> {
    let document = &session.document;
    let cut = |cursor| document.cut(cursor).map_err(|error| faults::at_cursor(&error));
    match (request.mode, request.at) {
        (Mode::Continue, None) => Ok(InsertionPoint::End),
        (Mode::Continue, Some(cursor)) => {
            let cut = cut(cursor)?;
            if cut.shared_prefix == session.tokens() {
                return Ok(InsertionPoint::End);
            }
            let is_empty = cut.shared_prefix == 0 && cut.prefix_end.is_empty();
            if is_empty {
                Err(faults::nothing_before(&session.name))
            } else {
                Ok(InsertionPoint::Cursor(cut))
            }
        }
        (Mode::Rewrite, _) => Ok(InsertionPoint::Behind(prompt)),
        (Mode::FillInTheMiddle, at) => {
            if !fills || document.text().is_none() {
                return Err(faults::no_markers());
            }
            Ok(InsertionPoint::Cursor(cut(at.unwrap_or(Cursor::Byte(document.len_bytes())))?))
        }
    }
}
