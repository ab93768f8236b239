//! What documents and completions may grow to: checked where one of them grows, and, since both do, again where rows are
//! planned. What a model cannot see never reaches a rank: it would end the epoch for all.

use super::stepping::Planned;
use super::{Core, Replica};
use crate::completion::Place;
use crate::faults;
use crate::session::Session;
use crate::stats::Outcome;
use crate::tenants::Tenant;
use pie_plan::{PlanError, Run, SessionId, Splices};
use pie_proto::Fault;
use pie_proto::request::Mode;

impl Core {
    /// Whether a document may change so: the model's context, the cache, and the tenant have limits. One that is above them
    /// already, since another model serves it than when it was opened, may shrink.
    pub(super) fn check_growth(&self, session: &Session, splices: &Splices) -> Result<(), Fault> {
        let before = session.tokens();
        let after = before - splices.deleted() + splices.inserted();
        if after <= before {
            return Ok(());
        }
        self.check_length(after)?;
        self.check_slots(after)?;
        self.tenants.check_growth(&session.tenant, after - before)
    }

    /// Bounded queues: work that is admitted keeps its latency. A completion counts until its last message is read.
    pub(super) fn check_load(&mut self, tenant: &Tenant) -> Result<(), Fault> {
        self.streams.retain(|(_, stream)| !stream.is_over());
        if self.streams.len() >= self.settings.completions {
            return Err(faults::too_many_completions(self.settings.completions));
        }
        if !self.tenants.limits_requests(tenant) {
            return Ok(());
        }
        let theirs = self.streams.iter().filter(|(whose, _)| whose == tenant);
        self.tenants.check_request(tenant, theirs.count())
    }

    /// A context must leave room for a token to generate.
    pub(super) fn check_length(&self, tokens: usize) -> Result<(), Fault> {
        let limit = self.model.context_limit as usize;
        if limit > 0 && tokens >= limit {
            return Err(faults::too_long(tokens, limit));
        }
        Ok(())
    }

    /// Tokens that may be generated behind a context.
    pub(super) fn room(&self, context: usize) -> usize {
        (self.model.context_limit as usize).saturating_sub(context)
    }

    /// Whether the model can see a document: another one may serve than when it was opened.
    pub(super) fn check_fit(&self, session: &Session) -> Result<(), Fault> {
        self.check_length(session.tokens())?;
        faults::check_tokens(&session.document, self.vocabulary())
    }

    /// A document must fit in the cache alone, with a token to generate; for that others make room.
    pub(super) fn check_slots(&self, tokens: usize) -> Result<(), Fault> {
        match &self.replica {
            Replica::Serving(group) if tokens >= group.capacity() => {
                Err(faults::no_slots(tokens + 1, group.capacity()))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn vocabulary(&self) -> Option<u32> {
        (self.model.vocabulary > 0).then_some(self.model.vocabulary)
    }

    /// How a completion's context is laid out.
    pub(super) fn layout(&self, session: &Session, place: &Place, mode: Mode) -> Planned {
        match (place, mode, self.markers) {
            (Place::Cursor(cut), Mode::FillInTheMiddle, Some(markers)) => {
                let prefix = self.tokenizer.prefix().len();
                Planned::Fim(Self::fim_layout(session, cut, markers, prefix))
            }
            (Place::Cursor(cut), ..) => Planned::Branch { kept: cut.kept, front: cut.front.clone() },
            (Place::End, ..) => Planned::Document,
        }
    }

    /// Completions whose context has grown to the model's limit, by what they wrote or by edits before them, are over.
    pub(super) fn end_at_limit(&mut self) {
        let mut over = Vec::new();
        for id in &self.active {
            let table = self.group().and_then(|group| group.table(*id));
            let Some(room) = table.map(|table| self.room(table.context_length())) else { continue };
            let session = self.sessions.get_mut(id);
            let Some(front) = session.and_then(|session| session.completions.front_mut()) else { continue };
            if front.has_begun() && !front.fits_in(room) {
                over.push(*id);
            }
        }
        for id in over {
            if let Some(completion) = self.end_front(id) {
                self.stats.ended(Outcome::Finished);
                completion.end_by_length();
            }
        }
    }

    /// Takes out of a plan what the model could not see. No call leads here: each was checked. But a rank that refuses rows
    /// ends the epoch for everybody, and this refuses one session.
    pub(super) fn refuse_beyond(&mut self, runs: &mut Vec<Run>) -> Result<(), PlanError> {
        let (positions, tokens) = (self.model.context_limit as usize, self.vocabulary().unwrap_or(u32::MAX));
        let Some(group) = self.group() else { return Ok(()) };
        let is_beyond = |run: &Run| {
            let reach = group.reach(*run);
            (positions > 0 && reach.positions > positions) || reach.tokens > tokens
        };
        let beyond: Vec<SessionId> = runs.iter().filter(|run| is_beyond(run)).map(Run::session).collect();
        runs.retain(|run| !beyond.contains(&run.session()));
        let fault = faults::beyond_the_model();
        beyond.into_iter().try_for_each(|id| self.refuse(id, &fault))
    }

    /// A session, or the shadow of one, of which the ranks can make nothing.
    pub(super) fn refuse(&mut self, id: SessionId, fault: &Fault) -> Result<(), PlanError> {
        tracing::error!(group = %self.group_name, session = id.0, %fault, "the ranks refuse a session's rows");
        let shadows = |session: &&Session| session.shadow == Some(id);
        match self.sessions.values().find(shadows).map(|session| session.id) {
            Some(id) => self.end_shadow(id),
            None if self.sessions.contains_key(&id) => self.give_up(id, fault),
            None => Ok(()),
        }
    }
}
