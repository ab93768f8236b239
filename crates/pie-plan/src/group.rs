//! The replicated state of a group, and the functions that change it by plan.

use crate::invariant::{Invariant, Violation};
use crate::plan::{Change, Copies, Plan, PlanError, Run, SequenceRows, Then, Work};
use crate::rows::OutOfSlots;
use crate::slots::Slots;
use crate::table::{Reach, Table};
use pie_words::{Epoch, Seq, SessionId, TokenId};
use std::collections::{BTreeMap, BTreeSet};

/// Tables and slots of a group. Every replica, the owner's and each rank's, runs the same code on the same plans.
#[derive(Clone, Debug)]
pub struct Group {
    epoch: Epoch,
    applied: Seq,
    sessions: BTreeMap<SessionId, Table>,
    /// K1.
    slots: Slots,
}

/// What staged changes did, beside changing tables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Staged {
    /// Rows that the ranks must copy.
    pub copies: Copies,
    /// Tokens whose rows were taken over from a branch.
    pub adopted: usize,
}

/// Tables as they were before changes that may yet be refused.
type Before = BTreeMap<SessionId, Option<Table>>;

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
        let mut before = Before::new();
        let staged = self.change_all(&plan.changes, &mut before);
        let started = staged.and_then(|staged| self.start_after(staged, &plan.runs, plan.passes));
        started.inspect_err(|_| self.roll_back(before))
    }

    /// The changes of a plan that is still being made: its owner applies them as they come, and sends them with the plan
    /// that [`Group::start`] begins. Whole, or not at all.
    ///
    /// # Errors
    /// [`PlanError`]; the group is then as it was.
    pub fn stage(&mut self, changes: &[Change]) -> Result<Staged, PlanError> {
        let mut before = Before::new();
        let staged = self.change_all(changes, &mut before);
        staged.inspect_err(|_| self.roll_back(before))
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
        let mut work = Work { copies: staged.copies, adopted: staged.adopted, ..Work::default() };
        for run in runs {
            self.run(*run, &mut work);
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
                needed += passes as usize + usize::from(table.shared_until() >= table.context_length());
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
        let then = match run {
            Run::Encode { .. } => Then::Stop,
            Run::Sample { .. } => Then::Sample,
        };
        self.table(run.session()).map_or_else(Reach::default, |table| table.reach(then))
    }

    fn change_all(&mut self, changes: &[Change], before: &mut Before) -> Result<Staged, PlanError> {
        self.slots.mark();
        let mut staged = Staged::default();
        for change in changes {
            for session in change.sessions() {
                before.entry(session).or_insert_with(|| self.sessions.get(&session).cloned());
            }
            self.change(change, &mut staged)?;
        }
        Ok(staged)
    }

    fn roll_back(&mut self, before: Before) {
        for (session, table) in before {
            match table {
                Some(table) => drop(self.sessions.insert(session, table)),
                None => drop(self.sessions.remove(&session)),
            }
        }
        self.slots.roll_back();
    }

    fn change(&mut self, change: &Change, staged: &mut Staged) -> Result<(), PlanError> {
        let session = change.session();
        let unknown = || PlanError::UnknownSession(session);
        if let Change::Open { .. } = change {
            if self.sessions.contains_key(&session) {
                return Err(PlanError::SessionExists(session));
            }
            self.sessions.insert(session, Table::default());
            return Ok(());
        }
        let slots = &mut self.slots;
        let table = self.sessions.get_mut(&session).ok_or_else(unknown)?;
        let done = match change {
            Change::Open { .. } => Ok(()),
            Change::Splice { splices, strategy, .. } => {
                splices.fits(table.tokens().len()).map_err(|source| PlanError::Splice { session, source })?;
                let adopted = table.splice(splices, *strategy, slots, &mut staged.copies);
                adopted.map(|adopted| staged.adopted += adopted)
            }
            Change::Branch { at, tokens, .. } => {
                if at.usize() > table.tokens().len() {
                    return Err(PlanError::NoSuchPlace { session, at: *at });
                }
                table.begin_branch(at.usize(), tokens, slots)
            }
            Change::EndBranch { .. } => {
                table.end_branch(slots);
                Ok(())
            }
            Change::Clear { .. } => {
                table.clear(slots);
                Ok(())
            }
            Change::Share { from, length, .. } => return self.share(session, *from, *length as usize),
            Change::Replace { by, .. } => return self.replace(session, *by),
            Change::Close { .. } => {
                table.clear(slots);
                self.sessions.remove(&session);
                Ok(())
            }
        };
        done.map_err(|OutOfSlots { needed, free }| PlanError::OutOfSlots { needed, free })
    }

    fn share(&mut self, session: SessionId, from: SessionId, length: usize) -> Result<(), PlanError> {
        let refused = PlanError::NotShareable { session, from };
        let Some(mut giver) = self.sessions.remove(&from) else {
            return Err(PlanError::UnknownSession(from));
        };
        let shared = match self.sessions.get_mut(&session) {
            Some(table) if table.context_length() == 0 && giver.settled_prefix() >= length => {
                table.share_from(&mut giver, length, &mut self.slots);
                Ok(())
            }
            _ => Err(refused),
        };
        self.sessions.insert(from, giver);
        shared
    }

    fn replace(&mut self, session: SessionId, by: SessionId) -> Result<(), PlanError> {
        let same = match (self.table(session), self.table(by)) {
            (Some(table), Some(other)) => table.tokens() == other.tokens(),
            _ => return Err(PlanError::UnknownSession(by)),
        };
        if !same || session == by {
            return Err(PlanError::NotShareable { session, from: by });
        }
        if let (Some(other), Some(table)) = (self.sessions.remove(&by), self.sessions.get_mut(&session)) {
            table.take_over(other, &mut self.slots);
        }
        Ok(())
    }

    fn run(&mut self, run: Run, work: &mut Work) {
        let Some(table) = self.sessions.get_mut(&run.session()) else { return };
        let (limit, then) = match run {
            Run::Encode { limit, .. } => (limit as usize, Then::Stop),
            Run::Sample { .. } => {
                // The slot that this may take was reserved with those of the sampled tokens.
                let _reserved = table.reopen_last(&mut self.slots);
                (usize::MAX, Then::Sample)
            }
        };
        let turned = table.settle(&mut work.turns);
        let first = work.rows.len();
        table.encode(then, limit, &mut work.rows);
        let rows = first..work.rows.len();
        work.sequences.push(SequenceRows { session: run.session(), rows, then, turned });
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
            self.run(Run::Sample { session: *session }, &mut work);
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
