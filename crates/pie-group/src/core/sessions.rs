//! The sessions of a group's owner: their documents, under the names of their tenants.
//!
//! **Invariant.** Every session is found by its tenant's name for it, and what a tenant is charged for is what its sessions
//! hold. Documents live on when the group is lost: nothing here knows of ranks.

use super::drafting::Removed;
use super::journal::{Journal, MemoBytes, memo_of};
use super::names::Names;
use super::session::{Availability, Session};
use super::{Idle, Settings};
use crate::call::ImportedSession;
use crate::faults;
use crate::tenants::{Quotas, Tenant, Tenants};
use pie_proto::Fault;
use pie_proto::request::{Identity, SessionName};
use pie_text::DocumentChange;
use pie_words::{Revision, SessionId};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// See the module.
pub(crate) struct Sessions {
    all: BTreeMap<SessionId, Session>,
    names: Names,
    pub(super) tenants: Tenants,
    /// Of all documents.
    tokens: usize,
    /// The group is given up: whoever asks is to ask again, elsewhere.
    pub(super) is_given_up: bool,
    /// What the next owner was given, at which revision, until it says that it has it.
    pub(super) given: BTreeMap<SessionId, Revision>,
    /// What happened to the documents, for the ranks to keep.
    pub(crate) journal: Journal,
    latest_id: u64,
    /// The time of what happens.
    pub(super) now: Instant,
    /// Sessions that there may be.
    limit: usize,
    pub(crate) idle: Idle,
}

impl Sessions {
    /// No sessions yet.
    pub fn new(settings: &Settings, quotas: Quotas) -> Self {
        Self {
            all: BTreeMap::new(),
            names: Names::default(),
            tenants: Tenants::new(settings.tenant, quotas),
            tokens: 0,
            is_given_up: false,
            given: BTreeMap::new(),
            journal: Journal::default(),
            latest_id: 0,
            now: Instant::now(),
            limit: settings.sessions,
            idle: settings.idle,
        }
    }

    /// What happens from here on happens at this time. It does not go back.
    pub fn at(&mut self, now: Instant) {
        self.now = self.now.max(now);
    }

    /// How long ago something was.
    pub fn since(&self, then: Instant) -> Duration {
        self.now.saturating_duration_since(then)
    }

