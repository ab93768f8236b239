//! Which session of the pool a prompt goes to.
//!
//! One that its client names is edited whatever it holds. Any other prompt goes to the tenant's session that holds the likest one
//! ([`crate::likeness`]), if nobody uses that; or to a new one. A session is taken while it is edited, and back when its completion
//! has begun: nothing waits with the table locked.

use crate::found::SessionMatch;
use crate::held::HeldSession;
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
struct SessionNumber(u64);

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
pub(crate) enum SessionSelector {
    /// The one of this name.
    Named(Arc<str>),
    /// The likest.
    Alike,
}

/// A session that was found, or is to be opened.
pub(crate) struct SessionCheckout {
    /// What it holds; nothing where it is to be opened.
    pub held: HeldSession,
    /// The place that it goes back to.
    pub lease: SessionLease,
    /// One that makes room for it, to be closed.
    pub evicted: Option<HeldSession>,
    /// How it was found.
    pub way: SessionMatch,
}

/// Another request edits the session, and has done so for too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("another request is changing this session, and has not come to an end")]
pub(crate) struct SessionInUse;

/// All sessions of the front.
#[derive(Debug)]
pub(crate) struct PromptSessions {
    /// Tells the sessions of this front from those of others on the same pool.
    front: String,
    table: Mutex<SessionIndex>,
    freed: Notify,
}

#[derive(Debug, Default)]
struct SessionIndex {
    last: u64,
    entries: HashMap<SessionNumber, SessionEntry>,
    names: HashMap<(Arc<str>, Arc<str>), SessionNumber>,
    likeness: Likeness<Scope, SessionNumber>,
}

#[derive(Debug)]
struct SessionEntry {
    scope: Scope,
    name: Option<Arc<str>>,
    /// None while a request edits it.
    held: Option<HeldSession>,
    sketch: Sketch,
    /// Completions that are being read.
    running: usize,
    used: Instant,
}

impl SessionEntry {
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
    Found(SessionNumber, Box<HeldSession>),
    /// The one that it should have is in use.
    InUse,
    None,
}

impl PromptSessions {
    /// None yet, of a front of this name.
    pub fn new(front: String) -> Self {
        Self { front, table: Mutex::default(), freed: Notify::new() }
    }

    /// The session for a prompt. It is taken until its [`SessionLease`] is given back or dropped.
    ///
    /// # Errors
    /// [`SessionInUse`]: the one of this name is edited by another request for too long.
    pub async fn find(
        self: &Arc<Self>,
        scope: &Scope,
        wanted: &SessionSelector,
        sketch: &Sketch,
    ) -> Result<SessionCheckout, SessionInUse> {
        let began = Instant::now();
        loop {
            // Before it looks: a session that is freed meanwhile is heard of.
            let freed = self.freed.notified();
            let patience = match wanted {
                SessionSelector::Named(_) => TURN,
                SessionSelector::Alike => MOMENT,
            };
            match self.table(|table| table.look(scope, wanted, sketch)) {
                Looked::Found(key, held) => {
                    let way = match wanted {
                        SessionSelector::Named(_) => SessionMatch::Named,
                        SessionSelector::Alike => SessionMatch::Alike,
                    };
                    return Ok(self.found(key, *held, way));
                }
                Looked::None => return Ok(self.open(scope, wanted)),
                Looked::InUse => {}
            }
            if timeout_at(began + patience, freed).await.is_err() {
                return match wanted {
                    SessionSelector::Named(_) => Err(SessionInUse),
                    SessionSelector::Alike => Ok(self.any_free(scope, sketch)),
                };
            }
        }
    }

    /// The likest that nobody uses, or a new one.
    fn any_free(self: &Arc<Self>, scope: &Scope, sketch: &Sketch) -> SessionCheckout {
        match self.table(|table| table.take_alike(scope, sketch, 0)) {
            Looked::Found(key, held) => self.found(key, *held, SessionMatch::Alike),
            Looked::InUse | Looked::None => self.open(scope, &SessionSelector::Alike),
        }
    }

    /// A place for a session that is to be opened.
    pub fn open(self: &Arc<Self>, scope: &Scope, wanted: &SessionSelector) -> SessionCheckout {
        let (key, evicted) = self.table(|table| table.open(scope, wanted));
        let name = match wanted {
            SessionSelector::Named(name) => format!("{PREFIX}:{name}"),
            SessionSelector::Alike => format!("{PREFIX}-{}-{}", self.front, key.0),
        };
        SessionCheckout { evicted, ..self.found(key, HeldSession::unopened(name), SessionMatch::New) }
    }

    fn found(self: &Arc<Self>, key: SessionNumber, held: HeldSession, way: SessionMatch) -> SessionCheckout {
        let lease = SessionLease { sessions: self.clone(), key, is_back: false };
        SessionCheckout { held, lease, evicted: None, way }
    }

    /// Takes all that nobody edits out of the table, to be closed.
    pub fn take_all(&self) -> Vec<HeldSession> {
        self.table(|table| {
            let all: Vec<SessionNumber> = table.entries.keys().copied().collect();
            all.into_iter().filter_map(|key| table.remove(key)).collect()
        })
    }

