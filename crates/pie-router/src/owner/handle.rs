//! An owner for those who want something of it.

use super::{Event, QUEUE, State, Watched};
use crate::call::Call;
use crate::faults;
use crate::stats::{RankTimes, Stats};
use pie_proto::Fault;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::Span;

/// What an owner must be told is told in this time, or it hangs.
const TELLING: Duration = Duration::from_secs(10);

/// A handle of the owner.
#[derive(Clone)]
pub struct Owner {
    pub(super) events: mpsc::Sender<Event>,
    pub(super) state: watch::Receiver<State>,
    pub(super) stats: Arc<Stats>,
    pub(super) ranks: Arc<[RankTimes]>,
}

impl Owner {
    /// Hands a call to the owner.
    ///
    /// # Errors
    /// `OVERLOADED` when its queue is full, `SHUTTING_DOWN` when it is gone.
    pub fn call(&self, call: Call) -> Result<(), Fault> {
        self.events.try_send(Event::Call(call, Span::current())).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => faults::too_many_calls(QUEUE),
            mpsc::error::TrySendError::Closed(_) => faults::stopping(),
        })
    }

    /// Tells the owner what it must not miss: waits until there is a place in its queue.
    ///
    /// # Errors
    /// `OVERLOADED` when none becomes free for long, `SHUTTING_DOWN` when it is gone.
    pub async fn tell(&self, call: Call) -> Result<(), Fault> {
        let event = Event::Call(call, Span::current());
        match tokio::time::timeout(TELLING, self.events.send(event)).await {
            Ok(told) => told.map_err(|_| faults::stopping()),
            Err(_) => Err(faults::too_many_calls(QUEUE)),
        }
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

    /// What the owner counts.
    pub fn stats(&self) -> &Arc<Stats> {
        &self.stats
    }

    /// A handle for those who only look on.
    pub fn watch(&self) -> Watched {
        Watched {
            events: self.events.downgrade(),
            state: self.state.clone(),
            stats: self.stats.clone(),
            ranks: self.ranks.clone(),
        }
    }

    /// The state of the group as it is: a copy, so that nobody holds the owner's lock while they go on.
    pub fn now(&self) -> State {
        self.state.borrow().clone()
    }

    /// The state of the group, to watch.
    pub fn state(&self) -> watch::Receiver<State> {
        self.state.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::Resident;
    use crate::tenants::Tenant;
    use pie_proto::Reason;
    use pie_proto::request::{Identity, SessionName};

    /// A session whose mover could not say that it stays was on its way for ever.
    #[tokio::test]
    async fn what_an_owner_must_be_told_waits_for_a_place_in_a_full_queue() {
        let (events, mut queue) = mpsc::channel(1);
        let (_, state) = watch::channel(State::Serving);
        let owner = Owner { events, state, stats: Arc::default(), ranks: Arc::new([]) };
        let keep = || {
            let name = SessionName::new("a".to_owned()).expect("a right name");
            let resident = Resident { tenant: Tenant::default(), name, identity: Identity::of_bits(1) };
            Call::Keep { resident }
        };
        owner.call(keep()).expect("there is a place");
        let refused = owner.call(keep()).expect_err("the queue is full");
        assert_eq!(refused.reason, Reason::Overloaded, "clients can ask again");
        let told = tokio::spawn(async move { owner.tell(keep()).await });
        tokio::task::yield_now().await;
        for _ in 0..2 {
            assert!(matches!(queue.recv().await, Some(Event::Call(Call::Keep { .. }, _))));
        }
        assert_eq!(told.await.expect("no panic"), Ok(()));
    }
}
