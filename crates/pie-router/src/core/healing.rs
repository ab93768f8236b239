//! What kept tokens say was said before the edits on their left: here it is decided which of their rows are encoded again, and when.
//! A window right behind an edit goes with the edit's own pass where its strategy asks for it; other repairs ride in passes that are
//! made anyway, as many as cost them next to nothing; the rest is done when nobody wants anything.
//!
//! **Invariant.** Nobody waits for a repair: it rides for (nearly) nothing, or is given up in the middle when somebody comes.

use super::planner::Planner;
use super::session::count;
use super::sessions::Sessions;
use pie_plan::schedule::{Limits, Schedule};
use pie_plan::{Change, Plan, PlanError, Run, Table, Work};
use pie_words::{Seq, SessionId, Splice, Splices, Strategy};
use std::ops::Range;

/// Which repairs are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repairs {
    /// Those that edits ask for by their strategy.
    WithEdits,
    /// These, and when nobody wants anything.
    WhenIdle,
    /// These, and as many as ride for next to nothing in each pass.
    Always,
}

/// How stale rows are repaired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Healing {
    /// Which are made.
    pub repairs: Repairs,
    /// With [`Strategy::Repair`]: so many kept tokens are encoded again in an edit's own pass.
    pub window: u32,
    /// Rows that a pass takes along for next to nothing; `None`: as its ranks' times show.
    pub free_rows: Option<u32>,
}

/// Places that are remembered of each document.
const PLACES: usize = 8;

/// A place where a document was edited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    /// The first kept token behind it.
    at: usize,
    window: Window,
}

/// The kept tokens right behind a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Window {
    /// The next token of a completion waits for them.
    Due,
    /// They are repaired when there is time for it.
    Spare,
    /// They were, since the edit. What is older on their left comes first from then on.
    Repaired,
}

/// Where a document was edited lately, the latest last: repairs begin there.
#[derive(Debug, Default)]
pub(super) struct Places(Vec<Place>);

impl Places {
    /// The table was edited, for whatever reason: places move along.
    pub fn follow(&mut self, splices: &Splices) {
        for place in &mut self.0 {
            let (old, mut at) = (place.at, place.at);
            for splice in splices.iter().take_while(|splice| splice.at.usize() < old) {
                // Of a deletion that reaches over the place the part in front of it counts.
                at = at + splice.insert.len()
                    - splice.end().usize().min(old).saturating_sub(splice.at.usize());
            }
            place.at = at;
        }
    }

    /// The document was edited here; the older places have followed.
    pub fn add(&mut self, splices: &Splices, strategy: Strategy) {
        let window = if strategy == Strategy::Repair { Window::Due } else { Window::Spare };
        let mut grown = 0;
        let behind = |splice: &Splice| {
            let at = splice.at.usize() + splice.insert.len() + grown;
            grown = (grown + splice.insert.len()).wrapping_sub(splice.delete as usize);
            Place { at, window }
        };
        let places: Vec<Place> = splices.iter().map(behind).collect();
        self.0.retain(|place| !places.iter().any(|new| new.at == place.at));
        self.0.extend(places);
        self.0.drain(..self.0.len().saturating_sub(PLACES));
    }

    /// Stale rows right behind the places whose windows are asked for, `rows` in all, before row `end`.
    fn windows(
        &self,
        table: &Table,
        end: usize,
        rows: usize,
        asks: impl Fn(Window) -> bool,
    ) -> Vec<Range<usize>> {
        let places: Vec<usize> =
            self.0.iter().filter(|place| asks(place.window)).map(|place| place.at).collect();
        let each = rows / places.len().max(1);
        let mut windows: Vec<_> =
            places.iter().flat_map(|at| table.stale(*at..at.saturating_add(each).min(end))).collect();
        windows.sort_by_key(|rows| rows.start);
        let mut disjoint: Vec<Range<usize>> = Vec::new();
        for rows in windows {
            match disjoint.last_mut().filter(|last| last.end >= rows.start) {
                Some(last) => last.end = last.end.max(rows.end),
                None => disjoint.push(rows),
            }
        }
        disjoint
    }

    /// The rows that are repaired next, so many of those before row `end`: right behind the latest edits, then from the frontier on.
    fn next(&self, table: &Table, end: usize, rows: usize) -> Option<Vec<Range<usize>>> {
        let latest = self.windows(table, end, rows, |window| window != Window::Repaired);
        let next = if latest.is_empty() { behind_frontier(table, end, rows) } else { latest };
        (!next.is_empty()).then_some(next)
    }

    fn repaired(&mut self) {
        self.0.iter_mut().for_each(|place| place.window = Window::Repaired);
    }
}

/// The first `rows` rows from the frontier on that are encoded, before row `end`: they become exact.
fn behind_frontier(table: &Table, end: usize, mut rows: usize) -> Vec<Range<usize>> {
    let encoded = table.encoded(table.frontier()..end);
    let taken = encoded.map(|range| {
        let range = range.start..range.end.min(range.start + rows);
        rows -= range.len();
        range
    });
    taken.take_while(|range| !range.is_empty()).collect()
}

