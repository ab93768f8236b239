//! Which session of the pool a prompt goes to.
//!
//! One that its client names is edited whatever it holds. Any other prompt goes to the tenant's session that holds the likest one
//! ([`crate::likeness`]), if nobody uses that; or to a new one. A session is taken while it is edited, and back when its completion
//! has begun: nothing waits with the table locked.

use crate::found::Way;
use crate::held::Held;
use crate::likeness::{Alike, Likeness, Sketch};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

/// Begins the names of the front's sessions in the pool.
const PREFIX: &str = "http";
/// Sessions of the front. The one that was used least recently makes room.
pub(crate) const SESSIONS: usize = 2048;
/// Of one tenant.
const TENANT_SESSIONS: usize = 1024;
/// A client that asks again has often left its last request in the same moment: the session is free when that has been noticed.
const MOMENT: Duration = Duration::from_millis(100);
/// A session that is so much like a prompt as the likest, in percent, is as good as that.
const NEARLY: usize = 90;
/// A session that is edited by another request is waited for so long.
const TURN: Duration = Duration::from_secs(10);

/// A session of the front. The larger is the younger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Key(u64);

/// Whose prompts may be compared.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Scope {
    /// By its token, or as it says.
    pub tenant: Arc<str>,
    /// Of the tenant's users, whom the client tells apart.
    pub user: Arc<str>,
}

/// Which session a request wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// The one of this name.
    Named(Arc<str>),
    /// The likest.
    Alike,
}

/// A session that was found, or is to be opened.
pub(crate) struct Found {
    /// What it holds; nothing where it is to be opened.
    pub held: Held,
    /// The place that it goes back to.
    pub lease: Lease,
    /// One that makes room for it, to be closed.
    pub evicted: Option<Held>,
    /// How it was found.
    pub way: Way,
}

/// Another request edits the session, and has done so for too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("another request is changing this session, and has not come to an end")]
pub(crate) struct Busy;

/// All sessions of the front.
#[derive(Debug)]
pub(crate) struct Sessions {
    /// Tells the sessions of this front from those of others on the same pool.
    front: String,
    table: Mutex<Table>,
    freed: Notify,
}

#[derive(Debug, Default)]
struct Table {
    last: u64,
    entries: HashMap<Key, Entry>,
    names: HashMap<(Arc<str>, Arc<str>), Key>,
    likeness: Likeness<Scope, Key>,
}

#[derive(Debug)]
struct Entry {
    scope: Scope,
    name: Option<Arc<str>>,
    /// None while a request edits it.
    held: Option<Held>,
    sketch: Sketch,
    /// Completions that are being read.
    running: usize,
    used: Instant,
}

impl Entry {
    fn is_free(&self) -> bool {
        self.held.is_some() && self.running == 0
    }
}

/// A session, for those who look on. One that is being edited shows nothing of what it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shown {
    /// In the order of their opening.
    pub number: u64,
    /// In the pool.
    pub name: String,
    /// That it holds.
    pub tokens: usize,
    /// Completions that are being read.
    pub running: usize,
}

/// What the table has for a request.
enum Looked {
    Found(Key, Box<Held>),
    /// The one that it should have is in use.
    InUse,
    None,
}

impl Sessions {
    /// None yet, of a front of this name.
    pub fn new(front: String) -> Self {
        Self { front, table: Mutex::default(), freed: Notify::new() }
    }

    /// The session for a prompt. It is taken until its [`Lease`] is given back or dropped.
    ///
    /// # Errors
    /// [`Busy`]: the one of this name is edited by another request for too long.
    pub async fn find(
        self: &Arc<Self>,
        scope: &Scope,
        wanted: &Wanted,
        sketch: &Sketch,
    ) -> Result<Found, Busy> {
        let began = Instant::now();
        loop {
            // Before it looks: a session that is freed meanwhile is heard of.
            let freed = self.freed.notified();
            let patience = match wanted {
                Wanted::Named(_) => TURN,
                Wanted::Alike => MOMENT,
            };
            match self.table(|table| table.look(scope, wanted, sketch)) {
                Looked::Found(key, held) => {
                    let way = match wanted {
                        Wanted::Named(_) => Way::Named,
                        Wanted::Alike => Way::Alike,
                    };
                    return Ok(self.found(key, *held, way));
                }
                Looked::None => return Ok(self.open(scope, wanted)),
                Looked::InUse => {}
            }
            if timeout_at(began + patience, freed).await.is_err() {
                return match wanted {
                    Wanted::Named(_) => Err(Busy),
                    Wanted::Alike => Ok(self.any_free(scope, sketch)),
                };
            }
        }
    }

