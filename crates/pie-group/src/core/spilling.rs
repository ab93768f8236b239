//! Which rows the ranks write to disk, and which they are asked for before they are encoded again.
//!
//! **Invariant.** Nobody waits for a block to be written. A session that was just given slots is not encoded before the ranks were asked what
//! they have of it; they say at once, and the first block that they lack ends it.

use super::allotment::Allotment;
use super::layout::Layout;
use super::session::{Session, count};
use super::sessions::Sessions;
use crate::tenants::{Sharing, Tenant};
use pie_plan::blocks::{BLOCK, Block, PlanBlocks, Realm};
use pie_plan::{PlanError, Run, Table};
use pie_words::{SessionId, TokenIndex};
use std::cmp::Reverse;
use std::time::{Duration, Instant};

/// A document that nobody uses for so long is written: one that is typed in is another with each key.
const UNUSED: Duration = Duration::from_secs(10);
/// Between two blocks that are written: disks have their pace, and others use the ranks.
const PAUSE: Duration = Duration::from_millis(100);
/// Documents are looked through no oftener, where none was due.
const LOOK: Duration = Duration::from_secs(1);
/// Sessions that read a block in one plan: others wait for it.
const RELOADS: usize = 2;

/// What a session's rows have to do with the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct OnDisk {
    /// What the ranks are asked for.
    asks: Asks,
    /// Leading rows that were written, or read.
    kept: usize,
}

/// The form in which a document is looked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Asks {
    /// It is not, or no more.
    #[default]
    Nothing,
    /// As it is.
    Plain,
    /// As it is, in vain: it may have been written with the markers of a completion in its middle.
    NotPlain,
    /// With markers.
    Marked,
    /// With markers, in vain.
    NotMarked,
}

impl OnDisk {
    /// The session was given slots, and none of its own rows are encoded.
    pub fn asking() -> Self {
        Self { asks: Asks::Plain, kept: 0 }
    }

    /// The table changed: of so many leading rows whole blocks are exact.
    pub fn follow(&mut self, whole_blocks: usize) {
        self.kept = self.kept.min(whole_blocks);
    }

    /// Nothing is read any more.
    pub fn asks_no_more(&mut self) {
        self.asks = Asks::Nothing;
    }

    fn lacks(&mut self) {
        self.asks = match self.asks {
            Asks::Plain if self.kept == 0 => Asks::NotPlain,
            Asks::Marked if self.kept == 0 => Asks::NotMarked,
            _ => Asks::Nothing,
        };
    }
}

/// When documents are looked through for what is to be written: there may be many, and few change.
#[derive(Debug, Default)]
pub(super) struct Spilling {
    /// Not before; at once, where there is no time.
    next: Option<Instant>,
}

impl Spilling {
    fn is_due(&self, now: Instant) -> bool {
        self.next.is_none_or(|next| next <= now)
    }
}

fn realm(tenant: &Tenant, sharing: Sharing) -> Realm {
    match sharing {
        Sharing::AcrossTenants => Realm(0),
        Sharing::WithinTenant => Realm(tenant.digest()),
    }
}

impl Allotment {
    /// Whether the ranks are still asked for rows of a session.
    pub(super) fn asks_for_rows(&self, id: SessionId) -> bool {
        let asks = self.tables.rows(id).is_some_and(|rows| rows.disk.asks != Asks::Nothing);
        asks && self.tables.table(id).is_some_and(|table| table.missing_block().is_some())
    }