fn length(rows: &[Range<usize>]) -> usize {
    rows.iter().map(Range::len).sum()
}

/// Rows of an idle repair at first. Fewer, when it is given up; more, when it is not.
const FIRST_QUANTUM: u32 = 16;
const LEAST_QUANTUM: u32 = 4;

/// How large repairs are that are made when nobody wants anything.
pub(super) struct Quantum(u32);

impl Default for Quantum {
    fn default() -> Self {
        Self(FIRST_QUANTUM)
    }
}

impl Quantum {
    fn learn(&mut self, is_given_up: bool, limits: Limits) {
        let next = if is_given_up { self.0 / 2 } else { self.0 * 2 };
        self.0 = next.clamp(LEAST_QUANTUM, limits.prefill_rows.max(LEAST_QUANTUM));
    }
}

/// A plan that only repairs, while the ranks carry it out: what it does counts when they have.
pub(super) struct Repairing {
    /// The plan, to be applied to the owner's tables when the ranks have done it.
    pub plan: Plan,
    /// Rows that it encodes.
    pub work: Work,
}

impl Planner {
    /// Rows that a pass takes along for next to nothing.
    pub fn free_rows(&self) -> u32 {
        self.settings.healing.free_rows.unwrap_or_else(|| self.pace.free_rows())
    }

    /// The plan in flight, if it only repairs.
    pub fn repair_in_flight(&self) -> Option<Seq> {
        let in_flight = self.in_flight.as_ref()?;
        in_flight.repairing.as_ref().map(|_| in_flight.seq)
    }

    /// Stale rows of all documents.
    pub fn stale(&self) -> usize {
        self.allotment.tables.stale().rows()
    }

    /// Adds repairs to a plan that is made anyway. Only rows that its runs encode whatever happens: a chunk of a prefill takes none
    /// along.
    pub(super) fn ride(&mut self, runs: &mut [Run], sessions: &Sessions) -> Result<(), PlanError> {
        let used: u32 = runs.iter().map(|run| self.rows_of(*run)).sum();
        let room = self.settings.limits.rows.saturating_sub(used);
        let (mut room, mut free) = (room as usize, self.free_rows().saturating_sub(used) as usize);
        if self.settings.healing.repairs != Repairs::Always {
            free = 0;
        }
        for run in runs {
            let id = run.session();
            let Some(rows) = self.ridden_by(*run, free.min(room), room, sessions) else { continue };
            let taken = length(&rows);
            if let Run::Encode { limit, .. } = run {
                *limit += count(taken);
            }
            (free, room) = (free.saturating_sub(taken), room.saturating_sub(taken));
            self.repair(id, &rows)?;
        }
        Ok(())
    }

    /// Rows of a session that its run takes along: the windows that its edits ask for, or else as many as are free.
    fn ridden_by(
        &self,
        run: Run,
        free: usize,
        room: usize,
        sessions: &Sessions,
    ) -> Option<Vec<Range<usize>>> {
        let id = run.session();
        let (table, rows) = (self.allotment.tables.table(id)?, self.allotment.tables.rows(id)?);
        if !heals(sessions.get(id)?.strategy) {
            return None;
        }
        let end = match run {
            Run::Sample { .. } => table.share(),
            Run::Encode { limit, .. } if limit as usize >= table.pending() => table.tokens().len(),
            Run::Encode { .. } => return None,
        };
        // Others wait for what a client asks for.
        let own = self.settings.healing.window;
        let most = self.limits(sessions).prefill_rows.max(own);
        let window = room.min(rows.window.unwrap_or(own).min(most) as usize);
        let due = rows.places.windows(table, end, window, |window| window == Window::Due);
        if !due.is_empty() {
            return Some(due);
        }
        rows.places.next(table, end, free)
    }

    fn rows_of(&self, run: Run) -> u32 {
        let table = self.allotment.tables.table(run.session());
        table.map_or(0, |table| match run {
            Run::Sample { .. } => count(table.context_pending()),
            Run::Encode { limit, .. } => count(table.pending()).min(limit),
        })
    }

    /// Nobody wants anything: of the sessions with stale rows the one that was served last is repaired for a moment.
    pub(super) fn repair_one(
        &mut self,
        sessions: &Sessions,
        limits: Limits,
    ) -> Result<Option<Schedule>, PlanError> {
        if self.settings.healing.repairs == Repairs::WithEdits {
            return Ok(None);
        }
        let repairable = |id| self.repairable(id, limits, sessions).map(|rows| (id, rows));
        let all = self.allotment.tables.stale().sessions().filter_map(repairable);
        // Who was served last: somebody is there.
        let latest = all.max_by_key(|(id, _)| self.allotment.tables.rows(*id).map(|rows| rows.ticket));
        let Some((session, rows)) = latest else { return Ok(None) };
        let pending = self.allotment.tables.table(session).map_or(0, Table::pending);
        let limit = count(length(&rows) + pending);
        self.repair(session, &rows)?;
        Ok(Some(Schedule { runs: vec![Run::Encode { session, limit }], passes: 1 }))
    }

