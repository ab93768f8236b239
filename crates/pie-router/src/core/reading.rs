//! What the owner says of itself and its sessions.

use super::tables::Op;
use super::{Core, Replica};
use crate::call::More;
use crate::session::{Residence, Session, count};
use crate::tenants::Tenant;
use pie_plan::Group;
use pie_proto::request::{Identity, SessionName, strategy_to_wire};
use pie_proto::{Fault, v1};

impl Core {
    pub(super) fn get(
        &mut self,
        tenant: &Tenant,
        name: &SessionName,
        identity: Option<&Identity>,
        content: bool,
    ) -> Result<v1::GetSessionResponse, Fault> {
        let id = self.id_of(tenant, name, identity)?;
        // Whoever reads it is there.
        self.used(id);
        let session = self.session(id, name)?;
        let ids = || v1::Tokens { ids: session.document.tokens().map(|token| token.0).collect() };
        Ok(v1::GetSessionResponse {
            session: Some(self.describe_session(session)),
            text: if content { session.document.text() } else { None },
            tokens: content.then(ids),
        })
    }

    pub(super) fn list(
        &self,
        tenant: &Tenant,
        after: Option<&SessionName>,
        limit: usize,
    ) -> (Vec<v1::Session>, More) {
        let mut ids = self.names.behind(tenant, after);
        let page = ids.by_ref().take(limit).filter_map(|id| self.sessions.get(&id));
        let page = page.map(|session| self.describe_session(session)).collect();
        (page, if ids.next().is_some() { More::Yes } else { More::No })
    }

    /// The same for who runs the pool; it is no use of a session.
    pub(super) fn held(
        &self,
        tenant: Option<&Tenant>,
        after: Option<(Tenant, SessionName)>,
        limit: usize,
    ) -> (Vec<v1::TenantSession>, More) {
        let mut ids = self.names.all_behind(tenant, after);
        let page = ids.by_ref().take(limit).filter_map(|id| self.sessions.get(&id));
        let page = page.map(|session| v1::TenantSession {
            tenant: session.tenant.as_str().to_owned(),
            session: Some(self.describe_session(session)),
            idle_ms: u64::try_from(self.since(session.used).as_millis()).unwrap_or(u64::MAX),
            completions: count(session.completions.len()),
        });
        (page.collect(), if ids.next().is_some() { More::Yes } else { More::No })
    }

    fn describe_session(&self, session: &Session) -> v1::Session {
        let group = self.group().filter(|_| session.residence == Residence::Resident);
        let table = group.and_then(|group| group.table(session.id));
        let queued = self.queued.iter().map(|op| match op {
            Op::Splice { session: id, splices, .. } if *id == session.id => splices.inserted(),
            _ => 0,
        });
        // One that was opened during the step in hand gets its rows behind it.
        let opens = |op: &Op| matches!(op, Op::Open { session: id } if *id == session.id);
        let resident = session.residence == Residence::Resident || self.queued.iter().any(opens);
        let pending = table.map_or(session.tokens(), |table| table.pending() + queued.sum::<usize>());
        v1::Session {
            session: session.name.as_str().to_owned(),
            revision: session.document.revision().0,
            tokens: count(session.tokens()),
            tokens_pending: count(pending.min(session.tokens())),
            bytes: session.document.len_bytes() as u64,
            strategy: strategy_to_wire(session.strategy).into(),
            group: self.group_name.clone(),
            tokens_shared: count(group.map_or(0, |group| group.shared_slots(session.id))),
            rotations: table.map_or(0, |table| table.most_turned().into()),
            identity: session.identity.as_str().to_owned(),
            resident,
        }
    }

    /// The pool as the API describes it; who the ranks are is the owner's to add.
    pub fn describe(&self) -> v1::DescribePoolResponse {
        let (epoch, slots_total, slots_free, state) = match &self.replica {
            Replica::Serving(group) => {
                let free = group.free_slots() + self.left_over(group);
                (group.epoch().0, group.capacity(), free, "serving".to_owned())
            }
            Replica::Lost(why) => (0, 0, 0, why.clone()),
        };
        let group = v1::Group {
            group: self.group_name.clone(),
            epoch,
            ranks: Vec::new(),
            slots_total: count(slots_total),
            slots_free: count(slots_free),
            sessions: count(self.sessions.len()),
            state,
            counters: Some(self.stats.counters()),
            tokens: self.tokens as u64,
            ..Default::default()
        };
        v1::DescribePoolResponse {
            model: self.model.name.clone(),
            parameters: self.model.parameters,
            context_limit: self.model.context_limit,
            vocabulary: self.model.vocabulary,
            groups: vec![group],
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    /// Tells those who only look on what is so now.
    pub fn publish(&self) {
        let stats = &self.stats;
        let (slots, free, epoch) =
            self.group().map_or((0, 0, 0), |group| (group.capacity(), group.free_slots(), group.epoch().0));
        let running = self.running_completions().min(self.completions);
        stats.sessions.set(self.sessions.len() as u64);
        stats.tokens.set(self.tokens as u64);
        stats.running.set(running as u64);
        stats.waiting.set((self.completions - running) as u64);
        stats.changes_waiting.set(self.queued.len() as u64);
        stats.slots.set(slots as u64);
        stats.slots_used.set((slots - free) as u64);
        stats.epoch.set(epoch);
    }

    /// Slots of what ended completions left: kept for adoption, and given up as soon as somebody needs them.
    fn left_over(&self, group: &Group) -> usize {
        let ended = self.sessions.values().filter(|session| session.completions.is_empty());
        ended.filter_map(|session| group.table(session.id)).map(|table| table.branch().len()).sum()
    }

    /// The digest of the owner's tables, to compare with the ranks' (P4). Valid between a report and the next step.
    pub fn digest(&self) -> Option<u64> {
        self.group().map(Group::digest)
    }

    pub(super) fn group(&self) -> Option<&Group> {
        match &self.replica {
            Replica::Serving(group) => Some(group),
            Replica::Lost(_) => None,
        }
    }
}