    /// All, in order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = &Session> {
        self.all.values()
    }

    /// How many sessions are open.
    pub fn count(&self) -> usize {
        self.all.len()
    }

    /// Tokens of all documents.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// A session by its name in plans.
    pub fn get(&self, id: SessionId) -> Option<&Session> {
        self.all.get(&id)
    }

    /// The same, to change it.
    pub fn get_mut(&mut self, id: SessionId) -> Option<&mut Session> {
        self.all.get_mut(&id)
    }

    /// A session that may be used, by its name; if the call names a life of it, only in that.
    pub fn find(
        &self,
        tenant: &Tenant,
        name: &SessionName,
        identity: Option<&Identity>,
    ) -> Result<&Session, Fault> {
        match self.named(tenant, name) {
            _ if self.is_given_up => Err(faults::moving(name.as_str())),
            None => Err(faults::no_session(name.as_str())),
            Some(session) if session.standing != Availability::Here => Err(faults::moving(name.as_str())),
            Some(session) if identity.is_some_and(|identity| *identity != session.identity) => {
                Err(faults::replaced(name.as_str()))
            }
            Some(session) => Ok(session),
        }
    }

    /// A session by its name, whether it may be used or not.
    pub fn named(&self, tenant: &Tenant, name: &SessionName) -> Option<&Session> {
        self.all.get(&self.names.get(tenant, name)?)
    }

    /// The sessions of a tenant, or of all, in order of tenants and names, behind one of them.
    pub fn behind(
        &self,
        whose: Option<&Tenant>,
        after: Option<&(Tenant, SessionName)>,
    ) -> impl Iterator<Item = &Session> {
        self.names.behind(whose, after).filter_map(|id| self.all.get(&id))
    }

    /// A session's client is there.
    pub fn used(&mut self, id: SessionId) {
        if let Some(session) = self.all.get_mut(&id) {
            session.used = self.now;
        }
    }

    /// Whether a tenant may open a session of so many tokens.
    pub fn check_open(&self, tenant: &Tenant, tokens: usize) -> Result<(), Fault> {
        if self.all.len() >= self.limit {
            return Err(faults::too_many_sessions(self.limit, self.idle.makes_room_after));
        }
        self.tenants.check_open(tenant, tokens)
    }

    /// A session that is new here.
    pub fn insert(&mut self, new: ImportedSession) -> SessionId {
        self.latest_id += 1;
        let id = SessionId(self.latest_id);
        self.insert_as(id, new);
        self.write_whole(id);
        id
    }

    /// A session that the ranks have kept, under their name for it.
    pub fn insert_as(&mut self, id: SessionId, new: ImportedSession) {
        let ImportedSession { tenant, name, identity, following, document } = new;
        let (standing, used, document) = (Availability::Here, self.now, *document);
        let (memo, removed, edited) = (MemoBytes::default(), Removed::default(), None);
        let session = Session {
            name,
            id,
            identity,
            tenant,
            standing,
            used,
            document,
            following,
            edited,
            removed,
            memo,
        };
        self.book(&session);
        self.all.insert(id, session);
    }

    /// No session gets this name in plans from here on, or one before it.
    pub fn reserve(&mut self, id: SessionId) {
        self.latest_id = self.latest_id.max(id.0);
    }

    /// All sessions, to be [put back](Sessions::put_back) under other names in plans.
    pub fn take_out(&mut self) -> Vec<Session> {
        let all = std::mem::take(&mut self.all);
        self.forget_books();
        self.given.clear();
        all.into_values().collect()
    }

    /// A session that was here before others came. Of two of one name the greater revision is right; the name in plans that the ranks
    /// have for it stays.
    pub fn put_back(&mut self, session: Session) {
        let present = self.named(&session.tenant, &session.name);
        let present = present.map(|present| (present.id, present.revision()));
        let id = match present {
            Some((_, revision)) if revision >= session.revision() => return,
            Some((id, _)) => {
                self.remove(id);
                id
            }
            None => {
                self.latest_id += 1;
                SessionId(self.latest_id)
            }
        };
        let session = Session { id, ..session };
        self.book(&session);
        self.all.insert(id, session);
    }

    /// What the ranks keep of a session is to be all of it.
    pub fn write_whole(&mut self, id: SessionId) {
        if let Some(session) = self.all.get_mut(&id) {
            session.memo = self.journal.whole(session);
        }
    }

    fn book(&mut self, session: &Session) {
        self.tenants.opened(&session.tenant, session.tokens());
        self.tokens += session.tokens();
        self.names.insert(session.tenant.clone(), session.name.clone(), session.id);
    }

    /// A session is gone.
    pub fn remove(&mut self, id: SessionId) {
        if let Some(session) = self.all.remove(&id) {
            self.names.remove(&session.tenant, &session.name);
            self.tenants.closed(&session.tenant, session.tokens());
            self.tokens -= session.tokens();
            self.journal.gone(id);
        }
    }

    /// Changes a document. Everything was checked before.
    pub fn commit(
        &mut self,
        id: SessionId,
        change: DocumentChange,
        arrived: Option<Instant>,
    ) -> Result<(), Fault> {
        let Some(session) = self.all.get_mut(&id) else { return Ok(()) };
        let (before, revision) = (session.tokens(), session.revision());
        let memo = memo_of(&change);
        session.removed.follow(&session.document, change.splices());
        session.document.commit(change).map_err(|error| faults::text(&error))?;
        if session.revision() == revision {
            return Ok(());
        }
        session.memo = match memo {
            Some(memo) => self.journal.edited(session, memo),
            None => self.journal.whole(session),
        };
        (session.edited, session.used) = (arrived.or(session.edited), self.now);
        let after = session.tokens();
        self.tenants.edited(&session.tenant, before, after);
        self.tokens = self.tokens + after - before;
        Ok(())
    }

    /// After a panic in the middle of anything all books are made anew. A document that was being changed and is not whole
    /// goes: its client opens it again.
    pub fn recover(&mut self) {
        let mut all = std::mem::take(&mut self.all);
        all.retain(|id, session| {
            let is_whole = session.id == *id && session.document.is_whole();
            if !is_whole {
                tracing::error!(session = session.name.as_str(), "a document was half changed: it is closed");
            }
            is_whole
        });
        self.forget_books();
        all.values().for_each(|session| self.book(session));
        self.all = all;
        self.journal.break_off();
    }

    fn forget_books(&mut self) {
        (self.names, self.tokens) = (Names::default(), 0);
        self.tenants.forget();
    }
}
