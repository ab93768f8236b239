//! The replicated state of a group, and the functions that change it by plan.

use crate::invariant::{Invariant, Violation};
use crate::plan::{Change, Copies, Plan, PlanError, Row, Run, SequenceRows, Then, Turns, Work};
use crate::slots::Slots;
use crate::table::{Reach, Table};
use crate::undo::{PriorTable, Undo};
use pie_words::{Epoch, Seq, SessionId, TokenId};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// Tables and slots of a group. Every replica, the owner's and each rank's, runs the same code on the same plans.
#[derive(Clone, Debug)]
pub struct Group {
    pub(crate) epoch: Epoch,
    pub(crate) applied: Seq,
    pub(crate) sessions: BTreeMap<SessionId, Table>,
    /// K1.
    pub(crate) slots: Slots,
}

/// What staged changes did, beside changing tables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Staged {
    /// Rows that the ranks must copy.
    pub copies: Copies,
    /// Keys that the ranks must turn, of rows that are repaired.
    pub turns: Turns,
    /// Tokens whose rows were taken over from a branch.
    pub adopted: usize,
}

impl Group {
    /// An empty group of `capacity` slots, before its first plan.
    pub fn new(epoch: Epoch, capacity: u32) -> Self {
        Self { epoch, applied: Seq(0), sessions: BTreeMap::new(), slots: Slots::new(capacity) }
    }

    /// The owner's fencing token.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The number that the next plan must carry.
    pub fn next_seq(&self) -> Seq {
        self.applied.next()
    }

    /// Free slots.
    pub fn free_slots(&self) -> usize {
        self.slots.free().len()
    }

    /// All slots.
    pub fn capacity(&self) -> usize {
        self.slots.capacity()
    }

    /// How many of the slots of a session's document stand in other tables too.
    pub fn shared_slots(&self, session: SessionId) -> usize {
        let shared = |table: &Table| {
            let until = table.shared_until().min(table.slots().len());
            table.slots()[..until].iter().filter(|slot| self.slots.is_shared(**slot)).count()
        };
        self.table(session).map_or(0, shared)
    }

    /// The table of a session.
    pub fn table(&self, session: SessionId) -> Option<&Table> {
        self.sessions.get(&session)
    }

    /// All sessions in order of their ids.
    pub fn sessions(&self) -> impl Iterator<Item = (SessionId, &Table)> {
        self.sessions.iter().map(|(session, table)| (*session, table))
    }

    /// Applies a plan: whole, or not at all. Returns the tensor work of its first forward pass.
    ///
    /// # Errors
    /// [`PlanError`]; the group is then as it was.
    pub fn apply(&mut self, plan: &Plan) -> Result<Work, PlanError> {
        if plan.epoch != self.epoch {
            return Err(PlanError::WrongEpoch { expected: self.epoch, got: plan.epoch });
        }
        if plan.seq != self.next_seq() {
            return Err(PlanError::OutOfOrder { expected: self.next_seq(), got: plan.seq });
        }
        let mut done = Vec::new();
        let staged = self.change_all(&plan.changes, &mut done);
        let started = staged.and_then(|staged| {
            self.check_blocks(&plan.blocks, &plan.runs)?;
            self.start_after(staged, &plan.runs, plan.passes)
        });
        started.inspect_err(|_| self.roll_back(done))
    }

    /// The changes of a plan that is still being made: its owner applies them as they come, and sends them with the plan
    /// that [`Group::start`] begins. Whole, or not at all.
    ///
    /// # Errors
    /// [`PlanError`]; the group is then as it was.
    pub fn stage(&mut self, changes: &[Change]) -> Result<Staged, PlanError> {
        let mut done = Vec::new();
        let staged = self.change_all(changes, &mut done);
        staged.inspect_err(|_| self.roll_back(done))
    }

    /// The runs of a plan whose changes are staged.
    ///
    /// # Errors
    /// [`PlanError`]; the group is then as it was.
    pub fn start(&mut self, runs: &[Run], passes: u32) -> Result<Work, PlanError> {
        self.start_after(Staged::default(), runs, passes)
    }

