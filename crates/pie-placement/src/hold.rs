//! Handles of things that are held by a lease. Dropping one gives the thing up.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use pie_plan::Epoch;
use tokio::sync::watch;

use crate::{GroupId, Owner, PlacementError, RankRecord};

/// Whether a lease still protects what it was taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseState {
    /// Renewed in time.
    Held,
    /// No renewal was answered for a whole time to live: the lease may have run out and somebody else may hold the thing.
    /// Goes back to [`LeaseState::Held`] if the service returns and still knows the lease. A holder that nobody fences
    /// must stop here; the owner of a group is fenced by its epoch at every rank (A1) and may go on until it is refused.
    Doubtful,
    /// It is gone for good: stop writing, and claim again if the thing is still wanted.
    Lost(LossReason),
}

/// Why a lease is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LossReason {
    /// The holder gave it up.
    Released,
    /// The service no longer knows it: it ran out, or a new run of the same worker ended it.
    Expired,
    /// The task that renewed it is gone, with its runtime.
    KeeperStopped,
}

/// Follows the state of a lease; may be cloned and may outlive the handle.
#[derive(Clone, Debug)]
pub struct LeaseWatch {
    state: watch::Receiver<LeaseState>,
}

impl LeaseWatch {
    /// The state now.
    pub fn state(&self) -> LeaseState {
        let state = *self.state.borrow();
        match state {
            LeaseState::Lost(_) => state,
            // Order matters: a keeper writes its last state before it lets go of the channel.
            _ if self.state.has_changed().is_err() => match *self.state.borrow() {
                lost @ LeaseState::Lost(_) => lost,
                _ => LeaseState::Lost(LossReason::KeeperStopped),
            },
            _ => state,
        }
    }

    /// Waits for the next change and returns it; returns at once if the lease is lost. Cancel safe.
    pub async fn changed(&mut self) -> LeaseState {
        if let lost @ LeaseState::Lost(_) = self.state() {
            return lost;
        }
        // An error means that the keeper is gone, which `state` reports.
        let _ = self.state.changed().await;
        self.state()
    }

    /// Waits until the lease is lost for good. Cancel safe.
    pub async fn lost(&mut self) -> LossReason {
        loop {
            if let LeaseState::Lost(reason) = self.changed().await {
                return reason;
            }
        }
    }
}

/// How a holder lets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Remove the keys now.
    Revoke,
    /// Stop renewing and let the lease run out.
    Abandon,
}

type Ending = Pin<Box<dyn Future<Output = Result<(), PlacementError>> + Send>>;
type EndFn = Box<dyn FnOnce(End) -> Ending + Send + Sync>;

/// A lease and how to end it. The call of `end` starts the end, its future only waits for the confirmation.
pub(crate) struct Hold {
    state: watch::Receiver<LeaseState>,
    end: Option<EndFn>,
}

impl Hold {
    pub(crate) fn new(
        state: watch::Receiver<LeaseState>,
        end: impl FnOnce(End) -> Ending + Send + Sync + 'static,
    ) -> Self {
        Self { state, end: Some(Box::new(end)) }
    }

    fn watch(&self) -> LeaseWatch {
        LeaseWatch { state: self.state.clone() }
    }

    async fn release(mut self) -> Result<(), PlacementError> {
        match self.end.take() {
            Some(end) => end(End::Revoke).await,
            None => Ok(()),
        }
    }

    fn abandon(mut self) {
        if let Some(end) = self.end.take() {
            drop(end(End::Abandon));
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if let Some(end) = self.end.take() {
            drop(end(End::Revoke));
        }
    }
}

macro_rules! lease_methods {
    () => {
        /// Follows the lease.
        pub fn lease(&self) -> LeaseWatch {
            self.hold.watch()
        }

        /// Waits until the lease is lost for good. Cancel safe.
        pub async fn lost(&self) -> LossReason {
            self.lease().lost().await
        }

        /// Gives it up and waits until others can see that. Dropping the handle does the same without waiting.
        ///
        /// # Errors
        /// [`PlacementError::Unavailable`] if the service did not confirm; it is gone when the lease runs out.
        pub async fn release(self) -> Result<(), PlacementError> {
            self.hold.release().await
        }

        /// Stops renewing the lease and leaves it to run out, as if the holder had died.
        pub fn abandon(self) {
            self.hold.abandon();
        }
    };
}

/// An announced rank; dropping it withdraws the announcement.
#[must_use = "dropping a registration withdraws the rank"]
pub struct Registration {
    record: RankRecord,
    hold: Hold,
}

impl Registration {
    pub(crate) fn new(record: RankRecord, hold: Hold) -> Self {
        Self { record, hold }
    }

    /// What was announced.
    pub fn record(&self) -> &RankRecord {
        &self.record
    }

    lease_methods!();
}

/// The ownership of a group; dropping it lets another router win.
#[must_use = "dropping an ownership gives the group away"]
pub struct Ownership {
    group: GroupId,
    epoch: Epoch,
    hold: Hold,
}

impl Ownership {
    pub(crate) fn new(group: GroupId, epoch: Epoch, hold: Hold) -> Self {
        Self { group, epoch, hold }
    }

    /// The group that is owned.
    pub fn group(&self) -> &GroupId {
        &self.group
    }

    /// Invariant A1: the revision of the ownership key, greater than that of every earlier owner of the group.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    lease_methods!();
}

/// The outcome of an election.
#[derive(Debug)]
pub enum Campaign {
    /// The caller owns the group.
    Won(Ownership),
    /// Somebody owns it already; possibly the caller, by an earlier call.
    Held(Owner),
}

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registration")
            .field("record", &self.record)
            .field("lease", &self.lease().state())
            .finish()
    }
}

impl fmt::Debug for Ownership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ownership")
            .field("group", &self.group)
            .field("epoch", &self.epoch)
            .field("lease", &self.lease().state())
            .finish()
    }
}
