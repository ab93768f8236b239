//! Which sessions hold rows, and who loses his when slots run short.
//!
//! **Invariant.** A session's rows are its document's, laid out for its running completion; it has all of them or none. Who takes
//! slots from another does it by the rules of [`super::room`].

use super::completion::Before;
use super::completions::Completions;
use super::encoding::EncodingBacklog;
use super::layout::Layout;
use super::model::ServedModel;
use super::room::Spare;
use super::rows::AHEAD_TOKENS;
use super::session::{Session, count};
use super::sessions::Sessions;
use super::spilling::{OnDisk, Spilling};
use super::tables::Tables;
use crate::faults;
use pie_plan::{Change, PlanError};
use pie_proto::Fault;
use pie_proto::request::Exactness;
use pie_words::{SessionId, Splices, Strategy, TokenId};
use std::sync::Arc;

/// See the module. Completions are part of it: one whose session loses its rows fails.
pub(crate) struct Allotment {
    pub(super) tables: Tables,
    pub(super) completions: Completions,
    pub(super) encoding: EncodingBacklog,
    pub(super) model: Arc<ServedModel>,
    pub(super) spilling: Spilling,
}

impl Allotment {
    /// A document changed: so do its rows, if it has any. Else they are made of the document as it is, when they are wanted.
    pub(super) fn splice(
        &mut self,
        id: SessionId,
        splices: &Splices,
        strategy: Strategy,
        sessions: &Sessions,
    ) -> Result<(), PlanError> {
        let Some(layout) = self.tables.rows(id).and_then(|rows| rows.layout.as_ref()) else { return Ok(()) };
        // Parts that come or go: markers stand behind them, whatever place an insertion names.
        let leading = sessions.get(id).map_or(0, |session| session.document.leading());
        let is_of_the_lead = splices.iter().any(|splice| splice.at.usize() < leading);
        let (splices, layout) = match layout {
            Layout::Turned(turned) => match turned.edited(splices, self.tables.document_rows(id)) {
                Some((splices, turned)) if !is_of_the_lead => (splices, Layout::Turned(turned)),
                // The document says what is to be held, when it is wanted again.
                _ => return self.give_up(id, &faults::all_busy()),
            },
            // The hole moves anyway. Markers at both ends stay: what stands behind one that goes and comes would be stale.
            Layout::Plain | Layout::Patched(_) => {
                let closed = layout.without_hole();
                if self.lay_out(id, closed.clone(), sessions)?.is_none() {
                    return Ok(());
                }
                match closed.edited(splices) {
                    Some(edited) if !is_of_the_lead => edited,
                    _ if self.lay_out(id, Layout::Plain, sessions)?.is_none() => return Ok(()),
                    _ => (splices.clone(), Layout::Plain),
                }
            }
        };
        let Some(adopted) = self.in_room(id, |tables| tables.splice(id, &splices, strategy))? else {
            // It alone is too large beside those that are busy: it waits until they are not.
            return self.give_up(id, &faults::all_busy());
        };
        if let Some(rows) = self.tables.rows_mut(id) {
            rows.layout = Some(layout);
            rows.places.add(&splices, strategy);
            rows.adopted += u32::try_from(adopted).unwrap_or(u32::MAX);
        }
        self.encoding.active.insert(id);
        // What an ended completion left is kept as long as it may be adopted.
        let runs = self.completions.front(id).is_some_and(|front| front.has_begun());
        if !runs && self.tables.table(id).is_some_and(|table| !table.may_adopt()) {
            self.tables.stage(vec![Change::EndBranch { session: id }])?;
        }
        Ok(())
    }