    fn start_after(&mut self, staged: Staged, runs: &[Run], passes: u32) -> Result<Work, PlanError> {
        self.check_runs(runs, passes)?;
        let Staged { copies, turns, adopted } = staged;
        let mut work = Work { copies, turns, adopted, ..Work::default() };
        for run in runs {
            self.run(*run, &mut work)?;
        }
        self.applied = self.next_seq();
        Ok(work)
    }

    /// Whether [`Group::start`] would take the runs.
    ///
    /// # Errors
    /// What it would say.
    pub fn check_runs(&self, runs: &[Run], passes: u32) -> Result<(), PlanError> {
        let (mut seen, mut samples, mut needed) = (BTreeSet::new(), 0, 0);
        for run in runs {
            let session = run.session();
            if !seen.insert(session) {
                return Err(PlanError::RunsTwice(session));
            }
            let table = self.table(session).ok_or(PlanError::UnknownSession(session))?;
            if let Run::Sample { .. } = run {
                if table.context_length() == 0 {
                    return Err(PlanError::EmptyContext(session));
                }
                samples += 1;
                // The last token's slot may be shared: then it gets another.
                let last = table.share().checked_sub(1).filter(|_| table.branch().is_empty());
                let is_shared = last.is_some_and(|last| self.slots.is_shared(table.slots()[last]));
                needed += passes as usize + usize::from(is_shared);
            }
        }
        if passes == 0 || (passes > 1 && samples == 0) {
            return Err(PlanError::BadPasses { passes });
        }
        let free = self.free_slots();
        if needed > free { Err(PlanError::OutOfSlots { needed, free }) } else { Ok(()) }
    }

    /// What the first pass of a run would ask a model to know.
    pub fn reach(&self, run: Run) -> Reach {
        let (then, limit) = then_up_to(run);
        self.table(run.session()).map_or_else(Reach::default, |table| table.reach(then, limit))
    }

    fn change_all(&mut self, changes: &[Change], done: &mut Vec<Undo>) -> Result<Staged, PlanError> {
        self.slots.mark();
        let mut staged = Staged::default();
        changes.iter().try_for_each(|change| self.change(change, &mut staged, done))?;
        Ok(staged)
    }

    fn roll_back(&mut self, done: Vec<Undo>) {
        for Undo { session, was } in done.into_iter().rev() {
            match (was, self.sessions.get_mut(&session)) {
                (PriorTable::Unknown, _) => drop(self.sessions.remove(&session)),
                (PriorTable::Table(table), _) => drop(self.sessions.insert(session, table)),
                (PriorTable::Branch(branch), Some(table)) => table.branch = branch,
                (PriorTable::Spliced(splices), Some(table)) => splices.take_back(table),
                (PriorTable::States(states), Some(table)) => table.document.states = states,
                (PriorTable::SharedUntil(row), Some(table)) => table.shared_until = row,
                (
                    PriorTable::Branch(_)
                    | PriorTable::Spliced(_)
                    | PriorTable::States(_)
                    | PriorTable::SharedUntil(_),
                    None,
                ) => {}
            }
        }
        self.slots.roll_back();
    }

