//! Who owns which group, how full each is, and where sessions live (A2): what a router must know to send a call to its owner.
//!
//! It is looked at again twice a second, and whenever a call shows that it has grown old. A mistake is harmless: a router that does
//! not own a group refuses its calls, and the placement has the last word on homes.

mod known;
mod looking;
#[cfg(test)]
mod tests;

use crate::owner::{Owner, State};
use crate::peers::Peers;
use crate::tenants::Tenant;
use known::{Homes, Snapshot};
use looking::Looks;
use pie_placement::{
    Admission, GroupId, Moved, Placement, PlacementError, RouterId, RouterRecord, SessionKey,
};
use pie_proto::request::SessionName;
use pie_proto::{Fault, Reason, v1};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A router that lives describes itself in this time.
const ASK_TIMEOUT: Duration = Duration::from_secs(1);
/// Bytes of a document for a token, to book a session before its group has told its tokens.
const BYTES_PER_TOKEN: u64 = 3;
/// When a group that nobody owns should have an owner.
const RETRY: Duration = Duration::from_millis(500);

/// Who answers a call.
#[derive(Clone)]
pub(crate) enum Target {
    /// An owner in this router.
    Local(Owner),
    /// Another router.
    Remote(RouterRecord),
}

/// The home of a session, and who answers there.
#[derive(Clone)]
pub(crate) struct Home {
    pub group: GroupId,
    pub target: Target,
}

/// Where a session is opened.
pub(crate) struct Site {
    pub home: Home,
    was: Was,
}

/// Where a session that is to be opened lives.
enum Was {
    Nowhere,
    /// Where it is opened.
    There,
    /// In a group that is gone for good.
    Gone(GroupId),
}

/// Whether a session lives where it was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    Home,
    /// Somebody else was quicker, or the group has just been closed: it is to be opened again, wherever that is.
    Elsewhere,
}

/// What is known of a group.
#[derive(Clone, Debug)]
struct Seen {
    owner: Option<RouterRecord>,
    /// Of the owner, as the placement counts; 0 without one.
    epoch: u64,
    admission: Admission,
    /// It was closed for a restart, which is over.
    formed_again: bool,
    ranks: usize,
    load: Load,
}

/// How full a group is.
#[derive(Clone, Copy, Debug, Default)]
struct Load {
    slots: u64,
    tokens: u64,
}

impl Load {
    /// Free KV tokens, if each document were in the cache: below 0 where some are not.
    fn room(self) -> i64 {
        self.slots.cast_signed() - self.tokens.cast_signed()
    }
}

/// Why a session's home may be another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// There is no such session.
    Missing,
    /// The router does not own the group, or is not sure of that.
    Elsewhere,
}

/// Owners that lost their lease with the placement's data have it again, and have told it where their sessions live, in this time.
const TOLD_AGAIN: Duration = Duration::from_secs(5);

/// A router's knowledge of the pool.
pub(crate) struct Directory {
    placement: Arc<dyn Placement>,
    me: RouterId,
    locals: BTreeMap<GroupId, Owner>,
    peers: Peers,
    seen: Snapshot<BTreeMap<GroupId, Seen>>,
    /// When the placement was last seen to know less of an owner than before.
    forgot: Snapshot<Option<Instant>>,
    homes: Homes,
    looks: Arc<Looks>,
}

impl Directory {
    pub fn new(
        placement: Arc<dyn Placement>,
        me: RouterId,
        locals: BTreeMap<GroupId, Owner>,
        peers: Peers,
    ) -> Arc<Self> {
        let (seen, homes, looks) = (Snapshot::default(), Homes::default(), Arc::default());
        let forgot = Snapshot::default();
        Arc::new(Self { placement, me, locals, peers, seen, forgot, homes, looks })
    }

    /// The owners in this router.
    pub fn locals(&self) -> impl Iterator<Item = (&GroupId, &Owner)> {
        self.locals.iter()
    }

    fn is_served_here(&self, group: &GroupId) -> bool {
        self.locals.get(group).is_some_and(|owner| owner.now() == State::Serving)
    }

    /// An owner in this router that serves its group, or has its documents.
    pub fn local(&self, group: &GroupId) -> Option<&Owner> {
        let owner = self.locals.get(group)?;
        let has = match owner.now() {
            State::Serving => owner.is_sure() || self.owned_elsewhere(group).is_none(),
            State::Retired => false,
            // What is left here of a group that another router owns now is on its way to it.
            State::Waiting(_) | State::Lost(_) => {
                owner.stats().published.sessions.get() > 0 && self.owned_elsewhere(group).is_none()
            }
        };
        has.then_some(owner)
    }

