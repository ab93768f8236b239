//! What happens to the group's tables between two plans: changes are applied to the owner's replica at once, and go to the
//! ranks with the next plan. Where slots run short, sessions that nobody completes make room, the longest idle first.

use super::{Core, Replica, fail};
use crate::faults;
use crate::layout::{Layout, Patch};
use crate::session::{Exact, Residence, Session, count};
use crate::tenants::Sharing;
use pie_plan::{Change, PlanError, SessionId, Splices, Staged, Strategy, TokenId};
use pie_proto::Fault;
use pie_text::{Cut, FimMarkers};

/// What a call wants of the tables.
pub(super) enum Op {
    /// A session is there, and in use.
    Open { session: SessionId },
    /// A session is there: its rows can wait.
    Name { session: SessionId },
    /// Its document changed.
    Splice { session: SessionId, splices: Splices, strategy: Strategy },
    /// The ranks did not take its rows, or drew no token from them.
    Refuse { session: SessionId, fault: Fault },
    /// It is gone.
    Close { session: SessionId },
}

impl Op {
    fn session(&self) -> SessionId {
        match self {
            Self::Open { session }
            | Self::Name { session }
            | Self::Splice { session, .. }
            | Self::Refuse { session, .. }
            | Self::Close { session } => *session,
        }
    }
}

/// The shortest common beginning that is worth sharing.
const SHARE_TOKENS: usize = 32;

impl Core {
    /// Without a group there is nothing to change, and the documents say it all.
    pub(super) fn queue(&mut self, op: Op) {
        if self.group().is_some() {
            self.queued.push_back(op);
        }
    }

    /// Makes the replica what the calls want; no plan is on its way.
    pub(super) fn flush(&mut self) -> Result<(), PlanError> {
        while let Some(op) = self.queued.pop_front() {
            match op {
                Op::Open { session } => {
                    self.stage(vec![Change::Open { session }])?;
                    self.restore(session)?;
                }
                Op::Name { session } => drop(self.stage(vec![Change::Open { session }])?),
                Op::Splice { session, splices, strategy } => self.splice(session, &splices, strategy)?,
                Op::Refuse { session, fault } => self.refuse(session, &fault)?,
                Op::Close { session } => drop(self.stage(vec![Change::Close { session }])?),
            }
        }
        Ok(())
    }

    /// Applies changes to the replica.
    pub(super) fn stage(&mut self, changes: Vec<Change>) -> Result<Staged, PlanError> {
        let Replica::Serving(group) = &mut self.replica else { return Ok(Staged::default()) };
        let staged = group.stage(&changes)?;
        self.staged.extend(changes);
        self.stats.tokens_adopted.add(staged.adopted as u64);
        Ok(staged)
    }