    /// The rows of a session that are repaired next, if any are.
    fn repairable(&self, id: SessionId, limits: Limits, sessions: &Sessions) -> Option<Vec<Range<usize>>> {
        let (table, rows) = (self.allotment.tables.table(id)?, self.allotment.tables.rows(id)?);
        sessions.get(id).filter(|session| heals(session.strategy) && !self.allotment.asks_for_rows(id))?;
        let end = table.tokens().len();
        let in_time = limits.idle_time.rows(self.pace.row(count(end)));
        // What waits is encoded with them, and a step has so many rows (L1).
        let most = self.quantum.0.min(in_time).min(limits.rows.saturating_sub(count(table.pending())));
        rows.places.next(table, end, most as usize)
    }

    fn repair(&mut self, session: SessionId, rows: &[Range<usize>]) -> Result<(), PlanError> {
        let rows = rows.iter().map(|rows| count(rows.start)..count(rows.end)).collect();
        self.allotment.tables.stage(vec![Change::Repair { session, rows }])?;
        if let Some(rows) = self.allotment.tables.rows_mut(session) {
            rows.places.repaired();
        }
        Ok(())
    }

    /// What a plan repairs of a session, for the books.
    pub(super) fn repaired(plan: &Plan, session: SessionId) -> u32 {
        let rows = plan.changes.iter().filter(|change| change.session() == session);
        let rows = rows.map(|change| match change {
            Change::Repair { rows, .. } => rows.iter().map(|rows| rows.end - rows.start).sum(),
            _ => 0,
        });
        rows.sum()
    }

    /// The ranks have carried out a plan that only repairs, or given it up.
    pub(super) fn has_repaired(&mut self, repairing: &Repairing, is_given_up: bool) -> Result<(), PlanError> {
        let Repairing { plan, work } = repairing;
        self.quantum.learn(is_given_up, self.settings.limits);
        for sequence in &work.sequences {
            // Keys have turned whatever became of the pass.
            if let Some(rows) = self.allotment.tables.rows_mut(sequence.session) {
                rows.ahead.rotated += count(sequence.turned);
            }
        }
        if is_given_up {
            self.stats.steps.given_up.add(1);
            return self.allotment.tables.give_up(plan, work);
        }
        for sequence in &work.sequences {
            let repaired = Self::repaired(plan, sequence.session);
            self.stats.tokens.repaired.add(u64::from(repaired));
            let encoded = count(sequence.rows.len()).saturating_sub(repaired);
            self.stats.tokens.encoded.add(u64::from(encoded));
            if let Some(rows) = self.allotment.tables.rows_mut(sequence.session) {
                rows.repaired += u64::from(repaired);
                rows.ahead.encoded += encoded;
            }
        }
        Ok(())
    }
}

/// Whether the rows of documents that are edited so are repaired without being asked: of a baseline they are not.
fn heals(strategy: Strategy) -> bool {
    match strategy {
        Strategy::Pie | Strategy::Repair | Strategy::Full => true,
        Strategy::Conflict => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pie_words::{TokenId, TokenIndex};

    fn splices(list: &[(u32, u32, usize)]) -> Splices {
        let splice = |(at, delete, insert): &(u32, u32, usize)| Splice {
            at: TokenIndex(*at),
            delete: *delete,
            insert: vec![TokenId(0); *insert],
        };
        Splices::new(list.iter().map(splice).collect(), 1000).expect("they fit")
    }

    #[test]
    fn places_stay_behind_what_was_edited() {
        let mut places = Places::default();
        places.add(&splices(&[(10, 0, 5), (40, 3, 1)]), Strategy::Repair);
        let at = |places: &Places| places.0.iter().map(|place| place.at).collect::<Vec<_>>();
        assert_eq!(at(&places), [15, 46]);
        let cases = [
            (vec![(0, 0, 3)], [18, 49]),
            (vec![(15, 0, 3)], [15, 49]),
            (vec![(10, 10, 0)], [10, 36]),
            (vec![(5, 2, 0), (20, 0, 7)], [13, 51]),
            (vec![(46, 4, 0)], [15, 46]),
        ];
        for (edit, expected) in cases {
            let mut moved = Places(places.0.clone());
            moved.follow(&splices(&edit));
            assert_eq!(at(&moved), expected, "{edit:?}");
        }
        for place in 0..20 {
            places.add(&splices(&[(place * 7, 0, 1)]), Strategy::Pie);
        }
        assert_eq!(places.0.len(), PLACES);
        assert!(places.0.iter().all(|place| place.window == Window::Spare), "the older ones are forgotten");
    }
}