    /// Sessions of whose rows they are.
    pub(super) fn asking(&self) -> impl Iterator<Item = SessionId> + '_ {
        self.encoding.active.iter().copied().filter(|id| self.asks_for_rows(*id))
    }

    /// The blocks of the next plan, which has these runs.
    pub(super) fn blocks(&mut self, runs: &[Run], sessions: &Sessions, now: Instant) -> PlanBlocks {
        if !self.model.facts.spills {
            return PlanBlocks::default();
        }
        let mut spilled = None;
        if self.spilling.is_due(now) {
            spilled = self.spill(runs, sessions, now);
            self.spilling.next = Some(now + if spilled.is_some() { PAUSE } else { LOOK });
        }
        PlanBlocks { spilled: spilled.into_iter().collect(), reloaded: self.reloads() }
    }

    /// Those for whose first token somebody waits come first.
    fn reloads(&self) -> Vec<Block> {
        let mut asking: Vec<SessionId> = self.asking().collect();
        asking.sort_by_key(|id| {
            (Reverse(self.completions.are_in(*id)), self.tables.rows(*id).map(|rows| rows.ticket))
        });
        let missing = |id: SessionId| {
            let rows = self.tables.table(id).and_then(Table::missing_block)?;
            Some(self.block(id, rows.end))
        };
        asking.into_iter().filter_map(missing).take(RELOADS).collect()
    }

    /// Before anybody is served: who has been looked for in vain waits no longer, nor does who lacks no whole block.
    pub(super) fn take_forms(&mut self, sessions: &Sessions) -> Result<(), PlanError> {
        let asked =
            |id: &SessionId| self.tables.rows(*id).is_some_and(|rows| rows.disk.asks != Asks::Nothing);
        let asked: Vec<SessionId> = self.encoding.active.iter().copied().filter(asked).collect();
        for id in asked {
            if self.asks_for_rows(id) {
                self.take_form(id, sessions)?;
            } else if let Some(rows) = self.tables.rows_mut(id) {
                rows.disk.asks_no_more();
            }
        }
        Ok(())
    }

    /// A document that is not on disk in one form is looked for in the next. Nothing of it is encoded yet, so that costs nothing.
    fn take_form(&mut self, id: SessionId, sessions: &Sessions) -> Result<(), PlanError> {
        let (Some(rows), Some(session)) = (self.tables.rows(id), sessions.get(id)) else { return Ok(()) };
        let is_bare = self.tables.table(id).is_some_and(|table| table.frontier() == 0);
        // Nobody makes room for a look.
        let (tokens, free) = (session.tokens(), self.tables.group().free_slots());
        let fits = |layout: &Layout| layout.length(tokens) <= tokens + free;
        let (asks, layout) = match rows.disk.asks {
            Asks::Nothing | Asks::Plain | Asks::Marked => return Ok(()),
            Asks::NotPlain => {
                match self.model.markers(&session.document).filter(|marked| is_bare && fits(marked)) {
                    Some(marked) => (Asks::Marked, marked),
                    None => (Asks::Nothing, Layout::Plain),
                }
            }
            Asks::NotMarked => (Asks::Nothing, Layout::Plain),
        };
        self.lay_out(id, layout, sessions)?;
        if let Some(rows) = self.tables.rows_mut(id) {
            rows.disk.asks = asks;
        }
        Ok(())
    }

    /// The ranks were asked for blocks, and have read those of some sessions.
    pub(super) fn reloaded(&mut self, asked: &[Block], read: &[SessionId]) -> Result<(), PlanError> {
        for block in asked {
            let is_read = read.contains(&block.session);
            if is_read {
                self.tables.reloaded(block)?;
            }
            let Some(rows) = self.tables.rows_mut(block.session) else { continue };
            if is_read { rows.disk.kept = block.end.usize() } else { rows.disk.lacks() }
        }
        Ok(())
    }

    /// Nobody wants anything: holes of documents that nobody uses are closed. One would be part of all that stands behind it, and the next is
    /// elsewhere. What it leaves stale is repaired, and written then.
    pub(super) fn close_holes(&mut self, sessions: &Sessions, now: Instant) -> Result<(), PlanError> {
        if !self.model.facts.spills || !self.spilling.is_due(now) {
            return Ok(());
        }
        let unused: Vec<SessionId> = self.unused(sessions, now).map(|session| session.id).collect();
        for id in unused {
            let layout = self.tables.rows(id).and_then(|rows| rows.layout.as_ref());
            let Some(layout @ Layout::Patched(_)) = layout else { continue };
            let closed = layout.without_hole();
            if closed != *layout {
                self.lay_out(id, closed, sessions)?;
            }
        }
        Ok(())
    }

    /// A block of the document that was used least recently, of those that nobody uses now.
    fn spill(&mut self, runs: &[Run], sessions: &Sessions, now: Instant) -> Option<Block> {
        let unused = self.unused(sessions, now).map(|session| (session.used, session.id));
        let mut unused: Vec<(Instant, SessionId)> = unused.collect();
        unused.sort_unstable();
        for (_, id) in unused {
            if runs.iter().any(|run| run.session() == id) {
                continue;
            }
            let Some(end) = self.next_block(id) else {
                // All is written that is exact: it comes back when its table changes.
                self.tables.written(id);
                continue;
            };
            if let Some(rows) = self.tables.rows_mut(id) {
                rows.disk.kept = end;
            }
            return Some(self.block(id, end));
        }
        None
    }

    /// Sessions that nobody uses now, of those whose tables changed since they were written.
    fn unused<'a>(&'a self, sessions: &'a Sessions, now: Instant) -> impl Iterator<Item = &'a Session> {
        let sessions = self.tables.unwritten().filter_map(|id| sessions.get(id));
        sessions.filter(move |session| {
            let is_busy = self.completions.are_in(session.id) || self.asks_for_rows(session.id);
            session.used + UNUSED <= now && !is_busy
        })
    }

    /// The end of a session's next block that is exact and not on disk.
    fn next_block(&self, id: SessionId) -> Option<usize> {
        let (rows, table) = (self.tables.rows(id)?, self.tables.table(id)?);
        // Turned around it would not be found again: what stands behind the cursor comes first there.
        let is_found = matches!(rows.layout, Some(Layout::Plain | Layout::Patched(_)));
        (is_found && rows.disk.kept < table.whole_blocks()).then_some(rows.disk.kept + BLOCK)
    }

    /// When documents are to be looked through, if nothing else happens.
    pub(super) fn spill_due(&self) -> Option<Instant> {
        let is_needed = self.model.facts.spills && self.tables.unwritten().next().is_some();
        if is_needed { self.spilling.next } else { None }
    }

    fn block(&self, session: SessionId, end: usize) -> Block {
        let tenant = self.tables.rows(session).map(|rows| &rows.tenant);
        let realm = tenant.map_or(Realm(0), |tenant| realm(tenant, self.tables.sharing()));
        Block { session, end: TokenIndex(count(end)), realm }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenants_find_their_own_blocks_alone() {
        let [a, b] = ["a", "b"].map(|name| Tenant::new(name).expect("a right name"));
        let within = |tenant: &Tenant| realm(tenant, Sharing::WithinTenant);
        assert!(within(&a) == within(&a) && within(&a) != within(&b));
        assert_eq!(realm(&a, Sharing::AcrossTenants), realm(&b, Sharing::AcrossTenants));
    }

    #[test]
    fn a_document_is_looked_for_in_both_forms_and_no_further() {
        let mut disk = OnDisk::asking();
        disk.lacks();
        assert_eq!(disk.asks, Asks::NotPlain);
        disk.asks = Asks::Marked;
        let mut some = OnDisk { kept: BLOCK, ..disk };
        some.lacks();
        assert_eq!(some.asks, Asks::Nothing, "the rest of it was not written");
        disk.lacks();
        assert_eq!(disk.asks, Asks::NotMarked);
    }
}
