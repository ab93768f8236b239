//! What a router keeps in mind. No lock leaves this file: whoever holds none while it calls others can wait for none twice.

use pie_placement::{GroupId, SessionKey};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Homes that are remembered; all are asked for again when there are more.
const HOMES: usize = 200_000;

/// A value that is read as it was when it was asked for. Changes are functions of the value alone: they cannot reach back to
/// whoever has the snapshot, and so cannot ask for it again.
#[derive(Debug, Default)]
pub(super) struct Snapshot<T>(Mutex<Arc<T>>);

impl<T: Clone> Snapshot<T> {
    /// The value now.
    pub fn get(&self) -> Arc<T> {
        self.lock().clone()
    }

    /// Another value from now on.
    pub fn replace(&self, value: T) {
        *self.lock() = Arc::new(value);
    }

    /// Changes the value; whoever has it keeps what they have.
    pub fn change(&self, change: impl FnOnce(&mut T) + 'static) {
        change(Arc::make_mut(&mut self.lock()));
    }

    // The value is whole at any time.
    fn lock(&self) -> MutexGuard<'_, Arc<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The homes of sessions.
#[derive(Debug, Default)]
pub(super) struct Homes(Mutex<HashMap<SessionKey, GroupId>>);

impl Homes {
    pub fn get(&self, key: &SessionKey) -> Option<GroupId> {
        self.lock().get(key).cloned()
    }

    pub fn insert(&self, key: SessionKey, group: GroupId) {
        let mut homes = self.lock();
        if homes.len() >= HOMES {
            homes.clear();
        }
        homes.insert(key, group);
    }

    pub fn remove(&self, key: &SessionKey) {
        self.lock().remove(key);
    }

    // Plain data, whole at any time.
    fn lock(&self) -> MutexGuard<'_, HashMap<SessionKey, GroupId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