    /// Whether any group is served, here or elsewhere.
    ///
    /// # Errors
    /// Why not, in words.
    pub fn serves(&self) -> Result<(), String> {
        let mut why = "no group is served".to_owned();
        for (group, owner) in &self.locals {
            match owner.now() {
                State::Serving if owner.is_sure() => return Ok(()),
                State::Serving => {
                    why =
                        format!("the placement has not confirmed lately that this router owns group {group}");
                }
                State::Waiting(waiting) => why = format!("group {group} is not formed: {waiting}"),
                State::Lost(lost) => why = format!("group {group} is lost: {lost}"),
                State::Retired => why = format!("group {group} is given up"),
            }
        }
        if self.remotes().is_empty() { Err(why) } else { Ok(()) }
    }

    /// The owner-to-be in this router.
    pub fn candidate(&self, group: &GroupId) -> Option<&Owner> {
        self.locals.get(group)
    }

    /// This run of this router.
    pub fn me(&self) -> &RouterId {
        &self.me
    }

    pub fn peers(&self) -> &Peers {
        &self.peers
    }

    /// The other routers that own groups, and which.
    pub fn remotes(&self) -> Vec<(GroupId, RouterRecord)> {
        let seen = self.seen.get();
        let remote = |(group, seen): (&GroupId, &Seen)| {
            let owner = seen.owner.clone().filter(|owner| owner.id != self.me)?;
            Some((group.clone(), owner))
        };
        seen.iter().filter_map(remote).collect()
    }

    /// The other routers that own groups, each once.
    pub fn others(&self) -> Vec<RouterRecord> {
        let routers = self.remotes().into_iter().map(|(_, router)| (router.id.clone(), router));
        routers.collect::<BTreeMap<_, _>>().into_values().collect()
    }

    /// Groups as the placement lists them.
    pub async fn groups(&self) -> Result<Vec<pie_placement::GroupRecord>, Fault> {
        self.placement.groups().await.map_err(|error| unplaced(&error))
    }

    /// Who answers for a group.
    ///
    /// # Errors
    /// [`Reason::NoGroup`] while nobody does.
    pub fn target(&self, group: &GroupId) -> Result<Target, Fault> {
        if let Some(owner) = self.local(group) {
            return Ok(Target::Local(owner.clone()));
        }
        match self.owned_elsewhere(group) {
            Some(router) => Ok(Target::Remote(router)),
            None => Err(self.unowned(group)),
        }
    }

    fn owned_elsewhere(&self, group: &GroupId) -> Option<RouterRecord> {
        let owner = self.seen.get().get(group).and_then(|seen| seen.owner.clone());
        owner.filter(|owner| owner.id != self.me)
    }

    fn unowned(&self, group: &GroupId) -> Fault {
        let why = match self.locals.get(group).map(Owner::now) {
            Some(State::Waiting(why) | State::Lost(why)) => format!(": {why}"),
            _ => String::new(),
        };
        Fault::new(Reason::NoGroup, format!("no router serves group {group}{why}")).retry_after(RETRY)
    }

    /// The home of a session that is open.
    ///
    /// # Errors
    /// [`Reason::SessionUnknown`], [`Reason::NoGroup`].
    pub async fn home(&self, tenant: &Tenant, name: &SessionName) -> Result<Home, Fault> {
        let key = key(tenant, name)?;
        let known = self.homes.get(&key);
        let group = match known {
            Some(group) => group,
            None => {
                let home = self.placement.session_home(&key).await.map_err(|error| unplaced(&error))?;
                let home = match home {
                    Some(home) => home,
                    None => return Err(self.homeless(name).await),
                };
                self.homes.insert(key, home.clone());
                home
            }
        };
        Ok(Home { target: self.target_again(&group).await?, group })
    }

    /// Who answers for a group, which may have an owner since the last look.
    async fn target_again(&self, group: &GroupId) -> Result<Target, Fault> {
        match self.target(group) {
            Ok(target) => Ok(target),
            Err(_) => {
                self.look_again().await;
                self.target(group)
            }
        }
    }