    /// Moves a table's markers: an edit of the table, whatever the document does. `None`: there is no room.
    pub(super) fn lay_out(
        &mut self,
        id: SessionId,
        layout: Layout,
        sessions: &Sessions,
    ) -> Result<Option<()>, PlanError> {
        let (Some(rows), Some(session)) = (self.tables.rows(id), sessions.get(id)) else { return Ok(None) };
        let Some(present) = rows.layout.as_ref().filter(|present| **present != layout) else {
            return Ok(rows.layout.as_ref().map(|_| ()));
        };
        // The document's own tokens are asked for where it is turned around alone: no change of it waits then.
        let tokens: Vec<TokenId> = match (present, &layout) {
            (Layout::Plain | Layout::Patched(_), Layout::Plain | Layout::Patched(_)) => Vec::new(),
            _ => session.document.tokens().collect(),
        };
        let (go, come) = present.change(&layout, self.tables.document_rows(id), &tokens);
        for splices in [go, come] {
            if self.in_room(id, |tables| tables.splice(id, &splices, session.following.strategy))?.is_none() {
                // Half way between two layouts it is neither; the document says what it is.
                self.give_up(id, &faults::all_busy())?;
                return Ok(None);
            }
        }
        if let Some(rows) = self.tables.rows_mut(id) {
            rows.layout = Some(layout);
        }
        Ok(Some(()))
    }

    /// Gives a session's document rows, if it has none, the model sees it, and there is room.
    pub(super) fn restore(&mut self, id: SessionId, sessions: &Sessions) -> Result<(), PlanError> {
        let (Some(rows), Some(session)) = (self.tables.rows(id), sessions.get(id)) else { return Ok(()) };
        if rows.layout.is_some() || self.model.check(&session.document).is_err() {
            return Ok(());
        }
        let tokens: Vec<TokenId> = session.document.tokens().collect();
        if self.in_room(id, |tables| tables.hold(id, &tokens, session.following.strategy))?.is_some() {
            self.encoding.active.insert(id);
            if let Some(rows) = self.tables.rows_mut(id).filter(|_| self.model.facts.spills) {
                rows.disk = OnDisk::asking();
            }
        }
        Ok(())
    }

