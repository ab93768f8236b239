//! The homes that a router keeps in mind. The lock does not leave this file: whoever holds none while it calls others can wait for none
//! twice.

use pie_placement::{GroupId, SessionKey};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Homes that are remembered; all are asked for again when there are more.
const HOMES: usize = 200_000;

/// The homes of sessions.
#[derive(Debug, Default)]
pub(super) struct Homes(Mutex<HashMap<SessionKey, GroupId>>);

impl Homes {
    /// The home of a session, if it is remembered.
    pub fn get(&self, key: &SessionKey) -> Option<GroupId> {
        self.lock().get(key).cloned()
    }

    /// Remembers a home.
    pub fn insert(&self, key: SessionKey, group: GroupId) {
        let mut homes = self.lock();
        if homes.len() >= HOMES {
            homes.clear();
        }
        homes.insert(key, group);
    }

    /// The home is to be asked for again.
    pub fn remove(&self, key: &SessionKey) {
        self.lock().remove(key);
    }

    // Plain data, whole at any time.
    fn lock(&self) -> MutexGuard<'_, HashMap<SessionKey, GroupId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
