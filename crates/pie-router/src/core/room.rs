//! Who makes room when slots run short. Tenants pay for what they hold: one that opens document after document, or completes in many at
//! a time, drops its own, and never the one that another types into.

use super::{Core, Residence, Session};
use crate::faults;
use crate::tenants::Tenant;
use pie_plan::{Change, PlanError, Run, SessionId};
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// How many rows each tenant holds.
struct Held(BTreeMap<Tenant, usize>);

impl Held {
    fn by(&self, tenant: &Tenant) -> usize {
        self.0.get(tenant).copied().unwrap_or(0)
    }
}

impl Core {
    /// One session less takes slots that it does not need now: first what is encoded anew beside old rows, then what ended
    /// completions left, then documents that wait for nothing, those that are idle longest, of the tenant that holds most. If all are
    /// busy, a session of a tenant that holds more than the one who asks ends its completions. False when nobody can.
    pub(super) fn make_room(&mut self, asks: SessionId) -> Result<bool, PlanError> {
        let shadowed = self.sessions.values().find(|session| session.shadow.is_some());
        if let Some(id) = shadowed.map(|session| session.id) {
            self.end_shadow(id)?;
            return Ok(true);
        }
        let Some(held) = self.rows_by_tenant() else { return Ok(false) };
        let own = self.sessions.get(&asks).map_or(0, |session| held.by(&session.tenant));
        let is_idle = |session: &&Session| session.completions.is_empty() && held.by(&session.tenant) >= own;
        let order = |session: &&Session| (Reverse(held.by(&session.tenant)), session.ticket);
        let others = || self.sessions.values().filter(|session| session.id != asks);
        let left_over = self.sessions.values().filter(|session| self.branch_rows(session) > 0);
        if let Some(session) = left_over.filter(is_idle).min_by_key(order).map(|session| session.id) {
            self.stage(vec![Change::EndBranch { session }])?;
            return Ok(true);
        }
        let holds =
            |session: &&Session| session.residence == Residence::Resident && self.document_rows(session) > 0;
        if let Some(id) = others().filter(holds).filter(is_idle).min_by_key(order).map(|session| session.id) {
            self.clear(id)?;
            return Ok(true);
        }
        // Who has waited least loses least.
        let exceeds = |session: &&Session| held.by(&session.tenant) > own;
        let busy = others().filter(holds).filter(exceeds);
        match busy.max_by_key(|session| (held.by(&session.tenant), session.ticket)).map(|session| session.id)
        {
            Some(id) => self.give_up(id, &faults::others_need_slots()).map(|()| true),
            None => Ok(false),
        }
    }

    /// The run that goes first when tokens find no slots: the last that samples, of the tenant that holds most.
    pub(super) fn first_to_fail(&self, runs: &[Run]) -> Option<usize> {
        let held = self.rows_by_tenant()?;
        let samples = runs.iter().enumerate().filter(|(_, run)| matches!(run, Run::Sample { .. }));
        let rows =
            |run: &Run| self.sessions.get(&run.session()).map_or(0, |session| held.by(&session.tenant));
        samples.max_by_key(|(index, run)| (rows(run), *index)).map(|(index, _)| index)
    }

    fn rows_by_tenant(&self) -> Option<Held> {
        self.group()?;
        let mut held = BTreeMap::new();
        for session in self.sessions.values() {
            let rows = self.document_rows(session) + self.branch_rows(session);
            *held.entry(session.tenant.clone()).or_default() += rows;
        }
        Some(Held(held))
    }

    fn document_rows(&self, session: &Session) -> usize {
        self.group().and_then(|group| group.table(session.id)).map_or(0, |table| table.tokens().len())
    }

    fn branch_rows(&self, session: &Session) -> usize {
        self.group().and_then(|group| group.table(session.id)).map_or(0, |table| table.branch().len())
    }
}