    /// The sessions of a tenant, the oldest first.
    pub fn of(&self, tenant: &str) -> Vec<Shown> {
        let shown = |(key, entry): (&SessionNumber, &SessionEntry)| Shown {
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
    fn table<T>(&self, look: impl FnOnce(&mut SessionIndex) -> T) -> T {
        look(&mut self.table.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl SessionIndex {
    fn look(&mut self, scope: &Scope, wanted: &SessionSelector, sketch: &Sketch) -> Looked {
        match wanted {
            SessionSelector::Named(name) => {
                let Some(key) = self.names.get(&(scope.tenant.clone(), name.clone())).copied() else {
                    return Looked::None;
                };
                self.take(key).map_or(Looked::InUse, |held| Looked::Found(key, held.into()))
            }
            SessionSelector::Alike => self.take_alike(scope, sketch, NEARLY),
        }
    }

    /// Takes the likest session that nobody uses, if it is at least so much like the text as the likest of all, in percent.
    fn take_alike(&mut self, scope: &Scope, sketch: &Sketch, percent: usize) -> Looked {
        let alike = self.likeness.alike(scope, sketch);
        let Some(likest) = alike.first() else { return Looked::None };
        let is_near = |alike: &&Alike<SessionNumber>| alike.shared * 100 >= likest.shared * percent;
        let near = alike.iter().take_while(is_near);
        let mut free = near.filter(|alike| self.entries.get(&alike.key).is_some_and(SessionEntry::is_free));
        let Some(key) = free.next().map(|alike| alike.key) else { return Looked::InUse };
        self.take(key).map_or(Looked::InUse, |held| Looked::Found(key, held.into()))
    }

    fn take(&mut self, key: SessionNumber) -> Option<HeldSession> {
        let entry = self.entries.get_mut(&key)?;
        entry.used = Instant::now();
        entry.held.take()
    }

    fn open(&mut self, scope: &Scope, wanted: &SessionSelector) -> (SessionNumber, Option<HeldSession>) {
        let evicted = self.make_room(&scope.tenant);
        self.last += 1;
        let key = SessionNumber(self.last);
        let name = match wanted {
            SessionSelector::Named(name) => Some(name.clone()),
            SessionSelector::Alike => None,
        };
        if let Some(name) = &name {
            self.names.insert((scope.tenant.clone(), name.clone()), key);
        }
        let (sketch, used) = (Sketch::default(), Instant::now());
        self.entries
            .insert(key, SessionEntry { scope: scope.clone(), name, held: None, sketch, running: 0, used });
        (key, evicted)
    }

    /// Takes the least recently used out, where there are as many as there may be.
    fn make_room(&mut self, tenant: &Arc<str>) -> Option<HeldSession> {
        let own = self.entries.values().filter(|entry| entry.scope.tenant == *tenant).count();
        let is_own = |entry: &SessionEntry| own < TENANT_SESSIONS || entry.scope.tenant == *tenant;
        if self.entries.len() < SESSIONS && own < TENANT_SESSIONS {
            return None;
        }
        let free = self.entries.iter().filter(|(_, entry)| entry.is_free() && is_own(entry));
        let oldest = free.min_by_key(|(_, entry)| entry.used).map(|(key, _)| *key)?;
        self.remove(oldest)
    }

    fn with(&mut self, key: SessionNumber, change: impl FnOnce(&mut SessionEntry)) {
        if let Some(entry) = self.entries.get_mut(&key) {
            change(entry);
        }
    }

    fn remove(&mut self, key: SessionNumber) -> Option<HeldSession> {
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
pub(crate) struct SessionLease {
    sessions: Arc<PromptSessions>,
    key: SessionNumber,
    is_back: bool,
}

impl SessionLease {
    /// The session is back, with what it holds now.
    pub fn give_back(mut self, held: HeldSession, sketch: Sketch) {
        self.sessions.table(|SessionIndex { entries, likeness, .. }| {
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
    pub fn give_back_unchanged(mut self, held: HeldSession) {
        if held.life.is_none() {
            return;
        }
        self.sessions.table(|table| table.with(self.key, |entry| entry.held = Some(held)));
        self.is_back = true;
        self.sessions.freed.notify_waiters();
    }

    /// A completion of the session is being read until what this returns is dropped.
    pub fn running(&self) -> CompletionGuard {
        self.sessions.table(|table| table.with(self.key, |entry| entry.running += 1));
        CompletionGuard { sessions: self.sessions.clone(), key: self.key }
    }
}

impl Drop for SessionLease {
    fn drop(&mut self) {
        if !self.is_back {
            self.sessions.table(|table| drop(table.remove(self.key)));
            self.sessions.freed.notify_waiters();
        }
    }
}

/// A completion that is being read.
#[derive(Debug)]
pub(crate) struct CompletionGuard {
    sessions: Arc<PromptSessions>,
    key: SessionNumber,
}

impl Drop for CompletionGuard {
    fn drop(&mut self) {
        self.sessions
            .table(|table| table.with(self.key, |entry| entry.running = entry.running.saturating_sub(1)));
        self.sessions.freed.notify_waiters();
    }
}

#[cfg(test)]
pub(crate) mod tests;
