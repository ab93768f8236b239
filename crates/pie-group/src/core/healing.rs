//! What kept tokens say was said before the edits on their left: here it is decided which of their rows are encoded again, and when.
//! A window right behind an edit goes with the edit's own pass where its strategy asks for it; other repairs ride in passes that are
//! made anyway, as many as cost them next to nothing; the rest is done when nobody wants anything.
//!
//! **Invariant.** Nobody waits for a repair: it rides for (nearly) nothing, or is given up in the middle when somebody comes.

use super::allotment::Allotment;
use super::pace::Pace;
use super::places::Window;
use super::session::count;
use super::sessions::Sessions;
use crate::stats::Stats;
use pie_plan::schedule::{Limits, Schedule};
use pie_plan::{Change, Plan, PlanError, Run, Table, Work};
use pie_words::{SessionId, Strategy};
use std::ops::Range;

/// Which repairs are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RepairPolicy {
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
    pub repairs: RepairPolicy,
    /// With [`Strategy::Repair`]: so many kept tokens are encoded again in an edit's own pass.
    pub window: u32,
    /// Rows that a pass takes along for next to nothing; `None`: as its ranks' times show.
    pub free_rows: Option<u32>,
}

/// Rows of an idle repair at first. Fewer, when it is given up; more, when it is not.
const FIRST_QUANTUM: u32 = 16;
const LEAST_QUANTUM: u32 = 4;

/// How large repairs are that are made when nobody wants anything.
struct Quantum(u32);

impl Default for Quantum {
    fn default() -> Self {
        Self(FIRST_QUANTUM)
    }
}

impl Quantum {
    fn learn(&mut self, end: RepairEnd, limits: Limits) {
        let next = match end {
            RepairEnd::GivenUp => self.0 / 2,
            RepairEnd::Done => self.0 * 2,
        };
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

/// Rows of a session that a plan in flight repairs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct UnderRepair {
    /// The first of them.
    pub first: Option<usize>,
    /// How many.
    pub rows: usize,
}

impl Repairing {
    /// Those of a session.
    pub fn of(&self, session: SessionId) -> UnderRepair {
        let own = self.work.sequences.iter().filter(|sequence| sequence.session == session);
        let rows = own.flat_map(|sequence| &self.work.rows[sequence.rows.clone()]);
        let first = rows.map(|row| row.position.usize()).min();
        UnderRepair { first, rows: repaired_by(&self.plan, session) as usize }
    }
}

/// How the ranks ended a plan that only repairs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RepairEnd {
    /// All of it was carried out.
    Done,
    /// Somebody came, and it was given up.
    GivenUp,
}

/// What repairs may take of a plan that is made anyway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RideRoom {
    /// Rows of the step, all in all (L1).
    pub rows: u32,
    /// Rows up to which it costs next to nothing.
    pub free: u32,
    /// The widest window that a client may ask for.
    pub window: u32,
}

/// Decides what is repaired.
pub(super) struct Healer {
    healing: Healing,
    quantum: Quantum,
}

impl Healer {
    /// Before anything was repaired.
    pub fn new(healing: Healing) -> Self {
        Self { healing, quantum: Quantum::default() }
    }

    /// Rows that a pass takes along for next to nothing.
    pub fn free_rows(&self, pace: Pace) -> u32 {
        self.healing.free_rows.unwrap_or_else(|| pace.free_rows())
    }

    /// Whether anything is repaired that no edit asks for.
    pub fn repairs_when_idle(&self) -> bool {
        self.healing.repairs != RepairPolicy::WithEdits
    }

    /// Adds repairs to a plan that is made anyway: of `room`, what is free. Only rows that its runs encode whatever happens: a chunk of
    /// a prefill takes none along.
    pub fn ride(
        &self,
        allotment: &mut Allotment,
        runs: &mut [Run],
        room: RideRoom,
        sessions: &Sessions,
    ) -> Result<(), PlanError> {
        let used: u32 = runs.iter().map(|run| rows_of(allotment, *run)).sum();
        let RideRoom { rows, free, window } = room;
        let (mut room, mut free) = (rows.saturating_sub(used) as usize, free.saturating_sub(used) as usize);
        if self.healing.repairs != RepairPolicy::Always {
            free = 0;
        }
        for run in runs {
            let id = run.session();
            let most = RideRoom { rows: count(room), free: count(free.min(room)), window };
            let Some(rows) = self.ridden_by(allotment, *run, most, sessions) else { continue };
            let taken = length(&rows);
            if let Run::Encode { limit, .. } = run {
                *limit += count(taken);
            }
            (free, room) = (free.saturating_sub(taken), room.saturating_sub(taken));
            repair(allotment, id, &rows)?;
        }
        Ok(())
    }

