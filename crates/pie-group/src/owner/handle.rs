//! An owner for those who want something of it.

use super::inbox::Inbox;
use super::tenure::Tenure;
use super::{Event, GroupState, Holdings, Watched};
use crate::call::Call;
use crate::faults;
use crate::stats::{RankTimes, Stats};
use pie_proto::Fault;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};

/// What an owner must be told is told in this time, or it hangs.
const TELLING: Duration = Duration::from_secs(10);

/// A handle of the owner.
#[derive(Clone)]
pub struct OwnerHandle {
    pub(crate) events: mpsc::Sender<Event>,
    pub(super) inbox: Inbox,
    pub(crate) tenure: Tenure,
    pub(crate) state: watch::Receiver<GroupState>,
    pub(crate) holdings: watch::Receiver<Holdings>,
    pub(super) stats: Arc<Stats>,
    pub(super) ranks: Arc<[RankTimes]>,
}

impl OwnerHandle {
    /// Hands a call to the owner.
    ///
    /// # Errors
    /// `OVERLOADED` when too many wait, `SHUTTING_DOWN` when it is gone.
    pub fn call(&self, call: Call) -> Result<(), Fault> {
        self.inbox.put(call)
    }

    /// Asks the owner, and waits for its answer.
    ///
    /// # Errors
    /// As of [`OwnerHandle::call`].
    pub async fn ask<T>(&self, call: impl FnOnce(oneshot::Sender<T>) -> Call) -> Result<T, Fault> {
        let (reply, answer) = oneshot::channel();
        self.call(call(reply))?;
        answer.await.map_err(|_| faults::stopping())
    }

    /// The same where the call waits for a place in the owner's queue.
    ///
    /// # Errors
    /// As of [`OwnerHandle::tell`].
    pub async fn ask_surely<T>(&self, call: impl FnOnce(oneshot::Sender<T>) -> Call) -> Result<T, Fault> {
        let (reply, answer) = oneshot::channel();
        self.tell(call(reply)).await?;
        answer.await.map_err(|_| faults::stopping())
    }

    /// Tells the owner what it must not miss: waits until there is a place in its queue.
    ///
    /// # Errors
    /// `OVERLOADED` when none becomes free for long, `SHUTTING_DOWN` when it is gone.
    pub async fn tell(&self, call: Call) -> Result<(), Fault> {
        self.inbox.put_within(TELLING, call).await
    }

    /// Ends the owner, whoever still has a handle: completions fail, and the group is given up, so that another router need
    /// not wait for a lease to run out. Returns when that is done.
    pub async fn stop(&self) {
        let mut state = self.state.clone();
        // One that has ended already needs no telling.
        let _ = self.events.send(Event::Stop).await;
        while state.changed().await.is_ok() {}
    }

    /// Gives the group up, with its documents, which wait here for its next owner. Nothing else is answered from then on.
    pub async fn retire(&self) {
        let (done, retired) = oneshot::channel();
        if self.events.send(Event::Retire { done }).await.is_ok() {
            let _ = retired.await;
        }
    }

    /// What it held when its task last had nothing more to do, or gave the group up.
    pub fn holdings(&self) -> Holdings {
        *self.holdings.borrow()
    }

    /// What the owner counts.
    pub fn stats(&self) -> &Arc<Stats> {
        &self.stats
    }

    /// A handle for those who only look on.
    pub fn watch(&self) -> Watched {
        Watched {
            events: self.events.downgrade(),
            inbox: self.inbox.clone(),
            state: self.state.clone(),
            stats: self.stats.clone(),
            ranks: self.ranks.clone(),
        }
    }

    /// The state of the group as it is: a copy, so that nobody holds the owner's lock while they go on.
    pub fn now(&self) -> GroupState {
        self.state.borrow().clone()
    }

    /// The state of the group, to watch.
    pub fn state(&self) -> watch::Receiver<GroupState> {
        self.state.clone()
    }
}
