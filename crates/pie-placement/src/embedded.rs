//! The placement of a single process: no server, the same contract.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use pie_words::Epoch;
use tokio::sync::watch;

use crate::hold::{End, Hold};
use crate::view::{KnownState, StoredValue};
use crate::{
    Admission, Campaign, Forgotten, GroupId, GroupRecord, LeaseKeeper, LeaseWatch, LossReason, Moved, Owner,
    OwnerWatch, Ownership, Placed, Placement, PlacementError, RankRecord, RankWatch, Registration, RouterId,
    RouterRecord, SessionKey, Ttl,
};

/// Placement inside one process, the default. Clones share their state.
///
/// Revisions start at the wall clock's microseconds, so that epochs grow also from one run of the process to the next
/// and ranks that outlive a router accept its successor (A1).
#[derive(Clone)]
pub struct Embedded {
    state: Arc<Mutex<PoolState>>,
}

struct PoolState {
    /// Grows with every write; the revision of a key is its value after the write.
    revision: u64,
    groups: BTreeMap<GroupId, GroupEntry>,
    sessions: BTreeMap<SessionKey, GroupId>,
}

#[derive(Default)]
struct GroupEntry {
    ranks: watch::Sender<KnownState<RankRecord>>,
    owner: watch::Sender<KnownState<RouterRecord>>,
    /// By the revision at which each was granted.
    leases: BTreeMap<u64, Lease>,
    admission: Admission,
    closed_at: u64,
}

/// A lease, and the key that it protects.
struct Lease {
    keeper: LeaseKeeper,
    /// Of the key as it is now.
    revision: u64,
}

impl GroupEntry {
    /// Ends a lease, and removes its key with it.
    fn end(&mut self, granted: u64, reason: LossReason) {
        if let Some(Lease { keeper, revision }) = self.leases.remove(&granted) {
            remove_revision(&self.ranks, revision);
            remove_revision(&self.owner, revision);
            keeper.lose(reason);
        }
    }
}

fn remove_revision<T>(view: &watch::Sender<KnownState<T>>, revision: u64) {
    view.send_if_modified(|view| {
        let before = view.entries.len();
        view.entries.retain(|_, entry| entry.revision != revision);
        view.entries.len() != before
    });
}

impl PoolState {
    fn next_revision(&mut self) -> u64 {
        self.revision += 1;
        self.revision
    }

    fn admission(&self, group: &GroupId) -> Result<(), PlacementError> {
        match self.groups.get(group).map(|group| group.admission).unwrap_or_default() {
            Admission::Open => Ok(()),
            Admission::Cordoned | Admission::CordonedUntilFormed => {
                Err(PlacementError::GroupCordoned { group: group.clone() })
            }
        }
    }
}

impl Default for Embedded {
    fn default() -> Self {
        Self::new()
    }
}

impl Embedded {
    /// An empty placement.
    pub fn new() -> Self {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let revision = u64::try_from(since_1970.as_micros()).unwrap_or(u64::MAX / 2);
        let state = PoolState { revision, groups: BTreeMap::new(), sessions: BTreeMap::new() };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// Every change under this lock is complete before anything in it can panic, so a poisoned lock is still sound.
    fn lock(&self) -> MutexGuard<'_, PoolState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The handle of the key that was written at `revision`.
    fn hold(&self, group: &GroupId, revision: u64, lease: LeaseWatch, ttl: Ttl) -> Hold {
        // Weak: followers must see the end of the placement even if somebody still holds a handle.
        let state = Arc::downgrade(&self.state);
        let group = group.clone();
        let finish = move |reason| {
            if let Some(state) = state.upgrade() {
                let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(group) = state.groups.get_mut(&group) {
                    group.end(revision, reason);
                }
            }
        };
        Hold::new(revision, lease, move |end| {
            match end {
                End::Revoke => finish(LossReason::Released),
                End::Abandon => match tokio::runtime::Handle::try_current() {
                    Ok(runtime) => drop(runtime.spawn(async move {
                        tokio::time::sleep(ttl.duration()).await;
                        finish(LossReason::Expired);
                    })),
                    // Nobody can wait without a runtime: the lease ends early rather than never.
                    Err(_) => finish(LossReason::Expired),
                },
            }
            Box::pin(std::future::ready(Ok(())))
        })
    }
}

#[async_trait]
impl Placement for Embedded {
    async fn register_rank(&self, record: RankRecord, ttl: Ttl) -> Result<Registration, PlacementError> {
        record.check()?;
        let lease = LeaseKeeper::new();
        let lease_state = lease.watch();
        let mut state = self.lock();
        let revision = state.next_revision();
        let group = state.groups.entry(record.group.clone()).or_default();
        let present = group.ranks.borrow().entries.get(&record.rank).cloned();
        if let Some(present) = present {
            if present.value.control != record.control {
                return Err(PlacementError::RankTaken {
                    group: record.group,
                    rank: record.rank,
                    holder: present.value.control,
                });
            }
            group.end(present.revision, LossReason::Expired);
        }
        group.leases.insert(revision, Lease { keeper: lease, revision });
        group.ranks.send_modify(|view| {
            view.entries.insert(record.rank, StoredValue { revision, value: record.clone() });
        });
        drop(state);
        let hold = self.hold(&record.group, revision, lease_state, ttl);
        Ok(Registration::new(record, hold))
    }