    /// Rows of a session that its run takes along: the windows that its edits ask for, or else as many as are free.
    fn ridden_by(
        &self,
        allotment: &Allotment,
        run: Run,
        room: RideRoom,
        sessions: &Sessions,
    ) -> Option<Vec<Range<usize>>> {
        let id = run.session();
        let (table, rows) = (allotment.tables.table(id)?, allotment.tables.rows(id)?);
        if !heals(sessions.get(id)?.following.strategy) {
            return None;
        }
        let end = match run {
            Run::Sample { .. } => table.share(),
            Run::Encode { limit, .. } if limit as usize >= table.pending() => table.tokens().len(),
            Run::Encode { .. } => return None,
        };
        // Others wait for what a client asks for.
        let own = self.healing.window;
        let window = rows.window.unwrap_or(own).min(room.window.max(own)).min(room.rows);
        let due = rows.places.windows(table, end, window as usize, |window| window == Window::Due);
        if !due.is_empty() {
            return Some(due);
        }
        rows.places.next(table, end, room.free as usize)
    }

    /// Nobody wants anything: of the sessions with stale rows the one that was served last is repaired for a moment.
    pub fn repair_one(
        &self,
        allotment: &mut Allotment,
        pace: Pace,
        limits: Limits,
        sessions: &Sessions,
    ) -> Result<Option<Schedule>, PlanError> {
        if !self.repairs_when_idle() {
            return Ok(None);
        }
        let repairable = |id| Some((id, self.repairable(allotment, id, pace, limits, sessions)?));
        let all = allotment.tables.stale().sessions().filter_map(repairable);
        // Who was served last: somebody is there.
        let latest = all.max_by_key(|(id, _)| allotment.tables.rows(*id).map(|rows| rows.ticket));
        let Some((session, rows)) = latest else { return Ok(None) };
        let pending = allotment.tables.table(session).map_or(0, Table::pending);
        let limit = count(length(&rows) + pending);
        repair(allotment, session, &rows)?;
        Ok(Some(Schedule { runs: vec![Run::Encode { session, limit }], passes: 1 }))
    }

    /// The rows of a session that are repaired next, if any are.
    fn repairable(
        &self,
        allotment: &Allotment,
        id: SessionId,
        pace: Pace,
        limits: Limits,
        sessions: &Sessions,
    ) -> Option<Vec<Range<usize>>> {
        let (table, rows) = (allotment.tables.table(id)?, allotment.tables.rows(id)?);
        sessions
            .get(id)
            .filter(|session| heals(session.following.strategy) && !allotment.asks_for_rows(id))?;
        let end = table.tokens().len();
        let in_time = limits.idle_time.rows(pace.row(count(end)));
        // What waits is encoded with them, and a step has so many rows (L1).
        let most = self.quantum.0.min(in_time).min(limits.rows.saturating_sub(count(table.pending())));
        rows.places.next(table, end, most as usize)
    }

    /// The ranks have carried out a plan that only repairs, or given it up.
    pub fn ended(
        &mut self,
        allotment: &mut Allotment,
        repairing: &Repairing,
        end: RepairEnd,
        limits: Limits,
        stats: &Stats,
    ) -> Result<(), PlanError> {
        let Repairing { plan, work } = repairing;
        self.quantum.learn(end, limits);
        for sequence in &work.sequences {
            // Keys have turned whatever became of the pass.
            if let Some(rows) = allotment.tables.rows_mut(sequence.session) {
                rows.ahead.rotated += count(sequence.turned);
            }
        }
        if end == RepairEnd::GivenUp {
            stats.steps.given_up.add(1);
            return allotment.tables.give_up(plan, work);
        }
        for sequence in &work.sequences {
            let repaired = repaired_by(plan, sequence.session);
            stats.tokens.repaired.add(u64::from(repaired));
            let encoded = count(sequence.rows.len()).saturating_sub(repaired);
            stats.tokens.encoded.add(u64::from(encoded));
            if let Some(rows) = allotment.tables.rows_mut(sequence.session) {
                rows.repaired += u64::from(repaired);
                rows.ahead.encoded += encoded;
            }
        }
        Ok(())
    }
}

/// Rows that the run of a plan encodes without repairs.
fn rows_of(allotment: &Allotment, run: Run) -> u32 {
    let table = allotment.tables.table(run.session());
    table.map_or(0, |table| match run {
        Run::Sample { .. } => count(table.context_pending()),
        Run::Encode { limit, .. } => count(table.pending()).min(limit),
    })
}

fn repair(allotment: &mut Allotment, session: SessionId, rows: &[Range<usize>]) -> Result<(), PlanError> {
    let rows = rows.iter().map(|rows| count(rows.start)..count(rows.end)).collect();
    allotment.tables.stage(vec![Change::Repair { session, rows }])?;
    if let Some(rows) = allotment.tables.rows_mut(session) {
        rows.places.repaired();
    }
    Ok(())
}

/// What a plan repairs of a session, for the books.
pub(super) fn repaired_by(plan: &Plan, session: SessionId) -> u32 {
    let rows = plan.changes.iter().filter(|change| change.session() == session);
    let rows = rows.map(|change| match change {
        Change::Repair { rows, .. } => rows.iter().map(|rows| rows.end - rows.start).sum(),
        _ => 0,
    });
    rows.sum()
}

fn length(rows: &[Range<usize>]) -> usize {
    rows.iter().map(Range::len).sum()
}

/// Whether the rows of documents that are edited so are repaired without being asked: of a baseline they are not.
fn heals(strategy: Strategy) -> bool {
    match strategy {
        Strategy::Pie | Strategy::Repair | Strategy::Full => true,
        Strategy::Conflict => false,
    }
}
