//! What a new owner finds with the ranks: documents, under the names that the ranks' tables have for them, and the tables, which
//! go on where they are.

use super::planner::Planner;
use super::session::Session;
use super::{Ack, Core};
use crate::call::ImportedSession;
use pie_plan::Change;
use pie_plan::ledger::Position;
use pie_text::splices_between;
use pie_words::{SessionId, TokenId};

/// A document that the ranks kept.
#[derive(Debug)]
pub struct Recalled {
    /// Its name in plans.
    pub id: SessionId,
    /// The session.
    pub taken: ImportedSession,
}

/// All that they kept, and where their ledgers are that have just that.
#[derive(Debug)]
pub struct Recollection {
    /// Of the ledger that it was read from.
    pub position: Position,
    /// In order of their ids.
    pub sessions: Vec<Recalled>,
}

impl Core {
    /// The documents that a group's ranks kept, before it is served. Of two of one name the greater revision is right; the ranks'
    /// name for it in plans stays.
    pub fn recall(&mut self, recollection: Recollection) {
        let Recollection { position, sessions } = recollection;
        let is_all = self.sessions.count() == 0;
        let highest = sessions.iter().map(|recalled| recalled.id).max();
        self.sessions.reserve(highest.unwrap_or_default());
        let (present, count) = (self.sessions.take_out(), sessions.len());
        for Recalled { id, taken } in sessions {
            self.sessions.insert_as(id, taken);
        }
        for session in present {
            self.sessions.put_back(session);
        }
        if is_all {
            self.sessions.journal.recalled(position);
        }
        // Where changes are told before the ranks have them, some may have been told that they never got.
        if self.settings.ack == Ack::Replicated {
            self.recalled = self.recalled.max(position.epoch);
        }
        self.stats.sessions.recalled.add(count as u64);
    }
}

impl Planner {
    /// A session whose table the ranks have. Where its document is another by now, the difference is an edit like any other.
    pub(super) fn goes_on(&mut self, session: &Session) {
        let id = session.id;
        self.allotment.tables.insert(id, session.tenant.clone());
        let Some(table) = self.allotment.tables.table(id) else { return };
        let (held, pending) = (table.tokens(), table.pending());
        let document: Vec<TokenId> = session.document.tokens().collect();
        let (layout, old) = self.allotment.model.recognized(held, &document, session.document.leading());
        let splices = splices_between(&old, &document);
        if old.len() == splices.deleted() {
            // Nothing of it is of use.
            self.changes.push_back(Change::Clear { session: id });
            self.allotment.encoding.asleep.push(id);
            return;
        }
        self.allotment.tables.goes_on(id, layout);
        if !splices.is_empty() {
            self.edited(session, splices, session.following);
        }
        if let Some(rows) = self.allotment.tables.rows_mut(id) {
            rows.ahead.add(pending);
        }
        self.allotment.encoding.active.insert(id);
    }

    /// Tables of sessions that nobody knows.
    pub(super) fn drops(&mut self, ids: Vec<SessionId>) {
        self.changes.extend(ids.into_iter().map(|session| Change::Close { session }));
    }
}
