//! Sessions by their names. Each tenant has names of its own: what another tenant opened cannot even be asked for.

use crate::tenants::Tenant;
use pie_plan::SessionId;
use pie_proto::request::SessionName;
use std::collections::BTreeMap;
use std::ops::Bound;

/// The names of all sessions.
#[derive(Debug, Default)]
pub(super) struct Names(BTreeMap<Tenant, BTreeMap<SessionName, SessionId>>);

impl Names {
    /// The session of this name.
    pub fn get(&self, tenant: &Tenant, name: &SessionName) -> Option<SessionId> {
        self.0.get(tenant)?.get(name).copied()
    }

    /// Names a session.
    pub fn insert(&mut self, tenant: Tenant, name: SessionName, id: SessionId) {
        self.0.entry(tenant).or_default().insert(name, id);
    }

    /// The name is free again.
    pub fn remove(&mut self, tenant: &Tenant, name: &SessionName) {
        if let Some(names) = self.0.get_mut(tenant) {
            names.remove(name);
            if names.is_empty() {
                self.0.remove(tenant);
            }
        }
    }

    /// All tenants' sessions, or one's, in order of tenants and names, those behind a tenant's name.
    pub fn all_behind(
        &self,
        whose: Option<&Tenant>,
        after: Option<(Tenant, SessionName)>,
    ) -> impl Iterator<Item = SessionId> {
        let from = after.as_ref().map_or(Bound::Unbounded, |(tenant, _)| Bound::Included(tenant.clone()));
        let whose = whose.cloned();
        let tenants = self.0.range((from, Bound::Unbounded));
        let theirs = tenants.filter(move |(tenant, _)| whose.as_ref().is_none_or(|whose| whose == *tenant));
        theirs.flat_map(move |(tenant, names)| {
            let from = match &after {
                Some((first, name)) if first == tenant => Bound::Excluded(name.clone()),
                _ => Bound::Unbounded,
            };
            names.range((from, Bound::Unbounded)).map(|(_, id)| *id)
        })
    }

    /// A tenant's sessions in order of their names, those behind a name.
    pub fn behind(&self, tenant: &Tenant, after: Option<&SessionName>) -> impl Iterator<Item = SessionId> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let names = self.0.get(tenant).into_iter();
        names.flat_map(move |names| names.range((from, Bound::Unbounded)).map(|(_, id)| *id))
    }
}
