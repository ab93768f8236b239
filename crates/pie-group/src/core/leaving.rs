//! Sessions that are about to leave: closed, put away because nobody uses them, or moved. First they are out of reach, then their
//! home is changed, and only then are they gone: whoever asks meanwhile is told to ask again, and nothing is opened in between.

use super::session::{Availability, Session};
use super::sessions::Sessions;
use crate::call::{ArrivedDocuments, ImportedSession, Resident, Why};
use crate::faults;
use crate::tenants::Tenant;
use pie_proto::Fault;
use pie_proto::carried::Carried;
use pie_proto::request::{Content, SessionName};
use pie_words::SessionId;
use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::time::Duration;

/// Whoever moves or closes a session is done in this time, or is gone: then its home says where it lives.
const ON_ITS_WAY: Duration = Duration::from_secs(60);
/// Sessions that are put away at a time.
const AT_ONCE: usize = 64;

/// When sessions that nobody uses are closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Idle {
    /// Whatever happens; `None`: never.
    pub closed_after: Option<Duration>,
    /// If another one is to be opened and there is no room; `None`: the other one is refused.
    pub makes_room_after: Option<Duration>,
}

impl Idle {
    /// Sessions whose clients seem to have gone: they are to be closed, so many at a time.
    pub(crate) fn unused_for_long(
        &self,
        sessions: &Sessions,
        completed: &BTreeSet<SessionId>,
    ) -> Vec<SessionId> {
        let Some(limit) = self.closed_after else { return Vec::new() };
        let unused = unused(sessions, limit, completed).take(AT_ONCE);
        unused.map(|session| session.id).collect()
    }

    /// Whether a session can be opened; if only another one is in its way that nobody uses, that one is to be closed. It is the least
    /// recently used one of whom has most, and never of a tenant with fewer than who asks: whoever opens many pays with their own.
    ///
    /// # Errors
    /// There is no room, and nobody to make it.
    pub(crate) fn makes_way(
        &self,
        sessions: &Sessions,
        tenant: &Tenant,
        name: &SessionName,
        completed: &BTreeSet<SessionId>,
    ) -> Result<Option<SessionId>, Fault> {
        let tenants = &sessions.tenants;
        let own_limit = tenants.check_open(tenant, 0);
        let Some(refused) = own_limit.clone().and_then(|()| sessions.check_open(tenant, 0)).err() else {
            return Ok(None);
        };
        if sessions.named(tenant, name).is_some() {
            return Ok(None);
        }
        let Some(limit) = self.makes_room_after else { return Err(refused) };
        let may_go = unused(sessions, limit, completed).filter(|session| {
            let has_no_fewer = tenants.sessions(&session.tenant) >= tenants.sessions(tenant);
            session.tenant == *tenant || (own_limit.is_ok() && has_no_fewer)
        });
        let first = may_go.max_by_key(|session| (tenants.sessions(&session.tenant), Reverse(session.used)));
        first.map(|session| Some(session.id)).ok_or(refused)
    }
}

/// Sessions that nobody has used for so long, and nobody waits for.
fn unused<'a>(
    sessions: &'a Sessions,
    limit: Duration,
    completed: &'a BTreeSet<SessionId>,
) -> impl Iterator<Item = &'a Session> {
    let is_unused = move |session: &&Session| {
        session.standing == Availability::Here
            && !completed.contains(&session.id)
            && sessions.since(session.used) >= limit
    };
    sessions.iter().filter(|_| !sessions.is_given_up).filter(is_unused)
}

/// Sessions whose mover has not been heard of for so long that it must be gone.
pub(crate) fn stuck(sessions: &Sessions) -> Vec<Resident> {
    let is_stuck = |session: &&Session| match session.standing {
        Availability::Leaving(since) => sessions.since(since) >= ON_ITS_WAY,
        Availability::Here => false,
    };
    sessions.iter().filter(is_stuck).take(AT_ONCE).map(Resident::of).collect()
}

impl Sessions {
    /// Puts a session out of reach.
    pub fn leaves(&mut self, id: SessionId) -> Result<Resident, Fault> {
        let standing = Availability::Leaving(self.now);
        let session = self.get_mut(id).ok_or_else(|| faults::no_session("of the call"))?;
        session.standing = standing;
        Ok(Resident::of(session))
    }

    /// It stays after all.
    pub fn keep(&mut self, resident: &Resident) {
        if let Some(session) = self.leaving(resident).and_then(|id| self.get_mut(id)) {
            session.standing = Availability::Here;
        }
    }

    /// The session that is on its way, if it still is: another one may have its name since.
    pub fn leaving(&self, resident: &Resident) -> Option<SessionId> {
        let session = self.named(&resident.tenant, &resident.name)?;
        let is_it = session.identity == resident.identity && session.standing != Availability::Here;
        is_it.then_some(session.id)
    }

    /// All documents, for the next owner. They stay here until they are known to have arrived: whoever asked may be gone meanwhile.
    /// Nothing changes them, since nothing of a group is answered that is not owned.
    pub fn give_all(&mut self) -> Vec<Carried> {
        self.given = self.iter().map(|session| (session.id, session.document.revision())).collect();
        self.iter().map(|session| session.snapshot().carried()).collect()
    }

    /// What was given has arrived, and may go. What has come or changed since stays.
    pub fn arrived(&mut self, what: &ArrivedDocuments) -> Vec<SessionId> {
        let mut given = match what {
            ArrivedDocuments::All => std::mem::take(&mut self.given),
            ArrivedDocuments::One(tenant, name) => {
                let id = self.named(tenant, name).map(|session| session.id);
                id.and_then(|id| self.given.remove_entry(&id)).into_iter().collect()
            }
        };
        let is_as_given = |id: &SessionId, revision: &mut _| {
            self.get(*id).is_some_and(|session| session.document.revision() == *revision)
        };
        given.retain(is_as_given);
        given.into_keys().collect()
    }

    /// Sessions of all tenants that have not left.
    pub fn residents(&self) -> Vec<(Tenant, SessionName)> {
        let here = self.iter().filter(|session| session.standing == Availability::Here);
        here.map(|session| (session.tenant.clone(), session.name.clone())).collect()
    }
}

impl Session {
    /// The session as it is now, without its cache: its text and tokens are shared with it, not copied.
    pub(crate) fn snapshot(&self) -> ImportedSession {
        ImportedSession {
            tenant: self.tenant.clone(),
            name: self.name.clone(),
            identity: self.identity.clone(),
            following: self.following,
            document: Box::new(self.document.snapshot()),
        }
    }
}

impl ImportedSession {
    /// The session as it goes elsewhere.
    pub(crate) fn carried(&self) -> Carried {
        let document = &self.document;
        let content = match document.text() {
            Some(text) => Content::Text(text),
            None => Content::Tokens(document.tokens().collect()),
        };
        Carried {
            tenant: self.tenant.as_str().to_owned(),
            name: self.name.clone(),
            identity: Some(self.identity.clone()),
            revision: document.revision(),
            following: self.following,
            content,
            spellings: document.spellings(),
            parts: document.parts().clone(),
        }
    }
}

impl Resident {
    fn of(session: &Session) -> Self {
        let (tenant, name) = (session.tenant.clone(), session.name.clone());
        Self { tenant, name, identity: session.identity.clone() }
    }
}

impl Why {
    /// All, and what they are called.
    pub const ALL: [(Self, &'static str); 4] =
        [(Self::Client, "client"), (Self::Admin, "admin"), (Self::Idle, "idle"), (Self::Room, "room")];
}
