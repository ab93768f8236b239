//! Who owns which group, and how full each is: what a router must know to send a call to its owner.
//!
//! It is looked at again twice a second, and whenever a call shows that it has grown old.

use super::looking::Looks;
use super::{Home, RETRY, unplaced};
use arc_swap::ArcSwap;
use pie_group::owner::{GroupState, Holdings, OwnerHandle};
use pie_group::peers::Peers;
use pie_placement::{Admission, GroupId, GroupRecord, Placement, RouterId, RouterRecord};
use pie_proto::{Fault, Reason};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes of a document for a token, to book a session before its group has told its tokens.
const BYTES_PER_TOKEN: u64 = 3;
/// Owners that lost their lease with the placement's data have it again, and have told it where their sessions live, in this time.
const TOLD_AGAIN: Duration = Duration::from_secs(5);

/// Who answers a call.
#[derive(Clone)]
pub(crate) enum OwnerLocation {
    /// An owner in this router.
    Local(OwnerHandle),
    /// Another router.
    Remote(RouterRecord),
}

/// What is known of a group.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    /// The router that owns it.
    pub owner: Option<RouterRecord>,
    /// Of the owner, as the placement counts; 0 without one.
    pub epoch: u64,
    /// Whether it takes new sessions.
    pub admission: Admission,
    /// It was closed for a restart, which is over.
    pub formed_again: bool,
    /// Ranks that are registered.
    pub ranks: usize,
    /// How full it is.
    pub load: GroupLoad,
}

/// How full a group is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct GroupLoad {
    /// KV slots, one for a token.
    pub slots: u64,
    /// Tokens of its documents.
    pub tokens: u64,
}

impl GroupLoad {
    /// Free KV tokens, if each document were in the cache: below 0 where some are not.
    fn room(self) -> i64 {
        self.slots.cast_signed() - self.tokens.cast_signed()
    }
}

/// The groups of the pool, as this router knows them.
pub(crate) struct Groups {
    pub(super) placement: Arc<dyn Placement>,
    /// This run of this router.
    pub me: RouterId,
    locals: BTreeMap<GroupId, OwnerHandle>,
    /// The way to other routers.
    pub peers: Peers,
    pub(super) seen: ArcSwap<BTreeMap<GroupId, Seen>>,
    /// When the placement was last seen to know less of an owner than before.
    pub(super) forgot: ArcSwap<Option<Instant>>,
    pub(super) looks: Arc<Looks>,
}

impl Groups {
    /// Nothing has been looked at yet.
    pub fn new(
        placement: Arc<dyn Placement>,
        me: RouterId,
        locals: BTreeMap<GroupId, OwnerHandle>,
        peers: Peers,
    ) -> Arc<Self> {
        let (seen, forgot, looks) = (ArcSwap::default(), ArcSwap::default(), Arc::default());
        Arc::new(Self { placement, me, locals, peers, seen, forgot, looks })
    }

    /// Whether this router owns the group or wants to.
    pub(super) fn wants(&self, group: &GroupId) -> bool {
        self.locals.contains_key(group)
    }

    /// Whether the placement may have lost its data a moment ago.
    pub(super) fn may_have_forgotten(&self) -> bool {
        self.forgot.load().is_some_and(|at| at.elapsed() < TOLD_AGAIN)
    }

    /// The owners in this router.
    pub fn locals(&self) -> impl Iterator<Item = (&GroupId, &OwnerHandle)> {
        self.locals.iter()
    }

    pub(super) fn is_served_here(&self, group: &GroupId) -> bool {
        self.locals.get(group).is_some_and(|owner| owner.now() == GroupState::Serving)
    }

    /// An owner in this router that serves its group, or has its documents.
    pub fn local(&self, group: &GroupId) -> Option<&OwnerHandle> {
        let owner = self.locals.get(group)?;
        let has = match owner.now() {
            GroupState::Serving => owner.is_sure() || self.owned_elsewhere(group).is_none(),
            GroupState::Retired => false,
            // What is left here of a group that another router owns now is on its way to it.
            GroupState::Waiting(_) | GroupState::Lost(_) => {
                owner.holdings().sessions > 0 && self.owned_elsewhere(group).is_none()
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
                GroupState::Serving if owner.is_sure() => return Ok(()),
                GroupState::Serving => {
                    why =
                        format!("the placement has not confirmed lately that this router owns group {group}");
                }
                GroupState::Waiting(waiting) => why = format!("group {group} is not formed: {waiting}"),
                GroupState::Lost(lost) => why = format!("group {group} is lost: {lost}"),
                GroupState::Retired => why = format!("group {group} is given up"),
            }
        }
        if self.remotes().is_empty() { Err(why) } else { Ok(()) }
    }

