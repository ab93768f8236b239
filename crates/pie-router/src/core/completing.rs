//! Completions are accepted: what could not be answered is refused at once.

use super::completion::{Completion, CompletionId, Place};
use super::session::{Session, count};
use super::{Core, Unread};
use crate::faults;
use crate::tenants::Tenant;
use pie_proto::Fault;
use pie_proto::request::{Complete, Mode};
use pie_words::Cursor;
use std::time::Instant;

/// Completions that may wait in one session.
const WAITING_LIMIT: usize = 8;

impl Core {
    /// A completion waits for its turn. What becomes of it is told as news.
    pub(crate) fn complete(
        &mut self,
        tenant: &Tenant,
        mut request: Complete,
        arrived: Instant,
        unread: Unread,
    ) -> Result<CompletionId, Fault> {
        let session = self.sessions.find(tenant, &request.session, request.identity.as_ref())?;
        let planner = self.planner.as_mut().map_err(|why| faults::group_lost(why))?;
        faults::check_completion(&request, session, &self.model.facts)?;
        if planner.completions(session.id) >= WAITING_LIMIT {
            return Err(faults::too_many_waiting(WAITING_LIMIT, &session.name));
        }
        self.model.check(&session.document)?;
        if unread.all >= self.settings.completions {
            return Err(faults::too_many_completions(self.settings.completions));
        }
        self.sessions.tenants.check_request(tenant, unread.own)?;
        let place = faults::contained(|| place(session, &request, self.model.fim.is_some()))?;
        let context = self.model.context(&session.document, &place, request.mode);
        let length = context.length(session.tokens());
        self.model.check_length(length)?;
        planner.check_slots(length)?;
        request.max_tokens = request.max_tokens.min(count(self.model.room(length)));
        self.accepted += 1;
        let id = CompletionId { session: session.id, number: self.accepted };
        let place = (session.revision(), place);
        planner.accept(Completion::new(id, request, place, &self.model.facts, &self.tokenizer, arrived));
        self.sessions.used(id.session);
        Ok(id)
    }
}

/// Where a completion is to write: found now, so that a cursor that is none is refused at once.
fn place(session: &Session, request: &Complete, fills: bool) -> Result<Place, Fault> {
    let document = &session.document;
    let cut = |cursor| document.cut(cursor).map_err(|error| faults::at_cursor(&error));
    match (request.mode, request.at) {
        (Mode::Continue, None) => Ok(Place::End),
        (Mode::Continue, Some(cursor)) => {
            let cut = cut(cursor)?;
            if cut.shared_prefix == session.tokens() {
                return Ok(Place::End);
            }
            let is_empty = cut.shared_prefix == 0 && cut.prefix_end.is_empty();
            if is_empty { Err(faults::nothing_before(&session.name)) } else { Ok(Place::Cursor(cut)) }
        }
        (Mode::FillInTheMiddle, at) => {
            if !fills || document.text().is_none() {
                return Err(faults::no_markers());
            }
            Ok(Place::Cursor(cut(at.unwrap_or(Cursor::Byte(document.len_bytes())))?))
        }
    }
}
