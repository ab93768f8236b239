//! Sessions that are about to leave: closed, put away because nobody uses them, or moved. First they are out of reach, then their
//! home is changed, and only then are they gone: whoever asks meanwhile is told to ask again, and nothing is opened in between.

use super::{Core, Standing};
use crate::call::{Departure, Resident, Why};
use crate::faults;
use crate::session::Session;
use crate::tenants::Tenant;
use pie_plan::SessionId;
use pie_proto::Fault;
use pie_proto::request::{Identity, SessionName};
use std::cmp::Reverse;
use std::time::{Duration, Instant};

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

impl Core {
    /// What happens from here on happens at this time. It does not go back.
    pub fn at(&mut self, now: Instant) {
        self.now = self.now.max(now);
    }

    /// A session's client is there.
    pub(super) fn used(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.used = self.now;
        }
    }

    /// Puts a session out of reach, to be closed.
    pub(super) fn vacate(
        &mut self,
        tenant: &Tenant,
        name: &SessionName,
        identity: Option<&Identity>,
    ) -> Result<Resident, Fault> {
        let id = self.id_of(tenant, name, identity)?;
        self.leaves(id).ok_or_else(|| faults::no_session(name.as_str()))
    }

    fn leaves(&mut self, id: SessionId) -> Option<Resident> {
        let session = self.sessions.get_mut(&id)?;
        (session.standing, session.left) = (Standing::Leaving, self.now);
        Some(Resident::of(session))
    }

    /// It stays after all.
    pub(super) fn keep(&mut self, resident: &Resident) {
        if let Some(session) = self.leaving(resident).and_then(|id| self.sessions.get_mut(&id)) {
            session.standing = Standing::Here;
        }
    }

    /// It lives here no longer.
    pub(super) fn depart(&mut self, resident: &Resident, departure: Departure) {
        let Some(id) = self.leaving(resident) else { return };
        let name = resident.name.as_str();
        match departure {
            Departure::Moved => {
                self.remove(id, &faults::moving(name));
                self.stats.sessions_given.add(1);
            }
            Departure::Closed(why) => {
                self.remove(id, &faults::no_session(name));
                self.stats.closed(why);
            }
        }
    }

    /// The session that is on its way, if it still is: another one may have its name since.
    fn leaving(&self, resident: &Resident) -> Option<SessionId> {
        let id = self.names.get(&resident.tenant, &resident.name)?;
        let session = self.sessions.get(&id)?;
        (session.identity == resident.identity && session.standing == Standing::Leaving).then_some(id)
    }

    /// Those whose mover has not been heard of for so long that it must be gone.
    pub(super) fn stuck(&self) -> Vec<Resident> {
        let stuck = self.sessions.values().filter(|session| {
            session.standing == Standing::Leaving && self.since(session.left) >= ON_ITS_WAY
        });
        stuck.take(AT_ONCE).map(Resident::of).collect()
    }

    /// Puts sessions out of reach whose clients seem to have gone.
    pub(super) fn idle(&mut self) -> Vec<Resident> {
        let Some(limit) = self.settings.idle.closed_after else { return Vec::new() };
        let ids: Vec<_> = self.unused(limit).take(AT_ONCE).map(|session| session.id).collect();
        ids.into_iter().filter_map(|id| self.leaves(id)).collect()
    }

    fn unused(&self, limit: Duration) -> impl Iterator<Item = &Session> {
        self.sessions.values().filter(move |session| {
            session.standing.max(self.standing) == Standing::Here
                && session.completions.is_empty()
                && self.since(session.used) >= limit
        })
    }

    pub(super) fn too_many_sessions(&self) -> Fault {
        faults::too_many_sessions(self.settings.sessions, self.settings.idle.makes_room_after)
    }

    pub(super) fn since(&self, then: Instant) -> Duration {
        self.now.saturating_duration_since(then)
    }

    /// Whether a session can be opened; if only another one is in its way that nobody uses, that one is put out of reach, to be
    /// closed. It is the least recently used one of whom has most, and never of a tenant with fewer than who asks: whoever opens many
    /// pays with their own.
    ///
    /// # Errors
    /// There is no room, and nobody to make it.
    pub(super) fn make_way(
        &mut self,
        tenant: &Tenant,
        name: &SessionName,
    ) -> Result<Option<Resident>, Fault> {
        if self.names.get(tenant, name).is_some() {
            return Ok(None);
        }
        let refused = if let Err(fault) = self.tenants.check_open(tenant, 0) {
            fault
        } else if self.sessions.len() >= self.settings.sessions {
            self.too_many_sessions()
        } else {
            return Ok(None);
        };
        let Some(limit) = self.settings.idle.makes_room_after else { return Err(refused) };
        let (theirs, has) = (self.tenants.check_open(tenant, 0).is_err(), self.tenants.sessions(tenant));
        let may_go = self.unused(limit).filter(|session| {
            session.tenant == *tenant || (!theirs && self.tenants.sessions(&session.tenant) >= has)
        });
        let first =
            may_go.max_by_key(|session| (self.tenants.sessions(&session.tenant), Reverse(session.used)));
        match first.map(|session| session.id).and_then(|id| self.leaves(id)) {
            Some(resident) => Ok(Some(resident)),
            None => Err(refused),
        }
    }
}

impl Resident {
    pub(super) fn of(session: &Session) -> Self {
        let (tenant, name) = (session.tenant.clone(), session.name.clone());
        Self { tenant, name, identity: session.identity.clone() }
    }
}

impl Why {
    /// All, and what they are called.
    pub const ALL: [(Self, &'static str); 4] =
        [(Self::Client, "client"), (Self::Admin, "admin"), (Self::Idle, "idle"), (Self::Room, "room")];
}
