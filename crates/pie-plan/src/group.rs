//! The replicated state of a group, and the one function that changes it by plan.

use crate::ids::{Epoch, Seq, SessionId, Slot, TokenId};
use crate::invariant::{Invariant, Violation};
use crate::plan::{Change, Plan, PlanError, Run, SequenceRows, Then, Work};
use crate::splice::Splices;
use crate::table::Table;
use std::collections::{BTreeMap, BTreeSet};

/// Tables and free slots of a group. Every replica, the owner's and each rank's, runs the same code on the same plans.
#[derive(Clone, Debug)]
pub struct Group {
    epoch: Epoch,
    applied: Seq,
    sessions: BTreeMap<SessionId, Table>,
    /// K1: the slots that stand in no table, last freed on top.
    free: Vec<Slot>,
    capacity: usize,
}

impl Group {
    /// An empty group of `capacity` slots, before its first plan.
    pub fn new(epoch: Epoch, capacity: u32) -> Self {
        Self {
            epoch,
            applied: Seq(0),
            sessions: BTreeMap::new(),
            free: (0..capacity).rev().map(Slot).collect(),
            capacity: capacity as usize,
        }
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
        self.free.len()
    }

    /// All slots.
    pub fn capacity(&self) -> usize {
        self.capacity
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
        self.validate(plan)?;
        for change in &plan.changes {
            self.change(change);
        }
        let mut work = Work::default();
        for run in &plan.runs {
            self.run(*run, &mut work);
        }
        self.applied = plan.seq;
        Ok(work)
    }

    /// Whether [`Group::apply`] would take the plan.
    ///
    /// # Errors
    /// What `apply` would say.
    pub fn validate(&self, plan: &Plan) -> Result<(), PlanError> {
        if plan.epoch != self.epoch {
            return Err(PlanError::WrongEpoch { expected: self.epoch, got: plan.epoch });
        }
        if plan.seq != self.next_seq() {
            return Err(PlanError::OutOfOrder { expected: self.next_seq(), got: plan.seq });
        }
        let mut rehearsal = Rehearsal::of(self);
        plan.changes.iter().try_for_each(|change| rehearsal.change(change))?;
        let mut seen = BTreeSet::new();
        for run in &plan.runs {
            if !seen.insert(run.session()) {
                return Err(PlanError::RunsTwice(run.session()));
            }
            rehearsal.run(run)?;
        }
        rehearsal.reserve(plan)
    }

    fn change(&mut self, change: &Change) {
        match change {
            Change::Open { session } => {
                self.sessions.insert(*session, Table::default());
            }
            Change::Splice { session, splices, strategy } => {
                if let Some(table) = self.sessions.get_mut(session) {
                    table.end_branch(&mut self.free);
                    table.splice(splices, *strategy, &mut self.free);
                }
            }
            Change::EndBranch { session } => {
                if let Some(table) = self.sessions.get_mut(session) {
                    table.end_branch(&mut self.free);
                }
            }
            Change::Close { session } => {
                if let Some(table) = self.sessions.remove(session) {
                    self.free.extend_from_slice(table.slots());
                }
            }
        }
    }

    fn run(&mut self, run: Run, work: &mut Work) {
        let Some(table) = self.sessions.get_mut(&run.session()) else { return };
        let (limit, then) = match run {
            Run::Encode { limit, .. } => (limit as usize, Then::Stop),
            Run::Sample { .. } => {
                table.reopen_last();
                (usize::MAX, Then::Sample)
            }
        };
        let turned = table.settle(&mut work.turns);
        let first = work.rows.len();
        table.encode(limit, &mut work.rows);
        let rows = first..work.rows.len();
        work.sequences.push(SequenceRows { session: run.session(), rows, then, turned });
    }

    /// The tokens that a pass sampled join their branches, in the order given (rank and owner use the same).
    ///
    /// # Errors
    /// A session that is not open, or no slot left: the plan had reserved them, so either is a bug of the caller.
    pub fn append(&mut self, sampled: &[(SessionId, TokenId)]) -> Result<(), PlanError> {
        if sampled.len() > self.free.len() {
            return Err(PlanError::OutOfSlots { needed: sampled.len(), free: self.free.len() });
        }
        if let Some((session, _)) = sampled.iter().find(|(session, _)| !self.sessions.contains_key(session)) {
            return Err(PlanError::UnknownSession(*session));
        }
        for (session, token) in sampled {
            if let (Some(table), Some(slot)) = (self.sessions.get_mut(session), self.free.pop()) {
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
                Some(table) if table.branch_length() == 0 => return Err(PlanError::DidNotSample(*session)),
                Some(_) => {}
            }
        }
        let mut work = Work::default();
        for session in sessions {
            self.run(Run::Sample { session: *session }, &mut work);
        }
        Ok(work)
    }

