//! The trait that routers and workers are written against.

use async_trait::async_trait;

use crate::{
    Admission, Campaign, Forgotten, GroupId, GroupRecord, Moved, Owner, OwnerWatch, Ownership, Placed,
    PlacementError, RankRecord, RankWatch, Registration, RouterId, RouterRecord, SessionKey, Ttl,
};

/// Ranks with leases, owners by election, session homes by compare-and-set.
///
/// All methods may fail with [`PlacementError::Unavailable`] when the service behind them does not answer within its
/// deadline; all may then be called again. All are cancel safe in the sense that a claim whose caller went away
/// disappears, at the latest when its lease runs out.
#[async_trait]
pub trait Placement: Send + Sync {
    /// Announces a rank until the registration is released or dropped, or its lease runs out because the holder died.
    /// A live registration of the same rank *with the same control address* is taken for a former run of the same
    /// worker (an address is bound once): it is ended and replaced.
    ///
    /// # Errors
    /// [`PlacementError::RankTaken`] if a worker at another address holds the rank; `InvalidRecord`.
    async fn register_rank(&self, rank: RankRecord, ttl: Ttl) -> Result<Registration, PlacementError>;

    /// The announced ranks of a group, by rank.
    async fn ranks(&self, group: &GroupId) -> Result<Vec<RankRecord>, PlacementError>;

    /// Follows the ranks of a group: first those present, then what changes.
    async fn watch_ranks(&self, group: &GroupId) -> Result<RankWatch, PlacementError>;

    /// Tries once to own a group; never waits for the present owner to leave (see [`Placement::watch_owner`]).
    ///
    /// Invariant A1: the epoch won is the revision of the ownership key, greater than that of every earlier owner.
    async fn campaign(
        &self,
        group: &GroupId,
        router: &RouterRecord,
        ttl: Ttl,
    ) -> Result<Campaign, PlacementError>;

    /// Gives an ownership a later epoch (invariant A1), for a group that is formed again by the router that owns it already.
    ///
    /// # Errors
    /// [`PlacementError::NotOwner`] if it is gone: campaign again. `Unavailable`.
    async fn advance(&self, ownership: &mut Ownership) -> Result<(), PlacementError>;

    /// Ends the ownership of a router that is known to have died, if the group is still its, so that nobody need wait for its lease
    /// to run out. A router that lives after all loses the group by this: whoever owns it next must be able to fence it.
    async fn depose(&self, group: &GroupId, router: &RouterId) -> Result<(), PlacementError>;

    /// The owner of a group.
    async fn owner(&self, group: &GroupId) -> Result<Option<Owner>, PlacementError>;

    /// Follows the ownership of a group: first the present owner, then each change.
    async fn watch_owner(&self, group: &GroupId) -> Result<OwnerWatch, PlacementError>;

    /// Makes `group` the home of a session that has none (invariant A2), and says which group is its home now.
    ///
    /// # Errors
    /// [`PlacementError::GroupCordoned`] if the session is free and the group takes no new ones.
    async fn place_session(&self, session: &SessionKey, group: &GroupId) -> Result<Placed, PlacementError>;

    /// Moves a session, if it lives in `from`. A repeated call finds [`Moved::Conflict`] with `to` as the home.
    ///
    /// # Errors
    /// [`PlacementError::GroupCordoned`] if `to` takes no new sessions.
    async fn move_session(
        &self,
        session: &SessionKey,
        from: &GroupId,
        to: &GroupId,
    ) -> Result<Moved, PlacementError>;

    /// The home of a session.
    async fn session_home(&self, session: &SessionKey) -> Result<Option<GroupId>, PlacementError>;

    /// Forgets a session, if it lives in `group` or nowhere.
    async fn forget_session(
        &self,
        session: &SessionKey,
        group: &GroupId,
    ) -> Result<Forgotten, PlacementError>;

    /// All groups that have a rank, an owner or a cordon, by name.
    async fn groups(&self) -> Result<Vec<GroupRecord>, PlacementError>;

    /// Opens a group to new sessions or closes it. A cordon outlives ranks and owners.
    async fn set_admission(&self, group: &GroupId, admission: Admission) -> Result<(), PlacementError>;
}
