//! Handles of things that are held by a lease. Dropping one gives the thing up.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use pie_words::Epoch;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::{GroupId, Owner, PlacementError, RankRecord};

/// Whether a lease still protects what it was taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseState {
    /// Renewed in time.
    Held,
    /// No renewal was answered for nearly a whole time to live: the lease may run out, and somebody else may hold the thing.
    /// Goes back to [`LeaseState::Held`] if the service returns and still knows the lease. A holder stops here, and waits.
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
    sure_until: watch::Receiver<Option<Instant>>,
}

impl LeaseWatch {
    /// The state now. It is found by the clock, not by what somebody has noticed meanwhile: a process that was frozen and goes on
    /// is told of its doubts at once.
    pub fn state(&self) -> LeaseState {
        match self.told() {
            LeaseState::Held if self.sure_until.borrow().is_some_and(|until| until <= Instant::now()) => {
                LeaseState::Doubtful
            }
            state => state,
        }
    }

    /// What the keeper said last.
    fn told(&self) -> LeaseState {
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

/// The other end of a [`LeaseWatch`]: whoever renews a lease says here how it stands. A dropped one has lost the lease.
#[derive(Debug)]
pub struct LeaseKeeper {
    state: watch::Sender<LeaseState>,
    sure_until: watch::Sender<Option<Instant>>,
}

impl Default for LeaseKeeper {
    fn default() -> Self {
        Self::new()
    }
}

impl LeaseKeeper {
    /// A lease that is held, for ever unless somebody says otherwise.
    pub fn new() -> Self {
        Self { state: watch::Sender::new(LeaseState::Held), sure_until: watch::Sender::new(None) }
    }

    /// For those who follow the lease.
    pub fn watch(&self) -> LeaseWatch {
        LeaseWatch { state: self.state.subscribe(), sure_until: self.sure_until.subscribe() }
    }

    /// The lease certainly lives until then; from then on it is in doubt, until this is said again. True if it was in doubt.
    pub fn confirm(&self, sure_until: Instant) -> bool {
        self.sure_until.send_replace(Some(sure_until));
        self.set(LeaseState::Held)
    }

    /// The lease may have run out. True if that is news.
    pub fn doubt(&self) -> bool {
        self.set(LeaseState::Doubtful)
    }

    /// The lease is gone. True if that is news.
    pub fn lose(&self, reason: LossReason) -> bool {
        self.set(LeaseState::Lost(reason))
    }

    /// Whether it was confirmed and nobody has raised doubts since.
    #[cfg(feature = "etcd")]
    pub(crate) fn is_held(&self) -> bool {
        *self.state.borrow() == LeaseState::Held
    }

    /// What is lost stays lost.
    fn set(&self, state: LeaseState) -> bool {
        self.state.send_if_modified(|present| {
            let new = *present != state && !matches!(present, LeaseState::Lost(_));
            if new {
                *present = state;
            }
            new
        })
    }
}

/// How a holder lets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Remove the keys now.
    Revoke,
    /// Stop renewing and let the lease run out.
    Abandon,
}

/// Waits until others can see the end.
pub type EndConfirmation = Pin<Box<dyn Future<Output = Result<(), PlacementError>> + Send>>;
type EndFn = Box<dyn FnOnce(End) -> EndConfirmation + Send + Sync>;

/// A lease and how to end it; for those who write a placement. The call of `end` starts the end, its future only waits for the
/// confirmation.
pub struct Hold {
    /// Names the lease in its placement.
    id: u64,
    lease: LeaseWatch,
    end: Option<EndFn>,
}

impl Hold {
    /// A lease that ends with its holder.
    pub fn new(
        id: u64,
        lease: LeaseWatch,
        end: impl FnOnce(End) -> EndConfirmation + Send + Sync + 'static,
    ) -> Self {
        Self { id, lease, end: Some(Box::new(end)) }
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
            self.hold.lease.clone()
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
    /// A rank that is announced as long as the hold lives.
    pub fn new(record: RankRecord, hold: Hold) -> Self {
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
    /// A group that is owned as long as the hold lives.
    pub fn new(group: GroupId, epoch: Epoch, hold: Hold) -> Self {
        Self { group, epoch, hold }
    }

    /// The group that is owned.
    pub fn group(&self) -> &GroupId {
        &self.group
    }

    /// Invariant A1: the revision of the ownership key, greater than that of every earlier owner of the group as long as the store
    /// keeps what it was told. One that lost it counts anew: whoever forms a group goes above what its ranks have served, too.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Names the lease, for the placement that granted it.
    pub fn lease_id(&self) -> u64 {
        self.hold.id
    }

    /// The same ownership after [`Placement::advance`](crate::Placement::advance).
    pub(crate) fn advanced(&mut self, epoch: Epoch) {
        self.epoch = epoch;
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// A process that was frozen past its lease knows that at its first look, before anybody had the time to tell it.
    #[tokio::test(start_paused = true)]
    async fn doubt_comes_with_the_clock_and_goes_with_a_renewal() {
        let keeper = LeaseKeeper::new();
        let lease = keeper.watch();
        assert_eq!(lease.state(), LeaseState::Held, "without a time to live there is no doubt");
        let second = Duration::from_secs(1);
        assert!(!keeper.confirm(Instant::now() + second), "it was in no doubt");
        tokio::time::advance(second / 2).await;
        assert_eq!(lease.state(), LeaseState::Held);
        tokio::time::advance(second / 2).await;
        assert_eq!(lease.state(), LeaseState::Doubtful);
        assert!(keeper.doubt(), "followers are told once");
        assert!(!keeper.doubt());
        assert!(keeper.confirm(Instant::now() + second));
        assert_eq!(lease.state(), LeaseState::Held);
        keeper.lose(LossReason::Expired);
        keeper.confirm(Instant::now() + second);
        assert_eq!(lease.state(), LeaseState::Lost(LossReason::Expired), "what is lost stays lost");
    }
}