    /// What is said of a session that has no home. A placement that has just lost its data knows no homes until the owners have told
    /// them again: who is told then that there is no such session opens it once more, elsewhere.
    async fn homeless(&self, name: &SessionName) -> Fault {
        self.look_again().await;
        let forgetful = self.forgot.get().is_some_and(|at| at.elapsed() < TOLD_AGAIN);
        if !forgetful {
            return crate::faults::no_session(name.as_str());
        }
        let message = format!(
            "the placement knows no home of session `{name}`, and has just lost the owner of a group: retry in a moment"
        );
        Fault::new(Reason::NoGroup, message).retry_after(RETRY)
    }

    /// After a refusal that may mean that the session has moved: its home, if that is not where the call went. `Missing`: the session
    /// is not where it was thought to be; else only the group's owner may be another one.
    pub async fn moved(
        &self,
        tenant: &Tenant,
        name: &SessionName,
        asked: &Home,
        refused: Refused,
    ) -> Option<Home> {
        let key = key(tenant, name).ok()?;
        self.look_again().await;
        match (self.placement.session_home(&key).await, refused) {
            (Ok(Some(home)), _) => self.homes.insert(key, home),
            // A store that lost its data knows no homes for a while: what is known here is better than nothing.
            (_, Refused::Elsewhere) => self.homes.insert(key, asked.group.clone()),
            (_, Refused::Missing) => self.homes.remove(&key),
        };
        let home = self.home(tenant, name).await.ok()?;
        let same = match (&home.target, &asked.target) {
            (Target::Local(_), Target::Local(_)) => home.group == asked.group,
            (Target::Remote(now), Target::Remote(then)) => now.id == then.id && home.group == asked.group,
            _ => false,
        };
        (!same).then_some(home)
    }

    /// Where a session that is to be opened is, or is to be.
    ///
    /// # Errors
    /// [`Reason::NoGroup`].
    pub async fn site(&self, tenant: &Tenant, name: &SessionName, bytes: usize) -> Result<Site, Fault> {
        let key = key(tenant, name)?;
        let known = self.homes.get(&key);
        let home = match known.filter(|group| self.target(group).is_ok()) {
            Some(group) => Some(group),
            None => self.placement.session_home(&key).await.map_err(|error| unplaced(&error))?,
        };
        match home {
            None => {
                // Where it is known to live it stays, though nobody serves the group right now, and the store may have lost the home.
                let known = self.homes.get(&key).filter(|group| self.locals.contains_key(group));
                let home = match known {
                    Some(group) => Home { target: self.target_again(&group).await?, group },
                    None => self.roomiest(None).await?,
                };
                self.book(&home.group, bytes);
                Ok(Site { home, was: Was::Nowhere })
            }
            Some(group) if self.is_gone(&group) => {
                Ok(Site { home: self.roomiest(None).await?, was: Was::Gone(group) })
            }
            Some(group) => {
                let home = Home { target: self.target_again(&group).await?, group };
                Ok(Site { home, was: Was::There })
            }
        }
    }

    /// A group that is gone for good gives its sessions to the best one.
    fn is_gone(&self, group: &GroupId) -> bool {
        let unknown = self.seen.get().get(group).is_none_or(|seen| seen.ranks == 0 && seen.owner.is_none());
        unknown && !self.locals.contains_key(group)
    }

    /// Makes the site the home of a session that has been opened there (A2). A home is only ever made for a session that is there,
    /// so that nothing is to be taken back which somebody else has found meanwhile.
    pub async fn claim(&self, tenant: &Tenant, name: &SessionName, site: &Site) -> Result<Claim, Fault> {
        let (key, group) = (key(tenant, name)?, &site.home.group);
        if let Was::Gone(old) = &site.was {
            let moved = self.placement.move_session(&key, old, group).await;
            return Ok(match moved.map_err(|error| unplaced(&error))? {
                Moved::Done => self.settle(key, group),
                Moved::Conflict { .. } => Claim::Elsewhere,
            });
        }
        match self.placement.place_session(&key, group).await {
            Ok(placed) if placed.group() == group => Ok(self.settle(key, group)),
            Ok(_) => {
                self.homes.remove(&key);
                Ok(Claim::Elsewhere)
            }
            Err(PlacementError::GroupCordoned { .. }) => {
                self.homes.remove(&key);
                self.look().await;
                Ok(Claim::Elsewhere)
            }
            Err(error) => Err(unplaced(&error)),
        }
    }

    fn settle(&self, key: SessionKey, group: &GroupId) -> Claim {
        self.homes.insert(key, group.clone());
        Claim::Home
    }

    /// The home of a session as the placement knows it at this moment.
    pub async fn home_now(&self, tenant: &Tenant, name: &SessionName) -> Result<Option<GroupId>, Fault> {
        self.placement.session_home(&key(tenant, name)?).await.map_err(|error| unplaced(&error))
    }

