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
    Admission, GroupId, Moved, Placed, Placement, PlacementError, RouterId, RouterRecord, SessionKey,
};
use pie_proto::request::SessionName;
use pie_proto::{Fault, Reason, v1};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A router that lives describes itself in this time.
const ASK_TIMEOUT: Duration = Duration::from_secs(1);
/// Groups are tried one after the other when one has just been cordoned.
const ATTEMPTS: usize = 4;
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
                owner.stats().sessions.get() > 0 && self.owned_elsewhere(group).is_none()
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
        let target = match self.target(&group) {
            Ok(target) => target,
            // It may have an owner since the last look.
            Err(_) => {
                self.look_again().await;
                self.target(&group)?
            }
        };
        Ok(Home { target, group })
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

    /// Finds a home for a session that is to be opened: the one that it has, or the group with the most room.
    ///
    /// # Errors
    /// [`Reason::NoGroup`].
    pub async fn place(
        &self,
        tenant: &Tenant,
        name: &SessionName,
        bytes: usize,
    ) -> Result<(Home, Placed), Fault> {
        let key = key(tenant, name)?;
        for _ in 0..ATTEMPTS {
            let known = self.homes.get(&key);
            if let Some(home) =
                known.and_then(|group| Some(Home { target: self.target(&group).ok()?, group }))
            {
                let placed = Placed::Existing(home.group.clone());
                return Ok((home, placed));
            }
            let best = self.roomiest(None).await?;
            // Where it is known to live it stays, though nobody serves the group right now, and the store may have lost the home.
            let known = self.homes.get(&key).filter(|group| self.locals.contains_key(group));
            let wanted = known.as_ref().unwrap_or(&best.group);
            let placed = match self.placement.place_session(&key, wanted).await {
                Err(PlacementError::GroupCordoned { .. }) => {
                    self.homes.remove(&key);
                    self.look().await;
                    continue;
                }
                placed => placed.map_err(|error| unplaced(&error))?,
            };
            let group = placed.group().clone();
            if let Some(home) = self.settled(&key, group, &best).await? {
                self.homes.insert(key, home.group.clone());
                if matches!(placed, Placed::Claimed(_)) {
                    self.book(&home.group, bytes);
                }
                return Ok((home, placed));
            }
        }
        Err(Fault::new(Reason::NoGroup, "no group takes new sessions at the moment").retry_after(RETRY))
    }

    /// The home in `group`; a group that is gone for good gives its sessions to the best one.
    async fn settled(&self, key: &SessionKey, group: GroupId, best: &Home) -> Result<Option<Home>, Fault> {
        let gone = self.seen.get().get(&group).is_none_or(|seen| seen.ranks == 0 && seen.owner.is_none());
        if gone && !self.locals.contains_key(&group) {
            let moved = self.placement.move_session(key, &group, &best.group).await;
            return Ok((moved.map_err(|error| unplaced(&error))? == Moved::Done).then(|| best.clone()));
        }
        Ok(Some(Home { target: self.target(&group)?, group }))
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
            Some(stats) => Load { slots: stats.slots.get(), tokens: stats.tokens.get() },
            None => seen.load,
        }
    }

    /// A session was just sent there.
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