    /// A change that is refused has changed nothing but slots, which have a journal; one that is done says how to undo it.
    fn change(
        &mut self,
        change: &Change,
        staged: &mut Staged,
        done: &mut Vec<Undo>,
    ) -> Result<(), PlanError> {
        let session = change.session();
        if let Change::Open { .. } = change {
            if self.sessions.contains_key(&session) {
                return Err(PlanError::SessionExists(session));
            }
            self.sessions.insert(session, Table::default());
            done.push(Undo { session, was: PriorTable::Unknown });
            return Ok(());
        }
        let slots = &mut self.slots;
        let table = self.sessions.get_mut(&session).ok_or(PlanError::UnknownSession(session))?;
        let was = match change {
            Change::Open { .. } => PriorTable::Unknown,
            Change::Splice { splices, strategy, .. } => {
                splices.fits(table.tokens().len()).map_err(|source| PlanError::Splice { session, source })?;
                PriorTable::Spliced(table.splice(splices, *strategy, slots, staged)?)
            }
            Change::Branch { at, tokens, .. } => {
                if at.usize() > table.tokens().len() {
                    return Err(PlanError::NoSuchPlace { session, at: *at });
                }
                PriorTable::Branch(table.begin_branch(at.usize(), tokens, slots)?)
            }
            Change::EndBranch { .. } => PriorTable::Branch(table.end_branch(slots)),
            Change::Clear { .. } => {
                staged.turns.forget(table.slots());
                PriorTable::Table(table.clear(slots))
            }
            Change::Share { from, length, .. } => return self.share(session, *from, *length as usize, done),
            Change::Repair { rows, .. } => {
                let rows = checked(session, rows, table)?;
                PriorTable::States(table.repair(&rows, slots, &mut staged.turns))
            }
            Change::Close { .. } => {
                staged.turns.forget(table.slots());
                let was = PriorTable::Table(table.clear(slots));
                self.sessions.remove(&session);
                was
            }
        };
        done.push(Undo { session, was });
        Ok(())
    }

    fn share(
        &mut self,
        session: SessionId,
        from: SessionId,
        length: usize,
        done: &mut Vec<Undo>,
    ) -> Result<(), PlanError> {
        let mut giver = self.sessions.remove(&from).ok_or(PlanError::UnknownSession(from))?;
        let shared = match self.sessions.get_mut(&session) {
            Some(table) if table.is_empty() && giver.frontier() >= length => {
                done.push(Undo { session: from, was: PriorTable::SharedUntil(giver.shared_until) });
                done.push(Undo { session, was: PriorTable::Table(table.clone()) });
                table.share_from(&mut giver, length, &mut self.slots);
                Ok(())
            }
            _ => Err(PlanError::NotShareable { session, from }),
        };
        self.sessions.insert(from, giver);
        shared
    }

    /// The work of one run.
    ///
    /// # Errors
    /// No slot for a last token whose own is shared (W1): a run is checked first, so that is a bug.
    fn run(&mut self, run: Run, work: &mut Work) -> Result<(), PlanError> {
        let session = run.session();
        let table = self.sessions.get_mut(&session).ok_or(PlanError::UnknownSession(session))?;
        let (then, limit) = then_up_to(run);
        if then == Then::Sample {
            table.reopen_last(&mut self.slots)?;
        }
        let turned = table.settle(&mut work.turns);
        let first = work.rows.len();
        table.encode(then, limit, &self.slots, &mut work.rows);
        let rows = first..work.rows.len();
        work.sequences.push(SequenceRows { session, rows, then, turned });
        Ok(())
    }

    /// A plan that [only repairs](Plan::only_repairs) was given up in the middle of its pass, on all ranks: its rows wait again, or
    /// are as stale as they were. Its changes and turns are done.
    ///
    /// # Errors
    /// A session that is not open: the plan was not applied, which is a bug of the caller.
    pub fn give_up(&mut self, plan: &Plan, work: &Work) -> Result<(), PlanError> {
        for SequenceRows { session, rows, .. } in &work.sequences {
            let table = self.sessions.get_mut(session).ok_or(PlanError::UnknownSession(*session))?;
            let index = |row: &Row| row.position.usize()..row.position.usize() + 1;
            let rows: Vec<_> = work.rows[rows.clone()].iter().map(index).collect();
            let repaired: Vec<_> = plan.repaired(*session).collect();
            table.give_up(&rows, &repaired, &self.slots);
        }
        Ok(())
    }

    /// The tokens that a pass sampled join their branches, in the order given (rank and owner use the same).
    ///
    /// # Errors
    /// A session that is not open, or no slot left: the plan had reserved them, so either is a bug of the caller.
    pub fn append(&mut self, sampled: &[(SessionId, TokenId)]) -> Result<(), PlanError> {
        if sampled.len() > self.free_slots() {
            return Err(PlanError::OutOfSlots { needed: sampled.len(), free: self.free_slots() });
        }
        if let Some((session, _)) = sampled.iter().find(|(session, _)| !self.sessions.contains_key(session)) {
            return Err(PlanError::UnknownSession(*session));
        }
        for (session, token) in sampled {
            if let (Some(table), Some(slot)) = (self.sessions.get_mut(session), self.slots.take()) {
                table.append(*token, slot);
            }
        }
        Ok(())
    }

