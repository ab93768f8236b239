//! Sessions by their names. Each tenant has names of its own: what another tenant opened cannot even be asked for.

use crate::tenants::Tenant;
use pie_proto::request::SessionName;
use pie_words::SessionId;
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

    /// A tenant's sessions, or all, in order of tenants and names, those behind a tenant's name.
    pub fn behind(
        &self,
        whose: Option<&Tenant>,
        after: Option<&(Tenant, SessionName)>,
    ) -> impl Iterator<Item = SessionId> {
        let tenants = match (whose, after) {
            (Some(whose), _) => (Bound::Included(whose), Bound::Included(whose)),
            (None, Some((first, _))) => (Bound::Included(first), Bound::Unbounded),
            (None, None) => (Bound::Unbounded, Bound::Unbounded),
        };
        self.0.range(tenants).flat_map(move |(tenant, names)| {
            let is_behind =
                move |name: &SessionName| after.is_none_or(|(first, after)| (tenant, name) > (first, after));
            let from = match after {
                Some((first, name)) if first == tenant => Bound::Excluded(name),
                _ => Bound::Unbounded,
            };
            let names = names.range((from, Bound::Unbounded));
            names.filter(move |(name, _)| is_behind(name)).map(|(_, id)| *id)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_go_on_behind_a_name() {
        let tenant = |name: &str| Tenant::new(name).expect("a right name");
        let name = |name: &str| SessionName::new(name.to_owned()).expect("a right name");
        let mut names = Names::default();
        for (id, (whose, called)) in [("a", "x"), ("a", "y"), ("b", "x"), ("c", "w")].into_iter().enumerate()
        {
            names.insert(tenant(whose), name(called), SessionId(id as u64));
        }
        let behind = |whose: Option<&str>, after: Option<(&str, &str)>| {
            let whose = whose.map(tenant);
            let after = after.map(|(whose, called)| (tenant(whose), name(called)));
            names.behind(whose.as_ref(), after.as_ref()).map(|id| id.0).collect::<Vec<_>>()
        };
        assert_eq!(behind(None, None), [0, 1, 2, 3]);
        assert_eq!(behind(None, Some(("a", "x"))), [1, 2, 3]);
        assert_eq!(behind(None, Some(("b", "z"))), [3]);
        assert_eq!(behind(Some("a"), Some(("a", "x"))), [1]);
        // A page that went on behind another tenant's session.
        assert_eq!(behind(Some("b"), Some(("a", "y"))), [2]);
        assert!(behind(Some("b"), Some(("c", "a"))).is_empty() && behind(Some("d"), None).is_empty());
    }
}