    /// The owner-to-be in this router.
    pub fn candidate(&self, group: &GroupId) -> Option<&OwnerHandle> {
        self.locals.get(group)
    }

    /// The other routers that own groups, and which.
    pub fn remotes(&self) -> Vec<(GroupId, RouterRecord)> {
        let seen = self.seen.load();
        let remote = |(group, seen): (&GroupId, &Seen)| {
            let owner = seen.owner.clone().filter(|owner| owner.id != self.me)?;
            Some((group.clone(), owner))
        };
        seen.iter().filter_map(remote).collect()
    }

    /// The other routers that own groups, each once, with one of its groups.
    pub fn others(&self) -> Vec<(GroupId, RouterRecord)> {
        let routers = self.remotes().into_iter().map(|(group, router)| (router.id.clone(), (group, router)));
        routers.collect::<BTreeMap<_, _>>().into_values().collect()
    }

    /// Groups as the placement lists them.
    pub async fn listed(&self) -> Result<Vec<GroupRecord>, Fault> {
        self.placement.groups().await.map_err(|error| unplaced(&error))
    }

    /// Who answers for a group.
    ///
    /// # Errors
    /// [`Reason::NoGroup`] while nobody does.
    pub fn target(&self, group: &GroupId) -> Result<OwnerLocation, Fault> {
        if let Some(owner) = self.local(group) {
            return Ok(OwnerLocation::Local(owner.clone()));
        }
        match self.owned_elsewhere(group) {
            Some(router) => Ok(OwnerLocation::Remote(router)),
            None => Err(self.unowned(group)),
        }
    }

    fn owned_elsewhere(&self, group: &GroupId) -> Option<RouterRecord> {
        let owner = self.seen.load().get(group).and_then(|seen| seen.owner.clone());
        owner.filter(|owner| owner.id != self.me)
    }

    fn unowned(&self, group: &GroupId) -> Fault {
        let why = match self.locals.get(group).map(OwnerHandle::now) {
            Some(GroupState::Waiting(why) | GroupState::Lost(why)) => format!(": {why}"),
            _ => String::new(),
        };
        Fault::new(Reason::NoGroup, format!("no router serves group {group}{why}")).retry_after(RETRY)
    }

    /// Who answers for a group, which may have an owner since the last look.
    pub(super) async fn target_again(&self, group: &GroupId) -> Result<OwnerLocation, Fault> {
        match self.target(group) {
            Ok(target) => Ok(target),
            Err(_) => {
                self.look_again().await;
                self.target(group)
            }
        }
    }

    /// A group that is gone for good gives its sessions to the best one.
    pub(super) fn is_gone(&self, group: &GroupId) -> bool {
        let unknown = self.seen.load().get(group).is_none_or(|seen| seen.ranks == 0 && seen.owner.is_none());
        unknown && !self.locals.contains_key(group)
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
        self.seen.load().get(group).is_none_or(|seen| seen.admission == Admission::Open)
    }

    pub(super) fn roomiest_seen(&self, except: Option<&GroupId>) -> Option<Home> {
        let seen = self.seen.load();
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

    fn load(&self, group: &GroupId, seen: &Seen) -> GroupLoad {
        match self.local(group).map(OwnerHandle::holdings) {
            Some(Holdings { slots, tokens, .. }) => GroupLoad { slots: slots as u64, tokens: tokens as u64 },
            None => seen.load,
        }
    }

    /// A session is about to be sent there: others that come at the same time should know.
    pub(super) fn book(&self, group: &GroupId, bytes: usize) {
        self.seen.rcu(|seen| {
            let mut seen = BTreeMap::clone(seen);
            if let Some(seen) = seen.get_mut(group) {
                seen.load.tokens += bytes as u64 / BYTES_PER_TOKEN;
            }
            seen
        });
    }

    /// Opens a group to new sessions or closes it.
    pub async fn admit(&self, group: &GroupId, admission: Admission) -> Result<(), Fault> {
        self.placement.set_admission(group, admission).await.map_err(|error| unplaced(&error))?;
        self.look().await;
        Ok(())
    }
}