    /// Nobody wants anything: the latest used of the sessions of which the ranks hold nothing gets rows, if there are enough that
    /// nobody has, so that its next completion need not wait. False when there is none.
    pub(super) fn wake_one(&mut self, sessions: &Sessions) -> Result<bool, PlanError> {
        while let Some(id) = self.encoding.asleep.pop() {
            let (Some(rows), Some(session)) = (self.tables.rows(id), sessions.get(id)) else { continue };
            // What is less than this is encoded with the first token of its next completion, in one pass.
            let is_worth_it = rows.layout.is_none() && session.tokens() >= AHEAD_TOKENS;
            let has_room = session.tokens() < self.tables.group().free_slots();
            if is_worth_it && has_room && self.model.check(&session.document).is_ok() {
                self.restore(id, sessions)?;
                self.encoding.unasked.insert(id);
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// A session of which the ranks can make nothing.
    pub(super) fn refuse(&mut self, id: SessionId, fault: &Fault) -> Result<(), PlanError> {
        let epoch = self.tables.group().epoch().0;
        tracing::error!(epoch, session = id.0, %fault, "the ranks refuse a session's rows");
        if self.tables.rows(id).is_some() { self.give_up(id, fault) } else { Ok(()) }
    }

    /// Completions whose context has grown to the model's limit, by what they wrote or by edits before them, are over.
    pub(super) fn end_at_limit(&mut self) {
        for id in &self.encoding.active {
            if let Some(table) = self.tables.table(*id) {
                self.completions.limit_front(*id, self.model.room(table.context_length()));
            }
        }
    }

    /// The first completion of each session takes its place: rows where there are none, a branch at its cursor, markers.
    pub(super) fn begin_completions(&mut self, sessions: &Sessions) -> Result<(), PlanError> {
        for id in self.completions.sessions_to_begin() {
            // Who came before may have needed its rows, so that it failed.
            let Some(session) = sessions.get(id).filter(|_| self.completions.are_in(id)) else { continue };
            self.restore(id, sessions)?;
            if self.asks_for_rows(id) {
                continue;
            }
            // From here on its table has what the completion needs, and is looked for in no other form.
            if let Some(rows) = self.tables.rows_mut(id) {
                rows.disk.asks_no_more();
            }
            // One that cannot begin fails, and leaves its place to the next.
            while self.completions.front(id).is_some_and(|front| !front.has_begun()) {
                if let Some(fault) = self.begin(session, sessions)? {
                    self.completions.fail_front(id, &fault);
                }
            }
        }
        Ok(())
    }

    /// A session's first completion begins, if it can. If not, why.
    fn begin(&mut self, session: &Session, sessions: &Sessions) -> Result<Option<Fault>, PlanError> {
        let id = session.id;
        let Some(front) = self.completions.front(id) else { return Ok(None) };
        if self.tables.rows(id).is_none_or(|rows| rows.layout.is_none()) {
            return Ok(Some(faults::all_busy()));
        }
        let exactness = front.exactness();
        let context = self.model.context(&session.document, &front.place, front.mode());
        let length = context.length(session.tokens()) + front.generated().len();
        let room = self.model.room(length);
        // Before anything of it is staged: the table stays as it is.
        if room == 0 {
            return Ok(Some(faults::too_long(length, self.model.facts.context_limit as usize)));
        }
        let (layout, branch) = context.into_table(session, front.generated());
        if self.lay_out(id, layout, sessions)?.is_none() {
            return Ok(Some(faults::all_busy()));
        }
        if exactness == Exactness::Exact {
            self.make_exact(id, &branch)?;
        }
        if self.in_room(id, |tables| tables.stage(vec![branch.clone()]))?.is_none() {
            return Ok(Some(faults::all_busy()));
        }
        if let Some(rows) = self.tables.rows_mut(id) {
            let (ahead, adopted) = (rows.ahead.take(), std::mem::take(&mut rows.adopted));
            let before = Before { edited: session.edited, encoded: ahead.encoded, adopted };
            self.completions.begin(id, count(length), count(room), before, ahead.rotated);
        }
        Ok(None)
    }

    /// What a completion sees of its document is encoded again as far as it has to be. Its branch begins behind that: a plan whose latest
    /// change of a session is a repair is one that nobody waits for, and is given up when somebody comes.
    fn make_exact(&mut self, session: SessionId, branch: &Change) -> Result<(), PlanError> {
        let Some(table) = self.tables.table(session) else { return Ok(()) };
        let end = match branch {
            Change::Branch { at, .. } => at.usize(),
            _ => table.tokens().len(),
        };
        let rows = table.encoded(table.frontier().min(end)..end);
        let rows: Vec<_> = rows.map(|rows| count(rows.start)..count(rows.end)).collect();
        if !rows.is_empty() {
            self.tables.stage(vec![Change::Repair { session, rows }])?;
        }
        Ok(())
    }

    /// Makes changes for a session; others make room for them, if they can. `None`: all slots belong to sessions that are busy.
    fn in_room<T>(
        &mut self,
        asks: SessionId,
        mut change: impl FnMut(&mut Tables) -> Result<T, PlanError>,
    ) -> Result<Option<T>, PlanError> {
        loop {
            match change(&mut self.tables) {
                Err(PlanError::OutOfSlots { .. }) => {
                    if !self.make_room(asks)? {
                        return Ok(None);
                    }
                }
                changed => return changed.map(Some),
            }
        }
    }

    /// One session less takes slots that it does not need now. False when nobody can.
    pub(super) fn make_room(&mut self, asks: SessionId) -> Result<bool, PlanError> {
        match self.tables.spare(asks, |id| self.completions.are_in(id)) {
            Some(Spare::Branch(session)) => drop(self.tables.stage(vec![Change::EndBranch { session }])?),
            Some(Spare::Document(id)) => self.clear(id)?,
            Some(Spare::Busy(id)) => self.give_up(id, &faults::others_need_slots())?,
            None => return Ok(false),
        }
        Ok(true)
    }

    fn clear(&mut self, id: SessionId) -> Result<(), PlanError> {
        self.encoding.cleared(id);
        self.tables.clear(id)
    }

    /// A session's rows go, and what waits in it fails.
    fn give_up(&mut self, id: SessionId, fault: &Fault) -> Result<(), PlanError> {
        self.completions.fail_in(id, fault);
        self.clear(id)
    }
}
