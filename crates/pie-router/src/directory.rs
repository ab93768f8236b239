//! Where sessions live (A2): each has a home, a group, which the placement knows and routers remember. A mistake is harmless: a
//! router that does not own a group refuses its calls, and the placement has the last word on homes.

mod groups;
mod known;
mod looking;
#[cfg(test)]
mod tests;

use crate::elsewhere::pool;
pub(crate) use groups::{Groups, OwnerLocation};
use known::Homes;
use pie_group::peers::Peers;
use pie_group::tenants::Tenant;
use pie_placement::{GroupId, Moved, Placement, PlacementError, RouterRecord, SessionKey};
use pie_proto::request::SessionName;
use pie_proto::{Fault, Reason, v1};
use std::sync::Arc;
use std::time::Duration;

/// A router that lives describes itself in this time.
const ASK_TIMEOUT: Duration = Duration::from_secs(1);
/// When a group that nobody owns should have an owner.
const RETRY: Duration = Duration::from_millis(500);

/// The home of a session, and who answers there.
#[derive(Clone)]
pub(crate) struct Home {
    /// Which group.
    pub group: GroupId,
    /// Whoever owns that.
    pub target: OwnerLocation,
}

/// Where a session is opened.
pub(crate) struct Site {
    /// The group that it is opened in.
    pub home: Home,
    was: PriorHome,
}

/// Where a session that is to be opened lives.
enum PriorHome {
    Nowhere,
    /// Where it is opened.
    There,
    /// In a group that is gone for good.
    Gone(GroupId),
}

/// Whether a session lives where it was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClaimOutcome {
    Home,
    /// Somebody else was quicker, or the group has just been closed: it is to be opened again, wherever that is.
    Elsewhere,
}

/// Why a session's home may be another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// There is no such session.
    Missing,
    /// The router does not own the group, or is not sure of that.
    Elsewhere,
}

/// The homes of sessions, as far as this router knows them.
pub(crate) struct Directory {
    placement: Arc<dyn Placement>,
    groups: Arc<Groups>,
    homes: Homes,
}

impl Directory {
    /// No home is known yet.
    pub fn new(placement: Arc<dyn Placement>, groups: Arc<Groups>) -> Self {
        Self { placement, groups, homes: Homes::default() }
    }

    /// The home of a session that is open.
    ///
    /// # Errors
    /// [`Reason::SessionUnknown`], [`Reason::NoGroup`].
    pub async fn home(&self, tenant: &Tenant, name: &SessionName) -> Result<Home, Fault> {
        let key = tenant.session_key(name)?;
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
        Ok(Home { target: self.groups.target_again(&group).await?, group })
    }