    /// The work of a further pass of the same plan: one row for each session, its last generated token.
    ///
    /// # Errors
    /// A session without a branch did not sample in the pass before.
    pub fn decode(&mut self, sessions: &[SessionId]) -> Result<Work, PlanError> {
        for session in sessions {
            match self.sessions.get(session) {
                None => return Err(PlanError::UnknownSession(*session)),
                Some(table) if table.branch().is_empty() => return Err(PlanError::DidNotSample(*session)),
                Some(_) => {}
            }
        }
        let mut work = Work::default();
        for session in sessions {
            self.run(Run::Sample { session: *session }, &mut work)?;
        }
        Ok(work)
    }

    /// A digest of all tables and slots, equal on all replicas after the same plan (P4).
    pub fn digest(&self) -> u64 {
        let mut hasher = xxhash_rust::xxh3::Xxh3::new();
        hasher.update(&self.epoch.0.to_le_bytes());
        hasher.update(&self.applied.0.to_le_bytes());
        for (session, table) in &self.sessions {
            hasher.update(&session.0.to_le_bytes());
            table.hash(&mut hasher);
        }
        // K1: what is free is what no table holds.
        hasher.update(&(self.free_slots() as u64).to_le_bytes());
        for (slot, holders) in self.slots.holders() {
            hasher.update(&slot.0.to_le_bytes());
            hasher.update(&holders.to_le_bytes());
        }
        hasher.digest()
    }

    /// Checks K1 and K2 over everything; reads each table once.
    ///
    /// # Errors
    /// The first violation found: a bug to be caught loudly.
    pub fn check(&self) -> Result<(), Violation> {
        let broken = |what| Violation { invariant: Invariant::K1, what };
        let mut held = Vec::new();
        for (session, table) in &self.sessions {
            if !table.columns_agree() {
                return Err(Violation { invariant: Invariant::K2, what: format!("session {session}") });
            }
            held.extend(table.slots().iter().chain(table.branch_slots()).copied());
        }
        held.sort_unstable();
        let mut distinct = 0;
        for holders in held.chunk_by(|a, b| a == b) {
            let (slot, count) = (holders[0], holders.len());
            let counted = self.slots.holders().get(&slot).map_or(1, |counted| *counted as usize);
            if count != counted || self.slots.free().contains(&slot) || slot.usize() >= self.capacity() {
                let what =
                    format!("slot {slot} stands in {count} tables, counted are {counted}, or it is free too");
                return Err(broken(what));
            }
            distinct += 1;
        }
        if distinct + self.free_slots() != self.capacity() {
            let (free, capacity) = (self.free_slots(), self.capacity());
            return Err(broken(format!("{distinct} slots are held and {free} free, of {capacity}")));
        }
        Ok(())
    }
}

/// What follows a run's rows, and the most of the document's that it encodes.
fn then_up_to(run: Run) -> (Then, usize) {
    match run {
        Run::Encode { limit, .. } => (Then::Stop, limit as usize),
        Run::Sample { .. } => (Then::Sample, usize::MAX),
    }
}

/// Rows to be repaired as ranges of indices: sorted, disjoint, and encoded.
fn checked(session: SessionId, rows: &[Range<u32>], table: &Table) -> Result<Vec<Range<usize>>, PlanError> {
    let mut end = 0;
    let range = |rows: &Range<u32>| {
        let range = rows.start as usize..rows.end as usize;
        let encoded: usize = table.encoded(range.clone()).map(|rows| rows.len()).sum();
        if range.start < end || range.is_empty() || encoded < range.len() {
            return Err(PlanError::NoSuchRows { session, rows: rows.clone() });
        }
        end = range.end;
        Ok(range)
    };
    rows.iter().map(range).collect()
}
