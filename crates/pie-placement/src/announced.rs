//! A rank that stays announced: a lease that is lost, for whatever reason, is taken again, without end.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use crate::pauses::Backoff;
use crate::{LeaseState, LeaseWatch, Placement, PlacementError, RankRecord, Registration, Ttl};

/// The longest pause between two attempts: whoever has lost its place is back soon after the service is.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// How an announcement stands, to ask again and again.
#[derive(Clone, Debug)]
pub struct Announcing {
    standing: watch::Receiver<Announcement>,
}

#[derive(Clone, Debug)]
enum Announcement {
    /// It is not there, and why.
    Missing(Arc<PlacementError>),
    /// It has not been tried yet, or is tried again right now.
    Trying,
    /// It is, as long as the lease is.
    There(LeaseWatch),
}

impl Announcing {
    /// # Errors
    /// Why others may not find the rank, in words.
    pub fn now(&self) -> Result<(), String> {
        match &*self.standing.borrow() {
            Announcement::Trying => Err("the rank is being registered".to_owned()),
            Announcement::Missing(error) => Err(format!("the rank is not registered: {error}")),
            Announcement::There(lease) => match lease.state() {
                LeaseState::Held => Ok(()),
                LeaseState::Doubtful => {
                    Err("the rank's registration is in doubt: no renewal of its lease was answered in time"
                        .to_owned())
                }
                LeaseState::Lost(_) => Err("the rank's registration was lost: it registers again".to_owned()),
            },
        }
    }
}

/// A rank that is announced until this is withdrawn or dropped.
#[must_use = "dropping an announcement withdraws the rank"]
pub struct Announced {
    standing: watch::Receiver<Announcement>,
    /// Dropped, it ends the announcement, too.
    withdraw: oneshot::Sender<oneshot::Sender<Result<(), PlacementError>>>,
}

impl Announced {
    /// Starts to announce a rank.
    pub fn start(placement: Arc<dyn Placement>, record: RankRecord, ttl: Ttl) -> Self {
        let (withdraw, withdrawn) = oneshot::channel();
        let (told, standing) = watch::channel(Announcement::Trying);
        tokio::spawn(announce(placement, record, ttl, told, withdrawn));
        Self { standing, withdraw }
    }

    /// Waits until the rank is announced for the first time. A rank that another worker holds is waited for: that one may be dead, and
    /// its lease run out.
    ///
    /// # Errors
    /// What will not pass by itself, or has not for two times to live.
    pub async fn first(&mut self, ttl: Ttl) -> Result<(), PlacementError> {
        let patience = Instant::now() + 2 * ttl.duration();
        loop {
            let refused = match &*self.standing.borrow_and_update() {
                Announcement::There(_) => return Ok(()),
                Announcement::Trying => None,
                Announcement::Missing(error) => Some(error.clone()),
            };
            if let Some(error) = refused.filter(|error| !error.is_transient() || patience <= Instant::now()) {
                return Err(PlacementError::clone(&error));
            }
            // The task ends with this handle only.
            if self.standing.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// How the announcement stands now.
    pub fn standing(&self) -> Announcing {
        Announcing { standing: self.standing.clone() }
    }

    /// Takes the announcement back, and waits until others can see that.
    ///
    /// # Errors
    /// [`PlacementError::Unavailable`] if the service did not confirm; it is gone when the lease runs out.
    pub async fn withdraw(self) -> Result<(), PlacementError> {
        let (done, confirmed) = oneshot::channel();
        let _ = self.withdraw.send(done);
        confirmed.await.unwrap_or(Ok(()))
    }
}

type Withdrawn = oneshot::Receiver<oneshot::Sender<Result<(), PlacementError>>>;

async fn announce(
    placement: Arc<dyn Placement>,
    record: RankRecord,
    ttl: Ttl,
    told: watch::Sender<Announcement>,
    mut withdrawn: Withdrawn,
) {
    let (rank, group) = (record.rank, record.group.clone());
    let mut backoff = Backoff::up_to(LONGEST_PAUSE);
    let mut said = None;
    loop {
        let registered = tokio::select! {
            registered = placement.register_rank(record.clone(), ttl) => registered,
            // What may have been claimed meanwhile goes with the call.
            done = &mut withdrawn => return finish(done.ok(), None).await,
        };
        let pause = match registered {
            Ok(registration) => {
                let mut lease = registration.lease();
                told.send_replace(Announcement::There(lease.clone()));
                if said.take().is_some() {
                    tracing::info!(%group, rank, "the rank is registered again");
                }
                let reason = tokio::select! {
                    reason = lease.lost() => reason,
                    done = &mut withdrawn => return finish(done.ok(), Some(registration)).await,
                };
                tracing::warn!(%group, rank, ?reason, "the rank's registration was lost: registering again");
                said = Some("LEASE_LOST");
                backoff = Backoff::up_to(LONGEST_PAUSE);
                told.send_replace(Announcement::Trying);
                Duration::ZERO
            }
            Err(error) => {
                // Once for each kind of trouble, not for each attempt.
                if said.replace(error.code()) != Some(error.code()) {
                    tracing::warn!(%group, rank, %error, "the rank is not registered: trying again");
                }
                told.send_replace(Announcement::Missing(Arc::new(error)));
                backoff.pause()
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            done = &mut withdrawn => return finish(done.ok(), None).await,
        }
    }
}

async fn finish(done: Option<oneshot::Sender<Result<(), PlacementError>>>, held: Option<Registration>) {
    let ended = match held {
        Some(registration) => registration.release().await,
        None => Ok(()),
    };
    if let Some(done) = done {
        // Nobody may wait for it any more.
        let _ = done.send(ended);
    }
}