    /// What is said of a session that has no home. A placement that has just lost its data knows no homes until the owners have told
    /// them again: who is told then that there is no such session opens it once more, elsewhere.
    async fn homeless(&self, name: &SessionName) -> Fault {
        self.groups.look_again().await;
        if !self.groups.may_have_forgotten() {
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
        let key = tenant.session_key(name).ok()?;
        self.groups.look_again().await;
        match (self.placement.session_home(&key).await, refused) {
            (Ok(Some(home)), _) => self.homes.insert(key, home),
            // A store that lost its data knows no homes for a while: what is known here is better than nothing.
            (_, Refused::Elsewhere) => self.homes.insert(key, asked.group.clone()),
            (_, Refused::Missing) => self.homes.remove(&key),
        };
        let home = self.home(tenant, name).await.ok()?;
        let same = match (&home.target, &asked.target) {
            (OwnerLocation::Local(_), OwnerLocation::Local(_)) => home.group == asked.group,
            (OwnerLocation::Remote(now), OwnerLocation::Remote(then)) => {
                now.id == then.id && home.group == asked.group
            }
            _ => false,
        };
        (!same).then_some(home)
    }

    /// Where a session that is to be opened is, or is to be.
    ///
    /// # Errors
    /// [`Reason::NoGroup`].
    pub async fn site(&self, tenant: &Tenant, name: &SessionName, bytes: usize) -> Result<Site, Fault> {
        let key = tenant.session_key(name)?;
        let known = self.homes.get(&key);
        let home = match known.filter(|group| self.groups.target(group).is_ok()) {
            Some(group) => Some(group),
            None => self.placement.session_home(&key).await.map_err(|error| unplaced(&error))?,
        };
        match home {
            None => {
                // Where it is known to live it stays, though nobody serves the group right now, and the store may have lost the home.
                let known = self.homes.get(&key).filter(|group| self.groups.wants(group));
                let home = match known {
                    Some(group) => Home { target: self.groups.target_again(&group).await?, group },
                    None => self.groups.roomiest(None).await?,
                };
                self.groups.book(&home.group, bytes);
                Ok(Site { home, was: PriorHome::Nowhere })
            }
            Some(group) if self.groups.is_gone(&group) => {
                Ok(Site { home: self.groups.roomiest(None).await?, was: PriorHome::Gone(group) })
            }
            Some(group) => {
                let home = Home { target: self.groups.target_again(&group).await?, group };
                Ok(Site { home, was: PriorHome::There })
            }
        }
    }

    /// Makes the site the home of a session that has been opened there (A2). A home is only ever made for a session that is there,
    /// so that nothing is to be taken back which somebody else has found meanwhile.
    pub async fn claim(
        &self,
        tenant: &Tenant,
        name: &SessionName,
        site: &Site,
    ) -> Result<ClaimOutcome, Fault> {
        let (key, group) = (tenant.session_key(name)?, &site.home.group);
        if let PriorHome::Gone(old) = &site.was {
            let moved = self.placement.move_session(&key, old, group).await;
            return Ok(match moved.map_err(|error| unplaced(&error))? {
                Moved::Done => self.settle(key, group),
                Moved::Conflict { .. } => ClaimOutcome::Elsewhere,
            });
        }
        match self.placement.place_session(&key, group).await {
            Ok(placed) if placed.group() == group => Ok(self.settle(key, group)),
            Ok(_) => {
                self.homes.remove(&key);
                Ok(ClaimOutcome::Elsewhere)
            }
            Err(PlacementError::GroupCordoned { .. }) => {
                self.homes.remove(&key);
                self.groups.look().await;
                Ok(ClaimOutcome::Elsewhere)
            }
            Err(error) => Err(unplaced(&error)),
        }
    }

    fn settle(&self, key: SessionKey, group: &GroupId) -> ClaimOutcome {
        self.homes.insert(key, group.clone());
        ClaimOutcome::Home
    }

    /// The home of a session as the placement knows it at this moment.
    pub async fn home_now(&self, tenant: &Tenant, name: &SessionName) -> Result<Option<GroupId>, Fault> {
        self.placement.session_home(&tenant.session_key(name)?).await.map_err(|error| unplaced(&error))
    }

    /// The session lives nowhere now, if it lived in `group`.
    pub async fn forget(&self, tenant: &Tenant, name: &SessionName, group: &GroupId) -> Result<(), Fault> {
        let key = tenant.session_key(name)?;
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
        let key = tenant.session_key(name)?;
        let moved = self.placement.move_session(&key, from, to).await.map_err(|error| unplaced(&error))?;
        self.homes.remove(&key);
        Ok(moved)
    }
}

/// What another router says of its own groups.
pub(crate) async fn describe(
    peers: &Peers,
    router: &RouterRecord,
) -> Result<v1::DescribePoolResponse, tonic::Status> {
    let mut pool = pool(peers.channel(router)?);
    let answer = tokio::time::timeout(ASK_TIMEOUT, pool.describe_pool(v1::DescribePoolRequest {})).await;
    let late = || tonic::Status::unavailable("no answer in time");
    Ok(answer.unwrap_or_else(|_| Err(late()))?.into_inner())
}

fn unplaced(error: &PlacementError) -> Fault {
    Fault::new(Reason::NoGroup, error.to_string()).retry_after(RETRY)
}
