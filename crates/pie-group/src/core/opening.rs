//! Sessions come and go.

use super::Core;
use crate::call::{Departure, ImportedSession, Prepared, Resident, Why};
use crate::faults;
use crate::tenants::Tenant;
use pie_proto::Fault;
use pie_proto::request::SessionName;
use pie_text::{Document, DocumentChange};
use pie_words::{AskedFollowing, Following, SessionId};

/// What opening a session did.
pub(crate) struct Opened {
    /// The session that is open now.
    pub session: SessionId,
    /// Tokens of its document that were held already.
    pub reused: usize,
}

impl Core {
    /// A copy of a session's document, if it is open.
    pub(crate) fn look(&self, tenant: &Tenant, name: &SessionName) -> Result<Option<Box<Document>>, Fault> {
        if !self.sessions.is_given_up && self.sessions.named(tenant, name).is_none() {
            return Ok(None);
        }
        Ok(Some(Box::new(self.sessions.find(tenant, name, None)?.document.snapshot())))
    }

    /// Opens a session, or makes the one that is open hold its client's text. What was worked out for the one is refused where
    /// there is the other by now. What the client does not say of how its cache follows stays as it was.
    pub(crate) fn open(
        &mut self,
        tenant: Tenant,
        name: SessionName,
        prepared: Prepared,
        asked: AskedFollowing,
    ) -> Result<Opened, Fault> {
        if self.sessions.is_given_up {
            return Err(faults::moving(name.as_str()));
        }
        match (prepared, self.sessions.named(&tenant, &name)) {
            (Prepared::New { identity, document }, None) => {
                let following = Following::default().with(asked);
                self.open_new(ImportedSession { tenant, name, identity, following, document })
            }
            (Prepared::Again(change), Some(_)) => {
                let session = self.sessions.find(&tenant, &name, None)?.id;
                self.reopen(session, *change, asked)
            }
            (Prepared::New { .. }, Some(_)) | (Prepared::Again(_), None) => {
                Err(faults::overtaken(name.as_str()))
            }
        }
    }

    fn open_new(&mut self, new: ImportedSession) -> Result<Opened, Fault> {
        let tokens = new.document.token_count();
        self.model.check(&new.document)?;
        if let Ok(planner) = &self.planner {
            planner.check_slots(tokens)?;
        }
        self.sessions.check_open(&new.tenant, tokens)?;
        let session = self.sessions.insert(new);
        if let (Ok(planner), Some(session)) = (&mut self.planner, self.sessions.get(session)) {
            planner.opened(session);
        }
        self.stats.sessions.opened.add(1);
        Ok(Opened { session, reused: 0 })
    }

    /// The client's text is the truth; what the pool holds already is kept.
    fn reopen(
        &mut self,
        id: SessionId,
        change: DocumentChange,
        asked: AskedFollowing,
    ) -> Result<Opened, Fault> {
        self.sessions.used(id);
        let gone = || faults::no_session("the name's session");
        let session = self.sessions.get(id).ok_or_else(gone)?;
        session.document.accepts(&change).map_err(|_| faults::overtaken(session.name.as_str()))?;
        let (inserted, deleted) = (change.splices().inserted(), change.splices().deleted());
        self.model.check_length(session.tokens() - deleted + inserted)?;
        let new = change.splices().iter().flat_map(|splice| splice.insert.iter().copied());
        faults::check_tokens(new, self.model.vocabulary())?;
        self.check_growth(session, change.splices())?;
        let following = session.following.with(asked);
        self.commit(id, change, following, None)?;
        let session = self.sessions.get_mut(id).ok_or_else(gone)?;
        let reused = session.tokens().saturating_sub(inserted);
        if session.following != following {
            session.following = following;
            self.sessions.write_whole(id);
        }
        Ok(Opened { session: id, reused })
    }

    /// A session is closed; whoever waits for it is told.
    pub(crate) fn close(&mut self, id: SessionId, why: Why) {
        let name = self.sessions.get(id).map(|session| session.name.clone());
        if let Some(name) = name {
            self.remove(id, &faults::no_session(name.as_str()));
            self.stats.closed(why);
        }
    }

    /// A session that was on its way lives here no longer.
    pub(crate) fn depart(&mut self, resident: &Resident, departure: Departure) {
        match (self.sessions.leaving(resident), departure) {
            (Some(id), Departure::Moved) => {
                self.remove(id, &faults::moving(resident.name.as_str()));
                self.stats.sessions.given.add(1);
            }
            (Some(id), Departure::Closed(why)) => self.close(id, why),
            (None, _) => {}
        }
    }

    /// A session is gone; whoever waits for it is told.
    pub(super) fn remove(&mut self, id: SessionId, fault: &Fault) {
        self.sessions.remove(id);
        if let Ok(planner) = &mut self.planner {
            planner.closed(id, fault);
        }
    }
}