    /// Applies changes that take slots: others make room for them, if they can.
    pub(super) fn stage_in_room(&mut self, changes: &[Change], of: SessionId) -> Result<Placed, PlanError> {
        loop {
            match self.stage(changes.to_vec()) {
                Ok(staged) => return Ok(Placed::In(staged)),
                Err(PlanError::OutOfSlots { .. }) => {
                    if !self.make_room(of)? {
                        return Ok(Placed::NoRoom);
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Drops a session's rows; its document stays.
    pub(super) fn clear(&mut self, id: SessionId) -> Result<(), PlanError> {
        self.end_shadow(id)?;
        self.worn.remove(&id);
        self.quiet.remove(&id);
        self.stage(vec![Change::Clear { session: id }])?;
        self.stats.sessions_dropped.add(1);
        if let Some(session) = self.sessions.get_mut(&id) {
            (session.residence, session.layout) = (Residence::Dropped, Layout::Plain);
            session.ahead.done();
        }
        Ok(())
    }

    /// Gives a session's document slots: those of another session for a common beginning, its own for the rest.
    pub(super) fn restore(&mut self, id: SessionId) -> Result<(), PlanError> {
        // The document is ahead of what is still queued for it.
        self.queued.retain(|op| op.session() != id || matches!(op, Op::Close { .. } | Op::Refuse { .. }));
        let Some(session) = self.sessions.get(&id).filter(|session| session.residence == Residence::Dropped)
        else {
            return Ok(());
        };
        if self.check_fit(session).is_err() {
            return Ok(());
        }
        let (tokens, strategy): (Vec<TokenId>, _) = (session.document.tokens().collect(), session.strategy);
        loop {
            // Found again each time: who makes room may be who shared.
            let shared = self.donor(id, &tokens);
            let mut changes = Vec::new();
            let length = shared.map_or(0, |(_, length)| length);
            if let Some((from, length)) = shared {
                changes.push(Change::Share { session: id, from, length: count(length) });
            }
            let rest = Splices::append(length, tokens[length..].to_vec()).unwrap_or_default();
            changes.push(Change::Splice { session: id, splices: rest, strategy });
            match self.stage(changes) {
                Ok(_) => {
                    self.stats.tokens_shared.add(length as u64);
                    break self.restored(id, tokens.len() - length);
                }
                Err(PlanError::OutOfSlots { .. }) => {
                    if !self.make_room(id)? {
                        return Ok(());
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn restored(&mut self, id: SessionId, to_encode: usize) {
        if let Some(session) = self.sessions.get_mut(&id) {
            (session.residence, session.layout) = (Residence::Resident, Layout::Plain);
            session.exact = Exact::All;
            session.ahead.done();
            session.ahead.add(to_encode);
            self.active.insert(id);
        }
    }

    /// The session whose rows begin with the most of these tokens, and how many it may share: rows that a fresh encoding
    /// would give. Another tenant's are left alone, unless all trust each other: how soon an answer comes tells whether
    /// somebody else has the same text.
    fn donor(&self, id: SessionId, tokens: &[TokenId]) -> Option<(SessionId, usize)> {
        let group = self.group()?;
        let tenant = &self.sessions.get(&id)?.tenant;
        let may_share = |session: &Session| match self.settings.sharing {
            Sharing::WithinTenant => session.tenant == *tenant,
            Sharing::AcrossTenants => true,
        };
        let common = |session: &Session| {
            let theirs = group.table(session.id)?;
            let head = SHARE_TOKENS.min(tokens.len());
            if session.id == id || !may_share(session) || theirs.tokens().get(..head)? != &tokens[..head] {
                return None;
            }
            let pairs = theirs.tokens().iter().zip(tokens);
            let common = pairs.take_while(|(theirs, ours)| theirs == ours).count();
            let exact = match session.exact {
                Exact::All => common,
                Exact::Until(exact) => common.min(exact),
            };
            let shared = exact.min(theirs.settled_prefix());
            (shared >= SHARE_TOKENS).then_some((session.id, shared))
        };
        self.sessions.values().filter_map(common).max_by_key(|(_, shared)| *shared)
    }

    /// A document changed: so do its rows, and those that are encoded anew beside them.
    fn splice(&mut self, id: SessionId, splices: &Splices, strategy: Strategy) -> Result<(), PlanError> {
        let resident = |session: &&Session| session.residence == Residence::Resident;
        if self.sessions.get(&id).filter(resident).is_none() {
            return Ok(());
        }
        if let Placed::NoRoom = self.lay_out(id, Layout::Plain)? {
            return Ok(());
        }
        let staged = match self.splice_table(id, splices, strategy)? {
            Placed::In(staged) => staged,
            // It alone is too large beside those that are busy: it waits until they are not.
            Placed::NoRoom => return self.give_up(id, &faults::all_busy()),
        };
        let begun =
            |session: &&mut Session| session.completions.front().is_some_and(|front| front.has_begun());
        if let Some(session) = self.sessions.get_mut(&id) {
            session.adopted += count(staged.adopted);
            self.active.insert(id);
        }
        // What an ended completion left is kept as long as it may be adopted.
        let running = self.sessions.get_mut(&id).filter(begun).is_some();
        let stale = self.group().and_then(|group| group.table(id)).is_some_and(|table| !table.may_adopt());
        if stale && !running {
            self.stage(vec![Change::EndBranch { session: id }])?;
        }
        Ok(())
    }

    fn splice_table(
        &mut self,
        id: SessionId,
        splices: &Splices,
        strategy: Strategy,
    ) -> Result<Placed, PlanError> {
        if splices.is_empty() {
            return Ok(Placed::In(Staged::default()));
        }
        let length = self.group().and_then(|group| group.table(id)).map_or(0, |table| table.tokens().len());
        let splice = |session| Change::Splice { session, splices: splices.clone(), strategy };
        let placed = self.stage_in_room(&[splice(id)], id)?;
        let Some(session) = self.sessions.get_mut(&id) else { return Ok(placed) };
        session.exact = session.exact.after(splices, strategy, length);
        if let Some(shadow) = session.shadow
            && let Err(PlanError::OutOfSlots { .. }) = self.stage(vec![splice(shadow)])
        {
            self.end_shadow(id)?;
        }
        Ok(placed)
    }

    /// Moves a table's markers: an edit of the table, whatever the document does.
    pub(super) fn lay_out(&mut self, id: SessionId, layout: Layout) -> Result<Placed, PlanError> {
        let Some(session) = self.sessions.get(&id) else { return Ok(Placed::NoRoom) };
        if session.layout == layout {
            return Ok(Placed::In(Staged::default()));
        }
        let strategy = session.strategy;
        let length = self.group().and_then(|group| group.table(id)).map_or(0, |table| table.tokens().len());
        let (go, come) = session.layout.change(&layout, length);
        let placed = match self.splice_table(id, &go, strategy)? {
            Placed::In(_) => self.splice_table(id, &come, strategy)?,
            Placed::NoRoom => Placed::NoRoom,
        };
        if let Some(session) = self.sessions.get_mut(&id) {
            session.layout = layout;
        }
        if let Placed::NoRoom = placed {
            // Half way between two layouts it is neither; the document says what it is.
            self.give_up(id, &faults::all_busy())?;
        }
        Ok(placed)
    }

    /// The layout for filling in the middle.
    pub(super) fn fim_layout(session: &Session, cut: &Cut, markers: FimMarkers, prefix: usize) -> Layout {
        let tokens: Vec<TokenId> = session.document.tokens().collect();
        Layout::Fim(Patch::new(cut, markers, &tokens, prefix))
    }

    /// A session's rows go, and what waits in it fails.
    pub(super) fn give_up(&mut self, id: SessionId, fault: &Fault) -> Result<(), PlanError> {
        self.clear(id)?;
        if let Some(session) = self.sessions.get_mut(&id) {
            self.completions -= session.completions.len();
            session.completions.drain(..).for_each(|completion| fail(&self.stats, completion, fault));
        }
        Ok(())
    }

    /// Sessions past their rotation budget get a shadow: the same tokens, encoded anew in slots of their own when nobody
    /// wants anything, edited like the session, and put in its place when all is encoded. No answer waits for it.
    pub(super) fn refresh(&mut self) -> Result<(), PlanError> {
        for id in self.worn.clone() {
            let Some(session) = self.sessions.get(&id) else { continue };
            let Some(group) = self.group() else { return Ok(()) };
            let Some(table) = group.table(id).filter(|_| session.completions.is_empty()) else { continue };
            match session.shadow {
                None if group.free_slots() >= 2 * table.tokens().len() => {
                    let splices = Splices::append(0, table.tokens().to_vec()).unwrap_or_default();
                    let shadow = self.new_id();
                    let open = Change::Open { session: shadow };
                    let strategy = Strategy::Pie;
                    self.stage(vec![open, Change::Splice { session: shadow, splices, strategy }])?;
                    if let Some(session) = self.sessions.get_mut(&id) {
                        session.shadow = Some(shadow);
                    }
                }
                Some(shadow) if group.table(shadow).is_some_and(|table| table.pending() == 0) => {
                    let branch = Change::EndBranch { session: id };
                    self.stage(vec![branch, Change::Replace { session: id, by: shadow }])?;
                    self.worn.remove(&id);
                    self.stats.sessions_refreshed.add(1);
                    if let Some(session) = self.sessions.get_mut(&id) {
                        (session.shadow, session.exact) = (None, Exact::All);
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    pub(super) fn end_shadow(&mut self, id: SessionId) -> Result<(), PlanError> {
        let shadow = self.sessions.get_mut(&id).and_then(|session| session.shadow.take());
        if let Some(session) = shadow {
            self.stage(vec![Change::Close { session }])?;
        }
        Ok(())
    }
}

/// Whether changes found room.
pub(super) enum Placed {
    /// They did.
    In(Staged),
    /// All slots belong to sessions that are busy.
    NoRoom,
}