    /// The likest that nobody uses, or a new one.
    fn any_free(self: &Arc<Self>, scope: &Scope, sketch: &Sketch) -> Found {
        match self.table(|table| table.take_alike(scope, sketch, 0)) {
            Looked::Found(key, held) => self.found(key, *held, Way::Alike),
            Looked::InUse | Looked::None => self.open(scope, &Wanted::Alike),
        }
    }

    /// A place for a session that is to be opened.
    pub fn open(self: &Arc<Self>, scope: &Scope, wanted: &Wanted) -> Found {
        let (key, evicted) = self.table(|table| table.open(scope, wanted));
        let name = match wanted {
            Wanted::Named(name) => format!("{PREFIX}:{name}"),
            Wanted::Alike => format!("{PREFIX}-{}-{}", self.front, key.0),
        };
        Found { evicted, ..self.found(key, Held::unopened(name), Way::New) }
    }

    fn found(self: &Arc<Self>, key: Key, held: Held, way: Way) -> Found {
        let lease = Lease { sessions: self.clone(), key, is_back: false };
        Found { held, lease, evicted: None, way }
    }

    /// Takes all that nobody edits out of the table, to be closed.
    pub fn take_all(&self) -> Vec<Held> {
        self.table(|table| {
            let all: Vec<Key> = table.entries.keys().copied().collect();
            all.into_iter().filter_map(|key| table.remove(key)).collect()
        })
    }

    /// The sessions of a tenant, the oldest first.
    pub fn of(&self, tenant: &str) -> Vec<Shown> {
        let shown = |(key, entry): (&Key, &Entry)| Shown {
            number: key.0,
            name: entry.held.as_ref().map(|held| held.name.clone()).unwrap_or_default(),
            tokens: entry.held.as_ref().map_or(0, |held| held.tokens.len()),
            running: entry.running,
        };
        let mut all: Vec<Shown> = self.table(|table| {
            table.entries.iter().filter(|(_, entry)| *entry.scope.tenant == *tenant).map(shown).collect()
        });
        all.sort_unstable_by_key(|session| session.number);
        all
    }