    async fn ranks(&self, group: &GroupId) -> Result<Vec<RankRecord>, PlacementError> {
        let state = self.lock();
        Ok(state.groups.get(group).map(ranks_of).unwrap_or_default())
    }

    async fn watch_ranks(&self, group: &GroupId) -> Result<RankWatch, PlacementError> {
        let mut state = self.lock();
        let view = state.groups.entry(group.clone()).or_default().ranks.subscribe();
        Ok(RankWatch::new(view, None))
    }

    async fn campaign(
        &self,
        group: &GroupId,
        router: &RouterRecord,
        ttl: Ttl,
    ) -> Result<Campaign, PlacementError> {
        router.check()?;
        let lease = LeaseKeeper::new();
        let lease_state = lease.watch();
        let mut state = self.lock();
        let revision = state.next_revision();
        let record = state.groups.entry(group.clone()).or_default();
        let owner = record.owner.borrow().owner();
        if let Some(owner) = owner {
            return Ok(Campaign::Held(owner));
        }
        record.leases.insert(revision, Lease { keeper: lease, revision });
        record.owner.send_modify(|view| {
            view.entries.insert(0, StoredValue { revision, value: router.clone() });
        });
        drop(state);
        let hold = self.hold(group, revision, lease_state, ttl);
        Ok(Campaign::Won(Ownership::new(group.clone(), Epoch(revision), hold)))
    }

    async fn advance(&self, ownership: &mut Ownership) -> Result<(), PlacementError> {
        let mut state = self.lock();
        let revision = state.next_revision();
        let not_owner = || PlacementError::NotOwner { group: ownership.group().clone() };
        let record = state.groups.get_mut(ownership.group()).ok_or_else(not_owner)?;
        let lease = record.leases.get_mut(&ownership.lease_id()).ok_or_else(not_owner)?;
        lease.revision = revision;
        record.owner.send_modify(|view| {
            view.entries.entry(0).and_modify(|owner| owner.revision = revision);
        });
        drop(state);
        ownership.advanced(Epoch(revision));
        Ok(())
    }

    async fn depose(&self, group: &GroupId, router: &RouterId) -> Result<(), PlacementError> {
        let mut state = self.lock();
        let Some(record) = state.groups.get_mut(group) else { return Ok(()) };
        let owned =
            record.owner.borrow().entries.get(&0).map(|entry| (entry.value.id.clone(), entry.revision));
        if let Some((_, revision)) = owned.filter(|(owner, _)| owner == router) {
            let lease = record.leases.iter().find(|(_, lease)| lease.revision == revision).map(|(id, _)| *id);
            record.end(lease.unwrap_or(revision), LossReason::Expired);
        }
        Ok(())
    }

    async fn owner(&self, group: &GroupId) -> Result<Option<Owner>, PlacementError> {
        let state = self.lock();
        Ok(state.groups.get(group).and_then(|group| group.owner.borrow().owner()))
    }

    async fn watch_owner(&self, group: &GroupId) -> Result<OwnerWatch, PlacementError> {
        let mut state = self.lock();
        let view = state.groups.entry(group.clone()).or_default().owner.subscribe();
        Ok(OwnerWatch::new(view, None))
    }

    async fn place_session(&self, session: &SessionKey, group: &GroupId) -> Result<Placed, PlacementError> {
        let mut state = self.lock();
        if let Some(home) = state.sessions.get(session) {
            return Ok(Placed::Existing(home.clone()));
        }
        state.admission(group)?;
        state.sessions.insert(session.clone(), group.clone());
        Ok(Placed::Claimed(group.clone()))
    }

    async fn move_session(
        &self,
        session: &SessionKey,
        from: &GroupId,
        to: &GroupId,
    ) -> Result<Moved, PlacementError> {
        let mut state = self.lock();
        let home = state.sessions.get(session);
        if home != Some(from) {
            return Ok(Moved::Conflict { home: home.cloned() });
        }
        state.admission(to)?;
        state.sessions.insert(session.clone(), to.clone());
        Ok(Moved::Done)
    }

    async fn session_home(&self, session: &SessionKey) -> Result<Option<GroupId>, PlacementError> {
        Ok(self.lock().sessions.get(session).cloned())
    }

    async fn forget_session(
        &self,
        session: &SessionKey,
        group: &GroupId,
    ) -> Result<Forgotten, PlacementError> {
        let mut state = self.lock();
        match state.sessions.get(session) {
            Some(home) if home != group => Ok(Forgotten::Conflict { home: home.clone() }),
            _ => {
                state.sessions.remove(session);
                Ok(Forgotten::Done)
            }
        }
    }

    async fn groups(&self) -> Result<Vec<GroupRecord>, PlacementError> {
        let state = self.lock();
        let records = state.groups.iter().map(|(id, group)| GroupRecord {
            group: id.clone(),
            ranks: ranks_of(group),
            owner: group.owner.borrow().owner(),
            admission: group.admission,
            closed_at: group.closed_at,
        });
        Ok(records.filter(GroupRecord::is_known).collect())
    }

    async fn set_admission(&self, group: &GroupId, admission: Admission) -> Result<(), PlacementError> {
        let mut state = self.lock();
        let revision = state.next_revision();
        let record = state.groups.entry(group.clone()).or_default();
        record.closed_at = if admission == Admission::Open { 0 } else { revision };
        record.admission = admission;
        Ok(())
    }
}

fn ranks_of(group: &GroupEntry) -> Vec<RankRecord> {
    group.ranks.borrow().entries.values().map(|entry| entry.value.clone()).collect()
}
