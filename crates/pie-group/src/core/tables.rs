//! The tables of a group as its owner has them: changes are made here first, and go to the ranks with the next plan.
//!
//! **Invariant.** The ranks hold what is here, less the changes that are staged; what these tables refuse is never sent.

use super::layout::Layout;
use super::places::EditLocations;
use super::rows::HeldRows;
use super::session::count;
use crate::stats::Stats;
use crate::tenants::{Sharing, Tenant};
use pie_plan::blocks::Block;
use pie_plan::schedule::Ticket;
use pie_plan::{Change, Group, Plan, PlanError, Run, Staged, Table, Work};
use pie_proto::plan::SampledToken;
use pie_words::{SessionId, Splices, Strategy, TokenId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The shortest common beginning that is worth sharing.
const SHARE_TOKENS: usize = 32;

/// See the module.
pub(super) struct Tables {
    group: Group,
    rows: BTreeMap<SessionId, HeldRows>,
    staged: Vec<Change>,
    stale: Stale,
    /// Sessions whose tables changed since they were written to disk.
    unwritten: BTreeSet<SessionId>,
    sharing: Sharing,
    latest_ticket: u64,
    stats: Arc<Stats>,
}

/// How many rows of each session are stale, counted where tables change: a group has many sessions.
#[derive(Debug, Default)]
pub(super) struct Stale {
    rows: BTreeMap<SessionId, usize>,
    all: usize,
}

impl Stale {
    fn set(&mut self, id: SessionId, rows: usize) {
        let before = if rows == 0 { self.rows.remove(&id) } else { self.rows.insert(id, rows) };
        self.all = self.all + rows - before.unwrap_or(0);
    }

    /// Of all sessions.
    pub fn rows(&self) -> usize {
        self.all
    }

    /// Those that have any.
    pub fn sessions(&self) -> impl Iterator<Item = SessionId> + '_ {
        self.rows.keys().copied()
    }
}

impl Tables {
    /// Of a group of which no session is known yet.
    pub fn new(group: Group, sharing: Sharing, stats: Arc<Stats>) -> Self {
        Self {
            group,
            rows: BTreeMap::new(),
            staged: Vec::new(),
            stale: Stale::default(),
            unwritten: BTreeSet::new(),
            sharing,
            latest_ticket: 0,
            stats,
        }
    }

    /// The owner's replica of the group.
    pub fn group(&self) -> &Group {
        &self.group
    }

    /// A session's table.
    pub fn table(&self, id: SessionId) -> Option<&Table> {
        self.group.table(id)
    }

    /// What is held of each session.
    pub fn all(&self) -> impl Iterator<Item = (SessionId, &HeldRows)> {
        self.rows.iter().map(|(id, rows)| (*id, rows))
    }

    /// What the ranks hold of a session.
    pub fn rows(&self, id: SessionId) -> Option<&HeldRows> {
        self.rows.get(&id)
    }

    /// The same, to change it.
    pub fn rows_mut(&mut self, id: SessionId) -> Option<&mut HeldRows> {
        self.rows.get_mut(&id)
    }

    /// Tokens in a session's table.
    pub fn document_rows(&self, id: SessionId) -> usize {
        self.table(id).map_or(0, |table| table.tokens().len())
    }

    /// Tokens on its branch.
    pub fn branch_rows(&self, id: SessionId) -> usize {
        self.table(id).map_or(0, |table| table.branch().len())
    }

    /// A new ticket: behind all others.
    pub fn ticket(&mut self) -> Ticket {
        self.latest_ticket += 1;
        Ticket(self.latest_ticket)
    }

    /// A session is there. Its table is opened by a change.
    pub fn insert(&mut self, id: SessionId, tenant: Tenant) {
        let ticket = self.ticket();
        self.rows.insert(id, HeldRows::none(tenant, ticket));
    }

    /// A session's document stands in the table that the ranks have held on to.
    pub fn goes_on(&mut self, id: SessionId, layout: Layout) {
        if let Some(rows) = self.rows.get_mut(&id) {
            rows.layout = Some(layout);
        }
        self.recount(id);
    }

    /// A session is gone. Its table is closed by the change that this returns.
    pub fn remove(&mut self, id: SessionId) -> Change {
        self.rows.remove(&id);
        self.stale.set(id, 0);
        self.unwritten.remove(&id);
        Change::Close { session: id }
    }

    /// Makes changes, all or none.
    pub fn stage(&mut self, changes: Vec<Change>) -> Result<Staged, PlanError> {
        let staged = self.group.stage(&changes)?;
        changes.iter().for_each(|change| self.recount(change.session()));
        self.staged.extend(changes);
        self.stats.tokens.adopted.add(staged.adopted as u64);
        Ok(staged)
    }

    /// Changes that the ranks have not heard of.
    pub fn staged(&self) -> usize {
        self.staged.len()
    }

    /// A plan that only repairs was given up by the ranks.
    pub fn give_up(&mut self, plan: &Plan, work: &Work) -> Result<(), PlanError> {
        self.group.give_up(plan, work)?;
        work.sequences.iter().for_each(|sequence| self.recount(sequence.session));
        Ok(())
    }

    /// Sessions that have stale rows.
    pub fn stale(&self) -> &Stale {
        &self.stale
    }