    /// Does something with the table. No guard leaves this, so that nobody who has one can want another.
    fn table<T>(&self, look: impl FnOnce(&mut Table) -> T) -> T {
        look(&mut self.table.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Table {
    fn look(&mut self, scope: &Scope, wanted: &Wanted, sketch: &Sketch) -> Looked {
        match wanted {
            Wanted::Named(name) => {
                let Some(key) = self.names.get(&(scope.tenant.clone(), name.clone())).copied() else {
                    return Looked::None;
                };
                self.take(key).map_or(Looked::InUse, |held| Looked::Found(key, held.into()))
            }
            Wanted::Alike => self.take_alike(scope, sketch, NEARLY),
        }
    }

    /// Takes the likest session that nobody uses, if it is at least so much like the text as the likest of all, in percent.
    fn take_alike(&mut self, scope: &Scope, sketch: &Sketch, percent: usize) -> Looked {
        let alike = self.likeness.alike(scope, sketch);
        let Some(likest) = alike.first() else { return Looked::None };
        let is_near = |alike: &&Alike<Key>| alike.shared * 100 >= likest.shared * percent;
        let near = alike.iter().take_while(is_near);
        let mut free = near.filter(|alike| self.entries.get(&alike.key).is_some_and(Entry::is_free));
        let Some(key) = free.next().map(|alike| alike.key) else { return Looked::InUse };
        self.take(key).map_or(Looked::InUse, |held| Looked::Found(key, held.into()))
    }

    fn take(&mut self, key: Key) -> Option<Held> {
        let entry = self.entries.get_mut(&key)?;
        entry.used = Instant::now();
        entry.held.take()
    }

    fn open(&mut self, scope: &Scope, wanted: &Wanted) -> (Key, Option<Held>) {
        let evicted = self.make_room(&scope.tenant);
        self.last += 1;
        let key = Key(self.last);
        let name = match wanted {
            Wanted::Named(name) => Some(name.clone()),
            Wanted::Alike => None,
        };
        if let Some(name) = &name {
            self.names.insert((scope.tenant.clone(), name.clone()), key);
        }
        let (sketch, used) = (Sketch::default(), Instant::now());
        self.entries.insert(key, Entry { scope: scope.clone(), name, held: None, sketch, running: 0, used });
        (key, evicted)
    }

    /// Takes the least recently used out, where there are as many as there may be.
    fn make_room(&mut self, tenant: &Arc<str>) -> Option<Held> {
        let own = self.entries.values().filter(|entry| entry.scope.tenant == *tenant).count();
        let is_own = |entry: &Entry| own < TENANT_SESSIONS || entry.scope.tenant == *tenant;
        if self.entries.len() < SESSIONS && own < TENANT_SESSIONS {
            return None;
        }
        let free = self.entries.iter().filter(|(_, entry)| entry.is_free() && is_own(entry));
        let oldest = free.min_by_key(|(_, entry)| entry.used).map(|(key, _)| *key)?;
        self.remove(oldest)
    }

    fn with(&mut self, key: Key, change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.entries.get_mut(&key) {
            change(entry);
        }
    }

    fn remove(&mut self, key: Key) -> Option<Held> {
        let entry = self.entries.remove(&key)?;
        self.likeness.remove(&entry.scope, key, &entry.sketch);
        if let Some(name) = entry.name {
            self.names.remove(&(entry.scope.tenant, name));
        }
        entry.held
    }
}

/// A session that is taken. Dropping it without having given it back forgets the session.
#[derive(Debug)]
pub(crate) struct Lease {
    sessions: Arc<Sessions>,
    key: Key,
    is_back: bool,
}

impl Lease {
    /// The session is back, with what it holds now.
    pub fn give_back(mut self, held: Held, sketch: Sketch) {
        self.sessions.table(|Table { entries, likeness, .. }| {
            if let Some(entry) = entries.get_mut(&self.key) {
                likeness.remove(&entry.scope, self.key, &entry.sketch);
                likeness.insert(&entry.scope, self.key, &sketch);
                (entry.held, entry.sketch, entry.used) = (Some(held), sketch, Instant::now());
            }
        });
        self.is_back = true;
        self.sessions.freed.notify_waiters();
    }

    /// The session is back as it was. One that was never opened is forgotten.
    pub fn give_back_unchanged(mut self, held: Held) {
        if held.life.is_none() {
            return;
        }
        self.sessions.table(|table| table.with(self.key, |entry| entry.held = Some(held)));
        self.is_back = true;
        self.sessions.freed.notify_waiters();
    }

    /// A completion of the session is being read until what this returns is dropped.
    pub fn running(&self) -> Running {
        self.sessions.table(|table| table.with(self.key, |entry| entry.running += 1));
        Running { sessions: self.sessions.clone(), key: self.key }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if !self.is_back {
            self.sessions.table(|table| drop(table.remove(self.key)));
            self.sessions.freed.notify_waiters();
        }
    }
}

/// A completion that is being read.
#[derive(Debug)]
pub(crate) struct Running {
    sessions: Arc<Sessions>,
    key: Key,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.sessions
            .table(|table| table.with(self.key, |entry| entry.running = entry.running.saturating_sub(1)));
        self.sessions.freed.notify_waiters();
    }
}

#[cfg(test)]
pub(crate) mod tests;
