//! What followers see: the newest state of a few keys, told as changes. A slow follower costs no memory, since it compares
//! the newest state with what it knew; it misses what came and went between two looks, but never a replacement.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use pie_words::Epoch;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::{Owner, RankRecord, RouterRecord};

/// A value and the revision that wrote it; a replaced value has another revision even if it is equal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredValue<T> {
    pub(crate) revision: u64,
    pub(crate) value: T,
}

/// The newest known state of the keys of one kind, by rank (0 for an owner).
#[derive(Clone, Debug)]
pub(crate) struct KnownState<T> {
    pub(crate) entries: BTreeMap<u32, StoredValue<T>>,
    /// Why the state may be old, if it may be.
    pub(crate) stale: Option<Arc<str>>,
}

impl<T> Default for KnownState<T> {
    fn default() -> Self {
        Self { entries: BTreeMap::new(), stale: None }
    }
}

/// Ends the task that feeds a view when its follower is dropped.
pub(crate) struct Feeder(pub(crate) AbortHandle);

impl Drop for Feeder {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A change of a group's ranks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RankEvent {
    /// Always the first event, and only the first: the ranks that are announced, by rank.
    Present(Vec<RankRecord>),
    /// A rank was announced.
    Joined(RankRecord),
    /// A rank is gone: withdrawn, or its lease ran out. A worker that was replaced leaves and joins.
    Left(RankRecord),
    /// The placement service does not answer; what was told may be out of date until [`RankEvent::Current`].
    Stale {
        /// Why nothing can be heard.
        reason: String,
    },
    /// The service answers again, and the changes meanwhile have been told.
    Current,
}

/// Follows the ranks of a group.
pub struct RankWatch {
    view: watch::Receiver<KnownState<RankRecord>>,
    known: Option<KnownState<RankRecord>>,
    pending: VecDeque<RankEvent>,
    _feeder: Option<Feeder>,
}

impl RankWatch {
    pub(crate) fn new(view: watch::Receiver<KnownState<RankRecord>>, feeder: Option<Feeder>) -> Self {
        Self { view, known: None, pending: VecDeque::new(), _feeder: feeder }
    }

    /// Waits for the next event; `None` when the placement is gone and nothing will ever change again. Cancel safe.
    pub async fn next(&mut self) -> Option<RankEvent> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Some(event);
            }
            if self.known.is_some() {
                self.view.changed().await.ok()?;
            }
            let now = self.view.borrow_and_update().clone();
            self.tell(&now);
            self.known = Some(now);
        }
    }

    fn tell(&mut self, now: &KnownState<RankRecord>) {
        let pending = &mut self.pending;
        let was_stale = match &self.known {
            None => {
                pending
                    .push_back(RankEvent::Present(now.entries.values().map(|e| e.value.clone()).collect()));
                false
            }
            Some(known) => {
                let gone = known.entries.iter().filter(|(rank, entry)| {
                    now.entries.get(rank).is_none_or(|newer| newer.revision != entry.revision)
                });
                pending.extend(gone.map(|(_, entry)| RankEvent::Left(entry.value.clone())));
                let mut joined: Vec<_> = now
                    .entries
                    .iter()
                    .filter(|(rank, entry)| {
                        known.entries.get(rank).is_none_or(|older| older.revision != entry.revision)
                    })
                    .map(|(_, entry)| entry)
                    .collect();
                joined.sort_by_key(|entry| entry.revision);
                pending.extend(joined.into_iter().map(|entry| RankEvent::Joined(entry.value.clone())));
                known.stale.is_some()
            }
        };
        match &now.stale {
            Some(reason) if !was_stale => pending.push_back(RankEvent::Stale { reason: reason.to_string() }),
            None if was_stale => pending.push_back(RankEvent::Current),
            _ => {}
        }
    }
}

/// Follows the ownership of a group.
pub struct OwnerWatch {
    view: watch::Receiver<KnownState<RouterRecord>>,
    /// The last owner told, if one was told.
    known: Option<Option<Owner>>,
    _feeder: Option<Feeder>,
}

impl OwnerWatch {
    pub(crate) fn new(view: watch::Receiver<KnownState<RouterRecord>>, feeder: Option<Feeder>) -> Self {
        Self { view, known: None, _feeder: feeder }
    }

    /// First the present owner, then waits for each change and returns the owner since then (`Some(None)`: the group is
    /// free); `None` when the placement is gone. Cancel safe.
    pub async fn next(&mut self) -> Option<Option<Owner>> {
        loop {
            if self.known.is_some() {
                self.view.changed().await.ok()?;
            }
            let now = self.view.borrow_and_update().owner();
            if self.known.as_ref() != Some(&now) {
                self.known = Some(now.clone());
                return Some(now);
            }
        }
    }
}

impl KnownState<RouterRecord> {
    pub(crate) fn owner(&self) -> Option<Owner> {
        let entry = self.entries.get(&0)?;
        Some(Owner { router: entry.value.clone(), epoch: Epoch(entry.revision) })
    }
}