    /// The rows of a session are others, or otherwise, than they were.
    fn recount(&mut self, id: SessionId) {
        let (table, rows) = (self.group.table(id), self.rows.get_mut(&id));
        let (Some(table), Some(rows)) = (table, rows) else { return self.stale.set(id, 0) };
        rows.disk.follow(table.whole_blocks());
        self.stale.set(id, table.stale_rows());
        self.unwritten.insert(id);
    }

    /// Sessions whose tables changed since they were written to disk.
    pub fn unwritten(&self) -> impl Iterator<Item = SessionId> + '_ {
        self.unwritten.iter().copied()
    }

    /// All of a session is on disk that may be.
    pub fn written(&mut self, id: SessionId) {
        self.unwritten.remove(&id);
    }

    /// The ranks have read a block from disk.
    pub fn reloaded(&mut self, block: &Block) -> Result<(), PlanError> {
        let (first, _) = self.group.reload_into(block)?;
        self.group.reloaded(std::slice::from_ref(block))?;
        self.stats.tokens.reloaded.add((block.end.usize() - first) as u64);
        self.recount(block.session);
        Ok(())
    }

    /// Whose rows a document may begin with.
    pub fn sharing(&self) -> Sharing {
        self.sharing
    }

    /// The runs of a plan, and the changes that go with it.
    pub fn start(&mut self, runs: &[Run], passes: u32) -> Result<(Vec<Change>, Work), PlanError> {
        let work = self.group.start(runs, passes)?;
        runs.iter().for_each(|run| self.recount(run.session()));
        Ok((std::mem::take(&mut self.staged), work))
    }

    /// The tokens of the first pass of a plan join their branches.
    pub fn append(&mut self, sampled: &[SampledToken]) -> Result<(), PlanError> {
        let tokens: Vec<_> = sampled.iter().map(|sampled| (sampled.session, sampled.token)).collect();
        self.group.append(&tokens)
    }

    /// The same of a further pass.
    pub fn decode(&mut self, sampled: &[SampledToken]) -> Result<(), PlanError> {
        let sessions: Vec<_> = sampled.iter().map(|sampled| sampled.session).collect();
        self.group.decode(&sessions)?;
        self.append(sampled)
    }

    /// Gives a document rows: those of another session for a common beginning, its own for the rest.
    pub fn hold(&mut self, id: SessionId, tokens: &[TokenId], strategy: Strategy) -> Result<(), PlanError> {
        let donor = self.donor(id, tokens);
        let shared = donor.map_or(0, |(_, length)| length);
        let share = donor.map(|(from, length)| Change::Share { session: id, from, length: count(length) });
        let splices = Splices::append(shared, tokens[shared..].to_vec()).unwrap_or_default();
        let rest = Change::Splice { session: id, splices, strategy };
        self.stage(share.into_iter().chain([rest]).collect())?;
        self.stats.tokens.shared.add(shared as u64);
        if let Some(rows) = self.rows.get_mut(&id) {
            (rows.layout, rows.places) = (Some(Layout::Plain), EditLocations::default());
            rows.ahead.done();
            rows.ahead.add(tokens.len() - shared);
        }
        Ok(())
    }

    /// The session whose rows begin with the most of these tokens, and how many it may share: rows that a fresh encoding
    /// would give. Another tenant's are left alone, unless all trust each other: how soon an answer comes tells whether
    /// somebody else has the same text.
    fn donor(&self, id: SessionId, tokens: &[TokenId]) -> Option<(SessionId, usize)> {
        let head = tokens.get(..SHARE_TOKENS)?;
        let own = &self.rows.get(&id)?.tenant;
        let may_share = |(other, rows): &(SessionId, &HeldRows)| {
            *other != id && (self.sharing == Sharing::AcrossTenants || rows.tenant == *own)
        };
        let shared = |(other, _): (SessionId, &HeldRows)| {
            let table = self.table(other).filter(|table| table.tokens().starts_with(head))?;
            let pairs = table.tokens().iter().zip(tokens);
            let common = pairs.take_while(|(theirs, ours)| theirs == ours).count();
            let shared = common.min(table.frontier());
            (shared >= SHARE_TOKENS).then_some((other, shared))
        };
        self.all().filter(may_share).filter_map(shared).max_by_key(|(_, shared)| *shared)
    }

    /// Edits a session's table. How many tokens of its branch it adopted.
    pub fn splice(
        &mut self,
        id: SessionId,
        splices: &Splices,
        strategy: Strategy,
    ) -> Result<usize, PlanError> {
        if splices.is_empty() {
            return Ok(0);
        }
        let adopted =
            self.stage(vec![Change::Splice { session: id, splices: splices.clone(), strategy }])?.adopted;
        if let Some(rows) = self.rows.get_mut(&id) {
            rows.places.follow(splices);
        }
        Ok(adopted)
    }

    /// A session's rows go; its document stays.
    pub fn clear(&mut self, id: SessionId) -> Result<(), PlanError> {
        self.stage(vec![Change::Clear { session: id }])?;
        self.stats.sessions.dropped.add(1);
        if let Some(rows) = self.rows.get_mut(&id) {
            rows.layout = None;
            rows.ahead.done();
        }
        Ok(())
    }
}