    /// A digest of all tables and free slots, equal on all replicas after the same plan (P4).
    pub fn digest(&self) -> u64 {
        let mut hasher = xxhash_rust::xxh3::Xxh3::new();
        hasher.update(&self.epoch.0.to_le_bytes());
        hasher.update(&self.applied.0.to_le_bytes());
        for (session, table) in &self.sessions {
            hasher.update(&session.0.to_le_bytes());
            table.hash(&mut hasher);
        }
        for slot in &self.free {
            hasher.update(&slot.0.to_le_bytes());
        }
        hasher.digest()
    }

    /// Checks K1 and K2 over everything; reads each table once.
    ///
    /// # Errors
    /// The first violation found: a bug to be caught loudly.
    pub fn check(&self) -> Result<(), Violation> {
        let mut seen = vec![false; self.capacity];
        let mut count = |slot: &Slot, place: &str| match seen.get_mut(slot.usize()) {
            Some(seen) if !*seen => {
                *seen = true;
                Ok(())
            }
            Some(_) => Err(format!("slot {slot} stands a second time, in {place}")),
            None => Err(format!("slot {slot} in {place} is beyond the capacity")),
        };
        let broken = |what| Violation { invariant: Invariant::K1, what };
        for (session, table) in &self.sessions {
            if !table.columns_agree() {
                return Err(Violation { invariant: Invariant::K2, what: format!("session {session}") });
            }
            let place = format!("session {session}");
            table.slots().iter().try_for_each(|slot| count(slot, &place)).map_err(broken)?;
        }
        self.free.iter().try_for_each(|slot| count(slot, "the free list")).map_err(broken)?;
        match seen.iter().position(|seen| !seen) {
            Some(slot) => Err(broken(format!("slot {slot} is lost"))),
            None => Ok(()),
        }
    }
}

/// The sizes that a plan would leave behind, for checking it before anything changes.
struct Rehearsal<'a> {
    group: &'a Group,
    sizes: BTreeMap<SessionId, Option<Size>>,
    free: usize,
}

#[derive(Clone, Copy, Default)]
struct Size {
    document: usize,
    branch: usize,
}

impl<'a> Rehearsal<'a> {
    fn of(group: &'a Group) -> Self {
        Self { group, sizes: BTreeMap::new(), free: group.free.len() }
    }

    fn size(&self, session: SessionId) -> Result<Size, PlanError> {
        let known = self.sizes.get(&session).copied().unwrap_or_else(|| {
            let size =
                |table: &Table| Size { document: table.document_length(), branch: table.branch_length() };
            self.group.table(session).map(size)
        });
        known.ok_or(PlanError::UnknownSession(session))
    }

    fn change(&mut self, change: &Change) -> Result<(), PlanError> {
        let session = change.session();
        let after = match change {
            Change::Open { .. } if self.size(session).is_ok() => {
                return Err(PlanError::SessionExists(session));
            }
            Change::Open { .. } => Some(Size::default()),
            Change::Splice { splices, .. } => Some(self.splice(session, splices)?),
            Change::EndBranch { .. } => {
                let size = self.size(session)?;
                self.free += size.branch;
                Some(Size { branch: 0, ..size })
            }
            Change::Close { .. } => {
                let size = self.size(session)?;
                self.free += size.document + size.branch;
                None
            }
        };
        self.sizes.insert(session, after);
        Ok(())
    }

    fn splice(&mut self, session: SessionId, splices: &Splices) -> Result<Size, PlanError> {
        let size = self.size(session)?;
        splices.fits(size.document).map_err(|source| PlanError::Splice { session, source })?;
        let free = self.free + size.branch + splices.deleted();
        let needed = splices.inserted();
        self.free = free.checked_sub(needed).ok_or(PlanError::OutOfSlots { needed, free })?;
        Ok(Size { document: size.document - splices.deleted() + needed, branch: 0 })
    }

    fn run(&self, run: &Run) -> Result<(), PlanError> {
        let size = self.size(run.session())?;
        match run {
            Run::Sample { session } if size.document + size.branch == 0 => {
                Err(PlanError::EmptyContext(*session))
            }
            _ => Ok(()),
        }
    }

    /// Every sampled token of every pass needs a slot.
    fn reserve(&self, plan: &Plan) -> Result<(), PlanError> {
        let samples = plan.runs.iter().filter(|run| matches!(run, Run::Sample { .. })).count();
        if plan.passes == 0 || (plan.passes > 1 && samples == 0) {
            return Err(PlanError::BadPasses { passes: plan.passes });
        }
        let needed = samples * plan.passes as usize;
        if needed > self.free { Err(PlanError::OutOfSlots { needed, free: self.free }) } else { Ok(()) }
    }
}