    /// The open group with the most free KV tokens.
    ///
    /// # Errors
    /// [`Reason::NoGroup`] if none is open and owned.
    pub async fn roomiest(&self, except: Option<&GroupId>) -> Result<Home, Fault> {
        if let Some(home) = self.roomiest_seen(except) {
            return Ok(home);
        }
        self.look().await;
        self.roomiest_seen(except).ok_or_else(|| match self.locals.keys().next() {
            Some(group) if except.is_none() && self.is_open(group) => self.unowned(group),
            _ => Fault::new(Reason::NoGroup, "no group takes sessions at the moment").retry_after(RETRY),
        })
    }

    fn is_open(&self, group: &GroupId) -> bool {
        self.seen.get().get(group).is_none_or(|seen| seen.admission == Admission::Open)
    }

    fn roomiest_seen(&self, except: Option<&GroupId>) -> Option<Home> {
        let seen = self.seen.get();
        let open = seen.iter().filter(|(group, seen)| {
            seen.admission == Admission::Open && Some(*group) != except && self.is_served(group, seen)
        });
        let owned = open.filter_map(|(group, seen)| {
            let home = Home { target: self.target(group).ok()?, group: group.clone() };
            Some((self.load(group, seen).room(), home))
        });
        owned.max_by_key(|(room, home)| (*room, std::cmp::Reverse(home.group.clone()))).map(|(_, home)| home)
    }

    /// A group that is lost has documents, and takes no new ones.
    fn is_served(&self, group: &GroupId, seen: &Seen) -> bool {
        match self.local(group) {
            Some(_) => self.is_served_here(group),
            None => seen.load.slots > 0,
        }
    }

    fn load(&self, group: &GroupId, seen: &Seen) -> Load {
        match self.local(group).map(Owner::stats) {
            Some(stats) => Load { slots: stats.published.slots.get(), tokens: stats.published.tokens.get() },
            None => seen.load,
        }
    }

    /// A session is about to be sent there: others that come at the same time should know.
    fn book(&self, group: &GroupId, bytes: usize) {
        let group = group.clone();
        self.seen.change(move |seen| {
            if let Some(seen) = seen.get_mut(&group) {
                seen.load.tokens += bytes as u64 / BYTES_PER_TOKEN;
            }
        });
    }

    /// The session lives nowhere now, if it lived in `group`.
    pub async fn forget(&self, tenant: &Tenant, name: &SessionName, group: &GroupId) -> Result<(), Fault> {
        let key = key(tenant, name)?;
        self.homes.remove(&key);
        self.placement.forget_session(&key, group).await.map_err(|error| unplaced(&error)).map(drop)
    }

    /// The session has gone from one group to another.
    pub async fn moves(
        &self,
        tenant: &Tenant,
        name: &SessionName,
        from: &GroupId,
        to: &GroupId,
    ) -> Result<Moved, Fault> {
        let key = key(tenant, name)?;
        let moved = self.placement.move_session(&key, from, to).await.map_err(|error| unplaced(&error))?;
        self.homes.remove(&key);
        Ok(moved)
    }

    /// Opens a group to new sessions or closes it.
    pub async fn admit(&self, group: &GroupId, admission: Admission) -> Result<(), Fault> {
        self.placement.set_admission(group, admission).await.map_err(|error| unplaced(&error))?;
        self.look().await;
        Ok(())
    }
}

/// What another router says of its own groups.
pub(crate) async fn describe(
    peers: &Peers,
    router: &RouterRecord,
) -> Result<v1::DescribePoolResponse, tonic::Status> {
    let mut pool = peers.pool(router)?;
    let answer = tokio::time::timeout(ASK_TIMEOUT, pool.describe_pool(v1::DescribePoolRequest {})).await;
    let late = || tonic::Status::unavailable("no answer in time");
    Ok(answer.unwrap_or_else(|_| Err(late()))?.into_inner())
}

/// A session's name in the whole pool. A tenant's name has no slash, so that no two can be mixed up.
pub(crate) fn key(tenant: &Tenant, name: &SessionName) -> Result<SessionKey, Fault> {
    SessionKey::new(format!("{}/{name}", tenant.as_str()))
        .map_err(|error| Fault::new(Reason::BadSessionName, error.to_string()))
}

fn unplaced(error: &PlacementError) -> Fault {
    Fault::new(Reason::NoGroup, error.to_string()).retry_after(RETRY)
}
