//! Sessions come and go.

use super::Core;
use crate::call::{Departure, Resident, Taken, Why};
use crate::faults;
use crate::tenants::Tenant;
use pie_proto::Fault;
use pie_proto::request::SessionName;
use pie_text::{Change, Document};
use pie_words::{SessionId, Strategy};

/// Tokens of a text that is compared with its session here, where the service could not do it.
const COMPARED_HERE: usize = 1024;

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

    /// Opens a session, or makes the one that is open hold this text: `change` does that, if it is still as it was when the
    /// service looked. Without a strategy of the client's it keeps its own.
    pub(crate) fn open(
        &mut self,
        opened: Taken,
        change: Option<Box<Change>>,
        strategy: Option<Strategy>,
    ) -> Result<Opened, Fault> {
        let Taken { tenant, name, document, .. } = &opened;
        if self.sessions.is_given_up {
            return Err(faults::moving(name.as_str()));
        }
        self.model.check(document)?;
        if self.sessions.named(tenant, name).is_some() {
            let session = self.sessions.find(tenant, name, None)?.id;
            return self.reopen(session, &opened.document, change, strategy);
        }
        self.check_slots(document.token_count())?;
        self.sessions.check_open(tenant, document.token_count())?;
        let session = self.sessions.insert(opened);
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
        document: &Document,
        change: Option<Box<Change>>,
        strategy: Option<Strategy>,
    ) -> Result<Opened, Fault> {
        self.sessions.used(id);
        let gone = || faults::no_session("the name's session");
        let session = self.sessions.get(id).ok_or_else(gone)?;
        let strategy = strategy.unwrap_or(session.strategy);
        let change = match change.filter(|change| session.document.accepts(change).is_ok()) {
            Some(change) => *change,
            None if document.token_count() <= COMPARED_HERE => {
                session.document.become_like(document).map_err(|error| faults::text(&error))?
            }
            // Another call was quicker. Comparing a long text here would make everybody wait.
            None => return Err(faults::overtaken(session.name.as_str())),
        };
        let inserted = change.splices().inserted();
        if !change.splices().is_empty() || session.document.text() != document.text() {
            self.check_growth(session, change.splices())?;
            self.commit(id, change, strategy, None)?;
        }
        let session = self.sessions.get_mut(id).ok_or_else(gone)?;
        session.strategy = strategy;
        Ok(Opened { session: id, reused: session.tokens().saturating_sub(inserted) })
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
